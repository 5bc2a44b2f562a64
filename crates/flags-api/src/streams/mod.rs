//! Event streams (server-sent events): a user's own flag values, all changes for admins, support and viewers, and
//! refetch events for OpenFeature providers.
//!
//! A stream stores its position instead of a queue of events. When it is woken and its client is ready to read, it
//! pulls the changes since that position from the replica and evaluates them. For a client that does not read, the
//! server produces no events, and the TCP user timeout closes its connection.

mod changes;
mod connection;
mod evaluations;
mod event;
mod own_flags;

pub(crate) use self::{
    changes::{ChangeEvent, ChangeStream},
    evaluations::EvaluationStream,
    event::{StreamBye, StreamHeartbeat},
    own_flags::OwnFlagStream,
};

use actix_web::{HttpResponse, http::header, web::Bytes};
use flags_domain::Instant;
use flags_service::{
    notifier::Subscription,
    replica::{ChangesSince, ReplicaSnapshot, View},
    stream_position::StreamPosition,
};
use futures_util::stream;
use uuid::Uuid;

use self::{
    connection::{Connection, PendingAction},
    event::ByeReason,
};

/// Event stream of one client.
pub(crate) trait EventStream: Sized + 'static {
    fn connection(&mut self) -> &mut Connection;

    /// Marks all notifications so far as seen, so that only later ones wake the stream.
    fn mark_seen(&mut self);

    /// Appends the events since the client's position.
    fn pull(&mut self, out: &mut String) -> impl Future<Output = PullOutcome>;

    /// Returns the client's position; `None` before its first event.
    fn position(&self) -> Option<StreamPosition>;

    /// Waits for a notification, for a time at which values can change, or for an action of the connection. `blocked`
    /// means that the last pull returned [`PullOutcome::Blocked`].
    fn wait(&mut self, blocked: bool) -> impl Future<Output = ()>;

    /// Builds the HTTP response that streams the events.
    fn into_response(self) -> HttpResponse {
        let events = stream::unfold(self, |mut this| async move {
            let events = next_events(&mut this).await?;
            Some((Ok::<_, std::convert::Infallible>(events), this))
        });
        response_head().streaming(events)
    }
}

/// Result of a pull.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PullOutcome {
    /// All events were appended.
    UpToDate,
    /// A batch was appended; further events are available.
    More,
    /// The events cannot be determined, because the database is unavailable.
    Blocked,
    /// The credential or its permission is no longer valid.
    Revoked,
}

/// Waits for the next events. Returns `None` at the end of the stream.
async fn next_events(stream: &mut impl EventStream) -> Option<Bytes> {
    loop {
        let pending_action = match stream.connection().pending_action().await {
            PendingAction::Ended => return None,
            PendingAction::End(last_event) => return Some(last_event.into()),
            pending_action => pending_action,
        };
        stream.mark_seen();
        let mut out = String::new();
        let outcome = stream.pull(&mut out).await;
        if outcome == PullOutcome::Revoked {
            return Some(stream.connection().end(ByeReason::Revoked).into());
        }
        // A client that resumes without missed events gets a heartbeat at once, as confirmation.
        let resumed_without_events =
            outcome == PullOutcome::UpToDate && out.is_empty() && !stream.connection().has_written();
        // A blocked stream also sends heartbeats; they repeat its last position.
        let is_heartbeat_due = pending_action.is_heartbeat() && outcome != PullOutcome::More;
        if let Some(position) = stream.position().filter(|_| resumed_without_events || is_heartbeat_due) {
            stream.connection().write_heartbeat(&mut out, &position);
        }
        if !out.is_empty() {
            return Some(out.into());
        }
        stream.wait(outcome == PullOutcome::Blocked).await;
    }
}

/// User of a stream, with the position up to which the client has received events.
struct StreamSubscriber<'s> {
    user_id: Uuid,
    position: Option<StreamPosition>,
    /// Generation (number of reloads) of the replica at the last pull. `None` before the first pull.
    generation: Option<u64>,
    subscription: &'s Subscription,
}

impl StreamSubscriber<'_> {
    /// Releases the view's lock. Returns a snapshot, and the changes since the client's position that may affect the
    /// user at `now`. The changes are `None` if they are unknown; the client must then reload everything.
    fn changes_up_to(&self, view: View<'_>, now: Instant) -> (ReplicaSnapshot, Option<ChangesSince>) {
        let user_id = Some(self.user_id);
        let same_generation = self.generation.is_none_or(|generation| generation == view.generation());
        let Some(position) = self.position.filter(|_| same_generation) else {
            return (view.into_snapshot(user_id), None);
        };
        if self.generation.is_some() && self.subscription.last_revision() <= position.revision.number {
            // No commit since the position affects this user, so the recent changes need not be searched.
            let snapshot = view.into_snapshot(user_id);
            let own_flags = snapshot.flags_changed_by_time(position.evaluated_at, now).collect();
            return (snapshot, Some(ChangesSince { own_flags, ..ChangesSince::default() }));
        }
        let commits = view.commits_after(position.revision.number);
        let snapshot = view.into_snapshot(user_id);
        let changes = snapshot.changes_since(&position, commits.as_deref(), now);
        (snapshot, changes)
    }
}

/// Builds the status and headers of an event stream's response.
fn response_head() -> actix_web::HttpResponseBuilder {
    let mut response = HttpResponse::Ok();
    response
        .content_type("text/event-stream")
        .insert_header((header::CACHE_CONTROL, "no-cache"))
        .insert_header((header::VARY, "Authorization, Cookie"))
        // Disables response buffering in nginx.
        .insert_header(("X-Accel-Buffering", "no"));
    response
}

/// Builds the response to HEAD: the headers of the GET response without a body.
pub(crate) fn head_response() -> HttpResponse {
    response_head().finish()
}

/// Parses the client's position. Returns `None` for a malformed position, as for a new client.
pub(crate) fn parse_position(text: Option<&str>) -> Option<StreamPosition> {
    text?.trim().parse().ok()
}
