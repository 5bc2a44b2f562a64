//! The complete state from which a replica starts.

use flags_domain::{Action, ResourceKind, Revision, Snapshot, UserOverride};

use super::{
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
}

impl LoadedState {
    /// Creates a state without overrides; add them with [`add`](Self::add).
    ///
    /// `recent` contains the last commits up to `revision`, ordered and without missing revisions. It allows streams to
    /// resume that were opened before this process started.
    pub fn new(
        revision: Revision,
        flags: Snapshot,
        tokens: Vec<ReplicaToken>,
        recent: Vec<PastCommit>,
        shard_key: ShardKey,
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
        Self { revision, flags, overrides: OverrideIndex::new(shard_key), tokens, recent_changes }
    }

    /// Adds an override.
    pub fn add(&mut self, user_override: &UserOverride) {
        self.overrides.set(user_override, user_override.into());
    }
}

/// Returns a conservative invalidation for a change from before this process started, whose previous state is unknown.
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
