//! Login and logout: session cookies and request validation.

use reqwest::Method;
use serde_json::json;

use flags_tests::{
    app::{PASSWORD, TestApp, override_path},
    database::DatabaseKind,
    on_both_databases,
};

use super::{LOGIN_PATH, ME_PATH, login_body};

on_both_databases! {
    session_lasts_from_login_to_logout,
    session_cookie_is_secure_and_host_prefixed_except_on_direct_loopback_requests,
    login_with_a_session_cookie_replaces_that_session,
    unknown_account_and_wrong_password_get_the_same_response,
    rejects_invalid_login_fields_and_passwords,
}

async fn session_lasts_from_login_to_logout(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    let (ada_id, email) = app.create_account("ada", "admin").await;
    let response = app.anonymous.post(LOGIN_PATH, &login_body("ADA@Example.com", PASSWORD)).await.expect(200);
    let cookie = response.header("set-cookie").to_owned();
    assert!(cookie.starts_with("flags_session=fls_"), "{cookie}");
    for attribute in ["HttpOnly", "SameSite=Strict", "Path=/", "Max-Age=604800"] {
        assert!(cookie.contains(attribute), "{attribute} is missing in {cookie}");
    }
    assert!(!cookie.contains("Secure") && !cookie.contains("Domain"), "{cookie}");
    let identity = response.json();
    let expected = json!({"id": ada_id, "user_label": email, "external_id": null, "email": email, "display_name": null,
        "role": "admin", "scope": null, "credential": "session", "expires_at": "2030-01-08T00:00:00Z"});
    assert_eq!(identity, expected);
    let browser = app.anonymous.with_cookie(response.cookie());
    assert_eq!(browser.get(ME_PATH).await.expect(200).json(), expected);
    app.create_boolean_flag("f").await;
    let created = browser.put(&override_path(&ada_id, "f"), &json!({"override_value": true})).await.expect(201).json();
    assert_eq!(created["created_by"], format!("user:{ada_id}"));
    assert_eq!(browser.get("/api/flags/me/f").await.expect(200).json()["value"], true);
    let logout = browser.post("/api/auth/logout", &json!({})).await.expect(204);
    assert!(
        logout.header("set-cookie").starts_with("flags_session=; ")
            && logout.header("set-cookie").contains("Max-Age=0")
    );
    browser.get(ME_PATH).await.expect_problem(401, "unauthorized");
    browser.post("/api/auth/logout", &json!({})).await.expect_problem(401, "unauthorized");
}

async fn session_cookie_is_secure_and_host_prefixed_except_on_direct_loopback_requests(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    let (_, email) = app.create_account("ada", "admin").await;
    let sign_in = async |headers: &[(&str, &str)]| {
        app.anonymous.send_json(Method::POST, LOGIN_PATH, headers, &login_body(&email, PASSWORD)).await.expect(200)
    };
    for headers in [[("host", "flags.example.com")], [("x-forwarded-proto", "https")], [("x-forwarded-for", "1.2.3.4")]]
    {
        let response = sign_in(&headers).await;
        let cookie = response.header("set-cookie");
        assert!(cookie.starts_with("__Host-flags_session=fls_") && cookie.contains("; Secure"), "{cookie}");
        let unchanged = [headers[0], ("cookie", response.cookie())];
        app.anonymous.send(Method::GET, ME_PATH, &unchanged, None).await.expect(200);
        let unprefixed = response.cookie().replace("__Host-", "");
        app.anonymous.send(Method::GET, ME_PATH, &[headers[0], ("cookie", &unprefixed)], None).await.expect(401);
    }
    let on_loopback = sign_in(&[]).await;
    let prefixed = format!("__Host-{}", on_loopback.cookie());
    app.anonymous.send(Method::GET, ME_PATH, &[("cookie", on_loopback.cookie())], None).await.expect(200);
    app.anonymous.send(Method::GET, ME_PATH, &[("cookie", &prefixed)], None).await.expect(401);
}

async fn login_with_a_session_cookie_replaces_that_session(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    let (_, email) = app.create_account("ada", "admin").await;
    let first = app.anonymous.sign_in(&email, PASSWORD).await;
    let other = app.anonymous.sign_in(&email, PASSWORD).await;
    let second = first.sign_in(&email, PASSWORD).await;
    first.get(ME_PATH).await.expect_problem(401, "unauthorized");
    for browser in [&second, &other] {
        browser.get(ME_PATH).await.expect(200);
    }
    // The server never adopts a session token chosen by the client (session fixation).
    let planted =
        app.anonymous.with_cookie("flags_session=fls_planted").post(LOGIN_PATH, &login_body(&email, PASSWORD)).await;
    assert_ne!(planted.expect(200).cookie(), "flags_session=fls_planted");
    second.post("/api/auth/logout-all", &json!({})).await.expect(204);
    for browser in [&second, &other] {
        browser.get(ME_PATH).await.expect_problem(401, "unauthorized");
    }
}

async fn unknown_account_and_wrong_password_get_the_same_response(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    let (_, email) = app.create_account("ada", "admin").await;
    // Ann has no password.
    app.create_user("ann").await;
    let mut problems = Vec::new();
    for email in [email.as_str(), "unknown@example.com", "ann@example.com", "not an email", "", "%", "' OR 1=1 --"] {
        let response = app.anonymous.post(LOGIN_PATH, &login_body(email, "wrong")).await;
        let mut problem = response.expect_problem(401, "sign_in_failed");
        problem["instance"].take();
        problems.push(problem);
    }
    assert!(problems.windows(2).all(|pair| pair[0] == pair[1]));
}

async fn rejects_invalid_login_fields_and_passwords(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    let valid_body = login_body("a@b", "x");
    for (field, value, code) in [
        ("email", json!(1), "invalid_type"),
        ("email", json!("a\0@b"), "nul_character"),
        ("email", json!("a".repeat(255)), "too_long"),
        ("password", json!(null), "invalid_type"),
        ("nope", json!(1), "unknown_field"),
        ("role", json!("admin"), "unknown_field"),
    ] {
        let mut body = valid_body.clone();
        body[field] = value;
        app.anonymous.post(LOGIN_PATH, &body).await.expect_violation(&format!("/{field}"), code);
    }
    app.anonymous.post(LOGIN_PATH, &json!({"email": "a@b"})).await.expect_violation("/password", "required");
    app.anonymous
        .post(LOGIN_PATH, &login_body("a@b", &"x".repeat(100_000)))
        .await
        .expect_problem(401, "sign_in_failed");
    for (password, code) in
        [("short", "too_short"), ("nul \0 in the middle", "nul_character"), ("a@b.example.com", "too_simple")]
    {
        let body = json!({"email": "a@b.example.com", "password": password});
        app.admin.post("/api/admin/users", &body).await.expect_violation("/password", code);
    }
}
