//! Override values are stored and returned unchanged.

use reqwest::Method;
use serde_json::{Value, json};

use flags_tests::{
    app::{TestApp, override_path},
    database::DatabaseKind,
    on_both_databases,
};

on_both_databases! {
    falsy_override_values_are_served_like_any_other,
    override_numbers_are_stored_without_loss_of_precision,
}

async fn falsy_override_values_are_served_like_any_other(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    let (ann_id, ann) = app.create_user("ann").await;
    let flags = [
        ("b", "boolean", json!(true), json!(false)),
        ("n", "number", json!(7), json!(0)),
        ("s", "string", json!("x"), json!("")),
        ("j", "json", json!({"a": 1}), json!(null)),
    ];
    for (name, flag_type, default, falsy) in flags {
        app.create_flag(json!({"name": name, "flag_type": flag_type, "variants": [{"id": "v", "value": default}],
                        "default": {"variant": "v"}, "off_variant": "v"}))
            .await;
        app.admin.put(&override_path(&ann_id, name), &json!({"override_value": falsy})).await.expect(201);
        let result = ann.get(&format!("/api/flags/me/{name}")).await.expect(200).json();
        assert_eq!((&result["value"], &result["source"]), (&falsy, &json!("override")), "{name}");
        assert!(result.as_object().unwrap().contains_key("value"));
    }
    let null = json!({"override_value": null});
    app.admin.patch(&override_path(&ann_id, "b"), &null).await.expect_problem(422, "value_type_mismatch");
    app.admin.put(&override_path(&ann_id, "j"), &json!({"override_value": 5})).await.expect(200);
    assert_eq!(
        app.admin.patch(&override_path(&ann_id, "j"), &null).await.expect(200).json()["override_value"],
        Value::Null
    );
}

async fn override_numbers_are_stored_without_loss_of_precision(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    let (ann_id, ann) = app.create_user("ann").await;
    app.create_flag(json!({"name": "n", "flag_type": "number", "variants": [{"id": "one", "value": 1}],
                    "default": {"variant": "one"}, "off_variant": "one"}))
        .await;
    for written in ["1", "1.0", "0.1", "-2.5", "9007199254740992", "123456789.000001"] {
        let body = format!(r#"{{"override_value": {written}}}"#).into_bytes();
        let headers = [("content-type", "application/json")];
        let stored = app.admin.send(Method::PUT, &override_path(&ann_id, "n"), &headers, Some(body)).await;
        assert!(stored.text.contains(&format!("\"override_value\":{written},")), "{written}: {}", stored.text);
        let result = ann.get("/api/flags/me/n").await.expect(200);
        assert!(result.text.contains(&format!("\"value\":{written},")), "{written}: {}", result.text);
        let variant = if written.starts_with("1") && written.len() < 4 { json!("one") } else { Value::Null };
        assert_eq!(result.json()["variant"], variant, "1 and 1.0 match variant `one`");
    }
    for huge in ["1e17", "1e300", "-1e20"] {
        let body = format!(r#"{{"override_value": {huge}}}"#).into_bytes();
        let headers = [("content-type", "application/json")];
        app.admin.send(Method::PUT, &override_path(&ann_id, "n"), &headers, Some(body)).await.expect(200);
        let stored = app.admin.get(&override_path(&ann_id, "n")).await.expect(200).json();
        assert_eq!(stored["override_value"].as_f64(), huge.parse().ok(), "{huge}");
        assert!(stored["override_value"].is_f64(), "{huge} must stay a floating-point number");
    }
}
