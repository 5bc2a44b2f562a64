//! Serialization of server-sent events (WHATWG HTML standard, section 9.2).

use std::fmt::Write as _;

use flags_service::stream_position::StreamPosition;
use serde::Serialize;
use utoipa::ToSchema;

/// Keep-alive with the current stream position.
#[derive(Serialize, ToSchema)]
pub(crate) struct StreamHeartbeat {
    /// Current revision, as `<epoch>:<number>`.
    pub(super) revision: String,
    /// Whether the server has been unable to read its database for at least 5 seconds.
    pub(super) stale: bool,
}

/// Last event of a stream. The client should reconnect.
#[derive(Serialize, ToSchema)]
pub(crate) struct StreamBye {
    /// Why the server closes the stream.
    pub(super) reason: ByeReason,
}

/// Why the server closes the stream.
///
/// - `shutdown`: the server is shutting down
/// - `max_age`: the stream has reached its maximum age; reconnecting spreads streams over the servers
/// - `revoked`: the credential is no longer valid, or no longer permits this stream
#[derive(Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ByeReason {
    Shutdown,
    MaxAge,
    Revoked,
}

/// Appends an event. `data` must not contain line feeds; compact JSON has none.
pub(super) fn write_event(out: &mut String, event: &str, id: Option<&StreamPosition>, data: &str) {
    // Writing to a `String` cannot fail.
    let _ = writeln!(out, "event: {event}");
    if let Some(id) = id {
        let _ = writeln!(out, "id: {id}");
    }
    let _ = write!(out, "data: {data}\n\n");
}

/// Appends the client's reconnection delay in milliseconds.
pub(super) fn write_retry(out: &mut String, millis: u64) {
    let _ = write!(out, "retry: {millis}\n\n");
}

#[cfg(test)]
mod tests {
    use flags_domain::Instant;
    use flags_store::change_log::Revision;
    use uuid::Uuid;

    use super::*;

    #[test]
    fn events_follow_the_server_sent_events_format() {
        let revision = Revision { epoch: Uuid::from_u128(1), number: 2 };
        let position = StreamPosition { revision, evaluated_at: Instant::from_micros(3) };
        let mut out = String::new();
        write_retry(&mut out, 1500);
        write_event(&mut out, "change", Some(&position), "{}");
        write_event(&mut out, "bye", None, "{\"reason\":\"shutdown\"}");
        let expected = "retry: 1500\n\nevent: change\nid: 00000000000000000000000000000001:2:3\ndata: {}\n\n\
                        event: bye\ndata: {\"reason\":\"shutdown\"}\n\n";
        assert_eq!(out, expected);
    }
}
