//! All flags at one revision, with the instants of their schedules.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, btree_map::Entry},
    ops::Bound,
    sync::Arc,
};

use flags_domain::{Change, FlagName, FlagState, Instant, Snapshot, SnapshotEdit};

use super::recent_changes::Invalidation;

/// All flags at one revision.
///
/// An index is immutable: a commit that changes flags replaces the whole index, and the new index
/// shares the unchanged flags with the previous one. Readers can use an index without holding a
/// lock.
#[derive(Clone, Debug, Default)]
pub(super) struct FlagIndex {
    flags: Snapshot,
    /// Past and future instants at which the schedule of a flag may change its value. Shared by all
    /// revisions with the same instants.
    schedule_instants: Arc<ScheduleInstants>,
}

/// For each instant, the flags whose value may change at this instant.
type ScheduleInstants = BTreeMap<Instant, BTreeSet<FlagName>>;

impl From<Snapshot> for FlagIndex {
    fn from(flags: Snapshot) -> Self {
        let mut schedule_instants = ScheduleInstants::default();
        for flag in flags.iter() {
            add_instants(&mut schedule_instants, flag.name(), &instants_of(Some(flag)));
        }
        Self { flags, schedule_instants: Arc::new(schedule_instants) }
    }
}

impl FlagIndex {
    pub(super) const fn flags(&self) -> &Snapshot {
        &self.flags
    }

    /// Compiles the flags that `changes` affect.
    pub(super) fn prepare<'c>(&self, changes: impl Iterator<Item = &'c Change>) -> SnapshotEdit {
        self.flags.prepare(changes)
    }

    /// Returns the index after a prepared edit.
    pub(super) fn edited(&self, edit: SnapshotEdit) -> Self {
        let mut edited = self.clone();
        for (name, after) in edit.flags() {
            let (before, after) = (instants_of(self.flags.get(name)), instants_of(after));
            if before != after {
                let schedule_instants = Arc::make_mut(&mut edited.schedule_instants);
                remove_instants(schedule_instants, name, &before);
                add_instants(schedule_instants, name, &after);
            }
        }
        edited.flags.commit(edit);
        edited
    }

    /// Returns the schedule instants later than `after` in ascending order, each with a flag.
    pub(super) fn schedule_instants_after(&self, after: Instant) -> impl Iterator<Item = (Instant, &FlagName)> {
        let later = self.schedule_instants.range((Bound::Excluded(after), Bound::Unbounded));
        later.flat_map(|(at, flags)| flags.iter().map(move |name| (*at, name)))
    }
}

fn instants_of(flag: Option<&Arc<FlagState>>) -> BTreeSet<Instant> {
    flag.into_iter().flat_map(|flag| flag.compiled().schedule_instants()).collect()
}

fn add_instants(schedule_instants: &mut ScheduleInstants, name: &FlagName, instants: &BTreeSet<Instant>) {
    for at in instants {
        schedule_instants.entry(*at).or_default().insert(name.clone());
    }
}

fn remove_instants(schedule_instants: &mut ScheduleInstants, name: &FlagName, instants: &BTreeSet<Instant>) {
    for at in instants {
        if let Entry::Occupied(mut flags) = schedule_instants.entry(*at) {
            flags.get_mut().remove(name);
            if flags.get().is_empty() {
                flags.remove();
            }
        }
    }
}

/// Returns the flags whose evaluation results an edit may change, each with its invalidation.
pub(super) fn flag_invalidations(flags: &FlagIndex, edit: &SnapshotEdit) -> HashMap<FlagName, Invalidation> {
    let changed = flags.flags.flags_changed_by(edit);
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
