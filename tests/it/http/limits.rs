//! Rate limits and limits on the size of request heads.

use flags_api::{RateLimits, Settings};
use reqwest::Method;
use serde_json::json;

use flags_tests::{app::TestApp, database::DatabaseKind, on_both_databases};

on_both_databases! {
    each_credential_has_its_own_rate_limit,
    rejects_oversized_urls_and_headers,
}

async fn each_credential_has_its_own_rate_limit(kind: DatabaseKind) {
    let rate_limits = RateLimits { requests: 5, evaluations: 5, anonymous: 5 };
    let app = TestApp::start_with_settings(kind, Settings { rate_limits, ..Settings::default() }).await;
    let (_, ann) = app.create_user("ann").await;
    let mut rejection = None;
    for _ in 0..40 {
        let response = app.admin.get("/api/admin/users").await;
        if response.status == 429 {
            rejection = Some(response);
            break;
        }
        response.expect(200);
    }
    let rejection = rejection.expect("the rate limit must reject one of 40 requests");
    assert_eq!(rejection.header("retry-after"), "1");
    rejection.expect_problem(429, "rate_limited");
    ann.get("/api/flags/me").await.expect(200);
    let is_limited = async |path: &str| {
        for _ in 0..40 {
            if app.anonymous.get(path).await.status == 429 {
                return true;
            }
        }
        false
    };
    assert!(is_limited("/api/admin/users").await, "requests without a credential share the limit of their address");
    assert!(!is_limited("/healthz").await && !is_limited("/readyz").await, "health checks are never rate-limited");
    app.anonymous
        .post("/api/auth/login", &json!({"email": "a", "password": "b"}))
        .await
        .expect_problem(429, "rate_limited");
}

async fn rejects_oversized_urls_and_headers(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    let long_url = format!("/api/admin/users?search={}", "a".repeat(16 * 1024));
    app.admin.get(&long_url).await.expect_problem(414, "uri_too_long");
    let header = "a".repeat(33 * 1024);
    let response = app.admin.send(Method::GET, "/api/admin/users", &[("x-large", &header)], None).await;
    response.expect_problem(431, "headers_too_large");
    let many_headers: Vec<_> = (0..60).map(|_| ("x-many", "a")).collect();
    app.admin.send(Method::GET, "/api/admin/users", &many_headers, None).await.expect(200);
}
