//! Who calls, and what they may do. Middleware finds out who; extractors in the handlers' signatures decide.

mod authenticate;
mod principal;
mod require;

pub(crate) use authenticate::{authenticate, is_known_caller};
pub(crate) use principal::{Credential, Principal};
pub(crate) use require::{
    FollowChanges, FollowOwnFlags, Follows, ManageFlags, ManageOverrides, ManageSchedules, ManageUsers, OwnFlags,
    ReadAuditLog, ReadFlags, ReadOverrides, ReadSchedules, ReadUsers, Require,
};
