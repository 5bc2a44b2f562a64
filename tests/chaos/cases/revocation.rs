//! Admin tokens are revoked, and their users are demoted, deactivated or deleted, while clients use the tokens on two
//! servers. No change with such a token is committed afterwards.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use flags_service::users::{NewUser, UserService};
use flags_store::{api_tokens::TokenGrant, users::Role};
use flags_tests::{caller::Caller, database::DatabaseKind};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use reqwest::Method;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use uuid::Uuid;

use crate::{
    CaseOptions,
    environment::{TestEnvironment, command_author},
    report::CaseReport,
};

/// Number of clients that use each credential on each server.
const CLIENTS_PER_SERVER: usize = 2;

/// An admin with a token.
struct Admin {
    user_id: Uuid,
    token_id: String,
    token: String,
}

impl Admin {
    async fn create(env: &TestEnvironment, number: usize) -> Self {
        let new_user = NewUser {
            email: Some(format!("admin{number}@example.com")),
            external_id: None,
            display_name: None,
            role: Role::Admin,
            attributes: serde_json::Map::new(),
            active: true,
            password: None,
        };
        let created = UserService::new(env.core.clone()).create(command_author(), new_user).await;
        let user_id = created.expect("user can be created").output.record.id;
        let created = env.create_token(TokenGrant::Role(Role::Admin), Some(user_id)).await;
        Self { user_id, token_id: created.record.id.to_string(), token: created.secret.reveal().to_owned() }
    }

    /// Revokes the token (`way` 0), or deactivates (1), demotes (2) or deletes (3) its user. Returns the revision of
    /// the change.
    async fn remove_admin_access(&self, env: &TestEnvironment, server: usize, way: usize) -> i64 {
        let user_path = format!("/api/admin/users/{}", self.user_id);
        let admin = env.admin(server);
        let revision = match way {
            0 => {
                let path = format!("/api/admin/api-tokens/{}", self.token_id);
                env.send_change(&admin, Method::DELETE, &path, None).await
            }
            1 => env.send_change(&admin, Method::PATCH, &user_path, Some(json!({"active": false}))).await,
            2 => env.send_change(&admin, Method::PATCH, &user_path, Some(json!({"role": "user"}))).await,
            _ => env.send_change(&admin, Method::DELETE, &user_path, None).await,
        };
        revision.expect("admin access can be removed")
    }
}

/// Changes the description of a flag until the server rejects the credential. Returns the number of changes.
async fn change_until_rejected(env: &TestEnvironment, caller: &Caller, flag: &str) -> usize {
    let path = format!("/api/admin/feature-flags/{flag}");
    let mut changes = 0;
    loop {
        let body = json!({"description": format!("description {}", env.unique_value())}).to_string();
        let headers = [("content-type", "application/json")];
        let response = caller.send(Method::PATCH, &path, &headers, Some(body.into_bytes())).await;
        match response.status.as_u16() {
            200 => changes += 1,
            401 | 403 => return changes,
            // The server gives up after repeated conflicts with concurrent changes of the same flag.
            503 => {}
            status => panic!("unexpected status {status}: {}", response.text),
        }
    }
}

/// Opens a connection and sends a PATCH request without its last byte.
async fn begin_change(env: &TestEnvironment, base_url: &str, token: &str) -> TcpStream {
    let body = json!({"description": format!("description {}", env.unique_value())}).to_string();
    let request = format!(
        "PATCH /api/admin/feature-flags/flag0 HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{}",
        body.len(),
        &body[..body.len() - 1]
    );
    let address = base_url.trim_start_matches("http://");
    let mut connection = TcpStream::connect(address).await.expect("server accepts connections");
    connection.write_all(request.as_bytes()).await.expect("request can be sent");
    connection
}

/// Sends the last byte of the request. Returns the status of the response.
async fn finish_change(mut connection: TcpStream) -> u16 {
    connection.write_all(b"}").await.expect("last byte can be sent");
    let mut response = String::new();
    connection.read_to_string(&mut response).await.expect("response can be read");
    response.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("response has a status")
}

