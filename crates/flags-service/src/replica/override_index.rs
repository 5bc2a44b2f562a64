//! All overrides in memory, by user.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
    hash::{Hash, Hasher},
};

use flags_domain::{FlagName, Instant, OverrideStatus, OverrideView, PreparedValue, UserOverride};
use rustc_hash::FxHashMap;
use uuid::Uuid;

use super::interner::Interner;

/// All overrides, compactly: values, reasons and names are kept once however many overrides share them.
#[derive(Debug, Default)]
pub(super) struct OverrideIndex {
    /// Each user's overrides in order of the flags' names.
    users: FxHashMap<Uuid, Box<[Entry]>>,
    values: Interner<InternedValue>,
    reasons: Interner<Box<str>>,
    flags: Vec<FlagName>,
    flag_keys: FxHashMap<FlagName, u32>,
    counts: Counts,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    id: Uuid,
    created_at: Instant,
    updated_at: Instant,
    /// Microseconds since 1970, [`Entry::NEVER`] if it has no end: half the size of an `Option`.
    ends_at: i64,
    flag: u32,
    value: u32,
    /// [`Entry::NO_REASON`] if it has none.
    reason: u32,
    enabled: bool,
}

impl Entry {
    const NO_REASON: u32 = u32::MAX;
    /// Later than any instant that can be written.
    const NEVER: i64 = i64::MAX;

    fn expires_at(&self) -> Option<Instant> {
        (self.ends_at != Self::NEVER).then_some(Instant::from_micros(self.ends_at))
    }
}

/// A value with its text as identity: `1` and `1.0` are the same to evaluation, but come back as written.
#[derive(Debug)]
struct InternedValue(PreparedValue);

impl PartialEq for InternedValue {
    fn eq(&self, other: &Self) -> bool {
        self.0.json() == other.0.json()
    }
}

impl Eq for InternedValue {}

impl Hash for InternedValue {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.json().hash(state);
    }
}

/// An override in the replica.
#[derive(Clone, Copy, Debug)]
pub struct OverrideRef<'r> {
    /// Its id.
    pub id: Uuid,
    /// The flag.
    pub flag_name: &'r FlagName,
    /// What the user gets.
    pub value: &'r PreparedValue,
    /// Whether it is switched on.
    pub enabled: bool,
    /// Why.
    pub reason: Option<&'r str>,
    /// When it was made.
    pub created_at: Instant,
    /// When it was last changed.
    pub updated_at: Instant,
    /// Its end.
    pub expires_at: Option<Instant>,
}

impl<'r> OverrideRef<'r> {
    /// What resolution looks at.
    pub const fn view(&self) -> OverrideView<'r> {
        OverrideView { value: self.value, enabled: self.enabled, expires_at: self.expires_at }
    }

    /// Its status at `now`.
    pub fn status(&self, now: Instant) -> OverrideStatus {
        OverrideStatus::of(self.enabled, self.expires_at, now)
    }
}

