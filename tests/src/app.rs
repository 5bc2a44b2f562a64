//! The application in this process, on a real database, with a clock that stands where the test puts it.

use std::{net::TcpListener, sync::Arc, time::Duration};

use flags_api::{App, Settings, StreamLimits, serve};
use flags_domain::Instant;
use flags_service::{
    Core, ManualClock,
    credentials::{
        jwt::{JwtConfig, JwtVerifier},
        signing::SigningKey,
        tokens::{TokenInput, TokenService},
    },
    evaluation::Evaluation,
    feed::{self, Feed},
    overrides::UserFlagOverrideService,
    replica::Replica,
};
use flags_store::{Author, api_tokens::Grant, users::Role};
use serde_json::{Value, json};
use tokio::sync::Notify;
use uuid::Uuid;

use crate::{
    caller::Caller,
    database::{Database, Kind},
};

/// When the clock of every test begins.
pub const BEGINNING: &str = "2030-01-01T00:00:00Z";

/// The password of those who sign in.
pub const PASSWORD: &str = "correct horse battery staple";

/// A server in this process.
pub struct TestApp {
    pub admin: Caller,
    pub nobody: Caller,
    pub core: Core,
    pub replica: Arc<Replica>,
    pub clock: Arc<ManualClock>,
    /// Gone with this.
    pub database: Database,
    feed: tokio::task::JoinHandle<()>,
    server: actix_web::dev::ServerHandle,
    base: String,
    pub app: App,
}

impl Drop for TestApp {
    fn drop(&mut self) {
        self.feed.abort();
        // Streams would keep the server from ending.
        self.app.begin_shutdown();
        let server = self.server.clone();
        tokio::spawn(async move { server.stop(false).await });
    }
}

pub fn author() -> Author {
    Author { actor: "system:test".to_owned(), request_id: None }
}

impl TestApp {
    pub async fn start(kind: Kind) -> Self {
        Self::start_with(kind, false).await
    }

    pub async fn start_with(kind: Kind, show_reasons_to_users: bool) -> Self {
        Self::start_limited(kind, show_reasons_to_users, StreamLimits::default()).await
    }

    pub async fn start_limited(kind: Kind, show_reasons_to_users: bool, streams: StreamLimits) -> Self {
        Self::start_set(kind, Settings { show_reasons_to_users, streams, ..Settings::default() }).await
    }

    /// One that accepts JWTs as this says, and whose streams do not beat: what ends them is the end itself.
    pub async fn start_trusting(kind: Kind, issuer: JwtConfig) -> Self {
        let streams = StreamLimits { heartbeat: Duration::from_secs(3_600), ..StreamLimits::default() };
        Self::build(kind, Settings { streams, ..Settings::default() }, Some(issuer)).await
    }

    /// With these settings, but for the number of threads.
    pub async fn start_set(kind: Kind, settings: Settings) -> Self {
        Self::build(kind, settings, None).await
    }

    async fn build(kind: Kind, settings: Settings, issuer: Option<JwtConfig>) -> Self {
        let database = Database::migrated(kind).await;
        let store = database.store().await;
        let tickets = SigningKey::of_event_streams(&store).await.expect("a key");
        let clock = Arc::new(ManualClock::new(Instant::parse(BEGINNING).expect("an instant")));
        let replica = Arc::new(Replica::new(feed::load(&store).await.expect("the database is readable")));
        let wakeup = Arc::new(Notify::new());
        let core = Core::new(store.clone(), clock.clone()).with_replica(Arc::clone(&replica), Arc::clone(&wakeup));
        let feed = Feed::new(store, Arc::clone(&replica), wakeup, clock.clone());
        let feed = tokio::spawn(feed.run());
        let jwt = match issuer {
            None => None,
            Some(issuer) => Some(Arc::new(JwtVerifier::start(issuer, clock.clone()).await.expect("a verifier"))),
        };
        let settings = Settings { metrics_with_api: true, workers: 1, jwt, ..settings };
        let app = App::new(&core, &replica, tickets, None, settings);
        let shown = app.clone();
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let base = format!("http://{}", listener.local_addr().expect("an address"));
        let server = serve(&app, listener).expect("a server");
        let handle = server.handle();
        tokio::spawn(server);
        let token = make_token(&core, Grant::Role(Role::Admin), None, None).await;
        let (admin, nobody) = (Caller::new(&base, Some(&token)), Caller::new(&base, None));
        Self { admin, nobody, core, replica, clock, database, feed, server: handle, base, app: shown }
    }

