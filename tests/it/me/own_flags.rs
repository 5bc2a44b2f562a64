//! Responses of `/api/flags/me`: fields, entity tags, override reasons and minimum revisions.

use reqwest::Method;
use serde_json::{Value, json};

use flags_tests::{
    app::{TestApp, override_path},
    database::DatabaseKind,
    on_both_databases,
};

on_both_databases! {
    own_flags_responses_have_the_documented_fields,
    entity_tag_changes_with_the_content_but_not_with_time,
    override_reasons_are_included_if_enabled_in_the_settings,
    server_waits_for_the_minimum_revision,
    string_values_are_escaped_in_json_responses,
}

fn sorted_keys(value: &Value) -> Vec<&str> {
    let mut keys: Vec<_> = value.as_object().unwrap().keys().map(String::as_str).collect();
    keys.sort_unstable();
    keys
}

async fn own_flags_responses_have_the_documented_fields(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    let (ann_id, ann) = app.create_user("ann").await;
    app.create_boolean_flag("a").await;
    app.create_boolean_flag("b").await;
    let body = json!({"override_value": true, "expires_at": "2030-01-01T00:01:00Z"});
    app.admin.put(&override_path(&ann_id, "a"), &body).await.expect(201);
    let change = json!({"scheduled_at": "2030-01-01T00:00:30Z", "serve": {"variant": "on"}});
    for flag in ["a", "b"] {
        app.admin.post(&format!("/api/admin/feature-flags/{flag}/scheduled-changes"), &change).await.expect(201);
    }
    let own_flags = ann.get("/api/flags/me").await.expect(200).json();
    assert_eq!(sorted_keys(&own_flags), ["evaluated_at", "flags", "revision", "stale", "user_id", "valid_until"]);
    assert_eq!((&own_flags["user_id"], &own_flags["stale"]), (&json!(ann_id), &json!(false)));
    assert_eq!(own_flags["evaluated_at"], "2030-01-01T00:00:00Z");
    assert_eq!(
        own_flags["valid_until"], "2030-01-01T00:00:30Z",
        "the earliest expiry or scheduled change of all flags"
    );
    assert_eq!(own_flags["revision"], app.replica.revision().to_string());
    let a = json!({
        "value": true, "flag_type": "boolean", "variant": "on", "source": "override",
        "override": {"created_at": "2030-01-01T00:00:00Z", "updated_at": "2030-01-01T00:00:00Z",
            "expires_at": "2030-01-01T00:01:00Z"},
        "then": {"value": true, "variant": "on", "source": "scheduled_change"},
    });
    assert_eq!(own_flags["flags"]["a"], a, "`then` is the evaluation result at the expiry");
    assert_eq!(
        own_flags["flags"]["b"],
        json!({"value": false, "flag_type": "boolean", "variant": "off", "source": "default"})
    );
    let single = ann.get("/api/flags/me/a").await.expect(200).json();
    assert_eq!(single["valid_until"], "2030-01-01T00:01:00Z");
    for (field, value) in a.as_object().unwrap() {
        assert_eq!(&single[field], value);
    }
    assert_eq!(single["name"], "a");
    let own_overrides = ann.get("/api/flags/me/overrides").await.expect(200).json();
    assert_eq!(sorted_keys(&own_overrides), ["evaluated_at", "overrides", "revision", "stale", "user_id"]);
    let fields = ["created_at", "enabled", "expires_at", "flag_name", "id", "override_value", "status", "updated_at"];
    assert_eq!(sorted_keys(&own_overrides["overrides"][0]), fields);
}

