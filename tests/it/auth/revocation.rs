//! Credentials that are revoked, or lose their permissions, while the body of a request arrives.

use std::{collections::HashSet, iter, sync::Mutex};

use flags_service::credentials::{
    jwt::{JwtConfig, JwtUsers},
    passwords,
    secret::{Secret, SecretKind, hash},
};
use flags_store::{
    api_tokens::{self, TokenGrant, TokenRecord},
    passwords as store_passwords,
    sessions::{self, SessionRecord},
    users::{self, Role},
};
use futures_util::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use uuid::Uuid;

use flags_tests::{
    app::{PASSWORD, TestApp, author},
    database::DatabaseKind,
    eventually, on_both_databases,
    permissions::PermissionTable,
    seed::user_record,
};

use super::jwt;

on_both_databases! {
    request_is_rejected_if_its_credential_loses_permission_before_the_last_byte,
}

/// Change that revokes a credential or lowers its permissions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Loss {
    TokenRevoked,
    UserDeactivated,
    UserDemoted,
    UserDeleted,
    PasswordReset,
    /// The unknown user of a JWT is stored as an inactive user.
    UserStoredInactive,
}

/// A kind of credential, and the changes that revoke it or lower its permissions.
struct CredentialKind {
    /// Name of the caller in `tests/permissions.json`.
    caller: &'static str,
    /// Role of the credential's user. `None` for a token without a user.
    user_role: Option<Role>,
    secret: SecretForm,
    losses: &'static [Loss],
}

/// Form in which a request carries the credential.
#[derive(Clone, Copy, PartialEq, Eq)]
enum SecretForm {
    Token(TokenGrant),
    Session,
    /// JWT of an unknown user.
    Jwt,
}

const ADMIN: TokenGrant = TokenGrant::Role(Role::Admin);

const CREDENTIAL_KINDS: &[CredentialKind] = &[
    CredentialKind {
        caller: "admin token",
        user_role: Some(Role::Admin),
        secret: SecretForm::Token(ADMIN),
        losses: &[Loss::TokenRevoked, Loss::UserDeactivated, Loss::UserDemoted, Loss::UserDeleted],
    },
    CredentialKind {
        caller: "admin token",
        user_role: None,
        secret: SecretForm::Token(ADMIN),
        losses: &[Loss::TokenRevoked],
    },
    CredentialKind {
        caller: "admin session",
        user_role: Some(Role::Admin),
        secret: SecretForm::Session,
        losses: &[Loss::UserDeactivated, Loss::UserDemoted, Loss::UserDeleted, Loss::PasswordReset],
    },
    CredentialKind {
        caller: "user session",
        user_role: Some(Role::User),
        secret: SecretForm::Session,
        losses: &[Loss::UserDeactivated, Loss::UserDeleted, Loss::PasswordReset],
    },
    CredentialKind {
        caller: "user token (own data)",
        user_role: Some(Role::User),
        secret: SecretForm::Token(TokenGrant::Role(Role::User)),
        losses: &[Loss::TokenRevoked, Loss::UserDeactivated, Loss::UserDeleted],
    },
    CredentialKind {
        caller: "evaluate token",
        user_role: None,
        secret: SecretForm::Token(TokenGrant::Evaluate),
        losses: &[Loss::TokenRevoked],
    },
    CredentialKind {
        caller: "JWT of an unknown user",
        user_role: None,
        secret: SecretForm::Jwt,
        losses: &[Loss::UserStoredInactive],
    },
];

/// An operation with a body.
struct Operation {
    name: String,
    method: Method,
    path: String,
}

/// Returns the operations of the OpenAPI document that have a body and require a credential.
fn operations_with_body(targets: &Targets) -> Vec<Operation> {
    let document = serde_json::to_value(flags_api::openapi()).unwrap();
    let mut found = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap().iter().filter(|(key, _)| *key != "parameters") {
            let name = operation["operationId"].as_str().unwrap().to_owned();
            if operation.get("requestBody").is_none() || name == "login" {
                continue;
            }
            let id = if name == "rotate_api_token" { &targets.token_id } else { &targets.scheduled_change_id };
            let path = path.replace("{user_id}", &targets.user_id).replace("{flag_name}", "f");
            let path = path.replace("{id}", id).replace("{key}", "f");
            found.push(Operation { name, method: method.to_uppercase().parse().unwrap(), path });
        }
    }
    found
}

