//! How many overrides are active, by flag.

use std::{cmp::Reverse, collections::BinaryHeap};

use super::override_index::Entry;

/// How many overrides of each flag are active, kept up with changes and with time.
#[derive(Debug, Default)]
pub(super) struct Counts {
    active: Vec<u64>,
    /// Ends to come, each with the key of an entry; some may be out of date, as overrides change.
    ends: BinaryHeap<Reverse<(i64, u32)>>,
    /// The latest instant that was asked for: what ends up to here is not counted any more.
    horizon: Option<i64>,
}

impl Counts {
    /// How many of the flag with this key are counted.
    pub(super) fn of_flag(&self, key: usize) -> u64 {
        self.active.get(key).copied().unwrap_or(0)
    }

    /// How many ends are held.
    #[cfg(test)]
    pub(super) fn pending(&self) -> usize {
        self.ends.len()
    }

    /// Counts a new or changed entry, which ended at `end_before` until now.
    pub(super) fn count(&mut self, entries: &mut [Entry], key: u32, end_before: i64) {
        let entry = &mut entries[key as usize];
        let flag = entry.flag() as usize;
        if self.active.len() <= flag {
            self.active.resize(flag + 1, 0);
        }
        if entry.is(Entry::ENABLED) && self.horizon.is_none_or(|horizon| entry.ends_at > horizon) {
            self.active[flag] += 1;
            entry.flag_and_marks |= Entry::COUNTED;
        }
        if entry.ends_at != Entry::NEVER && entry.ends_at != end_before {
            let end = entry.ends_at;
            self.ends.push(Reverse((end, key)));
            self.tidy(entries);
        }
    }

    pub(super) fn uncount(&mut self, entry: &Entry) {
        if entry.is(Entry::COUNTED)
            && let Some(count) = self.active.get_mut(entry.flag() as usize)
        {
            *count = count.saturating_sub(1);
        }
    }

    /// Counts out up to `most` that have ended; whether none is left.
    pub(super) fn advance(&mut self, entries: &mut [Entry], now: i64, most: usize) -> bool {
        self.horizon = self.horizon.max(Some(now));
        for _ in 0..most {
            let Some(&Reverse((end, key))) = self.ends.peek() else { return true };
            if end > now {
                return true;
            }
            self.ends.pop();
            if let Some(entry) = entries.get_mut(key as usize).filter(|entry| entry.ends_at == end) {
                self.uncount(entry);
                entry.flag_and_marks &= !Entry::COUNTED;
            }
        }
        false
    }

    /// Drops what is out of date once it is the greater part by far.
    fn tidy(&mut self, entries: &[Entry]) {
        if self.ends.len() > 2 * entries.len() + 100_000 {
            // Also of those that are switched off: switching one on again adds no end.
            let to_come = |entry: &Entry| entry.ends_at != Entry::NEVER && Some(entry.ends_at) > self.horizon;
            let ends = entries.iter().zip(0_u32..).filter(|(entry, _)| to_come(entry));
            self.ends = ends.map(|(entry, key)| Reverse((entry.ends_at, key))).collect();
        }
    }
}
