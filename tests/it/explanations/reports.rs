//! What one user gets and why, over HTTP: every planted conflict is named, and all ways to ask agree.

use flags_domain::same_value;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};
use serde_json::{Value, json};

use flags_tests::{
    app::{TestApp, override_at},
    caller::Caller,
    database::Kind,
    on_both_databases,
};

use crate::ofrep::evaluate as ofrep;

on_both_databases! {
    every_layer_is_reported,
    a_planted_conflict_of_each_kind_is_named,
    the_future_can_be_asked_for_and_the_past_cannot,
    admins_see_all_flags_of_a_user,
    all_ways_to_ask_agree,
    what_is_not_there_is_not_found,
}

fn explanation_at(user: &str, flag: &str) -> String {
    format!("/api/admin/users/{user}/flags/{flag}/explanation")
}

async fn explain(app: &TestApp, user: &str, flag: &str) -> Value {
    app.admin.get(&explanation_at(user, flag)).await.expect(200).json()
}

fn codes(explanation: &Value) -> Vec<&str> {
    let findings = explanation["findings"].as_array().unwrap().iter();
    findings.map(|finding| finding["code"].as_str().unwrap()).collect()
}

/// A flag with a rule for the plan `pro`, one that is off, and a split by an attribute.
async fn flag_with_rules(app: &TestApp) {
    app.flag(json!({
        "name": "checkout.flow", "flag_type": "string",
        "variants": [{"id": "old", "value": "classic"}, {"id": "new", "value": "one-page"}, {"id": "beta", "value": "b"}],
        "default": {"weights": {"old": 50, "new": 50}, "bucket_by": "company"}, "off_variant": "old",
        "targeting_rules": [
            {"id": "off", "enabled": false, "conditions": [], "serve": {"variant": "beta"}},
            {"id": "pro", "conditions": [
                {"attribute": "plan", "operator": "equals", "values": ["pro"]},
                {"attribute": "seats", "operator": "gte", "values": [10]},
            ], "serve": {"variant": "new"}},
        ],
    }))
    .await;
}

async fn every_layer_is_reported(kind: Kind) {
    let app = TestApp::start(kind).await;
    flag_with_rules(&app).await;
    let (ann, _) = app.user_with("ann", "user", json!({"plan": "pro", "seats": "many"})).await;
    let found = explain(&app, &ann, "checkout.flow").await;
    assert_eq!((&found["user_id"], &found["flag_name"]), (&json!(ann), &json!("checkout.flow")));
    assert_eq!((&found["evaluated_at"], &found["stale"]), (&json!("2030-01-01T00:00:00Z"), &json!(false)));
    let given = json!({"value": "classic", "variant": "old", "source": "default", "valid_until": null});
    assert_eq!(found["resolution"], given, "without the attribute the first variant");
    let layers = json!([
        {"layer": "override", "outcome": "not_matched", "would_match": false, "why_not": {"code": "no_override"}},
        {"layer": "disabled", "outcome": "not_matched", "would_match": false, "why_not": {"code": "flag_enabled"}},
        {"layer": "targeting_rule", "rule_id": "off", "outcome": "not_matched", "would_match": false,
         "why_not": {"code": "rule_disabled"}},
        {"layer": "targeting_rule", "rule_id": "pro", "outcome": "not_matched", "would_match": false,
         "why_not": {"code": "condition", "condition": 1, "attribute": "seats", "operator": "gte", "seen": "many",
                     "failure": "type_mismatch"}},
        {"layer": "scheduled_change", "outcome": "not_matched", "would_match": false, "why_not": {"code": "nothing_due"}},
        {"layer": "default", "outcome": "matched", "would_match": true, "value": "classic", "variant": "old",
         "split": {"bucket_by": "company", "bucket": null}},
    ]);
    assert_eq!(found["layers"], layers);
    assert_eq!(
        (&found["findings"], &found["override"], &found["next_change"]),
        (&json!([]), &Value::Null, &Value::Null)
    );
    let expires_at = "2030-01-01T00:01:00Z";
    let body = json!({"override_value": "b", "reason": "beta test", "expires_at": expires_at});
    app.admin.put(&override_at(&ann, "checkout.flow"), &body).await.expect(201);
    app.admin
        .patch(
            &format!("/api/admin/users/{ann}"),
            &json!({"attributes": {"plan": "pro", "seats": 12, "company": "acme"}}),
        )
        .await
        .expect(200);
    let found = explain(&app, &ann, "checkout.flow").await;
    let outcomes: Vec<_> = found["layers"].as_array().unwrap().iter().map(|layer| &layer["outcome"]).collect();
    assert_eq!(outcomes, ["matched", "not_reached", "not_reached", "not_reached", "not_reached", "not_reached"]);
    let shadowed = &found["layers"][3];
    assert_eq!((&shadowed["would_match"], &shadowed["value"]), (&json!(true), &json!("one-page")));
    assert!(found["layers"][5]["split"]["bucket"].is_u64(), "{found}");
    assert_eq!(codes(&found), ["override_shadows_rule"]);
    let next =
        json!({"at": expires_at, "value": "one-page", "variant": "new", "source": "targeting_rule", "rule_id": "pro"});
    assert_eq!(found["next_change"], next);
    let shown = &found["override"];
    assert_eq!((&shown["reason"], &shown["status"]), (&json!("beta test"), &json!("active")));
    assert!(shown["created_by"].as_str().unwrap().starts_with("token:"), "{shown}");
    app.admin.post("/api/admin/feature-flags/checkout.flow/archive", &Value::Null).await.expect(200);
    let found = explain(&app, &ann, "checkout.flow").await;
    assert_eq!(found["resolution"], Value::Null);
    assert_eq!(found["layers"], json!([{"layer": "archived", "outcome": "matched", "would_match": false}]));
}

