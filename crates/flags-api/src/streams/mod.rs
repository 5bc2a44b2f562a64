//! Streams of server-sent events: one of a user's own flag values, one of all changes for admins.
//!
//! A stream holds a position, no copies: when it is woken and its client reads, it pulls what is new from the replica and
//! evaluates that, now. A client that does not read is not written for; the socket's limits end it.

mod changes;
mod connection;
mod event;
mod own_flags;

pub use self::connection::StreamLimits;
pub(crate) use self::{
    changes::{ChangeEvent, ChangeStream},
    connection::{OpenStreams, limit_sockets},
    own_flags::OwnFlagStream,
};

use actix_web::{HttpResponse, http::header, web::Bytes};
use flags_service::cursor::Cursor;
use futures_util::stream;

/// Something that writes events until it ends.
pub(crate) trait EventStream: Sized + 'static {
    /// The next events, as soon as there are any; `None` at the end.
    fn next(&mut self) -> impl Future<Output = Option<Bytes>>;

    /// The answer that carries this stream.
    fn into_response(self) -> HttpResponse {
        let events = stream::unfold(self, |mut this| async move {
            let events = this.next().await?;
            Some((Ok::<_, std::convert::Infallible>(events), this))
        });
        head().streaming(events)
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
