//! Evaluation has a bounded cost: flags that exceed the budget serve their off variant, and limits keep definitions and
//! contexts small.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use serde_json::{Value, json};

use flags_tests::{
    app::{TestApp, override_path, user_overrides_path},
    caller::Caller,
    database::{Database, DatabaseKind, execute_raw},
    eventually, on_both_databases,
    process::{RunningProcess, create_admin_token},
};

use super::wait_until_token_is_known;
use crate::ofrep;

on_both_databases! {
    flag_over_the_evaluation_budget_serves_its_off_variant_or_an_ofrep_error,
    expensive_evaluations_block_neither_readiness_nor_writers,
    text_longer_than_4_kib_never_satisfies_a_matches_condition,
    rejects_flag_definitions_beyond_the_limits,
    rejects_evaluation_contexts_beyond_the_limits,
    rejects_creation_of_more_than_5000_flags,
    stored_definitions_above_a_limit_can_be_edited_but_not_enlarged,
    metric_counts_evaluations_that_exceed_the_budget,
}

const FLAG_PATH: &str = "/api/admin/feature-flags/f";

/// Regular expression whose search time grows with the product of its size and the length of the text.
const EXPENSIVE_PATTERN: &str = "(?:[ab]*a){6000}[^a-z]";

/// Returns attributes of 60 kB: 15 texts of the maximum length that the operator `matches` searches.
fn expensive_attributes() -> Value {
    json!({"x": vec!["ab".repeat(2_048); 15]})
}

fn expensive_rules(count: usize) -> Value {
    let rule = |number| {
        json!({"id": format!("r{number}"), "serve": {"variant": "rule"},
            "conditions": [{"attribute": "x", "operator": "matches", "values": [EXPENSIVE_PATTERN]}]})
    };
    (0..count).map(rule).collect()
}

/// Returns a flag whose value shows what was served: a rule, the default or the off variant.
fn flag(rules: &Value) -> Value {
    let variants = ["rule", "default", "off"].map(|id| json!({"id": id, "value": id}));
    json!({"name": "f", "flag_type": "string", "variants": variants, "default": {"variant": "default"},
        "off_variant": "off", "targeting_rules": rules})
}

/// Stores rules without the API, which rejects them. An earlier version may have accepted such rules.
async fn store_rules(app: &TestApp, rules: &Value) {
    let sql = format!("update feature_flags set targeting_rules = '{rules}' where name = 'f'");
    execute_raw(&app.database.url, &sql).await;
    app.reload_replica().await;
}

async fn flag_over_the_evaluation_budget_serves_its_off_variant_or_an_ofrep_error(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    app.create_flag(flag(&json!([]))).await;
    store_rules(&app, &expensive_rules(10)).await;
    let (ann_id, ann) = app.create_user_with("ann", "user", expensive_attributes()).await;
    let source = "evaluation_too_expensive";
    let own_flag = ann.get("/api/flags/me/f").await.expect(200).json();
    assert_eq!((&own_flag["value"], &own_flag["source"]), (&json!("off"), &json!(source)));
    let own_flags = ann.get("/api/flags/me").await.expect(200).json();
    assert_eq!(own_flags["flags"]["f"]["value"], "off");
    let user_flags = app.admin.get(&format!("/api/admin/users/{ann_id}/flags")).await.expect(200).json();
    assert_eq!(user_flags["flags"]["f"]["source"], source);

    let evaluated = ofrep::evaluate(&ann, "f", json!({"targetingKey": ann_id})).await;
    ofrep::expect_error(evaluated, 400, "GENERAL", Some("f"));
    let result = ofrep::evaluate_all(&ann, &ann_id).await.remove("f").unwrap();
    assert_eq!((&result["errorCode"], result.get("value")), (&json!("GENERAL"), None));

    let path = format!("/api/admin/users/{ann_id}/flags/f/explanation");
    let explanation = app.admin.get(&path).await.expect(200).json();
    assert_eq!(explanation["resolution"]["value"], "off");
    assert_eq!(explanation["findings"][0]["code"], source);
    let matched = explanation["layers"].as_array().unwrap().iter().find(|layer| layer["outcome"] == "matched").unwrap();
    assert_eq!((&matched["layer"], &matched["value"]), (&json!(source), &json!("off")));
    assert_eq!(explanation["layers"][2]["why_not"]["code"], source);

    app.admin
        .post(&user_overrides_path(&ann_id), &json!({"flag_name": "f", "override_value": "mine"}))
        .await
        .expect(201);
    assert_eq!(ann.get("/api/flags/me/f").await.expect(200).json()["value"], "mine");
    let list = format!("/api/admin/flag-overrides?finding={source}");
    assert_eq!(app.admin.get(&list).await.expect(200).json()["items"][0]["user_id"], ann_id);
}

