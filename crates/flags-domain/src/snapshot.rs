//! Snapshots: all flags at one revision, compiled.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    sync::Arc,
};

use crate::{
    change::Change,
    compiled::CompiledFlag,
    definition::{FlagDefinition, ScheduledChangeDefinition, UnreadableFlag},
    flag::Flag,
    name::FlagName,
    schedule::ScheduledChange,
};

/// All flags at one revision, compiled, ordered by name.
///
/// Applying a change recompiles only the affected flags. Cloning copies one pointer per flag.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    flags: BTreeMap<FlagName, Arc<FlagState>>,
}

/// A flag definition, its scheduled changes, and their compiled form.
#[derive(Debug)]
pub struct FlagState {
    definition: FlagDefinition,
    schedule: Vec<ScheduledChange>,
    unreadable_changes: Vec<ScheduledChangeDefinition>,
    compiled: CompiledFlag,
}

/// Definition of a flag and all its scheduled changes, readable or not.
type Definitions = (FlagDefinition, Vec<ScheduledChangeDefinition>);

impl FlagState {
    fn new((definition, changes): Definitions) -> Self {
        let (mut schedule, mut unreadable_changes) = (Vec::with_capacity(changes.len()), Vec::new());
        for change in changes {
            match change {
                ScheduledChangeDefinition::Readable(change) => schedule.push(change),
                unreadable @ ScheduledChangeDefinition::Unreadable { .. } => unreadable_changes.push(unreadable),
            }
        }
        let compiled = match (&definition, unreadable_changes.first()) {
            (FlagDefinition::Unreadable(flag), _) => CompiledFlag::unreadable(flag, &flag.reason),
            (FlagDefinition::Readable(flag), Some(ScheduledChangeDefinition::Unreadable { id, reason })) => {
                let reason = format!("scheduled change {id}: {reason}");
                CompiledFlag::unreadable(&readable_fields(flag), &reason)
            }
            (FlagDefinition::Readable(flag), _) => CompiledFlag::compile(flag, &schedule),
        };
        Self { definition, schedule, unreadable_changes, compiled }
    }

    /// Name of the flag.
    pub const fn name(&self) -> &FlagName {
        self.definition.name()
    }

    /// Definition of the flag; `None` if it cannot be read.
    pub const fn flag(&self) -> Option<&Flag> {
        match &self.definition {
            FlagDefinition::Readable(flag) => Some(flag),
            FlagDefinition::Unreadable(_) => None,
        }
    }

    /// All scheduled changes that can be read, including cancelled ones, in no particular order.
    pub fn schedule(&self) -> &[ScheduledChange] {
        &self.schedule
    }

    /// Compiled flag, for [`resolve()`](crate::resolve()).
    pub const fn compiled(&self) -> &CompiledFlag {
        &self.compiled
    }

    /// Returns whether the flag and its scheduled changes are equal in all fields that evaluation
    /// reads.
    pub fn evaluates_like(&self, other: &Self) -> bool {
        self.evaluated_fields() == other.evaluated_fields()
    }

    /// Returns the flag and its scheduled changes without descriptions, owner and tags. Sorts the
    /// changes, so that their order does not affect comparisons.
    fn evaluated_fields(&self) -> (FlagDefinition, Vec<ScheduledChange>, &[ScheduledChangeDefinition]) {
        let mut definition = self.definition.clone();
        if let FlagDefinition::Readable(flag) = &mut definition {
            flag.description = None;
            flag.owner = None;
            flag.tags = Vec::new();
        }
        let mut schedule: Vec<_> =
            self.schedule.iter().map(|change| ScheduledChange { description: None, ..change.clone() }).collect();
        schedule.sort_by_key(|change| change.id);
        (definition, schedule, &self.unreadable_changes)
    }

    fn definitions(&self) -> Definitions {
        let schedule = self.schedule.iter().cloned().map(ScheduledChangeDefinition::Readable);
        (self.definition.clone(), schedule.chain(self.unreadable_changes.iter().cloned()).collect())
    }
}

/// Returns the fields that stay usable if a scheduled change of the flag cannot be read.
fn readable_fields(flag: &Flag) -> UnreadableFlag {
    UnreadableFlag {
        name: flag.name.clone(),
        flag_type: Some(flag.flag_type),
        client_visible: flag.client_visible,
        archived_at: flag.archived_at,
        reason: String::new(),
    }
}

/// Compiled new states of the flags that a set of changes affects, not yet applied to a snapshot.
///
/// Compiling is slow and applying is fast. A caller that guards a snapshot with a lock should therefore hold the
/// exclusive lock only for [`Snapshot::commit`], not for [`Snapshot::prepare`].
#[derive(Debug)]
pub struct SnapshotEdit(Vec<(FlagName, Option<Arc<FlagState>>)>);

impl SnapshotEdit {
    /// Affected flags in order of name, each with its new state; `None` if the flag is removed.
    pub fn flags(&self) -> impl Iterator<Item = (&FlagName, Option<&Arc<FlagState>>)> {
        self.0.iter().map(|(name, state)| (name, state.as_ref()))
    }
}

