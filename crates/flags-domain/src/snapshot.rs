//! All flags of one revision, compiled.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    sync::Arc,
};

use crate::{change::Change, compiled::CompiledFlag, flag::Flag, name::FlagName, schedule::ScheduledChange};

/// All flags, compiled, in order of their names.
///
/// Applying a change recompiles the flags it names and nothing else. Cloning copies pointers only.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    flags: BTreeMap<FlagName, Arc<FlagState>>,
}

/// A flag's definition with its schedule, and both compiled.
#[derive(Debug)]
pub struct FlagState {
    flag: Flag,
    schedule: Vec<ScheduledChange>,
    compiled: CompiledFlag,
}

impl FlagState {
    fn new(flag: Flag, schedule: Vec<ScheduledChange>) -> Self {
        let compiled = CompiledFlag::compile(&flag, &schedule);
        Self { flag, schedule, compiled }
    }

    /// The definition.
    pub const fn flag(&self) -> &Flag {
        &self.flag
    }

    /// All scheduled changes, cancelled ones included, in no particular order.
    pub fn schedule(&self) -> &[ScheduledChange] {
        &self.schedule
    }

    /// What evaluation reads.
    pub const fn compiled(&self) -> &CompiledFlag {
        &self.compiled
    }

    /// Whether the two give everybody the same at every instant: they differ in what is for people only.
    pub fn evaluates_like(&self, other: &Self) -> bool {
        self.essence() == other.essence()
    }

    /// Flag and schedule without what is for people only.
    fn essence(&self) -> (Flag, Vec<ScheduledChange>) {
        let flag = self.flag.clone();
        let flag = Flag { description: None, owner: None, tags: Vec::new(), ..flag };
        let mut schedule: Vec<_> =
            self.schedule.iter().map(|change| ScheduledChange { description: None, ..change.clone() }).collect();
        schedule.sort_by_key(|change| change.id);
        (flag, schedule)
    }
}

/// The flags that some changes touch, compiled but not yet in force: `None` where a flag goes.
///
/// Compiling takes time, putting in force does not; whoever guards a snapshot by a lock compiles outside of it.
#[derive(Debug)]
pub struct Edit(Vec<(FlagName, Option<Arc<FlagState>>)>);

impl Edit {
    /// The flags it names, with their state from then on.
    pub fn flags(&self) -> impl Iterator<Item = (&FlagName, Option<&Arc<FlagState>>)> {
        self.0.iter().map(|(name, state)| (name, state.as_ref()))
    }
}

impl Snapshot {
    /// A snapshot of these flags with their scheduled changes.
    pub fn new(flags: impl IntoIterator<Item = (Flag, Vec<ScheduledChange>)>) -> Self {
        let state = |(flag, schedule): (Flag, _)| (flag.name.clone(), Arc::new(FlagState::new(flag, schedule)));
        Self { flags: flags.into_iter().map(state).collect() }
    }

    /// The flag of this name.
    pub fn get(&self, name: &str) -> Option<&Arc<FlagState>> {
        self.flags.get(name)
    }

    /// All flags in order of their names.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<FlagState>> {
        self.flags.values()
    }

    /// How many flags there are, archived ones included.
    pub fn len(&self) -> usize {
        self.flags.len()
    }

    /// Whether there are no flags.
    pub fn is_empty(&self) -> bool {
        self.flags.is_empty()
    }

    /// Compiles what `changes` touch, each flag once.
    pub fn prepare<'c>(&self, changes: impl IntoIterator<Item = &'c Change>) -> Edit {
        let mut touched: BTreeMap<FlagName, Option<(Flag, Vec<ScheduledChange>)>> = BTreeMap::new();
        for change in changes {
            let Some(name) = flag_of(change) else { continue };
            let state = match touched.entry(name.clone()) {
                Entry::Occupied(entry) => entry.into_mut(),
                Entry::Vacant(entry) => entry.insert(self.get(name).map(|s| (s.flag.clone(), s.schedule.clone()))),
            };
            edit(state, change);
        }
        let compile = |(name, state): (_, Option<(Flag, Vec<_>)>)| {
            (name, state.map(|(flag, schedule)| Arc::new(FlagState::new(flag, schedule))))
        };
        Edit(touched.into_iter().map(compile).collect())
    }

    /// The flags that an edit prepared from this state takes away, brings, or makes give something else, each with its state
    /// before and after.
    pub fn flags_changed_by<'s>(
        &'s self,
        edit: &'s Edit,
    ) -> impl Iterator<Item = (&'s FlagName, Option<&'s FlagState>, Option<&'s FlagState>)> {
        let states = edit.flags().map(|(name, after)| (name, self.get(name).map(Arc::as_ref), after.map(Arc::as_ref)));
        states.filter(|(_, before, after)| match (before, after) {
            (Some(before), Some(after)) => !before.evaluates_like(after),
            (before, after) => before.is_some() || after.is_some(),
        })
    }

    /// Puts a prepared edit in force. The edit must have been prepared from this very state.
    pub fn commit(&mut self, edit: Edit) {
        for (name, state) in edit.0 {
            match state {
                Some(state) => self.flags.insert(name, state),
                None => self.flags.remove(&name),
            };
        }
    }

    /// Applies one change. Changes of overrides, users and tokens are none of a snapshot's.
    pub fn apply(&mut self, change: &Change) {
        let edit = self.prepare([change]);
        self.commit(edit);
    }
}

