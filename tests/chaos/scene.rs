//! A private database, real servers, users with tokens, flags, and writers that remember what they did.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, Instant},
};

use flags_service::{
    Core, SystemClock,
    credentials::tokens::{NewToken, TokenService},
    users::{NewUser, UserService},
};
use flags_store::{Author, Store, api_tokens::TokenGrant, users::Role};
use flags_tests::{
    app::override_path,
    caller::Caller,
    cluster::Cluster,
    database::{Database, Kind, create_database},
    process::{RunningProcess, stdout_of},
    proxy::{Proxy, Target},
};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{follower::Follower, journal::Journal, verdict::Verdict};

/// A flag that writers leave alone, to mark the end by.
pub(crate) const MARKER: &str = "marker";

/// Somebody with a stream.
pub(crate) struct User {
    pub(crate) id: Uuid,
    pub(crate) token: String,
}

/// Everything a case plays in.
pub(crate) struct Scene {
    pub(crate) url: String,
    pub(crate) cluster: Option<Cluster>,
    _database: Option<Database>,
    pub(crate) core: Core,
    pub(crate) servers: Vec<RunningProcess>,
    pub(crate) admin_token: String,
    pub(crate) users: Vec<User>,
    pub(crate) flags: Vec<String>,
    has_flags: bool,
    pub(crate) journal: Arc<Journal>,
    pub(crate) seed: u64,
    /// Every written value is another one, so that every write changes something.
    values: AtomicI64,
}

/// A change that was acknowledged.
#[derive(Clone, Debug)]
pub(crate) struct Write {
    /// Whose override; everybody's flag if `None`.
    pub(crate) user: Option<usize>,
    pub(crate) flag: String,
    pub(crate) acked_at: Instant,
    pub(crate) revision: i64,
}

/// How writers go about it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Style {
    pub(crate) writers: usize,
    pub(crate) time: Duration,
    /// Pause between a writer's changes.
    pub(crate) pause: Duration,
}

pub(crate) fn author() -> Author {
    Author { actor: "system:chaos".to_owned(), request_id: None }
}

impl Scene {
    /// A database with users and flags, and no server yet.
    pub(crate) async fn new(case: &str, kind: Kind, users: usize, flags: usize, seed: u64) -> Self {
        let (cluster, database, url) = match kind {
            Kind::Postgres => {
                let cluster = Cluster::start(&[]);
                let url = create_database(&cluster, "template0").await;
                (Some(cluster), None, url)
            }
            Kind::Sqlite => {
                let database = Database::empty(Kind::Sqlite).await;
                let url = database.url.clone();
                (None, Some(database), url)
            }
        };
        stdout_of("server", &["migrate", "--database-url", &url]);
        let store = Store::open(&url.parse().expect("a URL")).await.expect("the database opens");
        let core = Core::new(store, Arc::new(SystemClock::default()));
        let mut scene = Self {
            url,
            cluster,
            _database: database,
            core,
            servers: Vec::new(),
            admin_token: String::new(),
            users: Vec::new(),
            flags: (0..flags).map(|number| format!("flag{number}")).collect(),
            has_flags: false,
            journal: Arc::new(Journal::new(case)),
            seed,
            values: AtomicI64::new(1),
        };
        scene.admin_token = scene.token(TokenGrant::Role(Role::Admin), None).await;
        for number in 0..users {
            let input = NewUser {
                email: format!("user{number}@example.com"),
                display_name: None,
                role: Role::User,
                attributes: serde_json::Map::new(),
                active: true,
                password: None,
            };
            let made = UserService::new(scene.core.clone()).create(author(), input).await.expect("a user");
            let id = made.output.record.id;
            scene.users.push(User { id, token: scene.token(TokenGrant::Role(Role::User), Some(id)).await });
        }
        scene
    }

    async fn token(&self, grant: TokenGrant, user_id: Option<Uuid>) -> String {
        let input = NewToken { name: "chaos".to_owned(), grant, user_id, expires_at: None };
        let done = TokenService::new(self.core.clone()).create(author(), input).await.expect("a token");
        done.output.secret.reveal().to_owned()
    }

