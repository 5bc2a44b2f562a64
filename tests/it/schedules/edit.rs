//! PATCH and cancellation of scheduled changes.

use serde_json::{Value, json};

use flags_tests::{app::TestApp, database::DatabaseKind, on_both_databases};

use super::CHANGES_PATH;

on_both_databases! {
    only_pending_scheduled_changes_can_be_edited_or_cancelled,
}

async fn only_pending_scheduled_changes_can_be_edited_or_cancelled(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    app.create_boolean_flag("f").await;
    let create_change = async |second: &str| {
        let body = json!({"scheduled_at": format!("2030-01-01T00:00:{second}Z"), "enabled": false});
        format!(
            "{CHANGES_PATH}/{}",
            app.admin.post(CHANGES_PATH, &body).await.expect(201).json()["id"].as_str().unwrap()
        )
    };
    let (first, second) = (create_change("10").await, create_change("20").await);
    let edit = json!({"scheduled_at": "2030-01-01T00:00:30Z", "serve": {"variant": "on"}, "description": "later"});
    let edited = app.admin.patch(&second, &edit).await.expect(200).json();
    assert_eq!((&edited["scheduled_at"], &edited["enabled"]), (&edit["scheduled_at"], &json!(false)));
    let to_taken_instant = json!({"scheduled_at": "2030-01-01T00:00:10Z"});
    app.admin.patch(&second, &to_taken_instant).await.expect_problem(409, "scheduled_change_exists");
    app.admin.patch(&second, &json!({"serve": null, "enabled": null})).await.expect_violation("", "nothing_to_change");
    let cancelled = app.admin.post(&format!("{second}/cancel"), &Value::Null).await.expect(200);
    assert_eq!(
        (&cancelled.json()["status"], &cancelled.json()["cancelled_at"]),
        (&json!("cancelled"), &json!("2030-01-01T00:00:00Z"))
    );
    app.admin.post(&format!("{second}/cancel"), &Value::Null).await.expect_problem(409, "not_pending");
    app.admin.patch(&second, &edit).await.expect_problem(409, "not_pending");
    create_change("30").await;
    app.set_clock("01-01T00:00:10Z");
    app.admin.patch(&first, &json!({"description": "too late"})).await.expect_problem(409, "not_pending");
    app.admin.post(&format!("{first}/cancel"), &Value::Null).await.expect_problem(409, "not_pending");
    app.create_boolean_flag("g").await;
    let under_other_flag = first.replace("/f/", "/g/");
    app.admin.get(&under_other_flag).await.expect_problem(404, "scheduled_change_not_found");
    app.admin
        .post(&format!("{under_other_flag}/cancel"), &Value::Null)
        .await
        .expect_problem(404, "scheduled_change_not_found");
    app.admin
        .get(&format!("{CHANGES_PATH}/{}", uuid::Uuid::nil()))
        .await
        .expect_problem(404, "scheduled_change_not_found");
    app.admin.get(&format!("{CHANGES_PATH}/rubbish")).await.expect_problem(404, "scheduled_change_not_found");
}
