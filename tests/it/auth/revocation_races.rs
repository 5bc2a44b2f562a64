//! Credentials that another transaction revokes, or deprives of their permissions, while a command runs.

use std::sync::Arc;

use flags_domain::{FlagName, FlagType};
use flags_service::{
    CommandRequest, CredentialRejection, Precondition, ServiceError,
    credentials::{
        check::{CommandAuthor, RequiredCredential, RequiredPermission},
        passwords as password_hashing,
        secret::hash,
        sessions::{SessionLifetimes, SessionService},
        tokens::{NewToken, TokenService},
    },
    flags::{FlagDetail, FlagPatch, FlagService, NewFlag},
};
use flags_store::{
    Tx,
    api_tokens::{self, TokenFilter, TokenGrant, TokenRecord},
    change_log::Action,
    idempotency::IdempotencyKey,
    passwords,
    principals::CredentialRef,
    sessions,
    users::{self, Role, UserRecord},
};
use serde_json::json;
use uuid::Uuid;

use flags_tests::{
    app::{PASSWORD, TestApp, author, command_author, override_path},
    caller::Caller,
    database::{DatabaseKind, query_postgres},
    eventually, on_both_databases,
};

on_both_databases! {
    command_fails_if_a_concurrent_transaction_revokes_its_credential,
    all_commands_of_a_revoked_credential_fail_with_the_same_error,
    self_deactivation_fails_if_a_concurrent_password_reset_ends_the_session,
}

/// Change in an open transaction that revokes a credential or lowers its permissions.
#[derive(Clone, Copy, Debug)]
enum Loss {
    TokenRevoked,
    UserDeactivated,
    UserDemoted,
    UserDeleted,
    PasswordReset,
}

/// Applies the change and takes a revision, which locks the head of the change log until the transaction ends.
async fn apply_loss(tx: &mut Tx, loss: Loss, user_id: Uuid) {
    let user = users::lock(tx, user_id).await.unwrap().unwrap();
    match loss {
        Loss::TokenRevoked => {
            let filter = TokenFilter { user_id: Some(user_id), valid_at: None };
            for token in api_tokens::list(tx.conn(), &filter, None, 10).await.unwrap().items {
                let revoked = TokenRecord { revoked_at: Some(tx.now()), ..token.clone() };
                api_tokens::update(tx, Action::Revoked, &token, &revoked).await.unwrap();
            }
        }
        Loss::UserDeactivated => {
            users::update(tx, &user, &UserRecord { active: false, ..user.clone() }).await.unwrap();
        }
        Loss::UserDemoted => {
            users::update(tx, &user, &UserRecord { role: Role::Viewer, ..user.clone() }).await.unwrap();
        }
        Loss::UserDeleted => {
            api_tokens::delete_by_user(tx, user_id).await.unwrap();
            users::delete(tx, &user).await.unwrap();
        }
        Loss::PasswordReset => {
            let new_hash = password_hashing::hash("another password".to_owned().into()).await.unwrap();
            passwords::set(tx, &user, &new_hash).await.unwrap();
            sessions::delete_by_user(tx, user_id).await.unwrap();
        }
    }
    tx.take_revision().await.unwrap();
}

/// Sends a change while `loss` is not committed, then commits it, and returns the response.
async fn patch_during(app: &TestApp, caller: &Caller, path: &str, loss: Loss, user_id: Uuid) -> (u16, String) {
    // Uses a separate store, because the request would otherwise wait for the write permit of the application's store.
    let mut tx = app.database.store().await.begin(app.core.now()).await.unwrap();
    apply_loss(&mut tx, loss, user_id).await;
    let (caller, path) = (caller.clone(), path.to_owned());
    let body = if path.contains("/users/") { json!({"active": false}) } else { json!({"enabled": false}) };
    let request = tokio::spawn(async move { caller.patch(&path, &body).await });
    wait_until_command_is_blocked(app).await;
    tx.commit(&author()).await.unwrap();
    let response = request.await.unwrap();
    (response.status.as_u16(), response.json()["code"].as_str().unwrap_or_default().to_owned())
}

/// Waits until the command of the request is blocked by the open transaction.
pub(super) async fn wait_until_command_is_blocked(app: &TestApp) {
    let is_waiting = async || {
        if app.database.url.starts_with("sqlite") {
            // The command holds a connection while it waits for the write lock of the SQLite file.
            return (app.core.store().pool_usage()[0].busy > 0).then_some(());
        }
        let sql = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
        (!query_postgres(&app.database.url, sql).await.is_empty()).then_some(())
    };
    eventually("the command waits for the open transaction", is_waiting).await;
}

async fn command_fails_if_a_concurrent_transaction_revokes_its_credential(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    app.create_user_with("keeper", "admin", json!({})).await;
    app.create_boolean_flag("f").await;
    for (number, (loss, uses_session, expected)) in [
        (Loss::TokenRevoked, false, (401, "unauthorized")),
        (Loss::UserDeactivated, false, (401, "unauthorized")),
        (Loss::UserDemoted, false, (403, "forbidden")),
        (Loss::UserDeleted, false, (401, "unauthorized")),
        (Loss::UserDeactivated, true, (401, "unauthorized")),
        (Loss::UserDemoted, true, (403, "forbidden")),
        (Loss::UserDeleted, true, (401, "unauthorized")),
        (Loss::PasswordReset, true, (401, "unauthorized")),
    ]
    .into_iter()
    .enumerate()
    {
        let (user_id, email) = app.create_account(&format!("admin{number}"), "admin").await;
        let user_id = user_id.parse().unwrap();
        let caller = if uses_session {
            app.anonymous.sign_in(&email, PASSWORD).await
        } else {
            app.caller_with_token(TokenGrant::Role(Role::Admin), Some(user_id), None).await
        };
        let (status, code) = patch_during(&app, &caller, "/api/admin/feature-flags/f", loss, user_id).await;
        assert_eq!((status, code.as_str()), expected, "{loss:?}, session: {uses_session}");
    }
    let flag = app.admin.get("/api/admin/feature-flags/f").await.expect(200).json();
    assert_eq!(flag["enabled"], true, "no request has changed the flag");
}

