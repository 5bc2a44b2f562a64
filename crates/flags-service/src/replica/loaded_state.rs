//! The complete state from which a replica starts.

use flags_domain::{Action, ResourceKind, Revision, Snapshot, UserIdNamespace, UserOverride};

use super::{
    external_users::{ExternalUser, ExternalUsers},
    input::{ChangeMetadata, PastCommit, ReplicaToken},
    override_index::OverrideIndex,
    recent_changes::{Invalidation, RecentChanges, RecentCommit},
    user_shards::ShardKey,
};

/// Complete state at one revision.
#[derive(Debug)]
pub struct LoadedState {
    pub(super) revision: Revision,
    pub(super) flags: Snapshot,
    pub(super) overrides: OverrideIndex,
    pub(super) tokens: Vec<ReplicaToken>,
    pub(super) recent_changes: RecentChanges,
    pub(super) external_users: ExternalUsers,
}

/// Secret keys of the database. They determine the order of shards and the ids of users with an
/// external id.
#[derive(Clone, Copy, Debug)]
pub struct DatabaseKeys {
    /// Key that determines the shard of each user.
    pub shards: ShardKey,
    /// Namespace from which user ids are derived.
    pub user_ids: UserIdNamespace,
}

impl LoadedState {
    /// Creates a state without overrides; add them with [`add`](Self::add).
    ///
    /// `recent` contains the last commits up to `revision`, in order and without missing revisions.
    /// Streams can resume from positions that these commits cover.
    pub fn new(
        revision: Revision,
        flags: Snapshot,
        tokens: Vec<ReplicaToken>,
        recent: Vec<PastCommit>,
        keys: DatabaseKeys,
    ) -> Self {
        let floor = recent.first().map_or(revision.number, |oldest| oldest.revision - 1);
        let mut recent_changes = RecentChanges::new(floor);
        for PastCommit { revision, changes } in recent {
            let changes = changes.into_iter().map(|metadata| {
                let invalidation = possible_invalidation(&metadata, &flags);
                (metadata, invalidation)
            });
            recent_changes.push(RecentCommit::new(revision, changes));
        }
        let overrides = OverrideIndex::new(keys.shards);
        let external_users = ExternalUsers::new(keys.user_ids);
        Self { revision, flags, overrides, tokens, recent_changes, external_users }
    }

    /// Takes the users with an external id out of the state, because the replica stores them
    /// separately.
    pub(super) fn take_external_users(&mut self) -> ExternalUsers {
        let empty = ExternalUsers::new(self.external_users.namespace());
        std::mem::replace(&mut self.external_users, empty)
    }

    /// Adds users with an external id.
    pub fn add_external_users(&mut self, users: impl IntoIterator<Item = ExternalUser>) {
        self.external_users.add(users);
    }

    /// Adds an override, or replaces the override of the same user and flag.
    pub fn add(&mut self, user_override: &UserOverride) {
        self.overrides.set(user_override, user_override.into());
    }
}

/// Returns the invalidation for a change that was committed before the state was loaded. The state
/// before the change is unknown, so the invalidation may cover more results than necessary.
///
/// Must not reveal the names of flags that were never visible to clients.
fn possible_invalidation(change: &ChangeMetadata, flags: &Snapshot) -> Invalidation {
    match (change.resource_kind, change.action) {
        (ResourceKind::ScheduledChange, Action::Applied) | (ResourceKind::ApiToken, _) => Invalidation::None,
        (ResourceKind::Flag | ResourceKind::ScheduledChange, _) => {
            let flag = change.flag_name.as_ref().and_then(|name| flags.get(name));
            // Assumes that a flag that is visible now was also visible before the update, so clients know its name.
            let is_new = matches!(change.action, Action::Created | Action::Restored);
            let was_visible = !(is_new && change.resource_kind == ResourceKind::Flag);
            if flag.is_some_and(|flag| flag.compiled().is_visible_to_clients()) {
                Invalidation::Flag { was_visible }
            } else {
                Invalidation::Unknown
            }
        }
        (ResourceKind::Override, _) => Invalidation::Override { expires_at: None },
        (ResourceKind::User, _) => Invalidation::User,
    }
}
