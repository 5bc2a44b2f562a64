//! Password changes, and idempotency keys on requests that carry secrets.

use reqwest::Method;
use serde_json::json;

use flags_tests::{
    app::{PASSWORD, TestApp},
    database::DatabaseKind,
    on_both_databases,
};

use super::{LOGIN_PATH, ME_PATH, login_body};

on_both_databases! {
    password_change_requires_session_and_current_password,
    requests_with_secrets_reject_idempotency_keys,
}

async fn password_change_requires_session_and_current_password(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    let (ada_id, email) = app.create_account("ada", "admin").await;
    let (browser, other) =
        (app.anonymous.sign_in(&email, PASSWORD).await, app.anonymous.sign_in(&email, PASSWORD).await);
    let change = |current: &str, new: &str| json!({"current_password": current, "new_password": new});
    let path = "/api/auth/password";
    browser.post(path, &change("wrong", "a new long password")).await.expect_problem(401, "sign_in_failed");
    browser.post(path, &change(PASSWORD, "short")).await.expect_violation("/new_password", "too_short");
    browser.post(path, &change(PASSWORD, &email)).await.expect_violation("/new_password", "too_simple");
    app.admin.post(path, &change(PASSWORD, "a new long password")).await.expect_problem(403, "no_session");
    let before = app.change_log().await.len();
    let changed = browser.post(path, &change(PASSWORD, "a new long password")).await.expect(204);
    assert!(!changed.header("flags-revision").is_empty());
    for old_session in [&browser, &other] {
        old_session.get(ME_PATH).await.expect_problem(401, "unauthorized");
    }
    app.anonymous.with_cookie(changed.cookie()).get(ME_PATH).await.expect(200);
    app.anonymous.post(LOGIN_PATH, &login_body(&email, PASSWORD)).await.expect_problem(401, "sign_in_failed");
    app.anonymous.sign_in(&email, "a new long password").await;
    let entries = app.change_log().await.split_off(before);
    assert_eq!(
        entries.iter().map(|(_, action, resource)| format!("{resource} {action}")).collect::<Vec<_>>(),
        ["user updated"]
    );
    let mut conn = app.core.store().conn().await.unwrap();
    let (_, rows) = flags_store::change_log::read_after(&mut conn, 0, 1_000).await.unwrap();
    let row = rows.last().unwrap();
    assert_eq!(row.after.as_ref().unwrap()["changed"], json!(["password"]));
    assert_eq!(row.summary.actor, format!("user:{ada_id}"));
    assert!(!format!("{rows:?}").contains("argon2"));
}

async fn requests_with_secrets_reject_idempotency_keys(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    let (_, email) = app.create_account("ada", "admin").await;
    let browser = app.anonymous.sign_in(&email, PASSWORD).await;
    let key = [("idempotency-key", "k")];
    let token = json!({"name": "t", "role": "viewer"});
    let token_id =
        app.admin.post("/api/admin/api-tokens", &token).await.expect(201).json()["id"].as_str().unwrap().to_owned();
    let rotate = format!("/api/admin/api-tokens/{token_id}/rotate");
    for (caller, path, body) in [
        (&app.anonymous, LOGIN_PATH, login_body(&email, PASSWORD)),
        (&browser, "/api/auth/password", json!({"current_password": PASSWORD, "new_password": "a new long password"})),
        (&app.admin, "/api/admin/users", json!({"email": "x@example.com", "password": PASSWORD})),
        (&app.admin, "/api/admin/api-tokens", token),
        (&app.admin, &rotate, json!({})),
    ] {
        caller.send_json(Method::POST, path, &key, &body).await.expect_violation("/Idempotency-Key", "not_allowed");
    }
    app.admin.send_json(Method::POST, "/api/admin/users", &key, &json!({"email": "x@example.com"})).await.expect(201);
}