    /// Starts servers on this URL of the database.
    pub(crate) async fn serve(&mut self, url: &str, count: usize) {
        // The writers share one credential, and ask as fast as they can.
        let arguments = ["--database-url", url, "--rate-limit", "0", "--evaluation-rate-limit", "0"];
        self.servers.extend((0..count).map(|_| RunningProcess::start("server", &arguments)));
        if !std::mem::replace(&mut self.has_flags, true) {
            for flag in self.flags.iter().map(String::as_str).chain([MARKER]) {
                let body = json!({"name": flag, "flag_type": "number", "variants": [{"id": "v", "value": 0}],
                    "default": {"variant": "v"}, "off_variant": "v"});
                self.admin(0).post("/api/admin/feature-flags", &body).await.expect(201);
            }
        }
    }

    /// The same on the database itself.
    pub(crate) async fn serve_directly(&mut self, count: usize) {
        let url = self.url.clone();
        self.serve(&url, count).await;
    }

    /// Starts a server that reaches PostgreSQL through a proxy.
    pub(crate) async fn serve_through_a_proxy(&mut self) -> Proxy {
        let socket = self.cluster.as_ref().expect("PostgreSQL").socket();
        let proxy = Proxy::start(Target::Unix(socket)).await;
        let database = self.url.rsplit('/').next().expect("a database").to_owned();
        self.serve(&format!("postgres://postgres@{}/{database}", proxy.address), 1).await;
        proxy
    }

    pub(crate) fn admin(&self, server: usize) -> Caller {
        self.servers[server].caller(&self.admin_token)
    }

    pub(crate) fn user(&self, user: usize, base: &str) -> Caller {
        Caller::new(base, Some(&self.users[user].token))
    }

    /// A stream of a user, at this address; and it has begun.
    pub(crate) async fn follow(&self, user: usize, base: &str) -> Follower {
        let caller = self.user(user, base);
        let follower = Follower::start(user, caller, Arc::clone(&self.journal), self.seed + user as u64);
        wait("a stream begins", || follower.has_begun()).await;
        follower
    }

    /// A value that was never written before.
    pub(crate) fn fresh_value(&self) -> i64 {
        self.values.fetch_add(1, Ordering::Relaxed)
    }

    /// Sends a change and notes it before; the revision it got if it was acknowledged and changed something.
    pub(crate) async fn change(&self, admin: &Caller, method: Method, path: &str, body: Option<Value>) -> Option<i64> {
        self.journal.write("request", json!({"method": method.as_str(), "path": path, "body": body}));
        let bytes = body.map(|body| body.to_string().into_bytes());
        let reply = admin.try_send(method, path, &[("content-type", "application/json")], bytes).await.ok()?;
        let revision = reply.header("flags-revision").split(':').nth(1).and_then(|number| number.parse().ok());
        self.journal.write("answer", json!({"path": path, "status": reply.status.as_u16(), "revision": revision}));
        reply.status.is_success().then_some(revision)?
    }

    /// Sets an override to a fresh value.
    pub(crate) async fn set(&self, admin: &Caller, user: usize, flag: &str) -> Option<Write> {
        let path = override_path(&self.users[user].id.to_string(), flag);
        let body = json!({"override_value": self.fresh_value()});
        let revision = self.change(admin, Method::PUT, &path, Some(body)).await?;
        Some(Write { user: Some(user), flag: flag.to_owned(), acked_at: Instant::now(), revision })
    }

    /// Gives a flag a fresh default for everybody.
    pub(crate) async fn set_default(&self, admin: &Caller, flag: &str) -> Option<Write> {
        let body = json!({"variants": [{"id": "v", "value": self.fresh_value()}]});
        let revision =
            self.change(admin, Method::PATCH, &format!("/api/admin/feature-flags/{flag}"), Some(body)).await?;
        Some(Write { user: None, flag: flag.to_owned(), acked_at: Instant::now(), revision })
    }

