//! State changes, as recorded in the change log.

use uuid::Uuid;

use crate::{
    definition::{FlagDefinition, ScheduledChangeDefinition},
    name::FlagName,
    user_override::UserOverride,
};

/// One state change, decoded from a row of the change log.
///
/// A `*Set` change carries the complete new state, so applying it twice has the same effect as
/// applying it once. Changes must be applied in the order of the change log.
///
/// [`Snapshot::apply`](crate::Snapshot::apply) applies changes to flags and scheduled changes, and
/// ignores all other changes.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// A flag was created or changed.
    FlagSet(Box<FlagDefinition>),
    /// A flag was deleted, together with its scheduled changes.
    FlagRemoved(FlagName),
    /// A scheduled change of this flag was created, changed or cancelled.
    ScheduledChangeSet(FlagName, Box<ScheduledChangeDefinition>),
    /// The scheduled change with this id was deleted together with its flag.
    ScheduledChangeRemoved(FlagName, Uuid),
    /// An override was created, replaced or changed.
    OverrideSet(Box<UserOverride>),
    /// An override was deleted, manually or after it expired.
    OverrideRemoved {
        /// User of the override.
        user_id: Uuid,
        /// Flag of the override.
        flag_name: FlagName,
    },
    /// The user with this id was created, changed or deleted. Cached data of the user must be discarded.
    UserChanged(Uuid),
    /// The API token with this id was created, changed or deleted. Cached data of the token must be discarded.
    TokenChanged(Uuid),
}
