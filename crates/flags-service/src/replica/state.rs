//! The state that the replica's lock protects, and how a change modifies it.

use std::{collections::HashMap, sync::Arc};

use flags_domain::{Change, FlagName, Revision};

use super::{
    flag_index::FlagIndex,
    loaded_state::LoadedState,
    override_index::{OverrideIndex, PreparedOverride},
    recent_changes::{Invalidation, RecentChanges},
    tokens::TokenIndex,
};

#[derive(Debug)]
pub(super) struct ReplicaState {
    pub(super) revision: Revision,
    /// Number of reloads. Streams that were open before a reload start again with a full snapshot.
    pub(super) generation: u64,
    pub(super) flags: Arc<FlagIndex>,
    pub(super) overrides: OverrideIndex,
    pub(super) tokens: TokenIndex,
    pub(super) recent_changes: RecentChanges,
}

impl From<LoadedState> for ReplicaState {
    fn from(loaded: LoadedState) -> Self {
        Self {
            revision: loaded.revision,
            generation: 0,
            flags: Arc::new(loaded.flags.into()),
            overrides: loaded.overrides,
            tokens: loaded.tokens.into_iter().collect(),
            recent_changes: loaded.recent_changes,
        }
    }
}

impl ReplicaState {
    /// Applies a change and returns its invalidation. For a change of a flag, only looks up the
    /// invalidation, because the caller replaces the flags.
    ///
    /// `prepared` is the override that the change sets. `flag_invalidations` contains the flags
    /// whose evaluation results the commit may change.
    pub(super) fn apply_change(
        &mut self,
        change: &Change,
        prepared: Option<PreparedOverride>,
        flag_invalidations: &HashMap<FlagName, Invalidation>,
    ) -> Invalidation {
        match change {
            Change::OverrideSet(user_override) => {
                self.overrides.set(user_override, prepared.unwrap_or_else(|| (&**user_override).into()));
                Invalidation::Override { expires_at: None }
            }
            Change::OverrideRemoved { user_id, flag_name } => match self.overrides.remove(*user_id, flag_name) {
                Some(removed) => Invalidation::Override { expires_at: removed.expires_at },
                None => Invalidation::None,
            },
            Change::TokenChanged(id) => {
                self.tokens.remove(*id);
                Invalidation::None
            }
            Change::UserChanged(_) => Invalidation::User,
            Change::FlagSet(flag) => flag_invalidation(flag.name(), flag_invalidations),
            Change::FlagRemoved(name)
            | Change::ScheduledChangeSet(name, _)
            | Change::ScheduledChangeRemoved(name, _) => flag_invalidation(name, flag_invalidations),
        }
    }
}

fn flag_invalidation(name: &FlagName, invalidations: &HashMap<FlagName, Invalidation>) -> Invalidation {
    invalidations.get(name).copied().unwrap_or(Invalidation::None)
}