fn flag_of(change: &Change) -> Option<&FlagName> {
    match change {
        Change::FlagSet(flag) => Some(&flag.name),
        Change::FlagRemoved(name) | Change::ScheduledChangeSet(name, _) | Change::ScheduledChangeRemoved(name, _) => {
            Some(name)
        }
        Change::OverrideSet(_) | Change::OverrideRemoved { .. } | Change::UserTouched(_) | Change::TokenTouched(_) => {
            None
        }
    }
}

fn edit(state: &mut Option<(Flag, Vec<ScheduledChange>)>, change: &Change) {
    match (change, state.as_mut()) {
        (Change::FlagSet(flag), Some((present, _))) => *present = (**flag).clone(),
        (Change::FlagSet(flag), None) => *state = Some(((**flag).clone(), Vec::new())),
        (Change::FlagRemoved(_), _) => *state = None,
        (Change::ScheduledChangeSet(_, change), Some((_, schedule))) => {
            schedule.retain(|present| present.id != change.id);
            schedule.push((**change).clone());
        }
        (Change::ScheduledChangeRemoved(_, id), Some((_, schedule))) => schedule.retain(|present| present.id != *id),
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
    fn changes_build_up_and_take_down_a_flag() {
        let name = FlagName::new("f").unwrap();
        let mut snapshot = Snapshot::default();
        snapshot.apply(&Change::FlagSet(Box::new(boolean_flag())));
        snapshot.apply(&Change::ScheduledChangeSet(name.clone(), Box::new(scheduled(1))));
        snapshot.apply(&Change::ScheduledChangeSet(name.clone(), Box::new(scheduled(1))));
        assert_eq!(snapshot.get("f").unwrap().schedule().len(), 1);
        snapshot.apply(&Change::ScheduledChangeRemoved(name.clone(), Uuid::from_u128(1)));
        assert!(snapshot.get("f").unwrap().schedule().is_empty());
        snapshot.apply(&Change::FlagRemoved(name));
        assert!(snapshot.is_empty());
    }

    #[test]
    fn applying_a_change_leaves_every_other_flag_as_it_is() {
        let mut snapshot = Snapshot::new([(named("a"), vec![]), (named("b"), vec![])]);
        let before = Arc::clone(snapshot.get("a").unwrap());
        snapshot.apply(&Change::FlagSet(Box::new(Flag { enabled: false, ..named("b") })));
        assert!(Arc::ptr_eq(&before, snapshot.get("a").unwrap()));
        assert!(!snapshot.get("b").unwrap().flag().enabled);
    }

    #[test]
    fn several_changes_of_one_flag_are_compiled_once_and_in_order() {
        let snapshot = Snapshot::default();
        let name = FlagName::new("f").unwrap();
        let edit = snapshot.prepare(&[
            Change::FlagSet(Box::new(boolean_flag())),
            Change::ScheduledChangeSet(name, Box::new(scheduled(1))),
        ]);
        assert_eq!(edit.0.len(), 1);
        assert_eq!(edit.0[0].1.as_ref().unwrap().schedule().len(), 1);
    }

    #[test]
    fn what_is_for_people_only_changes_no_flag() {
        let snapshot = Snapshot::new([(named("a"), vec![scheduled(1), scheduled(2)])]);
        let changed = |change: Change| {
            let edit = snapshot.prepare([&change]);
            snapshot.flags_changed_by(&edit).map(|(name, ..)| name.clone()).collect::<Vec<_>>()
        };
        let name = FlagName::new("a").unwrap();
        let described = Flag { description: Some("new".to_owned()), owner: Some("me".to_owned()), ..named("a") };
        assert_eq!(changed(Change::FlagSet(Box::new(described))), []);
        let renoted = ScheduledChange { description: Some("new".to_owned()), ..scheduled(1) };
        assert_eq!(changed(Change::ScheduledChangeSet(name.clone(), Box::new(renoted))), []);
        assert_eq!(
            changed(Change::FlagSet(Box::new(Flag { enabled: false, ..named("a") }))),
            std::slice::from_ref(&name)
        );
        assert_eq!(
            changed(Change::ScheduledChangeRemoved(name.clone(), Uuid::from_u128(1))),
            std::slice::from_ref(&name)
        );
        assert_eq!(changed(Change::FlagRemoved(name.clone())), [name]);
        assert_eq!(changed(Change::FlagSet(Box::new(named("b")))).len(), 1);
    }

    #[test]
    fn a_flag_that_does_not_compile_is_held_as_its_failure() {
        let broken = Flag { off_variant: "nope".to_owned(), ..named("broken") };
        let snapshot = Snapshot::new([(broken, vec![]), (named("sound"), vec![])]);
        assert_eq!(snapshot.get("broken").unwrap().compiled().failure().unwrap().pointer, "/off_variant");
        assert!(snapshot.get("sound").unwrap().compiled().failure().is_none());
    }
}
