//! Evaluation results: values, variants, reasons, metadata and evaluation errors.

use flags_tests::{
    app::{TestApp, override_path},
    caller::Caller,
    database::{DatabaseKind, execute_raw},
    on_both_databases,
};
use serde_json::{Value, json};

use super::{BULK_PATH, backend_caller, create_two_variant_flag, evaluate, evaluate_one, expect_error, request_for};

on_both_databases! {
    evaluates_flags_of_every_type,
    integers_keep_a_decimal_point_if_the_flag_has_a_fractional_variant,
    evaluation_reason_and_source_name_the_layer_that_decided,
    percentage_splits_equal_those_of_the_own_flags_endpoint,
    unknown_archived_and_hidden_flags_yield_flag_not_found,
    invalid_flag_definition_does_not_affect_other_flags,
    override_reasons_are_included_only_if_enabled_in_the_settings,
}

async fn evaluates_flags_of_every_type(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    let (ann_id, ann) = app.create_user("ann").await;
    let backend = backend_caller(&app).await;
    let object = json!({"a": [1, {"b": null}]});
    create_two_variant_flag(&app, "checkout.flow", "string", json!("one \"page\""), json!("classic")).await;
    create_two_variant_flag(&app, "limits.items", "number", json!(7), json!(-3)).await;
    create_two_variant_flag(&app, "limits.ratio", "number", json!(0.5), json!(2)).await;
    create_two_variant_flag(&app, "ui.layout", "json", object.clone(), json!(null)).await;
    app.create_boolean_flag("ui.dark_mode").await;
    for (name, flag_type, value, variant) in [
        ("checkout.flow", "string", json!("one \"page\""), "a"),
        ("limits.items", "number", json!(7), "a"),
        ("limits.ratio", "number", json!(0.5), "a"),
        ("ui.layout", "json", object, "a"),
        ("ui.dark_mode", "boolean", json!(false), "off"),
    ] {
        let expected = json!({"key": name, "value": value, "reason": "STATIC", "variant": variant,
            "metadata": {"source": "default", "flag_type": flag_type}});
        for (caller, key) in [(&backend, &*ann_id), (&backend, "anonymous-1"), (&ann, &ann_id)] {
            assert_eq!(evaluate_one(caller, name, key).await, expected);
        }
    }
    let response = evaluate(&backend, "ui.dark_mode", json!({"targetingKey": "x"})).await;
    assert_eq!(
        (response.header("cache-control"), response.header("vary")),
        ("private, no-cache", "Authorization, Cookie")
    );
    assert_eq!(response.header("content-type"), "application/json");
}

