//! `Flags-Min-Revision`, and what providers of OpenFeature send in its place: answers no older than a change the caller
//! knows of.

use std::{
    future::{Ready, ready},
    time::Duration,
};

use actix_web::{FromRequest, HttpRequest, dev::Payload, http::header::HeaderMap};
use flags_domain::{Instant, Violation};
use flags_service::{cursor::Cursor, replica::Replica};
use flags_store::change_log::Revision;

use crate::problem::Problem;

/// Longest wait for the replica to get there.
const LIMIT: Duration = Duration::from_secs(2);

/// Waits until the replica has reached the revision that a request names, if it names one.
pub(crate) async fn wait_for_min_revision(headers: &HeaderMap, replica: &Replica) -> Result<(), Problem> {
    let Some(value) = headers.get("Flags-Min-Revision") else { return Ok(()) };
    let invalid = |detail: &str| Problem::from(Violation::new("/Flags-Min-Revision", "invalid_header", detail));
    let wanted = value.to_str().ok().and_then(|text| text.parse::<Revision>().ok());
    let wanted = wanted.ok_or_else(|| invalid("must be <epoch>:<number>, as in Flags-Revision"))?;
    if replica.revision().epoch != wanted.epoch {
        return Err(invalid("is of another epoch: the database was restored since"));
    }
    wait_for(wanted, replica).await
}

async fn wait_for(wanted: Revision, replica: &Replica) -> Result<(), Problem> {
    if replica.wait_for(wanted, LIMIT).await {
        return Ok(());
    }
    Err(Problem::unavailable("revision_not_reached", "this server has not seen that revision yet; try again", "1"))
}

/// Where the event stood that made a provider ask: `flagConfigEtag` of the query. What it cannot be read from is passed over,
/// as the protocol lets anybody send anything there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct EventPosition(Option<(Revision, Option<Instant>)>);

impl EventPosition {
    fn of_query(query: &str) -> Self {
        let mut parameters = form_urlencoded::parse(query.as_bytes());
        let text = parameters.find(|(name, _)| name == "flagConfigEtag").map(|(_, value)| value);
        Self(text.and_then(|text| {
            let text = text.trim_matches('"');
            let cursor = text.parse::<Cursor>().ok().map(|cursor| (cursor.revision, Some(cursor.evaluated_at)));
            cursor.or_else(|| Some((text.parse().ok()?, None)))
        }))
    }

    /// The instant to evaluate at when the clock says `clock`: what another server has told of as past is so here as well.
    pub(crate) fn instant(self, clock: Instant) -> Instant {
        match self.0 {
            Some((revision, Some(evaluated_at))) => Cursor { revision, evaluated_at }.next_instant(clock),
            Some((_, None)) | None => clock,
        }
    }
}

impl FromRequest for EventPosition {
    type Error = Problem;
    type Future = Ready<Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(Ok(Self::of_query(request.query_string())))
    }
}

/// Waits until the replica has reached the event that a provider asks after, if it is one of this epoch.
pub(crate) async fn wait_for_event(query: &str, replica: &Replica) -> Result<(), Problem> {
    match EventPosition::of_query(query).0 {
        Some((wanted, _)) if wanted.epoch == replica.revision().epoch => wait_for(wanted, replica).await,
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn an_event_is_known_by_its_position_and_what_is_none_is_passed_over() {
        let epoch = Uuid::from_u128(7);
        let (revision, at) = (Revision { epoch, number: 42 }, Instant::from_micros(1_000));
        let position = |query: &str| EventPosition::of_query(query).0;
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
    fn time_does_not_go_back_behind_an_event() {
        let event = EventPosition::of_query(&format!("flagConfigEtag={}:42:1000", Uuid::from_u128(7).simple()));
        let at = |clock| event.instant(Instant::from_micros(clock)).as_micros();
        assert_eq!((at(900), at(1_100)), (1_000, 1_100));
        assert_eq!(EventPosition::of_query("").instant(Instant::from_micros(900)).as_micros(), 900);
    }
}