    /// Writers at random servers; what was acknowledged.
    pub(crate) async fn write(&self, style: Style) -> Vec<Write> {
        let until = Instant::now() + style.time;
        let writer = |number: usize| async move {
            let mut rng = StdRng::seed_from_u64(self.seed * 1_000 + number as u64);
            let admins: Vec<_> = (0..self.servers.len()).map(|server| self.admin(server)).collect();
            let mut writes = Vec::new();
            while Instant::now() < until {
                let admin = admins.choose(&mut rng).expect("a server");
                let flag = self.flags.choose(&mut rng).expect("a flag");
                let user = rng.random_range(0..self.users.len());
                let write = match rng.random_range(0..100) {
                    0..5 => self.set_default(admin, flag).await,
                    5..25 => {
                        let path = override_path(&self.users[user].id.to_string(), flag);
                        let revision = self.change(admin, Method::DELETE, &path, None).await;
                        let acked_at = Instant::now();
                        revision.map(|revision| Write { user: Some(user), flag: flag.clone(), acked_at, revision })
                    }
                    _ => self.set(admin, user, flag).await,
                };
                writes.extend(write);
                if !style.pause.is_zero() {
                    tokio::time::sleep(style.pause).await;
                }
            }
            writes
        };
        futures_util::future::join_all((0..style.writers).map(writer)).await.into_iter().flatten().collect()
    }

    /// A last change that every stream must be told of.
    pub(crate) async fn mark_end(&self, server: usize) -> Write {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            if let Some(write) = self.set_default(&self.admin(server), MARKER).await {
                return write;
            }
            assert!(Instant::now() < deadline, "no write succeeds");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until all have the last change, and compares what they have with what the servers answer.
    pub(crate) async fn converge(&self, verdict: &mut Verdict, followers: &[Follower], server: usize) {
        let begun = Instant::now();
        let end = self.mark_end(server).await;
        wait("all streams have the last change", || followers.iter().all(|f| f.revision() >= end.revision)).await;
        verdict.tell("seconds to converge", format!("{:.2}", begun.elapsed().as_secs_f64()));
        let mut differing = 0;
        for follower in followers {
            for server in &self.servers {
                let mine = self.user(follower.user, &server.base_url);
                let minimum = self.revision_text(end.revision).await;
                let reply = mine.send(Method::GET, "/api/flags/me", &[("Flags-Min-Revision", &minimum)], None).await;
                let flags = reply.json()["flags"].as_object().cloned().unwrap_or_default();
                let theirs: std::collections::BTreeMap<_, _> =
                    flags.into_iter().map(|(name, result)| (name, result["value"].clone())).collect();
                differing += usize::from(theirs != follower.look().values);
            }
        }
        verdict.never("streams that differ from a server's answer", differing);
    }

    /// Whether the log has every revision up to its head, each once.
    pub(crate) async fn check_log(&self, verdict: &mut Verdict) {
        let mut at = 0;
        let mut gaps = 0;
        loop {
            let read = self.core.read(async |conn| flags_store::change_log::read_after(conn, at, 5_000).await);
            let (head, rows) = read.await.expect("the log can be read");
            for commit in rows.chunk_by(|a, b| a.summary.revision == b.summary.revision) {
                gaps += usize::from(commit[0].summary.revision != at + 1);
                at = commit[0].summary.revision;
            }
            if rows.is_empty() {
                gaps += usize::from(head.number != at);
                break;
            }
        }
        verdict.tell("revisions in the log", at);
        verdict.never("holes in the log", gaps);
    }

    async fn revision_text(&self, number: i64) -> String {
        let head =
            self.core.read(async |conn| flags_store::change_log::head(conn).await).await.expect("the database answers");
        flags_store::change_log::Revision { number, ..head }.to_string()
    }

    /// Whether each stream was told of each change that concerned it, in order, and how long that took.
    pub(crate) fn check(&self, verdict: &mut Verdict, writes: &[Write], followers: &[Follower]) {
        let (mut covered, mut missed, mut delays) = (0, 0, Vec::new());
        for follower in followers {
            let followed = follower.look();
            for write in writes.iter().filter(|write| write.user.is_none_or(|user| user == follower.user)) {
                match followed.covering(write.revision) {
                    Some(seen) if seen.kind == crate::follower::Kind::Snapshot || seen.names.contains(&write.flag) => {
                        covered += 1;
                        delays.push(seen.at.saturating_duration_since(write.acked_at).as_secs_f64() * 1e3);
                    }
                    _ => missed += 1,
                }
            }
        }
        let disorders = followers.iter().map(|follower| follower.look().disorders).sum();
        verdict.some("changes acknowledged", writes.len());
        verdict.some("changes covered by what streams were sent", covered);
        verdict.never("changes missed by a stream", missed);
        verdict.never("events out of order", disorders);
        verdict.spread("from acknowledgement to event", delays);
    }
}

/// Waits for a condition; panics after two minutes.
pub(crate) async fn wait(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(120);
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
