//! All overrides in memory, by user.

use std::{
    collections::BTreeMap,
    hash::{Hash, Hasher},
};

use flags_domain::{FlagName, Instant, PreparedValue, UserOverride};
use rustc_hash::FxHashMap;
use uuid::Uuid;

use super::{
    counts::Counts,
    interner::Interner,
    override_ref::{OverrideMetadata, OverrideRef},
};

/// Users are spread over so many maps, so that one that grows is a small one: a commit must not make readers wait until
/// millions of users have been moved.
const SHARDS: usize = 1024;

/// All overrides, compactly: values, reasons and names are kept once however many overrides share them. Fifty-six bytes an
/// override, some thirty a user, sixteen for an end.
#[derive(Debug)]
pub(super) struct OverrideIndex {
    /// Each user's first entry; the others hang on it in order of the flags' names.
    users: Box<[FxHashMap<Uuid, u32>]>,
    entries: Vec<Entry>,
    /// The first of the entries that are free.
    free: u32,
    values: Interner<InternedValue>,
    notes: Interner<OverrideMetadata>,
    flags: Vec<FlagName>,
    flag_keys: FxHashMap<FlagName, u32>,
    counts: Counts,
}

impl Default for OverrideIndex {
    fn default() -> Self {
        Self {
            users: std::iter::repeat_with(FxHashMap::default).take(SHARDS).collect(),
            entries: Vec::new(),
            free: Entry::NONE,
            values: Interner::default(),
            notes: Interner::default(),
            flags: Vec::new(),
            flag_keys: FxHashMap::default(),
            counts: Counts::default(),
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    id: Uuid,
    created_at: Instant,
    updated_at: Instant,
    /// Microseconds since 1970, [`Entry::NEVER`] if it has no end, [`Entry::FREE`] if there is no override here.
    pub(super) ends_at: i64,
    /// Key of the flag, and two marks in the highest bits.
    pub(super) flag_and_marks: u32,
    value: u32,
    note: u32,
    /// The user's next entry, or [`Entry::NONE`].
    next: u32,
}

impl Entry {
    const NONE: u32 = u32::MAX;
    /// Later than any instant that can be written.
    pub(super) const NEVER: i64 = i64::MAX;
    /// Earlier than any.
    const FREE: i64 = i64::MIN;
    pub(super) const ENABLED: u32 = 1 << 31;
    /// It is among those counted as active.
    pub(super) const COUNTED: u32 = 1 << 30;

    pub(super) const fn flag(&self) -> u32 {
        self.flag_and_marks & !(Self::ENABLED | Self::COUNTED)
    }

    pub(super) const fn is(&self, mark: u32) -> bool {
        self.flag_and_marks & mark != 0
    }

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

/// Which of the maps of users.
pub(super) fn shard(user_id: Uuid) -> usize {
    // By the last bytes, which are random in every kind of UUID in use: cursors of lists depend on it.
    let [.., high, low] = *user_id.as_bytes();
    usize::from(u16::from_be_bytes([high, low])) % SHARDS
}

impl OverrideIndex {
    /// The user's overrides in order of the flags' names, whatever their status.
    pub(super) fn of_user(&self, user_id: Uuid) -> impl Iterator<Item = OverrideRef<'_>> {
        self.chain(user_id).filter_map(|(_, entry)| self.read(entry))
    }

    /// The users who have overrides, part by part.
    pub(super) fn users_of_part(&self, part: usize) -> Option<impl Iterator<Item = Uuid>> {
        self.users.get(part).map(|users| users.keys().copied())
    }

    /// The user's entries with their keys.
    fn chain(&self, user_id: Uuid) -> impl Iterator<Item = (u32, &Entry)> {
        let mut next = self.users[shard(user_id)].get(&user_id).copied().unwrap_or(Entry::NONE);
        std::iter::from_fn(move || {
            let key = next;
            let entry = self.entries.get(key as usize)?;
            next = entry.next;
            Some((key, entry))
        })
    }

    fn read(&self, entry: &Entry) -> Option<OverrideRef<'_>> {
        let note = self.notes.get(entry.note)?;
        Some(OverrideRef {
            id: entry.id,
            flag_name: self.flags.get(entry.flag() as usize)?,
            value: &self.values.get(entry.value)?.0,
            enabled: entry.is(Entry::ENABLED),
            reason: note.reason.as_deref(),
            created_by: &note.created_by,
            created_at: entry.created_at,
            updated_at: entry.updated_at,
            expires_at: entry.expires_at(),
        })
    }

    /// Puts an override in, in place of the one of the same user and flag.
    pub(super) fn set(&mut self, new: &UserOverride) {
        let flag = self.flag_key(&new.flag_name);
        let entry = Entry {
            id: new.id,
            created_at: new.created_at,
            updated_at: new.updated_at,
            ends_at: new.expires_at.map_or(Entry::NEVER, Instant::as_micros),
            flag_and_marks: flag | if new.is_enabled() { Entry::ENABLED } else { 0 },
            value: self.values.hold(InternedValue(PreparedValue::new(new.override_value.clone()))),
            note: self.notes.hold(OverrideMetadata::of(new)),
            next: Entry::NONE,
        };
        let flags = &self.flags;
        let before = self.chain(new.user_id).take_while(|(_, present)| flags[present.flag() as usize] < new.flag_name);
        let before = before.map(|(key, _)| key).last();
        let after = match before {
            Some(key) => self.entries[key as usize].next,
            None => self.users[shard(new.user_id)].get(&new.user_id).copied().unwrap_or(Entry::NONE),
        };
        match self.entries.get(after as usize).copied() {
            Some(old) if old.flag() == flag => {
                self.counts.uncount(&old);
                self.values.release(old.value);
                self.notes.release(old.note);
                self.entries[after as usize] = Entry { next: old.next, ..entry };
                self.counts.count(&mut self.entries, after, old.ends_at);
            }
            _ => {
                let key = self.occupy(Entry { next: after, ..entry });
                match before {
                    Some(before) => self.entries[before as usize].next = key,
                    None => _ = self.users[shard(new.user_id)].insert(new.user_id, key),
                }
                self.counts.count(&mut self.entries, key, Entry::FREE);
            }
        }
    }

    /// Takes the override of this user and flag out, if there is one, and returns its end.
    pub(super) fn remove(&mut self, user_id: Uuid, flag_name: &FlagName) -> Option<Removed> {
        let flag = *self.flag_keys.get(flag_name)?;
        let mut before = None;
        let (key, gone) = self.chain(user_id).map(|(key, entry)| (key, *entry)).find(|(key, entry)| {
            let found = entry.flag() == flag;
            if !found {
                before = Some(*key);
            }
            found
        })?;
        match before {
            Some(before) => self.entries[before as usize].next = gone.next,
            None if gone.next == Entry::NONE => _ = self.users[shard(user_id)].remove(&user_id),
            None => _ = self.users[shard(user_id)].insert(user_id, gone.next),
        }
        self.counts.uncount(&gone);
        self.values.release(gone.value);
        self.notes.release(gone.note);
        self.entries[key as usize] = Entry { ends_at: Entry::FREE, next: self.free, ..gone };
        self.free = key;
        Some(Removed { expires_at: gone.expires_at() })
    }

    /// The key of a free place, filled.
    fn occupy(&mut self, entry: Entry) -> u32 {
        let key = self.free;
        if let Some(place) = self.entries.get_mut(key as usize) {
            self.free = place.next;
            *place = entry;
            return key;
        }
        self.entries.push(entry);
        u32::try_from(self.entries.len() - 1).unwrap_or(Entry::NONE)
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

    /// Counts out up to `most` overrides that have ended at `now`, which must not go back; whether none is left.
    pub(super) fn count_out(&mut self, now: Instant, most: usize) -> bool {
        self.counts.advance(&mut self.entries, now.as_micros(), most)
    }

    /// How many overrides of each flag are counted as active. Flags that never had any are left out.
    pub(super) fn active(&self) -> BTreeMap<FlagName, u64> {
        let count = |(key, name): (usize, &FlagName)| (name.clone(), self.counts.of_flag(key));
        self.flags.iter().enumerate().map(count).collect()
    }
}

/// What was taken out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Removed {
    /// Its end.
    pub(super) expires_at: Option<Instant>,
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
        let counts = |index: &mut OverrideIndex, now| {
            while !index.count_out(at(now), 1) {}
            index.active().into_values().collect::<Vec<_>>()
        };
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

    #[test]
    fn places_are_used_again_and_their_old_ends_forgotten() {
        let mut index = OverrideIndex::default();
        for round in 0..100 {
            for user in 0..10 {
                index.set(&user_override(user, "a", json!(round), Some(1_000 + i64::from(round))));
            }
            for user in 0..10 {
                let removed = index.remove(Uuid::from_u128(user), &name("a")).unwrap();
                assert_eq!(removed.expires_at, Some(at(1_000 + i64::from(round))));
            }
        }
        assert_eq!(index.entries.len(), 10);
        assert_eq!(index.users.iter().map(FxHashMap::len).sum::<usize>(), 0);
        assert_eq!(index.remove(Uuid::from_u128(1), &name("a")), None);
        index.set(&user_override(3, "b", json!(1), None));
        while !index.count_out(at(2_000), 7) {}
        assert_eq!(index.active().into_values().collect::<Vec<_>>(), [0, 1]);
    }

    #[test]
    fn ends_that_come_and_go_take_no_room_for_ever_and_none_is_forgotten() {
        let mut index = OverrideIndex::default();
        let off = |user, ends| UserOverride { enabled: Some(false), ..user_override(user, "a", json!(1), Some(ends)) };
        index.set(&off(1, 500));
        for _ in 0..150_000 {
            index.set(&user_override(2, "a", json!(1), None));
            index.set(&user_override(2, "a", json!(1), Some(400)));
        }
        assert!(index.counts.pending() < 110_000, "{}", index.counts.pending());
        index.set(&UserOverride { enabled: Some(true), ..off(1, 500) });
        let mut counts = |now| {
            while !index.count_out(at(now), 1_000) {}
            index.active().into_values().collect::<Vec<_>>()
        };
        assert_eq!(counts(399), [2]);
        assert_eq!(counts(400), [1]);
        assert_eq!(counts(500), [0]);
    }

    #[test]
    fn an_override_takes_few_bytes() {
        assert_eq!(size_of::<Entry>(), 56);
    }
}
