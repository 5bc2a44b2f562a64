//! Preview of a scheduled change.

use serde_json::{Value, json};

use flags_tests::{app::TestApp, database::DatabaseKind, on_both_databases};

use super::CHANGES_PATH;

on_both_databases! {
    preview_reports_weights_before_and_after_the_change,
}

async fn preview_reports_weights_before_and_after_the_change(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    app.create_flag(json!({"name": "f", "flag_type": "string", "enabled": false,
        "variants": [{"id": "a", "value": "A"}, {"id": "b", "value": "B"}, {"id": "c", "value": "C"}],
        "default": {"variant": "a"}, "off_variant": "c"}))
        .await;
    let create_change = async |second: u32, body: Value| {
        let mut body = body;
        body["scheduled_at"] = json!(format!("2030-01-01T00:00:{second}Z"));
        let created = app.admin.post(CHANGES_PATH, &body).await.expect(201).json();
        (format!("{CHANGES_PATH}/{}", created["id"].as_str().unwrap()), created)
    };
    let (first, created) = create_change(10, json!({"enabled": true})).await;
    let expected_first = json!({"before": {"enabled": false, "weights": {"a": 0, "b": 0, "c": 100}},
        "after": {"enabled": true, "weights": {"a": 100, "b": 0, "c": 0}}, "difference": {"a": 100.0, "c": -100.0}});
    assert_eq!(created["preview"], expected_first);
    let (second, _) = create_change(20, json!({"serve": {"weights": {"a": 87.5, "b": 12.5}}})).await;
    let expected_second = json!({"before": {"enabled": true, "weights": {"a": 100, "b": 0, "c": 0}},
        "after": {"enabled": true, "weights": {"a": 87.5, "b": 12.5, "c": 0}}, "difference": {"a": -12.5, "b": 12.5}});
    assert_eq!(app.admin.get(&second).await.expect(200).json()["preview"], expected_second);
    // With the first change cancelled, the flag stays disabled, so the second has no visible effect.
    app.admin.post(&format!("{first}/cancel"), &Value::Null).await.expect(200);
    assert_eq!(app.admin.get(&first).await.json()["preview"], Value::Null);
    let preview = app.admin.get(&second).await.expect(200).json()["preview"].clone();
    assert_eq!((&preview["difference"], &preview["after"]["enabled"]), (&json!({}), &json!(false)));
    let edited = app.admin.patch(&second, &json!({"enabled": true})).await.expect(200).json();
    assert_eq!(edited["preview"]["difference"], json!({"a": 87.5, "b": 12.5, "c": -100.0}));
    app.set_clock("01-01T00:00:20Z");
    assert_eq!(app.admin.get(&second).await.json()["preview"], Value::Null);
}
