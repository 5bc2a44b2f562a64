//! Positions in the change log.

use std::fmt;

use uuid::Uuid;

/// Position in the change log. Only revisions of the same epoch can be compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Revision {
    /// Id that changes when the database is restored from a backup, because revision numbers are
    /// then reused.
    pub epoch: Uuid,
    /// Number in a sequence without gaps that starts at 1. 0 means that the change log is empty.
    pub number: i64,
}

impl fmt::Display for Revision {
    /// Formats the revision as `<epoch>:<number>`, with the epoch as 32 hexadecimal digits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.epoch.simple(), self.number)
    }
}

/// Error for a text that is not a valid [`Revision`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be <epoch>:<number>")]
pub struct InvalidRevision;

impl std::str::FromStr for Revision {
    type Err = InvalidRevision;

    fn from_str(text: &str) -> Result<Self, InvalidRevision> {
        let (epoch, number) = text.split_once(':').ok_or(InvalidRevision)?;
        let epoch = Uuid::try_parse(epoch).map_err(|_| InvalidRevision)?;
        let number = number.parse().ok().filter(|number| *number >= 0).ok_or(InvalidRevision)?;
        Ok(Self { epoch, number })
    }
}