async fn self_deactivation_fails_if_a_concurrent_password_reset_ends_the_session(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    app.create_user_with("keeper", "admin", json!({})).await;
    let (user_id, email) = app.create_account("ada", "admin").await;
    let session = app.anonymous.sign_in(&email, PASSWORD).await;
    let path = format!("/api/admin/users/{user_id}");
    let outcome = patch_during(&app, &session, &path, Loss::PasswordReset, user_id.parse().unwrap()).await;
    assert_eq!(outcome, (401, "unauthorized".to_owned()));
    assert_eq!(app.admin.get(&path).await.expect(200).json()["active"], true);
}

fn new_flag(name: &str) -> NewFlag {
    NewFlag {
        name: FlagName::new(name).unwrap(),
        flag_type: FlagType::Boolean,
        description: None,
        owner: None,
        tags: Vec::new(),
        enabled: true,
        variants: None,
        default: None,
        off_variant: None,
        targeting_rules: Vec::new(),
        salt: None,
        client_visible: true,
    }
}

#[track_caller]
fn expect_rejected<T>(result: Result<T, ServiceError>) {
    match result {
        Err(ServiceError::CredentialRejected(CredentialRejection::Invalid)) => {}
        Err(error) => panic!("expected a rejected credential, got: {error}"),
        Ok(_) => panic!("expected a rejected credential, got success"),
    }
}

async fn all_commands_of_a_revoked_credential_fail_with_the_same_error(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    let new_token =
        NewToken { name: "t".to_owned(), grant: TokenGrant::Role(Role::Admin), user_id: None, expires_at: None };
    let tokens = TokenService::new(app.core.clone());
    let token = tokens.create(command_author(), new_token).await.unwrap().output;
    let required = RequiredCredential {
        credential: CredentialRef::Token(hash(token.secret.reveal())),
        expires_at: None,
        permission: RequiredPermission::Admin,
    };
    let author = CommandAuthor::new(author(), required);
    let flags = FlagService::new(app.core.clone());
    let key = IdempotencyKey { caller: "system:test".to_owned(), key: "1".to_owned(), fingerprint: [1; 32] };
    let request = || -> CommandRequest<FlagDetail> {
        CommandRequest::idempotent(author.clone(), key.clone(), Arc::new(|_, _| b"stored".to_vec()))
    };
    flags.create(request(), new_flag("f")).await.unwrap();
    let replayed = flags.create(request(), new_flag("f")).await;
    assert!(matches!(replayed, Err(ServiceError::Replayed(_))), "the valid credential gets the stored response");
    tokens.revoke(command_author(), token.record.id, Precondition::None).await.unwrap();

    let patch = async |name: &str, patch: FlagPatch| {
        expect_rejected(flags.patch(author.clone(), name, patch, Precondition::None).await);
    };
    // A command that would change the flag, one that would change nothing, and one for an unknown flag.
    patch("f", FlagPatch { enabled: Some(false), ..FlagPatch::default() }).await;
    patch("f", FlagPatch::default()).await;
    patch("nope", FlagPatch::default()).await;
    expect_rejected(flags.create(request(), new_flag("f")).await);
    let user_id = Uuid::nil();
    let sessions = SessionService::new(app.core.clone(), SessionLifetimes::default());
    expect_rejected(sessions.sign_out_everywhere(&author, user_id).await);
}

/// A transaction locks an override of the second batch, so that the bulk change waits after its first revision.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bulk_change_commits_no_further_revision_after_its_token_is_revoked() {
    let app = TestApp::start(DatabaseKind::Postgres).await;
    app.create_boolean_flag("f").await;
    let mut tx = app.core.store().begin(app.core.now()).await.unwrap();
    let mut user_ids = Vec::new();
    for number in 0..1_001 {
        let user_id = flags_tests::seed::insert_user(&mut tx, &format!("u{number}@example.com")).await;
        flags_tests::seed::insert_override(&mut tx, user_id, "f", None).await;
        user_ids.push(user_id);
    }
    let before = tx.commit(&author()).await.unwrap().revision().number;
    let created =
        app.admin.post("/api/admin/api-tokens", &json!({"name": "t", "role": "admin"})).await.expect(201).json();
    let caller = app.caller_with_bearer(created["token"].as_str().unwrap());
    let mut blocking = app.core.store().begin(app.core.now()).await.unwrap();
    let last = *user_ids.iter().max().unwrap();
    let last_override = flags_store::overrides::lock(&mut blocking, last, "f").await.unwrap().unwrap();
    let body = json!({"action": "disable", "filter": {"flag_name": "f"}});
    let bulk = tokio::spawn(async move { caller.post("/api/admin/flag-overrides/bulk", &body).await });
    let first_revision = async || (app.change_log().await.last().unwrap().0 > before + 1).then_some(());
    eventually("the first revision of the bulk change is committed", first_revision).await;
    app.admin.delete(&format!("/api/admin/api-tokens/{}", created["id"].as_str().unwrap())).await.expect(204);
    blocking.rollback().await.unwrap();
    bulk.await.unwrap().expect_problem(401, "unauthorized");
    let path = override_path(&last_override.user_override.user_id.to_string(), "f");
    assert_eq!(app.admin.get(&path).await.expect(200).json()["enabled"], true, "the second revision is not committed");
}