impl Snapshot {
    /// Compiles flags with their scheduled changes. Flags that do not compile are kept with their
    /// [`CompileError`](crate::CompileError).
    pub fn new(flags: impl IntoIterator<Item = (Flag, Vec<ScheduledChange>)>) -> Self {
        let flags = flags.into_iter();
        Self::from_definitions(flags.map(|(flag, schedule)| {
            let schedule = schedule.into_iter().map(ScheduledChangeDefinition::Readable);
            (FlagDefinition::Readable(flag), schedule.collect())
        }))
    }

    /// Like [`new`](Self::new), but also accepts definitions that this version cannot read. A flag
    /// with such a definition serves active overrides only.
    pub fn from_definitions(flags: impl IntoIterator<Item = (FlagDefinition, Vec<ScheduledChangeDefinition>)>) -> Self {
        let state = |definitions| {
            let state = Arc::new(FlagState::new(definitions));
            (state.name().clone(), state)
        };
        Self { flags: flags.into_iter().map(state).collect() }
    }

    /// Returns the flag with this name.
    pub fn get(&self, name: &str) -> Option<&Arc<FlagState>> {
        self.flags.get(name)
    }

    /// All flags, including archived ones, in order of name.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<FlagState>> {
        self.flags.values()
    }

    /// Number of flags, including archived ones.
    pub fn len(&self) -> usize {
        self.flags.len()
    }

    /// Whether the snapshot contains no flags.
    pub fn is_empty(&self) -> bool {
        self.flags.is_empty()
    }

    /// Computes and compiles the new state of all flags that `changes` affect. The changes are applied in order; each
    /// flag is compiled once. Does not modify the snapshot.
    pub fn prepare<'c>(&self, changes: impl IntoIterator<Item = &'c Change>) -> SnapshotEdit {
        let mut affected: BTreeMap<FlagName, Option<Definitions>> = BTreeMap::new();
        for change in changes {
            let Some(name) = affected_flag(change) else { continue };
            let state = match affected.entry(name.clone()) {
                Entry::Occupied(entry) => entry.into_mut(),
                Entry::Vacant(entry) => entry.insert(self.get(name).map(|state| state.definitions())),
            };
            apply_to(state, change);
        }
        let compile = |(name, state): (_, Option<Definitions>)| (name, state.map(FlagState::new).map(Arc::new));
        SnapshotEdit(affected.into_iter().map(compile).collect())
    }

    /// Returns the flags that `edit` creates, removes, or changes in a field that evaluation reads, each with its state
    /// before and after. The edit must have been prepared from this snapshot and not yet been committed.
    pub fn flags_changed_by<'s>(
        &'s self,
        edit: &'s SnapshotEdit,
    ) -> impl Iterator<Item = (&'s FlagName, Option<&'s FlagState>, Option<&'s FlagState>)> {
        let states = edit.flags().map(|(name, after)| (name, self.get(name).map(Arc::as_ref), after.map(Arc::as_ref)));
        states.filter(|(_, before, after)| match (before, after) {
            (Some(before), Some(after)) => !before.evaluates_like(after),
            (before, after) => before.is_some() || after.is_some(),
        })
    }

    /// Applies a prepared edit. The snapshot must not have changed since [`prepare`](Self::prepare); otherwise changes
    /// made in between to the same flags are lost.
    pub fn commit(&mut self, edit: SnapshotEdit) {
        for (name, state) in edit.0 {
            match state {
                Some(state) => self.flags.insert(name, state),
                None => self.flags.remove(&name),
            };
        }
    }

    /// Applies one change. Ignores changes to overrides, users and tokens, which a snapshot does
    /// not contain.
    pub fn apply(&mut self, change: &Change) {
        let edit = self.prepare([change]);
        self.commit(edit);
    }
}

fn affected_flag(change: &Change) -> Option<&FlagName> {
    match change {
        Change::FlagSet(flag) => Some(flag.name()),
        Change::FlagRemoved(name) | Change::ScheduledChangeSet(name, _) | Change::ScheduledChangeRemoved(name, _) => {
            Some(name)
        }
        Change::OverrideSet(_) | Change::OverrideRemoved { .. } | Change::UserChanged(_) | Change::TokenChanged(_) => {
            None
        }
    }
}