    /// Where it listens.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// Puts the clock to an instant of the year 2030, such as `01-01T00:00:05Z`.
    pub fn clock_to(&self, instant: &str) {
        self.clock.set(Instant::parse(&format!("2030-{instant}")).expect("an instant"));
    }

    /// Puts the clock back by ten years, before anything was done: to what the worker does only once the database's clock
    /// agrees that its instant has come.
    pub fn clock_to_the_past(&self) {
        self.clock.set(Instant::parse("2020-01-01T00:00:00Z").expect("an instant"));
    }

    /// Lets the server load everything anew, as after a restored backup.
    pub async fn reload(&self) {
        let epoch = self.core.store().new_epoch().await.expect("a new epoch");
        let loaded = async || (self.replica.revision().epoch == epoch.epoch).then_some(());
        crate::eventually("everything is loaded", loaded).await;
    }

    /// A caller who shows this.
    pub fn bearer(&self, text: &str) -> Caller {
        Caller::new(&self.base, Some(text))
    }

    /// A caller with a token of its own.
    pub async fn caller(&self, grant: Grant, user_id: Option<Uuid>, expires_at: Option<Instant>) -> Caller {
        Caller::new(&self.base, Some(&make_token(&self.core, grant, user_id, expires_at).await))
    }

    /// A user with this name, attributes and role, as `(id, caller)`.
    pub async fn user_with(&self, name: &str, role: &str, attributes: Value) -> (String, Caller) {
        let body = json!({"email": format!("{name}@example.com"), "role": role, "attributes": attributes});
        let id = self.admin.post("/api/admin/users", &body).await.expect(201).json()["id"]
            .as_str()
            .expect("an id")
            .to_owned();
        let role = Role::parse(role).expect("a role");
        let caller = self.caller(Grant::Role(role), Some(id.parse().expect("a UUID")), None).await;
        (id, caller)
    }

    /// A user with this name, role and [`PASSWORD`], as `(id, e-mail)`.
    pub async fn account(&self, name: &str, role: &str) -> (String, String) {
        let email = format!("{name}@example.com");
        let body = json!({"email": email, "role": role, "password": PASSWORD});
        let id = self.admin.post("/api/admin/users", &body).await.expect(201).json()["id"].clone();
        (id.as_str().expect("an id").to_owned(), email)
    }

    /// A plain user with this name.
    pub async fn user(&self, name: &str) -> (String, Caller) {
        self.user_with(name, "user", json!({})).await
    }

    /// A flag from what it needs.
    pub async fn flag(&self, definition: Value) -> Value {
        self.admin.post("/api/admin/feature-flags", &definition).await.expect(201).json()
    }

    /// A boolean flag that serves `false`.
    pub async fn boolean_flag(&self, name: &str) {
        self.flag(json!({"name": name, "flag_type": "boolean"})).await;
    }

    /// The specification's service.
    pub fn override_service(&self) -> UserFlagOverrideService {
        let evaluation = Evaluation::new(self.core.clone(), Arc::clone(&self.replica));
        UserFlagOverrideService::new(self.core.clone(), evaluation)
    }

    /// The log, as `(revision, action, entity)` in order.
    pub async fn log(&self) -> Vec<(i64, String, String)> {
        let mut conn = self.core.store().conn().await.expect("a connection");
        let (_, rows) = flags_store::change_log::read_on(&mut conn, 0, 100_000).await.expect("a log");
        rows.into_iter()
            .map(|r| (r.summary.revision, r.summary.action.as_str().to_owned(), r.summary.entity.as_str().to_owned()))
            .collect()
    }
}

async fn make_token(core: &Core, grant: Grant, user_id: Option<Uuid>, expires_at: Option<Instant>) -> String {
    let input = TokenInput { name: "test".to_owned(), grant, user_id, expires_at };
    let done = TokenService::new(core.clone()).create(author(), input).await.expect("a token");
    done.output.secret.reveal().to_owned()
}

/// The path of a user's overrides.
pub fn overrides_of(user_id: &str) -> String {
    format!("/api/admin/users/{user_id}/flag-overrides")
}

/// The path of one override.
pub fn override_at(user_id: &str, flag: &str) -> String {
    format!("/api/admin/users/{user_id}/flag-overrides/{flag}")
}
