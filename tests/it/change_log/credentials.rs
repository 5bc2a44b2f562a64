//! Changes of users and tokens that must take effect even if the server cannot apply the rest of the change log.

use std::time::Duration;

use flags_api::{Settings, StreamLimits};
use flags_service::credentials::confirmation::MaxCredentialAge;
use flags_store::{
    api_tokens::{self, TokenFilter, TokenGrant, TokenRecord},
    change_log::Action,
    users::{self, Role, UserRecord},
};
use serde_json::json;
use uuid::Uuid;

use flags_tests::{
    app::{PASSWORD, TestApp, author},
    caller::Caller,
    database::{DatabaseKind, execute_raw},
    eventually, on_both_databases,
};

on_both_databases! {
    revocation_takes_effect_while_flags_cannot_be_loaded,
    stale_server_checks_credentials_in_the_database,
}

const OWN_FLAGS: &str = "/api/flags/me";

/// Settings with a heartbeat interval of an hour, so heartbeats cannot be the reason why a stream ends.
fn settings() -> Settings {
    let stream_limits = StreamLimits { heartbeat: Duration::from_secs(3_600), ..StreamLimits::default() };
    Settings { stream_limits, ..Settings::default() }
}

/// Returns a user and a caller with a token that acts as the user.
async fn create_user(app: &TestApp, name: &str) -> (Uuid, Caller) {
    let (id, caller) = app.create_user_with(name, "admin", json!({})).await;
    (id.parse().unwrap(), caller)
}

async fn expect_eventually(caller: &Caller, path: &str, status: u16) {
    let description = format!("{path} responds with {status}");
    eventually(&description, async || (caller.get(path).await.status.as_u16() == status).then_some(())).await;
}

async fn revocation_takes_effect_while_flags_cannot_be_loaded(kind: DatabaseKind) {
    let app = TestApp::start_with_settings(kind, settings()).await;
    let (revoked_id, revoked) = create_user(&app, "revoked").await;
    let (deactivated_id, deactivated) = create_user(&app, "deactivated").await;
    let (demoted_id, demoted) = create_user(&app, "demoted").await;
    let mut stream_of_revoked = revoked.open_stream("/api/flags/stream", &[]).await;
    let mut stream_of_deactivated = deactivated.open_stream("/api/flags/stream", &[]).await;
    stream_of_revoked.next().await;
    stream_of_deactivated.next().await;
    demoted.get("/api/admin/users").await.expect(200);
    // Rows of the change log are missing, so the server must reload its replica. The reload fails because the table of
    // flags is missing.
    let hide_flags = "ALTER TABLE feature_flags RENAME TO hidden_flags";
    execute_raw(&app.database.url, &format!("{hide_flags}; UPDATE log_head SET revision = revision + 5")).await;

    let mut tx = app.core.store().begin(app.core.now()).await.unwrap();
    let filter = TokenFilter { user_id: Some(revoked_id), valid_at: None };
    let token = api_tokens::list(tx.conn(), &filter, None, 10).await.unwrap().items.remove(0);
    let revoked_token = TokenRecord { revoked_at: Some(tx.now()), ..token.clone() };
    api_tokens::update(&mut tx, Action::Revoked, &token, &revoked_token).await.unwrap();
    let user = users::lock(&mut tx, deactivated_id).await.unwrap().unwrap();
    users::update(&mut tx, &user, &UserRecord { active: false, ..user.clone() }).await.unwrap();
    let user = users::lock(&mut tx, demoted_id).await.unwrap().unwrap();
    users::update(&mut tx, &user, &UserRecord { role: Role::User, ..user.clone() }).await.unwrap();
    let revision = tx.commit(&author()).await.unwrap().revision();

    expect_eventually(&revoked, OWN_FLAGS, 401).await;
    expect_eventually(&deactivated, OWN_FLAGS, 401).await;
    expect_eventually(&demoted, "/api/admin/users", 403).await;
    for mut stream in [stream_of_revoked, stream_of_deactivated] {
        let last_event = stream.expect("bye").await;
        assert_eq!(last_event.data["reason"], "revoked");
    }
    assert!(app.replica.revision().number < revision.number, "the server has not followed the change log");

    execute_raw(&app.database.url, "ALTER TABLE hidden_flags RENAME TO feature_flags").await;
    eventually("the server follows the change log again", async || {
        (app.replica.revision().number >= revision.number).then_some(())
    })
    .await;
    revoked.get(OWN_FLAGS).await.expect_problem(401, "unauthorized");
    demoted.get("/api/admin/users").await.expect_problem(403, "forbidden");
}

/// Changes rows without adding change-log entries, so the server's replica remains outdated.
async fn stale_server_checks_credentials_in_the_database(kind: DatabaseKind) {
    let max_credential_age = MaxCredentialAge(Duration::ZERO);
    let app = TestApp::start_with_settings(kind, Settings { max_credential_age, ..settings() }).await;
    let url = &app.database.url;
    let (_, viewer) = create_user(&app, "viewer").await;
    let (_, inactive) = create_user(&app, "inactive").await;
    let (_, email) = app.create_account("session", "admin").await;
    let session = app.anonymous.sign_in(&email, PASSWORD).await;
    let evaluate = app.caller_with_token(TokenGrant::Evaluate, None, None).await;
    let (_, revoked) = create_user(&app, "revoked").await;
    for caller in [&viewer, &inactive, &session, &revoked] {
        caller.get("/api/auth/me").await.expect(200);
    }
    evaluate.post("/ofrep/v1/evaluate/flags", &json!({"context": {"targetingKey": "a"}})).await.expect(200);
    let mut stream = revoked.open_stream("/api/flags/stream", &[]).await;
    stream.next().await;
    execute_raw(url, "UPDATE users SET role = 'viewer' WHERE handle LIKE 'viewer@%' OR handle LIKE 'session@%'").await;
    execute_raw(url, "UPDATE users SET active = false WHERE handle LIKE 'inactive@%'").await;
    execute_raw(
        url,
        "UPDATE api_tokens SET revoked_at = created_at
         WHERE user_id IN (SELECT id FROM users WHERE handle LIKE 'revoked@%')",
    )
    .await;
    // The server caches the result of a credential check for a second, so the rejection may be delayed.
    expect_eventually(&viewer, "/api/admin/api-tokens", 403).await;
    expect_eventually(&session, "/api/admin/api-tokens", 403).await;
    viewer.get("/api/admin/users").await.expect(200);
    expect_eventually(&inactive, OWN_FLAGS, 401).await;
    expect_eventually(&revoked, OWN_FLAGS, 401).await;
    assert_eq!(stream.expect("bye").await.data["reason"], "revoked");
    // If the check in the database fails, the server falls back to its replica, which still contains the valid token.
    execute_raw(url, "ALTER TABLE api_tokens RENAME TO hidden_tokens").await;
    expect_eventually(&revoked, OWN_FLAGS, 200).await;
}
