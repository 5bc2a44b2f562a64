//! Positions in event streams, from which clients resume.

use std::fmt;

use flags_domain::{Instant, Revision};

/// Position of a client in an event stream, written as `<epoch>:<revision>:<instant>`.
///
/// Flag values change through commits and through the passage of time, so a position contains a revision and an
/// instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamPosition {
    /// Last revision whose changes the client has received.
    pub revision: Revision,
    /// Instant of the last evaluation whose results the client has received.
    pub evaluated_at: Instant,
}

/// Maximum accepted clock difference, in microseconds, between this server and the server that issued a position.
const MAX_CLOCK_SKEW_MICROS: i64 = 5_000_000;

impl StreamPosition {
    /// Returns the instant at which to evaluate flags for the client, given the server's current
    /// instant `clock`.
    ///
    /// The result is not earlier than `evaluated_at`, so that time does not go backwards when a
    /// client moves to a server whose clock is slightly behind. If `evaluated_at` is more than 5
    /// seconds ahead of `clock`, it is not trusted and the result is `clock`.
    pub fn evaluation_instant(&self, clock: Instant) -> Instant {
        if self.evaluated_at > clock.plus_micros(MAX_CLOCK_SKEW_MICROS) { clock } else { clock.max(self.evaluated_at) }
    }
}

impl fmt::Display for StreamPosition {
    /// Writes `<epoch>:<revision>:<instant>`; the instant is in microseconds since the Unix epoch.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.revision, self.evaluated_at.as_micros())
    }
}

/// Error for text that is not a [`StreamPosition`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be <epoch>:<revision>:<microseconds>")]
pub struct InvalidStreamPosition;

impl std::str::FromStr for StreamPosition {
    type Err = InvalidStreamPosition;

    fn from_str(text: &str) -> Result<Self, InvalidStreamPosition> {
        let (revision, micros) = text.rsplit_once(':').ok_or(InvalidStreamPosition)?;
        let revision = revision.parse().map_err(|_| InvalidStreamPosition)?;
        let micros = micros.parse().map_err(|_| InvalidStreamPosition)?;
        Ok(Self { revision, evaluated_at: Instant::from_micros(micros) })
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn evaluation_instant_ignores_positions_more_than_5_seconds_ahead() {
        let revision = Revision { epoch: Uuid::nil(), number: 1 };
        let evaluation_instant = |evaluated_at, clock| {
            let position = StreamPosition { revision, evaluated_at: Instant::from_micros(evaluated_at) };
            position.evaluation_instant(Instant::from_micros(clock)).as_micros()
        };
        assert_eq!(evaluation_instant(100, 200), 200);
        assert_eq!(evaluation_instant(300, 200), 300);
        assert_eq!(evaluation_instant(5_000_200, 200), 5_000_200);
        assert_eq!(evaluation_instant(5_000_201, 200), 200);
    }

    #[test]
    fn round_trips_through_text_and_rejects_malformed_positions() {
        let revision = Revision { epoch: Uuid::from_u128(7), number: 42 };
        let position = StreamPosition { revision, evaluated_at: Instant::from_micros(1_234_567) };
        assert_eq!(position.to_string(), "00000000000000000000000000000007:42:1234567");
        assert_eq!(position.to_string().parse(), Ok(position));
        for malformed in ["", "0", ":", "::", "7:42", "00000000000000000000000000000007:-1:0", "x:1:1"] {
            assert_eq!(malformed.parse::<StreamPosition>(), Err(InvalidStreamPosition), "{malformed}");
        }
    }
}
