//! A private database with users and flags, real servers, and concurrent writers that record acknowledged changes.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, Instant},
};

use flags_service::{
    Core, SystemClock,
    credentials::{
        check::CommandAuthor,
        tokens::{CreatedToken, NewToken, TokenService},
    },
    users::{NewUser, UserService},
};
use flags_store::{Author, Store, api_tokens::TokenGrant, users::Role};
use flags_tests::{
    app::override_path,
    caller::Caller,
    cluster::Cluster,
    database::{Database, DatabaseKind, create_database},
    process::{RunningProcess, stdout_of},
    proxy::{Proxy, Target},
};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    journal::Journal,
    report::CaseReport,
    subscriber::{EventKind, Subscriber},
};

/// Flag that only [`TestEnvironment::write_marker`] changes.
pub(crate) const MARKER: &str = "marker";

/// A user with an API token.
pub(crate) struct TestUser {
    pub(crate) id: Uuid,
    pub(crate) token: String,
}

/// Database, servers and test data of one case.
pub(crate) struct TestEnvironment {
    pub(crate) database_url: String,
    pub(crate) cluster: Option<Cluster>,
    _database: Option<Database>,
    /// Direct access to the database, without a server.
    pub(crate) core: Core,
    pub(crate) servers: Vec<RunningProcess>,
    pub(crate) admin_token: String,
    pub(crate) users: Vec<TestUser>,
    /// Names of the flags, without [`MARKER`]. All have the type number and the default 0.
    pub(crate) flags: Vec<String>,
    are_flags_created: bool,
    pub(crate) journal: Arc<Journal>,
    pub(crate) seed: u64,
    next_value: AtomicI64,
}

/// A change that a server has acknowledged with a success status.
#[derive(Clone, Debug)]
pub(crate) struct AcknowledgedWrite {
    /// Index of the user whose override changed. `None` if the default of the flag changed.
    pub(crate) user: Option<usize>,
    pub(crate) flag: String,
    pub(crate) acknowledged_at: Instant,
    pub(crate) revision: i64,
}

/// Load that concurrent writers generate.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WriteLoad {
    pub(crate) writers: usize,
    pub(crate) duration: Duration,
    /// Pause between two changes of a writer.
    pub(crate) pause: Duration,
}

/// Author of the changes that a case commits without a server.
pub(crate) fn author() -> Author {
    Author { actor: "system:chaos".to_owned(), request_id: None }
}

/// Author of the commands that a case executes without a server.
pub(crate) fn command_author() -> CommandAuthor {
    CommandAuthor::without_credential(author())
}

impl TestEnvironment {
    /// Creates a migrated database with users and API tokens. The first server that starts creates the flags.
    pub(crate) async fn new(case: &str, kind: DatabaseKind, users: usize, flags: usize, seed: u64) -> Self {
        let (cluster, database, database_url) = match kind {
            DatabaseKind::Postgres => {
                let cluster = Cluster::start(&[]);
                let url = create_database(&cluster, "template0").await;
                (Some(cluster), None, url)
            }
            DatabaseKind::Sqlite => {
                let database = Database::empty(DatabaseKind::Sqlite).await;
                let url = database.url.clone();
                (None, Some(database), url)
            }
        };
        stdout_of("server", &["migrate", "--database-url", &database_url]);
        let parsed_url = database_url.parse().expect("database URL is valid");
        let store = Store::open(&parsed_url).await.expect("database can be opened");
        let core = Core::new(store, Arc::new(SystemClock::default()));
        let mut env = Self {
            database_url,
            cluster,
            _database: database,
            core,
            servers: Vec::new(),
            admin_token: String::new(),
            users: Vec::new(),
            flags: (0..flags).map(|number| format!("flag{number}")).collect(),
            are_flags_created: false,
            journal: Arc::new(Journal::new(case)),
            seed,
            next_value: AtomicI64::new(1),
        };
        let admin_token = env.create_token(TokenGrant::Role(Role::Admin), None).await;
        admin_token.secret.reveal().clone_into(&mut env.admin_token);
        for number in 0..users {
            let new_user = NewUser {
                email: Some(format!("user{number}@example.com")),
                external_id: None,
                display_name: None,
                role: Role::User,
                attributes: serde_json::Map::new(),
                active: true,
                password: None,
            };
            let created = UserService::new(env.core.clone())
                .create(command_author(), new_user)
                .await
                .expect("user can be created");
            let id = created.output.record.id;
            let token = env.create_token(TokenGrant::Role(Role::User), Some(id)).await;
            env.users.push(TestUser { id, token: token.secret.reveal().to_owned() });
        }
        env
    }

    /// Creates an API token.
    pub(crate) async fn create_token(&self, grant: TokenGrant, user_id: Option<Uuid>) -> CreatedToken {
        let new_token = NewToken { name: "chaos".to_owned(), grant, user_id, expires_at: None };
        let created = TokenService::new(self.core.clone()).create(command_author(), new_token).await;
        created.expect("token can be created").output
    }

