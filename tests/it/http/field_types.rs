//! Every field of every request body, replaced by values of wrong types.

use reqwest::Method;
use serde_json::{Value, json};

use flags_tests::{
    app::{TestApp, override_path, user_overrides_path},
    database::DatabaseKind,
    on_both_databases,
};

on_both_databases! {
    wrong_field_types_never_cause_server_errors,
}

async fn wrong_field_types_never_cause_server_errors(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    let (ann_id, _) = app.create_user("ann").await;
    app.create_boolean_flag("f").await;
    let serve = json!({"weights": {"a": 50, "b": 50}, "bucket_by": "x"});
    let condition = json!({"attribute": "x", "operator": "equals", "values": ["a"], "negate": false});
    let rule = json!({"id": "r", "name": "n", "enabled": true, "conditions": [condition], "serve": serve});
    let flag = json!({
        "name": "g", "flag_type": "string", "description": "d", "owner": "o", "tags": ["t"], "enabled": true,
        "variants": [{"id": "a", "name": "n", "value": "A", "description": "d"}, {"id": "b", "value": "B"}],
        "default": serve, "off_variant": "a", "targeting_rules": [rule], "salt": "s", "client_visible": true,
    });
    let change = json!({"scheduled_at": "2032-01-01T00:00:00Z", "enabled": false});
    let changes_path = "/api/admin/feature-flags/f/scheduled-changes";
    let change_path = app.admin.post(changes_path, &change).await.expect(201).header("location").to_owned();
    let serve_on = json!({"variant": "on"});
    let boolean_variants = json!([{"id": "on", "value": true}, {"id": "off", "value": false}]);
    let requests = [
        (
            Method::POST,
            user_overrides_path(&ann_id),
            json!({"flag_name": "f", "override_value": true, "enabled": true, "reason": "r", "expires_at": "2031-01-01T00:00:00Z"}),
        ),
        (
            Method::PUT,
            override_path(&ann_id, "f"),
            json!({"override_value": true, "enabled": true, "reason": "r", "expires_at": "2031-01-01T00:00:00Z"}),
        ),
        (
            Method::PATCH,
            override_path(&ann_id, "f"),
            json!({"override_value": true, "enabled": true, "reason": "r", "expires_at": "2031-01-01T00:00:00Z"}),
        ),
        (Method::POST, "/api/admin/feature-flags".to_owned(), flag.clone()),
        (
            Method::PATCH,
            "/api/admin/feature-flags/f".to_owned(),
            json!({"description": "d", "owner": "o", "tags": ["t"], "enabled": true, "salt": "s", "client_visible": true, "default": {"variant": "on"}, "off_variant": "off"}),
        ),
        (
            Method::PUT,
            "/api/admin/feature-flags/f/targeting-rules".to_owned(),
            json!({"targeting_rules": [{"id": "r", "conditions": [condition], "serve": {"variant": "on"}}]}),
        ),
        (
            Method::POST,
            "/api/admin/feature-flags/f/scheduled-changes".to_owned(),
            json!({"scheduled_at": "2031-01-01T00:00:00Z", "serve": {"variant": "on"}, "enabled": true, "description": "d"}),
        ),
        (
            Method::POST,
            "/api/admin/users".to_owned(),
            json!({"email": "x@example.com", "display_name": "n", "role": "user", "attributes": {"a": 1}, "active": true}),
        ),
        (
            Method::PATCH,
            format!("/api/admin/users/{ann_id}"),
            json!({"email": "y@example.com", "display_name": "n", "role": "user", "attributes": {"a": 1}, "active": true}),
        ),
        (
            Method::PATCH,
            change_path,
            json!({"scheduled_at": "2033-01-01T00:00:00Z", "serve": serve_on, "enabled": true, "description": "d"}),
        ),
        (
            Method::PATCH,
            "/api/admin/feature-flags/f".to_owned(),
            json!({"variants": boolean_variants, "targeting_rules": [{"id": "r", "conditions": [condition], "serve": serve_on}]}),
        ),
    ];
    let mut request_count = 0;
    for (method, path, body) in requests {
        // Replaces each value within the valid body, at any depth, by each of the wrong values.
        for pointer in json_pointers(&body) {
            for wrong in [
                json!(null),
                json!(-1),
                json!(1.5),
                json!("\u{0}"),
                json!("x".repeat(3_000)),
                json!([]),
                json!([[1]]),
                json!({"x": 1}),
                json!(true),
            ] {
                let mut invalid_body = body.clone();
                *invalid_body.pointer_mut(&pointer).unwrap() = wrong.clone();
                let response = app.admin.send_json(method.clone(), &path, &[], &invalid_body).await;
                assert!(response.status.as_u16() < 500, "{method} {path} {invalid_body}: {}", response.text);
                assert_ne!(response.status.as_u16(), 400, "the body is valid JSON: {method} {path} {invalid_body}");
                if response.status.as_u16() == 422 {
                    assert!(response.json()["errors"][0]["pointer"].is_string(), "{}", response.text);
                }
                request_count += 1;
            }
        }
    }
    assert!(request_count > 500, "{request_count}");
}

/// Returns JSON pointers to all values within a document, except the document itself.
fn json_pointers(value: &Value) -> Vec<String> {
    let children: Vec<(String, &Value)> = match value {
        Value::Object(fields) => fields.iter().map(|(key, child)| (key.clone(), child)).collect(),
        Value::Array(items) => items.iter().enumerate().map(|(index, child)| (index.to_string(), child)).collect(),
        _ => Vec::new(),
    };
    let pointers_of_child = |(key, child): (String, &Value)| {
        let own = format!("/{key}");
        std::iter::once(own.clone())
            .chain(json_pointers(child).into_iter().map(move |pointer| format!("{own}{pointer}")))
            .collect::<Vec<_>>()
    };
    children.into_iter().flat_map(pointers_of_child).collect()
}
