//! Creation of scheduled changes.

use serde_json::{Value, json};

use flags_tests::{app::TestApp, database::DatabaseKind, on_both_databases};

use super::CHANGES_PATH;

on_both_databases! {
    scheduled_change_takes_effect_exactly_at_scheduled_at,
    rejects_invalid_scheduled_changes,
    local_scheduled_time_is_converted_with_its_timezone,
}

async fn scheduled_change_takes_effect_exactly_at_scheduled_at(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    let (_, ann) = app.create_user("ann").await;
    app.create_boolean_flag("f").await;
    let body = json!({"scheduled_at": "2030-01-01T00:00:10Z", "serve": {"variant": "on"}, "description": "launch"});
    let created = app.admin.post(CHANGES_PATH, &body).await.expect(201);
    let id = created.json()["id"].as_str().unwrap().to_owned();
    assert_eq!(created.header("location"), format!("{CHANGES_PATH}/{id}"));
    assert_eq!((&created.json()["status"], &created.json()["enabled"]), (&json!("pending"), &Value::Null));
    let path = format!("{CHANGES_PATH}/{id}");
    for (instant, value, status) in [
        ("01-01T00:00:09.999999Z", false, "pending"),
        ("01-01T00:00:10Z", true, "applied"),
        ("01-01T00:00:10.000001Z", true, "applied"),
    ] {
        app.set_clock(instant);
        let result = ann.get("/api/flags/me/f").await.json();
        assert_eq!(result["value"], value, "{instant}");
        assert_eq!(app.admin.get(&path).await.expect(200).json()["status"], status, "{instant}");
    }
    app.set_clock("01-01T00:00:20Z");
    app.admin.patch("/api/admin/feature-flags/f", &json!({"default": {"variant": "off"}})).await.expect(200);
    assert_eq!(app.admin.get(&path).await.json()["status"], "superseded");
}

async fn rejects_invalid_scheduled_changes(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    app.create_boolean_flag("f").await;
    let scheduled_at = "2030-01-01T00:00:10Z";
    app.admin.post(CHANGES_PATH, &json!({"scheduled_at": scheduled_at, "enabled": false})).await.expect(201);
    app.admin
        .post(CHANGES_PATH, &json!({"scheduled_at": scheduled_at, "enabled": true}))
        .await
        .expect_problem(409, "scheduled_change_exists");
    let invalid = [
        (json!({"scheduled_at": "2030-01-01T00:00:00Z", "enabled": true}), "/scheduled_at", "not_in_future"),
        (json!({"scheduled_at": "2030-01-01T09:00:00", "enabled": true}), "/scheduled_at", "timezone_required"),
        (json!({"scheduled_at": scheduled_at}), "", "nothing_to_change"),
        (json!({"enabled": true}), "/scheduled_at", "required"),
        (json!({"scheduled_at": scheduled_at, "serve": {"variant": "nope"}}), "/serve/variant", "unknown_variant"),
        (json!({"scheduled_at": scheduled_at, "serve": {"weights": {"on": 50}}}), "/serve/weights", "invalid_weights"),
        (json!({"scheduled_at": scheduled_at, "serve": {}}), "/serve", "invalid_serve"),
        (
            json!({"scheduled_at": scheduled_at, "enabled": true, "description": "a\u{0}"}),
            "/description",
            "nul_character",
        ),
    ];
    for (body, pointer, code) in invalid {
        app.admin.post(CHANGES_PATH, &body).await.expect_violation(pointer, code);
    }
    let body = json!({"scheduled_at": scheduled_at, "enabled": true});
    let response = app.admin.post("/api/admin/feature-flags/nope/scheduled-changes", &body).await;
    response.expect_problem(404, "flag_not_found");
    assert_eq!(app.admin.get(CHANGES_PATH).await.json()["total"], 1, "no change was created");
}

async fn local_scheduled_time_is_converted_with_its_timezone(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    app.create_boolean_flag("f").await;
    let body = |scheduled_at: &str, timezone: Option<&str>| {
        let mut body = json!({"scheduled_at": scheduled_at, "enabled": false});
        if let Some(timezone) = timezone {
            body["timezone"] = json!(timezone);
        }
        body
    };
    let created =
        app.admin.post(CHANGES_PATH, &body("2030-07-01T09:00:00", Some("Europe/Berlin"))).await.expect(201).json();
    assert_eq!(created["scheduled_at"], "2030-07-01T07:00:00Z");
    let path = format!("{CHANGES_PATH}/{}", created["id"].as_str().unwrap());
    let moved = json!({"scheduled_at": "2030-12-01T09:00:00", "timezone": "America/New_York"});
    assert_eq!(app.admin.patch(&path, &moved).await.expect(200).json()["scheduled_at"], "2030-12-01T14:00:00Z");
    for (scheduled_at, timezone, pointer, code) in [
        ("2030-03-31T02:30:00", Some("Europe/Berlin"), "/scheduled_at", "skipped_local_time"),
        ("2030-10-27T02:30:00", Some("Europe/Berlin"), "/scheduled_at", "doubled_local_time"),
        ("2030-07-01T09:00:00", None, "/scheduled_at", "timezone_required"),
        ("2030-07-01T09:00:00Z", Some("Europe/Berlin"), "/timezone", "not_allowed"),
        ("2030-07-01T09:00:00", Some("Europe/Atlantis"), "/timezone", "unknown_timezone"),
        ("soon", Some("Europe/Berlin"), "/scheduled_at", "invalid_instant"),
        ("2029-12-31T12:00:00", Some("UTC"), "/scheduled_at", "not_in_future"),
    ] {
        app.admin.post(CHANGES_PATH, &body(scheduled_at, timezone)).await.expect_violation(pointer, code);
        app.admin.patch(&path, &body(scheduled_at, timezone)).await.expect_violation(pointer, code);
    }
    let problem = app.admin.post(CHANGES_PATH, &body("2030-10-27T02:30:00", Some("Europe/Berlin"))).await.text;
    for suggestion in ["2030-10-27T02:30:00+02:00", "2030-10-27T02:30:00+01:00"] {
        assert!(problem.contains(suggestion), "{problem}");
        // The server accepts the alternatives that its error message suggests.
        app.admin.post(CHANGES_PATH, &body(suggestion, None)).await.expect(201);
    }
    app.admin.patch(&path, &json!({"timezone": "Europe/Berlin"})).await.expect_violation("/timezone", "not_allowed");
}