fn apply_to(state: &mut Option<Definitions>, change: &Change) {
    match (change, state.as_mut()) {
        (Change::FlagSet(flag), Some((current, _))) => *current = (**flag).clone(),
        (Change::FlagSet(flag), None) => *state = Some(((**flag).clone(), Vec::new())),
        (Change::FlagRemoved(_), _) => *state = None,
        (Change::ScheduledChangeSet(_, change), Some((_, schedule))) => {
            schedule.retain(|other| other.id() != change.id());
            schedule.push((**change).clone());
        }
        (Change::ScheduledChangeRemoved(_, id), Some((_, schedule))) => schedule.retain(|other| other.id() != *id),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::{flag::tests::boolean_flag, instant::Instant, serve::Serve};

    fn scheduled(id: u128) -> ScheduledChange {
        ScheduledChange {
            id: Uuid::from_u128(id),
            scheduled_at: Instant::from_micros(10),
            serve: Some(Serve::Variant("on".to_owned())),
            enabled: None,
            description: None,
            cancelled_at: None,
        }
    }

    fn named(name: &str) -> Flag {
        Flag { name: FlagName::new(name).unwrap(), ..boolean_flag() }
    }

    #[test]
    fn changes_create_modify_and_remove_a_flag() {
        let name = FlagName::new("f").unwrap();
        let mut snapshot = Snapshot::default();
        snapshot.apply(&Change::FlagSet(Box::new(boolean_flag().into())));
        snapshot.apply(&Change::ScheduledChangeSet(name.clone(), Box::new(scheduled(1).into())));
        snapshot.apply(&Change::ScheduledChangeSet(name.clone(), Box::new(scheduled(1).into())));
        assert_eq!(snapshot.get("f").unwrap().schedule().len(), 1);
        snapshot.apply(&Change::ScheduledChangeRemoved(name.clone(), Uuid::from_u128(1)));
        assert!(snapshot.get("f").unwrap().schedule().is_empty());
        snapshot.apply(&Change::FlagRemoved(name));
        assert!(snapshot.is_empty());
    }

    #[test]
    fn applying_a_change_does_not_recompile_other_flags() {
        let mut snapshot = Snapshot::new([(named("a"), vec![]), (named("b"), vec![])]);
        let before = Arc::clone(snapshot.get("a").unwrap());
        snapshot.apply(&Change::FlagSet(Box::new(Flag { enabled: false, ..named("b") }.into())));
        assert!(Arc::ptr_eq(&before, snapshot.get("a").unwrap()));
        assert!(!snapshot.get("b").unwrap().flag().unwrap().enabled);
    }

    #[test]
    fn prepare_applies_changes_of_one_flag_in_order_and_compiles_once() {
        let snapshot = Snapshot::default();
        let name = FlagName::new("f").unwrap();
        let edit = snapshot.prepare(&[
            Change::FlagSet(Box::new(boolean_flag().into())),
            Change::ScheduledChangeSet(name, Box::new(scheduled(1).into())),
        ]);
        assert_eq!(edit.0.len(), 1);
        assert_eq!(edit.0[0].1.as_ref().unwrap().schedule().len(), 1);
    }

    #[test]
    fn flags_changed_by_ignores_fields_that_evaluation_does_not_read() {
        let snapshot = Snapshot::new([(named("a"), vec![scheduled(1), scheduled(2)])]);
        let changed = |change: Change| {
            let edit = snapshot.prepare([&change]);
            snapshot.flags_changed_by(&edit).map(|(name, ..)| name.clone()).collect::<Vec<_>>()
        };
        let name = FlagName::new("a").unwrap();
        let described = Flag { description: Some("new".to_owned()), owner: Some("me".to_owned()), ..named("a") };
        assert_eq!(changed(Change::FlagSet(Box::new(described.into()))), []);
        let described_change = ScheduledChange { description: Some("new".to_owned()), ..scheduled(1) };
        assert_eq!(changed(Change::ScheduledChangeSet(name.clone(), Box::new(described_change.into()))), []);
        assert_eq!(
            changed(Change::FlagSet(Box::new(Flag { enabled: false, ..named("a") }.into()))),
            std::slice::from_ref(&name)
        );
        assert_eq!(
            changed(Change::ScheduledChangeRemoved(name.clone(), Uuid::from_u128(1))),
            std::slice::from_ref(&name)
        );
        assert_eq!(changed(Change::FlagRemoved(name.clone())), [name]);
        assert_eq!(changed(Change::FlagSet(Box::new(named("b").into()))).len(), 1);
    }

    #[test]
    fn unreadable_scheduled_change_makes_its_flag_unreadable_until_it_is_replaced() {
        let mut snapshot = Snapshot::new([(named("a"), vec![scheduled(1)])]);
        let name = FlagName::new("a").unwrap();
        let unreadable = ScheduledChangeDefinition::Unreadable { id: Uuid::from_u128(1), reason: "new".to_owned() };
        snapshot.apply(&Change::ScheduledChangeSet(name.clone(), Box::new(unreadable)));
        let error = snapshot.get("a").unwrap().compiled().compile_error().unwrap();
        assert!(error.detail.contains("new") && error.detail.starts_with("scheduled change"), "{error}");
        snapshot.apply(&Change::ScheduledChangeSet(name, Box::new(scheduled(1).into())));
        assert!(snapshot.get("a").unwrap().compiled().compile_error().is_none());
        assert_eq!(snapshot.get("a").unwrap().schedule().len(), 1);
    }

    #[test]
    fn invalid_flag_is_kept_with_its_compile_error() {
        let broken = Flag { off_variant: "nope".to_owned(), ..named("broken") };
        let snapshot = Snapshot::new([(broken, vec![]), (named("valid"), vec![])]);
        assert_eq!(snapshot.get("broken").unwrap().compiled().compile_error().unwrap().pointer, "/off_variant");
        assert!(snapshot.get("valid").unwrap().compiled().compile_error().is_none());
    }
}
