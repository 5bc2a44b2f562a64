//! List of users.

use serde_json::{Value, json};

use flags_tests::{
    app::{TestApp, override_path},
    database::DatabaseKind,
    on_both_databases,
};

use super::USERS_PATH;

on_both_databases! {
    users_are_searched_filtered_sorted_and_paged,
}

async fn users_are_searched_filtered_sorted_and_paged(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    for (email, name) in [("zoe@example.com", "Ärger Müller"), ("ann_x@example.com", "Zed"), ("annyx@test.org", "Bob")]
    {
        app.admin.post(USERS_PATH, &json!({"email": email, "display_name": name})).await.expect(201);
    }
    let emails = async |query: &str| {
        let page = app.admin.get(&format!("{USERS_PATH}?{query}")).await.expect(200).json();
        page["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|user| user["email"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(emails("").await, ["ann_x@example.com", "annyx@test.org", "zoe@example.com"]);
    assert_eq!(emails("search=EXAMPLE").await, ["ann_x@example.com", "zoe@example.com"]);
    assert_eq!(emails("search=m%C3%9CLL").await, ["zoe@example.com"], "case is ignored for non-ASCII letters");
    assert_eq!(emails("search=nn_x").await, ["ann_x@example.com"], "`_` is not a wildcard");
    assert_eq!(
        emails("search=z").await,
        ["ann_x@example.com", "zoe@example.com"],
        "a term of one or two characters matches prefixes only"
    );
    assert_eq!(emails("search=x").await, [""; 0]);
    assert_eq!(emails("search=om%0Az").await, [""; 0], "no match spans e-mail and name");
    app.create_boolean_flag("f").await;
    let user_id = app.admin.get(&format!("{USERS_PATH}?search=annyx")).await.json()["items"][0]["id"]
        .as_str()
        .unwrap()
        .to_owned();
    app.admin
        .put(&override_path(&user_id, "f"), &json!({"override_value": true, "expires_at": "2030-01-01T00:00:01Z"}))
        .await
        .expect(201);
    assert_eq!(emails("has_overrides=true").await, ["annyx@test.org"]);
    assert_eq!(emails("has_overrides=false").await.len(), 2);
    app.admin.post("/api/admin/feature-flags/f/archive", &Value::Null).await.expect(200);
    assert_eq!(emails("has_overrides=true").await, [""; 0], "overrides of archived flags do not count");
    app.admin.post("/api/admin/feature-flags/f/restore", &Value::Null).await.expect(200);
    assert_eq!(emails("has_overrides=true").await.len(), 1);
    app.set_clock("01-01T00:00:01Z");
    assert_eq!(emails("has_overrides=true").await, [""; 0]);
    for sort in ["email", "-created_at"] {
        let all = emails(&format!("sort={sort}")).await;
        let first_page = app.admin.get(&format!("{USERS_PATH}?sort={sort}&limit=2")).await.json();
        let cursor = first_page["next_cursor"].as_str().unwrap();
        assert_eq!(emails(&format!("sort={sort}&limit=2&cursor={cursor}")).await, all[2..]);
    }
}