async fn a_planted_conflict_of_each_kind_is_named(kind: Kind) {
    let app = TestApp::start(kind).await;
    let (ann, _) = app.user_with("ann", "user", json!({"plan": "pro"})).await;
    let pro = json!([{"id": "pro", "conditions": [{"attribute": "plan", "operator": "equals", "values": ["pro"]}],
        "serve": {"variant": "on"}}]);
    for name in ["plain", "ruled", "planned", "switched", "ended", "asleep", "odd"] {
        app.boolean_flag(name).await;
    }
    app.admin.put("/api/admin/feature-flags/ruled/targeting-rules", &json!({"targeting_rules": pro})).await.expect(200);
    let plan = json!({"scheduled_at": "2030-01-02T00:00:00Z", "serve": {"variant": "on"}});
    app.admin.post("/api/admin/feature-flags/planned/scheduled-changes", &plan).await.expect(201);
    app.admin.patch("/api/admin/feature-flags/switched", &json!({"enabled": false})).await.expect(200);
    let set = async |flag: &str, body: Value| {
        app.admin.put(&override_at(&ann, flag), &body).await.expect(201);
    };
    set("plain", json!({"override_value": false})).await;
    set("ruled", json!({"override_value": false})).await;
    set("planned", json!({"override_value": false})).await;
    set("switched", json!({"override_value": true})).await;
    set("ended", json!({"override_value": true, "expires_at": "2030-01-01T00:00:01Z"})).await;
    set("asleep", json!({"override_value": true, "enabled": false})).await;
    set("odd", json!({"override_value": true})).await;
    // No write lets such a value in; a restored backup might.
    let odd = "UPDATE user_flag_overrides SET override_value = '\"text\"' WHERE flag_name = 'odd'";
    flags_tests::database::tamper(&app.database.url, odd).await;
    app.reload().await;
    app.clock_to("01-01T00:00:01Z");
    for (flag, expected) in [
        ("plain", vec!["override_redundant"]),
        ("ruled", vec!["override_shadows_rule"]),
        ("planned", vec!["override_shadows_schedule"]),
        ("switched", vec!["override_on_disabled_flag"]),
        ("ended", vec!["override_expired"]),
        ("asleep", vec!["override_disabled"]),
        ("odd", vec!["override_type_mismatch"]),
    ] {
        let found = explain(&app, &ann, flag).await;
        assert_eq!(codes(&found), expected, "{flag}: {found}");
        // The list finds the same, and nothing else.
        let listed =
            app.admin.get(&format!("/api/admin/flag-overrides?finding={}", expected[0])).await.expect(200).json();
        let names: Vec<_> = listed["items"].as_array().unwrap().iter().map(|item| &item["flag_name"]).collect();
        assert_eq!(names, [flag], "{}", expected[0]);
        assert_eq!((&listed["total"], &listed["total_is_exact"]), (&json!(1), &json!(true)));
    }
}

