//! What every stream has: a place among the open ones, a heartbeat, a credential that must stay valid, and an end.

use std::{
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use actix_web::web::Data;
use flags_domain::Instant;
use metrics::{counter, gauge};
use rand::RngExt as _;
use tokio::{
    sync::watch,
    time::{Instant as Moment, sleep_until},
};

use super::event::{write_event, write_retry};
use crate::{
    app::App,
    auth::{Credential, Follows},
    metrics::{STREAM_EVENTS, STREAMS_OPEN},
    problem::Problem,
};

/// Between which waits a stream tries again to look its user up.
const TRY_AGAIN: (Duration, Duration) = (Duration::from_millis(500), Duration::from_millis(1_500));

/// How often a credential is looked at that can end without a sign.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How streams are bounded.
#[derive(Clone, Debug)]
pub struct StreamLimits {
    /// Most streams at once.
    pub most: usize,
    /// Time between heartbeats.
    pub heartbeat: Duration,
    /// Ages between which streams end; clients connect again and spread over the servers.
    pub age: (Duration, Duration),
    /// Between which waits before they connect again clients are told to choose, in milliseconds.
    pub retry: (u64, u64),
}

impl Default for StreamLimits {
    fn default() -> Self {
        Self {
            most: 20_000,
            heartbeat: Duration::from_secs(15),
            age: (Duration::from_secs(30 * 60), Duration::from_secs(60 * 60)),
            retry: (500, 3_000),
        }
    }
}

/// The streams of this process.
#[derive(Clone, Debug, Default)]
pub(crate) struct OpenStreams {
    own_flags: Arc<AtomicUsize>,
    changes: Arc<AtomicUsize>,
    evaluations: Arc<AtomicUsize>,
}

impl OpenStreams {
    fn of(&self, follows: Follows) -> &Arc<AtomicUsize> {
        match follows {
            Follows::OwnFlags => &self.own_flags,
            Follows::Changes => &self.changes,
            Follows::Evaluations(_) => &self.evaluations,
        }
    }

    fn all(&self) -> usize {
        [&self.own_flags, &self.changes, &self.evaluations].map(|open| open.load(Ordering::Relaxed)).iter().sum()
    }

    /// Sets the gauge anew, as the exporter drops what is not.
    #[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^53")]
    pub(crate) fn show(&self) {
        for follows in [Follows::OwnFlags, Follows::Changes, Follows::Evaluations(None)] {
            gauge!(STREAMS_OPEN, "kind" => kind(follows)).set(self.of(follows).load(Ordering::Relaxed) as f64);
        }
    }
}

const fn kind(follows: Follows) -> &'static str {
    match follows {
        Follows::OwnFlags => "user",
        Follows::Changes => "admin",
        Follows::Evaluations(_) => "ofrep",
    }
}

/// One client's connection.
pub(crate) struct Connection {
    pub(super) app: Data<App>,
    follows: Follows,
    credential: Credential,
    ready: watch::Receiver<bool>,
    heartbeat_at: Moment,
    /// When the credential must be looked at again, if it can end without a sign.
    look_at: Option<Moment>,
    ends_at: Moment,
    /// Whether the client was last told that answers are stale.
    told_stale: bool,
    begun: bool,
    ended: bool,
    open: Arc<AtomicUsize>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What a connection wants before anything else.
pub(super) enum Due {
    /// Nothing.
    Nothing,
    /// A heartbeat, after what is new.
    Heartbeat,
    /// The end; holds the last event.
    End(String),
    /// Nothing ever again.
    Ended,
}

impl Due {
    pub(super) const fn is_heartbeat(&self) -> bool {
        matches!(self, Self::Heartbeat)
    }
}

impl Connection {
    /// Takes a place among the open streams, if there is one.
    pub(super) fn open(app: &Data<App>, follows: Follows, credential: Credential) -> Result<Self, Problem> {
        let limits = &app.settings.streams;
        let open = Arc::clone(app.streams.of(follows));
        open.fetch_add(1, Ordering::Relaxed);
        let age = rand::rng().random_range(limits.age.0..=limits.age.1);
        let now = Moment::now();
        let this = Self {
            app: app.clone(),
            follows,
            credential,
            ready: app.readiness(),
            heartbeat_at: now + limits.heartbeat,
            look_at: credential.ends_silently().then(|| now + LOOK_EVERY),
            ends_at: now + age,
            told_stale: false,
            begun: false,
            ended: false,
            open,
        };
        if app.streams.all() > limits.most {
            return Err(Problem::unavailable("too_many_streams", "this server has all the streams it can have", "5"));
        }
        if !*this.ready.borrow() {
            return Err(Problem::unavailable("shutting_down", "this server is stopping; another one answers", "1"));
        }
        Ok(this)
    }

