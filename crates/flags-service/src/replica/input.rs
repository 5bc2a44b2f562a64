//! Input of the replica: plain values that do not depend on their source.
//!
//! The change feed reads these values from the database. Any other source must also supply
//! revisions in order and without gaps.

use std::fmt;

use flags_domain::{Action, Change, FlagName, Instant, ResourceKind, Revision, TokenGrant};
use uuid::Uuid;

use super::external_users::ExternalUser;

/// An API token that is not revoked.
#[derive(Clone, PartialEq, Eq)]
pub struct ReplicaToken {
    /// Id of the token, which is not secret.
    pub id: Uuid,
    /// SHA-256 of the token's secret.
    pub hash: [u8; 32],
    /// Permissions of the token.
    pub grant: TokenGrant,
    /// User on whose behalf the token acts. `None` if the token is its own principal.
    pub user_id: Option<Uuid>,
    /// Expiry. The token is invalid from this time on. `None` if it does not expire.
    pub expires_at: Option<Instant>,
}

impl ReplicaToken {
    /// Returns whether the token has not expired at `now`. Does not check the token's user.
    pub fn is_valid_at(&self, now: Instant) -> bool {
        self.expires_at.is_none_or(|expiry| expiry > now)
    }
}

impl fmt::Debug for ReplicaToken {
    /// Omits the hash.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReplicaToken").field("id", &self.id).field("grant", &self.grant).finish_non_exhaustive()
    }
}

/// Metadata of a change: the resource and the kind of change, without the resulting state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangeMetadata {
    /// Actor that made the change: `user:<id>`, `token:<id>` or `system:<name>`.
    pub actor: String,
    /// Kind of the change.
    pub action: Action,
    /// Kind of the changed resource.
    pub resource_kind: ResourceKind,
    /// Id of the changed resource. `None` for flags, which are identified by name.
    pub resource_id: Option<Uuid>,
    /// Name of the flag that the change belongs to.
    pub flag_name: Option<FlagName>,
    /// Id of the user that the change affects.
    pub user_id: Option<Uuid>,
}

/// A change with its metadata.
#[derive(Clone, Debug, PartialEq)]
pub struct DescribedChange {
    /// Metadata, which selects the audience. The recent changes buffer stores it.
    pub metadata: ChangeMetadata,
    /// Change of the state that evaluation reads.
    pub change: Change,
}

/// All changes of one revision.
#[derive(Clone, Debug, PartialEq)]
pub struct Commit {
    /// Revision of the commit.
    pub revision: Revision,
    /// The changes in order.
    pub changes: Vec<DescribedChange>,
    /// Current state of the tokens that `changes` name. Deleted and revoked tokens are missing.
    pub tokens: Vec<ReplicaToken>,
    /// Current external ids of the users that `changes` name. Deleted users and users without external id are missing.
    pub external_users: Vec<ExternalUser>,
}

/// Current state of changed users and tokens. The replica applies it ahead of all other changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CredentialUpdate {
    /// Revision up to which the changes are included.
    pub revision: Revision,
    /// The changed users and tokens.
    pub scope: CredentialScope,
    /// Current state of the tokens within the scope. Deleted and revoked tokens are missing.
    pub tokens: Vec<ReplicaToken>,
    /// Current external ids of the changed users. Empty if all users may have changed.
    pub external_users: Vec<ExternalUser>,
}

/// The users and tokens that a [`CredentialUpdate`] covers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CredentialScope {
    /// All users and tokens.
    All,
    /// The users and tokens with these ids.
    Changed {
        /// Ids of the users.
        user_ids: Vec<Uuid>,
        /// Ids of the tokens.
        token_ids: Vec<Uuid>,
    },
}

/// Metadata of a commit that the loaded state already contains.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PastCommit {
    /// Revision number.
    pub revision: i64,
    /// Metadata of the changes of this commit, in order.
    pub changes: Vec<ChangeMetadata>,
}
