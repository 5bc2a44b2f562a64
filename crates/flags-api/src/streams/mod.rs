//! Streams of server-sent events: one of a user's own flag values, one of all changes for admins, one that tells providers of
//! OpenFeature to ask again.
//!
//! A stream holds a position, no copies: when it is woken and its client reads, it pulls what is new from the replica and
//! evaluates that, now. A client that does not read is not written for; the socket's limits end it.

mod changes;
mod connection;
mod evaluations;
mod event;
mod own_flags;

pub use self::connection::StreamLimits;
pub(crate) use self::{
    changes::{ChangeEvent, ChangeStream},
    connection::OpenStreams,
    evaluations::EvaluationStream,
    own_flags::OwnFlagStream,
};

use actix_web::{HttpResponse, http::header, web::Bytes};
use flags_domain::Instant;
use flags_service::{
    cursor::Cursor,
    notifier::Subscription,
    replica::{ChangesSince, View},
};
use futures_util::stream;
use uuid::Uuid;

use self::connection::{Connection, Due};

/// Something that pulls events for one client.
pub(crate) trait EventStream: Sized + 'static {
    /// What it has in common with all streams.
    fn connection(&mut self) -> &mut Connection;

    /// Marks all signals as heard: from here on the next ones count.
    fn hear(&mut self);

    /// Appends what is new for the client.
    fn pull(&mut self, out: &mut String) -> impl Future<Output = Pulled>;

    /// Where the client stands, once it has something.
    fn position(&self) -> Option<Cursor>;

    /// Waits for a signal, an instant, or whatever the connection waits for. `blocked` says that the last pull could not be
    /// done.
    fn wait(&mut self, blocked: bool) -> impl Future<Output = ()>;

    /// The answer that carries this stream.
    fn into_response(self) -> HttpResponse {
        let events = stream::unfold(self, |mut this| async move {
            let events = next(&mut this).await?;
            Some((Ok::<_, std::convert::Infallible>(events), this))
        });
        head().streaming(events)
    }
}

/// What a pull came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pulled {
    /// The client is told everything.
    UpToDate,
    /// There is more, once it has read this.
    More,
    /// It cannot be told for now what the client should have.
    Blocked,
    /// The credential is void.
    Revoked,
}

/// The next events, as soon as there are any; `None` at the end.
async fn next(stream: &mut impl EventStream) -> Option<Bytes> {
    loop {
        let due = match stream.connection().due().await {
            Due::Ended => return None,
            Due::End(bye) => return Some(bye.into()),
            due => due,
        };
        stream.hear();
        let mut out = String::new();
        let pulled = stream.pull(&mut out).await;
        if pulled == Pulled::Revoked {
            return Some(stream.connection().end("revoked").into());
        }
        // A client that goes on where nothing has happened is told so at once.
        let silent = pulled == Pulled::UpToDate && out.is_empty() && !stream.connection().has_begun();
        // One that cannot go on for now lives all the same, where it was.
        let beats = due.is_heartbeat() && pulled != Pulled::More;
        if let Some(at) = stream.position().filter(|_| silent || beats) {
            stream.connection().write_heartbeat(&mut out, &at);
        }
        if !out.is_empty() {
            return Some(out.into());
        }
        stream.wait(pulled == Pulled::Blocked).await;
    }
}

/// Who followed up to where, and by which signals.
struct Follower<'s> {
    user_id: Uuid,
    cursor: Option<Cursor>,
    /// Of the replica at the last look; `None` before the first.
    generation: Option<u64>,
    signals: &'s Subscription,
}

impl Follower<'_> {
    /// What may have changed for them up to this view at `now`; `None` if that cannot be told.
    fn touched(&self, view: &View<'_>, now: Instant) -> Option<ChangesSince> {
        let cursor = self.cursor.filter(|_| self.generation.is_none_or(|before| before == view.generation()))?;
        if self.generation.is_some() && self.signals.touched_at() <= cursor.revision.number {
            // Nothing was committed that concerns them: no need to look, however many commits there were.
            let own = view.moved_by_time(self.user_id, cursor.evaluated_at, now).collect();
            return Some(ChangesSince { own, ..ChangesSince::default() });
        }
        view.changes_since(&cursor, self.user_id, now)
    }
}

/// The head of a stream's answer.
fn head() -> actix_web::HttpResponseBuilder {
    let mut response = HttpResponse::Ok();
    response
        .content_type("text/event-stream")
        .insert_header((header::CACHE_CONTROL, "no-cache"))
        .insert_header((header::VARY, "Authorization, Cookie"))
        // nginx would collect events before it passes them on.
        .insert_header(("X-Accel-Buffering", "no"));
    response
}

/// The answer to HEAD: what a GET would begin with.
pub(crate) fn head_only() -> HttpResponse {
    head().finish()
}

/// Where a client says it stands. What cannot be read is no position: the stream begins anew.
pub(crate) fn read_cursor(text: Option<&str>) -> Option<Cursor> {
    text?.trim().parse().ok()
}
