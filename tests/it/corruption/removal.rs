//! Rows that this version cannot read do not prevent revocations and deletions, and a refused deletion deletes nothing.

use flags_domain::{Instant, Role};
use flags_service::maintenance;
use flags_store::api_tokens::TokenGrant;
use flags_tests::{
    app::{PASSWORD, TestApp, override_path},
    database::{DatabaseKind, execute_raw},
    eventually, on_both_databases, seed,
};
use serde_json::{Value, json};

on_both_databases! {
    token_of_an_unreadable_user_can_be_revoked,
    user_with_an_unreadable_token_can_be_deleted,
    refused_deletion_of_a_flag_deletes_no_overrides,
    unreadable_admin_does_not_count_as_a_remaining_admin,
    worker_removes_an_expired_override_that_follows_many_unreadable_ones,
    worker_records_a_due_change_as_applied_after_many_unreadable_ones,
    user_with_an_unreadable_session_can_be_deactivated,
}

const USERS_PATH: &str = "/api/admin/users";
const TOKENS_PATH: &str = "/api/admin/api-tokens";

fn flag_path(name: &str) -> String {
    format!("/api/admin/feature-flags/{name}")
}

/// Creates a token that acts as the user. Returns its id and its secret.
async fn create_token(app: &TestApp, user_id: &str) -> (String, String) {
    let body = json!({"name": "t", "role": "user", "user_id": user_id});
    let created = app.admin.post(TOKENS_PATH, &body).await.expect(201).json();
    let text = |name: &str| created[name].as_str().unwrap().to_owned();
    (text("id"), text("token"))
}

async fn token_of_an_unreadable_user_can_be_revoked(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    let (user_id, _) = app.create_user("ann").await;
    let (token_id, secret) = create_token(&app, &user_id).await;
    let caller = app.caller_with_bearer(&secret);
    caller.get("/api/flags/me").await.expect(200);
    execute_raw(&app.database.url, "UPDATE users SET role = 'future' WHERE handle = 'ann@example.com'").await;
    app.admin.delete(&format!("{TOKENS_PATH}/{token_id}")).await.expect(204);
    caller.get("/api/flags/me").await.expect(401);
}

async fn user_with_an_unreadable_token_can_be_deleted(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    let (user_id, _) = app.create_user("ann").await;
    let (_, secret) = create_token(&app, &user_id).await;
    let caller = app.caller_with_bearer(&secret);
    caller.get("/api/flags/me").await.expect(200);
    execute_raw(&app.database.url, "UPDATE api_tokens SET role = 'future' WHERE name = 't'").await;
    app.admin.delete(&format!("{USERS_PATH}/{user_id}")).await.expect(204);
    app.admin.get(&format!("{USERS_PATH}/{user_id}")).await.expect(404);
    let rejected = async || (caller.get("/api/flags/me").await.status == 401).then_some(());
    eventually("the token is rejected", rejected).await;
    let tokens = app.admin.get(TOKENS_PATH).await.expect(200).json();
    assert!(tokens["items"].as_array().unwrap().iter().all(|token| token["name"] != "t"), "{tokens}");
}

async fn refused_deletion_of_a_flag_deletes_no_overrides(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    app.create_boolean_flag("f").await;
    let (user_id, _) = app.create_user("ann").await;
    app.admin.put(&override_path(&user_id, "f"), &json!({"override_value": true})).await.expect(201);
    let change = json!({"scheduled_at": "2040-01-01T00:00:00Z", "enabled": false});
    app.admin.post(&format!("{}/scheduled-changes", flag_path("f")), &change).await.expect(201);
    app.admin.delete(&flag_path("f")).await.expect_problem(409, "flag_not_archived");
    app.admin.post(&format!("{}/archive", flag_path("f")), &Value::Null).await.expect(200);
    execute_raw(&app.database.url, "UPDATE scheduled_changes SET serve = '{\"future\": 1}'").await;
    let revision = app.replica.revision();
    app.admin.delete(&flag_path("f")).await.expect_problem(409, "flag_unreadable");
    assert_eq!(app.replica.revision(), revision);
    app.admin.get(&override_path(&user_id, "f")).await.expect(200);
}

async fn unreadable_admin_does_not_count_as_a_remaining_admin(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    let (first_id, _) = app.create_user_with("ada", "admin", json!({})).await;
    app.create_user_with("ben", "admin", json!({})).await;
    execute_raw(&app.database.url, "UPDATE users SET attributes = '[]' WHERE handle = 'ben@example.com'").await;
    let demoted = app.admin.patch(&format!("{USERS_PATH}/{first_id}"), &json!({"role": "viewer"})).await;
    demoted.expect_problem(409, "last_admin");
    let token = app.caller_with_token(TokenGrant::Role(Role::Admin), None, None).await;
    token.get(USERS_PATH).await.expect(200);
}

async fn worker_removes_an_expired_override_that_follows_many_unreadable_ones(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    app.create_boolean_flag("f").await;
    seed::insert_expired_overrides(&app.database.store().await, 450).await;
    let readable = "SELECT id FROM users WHERE handle = 'expired449@example.com'";
    let corrupt = format!("UPDATE user_flag_overrides SET override_value = '1e999' WHERE user_id <> ({readable})");
    execute_raw(&app.database.url, &corrupt).await;
    assert_eq!(maintenance::remove_expired_overrides(&app.core).await.unwrap(), 1);
    assert_eq!(maintenance::remove_expired_overrides(&app.core).await.unwrap(), 0);
}

async fn worker_records_a_due_change_as_applied_after_many_unreadable_ones(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    app.set_clock_before_real_time();
    let change = json!({"scheduled_at": "2020-01-02T00:00:00Z", "enabled": false});
    for number in 0..60 {
        let flag = format!("f{number:02}");
        app.create_boolean_flag(&flag).await;
        app.admin.post(&format!("{}/scheduled-changes", flag_path(&flag)), &change).await.expect(201);
    }
    let corrupt = "UPDATE scheduled_changes SET serve = '{\"future\": 1}' WHERE flag_name <> 'f59'";
    execute_raw(&app.database.url, corrupt).await;
    app.clock.set(Instant::parse("2020-01-03T00:00:00Z").unwrap());
    assert_eq!(maintenance::mark_due_scheduled_changes(&app.core).await.unwrap(), 1);
    assert_eq!(maintenance::mark_due_scheduled_changes(&app.core).await.unwrap(), 0);
}

async fn user_with_an_unreadable_session_can_be_deactivated(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    let (user_id, email) = app.create_account("ann", "viewer").await;
    let browsers = [app.anonymous.sign_in(&email, PASSWORD).await, app.anonymous.sign_in(&email, PASSWORD).await];
    execute_raw(
        &app.database.url,
        "UPDATE sessions SET token_hash = '' WHERE id = (SELECT id FROM sessions ORDER BY id LIMIT 1)",
    )
    .await;
    app.admin.patch(&format!("{USERS_PATH}/{user_id}"), &json!({"active": false})).await.expect(200);
    for browser in browsers {
        browser.get("/api/flags/me").await.expect(401);
    }
}