/// Resources that the requests change.
struct Targets {
    user_id: String,
    token_id: String,
    scheduled_change_id: String,
}

impl Targets {
    async fn create(app: &TestApp) -> Self {
        app.create_user_with("keeper", "admin", json!({})).await;
        let (user_id, _) = app.create_user("target").await;
        app.create_boolean_flag("f").await;
        app.create_boolean_flag("g").await;
        let path = format!("/api/admin/users/{user_id}/flag-overrides/f");
        app.admin.put(&path, &json!({"override_value": true})).await.expect(201);
        let change = json!({"scheduled_at": "2031-01-01T00:00:00Z", "enabled": false});
        let path = "/api/admin/feature-flags/f/scheduled-changes";
        let change = app.admin.post(path, &change).await.expect(201).json();
        let token = json!({"name": "target", "role": "viewer"});
        let token = app.admin.post("/api/admin/api-tokens", &token).await.expect(201).json();
        let id_of = |body: &Value| body["id"].as_str().unwrap().to_owned();
        Self { user_id, token_id: id_of(&token), scheduled_change_id: id_of(&change) }
    }
}

/// Returns a body with which the operation succeeds. `number` makes names unique.
fn valid_body(operation: &str, number: usize, user_id: Option<Uuid>) -> Value {
    let rule = json!({"id": "r", "serve": {"variant": "on"},
        "conditions": [{"attribute": "plan", "operator": "equals", "values": [number.to_string()]}]});
    match operation {
        "create_api_token" => json!({"name": "new", "role": "admin"}),
        "rotate_api_token" => json!({}),
        "create_flag" => json!({"name": format!("new{number}"), "flag_type": "boolean"}),
        "patch_flag" => json!({"description": format!("new {number}")}),
        "create_scheduled_change" => {
            json!({"scheduled_at": format!("2032-01-01T00:00:00.{number:06}Z"), "enabled": false})
        }
        "patch_scheduled_change" => json!({"description": format!("new {number}")}),
        "put_targeting_rules" => json!({"targeting_rules": [rule]}),
        "change_overrides" => json!({"action": "set_expiry", "filter": {"flag_name": "f"},
            "expires_at": format!("2032-01-01T00:00:00.{number:06}Z")}),
        "create_user" => json!({"email": format!("new{number}@example.com"), "role": "admin"}),
        "patch_user" => json!({"display_name": format!("new {number}")}),
        "create_user_override" => json!({"flag_name": "g", "override_value": true}),
        "put_user_override" => json!({"override_value": true, "reason": format!("new {number}")}),
        "patch_user_override" => json!({"reason": format!("new {number}")}),
        "set_user_password" => json!({"password": "a new password of the user"}),
        "change_password" => json!({"current_password": PASSWORD, "new_password": "a new password of the caller"}),
        "evaluate_flag" | "evaluate_flags" => {
            let key = user_id.map_or("anyone".to_owned(), |id| id.to_string());
            json!({"context": {"targetingKey": key}})
        }
        other => panic!("no valid body for the operation {other}"),
    }
}

/// One request, with a credential of its own.
struct Case {
    operation: String,
    loss: Loss,
    user_id: Option<Uuid>,
    /// Id and hash of the token or session.
    credential_id: Uuid,
    credential_hash: [u8; 32],
    secret: SecretForm,
    /// Request without its last byte, and the last byte.
    request: (Vec<u8>, u8),
}

