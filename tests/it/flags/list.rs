//! List of flags.

use serde_json::{Value, json};

use flags_tests::{app::TestApp, database::DatabaseKind, on_both_databases};

use super::FLAGS_PATH;

on_both_databases! {
    flags_are_sorted_filtered_and_paged,
}

async fn flags_are_sorted_filtered_and_paged(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    for (name, description, tags) in [
        ("b_x", "Second", json!(["red", "blue"])),
        ("a.z", "first ÉCLAIR", json!(["red"])),
        ("a", "Third", json!([])),
        ("bax", "", json!(["re"])),
    ] {
        app.create_flag(json!({"name": name, "flag_type": "boolean", "description": description, "tags": tags})).await;
    }
    app.admin.post(&format!("{FLAGS_PATH}/a/archive"), &Value::Null).await.expect(200);
    let names = async |query: &str| {
        let page = app.admin.get(&format!("{FLAGS_PATH}?{query}")).await.expect(200).json();
        page["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|flag| flag["name"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(names("").await, ["a", "a.z", "b_x", "bax"]);
    assert_eq!(names("sort=-updated_at").await, ["a", "bax", "a.z", "b_x"]);
    assert_eq!(names("archived=true").await, ["a"]);
    assert_eq!(names("archived=false").await, ["a.z", "b_x", "bax"]);
    assert_eq!(names("tag=red").await, ["a.z", "b_x"]);
    assert_eq!(names("tag=re").await, ["bax"], "the tag filter matches whole tags only");
    assert_eq!(names("tag=RED").await, [""; 0], "the tag filter is case-sensitive");
    assert_eq!(names("search=B_").await, ["b_x"]);
    assert_eq!(names("search=%C3%A9clair").await, ["a.z"]);
    for sort in ["name", "-updated_at"] {
        let all = names(&format!("sort={sort}")).await;
        let first_page = app.admin.get(&format!("{FLAGS_PATH}?sort={sort}&limit=3")).await.json();
        assert_eq!((&first_page["total"], &first_page["total_is_exact"]), (&json!(4), &json!(true)));
        let cursor = first_page["next_cursor"].as_str().unwrap();
        assert_eq!(names(&format!("sort={sort}&limit=3&cursor={cursor}")).await, all[3..]);
    }
}
