//! Values shared by many overrides are kept once.

use std::{hash::Hash, sync::Arc};

use rustc_hash::FxHashMap;

/// Keeps each value once, for as long as anybody holds its key.
#[derive(Debug)]
pub(super) struct Interner<T> {
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
    by_value: FxHashMap<Arc<T>, u32>,
}

#[derive(Debug)]
struct Slot<T> {
    value: Option<Arc<T>>,
    holders: u32,
}

impl<T> Default for Interner<T> {
    fn default() -> Self {
        Self { slots: Vec::new(), free: Vec::new(), by_value: FxHashMap::default() }
    }
}

impl<T: Eq + Hash> Interner<T> {
    /// Takes hold of a value and returns its key. Each call wants one [`release`](Self::release).
    pub(super) fn hold(&mut self, value: T) -> u32 {
        if let Some(&key) = self.by_value.get(&value) {
            self.slots[key as usize].holders += 1;
            return key;
        }
        let value = Arc::new(value);
        let slot = Slot { value: Some(Arc::clone(&value)), holders: 1 };
        let key = match self.free.pop() {
            Some(key) => {
                self.slots[key as usize] = slot;
                key
            }
            None => {
                self.slots.push(slot);
                u32::try_from(self.slots.len() - 1).unwrap_or(u32::MAX)
            }
        };
        self.by_value.insert(value, key);
        key
    }

    /// The value of a key that is held.
    pub(super) fn get(&self, key: u32) -> Option<&T> {
        self.slots.get(key as usize)?.value.as_deref()
    }

    /// Lets go of a key; the last to do so frees the value.
    pub(super) fn release(&mut self, key: u32) {
        let Some(slot) = self.slots.get_mut(key as usize) else { return };
        slot.holders = slot.holders.saturating_sub(1);
        if slot.holders == 0
            && let Some(value) = slot.value.take()
        {
            self.by_value.remove(&value);
            self.free.push(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_values_share_a_slot_until_the_last_lets_go() {
        let mut interner = Interner::default();
        let a = interner.hold("a");
        assert_eq!(interner.hold("a"), a);
        let b = interner.hold("b");
        interner.release(a);
        assert_eq!(interner.get(a), Some(&"a"));
        interner.release(a);
        assert_eq!(interner.get(a), None);
        assert_eq!(interner.hold("c"), a, "the slot is used again");
        assert_eq!(interner.get(b), Some(&"b"));
    }
}