async fn entity_tag_changes_with_the_content_but_not_with_time(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    let ((ann_id, ann), (_, ben)) = (app.create_user("ann").await, app.create_user("ben").await);
    app.create_boolean_flag("f").await;
    let first = ann.get("/api/flags/me").await.expect(200).header("etag").to_owned();
    app.set_clock("01-01T00:00:05Z");
    app.create_user("unrelated").await;
    let known = [("if-none-match", first.as_str())];
    let not_modified = ann.send(Method::GET, "/api/flags/me", &known, None).await.expect(304);
    assert_eq!((not_modified.text.as_str(), not_modified.header("etag")), ("", first.as_str()));
    assert_eq!(not_modified.header("cache-control"), "private, no-cache");
    assert_ne!(ben.get("/api/flags/me").await.header("etag"), first, "the tag of another user differs");
    app.admin.put(&override_path(&ann_id, "f"), &json!({"override_value": false})).await.expect(201);
    ann.send(Method::GET, "/api/flags/me", &known, None).await.expect(200);
    let single = ann.get("/api/flags/me/f").await.expect(200).header("etag").to_owned();
    ann.send(Method::GET, "/api/flags/me/f", &[("if-none-match", &format!("\"x\", W/{single}"))], None)
        .await
        .expect(304);
}

async fn override_reasons_are_included_if_enabled_in_the_settings(kind: DatabaseKind) {
    let app = TestApp::start_with_user_reasons(kind, true).await;
    let (ann_id, ann) = app.create_user("ann").await;
    app.create_boolean_flag("f").await;
    app.create_boolean_flag("g").await;
    app.admin
        .put(&override_path(&ann_id, "f"), &json!({"override_value": true, "reason": "a \"quoted\" reason"}))
        .await
        .expect(201);
    app.admin.put(&override_path(&ann_id, "g"), &json!({"override_value": true})).await.expect(201);
    let own_flags = ann.get("/api/flags/me").await.expect(200).json();
    assert_eq!(own_flags["flags"]["f"]["override"]["reason"], "a \"quoted\" reason");
    assert_eq!(own_flags["flags"]["g"]["override"]["reason"], Value::Null);
    let own_overrides = ann.get("/api/flags/me/overrides").await.expect(200).json();
    assert_eq!(own_overrides["overrides"][0]["reason"], "a \"quoted\" reason");
}

async fn server_waits_for_the_minimum_revision(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    let (_, ann) = app.create_user("ann").await;
    let current = app.replica.revision();
    let get =
        async |value: String| ann.send(Method::GET, "/api/flags/me", &[("flags-min-revision", &value)], None).await;
    get(current.to_string()).await.expect(200);
    let ahead = get(format!("{}:{}", current.epoch.simple(), current.number + 1)).await;
    assert_eq!(ahead.header("retry-after"), "1");
    ahead.expect_problem(503, "revision_not_reached");
    get(format!("{}:1", uuid::Uuid::nil())).await.expect_violation("/Flags-Min-Revision", "invalid_header");
    get("malformed".to_owned()).await.expect_violation("/Flags-Min-Revision", "invalid_header");
    let next = format!("{}:{}", current.epoch.simple(), current.number + 1);
    let (response, _) = tokio::join!(get(next), app.create_boolean_flag("f"));
    assert!(response.expect(200).json()["flags"]["f"].is_object());
}

async fn string_values_are_escaped_in_json_responses(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    let (ann_id, ann) = app.create_user("ann").await;
    let text = "quote \" backslash \\ line\nfeed \u{1} é 🎉 </script>";
    app.create_flag(json!({"name": "s", "flag_type": "string", "variants": [{"id": text, "value": text}],
                    "default": {"variant": text}, "off_variant": text}))
        .await;
    let own_flags = ann.get("/api/flags/me").await.expect(200).json();
    assert_eq!((&own_flags["flags"]["s"]["value"], &own_flags["flags"]["s"]["variant"]), (&json!(text), &json!(text)));
    let override_text = format!("{text}!");
    app.admin
        .put(&override_path(&ann_id, "s"), &json!({"override_value": override_text, "reason": text}))
        .await
        .expect(201);
    assert_eq!(ann.get("/api/flags/me/s").await.expect(200).json()["value"], override_text);
    assert_eq!(app.admin.get(&override_path(&ann_id, "s")).await.expect(200).json()["reason"], text);
}