async fn the_future_can_be_asked_for_and_the_past_cannot(kind: Kind) {
    let app = TestApp::start(kind).await;
    let (ann, _) = app.user("ann").await;
    app.boolean_flag("f").await;
    let plan = json!({"scheduled_at": "2030-01-02T00:00:00Z", "serve": {"variant": "on"}});
    let plan = app.admin.post("/api/admin/feature-flags/f/scheduled-changes", &plan).await.expect(201).json();
    for (at, value, source) in [
        ("2030-01-01T00:00:00Z", false, "default"),
        ("2030-01-01T23:59:59.999999Z", false, "default"),
        ("2030-01-02T00:00:00Z", true, "scheduled_change"),
        ("2030-01-02T01:00:00%2B01:00", true, "scheduled_change"),
        ("9999-12-31T23:59:59Z", true, "scheduled_change"),
    ] {
        let found = app.admin.get(&format!("{}?at={at}", explanation_at(&ann, "f"))).await.expect(200).json();
        assert_eq!(
            (&found["resolution"]["value"], &found["resolution"]["source"]),
            (&json!(value), &json!(source)),
            "{at}"
        );
        let all = app.admin.get(&format!("/api/admin/users/{ann}/flags?at={at}")).await.expect(200).json();
        assert_eq!(all["flags"]["f"]["value"], value, "{at}");
        if source == "scheduled_change" {
            assert_eq!(all["flags"]["f"]["scheduled_change_id"], plan["id"]);
        }
    }
    let off = json!({"scheduled_at": "2030-01-03T00:00:00Z", "enabled": false});
    let off = app.admin.post("/api/admin/feature-flags/f/scheduled-changes", &off).await.expect(201).json();
    let found =
        app.admin.get(&format!("{}?at=2030-01-03T00:00:00Z", explanation_at(&ann, "f"))).await.expect(200).json();
    assert_eq!(found["resolution"]["source"], "disabled");
    assert_eq!(found["layers"][1]["scheduled_change_id"], off["id"], "{found}");
    for path in [explanation_at(&ann, "f"), format!("/api/admin/users/{ann}/flags")] {
        let past = app.admin.get(&format!("{path}?at=2029-12-31T23:59:59.999999Z")).await;
        past.expect_violation("/at", "in_the_past");
        for bad in ["yesterday", "2030-01-01", "10000-01-01T00:00:00Z", ""] {
            app.admin.get(&format!("{path}?at={bad}")).await.expect_violation("/at", "invalid_parameter");
        }
        app.admin.get(&format!("{path}?when=now")).await.expect_violation("/when", "unknown_parameter");
    }
}

async fn admins_see_all_flags_of_a_user(kind: Kind) {
    let app = TestApp::start(kind).await;
    flag_with_rules(&app).await;
    app.flag(json!({"name": "hidden", "flag_type": "boolean", "client_visible": false})).await;
    let (ann, _) = app.user_with("ann", "user", json!({"plan": "pro", "seats": 12})).await;
    let body = json!({"override_value": true, "reason": "support", "expires_at": "2030-01-03T00:00:00Z"});
    app.admin.put(&override_at(&ann, "hidden"), &body).await.expect(201);
    let found = app.admin.get(&format!("/api/admin/users/{ann}/flags")).await.expect(200).json();
    assert_eq!((&found["user_id"], &found["valid_until"]), (&json!(ann), &json!("2030-01-03T00:00:00Z")));
    let rule = json!({"value": "one-page", "variant": "new", "source": "targeting_rule", "rule_id": "pro",
        "flag_type": "string", "client_visible": true});
    assert_eq!(found["flags"]["checkout.flow"], rule);
    let hidden = &found["flags"]["hidden"];
    assert_eq!((&hidden["client_visible"], &hidden["override"]["reason"]), (&json!(false), &json!("support")));
    assert_eq!(hidden["then"], json!({"value": false, "variant": "off", "source": "default"}));
}

