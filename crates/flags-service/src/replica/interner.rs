//! Reference-counted interning of values that many overrides share.

use std::{collections::HashMap, hash::Hash, sync::Arc};

/// Stores equal values once. Values are identified by a 32-bit key and freed when all their references are released.
#[derive(Debug)]
pub(super) struct Interner<T> {
    slots: Vec<Slot<T>>,
    /// Keys of empty slots.
    free: Vec<u32>,
    by_value: HashMap<Arc<T>, u32>,
}

#[derive(Debug)]
struct Slot<T> {
    value: Option<Arc<T>>,
    references: u32,
}

impl<T> Default for Interner<T> {
    fn default() -> Self {
        Self { slots: Vec::new(), free: Vec::new(), by_value: HashMap::new() }
    }
}

impl<T: Eq + Hash> Interner<T> {
    /// Stores a value, or adds a reference if it is already stored, and returns its key. The caller must
    /// [`release`](Self::release) the key once per call.
    pub(super) fn intern(&mut self, value: T) -> u32 {
        if let Some(&key) = self.by_value.get(&value) {
            self.slots[key as usize].references += 1;
            return key;
        }
        let value = Arc::new(value);
        let slot = Slot { value: Some(Arc::clone(&value)), references: 1 };
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

    /// Returns the value of a key, or `None` after its last reference was released.
    pub(super) fn get(&self, key: u32) -> Option<&Arc<T>> {
        self.slots.get(key as usize)?.value.as_ref()
    }

    /// Releases one reference to a key. Frees the value when the last reference is released.
    pub(super) fn release(&mut self, key: u32) {
        let Some(slot) = self.slots.get_mut(key as usize) else { return };
        slot.references = slot.references.saturating_sub(1);
        if slot.references == 0
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
    fn equal_values_share_a_slot_until_the_last_release() {
        let mut interner = Interner::default();
        let a = interner.intern("a");
        assert_eq!(interner.intern("a"), a);
        let b = interner.intern("b");
        interner.release(a);
        assert_eq!(interner.get(a).map(|value| **value), Some("a"));
        interner.release(a);
        assert_eq!(interner.get(a), None);
        assert_eq!(interner.intern("c"), a, "reuses the free slot");
        assert_eq!(interner.get(b).map(|value| **value), Some("b"));
    }
}
