//! What keeps the service standing and silent: limits, headers, other origins, and secrets that leave no trace.

use flags_api::{RateLimits, Settings};
use reqwest::Method;
use serde_json::json;

use flags_tests::{app::TestApp, database::Kind, on_both_databases};

on_both_databases! {
    every_credential_has_its_own_measure,
    heads_that_are_too_large_are_refused,
    other_origins_read_nothing_unless_they_are_named,
}

async fn every_credential_has_its_own_measure(kind: Kind) {
    let limits = RateLimits { requests: 5, evaluations: 5, strangers: 5 };
    let app = TestApp::start_set(kind, Settings { limits, ..Settings::default() }).await;
    let (_, ann) = app.user("ann").await;
    let mut refused = None;
    for _ in 0..40 {
        let answer = app.admin.get("/api/admin/users").await;
        if answer.status == 429 {
            refused = Some(answer);
            break;
        }
        answer.expect(200);
    }
    let refused = refused.expect("twice five requests a second are the most");
    assert_eq!(refused.header("retry-after"), "1");
    refused.expect_problem(429, "rate_limited");
    ann.get("/api/flags/me").await.expect(200);
    let refused = async |path: &str| {
        for _ in 0..40 {
            if app.nobody.get(path).await.status == 429 {
                return true;
            }
        }
        false
    };
    assert!(refused("/api/admin/users").await, "strangers share the measure of their address");
    assert!(!refused("/healthz").await && !refused("/readyz").await, "whoever watches is never refused");
    app.nobody
        .post("/api/auth/login", &json!({"email": "a", "password": "b"}))
        .await
        .expect_problem(429, "rate_limited");
}

async fn heads_that_are_too_large_are_refused(kind: Kind) {
    let app = TestApp::start(kind).await;
    let long = format!("/api/admin/users?search={}", "a".repeat(16 * 1024));
    app.admin.get(&long).await.expect_problem(414, "uri_too_long");
    let header = "a".repeat(33 * 1024);
    let answer = app.admin.send(Method::GET, "/api/admin/users", &[("x-large", &header)], None).await;
    answer.expect_problem(431, "headers_too_large");
    let many: Vec<_> = (0..60).map(|_| ("x-many", "a")).collect();
    app.admin.send(Method::GET, "/api/admin/users", &many, None).await.expect(200);
}

async fn other_origins_read_nothing_unless_they_are_named(kind: Kind) {
    let origin = ("origin", "https://app.example.com");
    let asks = [origin, ("access-control-request-method", "GET"), ("access-control-request-headers", "authorization")];
    let app = TestApp::start(kind).await;
    let answer = app.admin.send(Method::GET, "/api/admin/users", &[origin], None).await.expect(200);
    assert_eq!(answer.header("access-control-allow-origin"), "");
    app.nobody.send(Method::OPTIONS, "/api/flags/me", &asks, None).await.expect_problem(405, "method_not_allowed");

    let cors_origins = vec!["https://app.example.com".to_owned()];
    let app = TestApp::start_set(kind, Settings { cors_origins, ..Settings::default() }).await;
    let (_, ann) = app.user("ann").await;
    let preflight = app.nobody.send(Method::OPTIONS, "/api/flags/me", &asks, None).await.expect(200);
    assert_eq!(preflight.header("access-control-allow-origin"), "https://app.example.com");
    assert!(preflight.header("access-control-allow-headers").to_lowercase().contains("authorization"));
    assert_eq!(preflight.header("access-control-allow-credentials"), "", "cookies stay at home");
    let answer = ann.send(Method::GET, "/api/flags/me", &[origin], None).await.expect(200);
    assert_eq!(answer.header("access-control-allow-origin"), "https://app.example.com");
    let exposed = answer.header("access-control-expose-headers").to_lowercase();
    assert!(exposed.contains("etag") && exposed.contains("retry-after"), "{exposed}");
    assert!(answer.header("vary").to_lowercase().contains("origin"));
    let evil = ("origin", "https://evil.com");
    let answer = ann.send(Method::GET, "/api/flags/me", &[evil], None).await.expect(200);
    assert_eq!(answer.header("access-control-allow-origin"), "");
    let asks = [evil, ("access-control-request-method", "GET")];
    let refused = app.nobody.send(Method::OPTIONS, "/api/flags/me", &asks, None).await;
    assert!(refused.status.is_client_error() || refused.header("access-control-allow-origin").is_empty());
    // Without a credential the problem can be read as well.
    let answer = app.nobody.send(Method::GET, "/api/flags/me", &[origin], None).await.expect(401);
    assert_eq!(answer.header("access-control-allow-origin"), "https://app.example.com");
}
