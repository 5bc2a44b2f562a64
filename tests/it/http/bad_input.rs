//! Every field of every request, wrong in every way: the right status and code, never a 500, and nothing changed.

use reqwest::Method;
use serde_json::{Value, json};

use flags_tests::{
    app::{TestApp, override_at, overrides_of},
    database::Kind,
    on_both_databases,
};

on_both_databases! {
    bodies_that_are_no_json_or_too_large_or_of_another_type,
    bad_fields_of_an_override,
    bad_fields_of_a_flag,
    bad_fields_of_a_user,
    paths_and_methods_that_are_not_there,
    bad_query_parameters,
    every_field_of_every_request_of_every_wrong_type,
}

async fn bodies_that_are_no_json_or_too_large_or_of_another_type(kind: Kind) {
    let app = TestApp::start(kind).await;
    let (ann, _) = app.user("ann").await;
    app.boolean_flag("f").await;
    let json_type = [("content-type", "application/json")];
    let path = overrides_of(&ann);
    let send = async |body: Vec<u8>| app.admin.send(Method::POST, &path, &json_type, Some(body)).await;
    for body in ["", "{", "nope", "{\"flag_name\": \"f\",}", "\u{feff}{}", "{} {}"] {
        send(body.as_bytes().to_vec()).await.expect_problem(400, "invalid_json");
    }
    send(vec![0xff, 0xfe]).await.expect_problem(400, "invalid_json");
    for body in ["[]", "null", "1", "\"x\"", "{}"] {
        send(body.as_bytes().to_vec()).await.expect_problem(422, "validation_failed");
    }
    let deep = format!(r#"{{"flag_name": "f", "override_value": {}{}}}"#, "[".repeat(5_000), "]".repeat(5_000));
    send(deep.into_bytes()).await.expect_problem(422, "validation_failed");
    let large = format!(r#"{{"flag_name": "f", "override_value": true, "reason": "{}"}}"#, "a".repeat(256 * 1024));
    send(large.into_bytes()).await.expect_problem(413, "body_too_large");
    for content_type in
        ["text/plain", "application/x-www-form-urlencoded", "application/merge-patch+json", "application/jsonp", ""]
    {
        let headers = [("content-type", content_type)];
        let answer = app.admin.send(Method::POST, &path, &headers, Some(b"{}".to_vec())).await;
        answer.expect_problem(415, "unsupported_media_type");
    }
    let charset = [("content-type", "Application/JSON; charset=utf-8")];
    app.admin.send(Method::POST, &path, &charset, Some(b"{}".to_vec())).await.expect(422);
    let rules = format!(r#"{{"targeting_rules": [], "x": "{}"}}"#, "a".repeat(1_000_000));
    let answer = app
        .admin
        .send(Method::PUT, "/api/admin/feature-flags/f/targeting-rules", &json_type, Some(rules.into_bytes()))
        .await;
    answer.expect_violation("/x", "unknown_field");
    let rules = "a".repeat(2 * 1024 * 1024 + 1).into_bytes();
    let answer =
        app.admin.send(Method::PUT, "/api/admin/feature-flags/f/targeting-rules", &json_type, Some(rules)).await;
    answer.expect_problem(413, "body_too_large");
}

async fn bad_fields_of_an_override(kind: Kind) {
    let app = TestApp::start(kind).await;
    let (ann, _) = app.user("ann").await;
    app.boolean_flag("f").await;
    app.flag(json!({"name": "j", "flag_type": "json", "variants": [{"id": "v", "value": null}], "default": {"variant": "v"}, "off_variant": "v"})).await;
    let log = app.log().await;
    let sound = json!({"flag_name": "f", "override_value": true});
    let with = |field: &str, value: Value| {
        let mut body = sound.clone();
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
        app.admin.post(&overrides_of(&ann), &body).await.expect_violation(pointer, code);
    }
    for value in [json!("true"), json!(1), json!(null), json!([true]), json!({})] {
        let answer = app.admin.post(&overrides_of(&ann), &with("override_value", value)).await;
        let body = answer.expect_problem(422, "value_type_mismatch");
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
        let answer = app.admin.put(&override_at(&ann, "j"), &json!({"override_value": value})).await;
        answer.expect_violation("/override_value", code);
    }
    let huge = br#"{"override_value": 1e999}"#.to_vec();
    let json_type = [("content-type", "application/json")];
    let answer = app.admin.send(Method::PUT, &override_at(&ann, "j"), &json_type, Some(huge)).await;
    answer.expect_violation("/override_value", "number_out_of_range");
    let nobody = uuid::Uuid::from_u128(5).to_string();
    app.admin.post(&overrides_of(&nobody), &sound).await.expect_problem(404, "user_not_found");
    for flag in ["nope", "Not A Name", "", "a\u{0}"] {
        app.admin
            .post(&overrides_of(&ann), &with("flag_name", json!(flag)))
            .await
            .expect_problem(404, "flag_not_found");
    }
    assert_eq!(app.log().await, log, "nothing changed");
    app.admin.post(&overrides_of(&ann), &sound).await.expect(201);
    app.admin.post(&overrides_of(&ann), &sound).await.expect_problem(409, "override_exists");
    let boundary = json!({"reason": "é".repeat(500)});
    app.admin.patch(&override_at(&ann, "f"), &boundary).await.expect(200);
    let past = json!({"expires_at": "2020-01-01T00:00:00Z"});
    app.admin.patch(&override_at(&ann, "f"), &past).await.expect_violation("/expires_at", "not_in_future");
    app.admin
        .put(&override_at(&ann, "f"), &json!({"flag_name": "f", "override_value": true}))
        .await
        .expect_violation("/flag_name", "unknown_field");
}

async fn bad_fields_of_a_flag(kind: Kind) {
    let app = TestApp::start(kind).await;
    app.boolean_flag("f").await;
    let log = app.log().await;
    let sound = json!({
        "name": "g", "flag_type": "string", "variants": [{"id": "a", "value": "A"}, {"id": "b", "value": "B"}],
        "default": {"variant": "a"}, "off_variant": "b",
    });
    let with = |field: &str, value: Value| {
        let mut body = sound.clone();
        body[field] = value;
        body
    };
    let rule = |condition: Value| json!([{"id": "r", "conditions": [condition], "serve": {"variant": "a"}}]);
    let condition = |operator: &str, values: Value| json!({"attribute": "x", "operator": operator, "values": values});
    let at = "/targeting_rules/0/conditions/0";
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
        (with("targeting_rules", rule(condition("matches", json!(["("])))), format!("{at}/values/0"), "invalid_regex"),
        (
            with("targeting_rules", rule(condition("matches", json!([r"(\w{100}){100}"])))),
            format!("{at}/values/0"),
            "invalid_regex",
        ),
        (with("targeting_rules", rule(condition("roughly", json!(["a"])))), format!("{at}/operator"), "invalid_type"),
        (
            with("targeting_rules", rule(condition("lt", json!(["a"])))),
            format!("{at}/values/0"),
            "value_operator_mismatch",
        ),
        (with("targeting_rules", rule(condition("equals", json!([])))), format!("{at}/values"), "empty"),
        (with("targeting_rules", rule(condition("exists", json!([1])))), format!("{at}/values"), "values_not_allowed"),
        (
            with("targeting_rules", rule(json!({"attribute": "", "operator": "exists"}))),
            format!("{at}/attribute"),
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
    let twice = json!({"targeting_rules": [
        {"id": "r", "conditions": [], "serve": {"variant": "on"}}, {"id": "r", "conditions": [], "serve": {"variant": "on"}},
    ]});
    let answer = app.admin.put("/api/admin/feature-flags/f/targeting-rules", &twice).await;
    answer.expect_violation("/targeting_rules/1/id", "duplicate");
    assert_eq!(app.log().await, log, "nothing changed");
    // Very many values are no bad input.
    let many: Vec<_> = (0..10_000).map(|number| json!(format!("user-{number}"))).collect();
    let body = with("targeting_rules", rule(condition("equals", json!(many))));
    app.admin.post("/api/admin/feature-flags", &body).await.expect(201);
}

async fn bad_fields_of_a_user(kind: Kind) {
    let app = TestApp::start(kind).await;
    let log = app.log().await;
    let with = |field: &str, value: Value| {
        let mut body = json!({"email": "ann@example.com"});
        body[field] = value;
        body
    };
    let nested = (0..40).fold(json!(1), |inner, _| json!({"a": inner}));
    let invalid = [
        (json!({}), "/email", "required"),
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
    assert_eq!(app.log().await, log, "nothing changed");
}

async fn paths_and_methods_that_are_not_there(kind: Kind) {
    let app = TestApp::start(kind).await;
    let (ann, _) = app.user("ann").await;
    for path in ["/api", "/api/nope", "/api/admin", "/api/flags", "/metrics/x", "/api/flags/stream/x"] {
        app.admin.get(path).await.expect_problem(404, "not_found");
    }
    app.admin.post("/nowhere", &Value::Null).await.expect_problem(404, "not_found");
    for flag in ["Bad", "%00", "a%2Fb", "%ff", "a..b", &"a".repeat(300)] {
        app.admin.get(&format!("/api/admin/feature-flags/{flag}")).await.expect_problem(404, "flag_not_found");
        app.admin.get(&override_at(&ann, flag)).await.expect_problem(404, "flag_not_found");
    }
    app.admin.get(&override_at(&ann, "nope")).await.expect_problem(404, "override_not_found");
    for user in ["rubbish", "%00", "00000000000000000000000000000000", "{00000000-0000-0000-0000-000000000000}"] {
        app.admin.get(&overrides_of(user)).await.expect_problem(404, "user_not_found");
        app.admin.get(&override_at(user, "f")).await.expect_problem(404, "user_not_found");
        app.admin.delete(&format!("/api/admin/users/{user}")).await.expect_problem(404, "user_not_found");
    }
    let refused = app.admin.send(Method::DELETE, "/api/admin/users", &[], None).await;
    assert_eq!(refused.header("allow"), "GET, HEAD, POST");
    let erase = app.admin.delete(&format!("/api/admin/users/{ann}?erase=perhaps")).await;
    erase.expect_violation("/erase", "invalid_parameter");
    let erase = app.admin.delete(&format!("/api/admin/users/{ann}?purge=true")).await;
    erase.expect_violation("/purge", "unknown_parameter");
    app.admin.get(&format!("/api/admin/users/{ann}?x")).await.expect_violation("/x", "unknown_parameter");
    app.nobody.get("/api/flags/me?x=1").await.expect_problem(401, "unauthorized");
    let head = app.admin.send(Method::HEAD, "/api/admin/users", &[], None).await.expect(200);
    assert!(head.text.is_empty());
    refused.expect_problem(405, "method_not_allowed");
    app.admin.send(Method::POST, "/healthz", &[], None).await.expect_problem(405, "method_not_allowed");
}

async fn bad_query_parameters(kind: Kind) {
    let app = TestApp::start(kind).await;
    let lists = ["users", "feature-flags", "flag-overrides", "scheduled-changes"];
    for list in lists {
        for (query, pointer, code) in [
            ("limit=0", "/limit", "invalid_parameter"),
            ("limit=201", "/limit", "invalid_parameter"),
            ("limit=many", "/limit", "invalid_parameter"),
            ("limit=", "/limit", "invalid_parameter"),
            ("cursor=rubbish", "/cursor", "invalid_parameter"),
            ("cursor=bnVsbA", "/cursor", "invalid_parameter"),
            ("nope=1", "/nope", "unknown_parameter"),
        ] {
            app.admin.get(&format!("/api/admin/{list}?{query}")).await.expect_violation(pointer, code);
        }
    }
    for (query, pointer) in [
        ("users?search=%00", "/search"),
        ("feature-flags?tag=a%00", "/tag"),
        ("flag-overrides?flag_name=%00", "/flag_name"),
    ] {
        app.admin.get(&format!("/api/admin/{query}")).await.expect_violation(pointer, "nul_character");
    }
    for query in [
        "flag-overrides?user_id=x",
        "flag-overrides?status=odd",
        "flag-overrides?expires_before=soon",
        "users?sort=x",
        "feature-flags?archived=maybe",
    ] {
        app.admin.get(&format!("/api/admin/{query}")).await.expect_problem(422, "validation_failed");
    }
    app.admin.get("/api/admin/users?search=%ff%fe").await.expect(200);
    for list in ["users", "feature-flags", "flag-overrides"] {
        app.admin.get(&format!("/api/admin/{list}?search={}", "x".repeat(255))).await.expect(200);
        let long = app.admin.get(&format!("/api/admin/{list}?search={}", "x".repeat(15_000))).await;
        long.expect_violation("/search", "invalid_parameter");
    }
}

/// Replaces each leaf and each branch of a sound body by each of a set of wrong values.
async fn every_field_of_every_request_of_every_wrong_type(kind: Kind) {
    let app = TestApp::start(kind).await;
    let (ann, _) = app.user("ann").await;
    app.boolean_flag("f").await;
    let serve = json!({"weights": {"a": 50, "b": 50}, "bucket_by": "x"});
    let condition = json!({"attribute": "x", "operator": "equals", "values": ["a"], "negate": false});
    let rule = json!({"id": "r", "name": "n", "enabled": true, "conditions": [condition], "serve": serve});
    let flag = json!({
        "name": "g", "flag_type": "string", "description": "d", "owner": "o", "tags": ["t"], "enabled": true,
        "variants": [{"id": "a", "name": "n", "value": "A", "description": "d"}, {"id": "b", "value": "B"}],
        "default": serve, "off_variant": "a", "targeting_rules": [rule], "salt": "s", "client_visible": true,
    });
    let plan = json!({"scheduled_at": "2032-01-01T00:00:00Z", "enabled": false});
    let plans = "/api/admin/feature-flags/f/scheduled-changes";
    let planned = app.admin.post(plans, &plan).await.expect(201).header("location").to_owned();
    let on = json!({"variant": "on"});
    let switch = json!([{"id": "on", "value": true}, {"id": "off", "value": false}]);
    let requests = [
        (
            Method::POST,
            overrides_of(&ann),
            json!({"flag_name": "f", "override_value": true, "enabled": true, "reason": "r", "expires_at": "2031-01-01T00:00:00Z"}),
        ),
        (
            Method::PUT,
            override_at(&ann, "f"),
            json!({"override_value": true, "enabled": true, "reason": "r", "expires_at": "2031-01-01T00:00:00Z"}),
        ),
        (
            Method::PATCH,
            override_at(&ann, "f"),
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
            format!("/api/admin/users/{ann}"),
            json!({"email": "y@example.com", "display_name": "n", "role": "user", "attributes": {"a": 1}, "active": true}),
        ),
        (
            Method::PATCH,
            planned,
            json!({"scheduled_at": "2033-01-01T00:00:00Z", "serve": on, "enabled": true, "description": "d"}),
        ),
        (
            Method::PATCH,
            "/api/admin/feature-flags/f".to_owned(),
            json!({"variants": switch, "targeting_rules": [{"id": "r", "conditions": [condition], "serve": on}]}),
        ),
    ];
    let mut sent = 0;
    for (method, path, body) in requests {
        for place in places(&body) {
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
                let mut broken = body.clone();
                *broken.pointer_mut(&place).unwrap() = wrong.clone();
                let answer = app.admin.json(method.clone(), &path, &[], &broken).await;
                assert!(answer.status.as_u16() < 500, "{method} {path} {broken}: {}", answer.text);
                assert_ne!(answer.status.as_u16(), 400, "it is JSON: {method} {path} {broken}");
                if answer.status.as_u16() == 422 {
                    assert!(answer.json()["errors"][0]["pointer"].is_string(), "{}", answer.text);
                }
                sent += 1;
            }
        }
    }
    assert!(sent > 500, "{sent}");
}

/// Pointers to everything within a document.
fn places(value: &Value) -> Vec<String> {
    let children: Vec<(String, &Value)> = match value {
        Value::Object(fields) => fields.iter().map(|(key, child)| (key.clone(), child)).collect(),
        Value::Array(items) => items.iter().enumerate().map(|(index, child)| (index.to_string(), child)).collect(),
        _ => Vec::new(),
    };
    let below = |(key, child): (String, &Value)| {
        let own = format!("/{key}");
        std::iter::once(own.clone())
            .chain(places(child).into_iter().map(move |place| format!("{own}{place}")))
            .collect::<Vec<_>>()
    };
    children.into_iter().flat_map(below).collect()
}
