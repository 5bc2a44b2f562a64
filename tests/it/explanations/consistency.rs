//! All endpoints that evaluate flags return the same results.

use flags_domain::same_value;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};
use serde_json::{Value, json};

use flags_tests::{
    app::{TestApp, override_path},
    caller::Caller,
    database::DatabaseKind,
    on_both_databases,
};

use super::explain;
use crate::ofrep;

on_both_databases! {
    all_evaluation_endpoints_agree,
}

/// Creates random flags, scheduled changes, users and overrides. Returns the flag names and `(user_id, caller)` pairs.
async fn create_random_configuration(app: &TestApp, random: &mut StdRng) -> (Vec<String>, Vec<(String, Caller)>) {
    let plan_names = ["free", "pro", "team"];
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
                    {"attribute": "plan", "operator": "equals", "values": [plan_names.choose(random).unwrap()],
                     "negate": random.random_bool(0.3)}]})
            })
            .collect();
        let flag = json!({"name": name, "flag_type": "number", "enabled": random.random_bool(0.8),
            "variants": [{"id": "a", "value": 1}, {"id": "b", "value": 2.5}, {"id": "c", "value": -3}],
            "default": serve(random), "off_variant": "a", "targeting_rules": rules});
        app.create_flag(flag).await;
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
        let attributes = json!({"plan": plan_names.choose(random).unwrap(), "seats": random.random_range(0..50)});
        let (id, caller) = app.create_user_with(&format!("user{number}"), "user", attributes).await;
        for flag in &flags {
            if random.random_bool(0.3) {
                let body = json!({"override_value": ([1.0, 2.5, 7.0].choose(random).unwrap()),
                    "enabled": random.random_bool(0.8),
                    "expires_at": random.random_bool(0.5).then_some("2030-01-01T00:00:15Z")});
                app.admin.put(&override_path(&id, flag), &body).await.expect(201);
            }
        }
        users.push((id, caller));
    }
    (flags, users)
}

async fn all_evaluation_endpoints_agree(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    let mut random = StdRng::seed_from_u64(7);
    let (flags, users) = create_random_configuration(&app, &mut random).await;
    let backend = ofrep::backend_caller(&app).await;
    let mut compared = 0;
    for second in [0, 10, 15, 20, 30] {
        app.set_clock(&format!("01-01T00:00:{second:02}Z"));
        for (user_id, caller) in &users {
            let ofrep_results =
                [ofrep::evaluate_all(caller, user_id).await, ofrep::evaluate_all(&backend, user_id).await];
            let own_flags = caller.get("/api/flags/me").await.expect(200).json();
            let admin_view = app.admin.get(&format!("/api/admin/users/{user_id}/flags")).await.expect(200).json();
            for flag in &flags {
                let explanation = explain(&app, user_id, flag).await;
                let summary = |result: &Value| json!([result["value"], result["variant"], result["source"]]);
                let expected = summary(&own_flags["flags"][flag]);
                assert_eq!(summary(&admin_view["flags"][flag]), expected, "{user_id} {flag} {second}");
                let single_result = ofrep::evaluate_one(&backend, flag, user_id).await;
                for result in [&ofrep_results[0][flag], &ofrep_results[1][flag], &single_result] {
                    // OFREP writes numbers of floating-point flags with a fraction. It sends the variant `override`
                    // where the other endpoints send none.
                    let variant = Some(&result["variant"]).filter(|variant| *variant != "override");
                    let result = json!([result["value"], variant, result["metadata"]["source"]]);
                    assert!(same_value(&result, &expected), "{user_id} {flag} {second}: {result}");
                }
                assert_eq!(summary(&explanation["resolution"]), expected, "{user_id} {flag} {second}: {explanation}");
                let matched = explanation["layers"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .find(|layer| layer["outcome"] == "matched")
                    .unwrap();
                assert_eq!(json!([matched["value"], matched["layer"]]), json!([expected[0], expected[2]]));
                assert_eq!(own_flags["flags"][flag]["then"]["value"], admin_view["flags"][flag]["then"]["value"]);
                compared += 1;
            }
        }
    }
    assert_eq!(compared, 1_000);
}