async fn integers_keep_a_decimal_point_if_the_flag_has_a_fractional_variant(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    let (ann_id, _) = app.create_user("ann").await;
    let backend = backend_caller(&app).await;
    create_two_variant_flag(&app, "ratio", "number", json!(0.5), json!(2)).await;
    create_two_variant_flag(&app, "decimal", "number", json!(1.0), json!(2)).await;
    create_two_variant_flag(&app, "items", "number", json!(7), json!(-3)).await;
    let response_text =
        async |flag: &str| evaluate(&backend, flag, json!({"targetingKey": ann_id})).await.expect(200).text;
    app.admin.patch("/api/admin/feature-flags/ratio", &json!({"default": {"variant": "b"}})).await.expect(200);
    assert!(response_text("ratio").await.contains(r#""value":2.0,"#));
    assert!(response_text("decimal").await.contains(r#""value":1.0,"#));
    assert!(response_text("items").await.contains(r#""value":7,"#));
    // An override value has the number format of its flag.
    for (flag, value, expected) in [("ratio", json!(5), "5.0"), ("items", json!(5), "5"), ("items", json!(2.5), "2.5")]
    {
        app.admin.put(&override_path(&ann_id, flag), &json!({"override_value": value})).await;
        assert!(
            response_text(flag).await.contains(&format!(r#""value":{expected},"#)),
            "{}",
            response_text(flag).await
        );
    }
    let all = backend.post(BULK_PATH, &request_for(&ann_id)).await.expect(200).text;
    assert!(all.contains(r#""value":5.0,"#) && all.contains(r#""value":2.5,"#), "{all}");
}

async fn evaluation_reason_and_source_name_the_layer_that_decided(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    let (ann_id, _) = app.create_user_with("ann", "user", json!({"plan": "pro"})).await;
    let backend = backend_caller(&app).await;
    let split = json!({"weights": {"a": 100}});
    let rule = |serve: &Value| {
        let condition = json!({"attribute": "plan", "operator": "equals", "values": ["pro"]});
        json!({"targeting_rules": [{"id": "secret-rule", "conditions": [condition], "serve": serve}]})
    };
    for name in
        ["overridden", "other", "targeted", "targeted_split", "split", "scheduled", "scheduled_split", "disabled_flag"]
    {
        create_two_variant_flag(&app, name, "string", json!("A"), json!("B")).await;
    }
    let patch = async |name: &str, body: Value| {
        app.admin.patch(&format!("/api/admin/feature-flags/{name}"), &body).await.expect(200);
    };
    patch("targeted", rule(&json!({"variant": "b"}))).await;
    patch("targeted_split", rule(&split)).await;
    patch("split", json!({"default": split})).await;
    patch("disabled_flag", json!({"enabled": false})).await;
    for (name, serve) in [("scheduled", json!({"variant": "b"})), ("scheduled_split", split)] {
        let change = json!({"scheduled_at": "2030-01-01T00:00:05Z", "serve": serve});
        app.admin.post(&format!("/api/admin/feature-flags/{name}/scheduled-changes"), &change).await.expect(201);
    }
    let expires_at = "2030-01-02T00:00:00Z";
    app.admin
        .put(&override_path(&ann_id, "overridden"), &json!({"override_value": "B", "expires_at": expires_at}))
        .await
        .expect(201);
    app.admin.put(&override_path(&ann_id, "other"), &json!({"override_value": "own"})).await.expect(201);
    assert_eq!(evaluate_one(&backend, "scheduled", &ann_id).await["reason"], "STATIC");
    app.set_clock("01-01T00:00:05Z");
    for (name, value, variant, reason, source) in [
        ("overridden", "B", "b", "TARGETING_MATCH", "override"),
        ("other", "own", "override", "TARGETING_MATCH", "override"),
        ("targeted", "B", "b", "TARGETING_MATCH", "targeting_rule"),
        ("targeted_split", "A", "a", "SPLIT", "targeting_rule"),
        ("split", "A", "a", "SPLIT", "default"),
        ("scheduled", "B", "b", "STATIC", "scheduled_change"),
        ("scheduled_split", "A", "a", "SPLIT", "scheduled_change"),
        ("disabled_flag", "B", "b", "DISABLED", "disabled"),
    ] {
        let result = evaluate_one(&backend, name, &ann_id).await;
        let actual = json!([result["value"], result["variant"], result["reason"], result["metadata"]["source"]]);
        assert_eq!(actual, json!([value, variant, reason, source]), "{name}");
        assert!(!result.to_string().contains("secret-rule"));
    }
    let metadata = evaluate_one(&backend, "overridden", &ann_id).await["metadata"].clone();
    let created_at = "2030-01-01T00:00:00Z";
    let expected = json!({"source": "override", "flag_type": "string", "override_created_at": created_at,
        "override_updated_at": created_at, "override_expires_at": expires_at});
    assert_eq!(metadata, expected);
    let metadata = evaluate_one(&backend, "other", &ann_id).await["metadata"].clone();
    assert!(metadata.get("override_expires_at").is_none(), "metadata must not contain null: {metadata}");
    app.set_clock("01-02T00:00:00Z");
    assert_eq!(
        evaluate_one(&backend, "overridden", &ann_id).await["metadata"]["source"],
        "default",
        "an expired override does not apply"
    );
}

async fn percentage_splits_equal_those_of_the_own_flags_endpoint(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    create_two_variant_flag(&app, "split", "string", json!("A"), json!("B")).await;
    let halves = json!({"default": {"weights": {"a": 50, "b": 50}}});
    app.admin.patch("/api/admin/feature-flags/split", &halves).await.expect(200);
    let backend = backend_caller(&app).await;
    let mut values = std::collections::BTreeSet::new();
    for number in 0..12 {
        let (id, user) = app.create_user(&format!("u{number}")).await;
        let own = user.get("/api/flags/me/split").await.expect(200).json()["value"].clone();
        let result = evaluate_one(&backend, "split", &id).await;
        assert_eq!((&result["value"], &result["reason"]), (&own, &json!("SPLIT")));
        assert_eq!(evaluate_one(&user, "split", &id.to_uppercase()).await["value"], own);
        values.insert(own.to_string());
    }
    assert_eq!(values.len(), 2);
}

async fn unknown_archived_and_hidden_flags_yield_flag_not_found(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    let (ann_id, ann) = app.create_user("ann").await;
    let backend = backend_caller(&app).await;
    app.create_boolean_flag("archived").await;
    app.admin.put(&override_path(&ann_id, "archived"), &json!({"override_value": true})).await.expect(201);
    app.admin.post("/api/admin/feature-flags/archived/archive", &json!({})).await.expect(200);
    app.create_flag(json!({"name": "hidden", "flag_type": "boolean", "client_visible": false})).await;
    app.admin.put(&override_path(&ann_id, "hidden"), &json!({"override_value": true})).await.expect(201);
    for caller in [&backend, &ann] {
        for name in ["nope", "archived"] {
            expect_error(
                evaluate(caller, name, json!({"targetingKey": ann_id})).await,
                404,
                "FLAG_NOT_FOUND",
                Some(name),
            );
        }
        // Flag keys in the path are percent-encoded.
        for (key, name) in [("No%20Name%2F1", "No Name/1"), ("%E2%82%AC", "€"), ("a/b", "a/b"), ("", "")] {
            expect_error(
                evaluate(caller, key, json!({"targetingKey": ann_id})).await,
                404,
                "FLAG_NOT_FOUND",
                Some(name),
            );
        }
    }
    assert_eq!(
        evaluate_one(&backend, "hidden", &ann_id).await["value"],
        true,
        "backend credentials include hidden flags"
    );
    expect_error(
        evaluate(&ann, "hidden", json!({"targetingKey": ann_id})).await,
        404,
        "FLAG_NOT_FOUND",
        Some("hidden"),
    );
    let keys = async |caller: &Caller| {
        let all = caller.post(BULK_PATH, &request_for(&ann_id)).await.expect(200).json();
        all["flags"].as_array().unwrap().iter().map(|f| f["key"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(keys(&backend).await, ["hidden"]);
    assert!(keys(&ann).await.is_empty());
    app.create_boolean_flag("ui.dark_mode").await;
    assert_eq!(evaluate_one(&backend, "ui%2Edark%5Fmode", &ann_id).await["key"], "ui.dark_mode");
    assert_eq!(keys(&ann).await, ["ui.dark_mode"]);
}

async fn invalid_flag_definition_does_not_affect_other_flags(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    let (ann_id, ann) = app.create_user("ann").await;
    let (ben_id, _) = app.create_user("ben").await;
    let backend = backend_caller(&app).await;
    app.create_boolean_flag("broken").await;
    app.create_boolean_flag("valid").await;
    app.admin.put(&override_path(&ann_id, "broken"), &json!({"override_value": true})).await.expect(201);
    // The API rejects such a definition, but a restored backup may contain one.
    execute_raw(&app.database.url, "UPDATE feature_flags SET off_variant = 'secret' WHERE name = 'broken'").await;
    app.reload_replica().await;
    expect_error(
        evaluate(&backend, "broken", json!({"targetingKey": ben_id})).await,
        400,
        "PARSE_ERROR",
        Some("broken"),
    );
    let all = backend.post(BULK_PATH, &request_for(&ben_id)).await.expect(200).json();
    let (broken, valid) = (&all["flags"][0], &all["flags"][1]);
    assert_eq!((&broken["key"], &broken["errorCode"]), (&json!("broken"), &json!("PARSE_ERROR")), "{all}");
    assert!(broken["errorDetails"].is_string() && broken.get("value").is_none(), "{all}");
    assert!(!all.to_string().contains("secret"), "only administrators see the invalid definition");
    assert_eq!((&valid["key"], &valid["value"]), (&json!("valid"), &json!(false)), "{all}");
    // An override supplies the value even if the definition is invalid.
    for caller in [&backend, &ann] {
        let result = evaluate_one(caller, "broken", &ann_id).await;
        assert_eq!((&result["value"], &result["variant"]), (&json!(true), &json!("override")), "{result}");
        let all = caller.post(BULK_PATH, &request_for(&ann_id)).await.expect(200).json();
        assert_eq!(all["flags"][0]["value"], true);
    }
}

async fn override_reasons_are_included_only_if_enabled_in_the_settings(kind: DatabaseKind) {
    for (show_reasons, expected) in [(false, Value::Null), (true, json!("a \"beta\" test"))] {
        let app = TestApp::start_with_user_reasons(kind, show_reasons).await;
        let (ann_id, ann) = app.create_user("ann").await;
        app.create_boolean_flag("a").await;
        app.create_boolean_flag("b").await;
        let with_reason = json!({"override_value": true, "reason": "a \"beta\" test"});
        app.admin.put(&override_path(&ann_id, "a"), &with_reason).await.expect(201);
        app.admin.put(&override_path(&ann_id, "b"), &json!({"override_value": true})).await.expect(201);
        assert_eq!(evaluate_one(&ann, "a", &ann_id).await["metadata"]["override_reason"], expected);
        assert!(
            evaluate_one(&ann, "b", &ann_id).await["metadata"].get("override_reason").is_none(),
            "a missing reason is omitted"
        );
    }
}
