//! Cross-origin requests.

use flags_api::Settings;
use reqwest::Method;

use flags_tests::{app::TestApp, database::DatabaseKind, on_both_databases};

on_both_databases! {
    only_configured_origins_may_read_responses,
}

async fn only_configured_origins_may_read_responses(kind: DatabaseKind) {
    let origin = ("origin", "https://app.example.com");
    let preflight_headers =
        [origin, ("access-control-request-method", "GET"), ("access-control-request-headers", "authorization")];
    let app = TestApp::start(kind).await;
    let response = app.admin.send(Method::GET, "/api/admin/users", &[origin], None).await.expect(200);
    assert_eq!(response.header("access-control-allow-origin"), "");
    app.anonymous
        .send(Method::OPTIONS, "/api/flags/me", &preflight_headers, None)
        .await
        .expect_problem(405, "method_not_allowed");

    let cors_origins = vec!["https://app.example.com".to_owned()];
    let app = TestApp::start_with_settings(kind, Settings { cors_origins, ..Settings::default() }).await;
    let (_, ann) = app.create_user("ann").await;
    let preflight = app.anonymous.send(Method::OPTIONS, "/api/flags/me", &preflight_headers, None).await.expect(200);
    assert_eq!(preflight.header("access-control-allow-origin"), "https://app.example.com");
    assert!(preflight.header("access-control-allow-headers").to_lowercase().contains("authorization"));
    assert_eq!(preflight.header("access-control-allow-credentials"), "", "cross-origin requests must not send cookies");
    let response = ann.send(Method::GET, "/api/flags/me", &[origin], None).await.expect(200);
    assert_eq!(response.header("access-control-allow-origin"), "https://app.example.com");
    let exposed_headers = response.header("access-control-expose-headers").to_lowercase();
    assert!(exposed_headers.contains("etag") && exposed_headers.contains("retry-after"), "{exposed_headers}");
    assert!(response.header("vary").to_lowercase().contains("origin"));
    let other_origin = ("origin", "https://other.example.com");
    let response = ann.send(Method::GET, "/api/flags/me", &[other_origin], None).await.expect(200);
    assert_eq!(response.header("access-control-allow-origin"), "");
    let preflight_headers = [other_origin, ("access-control-request-method", "GET")];
    let preflight = app.anonymous.send(Method::OPTIONS, "/api/flags/me", &preflight_headers, None).await;
    assert_eq!(preflight.header("access-control-allow-origin"), "");
    // A configured origin can also read problem responses.
    let response = app.anonymous.send(Method::GET, "/api/flags/me", &[origin], None).await.expect(401);
    assert_eq!(response.header("access-control-allow-origin"), "https://app.example.com");
}
