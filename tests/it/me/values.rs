//! `/api/flags/me`: shape, tags, what stands in it and what does not.

use reqwest::Method;
use serde_json::{Value, json};

use flags_tests::{
    app::{TestApp, override_at},
    database::Kind,
    on_both_databases,
};

on_both_databases! {
    the_answer_has_the_shape_of_the_contract,
    the_tag_changes_with_the_answer_and_not_with_the_clock,
    reasons_are_shown_where_the_operator_says_so,
    a_minimum_revision_is_waited_for,
    strings_are_escaped,
}

fn keys(value: &Value) -> Vec<&str> {
    let mut keys: Vec<_> = value.as_object().unwrap().keys().map(String::as_str).collect();
    keys.sort_unstable();
    keys
}

async fn the_answer_has_the_shape_of_the_contract(kind: Kind) {
    let app = TestApp::start(kind).await;
    let (ann, ann_calls) = app.user("ann").await;
    app.boolean_flag("a").await;
    app.boolean_flag("b").await;
    let body = json!({"override_value": true, "expires_at": "2030-01-01T00:01:00Z"});
    app.admin.put(&override_at(&ann, "a"), &body).await.expect(201);
    let change = json!({"scheduled_at": "2030-01-01T00:00:30Z", "serve": {"variant": "on"}});
    for flag in ["a", "b"] {
        app.admin.post(&format!("/api/admin/feature-flags/{flag}/scheduled-changes"), &change).await.expect(201);
    }
    let mine = ann_calls.get("/api/flags/me").await.expect(200).json();
    assert_eq!(keys(&mine), ["evaluated_at", "flags", "revision", "stale", "user_id", "valid_until"]);
    assert_eq!((&mine["user_id"], &mine["stale"]), (&json!(ann), &json!(false)));
    assert_eq!(mine["evaluated_at"], "2030-01-01T00:00:00Z");
    assert_eq!(mine["valid_until"], "2030-01-01T00:00:30Z", "the earliest of all");
    assert_eq!(mine["revision"], app.replica.revision().to_string());
    let a = json!({
        "value": true, "flag_type": "boolean", "variant": "on", "source": "override",
        "override": {"created_at": "2030-01-01T00:00:00Z", "updated_at": "2030-01-01T00:00:00Z", "expires_at": "2030-01-01T00:01:00Z"},
        "then": {"value": true, "variant": "on", "source": "scheduled_change"},
    });
    assert_eq!(mine["flags"]["a"], a, "what comes then is what holds at that instant");
    assert_eq!(
        mine["flags"]["b"],
        json!({"value": false, "flag_type": "boolean", "variant": "off", "source": "default"})
    );
    let one = ann_calls.get("/api/flags/me/a").await.expect(200).json();
    assert_eq!(one["valid_until"], "2030-01-01T00:01:00Z");
    for (field, value) in a.as_object().unwrap() {
        assert_eq!(&one[field], value);
    }
    assert_eq!(one["name"], "a");
    let own = ann_calls.get("/api/flags/me/overrides").await.expect(200).json();
    assert_eq!(keys(&own), ["evaluated_at", "overrides", "revision", "stale", "user_id"]);
    let fields = ["created_at", "enabled", "expires_at", "flag_name", "id", "override_value", "status", "updated_at"];
    assert_eq!(keys(&own["overrides"][0]), fields);
}