/// Three clients send expensive evaluations without pause until all writes and health checks have succeeded.
async fn expensive_evaluations_block_neither_readiness_nor_writers(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    app.create_flag(flag(&json!([]))).await;
    store_rules(&app, &expensive_rules(10)).await;
    let (ann_id, ann) = app.create_user_with("ann", "user", expensive_attributes()).await;
    let (is_done, evaluations) = (AtomicBool::new(false), AtomicU32::new(0));
    let attack = async || {
        while !is_done.load(Ordering::Relaxed) {
            let flag = ann.get("/api/flags/me/f").await.expect(200).json();
            assert_eq!(flag["source"], "evaluation_too_expensive");
            evaluations.fetch_add(1, Ordering::Relaxed);
        }
    };
    let write_and_check = async {
        for number in 0..5 {
            let body = json!({"override_value": format!("{number}")});
            app.create_boolean_flag(&format!("other{number}")).await;
            app.admin.put(&override_path(&ann_id, "other0"), &json!({"override_value": true})).await;
            app.admin.patch(FLAG_PATH, &json!({"description": body.to_string()})).await.expect(200);
            app.anonymous.get("/readyz").await.expect(200);
            app.anonymous.get("/healthz").await.expect(200);
        }
        is_done.store(true, Ordering::Relaxed);
    };
    tokio::join!(attack(), attack(), attack(), write_and_check);
    assert!(evaluations.load(Ordering::Relaxed) > 0);
}

async fn text_longer_than_4_kib_never_satisfies_a_matches_condition(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    let rule = |id: &str, negate: bool| {
        json!({"id": id, "serve": {"variant": "rule"}, "conditions": [
            {"attribute": "x", "operator": "matches", "values": ["a"], "negate": negate}]})
    };
    app.create_flag(flag(&json!([rule("plain", false), rule("negated", true)]))).await;
    let (ann_id, ann) = app.create_user_with("ann", "user", json!({"x": "a".repeat(60_000)})).await;
    let (_, ben) = app.create_user_with("ben", "user", json!({"x": "a".repeat(4_096)})).await;
    assert_eq!(ann.get("/api/flags/me/f").await.expect(200).json()["value"], "default");
    assert_eq!(ben.get("/api/flags/me/f").await.expect(200).json()["value"], "rule");
    let path = format!("/api/admin/users/{ann_id}/flags/f/explanation");
    let explanation = app.admin.get(&path).await.expect(200).json();
    for layer in [2, 3] {
        assert_eq!(explanation["layers"][layer]["why_not"]["failure"], "too_long");
    }
}

async fn rejects_flag_definitions_beyond_the_limits(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    let condition = |operator: &str, values: Value| json!({"attribute": "x", "operator": operator, "values": values});
    let rule = |conditions: Vec<Value>| json!({"id": "r", "conditions": conditions, "serve": {"variant": "rule"}});
    let create = async |rules: Value| app.admin.post("/api/admin/feature-flags", &flag(&rules)).await;
    let values: Value = (0..10_001).collect();
    let at_condition = "/targeting_rules/0/conditions/0/values";
    create(json!([rule(vec![condition("equals", values)])])).await.expect_violation(at_condition, "too_many");
    let conditions = vec![condition("equals", json!(["a"])); 101];
    create(json!([rule(conditions)])).await.expect_violation("/targeting_rules/0/conditions", "too_many");
    create(expensive_rules(3)).await.expect_violation("/targeting_rules", "too_large");
    create(expensive_rules(2)).await.expect(201);
    app.admin
        .put(&format!("{FLAG_PATH}/targeting-rules"), &json!({"targeting_rules": expensive_rules(3)}))
        .await
        .expect_violation("/targeting_rules", "too_large");
}

