//! The OpenFeature Remote Evaluation Protocol: what the providers of any language ask, and what they are told.

use flags_store::api_tokens::Grant;
use flags_tests::{
    app::{TestApp, override_at},
    caller::{Caller, Reply},
    database::{Kind, tamper},
    on_both_databases,
};
use reqwest::Method;
use serde_json::{Value, json};

on_both_databases! {
    every_type_is_answered_with_its_value_and_why,
    whole_numbers_of_a_floating_flag_are_sent_as_such,
    overrides_rules_splits_schedules_and_switches_have_their_reasons,
    splits_are_the_same_as_for_the_users_own_values,
    flags_that_give_nothing_are_told_by_code,
    a_definition_that_cannot_be_evaluated_takes_nothing_else_down,
    all_flags_come_with_a_tag_that_covers_context_values_and_time,
    reasons_are_shown_only_if_they_are_shown_to_users,
    attributes_win_or_only_add_by_who_sends_them,
    whoever_is_no_active_user_is_evaluated_by_what_was_sent,
}

pub(crate) const BULK: &str = "/ofrep/v1/evaluate/flags";

/// A server-side application, which may evaluate flags for anybody.
pub(crate) async fn application(app: &TestApp) -> Caller {
    app.caller(Grant::Evaluate, None, None).await
}

pub(crate) fn context(key: &str) -> Value {
    json!({"context": {"targetingKey": key}})
}

pub(crate) async fn evaluate(caller: &Caller, flag: &str, context: Value) -> Reply {
    caller.post(&format!("{BULK}/{flag}"), &json!({"context": context})).await
}

/// What a key gets of all flags, by their names.
pub(crate) async fn all(caller: &Caller, key: &str) -> serde_json::Map<String, Value> {
    let mut all = caller.post(BULK, &context(key)).await.expect(200).json();
    let flags = all["flags"].as_array_mut().unwrap().iter_mut().map(Value::take);
    flags.map(|flag| (flag["key"].as_str().unwrap().to_owned(), flag)).collect()
}

/// What a key gets of a flag.
pub(crate) async fn get(caller: &Caller, flag: &str, key: &str) -> Value {
    evaluate(caller, flag, json!({"targetingKey": key})).await.expect(200).json()
}

/// Panics unless it is an error in the protocol's shape with this status and code.
#[track_caller]
pub(crate) fn failed(reply: Reply, status: u16, code: &str, key: Option<&str>) -> Reply {
    let reply = reply.expect(status);
    let body = reply.json();
    assert_eq!(reply.header("content-type"), "application/json", "{}", reply.text);
    assert_eq!((&body["errorCode"], body["key"].as_str()), (&json!(code), key), "{}", reply.text);
    assert!(body["errorDetails"].as_str().is_some_and(|text| !text.is_empty()), "{}", reply.text);
    let members = body.as_object().unwrap().len();
    assert_eq!(members, if key.is_some() { 3 } else { 2 }, "{}", reply.text);
    if [429, 503].contains(&status) {
        assert!(reply.header("retry-after").parse::<u32>().is_ok_and(|seconds| seconds > 0));
    }
    reply
}

/// A flag with the variants `a`, `b` of these values that serves `a`.
async fn flag(app: &TestApp, name: &str, flag_type: &str, a: Value, b: Value) {
    let variants = json!([{"id": "a", "value": a}, {"id": "b", "value": b}]);
    let default = json!({"variant": "a"});
    app.flag(
        json!({"name": name, "flag_type": flag_type, "variants": variants, "default": default, "off_variant": "b"}),
    )
    .await;
}

