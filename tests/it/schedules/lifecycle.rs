//! Scheduled changes over HTTP.

use serde_json::{Value, json};

use flags_tests::{app::TestApp, database::Kind, on_both_databases};

on_both_databases! {
    a_scheduled_change_acts_at_its_instant,
    only_pending_changes_can_be_edited_or_cancelled,
    changes_are_listed_by_instant,
    what_cannot_be_planned_is_refused,
    a_change_is_planned_by_the_clock_on_a_wall,
    a_preview_shows_shares_before_and_after,
    pending_changes_are_counted,
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
        (json!({"scheduled_at": "2030-01-01T09:00:00", "enabled": true}), "/scheduled_at", "timezone_required"),
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

async fn a_change_is_planned_by_the_clock_on_a_wall(kind: Kind) {
    let app = TestApp::start(kind).await;
    app.boolean_flag("f").await;
    let body = |at: &str, zone: Option<&str>| {
        let mut body = json!({"scheduled_at": at, "enabled": false});
        if let Some(zone) = zone {
            body["timezone"] = json!(zone);
        }
        body
    };
    let made = app.admin.post(PATH, &body("2030-07-01T09:00:00", Some("Europe/Berlin"))).await.expect(201).json();
    assert_eq!(made["scheduled_at"], "2030-07-01T07:00:00Z");
    let path = format!("{PATH}/{}", made["id"].as_str().unwrap());
    let moved = json!({"scheduled_at": "2030-12-01T09:00:00", "timezone": "America/New_York"});
    assert_eq!(app.admin.patch(&path, &moved).await.expect(200).json()["scheduled_at"], "2030-12-01T14:00:00Z");
    for (at, zone, pointer, code) in [
        ("2030-03-31T02:30:00", Some("Europe/Berlin"), "/scheduled_at", "skipped_local_time"),
        ("2030-10-27T02:30:00", Some("Europe/Berlin"), "/scheduled_at", "doubled_local_time"),
        ("2030-07-01T09:00:00", None, "/scheduled_at", "timezone_required"),
        ("2030-07-01T09:00:00Z", Some("Europe/Berlin"), "/timezone", "not_allowed"),
        ("2030-07-01T09:00:00", Some("Europe/Atlantis"), "/timezone", "unknown_timezone"),
        ("soon", Some("Europe/Berlin"), "/scheduled_at", "invalid_instant"),
        ("2029-12-31T12:00:00", Some("UTC"), "/scheduled_at", "not_in_future"),
    ] {
        app.admin.post(PATH, &body(at, zone)).await.expect_violation(pointer, code);
        app.admin.patch(&path, &body(at, zone)).await.expect_violation(pointer, code);
    }
    let doubled = app.admin.post(PATH, &body("2030-10-27T02:30:00", Some("Europe/Berlin"))).await.text;
    for reading in ["2030-10-27T02:30:00+02:00", "2030-10-27T02:30:00+01:00"] {
        assert!(doubled.contains(reading), "{doubled}");
        // What it says to write can be written.
        app.admin.post(PATH, &body(reading, None)).await.expect(201);
    }
    app.admin.patch(&path, &json!({"timezone": "Europe/Berlin"})).await.expect_violation("/timezone", "not_allowed");
}

async fn a_preview_shows_shares_before_and_after(kind: Kind) {
    let app = TestApp::start(kind).await;
    app.flag(json!({"name": "f", "flag_type": "string", "enabled": false,
        "variants": [{"id": "a", "value": "A"}, {"id": "b", "value": "B"}, {"id": "c", "value": "C"}],
        "default": {"variant": "a"}, "off_variant": "c"}))
        .await;
    let plan = async |second: u32, body: Value| {
        let mut body = body;
        body["scheduled_at"] = json!(format!("2030-01-01T00:00:{second}Z"));
        let made = app.admin.post(PATH, &body).await.expect(201).json();
        (format!("{PATH}/{}", made["id"].as_str().unwrap()), made)
    };
    let (first, made) = plan(10, json!({"enabled": true})).await;
    let on = json!({"before": {"enabled": false, "weights": {"a": 0, "b": 0, "c": 100}},
        "after": {"enabled": true, "weights": {"a": 100, "b": 0, "c": 0}}, "difference": {"a": 100.0, "c": -100.0}});
    assert_eq!(made["preview"], on);
    let (second, _) = plan(20, json!({"serve": {"weights": {"a": 87.5, "b": 12.5}}})).await;
    let part = json!({"before": {"enabled": true, "weights": {"a": 100, "b": 0, "c": 0}},
        "after": {"enabled": true, "weights": {"a": 87.5, "b": 12.5, "c": 0}}, "difference": {"a": -12.5, "b": 12.5}});
    assert_eq!(app.admin.get(&second).await.expect(200).json()["preview"], part);
    // Without the first, the second changes nothing that anybody sees.
    app.admin.post(&format!("{first}/cancel"), &Value::Null).await.expect(200);
    assert_eq!(app.admin.get(&first).await.json()["preview"], Value::Null);
    let unseen = app.admin.get(&second).await.expect(200).json()["preview"].clone();
    assert_eq!((&unseen["difference"], &unseen["after"]["enabled"]), (&json!({}), &json!(false)));
    let edited = json!({"enabled": true});
    let edited = app.admin.patch(&second, &edited).await.expect(200).json();
    assert_eq!(edited["preview"]["difference"], json!({"a": 87.5, "b": 12.5, "c": -100.0}));
    app.clock_to("01-01T00:00:20Z");
    assert_eq!(app.admin.get(&second).await.json()["preview"], Value::Null);
}

async fn pending_changes_are_counted(kind: Kind) {
    let app = TestApp::start(kind).await;
    for (flag, second) in [("f", 10), ("f", 20), ("g", 30)] {
        app.admin.post("/api/admin/feature-flags", &json!({"name": flag, "flag_type": "boolean"})).await;
        let path = format!("/api/admin/feature-flags/{flag}/scheduled-changes");
        let body = json!({"scheduled_at": format!("2030-01-01T00:00:{second}Z"), "enabled": false});
        app.admin.post(&path, &body).await.expect(201);
    }
    // The gauge and the list agree.
    let pending = async || {
        let list = app.admin.get("/api/admin/scheduled-changes?status=pending").await.expect(200).json();
        let statuses: Vec<_> = list["items"].as_array().unwrap().iter().map(|item| &item["status"]).collect();
        assert!(statuses.iter().all(|status| **status == "pending"), "{list}");
        assert_eq!(list["total"], app.replica.read().count_pending_changes(app.core.now()));
        statuses.len()
    };
    assert_eq!(pending().await, 3);
    app.clock_to("01-01T00:00:10Z");
    assert_eq!(pending().await, 2);
    assert_eq!(app.admin.get(&format!("{PATH}?status=pending")).await.json()["total"], 1);
    assert_eq!(app.admin.get(PATH).await.json()["total"], 2);
    app.admin.get(&format!("{PATH}?status=applied")).await.expect_violation("/status", "invalid_parameter");
    app.admin.post("/api/admin/feature-flags/g/archive", &Value::Null).await.expect(200);
    assert_eq!(pending().await, 1);
}
