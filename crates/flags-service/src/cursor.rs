//! Where a client of a stream stands: which changes it has, and as of which instant.

use std::fmt;

use flags_domain::Instant;
use flags_store::change_log::Revision;

/// A position in a stream. Time moves values as well as changes do, so it names both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// The client has every change up to here.
    pub revision: Revision,
    /// The client has what was so at this instant.
    pub evaluated_at: Instant,
}

/// Furthest that the clock of the server a client comes from may be ahead of this one's, in microseconds.
const CLOCKS_DIFFER_BY: i64 = 5_000_000;

impl Cursor {
    /// The instant to evaluate at for a client that stands here, when the clock says `clock`. Time must not go back for a
    /// client that comes from a server whose clock is a little ahead.
    pub fn next_instant(&self, clock: Instant) -> Instant {
        if self.evaluated_at > clock.plus_micros(CLOCKS_DIFFER_BY) { clock } else { clock.max(self.evaluated_at) }
    }
}

impl fmt::Display for Cursor {
    /// `<epoch>:<revision>:<microseconds>`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.revision, self.evaluated_at.as_micros())
    }
}

/// The text is no position in a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be <epoch>:<revision>:<microseconds>")]
pub struct InvalidCursor;

impl std::str::FromStr for Cursor {
    type Err = InvalidCursor;

    fn from_str(text: &str) -> Result<Self, InvalidCursor> {
        let (revision, micros) = text.rsplit_once(':').ok_or(InvalidCursor)?;
        let revision = revision.parse().map_err(|_| InvalidCursor)?;
        let micros = micros.parse().map_err(|_| InvalidCursor)?;
        Ok(Self { revision, evaluated_at: Instant::from_micros(micros) })
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn time_does_not_go_back_for_a_client_unless_its_cursor_is_absurd() {
        let revision = Revision { epoch: Uuid::nil(), number: 1 };
        let next = |seen, clock| {
            let cursor = Cursor { revision, evaluated_at: Instant::from_micros(seen) };
            cursor.next_instant(Instant::from_micros(clock)).as_micros()
        };
        assert_eq!(next(100, 200), 200);
        assert_eq!(next(300, 200), 300);
        assert_eq!(next(5_000_200, 200), 5_000_200);
        assert_eq!(next(5_000_201, 200), 200);
    }

    #[test]
    fn a_cursor_comes_back_as_it_was_written() {
        let revision = Revision { epoch: Uuid::from_u128(7), number: 42 };
        let cursor = Cursor { revision, evaluated_at: Instant::from_micros(1_234_567) };
        assert_eq!(cursor.to_string(), "00000000000000000000000000000007:42:1234567");
        assert_eq!(cursor.to_string().parse(), Ok(cursor));
        for rubbish in ["", "0", ":", "::", "7:42", "00000000000000000000000000000007:-1:0", "x:1:1"] {
            assert_eq!(rubbish.parse::<Cursor>(), Err(InvalidCursor), "{rubbish}");
        }
    }
}
