//! Connection handling for all kinds of event streams: the limit of open streams, heartbeats, revalidation of the
//! credential, and the end of the stream.

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
use flags_service::stream_position::StreamPosition;
use metrics::counter;
use rand::RngExt as _;
use tokio::{
    sync::watch,
    time::{Instant as Moment, sleep_until},
};

use super::event::{ByeReason, StreamBye, StreamHeartbeat, write_event, write_retry};
use crate::{
    auth::{Credential, StreamSubject},
    json::to_json,
    metrics::STREAM_EVENTS,
    problem::Problem,
    state::App,
};

/// Range of the random delay before a stream retries a failed user lookup.
const USER_RETRY_DELAY: (Duration, Duration) = (Duration::from_millis(500), Duration::from_millis(1_500));

/// Interval for revalidating a credential on an open stream. Applies to sessions, whose end the replica does not
/// report, and to all credentials while the replica's users and tokens are outdated.
const REVALIDATION_INTERVAL: Duration = Duration::from_secs(1);

/// State of one subscriber's connection.
pub(crate) struct Connection {
    pub(super) app: Data<App>,
    subject: StreamSubject,
    credential: Credential,
    ready: watch::Receiver<bool>,
    heartbeat_at: Moment,
    /// Time of the last periodic validation of the credential.
    revalidated_at: Moment,
    /// Value of `Replica::credential_updates` at the last validation. A different value means that users or tokens
    /// changed, so the credential must be validated again.
    credential_updates: u64,
    max_age_at: Moment,
    /// Value of `stale` in the last snapshot or heartbeat.
    reported_stale: bool,
    has_written: bool,
    is_ended: bool,
    open: Arc<AtomicUsize>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Action that a connection requires before the next pull.
pub(super) enum PendingAction {
    Nothing,
    /// Pull, then send a heartbeat.
    Heartbeat,
    /// Send this last event and end the stream.
    End(String),
    /// The stream has ended.
    Ended,
}

impl PendingAction {
    pub(super) const fn is_heartbeat(&self) -> bool {
        matches!(self, Self::Heartbeat)
    }
}

impl Connection {
    /// Counts the stream as open. Fails with 503 if the limit is reached or the server is shutting down.
    pub(super) fn open(app: &Data<App>, subject: StreamSubject, credential: Credential) -> Result<Self, Problem> {
        let limits = &app.settings.stream_limits;
        let open = Arc::clone(app.open_streams.counter(subject.kind()));
        open.fetch_add(1, Ordering::Relaxed);
        let max_age = rand::rng().random_range(limits.max_age.0..=limits.max_age.1);
        let now = Moment::now();
        let this = Self {
            app: app.clone(),
            subject,
            credential,
            ready: app.readiness(),
            heartbeat_at: now + limits.heartbeat,
            revalidated_at: now,
            credential_updates: app.evaluation.replica().credential_updates(),
            max_age_at: now + max_age,
            reported_stale: false,
            has_written: false,
            is_ended: false,
            open,
        };
        if app.open_streams.total() > limits.max_streams {
            let detail = "this server has reached its maximum number of event streams; retry later";
            return Err(Problem::unavailable("too_many_streams", detail, "5"));
        }
        if !*this.ready.borrow() {
            let detail = "this server is shutting down; retry to reach another server";
            return Err(Problem::unavailable("shutting_down", detail, "1"));
        }
        Ok(this)
    }

    /// Returns the stream's credential. Every pull must validate it against the replica.
    pub(super) const fn credential(&self) -> &Credential {
        &self.credential
    }

    /// Returns the action that is due. Validates the credential and its permission before each heartbeat, after updates
    /// of users and tokens, and at [`revalidate_at`](Self::revalidate_at).
    pub(super) async fn pending_action(&mut self) -> PendingAction {
        if self.is_ended {
            return PendingAction::Ended;
        }
        if !*self.ready.borrow() {
            return PendingAction::End(self.end(ByeReason::Shutdown));
        }
        let now = Moment::now();
        if now >= self.max_age_at {
            return PendingAction::End(self.end(ByeReason::MaxAge));
        }
        if now >= self.heartbeat_at {
            self.heartbeat_at = now + self.app.settings.stream_limits.heartbeat;
            if !self.is_allowed().await {
                return PendingAction::End(self.end(ByeReason::Revoked));
            }
            return PendingAction::Heartbeat;
        }
        let credential_updates = self.app.evaluation.replica().credential_updates();
        let has_updates = std::mem::replace(&mut self.credential_updates, credential_updates) != credential_updates;
        if has_updates || self.revalidate_at().is_some_and(|at| now >= at) {
            self.revalidated_at = now;
            if !self.is_allowed().await {
                return PendingAction::End(self.end(ByeReason::Revoked));
            }
        }
        // Report a change of `stale` immediately.
        if self.app.evaluation.replica().is_stale() != self.reported_stale {
            PendingAction::Heartbeat
        } else {
            PendingAction::Nothing
        }
    }

