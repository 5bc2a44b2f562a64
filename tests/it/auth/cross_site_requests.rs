//! Protection of cookie-authenticated requests against cross-site request forgery.

use reqwest::Method;
use serde_json::json;

use flags_tests::{
    app::{PASSWORD, TestApp},
    database::DatabaseKind,
    on_both_databases,
};

use super::{LOGIN_PATH, ME_PATH, login_body};

on_both_databases! {
    cookie_authenticated_writes_require_the_same_origin,
}

async fn cookie_authenticated_writes_require_the_same_origin(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    let (_, email) = app.create_account("ada", "admin").await;
    let session = app.anonymous.post(LOGIN_PATH, &login_body(&email, PASSWORD)).await.expect(200);
    let host = app.base_url().trim_start_matches("http://").to_owned();
    let own_origin = format!("http://{host}");
    let cookie = ("cookie", session.cookie());
    let json_type = ("content-type", "application/json");
    let body = br#"{"email": "new@example.com"}"#.to_vec();
    let post = async |headers: &[(&str, &str)], body: &[u8]| {
        app.anonymous.send(Method::POST, "/api/admin/users", headers, Some(body.to_vec())).await
    };
    let lookalike_origin = format!("{own_origin}.evil.com");
    for headers in [
        vec![],
        vec![("origin", "https://evil.com")],
        vec![("origin", "null")],
        vec![("origin", lookalike_origin.as_str())],
        vec![("origin", "http://localhost:1")],
        vec![("sec-fetch-site", "cross-site")],
        vec![("sec-fetch-site", "same-site"), ("origin", own_origin.as_str())],
        vec![("sec-fetch-site", "none")],
        vec![("referer", own_origin.as_str())],
    ] {
        let headers = [vec![cookie, json_type], headers].concat();
        post(&headers, &body).await.expect_problem(403, "cross_site_request");
    }
    for content_type in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", ""] {
        let headers = [cookie, ("origin", own_origin.as_str()), ("content-type", content_type)];
        post(&headers, &body).await.expect_problem(415, "unsupported_media_type");
        let logout = app.anonymous.send(Method::POST, "/api/auth/logout", &headers, Some(b"a=b".to_vec())).await;
        logout.expect_problem(415, "unsupported_media_type");
    }
    let cross_site = [cookie, ("origin", "https://evil.com")];
    for (method, path) in [
        (Method::POST, "/api/auth/logout"),
        (Method::POST, "/api/auth/logout-all"),
        (Method::DELETE, "/api/admin/users/00000000-0000-0000-0000-000000000000"),
        (Method::POST, "/api/admin/feature-flags/f/archive"),
    ] {
        app.anonymous.send(method, path, &cross_site, None).await.expect_problem(403, "cross_site_request");
    }
    // Other sites cannot log a user in either (login CSRF).
    let cross_site_login = app
        .anonymous
        .send_json(Method::POST, LOGIN_PATH, &[("origin", "https://evil.com")], &login_body(&email, PASSWORD))
        .await;
    cross_site_login.expect_problem(403, "cross_site_request");
    // SameSite and CORS protect reads. Browsers do not attach bearer tokens by themselves, so tokens need no check.
    app.anonymous.send(Method::GET, ME_PATH, &cross_site, None).await.expect(200);
    let by_token = app
        .admin
        .send_json(Method::POST, "/api/admin/users", &cross_site[1..], &json!({"email": "x@example.com"}))
        .await;
    by_token.expect(201);
    assert_eq!(
        app.admin.get("/api/admin/users?search=new").await.json()["total"],
        0,
        "rejected requests change nothing"
    );
    post(&[cookie, json_type, ("origin", own_origin.as_str())], &body).await.expect(201);
    let same_origin = [cookie, ("sec-fetch-site", "same-origin")];
    app.anonymous.send(Method::POST, "/api/auth/logout", &same_origin, None).await.expect(204);
}