/// Inserts one credential for each combination of operation, kind of credential and [`Loss`]. Inserts all users, tokens
/// and sessions in one commit.
async fn create_cases(app: &TestApp, operations: &[Operation]) -> Vec<Case> {
    let permissions = PermissionTable::read();
    let password_hash = passwords::hash(PASSWORD.to_owned().into()).await.unwrap();
    let now = app.core.now();
    let mut tx = app.core.store().begin(now).await.unwrap();
    let (mut cases, mut session_rows) = (Vec::new(), Vec::new());
    for operation in operations {
        // Every user may call these operations, so a demotion does not prevent the call. The credential must act as a
        // user.
        let is_for_users = permissions.is_allowed(&operation.name, "user session");
        let is_allowed = |kind: &&CredentialKind| {
            let is_admin_without_user = kind.user_role.is_none() && kind.secret == SecretForm::Token(ADMIN);
            permissions.is_allowed(&operation.name, kind.caller) && !(is_for_users && is_admin_without_user)
        };
        for kind in CREDENTIAL_KINDS.iter().filter(is_allowed) {
            for loss in kind.losses.iter().filter(|loss| !is_for_users || **loss != Loss::UserDemoted) {
                let number = cases.len();
                let user_id = match kind.user_role {
                    None if kind.secret == SecretForm::Jwt => Some(Uuid::now_v7()),
                    None => None,
                    Some(role) => {
                        let email = format!("case{number}@example.com");
                        let user = users::UserRecord { role, ..user_record(&email, now) };
                        assert_eq!(users::insert(&mut tx, &user).await.unwrap(), None);
                        store_passwords::insert(&mut tx, user.id, &password_hash).await.unwrap();
                        Some(user.id)
                    }
                };
                let credential_id = Uuid::now_v7();
                let is_session = kind.secret == SecretForm::Session;
                let secret_kind = if is_session { SecretKind::Session } else { SecretKind::ApiToken };
                let secret = Secret::generate(secret_kind).unwrap();
                let credential_hash = hash(secret.reveal());
                let header = match kind.secret {
                    SecretForm::Token(grant) => {
                        let token = TokenRecord {
                            id: credential_id,
                            name: "case".to_owned(),
                            hash: credential_hash,
                            last_four: secret.last_four().to_owned(),
                            grant,
                            user_id,
                            created_by: "system:test".to_owned(),
                            created_at: now,
                            expires_at: None,
                            lifetime: None,
                            revoked_at: None,
                            last_used_at: None,
                            revision: 0,
                        };
                        api_tokens::insert(&mut tx, &token).await.unwrap();
                        format!("Authorization: Bearer {}", secret.reveal())
                    }
                    SecretForm::Session => {
                        session_rows.push(SessionRecord {
                            id: credential_id,
                            hash: credential_hash,
                            user_id: user_id.unwrap(),
                            created_at: now,
                            last_seen_at: now,
                            expires_at: now.plus_micros(3_600_000_000),
                        });
                        format!("Cookie: flags_session={}\r\nSec-Fetch-Site: same-origin", secret.reveal())
                    }
                    SecretForm::Jwt => {
                        let mut claims = jwt::claims(&user_id.unwrap().to_string());
                        claims["exp"] = json!(jwt::START_SECONDS + 1_000);
                        format!("Authorization: Bearer {}", jwt::sign_rs256(&claims))
                    }
                };
                let body = valid_body(&operation.name, number, user_id).to_string();
                let mut request = format!(
                    "{} {} HTTP/1.1\r\nHost: localhost\r\n{header}\r\nContent-Type: application/json\r\n\
                     Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
                    operation.method,
                    operation.path,
                    body.len()
                )
                .into_bytes();
                let last_byte = request.pop().unwrap();
                cases.push(Case {
                    operation: operation.name.clone(),
                    loss: *loss,
                    user_id,
                    credential_id,
                    credential_hash,
                    secret: kind.secret,
                    request: (request, last_byte),
                });
            }
        }
    }
    for session in session_rows {
        sessions::insert(&mut tx, &session).await.unwrap();
    }
    let revision = tx.commit(&author()).await.unwrap().revision();
    assert!(app.replica.wait_for(revision, std::time::Duration::from_secs(30)).await);
    cases
}

impl Case {
    async fn connect(&self, app: &TestApp) -> TcpStream {
        let address = app.base_url().trim_start_matches("http://");
        let mut connection = TcpStream::connect(address).await.unwrap();
        connection.write_all(&self.request.0).await.unwrap();
        connection
    }

    /// Sends the last byte and returns the response.
    async fn finish(&self, mut connection: TcpStream) -> Outcome {
        connection.write_all(&[self.request.1]).await.unwrap();
        let mut response = String::new();
        connection.read_to_string(&mut response).await.unwrap();
        Outcome::parse(&response)
    }

    /// Sends a complete request.
    async fn send(&self, app: &TestApp) -> Outcome {
        self.finish(self.connect(app).await).await
    }