    /// Returns the time of the next periodic validation. `None` if the replica reports when the credential
    /// becomes invalid.
    fn revalidate_at(&self) -> Option<Moment> {
        let is_periodic = self.credential.needs_periodic_check() || self.app.credential_confirmation.is_needed();
        is_periodic.then(|| self.revalidated_at + REVALIDATION_INTERVAL)
    }

    /// Whether the caller may still read the stream. May query the database.
    pub(super) async fn is_allowed(&self) -> bool {
        // Boxed because the future is large and would otherwise be part of every stream's future.
        Box::pin(self.credential.is_still_allowed(self.subject, &self.app)).await
    }

    /// Ends the stream. Returns its last event, which names the reason.
    pub(super) fn end(&mut self, reason: ByeReason) -> String {
        self.is_ended = true;
        let mut out = String::new();
        self.write(&mut out, "bye", None, &to_json(&StreamBye { reason }));
        out
    }

    /// Appends an event and counts it.
    pub(super) fn write(&mut self, out: &mut String, event: &'static str, id: Option<&StreamPosition>, data: &str) {
        if !std::mem::replace(&mut self.has_written, true) {
            let (min, max) = self.app.settings.stream_limits.retry_millis;
            write_retry(out, rand::rng().random_range(min..=max));
        }
        write_event(out, event, id, data);
        counter!(STREAM_EVENTS, "kind" => self.subject.kind().label(), "event" => event).increment(1);
    }

    /// Whether any event was written.
    pub(super) const fn has_written(&self) -> bool {
        self.has_written
    }

    /// Appends a heartbeat.
    pub(super) fn write_heartbeat(&mut self, out: &mut String, position: &StreamPosition) {
        let stale = self.app.evaluation.replica().is_stale();
        self.reported_stale = stale;
        let data = StreamHeartbeat { revision: position.revision.to_string(), stale };
        self.write(out, "heartbeat", Some(position), &to_json(&data));
    }

    /// Stores the value of `stale` that a snapshot reported.
    pub(super) const fn set_reported_stale(&mut self, stale: bool) {
        self.reported_stale = stale;
    }

    /// Waits for a random delay before a retry, or until an action of the connection is due.
    pub(super) async fn wait_before_retry(&mut self) {
        let delay = rand::rng().random_range(USER_RETRY_DELAY.0..=USER_RETRY_DELAY.1);
        self.wait(pin!(tokio::time::sleep(delay)), None).await;
    }

    /// Waits until an action of the connection is due, `wakeup` completes, `until` is reached or the credential
    /// expires.
    ///
    /// `wakeup` is a pinned reference, because a future passed by value would occupy space twice in every stream's
    /// future.
    pub(super) async fn wait(&mut self, wakeup: Pin<&mut impl Future<Output = ()>>, until: Option<Instant>) {
        let evaluation = &self.app.evaluation;
        let credential_expires_at = self.credential.expires_at(&evaluation.replica().read());
        let until = until.into_iter().chain(credential_expires_at).min();
        let instant_reached = async {
            match until {
                Some(until) => evaluation.wait_until(until).await,
                None => std::future::pending().await,
            }
        };
        let action_at = self.revalidate_at().unwrap_or(self.heartbeat_at).min(self.heartbeat_at).min(self.max_age_at);
        tokio::select! {
            () = wakeup => {}
            () = instant_reached => {}
            () = sleep_until(action_at) => {}
            // `wait_for` cannot fail: the sender belongs to `App`, which this connection holds.
            _ = self.ready.wait_for(|ready| !ready) => {}
        }
    }
}
