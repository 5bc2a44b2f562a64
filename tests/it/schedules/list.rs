//! Lists of scheduled changes.

use serde_json::{Value, json};

use flags_tests::{app::TestApp, database::DatabaseKind, on_both_databases};

use super::CHANGES_PATH;

on_both_databases! {
    scheduled_changes_are_sorted_by_scheduled_at,
    pending_filter_and_pending_count_agree,
}

async fn scheduled_changes_are_sorted_by_scheduled_at(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    for (flag, second) in [("f", 30), ("g", 20), ("f", 10)] {
        app.admin.post("/api/admin/feature-flags", &json!({"name": flag, "flag_type": "boolean"})).await;
        let path = format!("/api/admin/feature-flags/{flag}/scheduled-changes");
        let body = json!({"scheduled_at": format!("2030-01-01T00:00:{second}Z"), "enabled": false});
        app.admin.post(&path, &body).await.expect(201);
    }
    let seconds = |list: Value| {
        let items = list["items"].as_array().unwrap().clone();
        items.iter().map(|i| i["scheduled_at"].as_str().unwrap()[17..19].to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(seconds(app.admin.get(CHANGES_PATH).await.expect(200).json()), ["10", "30"]);
    let first_page = app.admin.get("/api/admin/scheduled-changes?limit=2").await.expect(200).json();
    let cursor = first_page["next_cursor"].as_str().unwrap().to_owned();
    assert_eq!(seconds(first_page), ["10", "20"]);
    let second_page =
        app.admin.get(&format!("/api/admin/scheduled-changes?limit=2&cursor={cursor}")).await.expect(200).json();
    assert_eq!(seconds(second_page), ["30"]);
    let response = app.admin.get("/api/admin/feature-flags/nope/scheduled-changes").await;
    response.expect_problem(404, "flag_not_found");
}

async fn pending_filter_and_pending_count_agree(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    for (flag, second) in [("f", 10), ("f", 20), ("g", 30)] {
        app.admin.post("/api/admin/feature-flags", &json!({"name": flag, "flag_type": "boolean"})).await;
        let path = format!("/api/admin/feature-flags/{flag}/scheduled-changes");
        let body = json!({"scheduled_at": format!("2030-01-01T00:00:{second}Z"), "enabled": false});
        app.admin.post(&path, &body).await.expect(201);
    }
    // Returns the number of pending changes after checking that the list and the replica agree on it.
    let count_pending = async || {
        let list = app.admin.get("/api/admin/scheduled-changes?status=pending").await.expect(200).json();
        let statuses: Vec<_> = list["items"].as_array().unwrap().iter().map(|item| &item["status"]).collect();
        assert!(statuses.iter().all(|status| **status == "pending"), "{list}");
        assert_eq!(list["total"], app.replica.snapshot(None).count_pending_changes(app.core.now()));
        statuses.len()
    };
    assert_eq!(count_pending().await, 3);
    app.set_clock("01-01T00:00:10Z");
    assert_eq!(count_pending().await, 2);
    assert_eq!(app.admin.get(&format!("{CHANGES_PATH}?status=pending")).await.json()["total"], 1);
    assert_eq!(app.admin.get(CHANGES_PATH).await.json()["total"], 2);
    app.admin.get(&format!("{CHANGES_PATH}?status=applied")).await.expect_violation("/status", "invalid_parameter");
    app.admin.post("/api/admin/feature-flags/g/archive", &Value::Null).await.expect(200);
    assert_eq!(count_pending().await, 1);
}
