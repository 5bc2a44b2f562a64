//! The application in the test process, on a real database, with a manually set clock.

use std::{net::TcpListener, sync::Arc, time::Duration};

use flags_api::{App, Settings, StreamLimits, serve};
use flags_domain::Instant;
use flags_service::{
    Core, ManualClock, Runtime,
    credentials::{
        check::CommandAuthor,
        jwt::{JwtConfig, JwtVerifier},
        tokens::{NewToken, TokenService},
    },
    overrides::UserFlagOverrideService,
    replica::Replica,
};
use flags_store::{Author, api_tokens::TokenGrant, users::Role};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    caller::Caller,
    database::{Database, DatabaseKind},
};

/// Time to which the clock is set when the application starts.
pub const START_TIME: &str = "2030-01-01T00:00:00Z";

/// Password of the users that [`TestApp::create_account`] creates.
pub const PASSWORD: &str = "correct horse battery staple";

/// A server in the test process, with a database of its own.
pub struct TestApp {
    pub admin: Caller,
    pub anonymous: Caller,
    pub core: Core,
    pub replica: Arc<Replica>,
    pub clock: Arc<ManualClock>,
    /// Deleted when the application is dropped.
    pub database: Database,
    server: actix_web::dev::ServerHandle,
    base_url: String,
    pub app: App,
    /// Keeps the change feed running.
    _runtime: Runtime,
}

impl Drop for TestApp {
    fn drop(&mut self) {
        // Open event streams would prevent the server from stopping.
        self.app.begin_shutdown();
        let server = self.server.clone();
        tokio::spawn(async move { server.stop(false).await });
    }
}

/// Author of the changes that tests commit without the HTTP API.
pub fn author() -> Author {
    Author { actor: "system:test".to_owned(), request_id: None }
}

/// Author of the commands that tests execute without the HTTP API.
pub fn command_author() -> CommandAuthor {
    CommandAuthor::without_credential(author())
}

impl TestApp {
    pub async fn start(kind: DatabaseKind) -> Self {
        Self::start_with_settings(kind, Settings::default()).await
    }

    pub async fn start_with_user_reasons(kind: DatabaseKind, show_reasons_to_users: bool) -> Self {
        Self::start_with_settings(kind, Settings { show_reasons_to_users, ..Settings::default() }).await
    }

    pub async fn start_with_stream_limits(kind: DatabaseKind, stream_limits: StreamLimits) -> Self {
        Self::start_with_settings(kind, Settings { stream_limits, ..Settings::default() }).await
    }

    /// Starts an application that accepts JWTs. The heartbeat interval of its event streams is an hour, so heartbeats
    /// cannot be the reason why a stream ends.
    pub async fn start_with_jwt(kind: DatabaseKind, jwt: JwtConfig) -> Self {
        let stream_limits = StreamLimits { heartbeat: Duration::from_secs(3_600), ..StreamLimits::default() };
        let database = Database::migrated(kind).await;
        Self::build(database, Settings { stream_limits, ..Settings::default() }, Some(jwt)).await
    }

    /// Starts an application with these settings, except `metrics_with_api`, `workers` and `jwt`, which are ignored.
    pub async fn start_with_settings(kind: DatabaseKind, settings: Settings) -> Self {
        Self::build(Database::migrated(kind).await, settings, None).await
    }

    /// Starts an application on a database that has the current schema.
    pub async fn start_on(database: Database) -> Self {
        Self::build(database, Settings::default(), None).await
    }

    async fn build(database: Database, settings: Settings, jwt: Option<JwtConfig>) -> Self {
        let store = database.store().await;
        let clock = Arc::new(ManualClock::new(parse_instant(START_TIME)));
        let runtime = Runtime::start(store, clock.clone()).await.expect("service can start");
        let jwt = match jwt {
            None => None,
            Some(config) => {
                Some(Arc::new(JwtVerifier::start(config, clock.clone()).await.expect("JWT verifier can start")))
            }
        };
        let settings = Settings { metrics_with_api: true, workers: 1, jwt, ..settings };
        let app = App::new(&runtime, None, settings);
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let base_url = format!("http://{}", listener.local_addr().expect("the listener has an address"));
        let server = serve(&app, listener).expect("server can start");
        let handle = server.handle();
        tokio::spawn(server);
        let token = create_token(&runtime.core, TokenGrant::Role(Role::Admin), None, None).await;
        let (admin, anonymous) = (Caller::new(&base_url, Some(&token)), Caller::new(&base_url, None));
        let (core, replica) = (runtime.core.clone(), Arc::clone(&runtime.replica));
        Self { admin, anonymous, core, replica, clock, database, server: handle, base_url, app, _runtime: runtime }
    }

    pub fn base_url(&self) -> &str {
        &self.base_url
    }