/// Flags, schedules, users and overrides by chance.
async fn plant(app: &TestApp, random: &mut StdRng) -> (Vec<String>, Vec<(String, Caller)>) {
    let plans = ["free", "pro", "team"];
    let mut flags = Vec::new();
    for number in 0..20 {
        let name = format!("flag{number:02}");
        let serve = |random: &mut StdRng| match random.random_range(0..3) {
            0 => json!({"variant": (["a", "b", "c"].choose(random).unwrap())}),
            1 => json!({"weights": {"a": 20, "b": 30, "c": 50}}),
            _ => json!({"weights": {"a": 99.5, "c": 0.5}, "bucket_by": "seats"}),
        };
        let rules: Vec<_> = (0..random.random_range(0..3))
            .map(|rule| {
                json!({"id": format!("r{rule}"), "enabled": random.random_bool(0.8), "serve": serve(random), "conditions": [
                    {"attribute": "plan", "operator": "equals", "values": [plans.choose(random).unwrap()],
                     "negate": random.random_bool(0.3)}]})
            })
            .collect();
        let flag = json!({"name": name, "flag_type": "number", "enabled": random.random_bool(0.8),
            "variants": [{"id": "a", "value": 1}, {"id": "b", "value": 2.5}, {"id": "c", "value": -3}],
            "default": serve(random), "off_variant": "a", "targeting_rules": rules});
        app.flag(flag).await;
        for second in [10, 20, 30] {
            if random.random_bool(0.4) {
                let body = json!({"scheduled_at": format!("2030-01-01T00:00:{second}Z"), "serve": serve(random),
                    "enabled": random.random_bool(0.5).then(|| random.random_bool(0.7))});
                let path = format!("/api/admin/feature-flags/{name}/scheduled-changes");
                app.admin.post(&path, &body).await.expect(201);
            }
        }
        flags.push(name);
    }
    let mut users = Vec::new();
    for number in 0..10 {
        let attributes = json!({"plan": plans.choose(random).unwrap(), "seats": random.random_range(0..50)});
        let (id, caller) = app.user_with(&format!("user{number}"), "user", attributes).await;
        for flag in &flags {
            if random.random_bool(0.3) {
                let body = json!({"override_value": ([1.0, 2.5, 7.0].choose(random).unwrap()),
                    "enabled": random.random_bool(0.8),
                    "expires_at": random.random_bool(0.5).then_some("2030-01-01T00:00:15Z")});
                app.admin.put(&override_at(&id, flag), &body).await.expect(201);
            }
        }
        users.push((id, caller));
    }
    (flags, users)
}

async fn all_ways_to_ask_agree(kind: Kind) {
    let app = TestApp::start(kind).await;
    let mut random = StdRng::seed_from_u64(7);
    let (flags, users) = plant(&app, &mut random).await;
    let application = ofrep::application(&app).await;
    let mut compared = 0;
    for second in [0, 10, 15, 20, 30] {
        app.clock_to(&format!("01-01T00:00:{second:02}Z"));
        for (user, caller) in &users {
            let by_ofrep = [ofrep::all(caller, user).await, ofrep::all(&application, user).await];
            let mine = caller.get("/api/flags/me").await.expect(200).json();
            let admins = app.admin.get(&format!("/api/admin/users/{user}/flags")).await.expect(200).json();
            for flag in &flags {
                let found = explain(&app, user, flag).await;
                let parts = |answer: &Value| json!([answer["value"], answer["variant"], answer["source"]]);
                let expected = parts(&mine["flags"][flag]);
                assert_eq!(parts(&admins["flags"][flag]), expected, "{user} {flag} {second}");
                let single = ofrep::get(&application, flag, user).await;
                for found in [&by_ofrep[0][flag], &by_ofrep[1][flag], &single] {
                    // Floating numbers are written as such, and there is always a variant.
                    let variant = Some(&found["variant"]).filter(|variant| *variant != "override");
                    let found = json!([found["value"], variant, found["metadata"]["source"]]);
                    assert!(same_value(&found, &expected), "{user} {flag} {second}: {found}");
                }
                assert_eq!(parts(&found["resolution"]), expected, "{user} {flag} {second}: {found}");
                let matched =
                    found["layers"].as_array().unwrap().iter().find(|layer| layer["outcome"] == "matched").unwrap();
                assert_eq!(json!([matched["value"], matched["layer"]]), json!([expected[0], expected[2]]));
                assert_eq!(mine["flags"][flag]["then"]["value"], admins["flags"][flag]["then"]["value"]);
                compared += 1;
            }
        }
    }
    assert_eq!(compared, 1_000);
}

async fn what_is_not_there_is_not_found(kind: Kind) {
    let app = TestApp::start(kind).await;
    let (ann, _) = app.user("ann").await;
    app.boolean_flag("f").await;
    let nobody = uuid::Uuid::now_v7().to_string();
    app.admin.get(&explanation_at(&nobody, "f")).await.expect_problem(404, "user_not_found");
    app.admin.get(&explanation_at("rubbish", "f")).await.expect_problem(404, "user_not_found");
    app.admin.get(&explanation_at(&ann, "g")).await.expect_problem(404, "flag_not_found");
    app.admin.get(&format!("/api/admin/users/{nobody}/flags")).await.expect_problem(404, "user_not_found");
    for path in ["/api/admin/flag-overrides?finding=nonsense", "/api/admin/flag-overrides?finding="] {
        app.admin.get(path).await.expect_violation("/finding", "invalid_parameter");
    }
}
