//! Requests: permissions, validation, error format, minimum revision and CORS.

use flags_domain::Instant;
use flags_store::{api_tokens::TokenGrant, users::Role};
use flags_tests::{
    app::{PASSWORD, TestApp, override_path},
    database::DatabaseKind,
    eventually, on_both_databases,
};
use reqwest::Method;
use serde_json::json;

use super::{BULK_PATH, backend_caller, evaluate, evaluate_one, expect_error, request_for};

on_both_databases! {
    user_credentials_evaluate_only_for_their_own_user,
    malformed_requests_yield_400_with_a_specific_error_code,
    errors_have_the_ofrep_format,
    evaluation_is_at_least_as_recent_as_the_event_that_caused_it,
    cors_allows_the_request_headers_of_openfeature_providers,
}

async fn user_credentials_evaluate_only_for_their_own_user(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    app.create_boolean_flag("f").await;
    let (ann_id, _) = app.create_user("ann").await;
    for role in ["user", "viewer", "admin"] {
        let (own_id, caller) = app.create_user_with(role, role, json!({})).await;
        assert_eq!(evaluate_one(&caller, "f", &own_id).await["value"], false);
        for other_key in [&*ann_id, "anonymous-1", "me", &uuid::Uuid::nil().to_string()] {
            expect_error(evaluate(&caller, "f", json!({"targetingKey": other_key})).await, 403, "GENERAL", Some("f"));
            expect_error(caller.post(BULK_PATH, &request_for(other_key)).await, 403, "GENERAL", None);
        }
    }
    let userless = app.caller_with_token(TokenGrant::Role(Role::Admin), None, None).await;
    let refused =
        expect_error(evaluate(&userless, "f", json!({"targetingKey": ann_id})).await, 403, "GENERAL", Some("f"));
    assert!(refused.text.contains("does not act as a user"), "{}", refused.text);
    expect_error(app.anonymous.post(BULK_PATH, &request_for(&ann_id)).await, 401, "GENERAL", None);
    let forged = app.caller_with_bearer(&format!("flg_{}", "A".repeat(48)));
    let refused = expect_error(forged.post(BULK_PATH, &request_for(&ann_id)).await, 401, "GENERAL", None);
    assert_eq!(refused.header("www-authenticate"), "Bearer");
    let (eve_id, email) = app.create_account("eve", "user").await;
    let browser = app.anonymous.sign_in(&email, PASSWORD).await;
    assert_eq!(evaluate_one(&browser, "f", &eve_id).await["value"], false, "a session is accepted");
}

