//! Compact index of all overrides by user.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use flags_domain::{FlagName, Instant, PreparedValue, UserOverride};
use uuid::Uuid;

use super::{
    counts::ActiveCounts,
    interner::Interner,
    override_ref::{InternedValue, OverrideMetadata, SharedOverride},
    user_shards::{ShardKey, UserShards},
};

/// Index of all overrides by user.
///
/// Values, metadata and flag names are stored once, regardless of the number of overrides that share them. An override
/// takes 56 bytes, a user about 30 bytes and an expiry 16 bytes.
#[derive(Debug)]
pub(super) struct OverrideIndex {
    /// Each user's first entry. A user's entries form a linked list in order of flag names.
    users: UserShards,
    entries: Vec<Entry>,
    /// Key of the first free entry. Free entries form a linked list.
    first_free: u32,
    values: Interner<InternedValue>,
    metadata: Interner<OverrideMetadata>,
    flags: Vec<FlagName>,
    flag_keys: HashMap<FlagName, u32>,
    counts: ActiveCounts,
}

/// A stored override. The key of an entry is its position in `OverrideIndex::entries`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    id: Uuid,
    created_at: Instant,
    updated_at: Instant,
    /// Microseconds since the Unix epoch, [`Entry::NEVER`] without expiry, or [`Entry::FREE`] for a free entry.
    pub(super) expires_at: i64,
    /// Key of the flag, combined with the bits [`Entry::ENABLED`] and [`Entry::COUNTED`].
    pub(super) flag_and_bits: u32,
    value: u32,
    metadata: u32,
    /// Key of the user's next entry, or of the next free entry; [`Entry::NONE`] at the end of the list.
    next: u32,
}

impl Entry {
    const NONE: u32 = u32::MAX;
    /// Later than any [`Instant`].
    pub(super) const NEVER: i64 = i64::MAX;
    /// Earlier than any [`Instant`].
    const FREE: i64 = i64::MIN;
    pub(super) const ENABLED: u32 = 1 << 31;
    /// The entry is included in the counts of active overrides.
    pub(super) const COUNTED: u32 = 1 << 30;

    /// Key of the flag.
    pub(super) const fn flag(&self) -> u32 {
        self.flag_and_bits & !(Self::ENABLED | Self::COUNTED)
    }

    pub(super) const fn has(&self, bit: u32) -> bool {
        self.flag_and_bits & bit != 0
    }

    fn expires_at(&self) -> Option<Instant> {
        (self.expires_at != Self::NEVER).then_some(Instant::from_micros(self.expires_at))
    }
}

/// Serialized value and copied metadata of an override. Created before the replica's lock is taken,
/// to keep the lock short.
#[derive(Debug)]
pub(super) struct PreparedOverride {
    value: InternedValue,
    metadata: OverrideMetadata,
}

impl From<&UserOverride> for PreparedOverride {
    fn from(user_override: &UserOverride) -> Self {
        Self {
            value: InternedValue(PreparedValue::new(user_override.override_value.clone())),
            metadata: user_override.into(),
        }
    }
}

impl OverrideIndex {
    pub(super) fn new(shard_key: ShardKey) -> Self {
        Self {
            users: UserShards::new(shard_key),
            entries: Vec::new(),
            first_free: Entry::NONE,
            values: Interner::default(),
            metadata: Interner::default(),
            flags: Vec::new(),
            flag_keys: HashMap::new(),
            counts: ActiveCounts::default(),
        }
    }

    /// Returns a user's overrides in order of flag names, regardless of their status.
    pub(super) fn of_user(&self, user_id: Uuid) -> impl Iterator<Item = SharedOverride> {
        self.entries_of(user_id).filter_map(|(_, entry)| self.share(entry))
    }

    pub(super) const fn users(&self) -> &UserShards {
        &self.users
    }

    /// Returns a user's entries with their keys.
    fn entries_of(&self, user_id: Uuid) -> impl Iterator<Item = (u32, &Entry)> {
        self.entries_from(self.first_entry(user_id))
    }

    /// Returns the key of a user's first entry, or [`Entry::NONE`].
    fn first_entry(&self, user_id: Uuid) -> u32 {
        self.users.first_entry(user_id).unwrap_or(Entry::NONE)
    }

    /// Returns the entries of a linked list with their keys, from its first entry.
    fn entries_from(&self, first: u32) -> impl Iterator<Item = (u32, &Entry)> {
        let mut next = first;
        std::iter::from_fn(move || {
            let key = next;
            let entry = self.entries.get(key as usize)?;
            next = entry.next;
            Some((key, entry))
        })
    }