async fn rejects_evaluation_contexts_beyond_the_limits(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    app.create_flag(flag(&json!([]))).await;
    let backend = ofrep::backend_caller(&app).await;
    let members = |count: usize| (0..count).map(|n| (format!("a{n}"), json!(1))).collect::<serde_json::Map<_, _>>();
    let items = |count: usize| json!({"x": vec![1; count]});
    let create_user = async |attributes: Value| {
        app.admin.post("/api/admin/users", &json!({"email": "ann@example.com", "attributes": attributes})).await
    };
    create_user(members(1_001).into()).await.expect_violation("/attributes", "too_many");
    create_user(items(5_001)).await.expect_violation("/attributes", "too_many");
    create_user(items(5_000)).await.expect(201);
    let evaluate = async |attributes: Value| {
        let mut context = attributes;
        context["targetingKey"] = json!("visitor");
        ofrep::evaluate(&backend, "f", context).await
    };
    for attributes in [members(1_001).into(), items(5_001)] {
        ofrep::expect_error(evaluate(attributes).await, 400, "INVALID_CONTEXT", Some("f"));
    }
    evaluate(members(1_000).into()).await.expect(200);
    let with_key = async |length| ofrep::evaluate(&backend, "f", json!({"targetingKey": "k".repeat(length)})).await;
    with_key(4_096).await.expect(200);
    ofrep::expect_error(with_key(4_097).await, 400, "INVALID_CONTEXT", Some("f"));
}

async fn rejects_creation_of_more_than_5000_flags(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    app.create_flag(flag(&json!([]))).await;
    let columns = "flag_type, enabled, variants, default_serve, off_variant, targeting_rules, salt, client_visible, \
                   default_set_at, enabled_set_at, created_at, updated_at, tags, revision, deleting, \
                   search_text, tags_text";
    let sql = format!(
        "insert into feature_flags (name, {columns}) \
         with recursive numbers(n) as (select 1 union all select n + 1 from numbers where n < 4998) \
         select 'f' || n, {columns} from feature_flags, numbers where name = 'f'"
    );
    execute_raw(&app.database.url, &sql).await;
    app.create_boolean_flag("last").await;
    let body = json!({"name": "more", "flag_type": "boolean"});
    app.admin.post("/api/admin/feature-flags", &body).await.expect_violation("/name", "too_many_flags");
    app.admin.get("/api/admin/feature-flags/more").await.expect(404);
    app.admin.post("/api/admin/feature-flags/last/archive", &json!({})).await.expect(200);
    app.admin.delete("/api/admin/feature-flags/last").await.expect(204);
    app.admin.post("/api/admin/feature-flags", &body).await.expect(201);
}

async fn stored_definitions_above_a_limit_can_be_edited_but_not_enlarged(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    app.create_flag(flag(&json!([]))).await;
    store_rules(&app, &expensive_rules(4)).await;
    let patch = async |body: Value| app.admin.patch(FLAG_PATH, &body).await;
    patch(json!({"description": "edited"})).await.expect(200);
    patch(json!({"targeting_rules": expensive_rules(5)})).await.expect_violation("/targeting_rules", "too_large");
    patch(json!({"targeting_rules": expensive_rules(3)})).await.expect(200);
    patch(json!({"targeting_rules": expensive_rules(4)})).await.expect_violation("/targeting_rules", "too_large");

    let (ann_id, _) = app.create_user("ann").await;
    let attributes = |count: usize| json!({"x": vec![1; count]});
    let sql = format!("update users set attributes = '{}' where handle = 'ann@example.com'", attributes(6_000));
    execute_raw(&app.database.url, &sql).await;
    let patch = async |body: Value| app.admin.patch(&format!("/api/admin/users/{ann_id}"), &body).await;
    patch(json!({"display_name": "Ann"})).await.expect(200);
    patch(json!({"attributes": attributes(6_001)})).await.expect_violation("/attributes", "too_many");
    patch(json!({"attributes": attributes(5_999)})).await.expect(200);
}

async fn metric_counts_evaluations_that_exceed_the_budget(kind: DatabaseKind) {
    let database = Database::migrated(kind).await;
    let server = RunningProcess::server(&database.url);
    let (admin, anonymous) = (server.caller(&create_admin_token(&database.url)), Caller::new(&server.base_url, None));
    wait_until_token_is_known(&admin).await;
    let wait_for_count = async |count: u32| {
        let line = format!("flags_evaluations_too_expensive_total {count}");
        eventually(&line, async || {
            anonymous.get("/metrics").await.expect(200).text.lines().any(|l| l == line).then_some(())
        })
        .await;
    };
    wait_for_count(0).await;
    admin.post("/api/admin/feature-flags", &flag(&expensive_rules(1))).await.expect(201);
    let token = json!({"name": "backend", "scope": "evaluate"});
    let token = admin.post("/api/admin/api-tokens", &token).await.expect(201).json();
    let backend = server.caller(token["token"].as_str().unwrap());
    let mut context = expensive_attributes();
    context["targetingKey"] = json!("visitor");
    let evaluated = ofrep::evaluate(&backend, "f", context).await;
    ofrep::expect_error(evaluated, 400, "GENERAL", Some("f"));
    wait_for_count(1).await;
}