async fn malformed_requests_yield_400_with_a_specific_error_code(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    app.create_boolean_flag("f").await;
    let backend = backend_caller(&app).await;
    let json_type = [("content-type", "application/json; charset=utf-8")];
    for (path, key) in [(BULK_PATH.to_owned(), None), (format!("{BULK_PATH}/f"), Some("f"))] {
        let send = async |body: &str| backend.send(Method::POST, &path, &json_type, Some(body.into())).await;
        for body in ["{}", r#"{"context": null}"#, r#"{"context": {}}"#, r#"{"context": {"targetingKey": ""}}"#] {
            send(body).await.expect(200);
        }
        expect_error(backend.send(Method::POST, &path, &[], None).await, 400, "INVALID_CONTEXT", key);
        for body in [r#"{"context": 1}"#, r#"{"context": {"targetingKey": 1}}"#, "[]", ""] {
            expect_error(send(body).await, 400, "INVALID_CONTEXT", key);
        }
        for body in ["{", "nope", "{} {}"] {
            expect_error(send(body).await, 400, "PARSE_ERROR", key);
        }
        let min_revision = [("content-type", "application/json"), ("flags-min-revision", "malformed")];
        let body = request_for("k").to_string();
        expect_error(backend.send(Method::POST, &path, &min_revision, Some(body.into())).await, 400, "GENERAL", key);
        // Unknown body fields and query parameters are accepted: newer protocol versions and providers may add some.
        send(r#"{"context": {"targetingKey": "k"}, "unknown": true}"#).await.expect(200);
        backend
            .post(&format!("{path}?x=1&flagConfigEtag=%22x%22&flagConfigLastModified=soon"), &request_for("k"))
            .await
            .expect(200);
    }
}

async fn errors_have_the_ofrep_format(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    let backend = backend_caller(&app).await;
    let large = format!(r#"{{"context": {{"targetingKey": "k", "a": "{}"}}}}"#, "a".repeat(256 * 1024));
    let json_type = [("content-type", "application/json")];
    expect_error(backend.send(Method::POST, BULK_PATH, &json_type, Some(large.into())).await, 413, "GENERAL", None);
    let text = [("content-type", "text/plain")];
    expect_error(backend.send(Method::POST, BULK_PATH, &text, Some(b"{}".to_vec())).await, 415, "GENERAL", None);
    let refused = expect_error(backend.get(BULK_PATH).await, 405, "GENERAL", None);
    assert_eq!(refused.header("allow"), "POST");
    expect_error(backend.get(&format!("{BULK_PATH}/f")).await, 405, "GENERAL", Some("f"));
    for path in ["/ofrep", "/ofrep/", "/ofrep/v1", "/ofrep/v1/configuration", "/ofrep/v2/evaluate/flags"] {
        expect_error(backend.get(path).await, 404, "GENERAL", None);
        expect_error(backend.post(path, &request_for("k")).await, 404, "GENERAL", None);
    }
    expect_error(
        backend.post(&format!("{BULK_PATH}?{}", "x".repeat(20_000)), &request_for("k")).await,
        414,
        "GENERAL",
        None,
    );
    let long = "x".repeat(20_000);
    expect_error(backend.post(&format!("{BULK_PATH}/{long}"), &request_for("k")).await, 414, "GENERAL", Some(&long));
    let large_header = [("x-large", &*"x".repeat(40_000))];
    expect_error(
        backend.send_json(Method::POST, BULK_PATH, &large_header, &request_for("k")).await,
        431,
        "GENERAL",
        None,
    );
    let rate_limits = flags_api::RateLimits { evaluations: 1, ..Default::default() };
    let limited_app =
        TestApp::start_with_settings(kind, flags_api::Settings { rate_limits, ..Default::default() }).await;
    let limited_backend = backend_caller(&limited_app).await;
    let refused = eventually("the limit is reached", async || {
        let response = limited_backend.post(BULK_PATH, &request_for("k")).await;
        (response.status == 429).then_some(response)
    });
    expect_error(refused.await, 429, "GENERAL", None);
    // Paths outside `/ofrep` use the problem format.
    backend.get("/api/ofrep/v1").await.expect_problem(404, "not_found");
}

async fn evaluation_is_at_least_as_recent_as_the_event_that_caused_it(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    let (ann_id, ann) = app.create_user("ann").await;
    app.create_boolean_flag("f").await;
    let expiring = json!({"override_value": true, "expires_at": "2030-01-01T00:00:02Z"});
    app.admin.put(&override_path(&ann_id, "f"), &expiring).await.expect(201);
    let current = app.replica.revision();
    let evaluate_after =
        async |etag: &str| ann.post(&format!("{BULK_PATH}?flagConfigEtag={etag}"), &request_for(&ann_id)).await;
    assert_eq!(evaluate_after(&current.to_string()).await.expect(200).json()["flags"][0]["value"], true);
    let ahead = flags_store::change_log::Revision { number: current.number + 1, ..current };
    expect_error(evaluate_after(&ahead.to_string()).await, 503, "GENERAL", None);
    let other_epoch = flags_store::change_log::Revision { epoch: uuid::Uuid::nil(), number: 1_000 };
    for ignored in [other_epoch.to_string(), "malformed".to_owned(), String::new(), "%00".to_owned()] {
        evaluate_after(&ignored).await.expect(200);
    }
    // The clock of the server that sent the event may be ahead. The evaluation uses the instant of the event or a later
    // one.
    let at = Instant::parse("2030-01-01T00:00:02Z").unwrap().as_micros();
    app.set_clock("01-01T00:00:01.9Z");
    assert_eq!(evaluate_after(&current.to_string()).await.expect(200).json()["flags"][0]["value"], true);
    assert_eq!(evaluate_after(&format!("{current}:{at}")).await.expect(200).json()["flags"][0]["value"], false);
}

async fn cors_allows_the_request_headers_of_openfeature_providers(kind: DatabaseKind) {
    let settings =
        flags_api::Settings { cors_origins: vec!["https://app.example.com".to_owned()], ..Default::default() };
    let app = TestApp::start_with_settings(kind, settings).await;
    let backend = backend_caller(&app).await;
    app.create_boolean_flag("f").await;
    let provider_headers = "authorization,content-type,if-none-match";
    let preflight = [
        ("origin", "https://app.example.com"),
        ("access-control-request-method", "POST"),
        ("access-control-request-headers", provider_headers),
    ];
    let allowed = app.anonymous.send(Method::OPTIONS, BULK_PATH, &preflight, None).await.expect(200);
    assert_eq!(allowed.header("access-control-allow-origin"), "https://app.example.com");
    let headers = allowed.header("access-control-allow-headers").to_ascii_lowercase();
    assert!(
        provider_headers.split(',').all(|header| headers.contains(header)) && headers.contains("last-event-id"),
        "{headers}"
    );
    let origin = [("origin", "https://app.example.com")];
    let response = backend.send_json(Method::POST, BULK_PATH, &origin, &request_for("k")).await.expect(200);
    assert_eq!(response.header("access-control-allow-origin"), "https://app.example.com");
    let exposed = response.header("access-control-expose-headers").to_ascii_lowercase();
    assert!(exposed.contains("etag") && exposed.contains("retry-after"), "{exposed}");
    assert!(response.header("vary").contains("Authorization"), "{}", response.header("vary"));
    let refused = expect_error(
        app.anonymous.send_json(Method::POST, BULK_PATH, &origin, &request_for("k")).await,
        401,
        "GENERAL",
        None,
    );
    assert_eq!(refused.header("access-control-allow-origin"), "https://app.example.com");
}