    fn share(&self, entry: &Entry) -> Option<SharedOverride> {
        Some(SharedOverride {
            id: entry.id,
            flag_name: self.flags.get(entry.flag() as usize)?.clone(),
            value: Arc::clone(self.values.get(entry.value)?),
            enabled: entry.has(Entry::ENABLED),
            metadata: Arc::clone(self.metadata.get(entry.metadata)?),
            created_at: entry.created_at,
            updated_at: entry.updated_at,
            expires_at: entry.expires_at(),
        })
    }

    /// Inserts an override, or replaces the override of the same user and flag. `prepared` must
    /// have been created from `new`.
    pub(super) fn set(&mut self, new: &UserOverride, prepared: PreparedOverride) {
        let flag = self.flag_key(&new.flag_name);
        let entry = Entry {
            id: new.id,
            created_at: new.created_at,
            updated_at: new.updated_at,
            expires_at: new.expires_at.map_or(Entry::NEVER, Instant::as_micros),
            flag_and_bits: flag | if new.is_enabled() { Entry::ENABLED } else { 0 },
            value: self.values.intern(prepared.value),
            metadata: self.metadata.intern(prepared.metadata),
            next: Entry::NONE,
        };
        let flags = &self.flags;
        let first = self.first_entry(new.user_id);
        let lower = self.entries_from(first).take_while(|(_, entry)| flags[entry.flag() as usize] < new.flag_name);
        let previous = lower.map(|(key, _)| key).last();
        let next = match previous {
            Some(key) => self.entries[key as usize].next,
            None => first,
        };
        match self.entries.get(next as usize).copied() {
            Some(old) if old.flag() == flag => {
                self.counts.remove(&old);
                self.values.release(old.value);
                self.metadata.release(old.metadata);
                self.entries[next as usize] = Entry { next: old.next, ..entry };
                self.counts.add(&mut self.entries, next, old.expires_at);
            }
            _ => {
                let key = self.allocate(Entry { next, ..entry });
                match previous {
                    Some(previous) => self.entries[previous as usize].next = key,
                    None => self.users.set_first_entry(new.user_id, key),
                }
                self.counts.add(&mut self.entries, key, Entry::FREE);
            }
        }
    }

    /// Removes the override of a user and flag, if there is one, and returns its expiry.
    pub(super) fn remove(&mut self, user_id: Uuid, flag_name: &FlagName) -> Option<RemovedOverride> {
        let flag = *self.flag_keys.get(flag_name)?;
        let mut previous = None;
        let (key, removed) = self.entries_of(user_id).map(|(key, entry)| (key, *entry)).find(|(key, entry)| {
            let is_match = entry.flag() == flag;
            if !is_match {
                previous = Some(*key);
            }
            is_match
        })?;
        match previous {
            Some(previous) => self.entries[previous as usize].next = removed.next,
            None if removed.next == Entry::NONE => self.users.remove(user_id),
            None => self.users.set_first_entry(user_id, removed.next),
        }
        self.counts.remove(&removed);
        self.values.release(removed.value);
        self.metadata.release(removed.metadata);
        self.entries[key as usize] = Entry { expires_at: Entry::FREE, next: self.first_free, ..removed };
        self.first_free = key;
        Some(RemovedOverride { expires_at: removed.expires_at() })
    }