async fn every_type_is_answered_with_its_value_and_why(kind: Kind) {
    let app = TestApp::start(kind).await;
    let (ann, ann_calls) = app.user("ann").await;
    let server = application(&app).await;
    let object = json!({"a": [1, {"b": null}]});
    flag(&app, "checkout.flow", "string", json!("one \"page\""), json!("classic")).await;
    flag(&app, "limits.items", "number", json!(7), json!(-3)).await;
    flag(&app, "limits.ratio", "number", json!(0.5), json!(2)).await;
    flag(&app, "ui.layout", "json", object.clone(), json!(null)).await;
    app.boolean_flag("ui.dark_mode").await;
    for (name, flag_type, value, variant) in [
        ("checkout.flow", "string", json!("one \"page\""), "a"),
        ("limits.items", "number", json!(7), "a"),
        ("limits.ratio", "number", json!(0.5), "a"),
        ("ui.layout", "json", object, "a"),
        ("ui.dark_mode", "boolean", json!(false), "off"),
    ] {
        let expected = json!({"key": name, "value": value, "reason": "STATIC", "variant": variant,
            "metadata": {"source": "default", "flag_type": flag_type}});
        for (caller, key) in [(&server, &*ann), (&server, "visitor-1"), (&ann_calls, &ann)] {
            assert_eq!(get(caller, name, key).await, expected);
        }
    }
    let reply = evaluate(&server, "ui.dark_mode", json!({"targetingKey": "x"})).await;
    assert_eq!((reply.header("cache-control"), reply.header("vary")), ("private, no-cache", "Authorization, Cookie"));
    assert_eq!(reply.header("content-type"), "application/json");
}