impl OverrideIndex {
    /// The user's overrides in order of the flags' names, whatever their status.
    pub(super) fn of_user(&self, user_id: Uuid) -> impl Iterator<Item = OverrideRef<'_>> {
        let entries = self.users.get(&user_id).map_or(&[][..], |entries| entries);
        entries.iter().filter_map(|entry| self.read(entry))
    }

    fn read(&self, entry: &Entry) -> Option<OverrideRef<'_>> {
        Some(OverrideRef {
            id: entry.id,
            flag_name: self.flags.get(entry.flag as usize)?,
            value: &self.values.get(entry.value)?.0,
            enabled: entry.enabled,
            reason: self.reasons.get(entry.reason).map(|reason| &**reason),
            created_at: entry.created_at,
            updated_at: entry.updated_at,
            expires_at: entry.expires_at(),
        })
    }

    /// Puts an override in, in place of the one of the same user and flag.
    pub(super) fn set(&mut self, new: &UserOverride) {
        self.remove(new.user_id, &new.flag_name);
        let entry = Entry {
            id: new.id,
            created_at: new.created_at,
            updated_at: new.updated_at,
            ends_at: new.expires_at.map_or(Entry::NEVER, Instant::as_micros),
            flag: self.flag_key(&new.flag_name),
            value: self.values.hold(InternedValue(PreparedValue::new(new.override_value.clone()))),
            reason: new.reason.as_deref().map_or(Entry::NO_REASON, |reason| self.reasons.hold(reason.into())),
            enabled: new.is_enabled(),
        };
        self.counts.add(new.user_id, &entry);
        let flags = &self.flags;
        let entries = self.users.remove(&new.user_id).unwrap_or_default();
        let place = entries.partition_point(|present| flags[present.flag as usize] < new.flag_name);
        let (before, after) = entries.split_at(place);
        self.users.insert(new.user_id, [before, &[entry], after].concat().into());
    }

    /// Takes the override of this user and flag out, if there is one.
    pub(super) fn remove(&mut self, user_id: Uuid, flag_name: &FlagName) {
        let Some(&flag) = self.flag_keys.get(flag_name) else { return };
        let Some(entries) = self.users.get_mut(&user_id) else { return };
        let Some(place) = entries.iter().position(|entry| entry.flag == flag) else { return };
        let gone = entries[place];
        if entries.len() == 1 {
            self.users.remove(&user_id);
        } else {
            let mut rest = std::mem::take(entries).into_vec();
            rest.remove(place);
            *entries = rest.into();
        }
        self.counts.subtract(&gone);
        self.values.release(gone.value);
        self.reasons.release(gone.reason);
    }

    fn flag_key(&mut self, name: &FlagName) -> u32 {
        if let Some(&key) = self.flag_keys.get(name) {
            return key;
        }
        let key = u32::try_from(self.flags.len()).unwrap_or(u32::MAX);
        self.flags.push(name.clone());
        self.flag_keys.insert(name.clone(), key);
        key
    }

    /// How many overrides of each flag are active at `now`, which must not go back. Flags that never had any are left
    /// out.
    pub(super) fn count_active(&mut self, now: Instant) -> BTreeMap<FlagName, u64> {
        let users = &self.users;
        self.counts.advance(now.as_micros(), |user_id, flag| {
            users.get(&user_id)?.iter().find(|entry| entry.flag == flag).copied()
        });
        let count = |(key, name): (usize, &FlagName)| (name.clone(), self.counts.active.get(key).copied().unwrap_or(0));
        self.flags.iter().enumerate().map(count).collect()
    }
}

/// How many overrides of each flag are active, kept up with changes and with time.
#[derive(Debug, Default)]
struct Counts {
    active: Vec<u64>,
    /// Ends to come; some may be out of date, as overrides change.
    ends: BinaryHeap<Reverse<(i64, Uuid, u32)>>,
    /// Everything that ends up to here is not counted any more.
    horizon: Option<i64>,
}

impl Counts {
    fn is_counted(&self, entry: &Entry) -> bool {
        entry.enabled && self.horizon.is_none_or(|horizon| entry.ends_at > horizon)
    }

    fn add(&mut self, user_id: Uuid, entry: &Entry) {
        let key = entry.flag as usize;
        if self.active.len() <= key {
            self.active.resize(key + 1, 0);
        }
        if self.is_counted(entry) {
            self.active[key] += 1;
            if entry.ends_at != Entry::NEVER {
                self.ends.push(Reverse((entry.ends_at, user_id, entry.flag)));
            }
        }
    }

    fn subtract(&mut self, entry: &Entry) {
        if self.is_counted(entry)
            && let Some(count) = self.active.get_mut(entry.flag as usize)
        {
            *count = count.saturating_sub(1);
        }
    }