    /// Stores an entry in a free slot or at the end, and returns its key.
    fn allocate(&mut self, entry: Entry) -> u32 {
        let key = self.first_free;
        if let Some(slot) = self.entries.get_mut(key as usize) {
            self.first_free = slot.next;
            *slot = entry;
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

    /// Removes up to `limit` overrides that expired at or before `now` from the counts. Returns
    /// `false` if more may remain. `now` must not decrease between calls.
    pub(super) fn remove_expired_from_counts(&mut self, now: Instant, limit: usize) -> bool {
        self.counts.remove_expired(&mut self.entries, now.as_micros(), limit)
    }

    /// Returns the number of active overrides of each flag. Omits flags that never had an override.
    pub(super) fn active_counts(&self) -> BTreeMap<FlagName, u64> {
        let count = |(key, name): (usize, &FlagName)| (name.clone(), self.counts.of_flag(key));
        self.flags.iter().enumerate().map(count).collect()
    }
}

/// Expiry of an override that was removed from the index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RemovedOverride {
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

    fn set(index: &mut OverrideIndex, new: &UserOverride) {
        index.set(new, new.into());
    }

    fn flags_of(index: &OverrideIndex, user: u128) -> Vec<String> {
        index.of_user(Uuid::from_u128(user)).map(|o| o.flag_name.to_string()).collect()
    }

    #[test]
    fn returns_overrides_of_a_user_ordered_by_flag_name() {
        let mut index = OverrideIndex::new(ShardKey::new(&[0; 16]));
        for flag in ["m", "a", "z"] {
            set(&mut index, &user_override(1, flag, json!(true), None));
        }
        set(&mut index, &user_override(2, "b", json!(true), None));
        assert_eq!(flags_of(&index, 1), ["a", "m", "z"]);
        index.remove(Uuid::from_u128(1), &name("m"));
        index.remove(Uuid::from_u128(1), &name("unknown"));
        assert_eq!(flags_of(&index, 1), ["a", "z"]);
        assert_eq!(flags_of(&index, 2), ["b"]);
        assert_eq!(flags_of(&index, 3), [""; 0]);
    }

    #[test]
    fn set_replaces_the_override_of_the_same_flag() {
        let mut index = OverrideIndex::new(ShardKey::new(&[0; 16]));
        set(&mut index, &user_override(1, "a", json!(1), None));
        set(&mut index, &user_override(1, "a", json!(1.0), None));
        let values: Vec<_> = index.of_user(Uuid::from_u128(1)).map(|o| o.to_ref().value.json().to_owned()).collect();
        assert_eq!(values, ["1.0"]);
    }

    #[test]
    fn active_counts_follow_changes_and_expiry() {
        let mut index = OverrideIndex::new(ShardKey::new(&[0; 16]));
        let counts = |index: &mut OverrideIndex, now| {
            while !index.remove_expired_from_counts(at(now), 1) {}
            index.active_counts().into_values().collect::<Vec<_>>()
        };
        set(&mut index, &user_override(1, "a", json!(1), Some(100)));
        set(&mut index, &user_override(2, "a", json!(1), None));
        set(&mut index, &user_override(3, "b", json!(1), Some(200)));
        assert_eq!(counts(&mut index, 50), [2, 1]);
        // The heap of expiries now contains the same expiry twice, but the entry must be subtracted
        // once.
        set(&mut index, &user_override(1, "a", json!(2), Some(100)));
        set(&mut index, &user_override(4, "a", json!(1), Some(100)));
        assert_eq!(counts(&mut index, 99), [3, 1]);
        assert_eq!(counts(&mut index, 100), [1, 1]);
        // Removing an expired override changes no count. Extending an expired override counts it again.
        index.remove(Uuid::from_u128(4), &name("a"));
        set(&mut index, &user_override(1, "a", json!(2), Some(300)));
        assert_eq!(counts(&mut index, 150), [2, 1]);
        set(&mut index, &UserOverride { enabled: Some(false), ..user_override(2, "a", json!(1), None) });
        assert_eq!(counts(&mut index, 250), [1, 0]);
        assert_eq!(counts(&mut index, 300), [0, 0]);
    }

    #[test]
    fn reuses_free_entries_and_ignores_their_outdated_expiries() {
        let mut index = OverrideIndex::new(ShardKey::new(&[0; 16]));
        for round in 0..100 {
            for user in 0..10 {
                set(&mut index, &user_override(user, "a", json!(round), Some(1_000 + i64::from(round))));
            }
            for user in 0..10 {
                let removed = index.remove(Uuid::from_u128(user), &name("a")).unwrap();
                assert_eq!(removed.expires_at, Some(at(1_000 + i64::from(round))));
            }
        }
        assert_eq!(index.entries.len(), 10);
        assert_eq!(index.users.len(), 0);
        assert_eq!(index.remove(Uuid::from_u128(1), &name("a")), None);
        set(&mut index, &user_override(3, "b", json!(1), None));
        while !index.remove_expired_from_counts(at(2_000), 7) {}
        assert_eq!(index.active_counts().into_values().collect::<Vec<_>>(), [0, 1]);
    }

    #[test]
    fn drops_outdated_expiries_and_keeps_those_of_disabled_overrides() {
        let mut index = OverrideIndex::new(ShardKey::new(&[0; 16]));
        let disabled = |user, expires_at| UserOverride {
            enabled: Some(false),
            ..user_override(user, "a", json!(1), Some(expires_at))
        };
        set(&mut index, &disabled(1, 500));
        for _ in 0..150_000 {
            set(&mut index, &user_override(2, "a", json!(1), None));
            set(&mut index, &user_override(2, "a", json!(1), Some(400)));
        }
        assert!(index.counts.expiry_count() < 110_000, "{}", index.counts.expiry_count());
        set(&mut index, &UserOverride { enabled: Some(true), ..disabled(1, 500) });
        let mut counts = |now| {
            while !index.remove_expired_from_counts(at(now), 1_000) {}
            index.active_counts().into_values().collect::<Vec<_>>()
        };
        assert_eq!(counts(399), [2]);
        assert_eq!(counts(400), [1]);
        assert_eq!(counts(500), [0]);
    }

    #[test]
    fn entry_takes_56_bytes() {
        assert_eq!(size_of::<Entry>(), 56);
    }
}