async fn the_tag_changes_with_the_answer_and_not_with_the_clock(kind: Kind) {
    let app = TestApp::start(kind).await;
    let ((ann, ann_calls), (_, ben_calls)) = (app.user("ann").await, app.user("ben").await);
    app.boolean_flag("f").await;
    let first = ann_calls.get("/api/flags/me").await.expect(200).header("etag").to_owned();
    app.clock_to("01-01T00:00:05Z");
    app.user("somebody").await;
    let known = [("if-none-match", first.as_str())];
    let same = ann_calls.send(Method::GET, "/api/flags/me", &known, None).await.expect(304);
    assert_eq!((same.text.as_str(), same.header("etag")), ("", first.as_str()));
    assert_eq!(same.header("cache-control"), "private, no-cache");
    assert_ne!(ben_calls.get("/api/flags/me").await.header("etag"), first, "another user's");
    app.admin.put(&override_at(&ann, "f"), &json!({"override_value": false})).await.expect(201);
    ann_calls.send(Method::GET, "/api/flags/me", &known, None).await.expect(200);
    let one = ann_calls.get("/api/flags/me/f").await.expect(200).header("etag").to_owned();
    ann_calls
        .send(Method::GET, "/api/flags/me/f", &[("if-none-match", &format!("\"x\", W/{one}"))], None)
        .await
        .expect(304);
}

async fn reasons_are_shown_where_the_operator_says_so(kind: Kind) {
    let app = TestApp::start_with(kind, true).await;
    let (ann, ann_calls) = app.user("ann").await;
    app.boolean_flag("f").await;
    app.boolean_flag("g").await;
    app.admin
        .put(&override_at(&ann, "f"), &json!({"override_value": true, "reason": "a \"quoted\" reason"}))
        .await
        .expect(201);
    app.admin.put(&override_at(&ann, "g"), &json!({"override_value": true})).await.expect(201);
    let mine = ann_calls.get("/api/flags/me").await.expect(200).json();
    assert_eq!(mine["flags"]["f"]["override"]["reason"], "a \"quoted\" reason");
    assert_eq!(mine["flags"]["g"]["override"]["reason"], Value::Null);
    let own = ann_calls.get("/api/flags/me/overrides").await.expect(200).json();
    assert_eq!(own["overrides"][0]["reason"], "a \"quoted\" reason");
}

async fn a_minimum_revision_is_waited_for(kind: Kind) {
    let app = TestApp::start(kind).await;
    let (_, ann_calls) = app.user("ann").await;
    let now = app.replica.revision();
    let get = async |value: String| {
        ann_calls.send(Method::GET, "/api/flags/me", &[("flags-min-revision", &value)], None).await
    };
    get(now.to_string()).await.expect(200);
    let ahead = get(format!("{}:{}", now.epoch.simple(), now.number + 1)).await;
    assert_eq!(ahead.header("retry-after"), "1");
    ahead.expect_problem(503, "revision_not_reached");
    get(format!("{}:1", uuid::Uuid::nil())).await.expect_violation("/Flags-Min-Revision", "invalid_header");
    get("rubbish".to_owned()).await.expect_violation("/Flags-Min-Revision", "invalid_header");
    let next = format!("{}:{}", now.epoch.simple(), now.number + 1);
    let (waited, _) = tokio::join!(get(next), app.boolean_flag("f"));
    assert!(waited.expect(200).json()["flags"]["f"].is_object());
}

async fn strings_are_escaped(kind: Kind) {
    let app = TestApp::start(kind).await;
    let (ann, ann_calls) = app.user("ann").await;
    let text = "quote \" backslash \\ line\nfeed \u{1} é 🎉 </script>";
    app.flag(json!({"name": "s", "flag_type": "string", "variants": [{"id": text, "value": text}],
                    "default": {"variant": text}, "off_variant": text}))
        .await;
    let mine = ann_calls.get("/api/flags/me").await.expect(200).json();
    assert_eq!((&mine["flags"]["s"]["value"], &mine["flags"]["s"]["variant"]), (&json!(text), &json!(text)));
    let other = format!("{text}!");
    app.admin.put(&override_at(&ann, "s"), &json!({"override_value": other, "reason": text})).await.expect(201);
    assert_eq!(ann_calls.get("/api/flags/me/s").await.expect(200).json()["value"], other);
    assert_eq!(app.admin.get(&override_at(&ann, "s")).await.expect(200).json()["reason"], text);
}