pub(crate) async fn run(case: &str, kind: DatabaseKind, options: CaseOptions, report: &mut CaseReport) {
    let mut env = TestEnvironment::new(case, kind, 1, 2, options.seed).await;
    env.start_servers(2).await;
    // The server rejects the removal of the last admin, so one admin stays throughout the case.
    Admin::create(&env, 0).await;
    let mut rng = StdRng::seed_from_u64(options.seed);
    let deadline = Instant::now() + options.duration;
    let (mut revoked_at, mut delays) = (HashMap::new(), Vec::new());
    let (mut changes, mut late_requests, mut accepted_late_requests) = (0, 0, 0);
    while Instant::now() < deadline {
        let admin = Admin::create(&env, revoked_at.len() + 1).await;
        let callers: Vec<_> = env.servers.iter().map(|server| server.caller(&admin.token)).collect();
        for caller in &callers {
            wait_until_accepted(caller).await;
        }
        let mut late = Vec::new();
        for server in &env.servers {
            late.push(begin_change(&env, &server.base_url, &admin.token).await);
        }
        let clients = callers.iter().flat_map(|caller| std::iter::repeat_n(caller, CLIENTS_PER_SERVER)).enumerate();
        let clients = clients.map(|(number, caller)| {
            let flag = if number % 2 == 0 { "flag0" } else { "flag1" };
            change_until_rejected(&env, caller, flag)
        });
        let (pause, server, way) =
            (rng.random_range(10..150), rng.random_range(0..env.servers.len()), rng.random_range(0..4));
        let revocation = async {
            tokio::time::sleep(Duration::from_millis(pause)).await;
            let revision = admin.remove_admin_access(&env, server, way).await;
            let acknowledged_at = Instant::now();
            let mut statuses = Vec::new();
            for connection in late {
                statuses.push(finish_change(connection).await);
            }
            (revision, acknowledged_at, statuses)
        };
        let (accepted, (revision, acknowledged_at, statuses)) =
            tokio::join!(futures_util::future::join_all(clients), revocation);
        delays.push(acknowledged_at.elapsed().as_secs_f64() * 1e3);
        changes += accepted.iter().sum::<usize>();
        late_requests += statuses.len();
        accepted_late_requests += statuses.iter().filter(|status| ![401, 403].contains(*status)).count();
        revoked_at.insert(format!("user:{}", admin.user_id), revision);
    }
    report.expect_nonzero("credentials taken away", revoked_at.len());
    report.expect_nonzero("changes with them before", changes);
    report.expect_zero("changes in the log after the revocation", count_late_changes(&env, &revoked_at).await);
    report.expect_nonzero("requests with a last byte after the revocation", late_requests);
    report.expect_zero("of them not rejected", accepted_late_requests);
    report.print_percentiles("delay until both servers reject the credential", delays);
    env.check_change_log(report).await;
}

/// Waits until the server knows the token.
async fn wait_until_accepted(caller: &Caller) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !caller.get("/api/auth/me").await.status.is_success() {
        assert!(Instant::now() < deadline, "the server does not accept a new token");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Counts the changes that were committed after the credential of their author was revoked.
async fn count_late_changes(env: &TestEnvironment, revoked_at: &HashMap<String, i64>) -> usize {
    let (mut position, mut late) = (0, 0);
    loop {
        let read = env.core.read(async |conn| flags_store::change_log::read_after(conn, position, 5_000).await).await;
        let (_, rows) = read.expect("change log can be read");
        let Some(last) = rows.last() else { return late };
        position = last.summary.revision;
        let is_late = |actor: &String, revision| revoked_at.get(actor).is_some_and(|revoked| revision > *revoked);
        late += rows.iter().filter(|row| is_late(&row.summary.actor, row.summary.revision)).count();
    }
}