    /// The credential, for a look at every pull.
    pub(super) const fn credential(&self) -> &Credential {
        &self.credential
    }

    /// What is due. The credential is looked at in full at every heartbeat.
    pub(super) async fn due(&mut self) -> Due {
        if self.ended {
            return Due::Ended;
        }
        if !*self.ready.borrow() {
            return Due::End(self.end("shutdown"));
        }
        let now = Moment::now();
        if now >= self.ends_at {
            return Due::End(self.end("max_age"));
        }
        if now >= self.heartbeat_at {
            self.heartbeat_at = now + self.app.settings.streams.heartbeat;
            if !self.is_allowed().await {
                return Due::End(self.end("revoked"));
            }
            return Due::Heartbeat;
        }
        if self.look_at.is_some_and(|at| now >= at) {
            self.look_at = Some(now + LOOK_EVERY);
            if !self.is_allowed().await {
                return Due::End(self.end("revoked"));
            }
        }
        // Whoever holds old values should know at once.
        if self.app.evaluation.replica().is_stale() != self.told_stale { Due::Heartbeat } else { Due::Nothing }
    }

    /// Whether the client may still follow, looked up now.
    pub(super) async fn is_allowed(&self) -> bool {
        // On the heap while it lasts: every stream would carry room for it all its life.
        Box::pin(self.credential.still_allows(self.follows, &self.app)).await
    }

    /// The last event, for this reason.
    pub(super) fn end(&mut self, reason: &'static str) -> String {
        self.ended = true;
        let mut out = String::new();
        self.write(&mut out, "bye", None, &format!("{{\"reason\":\"{reason}\"}}"));
        out
    }

    /// Appends an event and counts it.
    pub(super) fn write(
        &mut self,
        out: &mut String,
        event: &'static str,
        id: Option<&flags_service::cursor::Cursor>,
        data: &str,
    ) {
        if !std::mem::replace(&mut self.begun, true) {
            let (least, most) = self.app.settings.streams.retry;
            write_retry(out, rand::rng().random_range(least..=most));
        }
        write_event(out, event, id, data);
        counter!(STREAM_EVENTS, "kind" => kind(self.follows), "event" => event).increment(1);
    }

    /// Whether the client has been sent anything.
    pub(super) const fn has_begun(&self) -> bool {
        self.begun
    }

    /// Appends a heartbeat.
    pub(super) fn write_heartbeat(&mut self, out: &mut String, at: &flags_service::cursor::Cursor) {
        let stale = self.app.evaluation.replica().is_stale();
        self.told_stale = stale;
        let data = format!("{{\"revision\":\"{}\",\"stale\":{stale}}}", at.revision);
        self.write(out, "heartbeat", Some(at), &data);
    }

    /// Notes what a snapshot said of staleness.
    pub(super) const fn told(&mut self, stale: bool) {
        self.told_stale = stale;
    }

    /// Waits for a moment before something is tried again that could not be done, or until something is due.
    pub(super) async fn wait_to_try_again(&mut self) {
        let again = rand::rng().random_range(TRY_AGAIN.0..=TRY_AGAIN.1);
        self.wait(pin!(tokio::time::sleep(again)), None).await;
    }

    /// Waits until something is due, `woken` is over, the instant `until` has come or the credential ends. `woken` is a
    /// reference, as every stream would have room twice for what is given by value.
    pub(super) async fn wait(&mut self, woken: Pin<&mut impl Future<Output = ()>>, until: Option<Instant>) {
        let evaluation = &self.app.evaluation;
        let end = self.credential.ends_at(&evaluation.replica().read());
        let until = until.into_iter().chain(end).min();
        let moved = async {
            match until {
                Some(until) => evaluation.wait_until(until).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = woken => {}
            () = moved => {}
            () = sleep_until(self.look_at.unwrap_or(self.heartbeat_at).min(self.heartbeat_at).min(self.ends_at)) => {}
            // The sender is the application's.
            _ = self.ready.wait_for(|ready| !ready) => {}
        }
    }
}
