//! The state that the replica's lock protects, and how a change modifies it.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, btree_map::Entry},
    ops::Bound,
};

use flags_domain::{Change, FlagName, FlagState, Instant, Revision, Snapshot, SnapshotEdit};

use super::{
    loaded_state::LoadedState,
    override_index::OverrideIndex,
    recent_changes::{Invalidation, RecentChanges},
    tokens::TokenIndex,
};

#[derive(Debug)]
pub(super) struct ReplicaState {
    pub(super) revision: Revision,
    /// Number of reloads. Streams that were open before a reload start again with a full snapshot.
    pub(super) generation: u64,
    pub(super) flags: Snapshot,
    /// Past and future instants at which the schedule of a flag may change its value.
    schedule_instants: BTreeMap<Instant, BTreeSet<FlagName>>,
    pub(super) overrides: OverrideIndex,
    pub(super) tokens: TokenIndex,
    pub(super) recent_changes: RecentChanges,
}

impl From<LoadedState> for ReplicaState {
    fn from(loaded: LoadedState) -> Self {
        let mut schedule_instants = BTreeMap::new();
        for flag in loaded.flags.iter() {
            add_schedule_instants(&mut schedule_instants, flag);
        }
        Self {
            revision: loaded.revision,
            generation: 0,
            flags: loaded.flags,
            schedule_instants,
            overrides: loaded.overrides,
            tokens: loaded.tokens.into_iter().collect(),
            recent_changes: loaded.recent_changes,
        }
    }
}

impl ReplicaState {
    /// Applies a prepared edit of flags and updates `schedule_instants`.
    pub(super) fn commit_flags(&mut self, edit: SnapshotEdit) {
        for (name, after) in edit.flags() {
            if let Some(before) = self.flags.get(name) {
                for at in before.compiled().schedule_instants() {
                    if let Entry::Occupied(mut flags) = self.schedule_instants.entry(at) {
                        flags.get_mut().remove(name);
                        if flags.get().is_empty() {
                            flags.remove();
                        }
                    }
                }
            }
            if let Some(after) = after {
                add_schedule_instants(&mut self.schedule_instants, after);
            }
        }
        self.flags.commit(edit);
    }

    /// Applies a change, except to flags, and returns its invalidation. `flag_invalidations` contains the flags whose
    /// evaluation the commit changes.
    pub(super) fn apply_change(
        &mut self,
        change: &Change,
        flag_invalidations: &HashMap<FlagName, Invalidation>,
    ) -> Invalidation {
        match change {
            Change::OverrideSet(user_override) => {
                self.overrides.set(user_override);
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

    /// Returns the schedule instants later than `after` in ascending order, each with a flag.
    pub(super) fn schedule_instants_after(&self, after: Instant) -> impl Iterator<Item = (&Instant, &FlagName)> {
        let later = self.schedule_instants.range((Bound::Excluded(after), Bound::Unbounded));
        later.flat_map(|(at, flags)| flags.iter().map(move |name| (at, name)))
    }
}

fn add_schedule_instants(instants: &mut BTreeMap<Instant, BTreeSet<FlagName>>, flag: &FlagState) {
    for at in flag.compiled().schedule_instants() {
        instants.entry(at).or_default().insert(flag.name().clone());
    }
}

fn flag_invalidation(name: &FlagName, invalidations: &HashMap<FlagName, Invalidation>) -> Invalidation {
    invalidations.get(name).copied().unwrap_or(Invalidation::None)
}

/// Returns the flags whose evaluation an edit changes, each with its invalidation.
pub(super) fn flag_invalidations(flags: &Snapshot, edit: &SnapshotEdit) -> HashMap<FlagName, Invalidation> {
    let changed = flags.flags_changed_by(edit);
    changed.map(|(name, before, after)| (name.clone(), invalidation_of_edit(before, after))).collect()
}

fn invalidation_of_edit(before: Option<&FlagState>, after: Option<&FlagState>) -> Invalidation {
    let was_visible = is_visible_to_clients(before);
    if was_visible || is_visible_to_clients(after) {
        Invalidation::Flag { was_visible }
    } else {
        Invalidation::HiddenFlag
    }
}

fn is_visible_to_clients(flag: Option<&FlagState>) -> bool {
    flag.is_some_and(|flag| flag.compiled().is_visible_to_clients())
}
