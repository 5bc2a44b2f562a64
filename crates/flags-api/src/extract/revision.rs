//! Read-your-writes consistency: the server waits until its replica has reached a revision that the caller knows of.
//!
//! Callers send the revision in `Flags-Min-Revision`. OpenFeature providers send the `etag` of a refetch event in
//! `flagConfigEtag` instead.

use std::{
    future::{Ready, ready},
    time::Duration,
};

use actix_web::{FromRequest, HttpRequest, dev::Payload, http::header::HeaderMap};
use flags_domain::{Instant, Violation};
use flags_service::{replica::Replica, stream_position::StreamPosition};
use flags_store::change_log::Revision;

use crate::problem::Problem;

/// Maximum time to wait for the replica to reach the required revision.
const MAX_REVISION_WAIT: Duration = Duration::from_secs(2);

/// Waits until the replica has reached the revision in `Flags-Min-Revision`, if the request has this header.
///
/// Fails with 422 if the header is malformed or names another epoch, and with 503 after [`MAX_REVISION_WAIT`].
pub(crate) async fn wait_for_min_revision(headers: &HeaderMap, replica: &Replica) -> Result<(), Problem> {
    let Some(value) = headers.get("Flags-Min-Revision") else { return Ok(()) };
    let required = value.to_str().ok().and_then(|text| text.parse::<Revision>().ok());
    let required =
        required.ok_or_else(|| invalid_min_revision("must have the format <epoch>:<number>, as in Flags-Revision"))?;
    if replica.revision().epoch != required.epoch {
        let detail = "the epoch is not current because the database was restored; use the latest Flags-Revision";
        return Err(invalid_min_revision(detail));
    }
    wait_for_revision(required, replica).await
}

fn invalid_min_revision(detail: &str) -> Problem {
    Violation::new("/Flags-Min-Revision", "invalid_header", detail).into()
}

async fn wait_for_revision(required: Revision, replica: &Replica) -> Result<(), Problem> {
    if replica.wait_for(required, MAX_REVISION_WAIT).await {
        return Ok(());
    }
    let detail = "this server has not loaded the required revision yet; retry later";
    Err(Problem::unavailable("revision_not_reached", detail, "1"))
}

/// Stream position of the event that made an OpenFeature provider evaluate again, from the query parameter
/// `flagConfigEtag`.
///
/// The server ignores values that it cannot parse, because OFREP allows any text in this parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct EventPosition(Option<(Revision, Option<Instant>)>);

impl EventPosition {
    fn from_query(query: &str) -> Self {
        let mut parameters = form_urlencoded::parse(query.as_bytes());
        let text = parameters.find(|(name, _)| name == "flagConfigEtag").map(|(_, value)| value);
        Self(text.and_then(|text| {
            let text = text.trim_matches('"');
            let position = text.parse::<StreamPosition>().ok();
            let position = position.map(|position| (position.revision, Some(position.evaluated_at)));
            position.or_else(|| Some((text.parse().ok()?, None)))
        }))
    }

    /// Returns the instant to evaluate at: `clock`, but not earlier than the event, because the clock of the server
    /// that sent the event may be ahead (see [`StreamPosition::evaluation_instant`]).
    pub(crate) fn evaluation_instant(self, clock: Instant) -> Instant {
        match self.0 {
            Some((revision, Some(evaluated_at))) => StreamPosition { revision, evaluated_at }.evaluation_instant(clock),
            Some((_, None)) | None => clock,
        }
    }
}

impl FromRequest for EventPosition {
    type Error = Problem;
    type Future = Ready<Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(Ok(Self::from_query(request.query_string())))
    }
}

/// Waits until the replica has reached the revision of the event in `flagConfigEtag`. Ignores events of other epochs.
/// Fails with 503 after [`MAX_REVISION_WAIT`].
pub(crate) async fn wait_for_event_position(query: &str, replica: &Replica) -> Result<(), Problem> {
    match EventPosition::from_query(query).0 {
        Some((required, _)) if required.epoch == replica.revision().epoch => wait_for_revision(required, replica).await,
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn parses_event_positions_and_ignores_malformed_ones() {
        let epoch = Uuid::from_u128(7);
        let (revision, at) = (Revision { epoch, number: 42 }, Instant::from_micros(1_000));
        let position = |query: &str| EventPosition::from_query(query).0;
        let event = format!("{}:42:1000", epoch.simple());
        assert_eq!(
            position(&format!("x=1&flagConfigEtag={event}&flagConfigLastModified=5")),
            Some((revision, Some(at)))
        );
        assert_eq!(position(&format!("flagConfigEtag={}:42", epoch.simple())), Some((revision, None)));
        assert_eq!(position(&format!("flagConfigEtag=%22{}%3A42%22", epoch.simple())), Some((revision, None)));
        for query in [
            "",
            "flagConfigEtag",
            "flagConfigEtag=",
            "flagConfigEtag=%00",
            "flagConfigEtag=abc",
            "flagConfigEtag=1:2:3",
        ] {
            assert_eq!(position(query), None, "{query}");
        }
    }

    #[test]
    fn evaluation_instant_is_not_before_the_event() {
        let event = EventPosition::from_query(&format!("flagConfigEtag={}:42:1000", Uuid::from_u128(7).simple()));
        let at = |clock| event.evaluation_instant(Instant::from_micros(clock)).as_micros();
        assert_eq!((at(900), at(1_100)), (1_000, 1_100));
        assert_eq!(EventPosition::from_query("").evaluation_instant(Instant::from_micros(900)).as_micros(), 900);
    }
}
