//! Commands that revoke the caller's own credential, or lower its permissions.

use flags_store::{api_tokens::TokenGrant, users::Role};
use serde_json::{Value, json};
use uuid::Uuid;

use flags_tests::{
    app::{PASSWORD, TestApp, author},
    caller::Caller,
    database::DatabaseKind,
    on_both_databases, seed,
};

use super::ME_PATH;

on_both_databases! {
    token_can_revoke_and_rotate_itself,
    admin_can_revoke_their_own_permissions,
    admin_with_many_overrides_can_delete_their_own_account,
    session_is_ended_by_its_own_logout_or_password_change,
}

async fn token_can_revoke_and_rotate_itself(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    let (user_id, _) = app.create_user_with("ada", "admin", json!({})).await;
    for user_id in [Value::Null, json!(user_id)] {
        let body = json!({"name": "t", "role": "admin", "user_id": user_id});
        let created = app.admin.post("/api/admin/api-tokens", &body).await.expect(201).json();
        let token = app.caller_with_bearer(created["token"].as_str().unwrap());
        let path = |id: &Value| format!("/api/admin/api-tokens/{}", id.as_str().unwrap());
        let rotation = format!("{}/rotate", path(&created["id"]));
        let rotated = token.post(&rotation, &json!({"overlap_seconds": 0})).await.expect(201).json();
        token.get(ME_PATH).await.expect_problem(401, "unauthorized");
        let token = app.caller_with_bearer(rotated["token"].as_str().unwrap());
        token.delete(&path(&rotated["id"])).await.expect(204);
        token.get(ME_PATH).await.expect_problem(401, "unauthorized");
    }
}

/// Returns an admin with a token and a session.
async fn create_admin(app: &TestApp, name: &str) -> (Uuid, Caller, Caller) {
    let (user_id, email) = app.create_account(name, "admin").await;
    let user_id = user_id.parse().unwrap();
    let token = app.caller_with_token(TokenGrant::Role(Role::Admin), Some(user_id), None).await;
    (user_id, token, app.anonymous.sign_in(&email, PASSWORD).await)
}

async fn admin_can_revoke_their_own_permissions(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    app.create_user_with("keeper", "admin", json!({})).await;
    for (number, uses_session) in [(0, false), (1, true)] {
        let user_path = |id: Uuid| format!("/api/admin/users/{id}");
        let own = async |name: &str| {
            let (user_id, token, session) = create_admin(&app, &format!("{name}{number}")).await;
            (user_id, if uses_session { session } else { token })
        };
        let (id, caller) = own("demoted").await;
        caller.patch(&user_path(id), &json!({"role": "viewer"})).await.expect(200);
        caller.patch(&user_path(id), &json!({"role": "admin"})).await.expect_problem(403, "forbidden");
        let (id, caller) = own("deactivated").await;
        caller.patch(&user_path(id), &json!({"active": false})).await.expect(200);
        caller.get(ME_PATH).await.expect_problem(401, "unauthorized");
        let (id, caller) = own("deleted").await;
        caller.delete(&user_path(id)).await.expect(204);
        caller.get(ME_PATH).await.expect_problem(401, "unauthorized");
        let (id, caller) = own("reset").await;
        let password = json!({"password": "another password of the admin"});
        caller.put(&format!("{}/password", user_path(id)), &password).await.expect(204);
        caller.get(ME_PATH).await.expect(if uses_session { 401 } else { 200 });
    }
}

async fn admin_with_many_overrides_can_delete_their_own_account(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    app.create_user_with("keeper", "admin", json!({})).await;
    let (user_id, token, session) = create_admin(&app, "ada").await;
    let mut tx = app.core.store().begin(app.core.now()).await.unwrap();
    for number in 0..1_001 {
        seed::insert_override(&mut tx, user_id, &format!("f{number}"), None).await;
    }
    tx.commit(&author()).await.unwrap();
    session.delete(&format!("/api/admin/users/{user_id}")).await.expect(204);
    token.get(ME_PATH).await.expect_problem(401, "unauthorized");
    app.admin.get(&format!("/api/admin/users/{user_id}")).await.expect_problem(404, "user_not_found");
}

async fn session_is_ended_by_its_own_logout_or_password_change(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    let (_, email) = app.create_account("ann", "user").await;
    let first = app.anonymous.sign_in(&email, PASSWORD).await;
    first.post("/api/auth/logout", &Value::Null).await.expect(204);
    first.get(ME_PATH).await.expect_problem(401, "unauthorized");
    let second = app.anonymous.sign_in(&email, PASSWORD).await;
    second.post("/api/auth/logout-all", &Value::Null).await.expect(204);
    second.get(ME_PATH).await.expect_problem(401, "unauthorized");
    let third = app.anonymous.sign_in(&email, PASSWORD).await;
    let passwords = json!({"current_password": PASSWORD, "new_password": "a new password of the user"});
    let changed = third.post("/api/auth/password", &passwords).await.expect(204);
    third.get(ME_PATH).await.expect_problem(401, "unauthorized");
    third.with_cookie(changed.cookie()).get(ME_PATH).await.expect(200);
}
