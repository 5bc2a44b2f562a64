//! Requests of OpenFeature's protocol: who may ask, what is refused and how, and what another server must know first.

use flags_domain::Instant;
use flags_store::{api_tokens::Grant, users::Role};
use flags_tests::{
    app::{PASSWORD, TestApp, override_at},
    database::Kind,
    eventually, on_both_databases,
};
use reqwest::Method;
use serde_json::json;

use super::evaluate::{BULK, application, context, evaluate, failed, get};

on_both_databases! {
    a_users_credential_names_that_user_alone,
    bad_requests_are_400_and_say_what_is_wrong,
    whatever_fails_has_the_protocols_shape,
    an_answer_is_no_older_than_the_event_that_it_is_asked_after,
    pages_of_other_origins_may_send_what_providers_send,
}

async fn a_users_credential_names_that_user_alone(kind: Kind) {
    let app = TestApp::start(kind).await;
    app.boolean_flag("f").await;
    let (ann, _) = app.user("ann").await;
    for role in ["user", "viewer", "admin"] {
        let (own, caller) = app.user_with(role, role, json!({})).await;
        assert_eq!(get(&caller, "f", &own).await["value"], false);
        for other in [&*ann, "visitor-1", "me", &uuid::Uuid::nil().to_string()] {
            failed(evaluate(&caller, "f", json!({"targetingKey": other})).await, 403, "GENERAL", Some("f"));
            failed(caller.post(BULK, &context(other)).await, 403, "GENERAL", None);
        }
    }
    let userless = app.caller(Grant::Role(Role::Admin), None, None).await;
    let refused = failed(evaluate(&userless, "f", json!({"targetingKey": ann})).await, 403, "GENERAL", Some("f"));
    assert!(refused.text.contains("acts as no user"), "{}", refused.text);
    failed(app.nobody.post(BULK, &context(&ann)).await, 401, "GENERAL", None);
    let forged = app.bearer(&format!("flg_{}", "A".repeat(48)));
    let refused = failed(forged.post(BULK, &context(&ann)).await, 401, "GENERAL", None);
    assert_eq!(refused.header("www-authenticate"), "Bearer");
    let (eve, email) = app.account("eve", "user").await;
    let browser = app.nobody.sign_in(&email, PASSWORD).await;
    assert_eq!(get(&browser, "f", &eve).await["value"], false, "a session will do");
}

