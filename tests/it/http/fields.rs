//! Invalid fields of overrides, flags and users are rejected with pointer and code, and nothing is written.

use reqwest::Method;
use serde_json::{Value, json};

use flags_tests::{
    app::{TestApp, override_path, user_overrides_path},
    database::DatabaseKind,
    on_both_databases,
};

on_both_databases! {
    rejects_invalid_override_fields,
    rejects_invalid_flag_fields,
    rejects_invalid_user_fields,
}

async fn rejects_invalid_override_fields(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    let (ann_id, _) = app.create_user("ann").await;
    app.create_boolean_flag("f").await;
    app.create_flag(json!({"name": "j", "flag_type": "json", "variants": [{"id": "v", "value": null}], "default": {"variant": "v"}, "off_variant": "v"})).await;
    let log_before = app.change_log().await;
    let valid = json!({"flag_name": "f", "override_value": true});
    let with = |field: &str, value: Value| {
        let mut body = valid.clone();
        body[field] = value;
        body
    };
    let invalid = [
        (json!({"override_value": true}), "/flag_name", "required"),
        (json!({"flag_name": "f"}), "/override_value", "required"),
        (with("nope", json!(1)), "/nope", "unknown_field"),
        (with("id", json!("x")), "/id", "unknown_field"),
        (with("created_by", json!("x")), "/created_by", "unknown_field"),
        (with("revision", json!(1)), "/revision", "unknown_field"),
        (with("flag_name", json!(1)), "/flag_name", "invalid_type"),
        (with("enabled", json!("yes")), "/enabled", "invalid_type"),
        (with("enabled", Value::Null), "/enabled", "invalid_type"),
        (with("reason", json!(1)), "/reason", "invalid_type"),
        (with("reason", json!("a".repeat(501))), "/reason", "too_long"),
        (with("reason", json!("a\u{0}b")), "/reason", "nul_character"),
        (with("expires_at", json!("tomorrow")), "/expires_at", "invalid_type"),
        (with("expires_at", json!(5)), "/expires_at", "invalid_type"),
        (with("expires_at", json!("2030-01-01T00:00:00Z")), "/expires_at", "not_in_future"),
        (with("expires_at", json!("2029-12-31T23:59:59Z")), "/expires_at", "not_in_future"),
    ];
    for (body, pointer, code) in invalid {
        app.admin.post(&user_overrides_path(&ann_id), &body).await.expect_violation(pointer, code);
    }
    for value in [json!("true"), json!(1), json!(null), json!([true]), json!({})] {
        let response = app.admin.post(&user_overrides_path(&ann_id), &with("override_value", value)).await;
        let body = response.expect_problem(422, "value_type_mismatch");
        assert_eq!(body["errors"][0]["pointer"], "/override_value");
    }
    let nested = (0..32).fold(json!(1), |inner, _| json!([inner]));
    let json_values = [
        (nested, "too_deep"),
        (json!("a".repeat(64 * 1024)), "too_large"),
        (json!({"a": "\u{0}"}), "nul_character"),
        (json!({"\u{0}": 1}), "nul_character"),
        (json!(9_007_199_254_740_993_i64), "number_out_of_range"),
    ];
    for (value, code) in json_values {
        let response = app.admin.put(&override_path(&ann_id, "j"), &json!({"override_value": value})).await;
        response.expect_violation("/override_value", code);
    }
    let huge = br#"{"override_value": 1e999}"#.to_vec();
    let json_type = [("content-type", "application/json")];
    let response = app.admin.send(Method::PUT, &override_path(&ann_id, "j"), &json_type, Some(huge)).await;
    response.expect_violation("/override_value", "number_out_of_range");
    let unknown_id = uuid::Uuid::from_u128(5).to_string();
    app.admin.post(&user_overrides_path(&unknown_id), &valid).await.expect_problem(404, "user_not_found");
    for flag in ["nope", "Not A Name", "", "a\u{0}"] {
        app.admin
            .post(&user_overrides_path(&ann_id), &with("flag_name", json!(flag)))
            .await
            .expect_problem(404, "flag_not_found");
    }
    assert_eq!(app.change_log().await, log_before, "rejected requests must not write");
    app.admin.post(&user_overrides_path(&ann_id), &valid).await.expect(201);
    app.admin.post(&user_overrides_path(&ann_id), &valid).await.expect_problem(409, "override_exists");
    let boundary = json!({"reason": "é".repeat(500)});
    app.admin.patch(&override_path(&ann_id, "f"), &boundary).await.expect(200);
    let past = json!({"expires_at": "2020-01-01T00:00:00Z"});
    app.admin.patch(&override_path(&ann_id, "f"), &past).await.expect_violation("/expires_at", "not_in_future");
    app.admin
        .put(&override_path(&ann_id, "f"), &json!({"flag_name": "f", "override_value": true}))
        .await
        .expect_violation("/flag_name", "unknown_field");
}