    /// Starts servers that connect to the given database URL. The first call also creates the flags.
    async fn start_servers_at(&mut self, database_url: &str, count: usize) {
        // All writers use the same token and send requests as fast as possible.
        let arguments = ["--database-url", database_url, "--rate-limit", "0", "--evaluation-rate-limit", "0"];
        self.servers.extend((0..count).map(|_| RunningProcess::start("server", &arguments)));
        if !std::mem::replace(&mut self.are_flags_created, true) {
            for flag in self.flags.iter().map(String::as_str).chain([MARKER]) {
                let body = json!({"name": flag, "flag_type": "number", "variants": [{"id": "v", "value": 0}],
                    "default": {"variant": "v"}, "off_variant": "v"});
                self.admin(0).post("/api/admin/feature-flags", &body).await.expect(201);
            }
        }
    }

    /// Starts servers that connect directly to the database.
    pub(crate) async fn start_servers(&mut self, count: usize) {
        let url = self.database_url.clone();
        self.start_servers_at(&url, count).await;
    }

    /// Starts a server that connects to PostgreSQL through a proxy.
    pub(crate) async fn start_server_behind_proxy(&mut self) -> Proxy {
        let socket = self.cluster.as_ref().expect("the case runs on PostgreSQL").socket();
        let proxy = Proxy::start(Target::Unix(socket)).await;
        let database = self.database_url.rsplit('/').next().expect("URL ends with the database name").to_owned();
        self.start_servers_at(&format!("postgres://postgres@{}/{database}", proxy.address), 1).await;
        proxy
    }

    /// Returns a caller with role `admin` for the server with this index.
    pub(crate) fn admin(&self, server: usize) -> Caller {
        self.servers[server].caller(&self.admin_token)
    }

    /// Returns a caller for the user with this index.
    pub(crate) fn user(&self, user: usize, base_url: &str) -> Caller {
        Caller::new(base_url, Some(&self.users[user].token))
    }

    /// Subscribes to the own-flags stream of a user and waits for the first event.
    pub(crate) async fn subscribe(&self, user: usize, base_url: &str) -> Subscriber {
        let caller = self.user(user, base_url);
        let subscriber = Subscriber::start(user, caller, Arc::clone(&self.journal), self.seed + user as u64);
        wait_until("the first event of a stream arrives", || subscriber.has_received_event()).await;
        subscriber
    }

    /// Returns a value that no flag or override had before, so that every write changes something.
    pub(crate) fn unique_value(&self) -> i64 {
        self.next_value.fetch_add(1, Ordering::Relaxed)
    }

