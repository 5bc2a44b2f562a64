//! Who may do what: every operation of the OpenAPI document, called by everybody.

use flags_domain::Instant;
use flags_store::{credentials::Grant, users::Role};
use reqwest::Method;
use serde_json::{Value, json};

use flags_tests::{app::TestApp, database::Kind, on_both_databases};

on_both_databases! {
    every_operation_lets_through_whom_it_should,
    credentials_that_are_not_valid_are_nobodys,
    a_token_is_never_more_than_its_user,
    every_answer_carries_its_headers,
}

/// The operations of the document as `(method, path)`, with parameters that name nothing.
fn operations() -> Vec<(Method, String)> {
    let document = serde_json::to_value(flags_api::openapi()).unwrap();
    let mut found = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        let nowhere = path.replace("{user_id}", &uuid::Uuid::nil().to_string());
        let nowhere = nowhere.replace("{flag_name}", "nope").replace("{id}", &uuid::Uuid::nil().to_string());
        for method in methods.as_object().unwrap().keys().filter(|key| *key != "parameters") {
            found.push((method.to_uppercase().parse().unwrap(), nowhere.clone()));
        }
    }
    found
}

async fn every_operation_lets_through_whom_it_should(kind: Kind) {
    let app = TestApp::start(kind).await;
    let (_, admin) = app.user_with("ada", "admin", json!({})).await;
    let (_, viewer) = app.user_with("vera", "viewer", json!({})).await;
    let (_, user) = app.user("ann").await;
    let evaluate = app.caller(Grant::Evaluate, None, None).await;
    let userless = app.caller(Grant::Role(Role::Viewer), None, None).await;
    let operations = operations();
    assert!(operations.len() >= 30, "{}", operations.len());
    for (method, path) in operations {
        let system = ["/healthz", "/readyz", "/metrics"].contains(&path.as_str());
        let own = path.starts_with("/api/flags/");
        let read = method == Method::GET;
        let callers = [
            ("nobody", &app.nobody, system, 401),
            ("user", &user, system || own, 403),
            ("viewer", &viewer, system || own || read, 403),
            ("admin", &admin, true, 403),
            ("evaluate", &evaluate, system, 403),
            ("viewer's token without a user", &userless, system || (read && !own), 403),
        ];
        for (who, caller, allowed, refusal) in callers {
            // A body of the wrong shape: whoever is let through is told so, and nothing changes.
            let body = (!read).then(|| br#"{"rubbish": 1}"#.to_vec());
            // A stream has no end; HEAD is let through like GET.
            let method = if path.ends_with("/stream") { Method::HEAD } else { method.clone() };
            let answer = caller.send(method.clone(), &path, &[("content-type", "application/json")], body).await;
            let refused = [401, 403].contains(&answer.status.as_u16());
            assert_eq!(!refused, allowed, "{who} {method} {path}: {}", answer.text);
            if refused {
                assert_eq!(answer.status.as_u16(), refusal, "{who} {method} {path}");
                if method == Method::HEAD {
                    continue;
                }
                let code = answer.json()["code"].clone();
                let expected = if refusal == 401 {
                    "unauthorized"
                } else if own {
                    "no_user"
                } else {
                    "forbidden"
                };
                assert_eq!(code, expected, "{who} {method} {path}");
            }
            assert!(answer.status.as_u16() < 500, "{who} {method} {path}: {}", answer.text);
            assert_ne!(answer.status.as_u16(), 405, "{method} {path} is served");
        }
    }
}

async fn credentials_that_are_not_valid_are_nobodys(kind: Kind) {
    let app = TestApp::start(kind).await;
    let (ann, _) = app.user("ann").await;
    let end = Instant::parse("2030-01-01T00:00:10Z").unwrap();
    let expiring = app.caller(Grant::Role(Role::User), Some(ann.parse().unwrap()), Some(end)).await;
    app.clock_to("01-01T00:00:09.999999Z");
    expiring.get("/api/flags/me").await.expect(200);
    app.clock_to("01-01T00:00:10Z");
    let refused = expiring.get("/api/flags/me").await;
    assert_eq!(refused.header("www-authenticate"), "Bearer");
    refused.expect_problem(401, "unauthorized");
    let unknown = format!("flg_{}", "A".repeat(48));
    for value in
        ["", "Bearer", "Bearer ", "Basic YTpi", "Bearer x", "Bearer flg_x", &format!("Bearer {unknown}"), "flg_x"]
    {
        let answer = app.nobody.send(Method::GET, "/api/flags/me", &[("authorization", value)], None).await;
        answer.expect_problem(401, "unauthorized");
    }
}

async fn a_token_is_never_more_than_its_user(kind: Kind) {
    let app = TestApp::start(kind).await;
    let (ann, _) = app.user_with("ann", "viewer", json!({})).await;
    let generous = app.caller(Grant::Role(Role::Admin), Some(ann.parse().unwrap()), None).await;
    generous.get("/api/admin/users").await.expect(200);
    generous.post("/api/admin/users", &json!({"email": "x@example.com"})).await.expect_problem(403, "forbidden");
    app.admin.patch(&format!("/api/admin/users/{ann}"), &json!({"role": "admin"})).await.expect(200);
    let made = generous.post("/api/admin/users", &json!({"email": "x@example.com"})).await.expect(201).json();
    app.boolean_flag("f").await;
    let path = format!("/api/admin/users/{}/flag-overrides/f", made["id"].as_str().unwrap());
    let by = generous.put(&path, &json!({"override_value": true})).await.expect(201).json()["created_by"].clone();
    assert_eq!(by, format!("user:{ann}"), "who acts is the user");
    app.admin.patch(&format!("/api/admin/users/{ann}"), &json!({"role": "user"})).await.expect(409);
    app.user_with("other", "admin", json!({})).await;
    app.admin.patch(&format!("/api/admin/users/{ann}"), &json!({"role": "user"})).await.expect(200);
    generous.get("/api/admin/users").await.expect_problem(403, "forbidden");
}

async fn every_answer_carries_its_headers(kind: Kind) {
    let app = TestApp::start(kind).await;
    let (_, ann) = app.user("ann").await;
    for answer in [
        app.admin.get("/api/admin/users").await,
        app.nobody.get("/api/admin/users").await,
        ann.get("/api/flags/me").await,
        app.nobody.get("/").await,
        app.nobody.get("/api/nope").await,
        app.nobody.get("/docs/").await,
    ] {
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
        let policy = answer.header("content-security-policy");
        assert!(policy.contains("frame-ancestors 'none'") && !policy.contains("script-src 'unsafe"), "{policy}");
        assert!(!answer.header("x-request-id").is_empty());
    }
    assert_eq!(app.admin.get("/api/admin/users").await.header("cache-control"), "no-store");
    let mine = ann.get("/api/flags/me").await;
    assert_eq!((mine.header("cache-control"), mine.header("vary")), ("private, no-cache", "Authorization, Cookie"));
    let named = app.nobody.send(Method::GET, "/healthz", &[("x-request-id", "my-id.1")], None).await;
    assert_eq!(named.header("x-request-id"), "my-id.1");
    let unsound = app.nobody.send(Method::GET, "/healthz", &[("x-request-id", "a b<c>")], None).await;
    assert_ne!(unsound.header("x-request-id"), "a b<c>");
    let welcome = app.nobody.get("/anything").await.expect(200);
    assert!(welcome.header("content-type").starts_with("text/html") && welcome.text.contains("/docs"));
    assert_eq!(app.nobody.get("/readyz").await.expect(200).json()["status"], "ready");
    assert_eq!(app.nobody.get("/healthz").await.expect(200).json(), json!({"status": "ok"}));
    assert!(app.nobody.get("/docs/").await.expect(200).text.contains("swagger-ui"));
    let document: Value = app.nobody.get("/openapi.json").await.expect(200).json();
    assert!(document["openapi"].as_str().unwrap().starts_with("3."));
}