async fn whole_numbers_of_a_floating_flag_are_sent_as_such(kind: Kind) {
    let app = TestApp::start(kind).await;
    let (ann, _) = app.user("ann").await;
    let server = application(&app).await;
    flag(&app, "ratio", "number", json!(0.5), json!(2)).await;
    flag(&app, "written", "number", json!(1.0), json!(2)).await;
    flag(&app, "items", "number", json!(7), json!(-3)).await;
    let text = async |flag: &str| evaluate(&server, flag, json!({"targetingKey": ann})).await.expect(200).text;
    app.admin.patch("/api/admin/feature-flags/ratio", &json!({"default": {"variant": "b"}})).await.expect(200);
    assert!(text("ratio").await.contains(r#""value":2.0,"#));
    assert!(text("written").await.contains(r#""value":1.0,"#));
    assert!(text("items").await.contains(r#""value":7,"#));
    // An override's values are meant as the flag's are.
    for (flag, value, expected) in [("ratio", json!(5), "5.0"), ("items", json!(5), "5"), ("items", json!(2.5), "2.5")]
    {
        app.admin.put(&override_at(&ann, flag), &json!({"override_value": value})).await;
        assert!(text(flag).await.contains(&format!(r#""value":{expected},"#)), "{}", text(flag).await);
    }
    let all = server.post(BULK, &context(&ann)).await.expect(200).text;
    assert!(all.contains(r#""value":5.0,"#) && all.contains(r#""value":2.5,"#), "{all}");
}

async fn overrides_rules_splits_schedules_and_switches_have_their_reasons(kind: Kind) {
    let app = TestApp::start(kind).await;
    let (ann, _) = app.user_with("ann", "user", json!({"plan": "pro"})).await;
    let server = application(&app).await;
    let split = json!({"weights": {"a": 100}});
    let rule = |serve: &Value| {
        let condition = json!({"attribute": "plan", "operator": "equals", "values": ["pro"]});
        json!({"targeting_rules": [{"id": "secret-rule", "conditions": [condition], "serve": serve}]})
    };
    for name in ["overridden", "other", "ruled", "ruled_split", "split", "planned", "planned_split", "off"] {
        flag(&app, name, "string", json!("A"), json!("B")).await;
    }
    let patch = async |name: &str, body: Value| {
        app.admin.patch(&format!("/api/admin/feature-flags/{name}"), &body).await.expect(200);
    };
    patch("ruled", rule(&json!({"variant": "b"}))).await;
    patch("ruled_split", rule(&split)).await;
    patch("split", json!({"default": split})).await;
    patch("off", json!({"enabled": false})).await;
    for (name, serve) in [("planned", json!({"variant": "b"})), ("planned_split", split)] {
        let change = json!({"scheduled_at": "2030-01-01T00:00:05Z", "serve": serve});
        app.admin.post(&format!("/api/admin/feature-flags/{name}/scheduled-changes"), &change).await.expect(201);
    }
    let until = "2030-01-02T00:00:00Z";
    app.admin
        .put(&override_at(&ann, "overridden"), &json!({"override_value": "B", "expires_at": until}))
        .await
        .expect(201);
    app.admin.put(&override_at(&ann, "other"), &json!({"override_value": "own"})).await.expect(201);
    assert_eq!(get(&server, "planned", &ann).await["reason"], "STATIC");
    app.clock_to("01-01T00:00:05Z");
    for (name, value, variant, reason, source) in [
        ("overridden", "B", "b", "TARGETING_MATCH", "override"),
        ("other", "own", "override", "TARGETING_MATCH", "override"),
        ("ruled", "B", "b", "TARGETING_MATCH", "targeting_rule"),
        ("ruled_split", "A", "a", "SPLIT", "targeting_rule"),
        ("split", "A", "a", "SPLIT", "default"),
        ("planned", "B", "b", "STATIC", "scheduled_change"),
        ("planned_split", "A", "a", "SPLIT", "scheduled_change"),
        ("off", "B", "b", "DISABLED", "disabled"),
    ] {
        let found = get(&server, name, &ann).await;
        let parts = json!([found["value"], found["variant"], found["reason"], found["metadata"]["source"]]);
        assert_eq!(parts, json!([value, variant, reason, source]), "{name}");
        assert!(!found.to_string().contains("secret-rule"));
    }
    let metadata = get(&server, "overridden", &ann).await["metadata"].clone();
    let at = "2030-01-01T00:00:00Z";
    let expected = json!({"source": "override", "flag_type": "string", "override_created_at": at,
        "override_updated_at": at, "override_expires_at": until});
    assert_eq!(metadata, expected);
    let metadata = get(&server, "other", &ann).await["metadata"].clone();
    assert!(metadata.get("override_expires_at").is_none(), "metadata hold no null: {metadata}");
    app.clock_to("01-02T00:00:00Z");
    assert_eq!(
        get(&server, "overridden", &ann).await["metadata"]["source"],
        "default",
        "an override is gone at its end"
    );
}

async fn splits_are_the_same_as_for_the_users_own_values(kind: Kind) {
    let app = TestApp::start(kind).await;
    flag(&app, "split", "string", json!("A"), json!("B")).await;
    let halves = json!({"default": {"weights": {"a": 50, "b": 50}}});
    app.admin.patch("/api/admin/feature-flags/split", &halves).await.expect(200);
    let server = application(&app).await;
    let mut seen = std::collections::BTreeSet::new();
    for number in 0..12 {
        let (id, user) = app.user(&format!("u{number}")).await;
        let own = user.get("/api/flags/me/split").await.expect(200).json()["value"].clone();
        let found = get(&server, "split", &id).await;
        assert_eq!((&found["value"], &found["reason"]), (&own, &json!("SPLIT")));
        assert_eq!(get(&user, "split", &id.to_uppercase()).await["value"], own);
        seen.insert(own.to_string());
    }
    assert_eq!(seen.len(), 2);
}

async fn flags_that_give_nothing_are_told_by_code(kind: Kind) {
    let app = TestApp::start(kind).await;
    let (ann, ann_calls) = app.user("ann").await;
    let server = application(&app).await;
    app.boolean_flag("archived").await;
    app.admin.put(&override_at(&ann, "archived"), &json!({"override_value": true})).await.expect(201);
    app.admin.post("/api/admin/feature-flags/archived/archive", &json!({})).await.expect(200);
    app.flag(json!({"name": "hidden", "flag_type": "boolean", "client_visible": false})).await;
    app.admin.put(&override_at(&ann, "hidden"), &json!({"override_value": true})).await.expect(201);
    for caller in [&server, &ann_calls] {
        for name in ["nope", "archived"] {
            failed(evaluate(caller, name, json!({"targetingKey": ann})).await, 404, "FLAG_NOT_FOUND", Some(name));
        }
        // The keys come percent-encoded; most texts name no flag.
        for (key, name) in [("No%20Name%2F1", "No Name/1"), ("%E2%82%AC", "€"), ("a/b", "a/b"), ("", "")] {
            failed(evaluate(caller, key, json!({"targetingKey": ann})).await, 404, "FLAG_NOT_FOUND", Some(name));
        }
    }
    assert_eq!(get(&server, "hidden", &ann).await["value"], true, "an application sees all flags");
    failed(evaluate(&ann_calls, "hidden", json!({"targetingKey": ann})).await, 404, "FLAG_NOT_FOUND", Some("hidden"));
    let keys = async |caller: &Caller| {
        let all = caller.post(BULK, &context(&ann)).await.expect(200).json();
        all["flags"].as_array().unwrap().iter().map(|f| f["key"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(keys(&server).await, ["hidden"]);
    assert!(keys(&ann_calls).await.is_empty());
    app.boolean_flag("ui.dark_mode").await;
    assert_eq!(get(&server, "ui%2Edark%5Fmode", &ann).await["key"], "ui.dark_mode");
    assert_eq!(keys(&ann_calls).await, ["ui.dark_mode"]);
}

async fn a_definition_that_cannot_be_evaluated_takes_nothing_else_down(kind: Kind) {
    let app = TestApp::start(kind).await;
    let (ann, ann_calls) = app.user("ann").await;
    let (ben, _) = app.user("ben").await;
    let server = application(&app).await;
    app.boolean_flag("broken").await;
    app.boolean_flag("sound").await;
    app.admin.put(&override_at(&ann, "broken"), &json!({"override_value": true})).await.expect(201);
    // No write lets such a definition in; a restored backup might.
    tamper(&app.database.url, "UPDATE feature_flags SET off_variant = 'secret' WHERE name = 'broken'").await;
    app.reload().await;
    failed(evaluate(&server, "broken", json!({"targetingKey": ben})).await, 400, "PARSE_ERROR", Some("broken"));
    let all = server.post(BULK, &context(&ben)).await.expect(200).json();
    let (broken, sound) = (&all["flags"][0], &all["flags"][1]);
    assert_eq!((&broken["key"], &broken["errorCode"]), (&json!("broken"), &json!("PARSE_ERROR")), "{all}");
    assert!(broken["errorDetails"].is_string() && broken.get("value").is_none(), "{all}");
    assert!(!all.to_string().contains("secret"), "what is wrong with it is for admins");
    assert_eq!((&sound["key"], &sound["value"]), (&json!("sound"), &json!(false)), "{all}");
    // An override stands in.
    for caller in [&server, &ann_calls] {
        let found = get(caller, "broken", &ann).await;
        assert_eq!((&found["value"], &found["variant"]), (&json!(true), &json!("override")), "{found}");
        let all = caller.post(BULK, &context(&ann)).await.expect(200).json();
        assert_eq!(all["flags"][0]["value"], true);
    }
}

async fn all_flags_come_with_a_tag_that_covers_context_values_and_time(kind: Kind) {
    let app = TestApp::start(kind).await;
    let (ann, ann_calls) = app.user("ann").await;
    let (ben, _) = app.user("ben").await;
    let server = application(&app).await;
    app.boolean_flag("a").await;
    flag(&app, "b", "string", json!("A"), json!("B")).await;
    let ask = async |caller: &Caller, body: &Value, known: &str| {
        caller.json(Method::POST, BULK, &[("if-none-match", known)], body).await
    };
    let first = ask(&ann_calls, &context(&ann), "").await.expect(200);
    assert_eq!((first.header("cache-control"), first.header("vary")), ("private, no-cache", "Authorization, Cookie"));
    let body = first.json();
    let keys: Vec<_> = body["flags"].as_array().unwrap().iter().map(|flag| &flag["key"]).collect();
    assert_eq!(keys, ["a", "b"]);
    let metadata = body["metadata"].as_object().unwrap();
    assert_eq!(metadata["revision"], app.replica.revision().to_string());
    assert_eq!((&metadata["stale"], metadata.get("valid_until")), (&json!(false), None));
    let mut tags = vec![first.header("etag").to_owned()];
    // The same as long as nothing changes for this context, whatever else does.
    app.admin.put(&override_at(&ben, "a"), &json!({"override_value": true})).await.expect(201);
    app.clock_to("01-01T00:00:01Z");
    for known in [tags[0].clone(), format!("W/{}", tags[0]), format!("\"x\", {}", tags[0])] {
        let same = ask(&ann_calls, &context(&ann), &known).await.expect(304);
        assert_eq!((same.header("etag"), &*same.text), (&*tags[0], ""));
    }
    let mut differs = async |caller: &Caller, body: Value, what: &str| {
        let reply = ask(caller, &body, &tags.join(", ")).await.expect(200);
        let tag = reply.header("etag").to_owned();
        assert!(!tags.contains(&tag), "{what}");
        ask(caller, &body, &tag).await.expect(304);
        tags.push(tag);
    };
    differs(&server, context("visitor-1"), "another caller").await;
    differs(&server, context("visitor-2"), "another context that gets the same").await;
    let end = json!({"override_value": true, "expires_at": "2030-01-01T00:00:09Z"});
    app.admin.put(&override_at(&ann, "a"), &end).await.expect(201);
    differs(&ann_calls, context(&ann), "a value").await;
    let all = ask(&ann_calls, &context(&ann), "").await.json();
    assert_eq!(all["metadata"]["valid_until"], "2030-01-01T00:00:09Z");
    let later = json!({"expires_at": "2030-01-01T00:00:10Z"});
    app.admin.patch(&override_at(&ann, "a"), &later).await.expect(200);
    differs(&ann_calls, context(&ann), "its end").await;
    let rule = json!({"targeting_rules": [{"id": "r", "serve": {"variant": "b"},
        "conditions": [{"attribute": "page", "operator": "equals", "values": ["home"]}]}]});
    app.admin.patch("/api/admin/feature-flags/b", &rule).await.expect(200);
    differs(&ann_calls, json!({"context": {"targetingKey": ann, "page": "home"}}), "an attribute").await;
    app.clock_to("01-01T00:00:10Z");
    let ended = ask(&ann_calls, &context(&ann), &tags[3]).await.expect(200).json();
    assert_eq!((&ended["flags"][0]["value"], ended["metadata"].get("valid_until")), (&json!(false), None));
    // With nothing by which context and time could tell, an epoch still does.
    let before = ask(&ann_calls, &context(&ann), "").await.expect(200).header("etag").to_owned();
    app.reload().await;
    assert_ne!(ask(&ann_calls, &context(&ann), &before).await.expect(200).header("etag"), before);
}

async fn reasons_are_shown_only_if_they_are_shown_to_users(kind: Kind) {
    for (shows, expected) in [(false, Value::Null), (true, json!("a \"beta\" test"))] {
        let app = TestApp::start_with(kind, shows).await;
        let (ann, ann_calls) = app.user("ann").await;
        app.boolean_flag("a").await;
        app.boolean_flag("b").await;
        let with_reason = json!({"override_value": true, "reason": "a \"beta\" test"});
        app.admin.put(&override_at(&ann, "a"), &with_reason).await.expect(201);
        app.admin.put(&override_at(&ann, "b"), &json!({"override_value": true})).await.expect(201);
        assert_eq!(get(&ann_calls, "a", &ann).await["metadata"]["override_reason"], expected);
        assert!(get(&ann_calls, "b", &ann).await["metadata"].get("override_reason").is_none(), "no null");
    }
}

/// A string flag whose rules give `pro` by `plan`, `nested` by `company.plan`, `admin` by `role` and `home` by `page`.
async fn flag_with_rules(app: &TestApp) {
    let rule = |id: &str, attribute: &str, value: &str| {
        json!({"id": id, "serve": {"variant": id},
            "conditions": [{"attribute": attribute, "operator": "equals", "values": [value]}]})
    };
    let ids = ["none", "pro", "nested", "admin", "mail", "home"];
    let variants: Vec<_> = ids.iter().map(|id| json!({"id": id, "value": id})).collect();
    app.flag(json!({"name": "f", "flag_type": "string", "variants": variants, "default": {"variant": "none"},
        "off_variant": "none", "targeting_rules": [rule("pro", "plan", "pro"), rule("nested", "company.plan", "pro"),
            rule("admin", "role", "admin"), rule("mail", "email", "x@example.com"), rule("home", "page", "home")]}))
        .await;
}

async fn attributes_win_or_only_add_by_who_sends_them(kind: Kind) {
    let app = TestApp::start(kind).await;
    flag_with_rules(&app).await;
    let stored = json!({"plan": "free", "company": {"plan": "free"}});
    let (ann, ann_calls) = app.user_with("ann", "user", stored).await;
    let server = application(&app).await;
    for (attributes, by_server, by_user) in [
        (json!({}), "none", "none"),
        (json!({"page": "home"}), "home", "home"),
        (json!({"plan": "pro"}), "pro", "none"),
        (json!({"company": {"plan": "pro"}}), "nested", "none"),
        (json!({"company.plan": "pro"}), "nested", "none"),
        // The built-in ones are nobody's to set.
        (json!({"role": "admin", "email": "x@example.com", "user_id": "x", "created_at": "x"}), "none", "none"),
    ] {
        let mut context = attributes.clone();
        context["targetingKey"] = json!(ann);
        for (caller, expected) in [(&server, by_server), (&ann_calls, by_user)] {
            let found = evaluate(caller, "f", context.clone()).await.expect(200).json();
            assert_eq!(found["value"], expected, "{attributes}");
            let all = caller.post(BULK, &json!({"context": context})).await.expect(200).json();
            assert_eq!(all["flags"][0], found);
        }
    }
}

async fn whoever_is_no_active_user_is_evaluated_by_what_was_sent(kind: Kind) {
    let app = TestApp::start(kind).await;
    flag_with_rules(&app).await;
    app.boolean_flag("b").await;
    let (ann, ann_calls) = app.user_with("ann", "user", json!({"plan": "pro"})).await;
    app.user_with("ben", "admin", json!({})).await;
    app.admin.put(&override_at(&ann, "b"), &json!({"override_value": true})).await.expect(201);
    let server = application(&app).await;
    assert_eq!(get(&server, "f", &ann).await["value"], "pro");
    let nobody = uuid::Uuid::now_v7().to_string();
    for key in ["visitor-1", &nobody, "x\u{0}€", &"k".repeat(2_000)] {
        assert_eq!(get(&server, "f", key).await["value"], "none");
        let home = evaluate(&server, "f", json!({"targetingKey": key, "page": "home", "role": "admin"})).await;
        assert_eq!(home.expect(200).json()["value"], "home");
        assert_eq!(get(&server, "b", key).await["metadata"]["source"], "default");
    }
    app.admin.patch(&format!("/api/admin/users/{ann}"), &json!({"active": false})).await.expect(200);
    assert_eq!(get(&server, "f", &ann).await["value"], "none", "nothing is known of who is inactive");
    assert_eq!(get(&server, "b", &ann).await["metadata"]["source"], "default", "nor do their overrides count");
    failed(evaluate(&ann_calls, "f", json!({"targetingKey": ann})).await, 401, "GENERAL", Some("f"));
    app.admin.patch(&format!("/api/admin/users/{ann}"), &json!({"active": true})).await.expect(200);
    assert_eq!(get(&server, "b", &ann).await["value"], true);
}