    /// Sends a change and records it in the journal. Returns the new revision if the server acknowledged the change and
    /// the change had an effect.
    pub(crate) async fn send_change(
        &self,
        admin: &Caller,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> Option<i64> {
        self.journal.write("request", json!({"method": method.as_str(), "path": path, "body": body}));
        let bytes = body.map(|body| body.to_string().into_bytes());
        let response = admin.try_send(method, path, &[("content-type", "application/json")], bytes).await.ok()?;
        let revision = response.header("flags-revision").split(':').nth(1).and_then(|number| number.parse().ok());
        let status = response.status.as_u16();
        self.journal.write("response", json!({"path": path, "status": status, "revision": revision}));
        response.status.is_success().then_some(revision)?
    }

    /// Sets an override to a unique value.
    pub(crate) async fn set_override(&self, admin: &Caller, user: usize, flag: &str) -> Option<AcknowledgedWrite> {
        let path = override_path(&self.users[user].id.to_string(), flag);
        let body = json!({"override_value": self.unique_value()});
        let revision = self.send_change(admin, Method::PUT, &path, Some(body)).await?;
        Some(AcknowledgedWrite { user: Some(user), flag: flag.to_owned(), acknowledged_at: Instant::now(), revision })
    }

    /// Sets the default of a flag to a unique value.
    pub(crate) async fn set_flag_default(&self, admin: &Caller, flag: &str) -> Option<AcknowledgedWrite> {
        let body = json!({"variants": [{"id": "v", "value": self.unique_value()}]});
        let path = format!("/api/admin/feature-flags/{flag}");
        let revision = self.send_change(admin, Method::PATCH, &path, Some(body)).await?;
        Some(AcknowledgedWrite { user: None, flag: flag.to_owned(), acknowledged_at: Instant::now(), revision })
    }

    /// Runs concurrent writers. Each change goes to a randomly chosen server. Returns the acknowledged changes.
    pub(crate) async fn run_writers(&self, load: WriteLoad) -> Vec<AcknowledgedWrite> {
        let deadline = Instant::now() + load.duration;
        let run_writer = |number: usize| async move {
            let mut rng = StdRng::seed_from_u64(self.seed * 1_000 + number as u64);
            let admins: Vec<_> = (0..self.servers.len()).map(|server| self.admin(server)).collect();
            let mut writes = Vec::new();
            while Instant::now() < deadline {
                let admin = admins.choose(&mut rng).expect("a server is running");
                let flag = self.flags.choose(&mut rng).expect("flags exist");
                let user = rng.random_range(0..self.users.len());
                let write = match rng.random_range(0..100) {
                    0..5 => self.set_flag_default(admin, flag).await,
                    5..25 => {
                        let path = override_path(&self.users[user].id.to_string(), flag);
                        let revision = self.send_change(admin, Method::DELETE, &path, None).await;
                        let acknowledged_at = Instant::now();
                        revision.map(|revision| AcknowledgedWrite {
                            user: Some(user),
                            flag: flag.clone(),
                            acknowledged_at,
                            revision,
                        })
                    }
                    _ => self.set_override(admin, user, flag).await,
                };
                writes.extend(write);
                if !load.pause.is_zero() {
                    tokio::time::sleep(load.pause).await;
                }
            }
            writes
        };
        futures_util::future::join_all((0..load.writers).map(run_writer)).await.into_iter().flatten().collect()
    }

    /// Changes the flag [`MARKER`]. All streams must deliver this change. Retries for up to 60 seconds.
    pub(crate) async fn write_marker(&self, server: usize) -> AcknowledgedWrite {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            if let Some(write) = self.set_flag_default(&self.admin(server), MARKER).await {
                return write;
            }
            assert!(Instant::now() < deadline, "no write has succeeded within 60 seconds");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Writes the marker, waits until all subscribers have received it, and compares the values of the subscribers with
    /// the responses of all servers.
    pub(crate) async fn check_convergence(&self, report: &mut CaseReport, subscribers: &[Subscriber], server: usize) {
        let started_at = Instant::now();
        let marker = self.write_marker(server).await;
        wait_until("all streams deliver the marker", || subscribers.iter().all(|s| s.revision() >= marker.revision))
            .await;
        report.info("seconds until all streams have the last change", format_seconds(started_at.elapsed()));
        let mut differing = 0;
        for subscriber in subscribers {
            for server in &self.servers {
                let caller = self.user(subscriber.user, &server.base_url);
                let minimum = self.format_revision(marker.revision).await;
                let response =
                    caller.send(Method::GET, "/api/flags/me", &[("Flags-Min-Revision", &minimum)], None).await;
                let flags = response.json()["flags"].as_object().cloned().unwrap_or_default();
                let server_values: BTreeMap<_, _> =
                    flags.into_iter().map(|(name, result)| (name, result["value"].clone())).collect();
                differing += usize::from(server_values != subscriber.state().values);
            }
        }
        report.expect_zero("streams whose values differ from a server's", differing);
    }

    /// Checks that the change log contains all revisions up to its head without a gap.
    pub(crate) async fn check_change_log(&self, report: &mut CaseReport) {
        let mut last_revision = 0;
        let mut gaps = 0;
        loop {
            let read =
                self.core.read(async |conn| flags_store::change_log::read_after(conn, last_revision, 5_000).await);
            let (head, rows) = read.await.expect("change log can be read");
            for commit in rows.chunk_by(|a, b| a.summary.revision == b.summary.revision) {
                gaps += usize::from(commit[0].summary.revision != last_revision + 1);
                last_revision = commit[0].summary.revision;
            }
            if rows.is_empty() {
                gaps += usize::from(head.number != last_revision);
                break;
            }
        }
        report.info("revisions in the change log", last_revision);
        report.expect_zero("gaps in the change log", gaps);
    }

    /// Returns the revision as `<epoch>:<number>`.
    async fn format_revision(&self, number: i64) -> String {
        let head = self.core.read(async |conn| flags_store::change_log::head(conn).await).await;
        flags_store::change_log::Revision { number, ..head.expect("head of the change log can be read") }.to_string()
    }

    /// Checks that each stream delivered each change that affects its user, in order. Reports the delays.
    pub(crate) fn check_delivery(
        &self,
        report: &mut CaseReport,
        writes: &[AcknowledgedWrite],
        subscribers: &[Subscriber],
    ) {
        let (mut delivered, mut missed, mut delays) = (0, 0, Vec::new());
        for subscriber in subscribers {
            let state = subscriber.state();
            for write in writes.iter().filter(|write| write.user.is_none_or(|user| user == subscriber.user)) {
                match state.first_event_at_revision(write.revision) {
                    Some(event) if event.kind == EventKind::Snapshot || event.flag_names.contains(&write.flag) => {
                        delivered += 1;
                        let delay = event.received_at.saturating_duration_since(write.acknowledged_at);
                        delays.push(delay.as_secs_f64() * 1e3);
                    }
                    _ => missed += 1,
                }
            }
        }
        let out_of_order = subscribers.iter().map(|subscriber| subscriber.state().out_of_order).sum();
        report.expect_nonzero("acknowledged changes", writes.len());
        report.expect_nonzero("deliveries of these changes to streams", delivered);
        report.expect_zero("deliveries missed", missed);
        report.expect_zero("events out of order", out_of_order);
        report.print_percentiles("delay from acknowledgement to event", delays);
    }
}

/// Formats a duration in seconds with two decimal places.
pub(crate) fn format_seconds(duration: Duration) -> String {
    format!("{:.2}", duration.as_secs_f64())
}

/// Polls `condition` every 5 milliseconds. Panics with `description` after two minutes.
pub(crate) async fn wait_until(description: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(120);
    while !condition() {
        assert!(Instant::now() < deadline, "timed out waiting for: {description}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
