//! Scheduled changes over HTTP.

use serde_json::{Value, json};

use flags_tests::{app::TestApp, database::Kind, on_both_databases};

on_both_databases! {
    a_scheduled_change_acts_at_its_instant,
    only_pending_changes_can_be_edited_or_cancelled,
    changes_are_listed_by_instant,
    what_cannot_be_planned_is_refused,
}

const PATH: &str = "/api/admin/feature-flags/f/scheduled-changes";

async fn a_scheduled_change_acts_at_its_instant(kind: Kind) {
    let app = TestApp::start(kind).await;
    let (_, ann_calls) = app.user("ann").await;
    app.boolean_flag("f").await;
    let body = json!({"scheduled_at": "2030-01-01T00:00:10Z", "serve": {"variant": "on"}, "description": "launch"});
    let made = app.admin.post(PATH, &body).await.expect(201);
    let id = made.json()["id"].as_str().unwrap().to_owned();
    assert_eq!(made.header("location"), format!("{PATH}/{id}"));
    assert_eq!((&made.json()["status"], &made.json()["enabled"]), (&json!("pending"), &Value::Null));
    let path = format!("{PATH}/{id}");
    for (instant, value, status) in [
        ("01-01T00:00:09.999999Z", false, "pending"),
        ("01-01T00:00:10Z", true, "applied"),
        ("01-01T00:00:10.000001Z", true, "applied"),
    ] {
        app.clock_to(instant);
        let mine = ann_calls.get("/api/flags/me/f").await.json();
        assert_eq!(mine["value"], value, "{instant}");
        assert_eq!(app.admin.get(&path).await.expect(200).json()["status"], status, "{instant}");
    }
    app.clock_to("01-01T00:00:20Z");
    app.admin.patch("/api/admin/feature-flags/f", &json!({"default": {"variant": "off"}})).await.expect(200);
    assert_eq!(app.admin.get(&path).await.json()["status"], "superseded");
}

async fn only_pending_changes_can_be_edited_or_cancelled(kind: Kind) {
    let app = TestApp::start(kind).await;
    app.boolean_flag("f").await;
    let plan = async |at: &str| {
        let body = json!({"scheduled_at": format!("2030-01-01T00:00:{at}Z"), "enabled": false});
        format!("{PATH}/{}", app.admin.post(PATH, &body).await.expect(201).json()["id"].as_str().unwrap())
    };
    let (first, second) = (plan("10").await, plan("20").await);
    let edit = json!({"scheduled_at": "2030-01-01T00:00:30Z", "serve": {"variant": "on"}, "description": "later"});
    let edited = app.admin.patch(&second, &edit).await.expect(200).json();
    assert_eq!((&edited["scheduled_at"], &edited["enabled"]), (&edit["scheduled_at"], &json!(false)));
    let onto = json!({"scheduled_at": "2030-01-01T00:00:10Z"});
    app.admin.patch(&second, &onto).await.expect_problem(409, "scheduled_change_exists");
    app.admin.patch(&second, &json!({"serve": null, "enabled": null})).await.expect_violation("", "nothing_to_change");
    let cancelled = app.admin.post(&format!("{second}/cancel"), &Value::Null).await.expect(200);
    assert_eq!(
        (&cancelled.json()["status"], &cancelled.json()["cancelled_at"]),
        (&json!("cancelled"), &json!("2030-01-01T00:00:00Z"))
    );
    app.admin.post(&format!("{second}/cancel"), &Value::Null).await.expect_problem(409, "not_pending");
    app.admin.patch(&second, &edit).await.expect_problem(409, "not_pending");
    plan("30").await;
    app.clock_to("01-01T00:00:10Z");
    app.admin.patch(&first, &json!({"description": "too late"})).await.expect_problem(409, "not_pending");
    app.admin.post(&format!("{first}/cancel"), &Value::Null).await.expect_problem(409, "not_pending");
    app.boolean_flag("g").await;
    let elsewhere = first.replace("/f/", "/g/");
    app.admin.get(&elsewhere).await.expect_problem(404, "scheduled_change_not_found");
    app.admin
        .post(&format!("{elsewhere}/cancel"), &Value::Null)
        .await
        .expect_problem(404, "scheduled_change_not_found");
    app.admin.get(&format!("{PATH}/{}", uuid::Uuid::nil())).await.expect_problem(404, "scheduled_change_not_found");
    app.admin.get(&format!("{PATH}/rubbish")).await.expect_problem(404, "scheduled_change_not_found");
}

async fn changes_are_listed_by_instant(kind: Kind) {
    let app = TestApp::start(kind).await;
    for (flag, second) in [("f", 30), ("g", 20), ("f", 10)] {
        app.admin.post("/api/admin/feature-flags", &json!({"name": flag, "flag_type": "boolean"})).await;
        let path = format!("/api/admin/feature-flags/{flag}/scheduled-changes");
        let body = json!({"scheduled_at": format!("2030-01-01T00:00:{second}Z"), "enabled": false});
        app.admin.post(&path, &body).await.expect(201);
    }
    let instants = |list: Value| {
        let items = list["items"].as_array().unwrap().clone();
        items.iter().map(|i| i["scheduled_at"].as_str().unwrap()[17..19].to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(instants(app.admin.get(PATH).await.expect(200).json()), ["10", "30"]);
    let first = app.admin.get("/api/admin/scheduled-changes?limit=2").await.expect(200).json();
    let cursor = first["next_cursor"].as_str().unwrap().to_owned();
    assert_eq!(instants(first), ["10", "20"]);
    let rest = app.admin.get(&format!("/api/admin/scheduled-changes?limit=2&cursor={cursor}")).await.expect(200).json();
    assert_eq!(instants(rest), ["30"]);
    let nope = app.admin.get("/api/admin/feature-flags/nope/scheduled-changes").await;
    nope.expect_problem(404, "flag_not_found");
}

async fn what_cannot_be_planned_is_refused(kind: Kind) {
    let app = TestApp::start(kind).await;
    app.boolean_flag("f").await;
    let at = "2030-01-01T00:00:10Z";
    app.admin.post(PATH, &json!({"scheduled_at": at, "enabled": false})).await.expect(201);
    app.admin
        .post(PATH, &json!({"scheduled_at": at, "enabled": true}))
        .await
        .expect_problem(409, "scheduled_change_exists");
    let refused = [
        (json!({"scheduled_at": "2030-01-01T00:00:00Z", "enabled": true}), "/scheduled_at", "not_in_future"),
        (json!({"scheduled_at": "2030-01-01T09:00:00", "enabled": true}), "/scheduled_at", "invalid_type"),
        (json!({"scheduled_at": at}), "", "nothing_to_change"),
        (json!({"enabled": true}), "/scheduled_at", "required"),
        (json!({"scheduled_at": at, "serve": {"variant": "nope"}}), "/serve/variant", "unknown_variant"),
        (json!({"scheduled_at": at, "serve": {"weights": {"on": 50}}}), "/serve/weights", "invalid_weights"),
        (json!({"scheduled_at": at, "serve": {}}), "/serve", "invalid_serve"),
        (json!({"scheduled_at": at, "enabled": true, "description": "a\u{0}"}), "/description", "nul_character"),
    ];
    for (body, pointer, code) in refused {
        app.admin.post(PATH, &body).await.expect_violation(pointer, code);
    }
    let body = json!({"scheduled_at": at, "enabled": true});
    let nope = app.admin.post("/api/admin/feature-flags/nope/scheduled-changes", &body).await;
    nope.expect_problem(404, "flag_not_found");
    assert_eq!(app.admin.get(PATH).await.json()["total"], 1, "nothing changed");
}