async fn bad_requests_are_400_and_say_what_is_wrong(kind: Kind) {
    let app = TestApp::start(kind).await;
    app.boolean_flag("f").await;
    let server = application(&app).await;
    let json_type = [("content-type", "application/json; charset=utf-8")];
    for (path, key) in [(BULK.to_owned(), None), (format!("{BULK}/f"), Some("f"))] {
        let send = async |body: &str| server.send(Method::POST, &path, &json_type, Some(body.into())).await;
        for body in ["{}", r#"{"context": {}}"#, r#"{"context": {"targetingKey": ""}}"#, ""] {
            failed(send(body).await, 400, "TARGETING_KEY_MISSING", key);
        }
        failed(server.send(Method::POST, &path, &[], None).await, 400, "TARGETING_KEY_MISSING", key);
        for body in [r#"{"context": 1}"#, r#"{"context": {"targetingKey": 1}}"#, "[]"] {
            failed(send(body).await, 400, "INVALID_CONTEXT", key);
        }
        for body in ["{", "nope", "{} {}"] {
            failed(send(body).await, 400, "PARSE_ERROR", key);
        }
        let min = [("content-type", "application/json"), ("flags-min-revision", "rubbish")];
        let body = context("k").to_string();
        failed(server.send(Method::POST, &path, &min, Some(body.into())).await, 400, "GENERAL", key);
        // The protocol grows, and operators of providers may add to the query.
        send(r#"{"context": {"targetingKey": "k"}, "from": "the future"}"#).await.expect(200);
        server
            .post(&format!("{path}?x=1&flagConfigEtag=%22x%22&flagConfigLastModified=soon"), &context("k"))
            .await
            .expect(200);
    }
}

async fn whatever_fails_has_the_protocols_shape(kind: Kind) {
    let app = TestApp::start(kind).await;
    let server = application(&app).await;
    let large = format!(r#"{{"context": {{"targetingKey": "k", "a": "{}"}}}}"#, "a".repeat(256 * 1024));
    let json_type = [("content-type", "application/json")];
    failed(server.send(Method::POST, BULK, &json_type, Some(large.into())).await, 413, "GENERAL", None);
    let text = [("content-type", "text/plain")];
    failed(server.send(Method::POST, BULK, &text, Some(b"{}".to_vec())).await, 415, "GENERAL", None);
    let refused = failed(server.get(BULK).await, 405, "GENERAL", None);
    assert_eq!(refused.header("allow"), "POST");
    failed(server.get(&format!("{BULK}/f")).await, 405, "GENERAL", Some("f"));
    for path in ["/ofrep", "/ofrep/", "/ofrep/v1", "/ofrep/v1/configuration", "/ofrep/v2/evaluate/flags"] {
        failed(server.get(path).await, 404, "GENERAL", None);
        failed(server.post(path, &context("k")).await, 404, "GENERAL", None);
    }
    failed(server.post(&format!("{BULK}?{}", "x".repeat(20_000)), &context("k")).await, 414, "GENERAL", None);
    let long = "x".repeat(20_000);
    failed(server.post(&format!("{BULK}/{long}"), &context("k")).await, 414, "GENERAL", Some(&long));
    let head = [("x-large", &*"x".repeat(40_000))];
    failed(server.json(Method::POST, BULK, &head, &context("k")).await, 431, "GENERAL", None);
    let limits = flags_api::RateLimits { evaluations: 1, ..Default::default() };
    let busy = TestApp::start_set(kind, flags_api::Settings { limits, ..Default::default() }).await;
    let eager = application(&busy).await;
    let refused = eventually("the limit is reached", async || {
        let reply = eager.post(BULK, &context("k")).await;
        (reply.status == 429).then_some(reply)
    });
    failed(refused.await, 429, "GENERAL", None);
    // Elsewhere errors stay what they are.
    server.get("/api/ofrep/v1").await.expect_problem(404, "not_found");
}

async fn an_answer_is_no_older_than_the_event_that_it_is_asked_after(kind: Kind) {
    let app = TestApp::start(kind).await;
    let (ann, ann_calls) = app.user("ann").await;
    app.boolean_flag("f").await;
    let end = json!({"override_value": true, "expires_at": "2030-01-01T00:00:02Z"});
    app.admin.put(&override_at(&ann, "f"), &end).await.expect(201);
    let here = app.replica.revision();
    let ask = async |etag: &str| ann_calls.post(&format!("{BULK}?flagConfigEtag={etag}"), &context(&ann)).await;
    assert_eq!(ask(&here.to_string()).await.expect(200).json()["flags"][0]["value"], true);
    let ahead = flags_store::change_log::Revision { number: here.number + 1, ..here };
    failed(ask(&ahead.to_string()).await, 503, "GENERAL", None);
    let elsewhere = flags_store::change_log::Revision { epoch: uuid::Uuid::nil(), number: 1_000 };
    for passed_over in [elsewhere.to_string(), "rubbish".to_owned(), String::new(), "%00".to_owned()] {
        ask(&passed_over).await.expect(200);
    }
    // Another server's clock may be a little ahead: what it has told of as past is so here as well.
    let at = Instant::parse("2030-01-01T00:00:02Z").unwrap().as_micros();
    app.clock_to("01-01T00:00:01.9Z");
    assert_eq!(ask(&here.to_string()).await.expect(200).json()["flags"][0]["value"], true);
    assert_eq!(ask(&format!("{here}:{at}")).await.expect(200).json()["flags"][0]["value"], false);
}

async fn pages_of_other_origins_may_send_what_providers_send(kind: Kind) {
    let settings =
        flags_api::Settings { cors_origins: vec!["https://app.example.com".to_owned()], ..Default::default() };
    let app = TestApp::start_set(kind, settings).await;
    let server = application(&app).await;
    app.boolean_flag("f").await;
    let wanted = "authorization,content-type,if-none-match";
    let preflight = [
        ("origin", "https://app.example.com"),
        ("access-control-request-method", "POST"),
        ("access-control-request-headers", wanted),
    ];
    let allowed = app.nobody.send(Method::OPTIONS, BULK, &preflight, None).await.expect(200);
    assert_eq!(allowed.header("access-control-allow-origin"), "https://app.example.com");
    let headers = allowed.header("access-control-allow-headers").to_ascii_lowercase();
    assert!(wanted.split(',').all(|header| headers.contains(header)) && headers.contains("last-event-id"), "{headers}");
    let origin = [("origin", "https://app.example.com")];
    let answer = server.json(Method::POST, BULK, &origin, &context("k")).await.expect(200);
    assert_eq!(answer.header("access-control-allow-origin"), "https://app.example.com");
    let exposed = answer.header("access-control-expose-headers").to_ascii_lowercase();
    assert!(exposed.contains("etag") && exposed.contains("retry-after"), "{exposed}");
    assert!(answer.header("vary").contains("Authorization"), "{}", answer.header("vary"));
    let refused = failed(app.nobody.json(Method::POST, BULK, &origin, &context("k")).await, 401, "GENERAL", None);
    assert_eq!(refused.header("access-control-allow-origin"), "https://app.example.com");
}