    /// Counts out what has ended since the last call; `find` gives the present override of a user and flag.
    fn advance(&mut self, now: i64, find: impl Fn(Uuid, u32) -> Option<Entry>) {
        let mut last = None;
        while let Some(&Reverse(end)) = self.ends.peek()
            && end.0 <= now
        {
            self.ends.pop();
            // An override that was changed but for its end stands in the heap twice.
            if last.replace(end) == Some(end) {
                continue;
            }
            let (ends_at, user_id, flag) = end;
            if let Some(entry) = find(user_id, flag).filter(|entry| entry.ends_at == ends_at) {
                self.subtract(&entry);
            }
        }
        self.horizon = self.horizon.max(Some(now));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn name(text: &str) -> FlagName {
        FlagName::new(text).unwrap()
    }

    fn at(micros: i64) -> Instant {
        Instant::from_micros(micros)
    }

    fn user_override(user: u128, flag: &str, value: Value, expires_at: Option<i64>) -> UserOverride {
        UserOverride {
            id: Uuid::from_u128(user),
            user_id: Uuid::from_u128(user),
            flag_name: name(flag),
            override_value: value,
            enabled: None,
            reason: Some("because".to_owned()),
            created_by: "user:1".to_owned(),
            created_at: at(0),
            updated_at: at(0),
            expires_at: expires_at.map(at),
        }
    }

    fn flags_of(index: &OverrideIndex, user: u128) -> Vec<String> {
        index.of_user(Uuid::from_u128(user)).map(|o| o.flag_name.to_string()).collect()
    }

    #[test]
    fn a_user_sees_their_own_overrides_in_order_of_names() {
        let mut index = OverrideIndex::default();
        for flag in ["m", "a", "z"] {
            index.set(&user_override(1, flag, json!(true), None));
        }
        index.set(&user_override(2, "b", json!(true), None));
        assert_eq!(flags_of(&index, 1), ["a", "m", "z"]);
        index.remove(Uuid::from_u128(1), &name("m"));
        index.remove(Uuid::from_u128(1), &name("unknown"));
        assert_eq!(flags_of(&index, 1), ["a", "z"]);
        assert_eq!(flags_of(&index, 2), ["b"]);
        assert_eq!(flags_of(&index, 3), [""; 0]);
    }

    #[test]
    fn setting_again_replaces() {
        let mut index = OverrideIndex::default();
        index.set(&user_override(1, "a", json!(1), None));
        index.set(&user_override(1, "a", json!(1.0), None));
        let values: Vec<_> = index.of_user(Uuid::from_u128(1)).map(|o| o.value.json().to_owned()).collect();
        assert_eq!(values, ["1.0"]);
    }

    #[test]
    fn counts_follow_changes_and_time() {
        let mut index = OverrideIndex::default();
        let counts = |index: &mut OverrideIndex, now| index.count_active(at(now)).into_values().collect::<Vec<_>>();
        index.set(&user_override(1, "a", json!(1), Some(100)));
        index.set(&user_override(2, "a", json!(1), None));
        index.set(&user_override(3, "b", json!(1), Some(200)));
        assert_eq!(counts(&mut index, 50), [2, 1]);
        // The same end twice in the heap is counted out once.
        index.set(&user_override(1, "a", json!(2), Some(100)));
        index.set(&user_override(4, "a", json!(1), Some(100)));
        assert_eq!(counts(&mut index, 99), [3, 1]);
        assert_eq!(counts(&mut index, 100), [1, 1]);
        // Removing what has ended already changes nothing; extending it brings it back.
        index.remove(Uuid::from_u128(4), &name("a"));
        index.set(&user_override(1, "a", json!(2), Some(300)));
        assert_eq!(counts(&mut index, 150), [2, 1]);
        index.set(&UserOverride { enabled: Some(false), ..user_override(2, "a", json!(1), None) });
        assert_eq!(counts(&mut index, 250), [1, 0]);
        assert_eq!(counts(&mut index, 300), [0, 0]);
    }
}
