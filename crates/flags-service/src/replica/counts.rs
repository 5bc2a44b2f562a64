//! Number of active overrides by flag.

use std::{cmp::Reverse, collections::BinaryHeap};

use super::override_index::Entry;

/// Number of active overrides of each flag, updated when overrides change and when they expire.
///
/// Identifies flags and entries by their keys in the
/// [`OverrideIndex`](super::override_index::OverrideIndex).
#[derive(Debug, Default)]
pub(super) struct ActiveCounts {
    by_flag: Vec<u64>,
    /// Future expiries, each with the key of its entry. An expiry is outdated if the entry has
    /// changed since.
    expiries: BinaryHeap<Reverse<(i64, u32)>>,
    /// Latest instant passed to [`remove_expired`](Self::remove_expired). Overrides that expire at
    /// or before this instant are not counted.
    horizon: Option<i64>,
}

impl ActiveCounts {
    /// Returns the number of active overrides of the flag with this key.
    pub(super) fn of_flag(&self, key: usize) -> u64 {
        self.by_flag.get(key).copied().unwrap_or(0)
    }

    /// Number of expiries in the heap, including outdated ones.
    #[cfg(test)]
    pub(super) fn expiry_count(&self) -> usize {
        self.expiries.len()
    }

    /// Counts a new or changed entry if it is active. `previous_expiry` is the entry's `expires_at`
    /// before the change.
    pub(super) fn add(&mut self, entries: &mut [Entry], key: u32, previous_expiry: i64) {
        let entry = &mut entries[key as usize];
        let flag = entry.flag() as usize;
        if self.by_flag.len() <= flag {
            self.by_flag.resize(flag + 1, 0);
        }
        if entry.has(Entry::ENABLED) && self.horizon.is_none_or(|horizon| entry.expires_at > horizon) {
            self.by_flag[flag] += 1;
            entry.flag_and_bits |= Entry::COUNTED;
        }
        if entry.expires_at != Entry::NEVER && entry.expires_at != previous_expiry {
            let expires_at = entry.expires_at;
            self.expiries.push(Reverse((expires_at, key)));
            self.drop_outdated_expiries(entries);
        }
    }

    /// Subtracts an entry from the count of its flag, if it was counted.
    pub(super) fn remove(&mut self, entry: &Entry) {
        if entry.has(Entry::COUNTED)
            && let Some(count) = self.by_flag.get_mut(entry.flag() as usize)
        {
            *count = count.saturating_sub(1);
        }
    }

    /// Subtracts up to `limit` entries that expired at or before `now`. Returns `false` if more may
    /// remain.
    pub(super) fn remove_expired(&mut self, entries: &mut [Entry], now: i64, limit: usize) -> bool {
        self.horizon = self.horizon.max(Some(now));
        for _ in 0..limit {
            let Some(&Reverse((expires_at, key))) = self.expiries.peek() else { return true };
            if expires_at > now {
                return true;
            }
            self.expiries.pop();
            if let Some(entry) = entries.get_mut(key as usize).filter(|entry| entry.expires_at == expires_at) {
                self.remove(entry);
                entry.flag_and_bits &= !Entry::COUNTED;
            }
        }
        false
    }

    /// Rebuilds the heap of expiries if it is much larger than the number of entries.
    fn drop_outdated_expiries(&mut self, entries: &[Entry]) {
        if self.expiries.len() > 2 * entries.len() + 100_000 {
            // Keep disabled entries: if an override is enabled later with the same expiry, nothing is added to the heap.
            let is_future = |entry: &Entry| entry.expires_at != Entry::NEVER && Some(entry.expires_at) > self.horizon;
            let expiries = entries.iter().zip(0_u32..).filter(|(entry, _)| is_future(entry));
            self.expiries = expiries.map(|(entry, key)| Reverse((entry.expires_at, key))).collect();
        }
    }
}