    async fn apply_loss(&self, app: &TestApp) {
        let user_path = || format!("/api/admin/users/{}", self.user_id.unwrap());
        let response = match self.loss {
            Loss::TokenRevoked => app.admin.delete(&format!("/api/admin/api-tokens/{}", self.credential_id)).await,
            Loss::UserDeactivated => app.admin.patch(&user_path(), &json!({"active": false})).await,
            Loss::UserDemoted => app.admin.patch(&user_path(), &json!({"role": "user"})).await,
            Loss::UserDeleted => app.admin.delete(&user_path()).await,
            Loss::UserStoredInactive => {
                let user = json!({"external_id": self.user_id.unwrap().to_string()});
                app.admin.post("/api/admin/users", &user).await.expect(201);
                app.admin.patch(&user_path(), &json!({"active": false})).await
            }
            Loss::PasswordReset => {
                let body = json!({"password": "another password of the user"});
                app.admin.put(&format!("{}/password", user_path()), &body).await
            }
        };
        assert!(response.status.is_success(), "{}", response.text);
    }
}

/// Status, challenge and body of a response, without the request id.
#[derive(Debug, PartialEq)]
struct Outcome {
    status: u16,
    challenge: bool,
    body: Value,
}

impl Outcome {
    fn parse(response: &str) -> Self {
        let (head, body) = response.split_once("\r\n\r\n").unwrap_or_else(|| panic!("incomplete: {response:?}"));
        let mut body: Value = serde_json::from_str(body).unwrap_or_default();
        body.as_object_mut().map(|fields| fields.remove("instance"));
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Self { status, challenge: head.to_ascii_lowercase().contains("www-authenticate: bearer"), body }
    }
}

/// Waits until the server has authenticated the callers of all cases, as the recorded uses of their credentials show.
async fn wait_until_identified(app: &TestApp, cases: &[Case]) {
    let used_tokens = Mutex::new(HashSet::new());
    for case in cases {
        eventually("the server uses the credential", async || {
            match case.secret {
                SecretForm::Token(_) => {
                    let mut used_tokens = used_tokens.lock().unwrap();
                    used_tokens.extend(app.replica.take_token_uses().into_iter().map(|(id, _)| id));
                    return used_tokens.contains(&case.credential_id).then_some(());
                }
                // The server has looked up the unknown user.
                SecretForm::Jwt => return app.replica.users().is_known_absent(case.user_id.unwrap()).then_some(()),
                SecretForm::Session => {}
            }
            let mut conn = app.core.store().conn().await.unwrap();
            let session = sessions::find(&mut conn, &case.credential_hash).await.unwrap().unwrap();
            (session.last_seen_at == app.core.now()).then_some(())
        })
        .await;
    }
}

async fn head_revision(app: &TestApp) -> i64 {
    let mut conn = app.core.store().conn().await.unwrap();
    flags_store::change_log::head(&mut conn).await.unwrap().number
}

async fn request_is_rejected_if_its_credential_loses_permission_before_the_last_byte(kind: DatabaseKind) {
    let (app, _key_file) = jwt::start_app(kind, |config| JwtConfig { users: JwtUsers::Any, ..config }).await;
    let targets = Targets::create(&app).await;
    let operations = operations_with_body(&targets);
    let cases = create_cases(&app, &operations).await;
    for operation in &operations {
        assert!(cases.iter().any(|case| case.operation == operation.name), "no credential for {}", operation.name);
    }
    // The server writes the last use of a session at most once a minute.
    app.set_clock("01-01T00:02:00Z");
    let connections = join_all(cases.iter().map(|case| case.connect(&app))).await;
    wait_until_identified(&app, &cases).await;
    join_all(cases.iter().map(|case| case.apply_loss(&app))).await;
    let expected = join_all(cases.iter().map(|case| case.send(&app))).await;
    let revision = head_revision(&app).await;
    let finished = iter::zip(&cases, connections).map(|(case, connection)| case.finish(connection));
    let actual = join_all(finished).await;
    let mut failures = Vec::new();
    for ((case, expected), actual) in cases.iter().zip(expected).zip(actual) {
        assert!([401, 403].contains(&expected.status), "{} {:?}: {expected:?}", case.operation, case.loss);
        if actual != expected {
            let secret = match case.secret {
                SecretForm::Token(_) => "token",
                SecretForm::Session => "session",
                SecretForm::Jwt => "JWT",
            };
            failures.push(format!("{} {secret} {:?}: {} {}", case.operation, case.loss, actual.status, actual.body));
        }
    }
    assert!(failures.is_empty(), "{} of {} requests:\n{}", failures.len(), cases.len(), failures.join("\n"));
    assert_eq!(head_revision(&app).await, revision, "a rejected request has changed something");
}