async fn rejects_invalid_flag_fields(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    app.create_boolean_flag("f").await;
    let log_before = app.change_log().await;
    let valid = json!({
        "name": "g", "flag_type": "string", "variants": [{"id": "a", "value": "A"}, {"id": "b", "value": "B"}],
        "default": {"variant": "a"}, "off_variant": "b",
    });
    let with = |field: &str, value: Value| {
        let mut body = valid.clone();
        body[field] = value;
        body
    };
    let rule = |condition: Value| json!([{"id": "r", "conditions": [condition], "serve": {"variant": "a"}}]);
    let condition = |operator: &str, values: Value| json!({"attribute": "x", "operator": operator, "values": values});
    let condition_pointer = "/targeting_rules/0/conditions/0";
    let invalid = [
        (with("name", json!("Bad Name")), "/name".to_owned(), "invalid_name"),
        (with("name", json!("a".repeat(256))), "/name".to_owned(), "invalid_name"),
        (with("name", json!("a\u{0}")), "/name".to_owned(), "invalid_name"),
        (with("flag_type", json!("float")), "/flag_type".to_owned(), "invalid_type"),
        (with("description", json!("a".repeat(2_001))), "/description".to_owned(), "too_long"),
        (with("owner", json!("\u{0}")), "/owner".to_owned(), "nul_character"),
        (with("tags", json!(["a", ""])), "/tags/1".to_owned(), "empty"),
        (with("tags", json!(vec!["a"; 51])), "/tags".to_owned(), "too_many"),
        (with("variants", json!([])), "/variants".to_owned(), "empty"),
        (with("variants", json!([{"id": "a", "value": 1}])), "/variants/0/value".to_owned(), "value_type_mismatch"),
        (
            with("variants", json!([{"id": "a", "value": "A"}, {"id": "a", "value": "B"}])),
            "/variants/1/id".to_owned(),
            "duplicate",
        ),
        (with("variants", json!([{"id": "a"}])), "/variants/0/value".to_owned(), "required"),
        (with("default", json!({"variant": "z"})), "/default/variant".to_owned(), "unknown_variant"),
        (with("default", json!({"weights": {"a": 50, "b": 49}})), "/default/weights".to_owned(), "invalid_weights"),
        (
            with("default", json!({"weights": {"a": 50.0001, "b": 49.9999}})),
            "/default/weights/a".to_owned(),
            "invalid_type",
        ),
        (with("default", json!({"weights": {"a": 101, "b": -1}})), "/default/weights/a".to_owned(), "invalid_type"),
        (with("default", json!({"variant": "a", "weights": {"a": 100}})), "/default".to_owned(), "invalid_serve"),
        (with("off_variant", json!("z")), "/off_variant".to_owned(), "unknown_variant"),
        (with("salt", json!("")), "/salt".to_owned(), "empty"),
        (with("revision", json!(1)), "/revision".to_owned(), "unknown_field"),
        (
            with("targeting_rules", rule(condition("matches", json!(["("])))),
            format!("{condition_pointer}/values/0"),
            "invalid_regex",
        ),
        (
            with("targeting_rules", rule(condition("matches", json!([r"(\w{100}){100}"])))),
            format!("{condition_pointer}/values/0"),
            "invalid_regex",
        ),
        (
            with("targeting_rules", rule(condition("roughly", json!(["a"])))),
            format!("{condition_pointer}/operator"),
            "invalid_type",
        ),
        (
            with("targeting_rules", rule(condition("lt", json!(["a"])))),
            format!("{condition_pointer}/values/0"),
            "value_operator_mismatch",
        ),
        (with("targeting_rules", rule(condition("equals", json!([])))), format!("{condition_pointer}/values"), "empty"),
        (
            with("targeting_rules", rule(condition("exists", json!([1])))),
            format!("{condition_pointer}/values"),
            "values_not_allowed",
        ),
        (
            with("targeting_rules", rule(json!({"attribute": "", "operator": "exists"}))),
            format!("{condition_pointer}/attribute"),
            "empty",
        ),
        (
            with("targeting_rules", json!([{"id": "r", "serve": {"variant": "a"}}])),
            "/targeting_rules/0/conditions".to_owned(),
            "required",
        ),
    ];
    for (body, pointer, code) in invalid {
        app.admin.post("/api/admin/feature-flags", &body).await.expect_violation(&pointer, code);
    }
    let duplicate_rules = json!({"targeting_rules": [
        {"id": "r", "conditions": [], "serve": {"variant": "on"}}, {"id": "r", "conditions": [], "serve": {"variant": "on"}},
    ]});
    let response = app.admin.put("/api/admin/feature-flags/f/targeting-rules", &duplicate_rules).await;
    response.expect_violation("/targeting_rules/1/id", "duplicate");
    assert_eq!(app.change_log().await, log_before, "rejected requests must not write");
    // A large number of values is valid.
    let values: Vec<_> = (0..10_000).map(|number| json!(format!("user-{number}"))).collect();
    let body = with("targeting_rules", rule(condition("equals", json!(values))));
    app.admin.post("/api/admin/feature-flags", &body).await.expect(201);
}