    /// Sets the clock to an instant in 2030. The argument omits the year: `01-01T00:00:05Z`.
    pub fn set_clock(&self, instant: &str) {
        self.clock.set(parse_instant(&format!("2030-{instant}")));
    }

    /// Sets the clock to 2020-01-01. The worker acts on an instant only when it has passed on the database clock too,
    /// and the database clock shows the real time.
    pub fn set_clock_before_real_time(&self) {
        self.clock.set(parse_instant("2020-01-01T00:00:00Z"));
    }

    /// Starts a new epoch, as after a restored backup, and waits until the server has reloaded its replica.
    pub async fn reload_replica(&self) {
        let epoch = self.core.store().start_new_epoch().await.expect("a new epoch can be started");
        let reloaded = async || (self.replica.revision().epoch == epoch.epoch).then_some(());
        crate::eventually("the replica is reloaded", reloaded).await;
    }

    /// Returns a caller that sends `Authorization: Bearer` with the given text.
    pub fn caller_with_bearer(&self, credential: &str) -> Caller {
        Caller::new(&self.base_url, Some(credential))
    }

    /// Creates an API token and returns a caller that uses it.
    pub async fn caller_with_token(
        &self,
        grant: TokenGrant,
        user_id: Option<Uuid>,
        expires_at: Option<Instant>,
    ) -> Caller {
        Caller::new(&self.base_url, Some(&create_token(&self.core, grant, user_id, expires_at).await))
    }

    /// Creates a user with the e-mail `<name>@example.com` and an API token. Returns the user id and a caller that
    /// uses the token.
    pub async fn create_user_with(&self, name: &str, role: &str, attributes: Value) -> (String, Caller) {
        let body = json!({"email": format!("{name}@example.com"), "role": role, "attributes": attributes});
        let id = self.post_user(&body).await;
        let role = Role::parse(role).expect("role exists");
        let user_id = id.parse().expect("user id is a UUID");
        (id, self.caller_with_token(TokenGrant::Role(role), Some(user_id), None).await)
    }

    /// Creates a user who can sign in with [`PASSWORD`]. Returns the user id and the e-mail.
    pub async fn create_account(&self, name: &str, role: &str) -> (String, String) {
        let email = format!("{name}@example.com");
        let id = self.post_user(&json!({"email": email, "role": role, "password": PASSWORD})).await;
        (id, email)
    }

    /// Creates a user with role `user` and no attributes; otherwise like [`Self::create_user_with`].
    pub async fn create_user(&self, name: &str) -> (String, Caller) {
        self.create_user_with(name, "user", json!({})).await
    }

    /// Sends a user to the API and returns the id of the created user.
    async fn post_user(&self, body: &Value) -> String {
        let user = self.admin.post("/api/admin/users", body).await.expect(201).json();
        user["id"].as_str().expect("user id is a string").to_owned()
    }

    /// Creates a flag through the API and returns the response body.
    pub async fn create_flag(&self, definition: Value) -> Value {
        self.admin.post("/api/admin/feature-flags", &definition).await.expect(201).json()
    }

    /// Creates a boolean flag with the default value `false`.
    pub async fn create_boolean_flag(&self, name: &str) {
        self.create_flag(json!({"name": name, "flag_type": "boolean"})).await;
    }

    pub fn override_service(&self) -> UserFlagOverrideService {
        UserFlagOverrideService::new(self.core.clone(), self.core.evaluation(&self.replica))
    }

    /// Returns revision, action and resource kind of all rows of the change log, in order.
    pub async fn change_log(&self) -> Vec<(i64, String, String)> {
        let mut conn = self.core.store().conn().await.expect("a connection is available");
        let (_, rows) =
            flags_store::change_log::read_after(&mut conn, 0, 100_000).await.expect("change log can be read");
        rows.into_iter()
            .map(|r| {
                (r.summary.revision, r.summary.action.as_str().to_owned(), r.summary.resource_kind.as_str().to_owned())
            })
            .collect()
    }
}

fn parse_instant(text: &str) -> Instant {
    Instant::parse(text).expect("instant is valid")
}

async fn create_token(core: &Core, grant: TokenGrant, user_id: Option<Uuid>, expires_at: Option<Instant>) -> String {
    let new_token = NewToken { name: "test".to_owned(), grant, user_id, expires_at };
    let created =
        TokenService::new(core.clone()).create(command_author(), new_token).await.expect("token can be created");
    created.output.secret.reveal().to_owned()
}

/// Path of a user's list of overrides.
pub fn user_overrides_path(user_id: &str) -> String {
    format!("/api/admin/users/{user_id}/flag-overrides")
}

/// Path of one override.
pub fn override_path(user_id: &str, flag: &str) -> String {
    format!("/api/admin/users/{user_id}/flag-overrides/{flag}")
}
