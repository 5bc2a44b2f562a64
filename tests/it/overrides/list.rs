//! Lists of overrides: all, of a user and of a flag.

use serde_json::{Value, json};

use flags_tests::{
    app::{TestApp, override_path, user_overrides_path},
    database::DatabaseKind,
    on_both_databases,
};

use super::LIST_PATH;

on_both_databases! {
    override_lists_are_sorted_filtered_and_paged,
}

async fn override_lists_are_sorted_filtered_and_paged(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    let mut users = Vec::new();
    for name in ["cleo", "ann", "Ben", "dan_x", "danyx"] {
        users.push(app.create_user(name).await.0);
    }
    for flag in ["b.two", "a", "b.one"] {
        app.create_boolean_flag(flag).await;
        app.admin.put(&override_path(&users[1], flag), &json!({"override_value": true})).await.expect(201);
    }
    for user in &users {
        let body = json!({"override_value": false, "enabled": user != &users[2], "expires_at": if user == &users[0] { json!("2030-01-02T00:00:00Z") } else { Value::Null }});
        app.admin.put(&override_path(user, "a"), &body).await;
    }
    let fetch_all = async |path: &str, field: &str| {
        let mut values = Vec::new();
        let mut cursor = String::new();
        loop {
            let separator = if path.contains('?') { '&' } else { '?' };
            let page = app.admin.get(&format!("{path}{separator}limit=2{cursor}")).await.expect(200).json();
            values
                .extend(page["items"].as_array().unwrap().iter().map(|item| item[field].as_str().unwrap().to_owned()));
            assert!(page["total_is_exact"].as_bool().unwrap());
            match page["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => {
                    assert_eq!(page["total"].as_u64().unwrap() as usize, values.len());
                    return values;
                }
            }
        }
    };
    assert_eq!(fetch_all(&user_overrides_path(&users[1]), "flag_name").await, ["a", "b.one", "b.two"]);
    let emails_of_flag = fetch_all("/api/admin/feature-flags/a/user-overrides", "user_email").await;
    let emails = |names: &[&str]| names.iter().map(|n| format!("{n}@example.com")).collect::<Vec<_>>();
    assert_eq!(
        emails_of_flag,
        emails(&["Ben", "ann", "cleo", "dan_x", "danyx"]),
        "sorted by byte value on both databases"
    );
    let newest_first = fetch_all(LIST_PATH, "user_email").await;
    assert_eq!(newest_first[..5], emails(&["danyx", "dan_x", "Ben", "ann", "cleo"]));
    assert_eq!(newest_first.len(), 7);
    assert_eq!(fetch_all(&format!("{LIST_PATH}?search=BEN"), "user_email").await, emails(&["Ben"]));
    assert_eq!(fetch_all(&format!("{LIST_PATH}?search=B.O"), "flag_name").await, ["b.one"]);
    assert_eq!(
        fetch_all(&format!("{LIST_PATH}?search=n_x"), "user_email").await,
        emails(&["dan_x"]),
        "`_` is not a wildcard"
    );
    assert_eq!(fetch_all(&format!("{LIST_PATH}?search=%25"), "user_email").await, [""; 0]);
    assert_eq!(fetch_all(&format!("{LIST_PATH}?flag_name=b.two"), "flag_name").await, ["b.two"]);
    assert_eq!(fetch_all(&format!("{LIST_PATH}?user_id={}", users[3]), "user_email").await, emails(&["dan_x"]));
    assert_eq!(fetch_all(&format!("{LIST_PATH}?status=disabled"), "user_email").await, emails(&["Ben"]));
    assert_eq!(fetch_all(&format!("{LIST_PATH}?status=expired"), "user_email").await, [""; 0]);
    assert_eq!(
        fetch_all(&format!("{LIST_PATH}?expires_before=2030-01-03T00:00:00Z"), "user_email").await,
        emails(&["cleo"])
    );
    assert_eq!(fetch_all(&format!("{LIST_PATH}?sort=expires_at"), "user_email").await[0], "cleo@example.com");
    assert_eq!(fetch_all(&format!("{LIST_PATH}?sort=expires_at"), "user_email").await.len(), 7);
    app.set_clock("01-02T00:00:00Z");
    assert_eq!(fetch_all(&format!("{LIST_PATH}?status=expired"), "user_email").await, emails(&["cleo"]));
    assert_eq!(fetch_all(&format!("{LIST_PATH}?status=active"), "user_email").await.len(), 5);
    let cursor_of_other_sort =
        app.admin.get(&format!("{LIST_PATH}?limit=2")).await.json()["next_cursor"].as_str().unwrap().to_owned();
    let response = app.admin.get(&format!("{LIST_PATH}?sort=expires_at&cursor={cursor_of_other_sort}")).await;
    response.expect_violation("/cursor", "invalid_parameter");
}
