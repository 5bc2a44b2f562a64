//! Index of API tokens by the SHA-256 of their secrets, with the time of their last use.

use std::{
    collections::HashMap,
    sync::atomic::{AtomicI64, Ordering},
};

use flags_domain::Instant;
use parking_lot::Mutex;
use subtle::ConstantTimeEq as _;
use uuid::Uuid;

use super::input::ReplicaToken;

/// First half of a hash, used as the key of the index. The complete hash is then compared in
/// constant time, so that response times reveal nothing about the second half.
type HashPrefix = [u8; 16];

#[derive(Debug)]
struct TokenEntry {
    token: ReplicaToken,
    /// Last use in microseconds since the Unix epoch; 0 if the token was not used since the last
    /// call of [`TokenIndex::take_uses`].
    used_at: AtomicI64,
}

/// All API tokens that are not revoked.
#[derive(Debug, Default)]
pub(super) struct TokenIndex {
    tokens: HashMap<HashPrefix, TokenEntry>,
    /// Uses of tokens that were replaced or removed since the last call of [`Self::take_uses`].
    remaining_uses: Mutex<Vec<(Uuid, Instant)>>,
}

impl TokenEntry {
    fn take_use(&self) -> Option<(Uuid, Instant)> {
        let at = self.used_at.swap(0, Ordering::Relaxed);
        (at != 0).then(|| (self.token.id, Instant::from_micros(at)))
    }
}

fn prefix(hash: &[u8; 32]) -> HashPrefix {
    std::array::from_fn(|index| hash[index])
}

impl TokenIndex {
    /// Inserts or replaces a token. Keeps the last use of the replaced token.
    pub(super) fn set(&mut self, token: ReplicaToken) {
        let previous = self.tokens.insert(prefix(&token.hash), TokenEntry { token, used_at: AtomicI64::new(0) });
        self.remaining_uses.get_mut().extend(previous.and_then(|entry| entry.take_use()));
    }

    /// Removes all tokens, but keeps their last uses.
    pub(super) fn clear(&mut self) {
        let removed = self.tokens.drain();
        self.remaining_uses.get_mut().extend(removed.filter_map(|(_, entry)| entry.take_use()));
    }

    pub(super) fn remove(&mut self, id: Uuid) {
        let removed = self.tokens.extract_if(|_, entry| entry.token.id == id);
        self.remaining_uses.get_mut().extend(removed.filter_map(|(_, entry)| entry.take_use()));
    }

    fn entry(&self, hash: &[u8; 32]) -> Option<&TokenEntry> {
        self.tokens.get(&prefix(hash)).filter(|entry| entry.token.hash.ct_eq(hash).into())
    }

    pub(super) fn get(&self, hash: &[u8; 32]) -> Option<&ReplicaToken> {
        self.entry(hash).map(|entry| &entry.token)
    }

    /// Records a use of the token with this hash, unless a later use is already recorded.
    pub(super) fn record_use(&self, hash: &[u8; 32], now: Instant) {
        if let Some(entry) = self.entry(hash) {
            entry.used_at.fetch_max(now.as_micros(), Ordering::Relaxed);
        }
    }

    /// Returns the last use of each token that was used since the previous call.
    pub(super) fn take_uses(&self) -> Vec<(Uuid, Instant)> {
        let mut uses = std::mem::take(&mut *self.remaining_uses.lock());
        uses.extend(self.tokens.values().filter_map(TokenEntry::take_use));
        uses
    }

    /// Returns the ids of the users on whose behalf tokens act.
    pub(super) fn users(&self) -> Vec<Uuid> {
        self.tokens.values().filter_map(|entry| entry.token.user_id).collect()
    }
}

impl FromIterator<ReplicaToken> for TokenIndex {
    fn from_iter<T: IntoIterator<Item = ReplicaToken>>(tokens: T) -> Self {
        let mut index = Self::default();
        tokens.into_iter().for_each(|token| index.set(token));
        index
    }
}

#[cfg(test)]
mod tests {
    use flags_domain::{Role, TokenGrant};

    use super::*;

    fn token(number: u128, hash: [u8; 32]) -> ReplicaToken {
        ReplicaToken {
            id: Uuid::from_u128(number),
            hash,
            grant: TokenGrant::Role(Role::Viewer),
            user_id: None,
            expires_at: None,
        }
    }

    #[test]
    fn finds_a_token_only_by_its_complete_hash() {
        let hash: [u8; 32] = std::array::from_fn(|index| index as u8);
        let mut index: TokenIndex = [token(1, hash)].into_iter().collect();
        assert_eq!(index.get(&hash).unwrap().id, Uuid::from_u128(1));
        for position in 0..32 {
            let mut other = hash;
            other[position] ^= 1;
            assert!(index.get(&other).is_none(), "{position}");
        }
        index.remove(Uuid::from_u128(1));
        assert!(index.get(&hash).is_none());
    }

    #[test]
    fn take_uses_returns_the_latest_use_once() {
        let index: TokenIndex = [token(1, [1; 32]), token(2, [2; 32])].into_iter().collect();
        index.record_use(&[2; 32], Instant::from_micros(9));
        index.record_use(&[2; 32], Instant::from_micros(7));
        assert_eq!(index.take_uses(), [(Uuid::from_u128(2), Instant::from_micros(9))]);
        assert!(index.take_uses().is_empty());
    }

    #[test]
    fn take_uses_includes_removed_and_replaced_tokens() {
        let mut index: TokenIndex = [token(1, [1; 32]), token(2, [2; 32])].into_iter().collect();
        index.record_use(&[1; 32], Instant::from_micros(5));
        index.record_use(&[2; 32], Instant::from_micros(6));
        index.remove(Uuid::from_u128(1));
        index.set(token(2, [2; 32]));
        let uses = [(Uuid::from_u128(1), Instant::from_micros(5)), (Uuid::from_u128(2), Instant::from_micros(6))];
        assert_eq!(index.take_uses(), uses);
    }
}
