//! Kinds of resources and of their changes.

use std::fmt;

use crate::string_enum::string_enum;

string_enum! {
    /// Kind of change to a resource.
    Action {
        /// The resource was created.
        Created = "created",
        /// The resource was modified.
        Updated = "updated",
        /// The resource was deleted.
        Deleted = "deleted",
        /// The override was deleted after its expiry.
        Expired = "expired",
        /// The flag was archived.
        Archived = "archived",
        /// The flag was restored from the archive.
        Restored = "restored",
        /// The scheduled change was cancelled.
        Cancelled = "cancelled",
        /// The scheduled change became due and was applied.
        Applied = "applied",
        /// The API token was revoked.
        Revoked = "revoked",
        /// The labels that identified the user in the audit log were removed.
        Erased = "erased",
    }
}

string_enum! {
    /// Kind of resource that a change or an error refers to.
    ResourceKind {
        /// User account.
        User = "user",
        /// Feature flag.
        Flag = "flag",
        /// Scheduled change of a flag.
        ScheduledChange = "scheduled_change",
        /// Override of a flag for one user.
        Override = "override",
        /// API token.
        ApiToken = "api_token",
    }
}

impl fmt::Display for ResourceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::User => "user",
            Self::Flag => "flag",
            Self::ScheduledChange => "scheduled change",
            Self::Override => "override",
            Self::ApiToken => "API token",
        })
    }
}
