//! Changes: what one revision of the log does to the state that evaluation reads.

use uuid::Uuid;

use crate::{flag::Flag, name::FlagName, schedule::ScheduledChange, user_override::UserOverride};

/// One change. Each carries the whole new state of what it names, so that applying it needs nothing else.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// A flag was created or changed.
    FlagSet(Box<Flag>),
    /// A flag was deleted.
    FlagRemoved(FlagName),
    /// A scheduled change was created, changed or cancelled.
    ScheduledChangeSet(FlagName, Box<ScheduledChange>),
    /// A scheduled change was deleted with its flag.
    ScheduledChangeRemoved(FlagName, Uuid),
    /// An override was created, replaced or changed.
    OverrideSet(Box<UserOverride>),
    /// An override was removed or has expired.
    OverrideRemoved {
        /// Whose it was.
        user_id: Uuid,
        /// Which flag it was for.
        flag_name: FlagName,
    },
    /// Something about a user changed; what is known of them must be looked up again.
    UserTouched(Uuid),
    /// Something about an API token changed; it must be looked up again.
    TokenTouched(Uuid),
}