async fn rejects_invalid_user_fields(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    let log_before = app.change_log().await;
    let with = |field: &str, value: Value| {
        let mut body = json!({"email": "ann@example.com"});
        body[field] = value;
        body
    };
    let nested = (0..40).fold(json!(1), |inner, _| json!({"a": inner}));
    let invalid = [
        (json!({}), "/email", "email_or_external_id_required"),
        (with("email", json!("")), "/email", "invalid_email"),
        (with("email", json!("no at")), "/email", "invalid_email"),
        (with("email", json!("a@b\u{0}")), "/email", "nul_character"),
        (with("email", json!(format!("{}@example.com", "a".repeat(250)))), "/email", "too_long"),
        (with("display_name", json!("a".repeat(256))), "/display_name", "too_long"),
        (with("role", json!("root")), "/role", "invalid_type"),
        (with("attributes", json!([])), "/attributes", "invalid_type"),
        (with("attributes", json!({"email": "x"})), "/attributes/email", "reserved_attribute"),
        (with("attributes", json!({"a": "\u{0}"})), "/attributes", "nul_character"),
        (with("attributes", nested), "/attributes", "too_deep"),
        (with("attributes", json!({"a": "b".repeat(70_000)})), "/attributes", "too_large"),
        (with("active", json!(1)), "/active", "invalid_type"),
        (with("id", json!("x")), "/id", "unknown_field"),
        (with("created_at", json!("x")), "/created_at", "unknown_field"),
    ];
    for (body, pointer, code) in invalid {
        app.admin.post("/api/admin/users", &body).await.expect_violation(pointer, code);
    }
    assert_eq!(app.change_log().await, log_before, "rejected requests must not write");
}
