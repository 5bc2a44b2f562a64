//! API tokens by the SHA-256 of their secrets, and when each was last used here.

use std::sync::atomic::{AtomicI64, Ordering};

use flags_domain::Instant;
use flags_store::api_tokens::TokenRecord;
use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use subtle::ConstantTimeEq as _;
use uuid::Uuid;

/// Half of a hash: enough to find a token by. The other half is compared in constant time, so that nothing can be learned of
/// it by how long an answer takes.
type Half = [u8; 16];

#[derive(Debug)]
struct Held {
    token: TokenRecord,
    /// Microseconds since 1970; 0 if nothing is to be written down.
    used_at: AtomicI64,
}

/// All tokens that were not revoked.
#[derive(Debug, Default)]
pub(super) struct TokenIndex {
    tokens: FxHashMap<Half, Held>,
    /// Uses of tokens that were changed or went before they were written down.
    gone: Mutex<Vec<(Uuid, Instant)>>,
}

impl Held {
    /// The use that is to be written down, if there is one.
    fn take_use(&self) -> Option<(Uuid, Instant)> {
        let at = self.used_at.swap(0, Ordering::Relaxed);
        (at != 0).then(|| (self.token.id, Instant::from_micros(at)))
    }
}

fn half(hash: &[u8; 32]) -> Half {
    std::array::from_fn(|place| hash[place])
}

impl TokenIndex {
    pub(super) fn set(&mut self, token: TokenRecord) {
        let before = self.tokens.insert(half(&token.hash), Held { token, used_at: AtomicI64::new(0) });
        self.gone.get_mut().extend(before.and_then(|held| held.take_use()));
    }

    pub(super) fn remove(&mut self, id: Uuid) {
        let gone = self.tokens.extract_if(|_, held| held.token.id == id);
        self.gone.get_mut().extend(gone.filter_map(|(_, held)| held.take_use()));
    }

    fn held(&self, hash: &[u8; 32]) -> Option<&Held> {
        self.tokens.get(&half(hash)).filter(|held| held.token.hash.ct_eq(hash).into())
    }

    pub(super) fn get(&self, hash: &[u8; 32]) -> Option<&TokenRecord> {
        self.held(hash).map(|held| &held.token)
    }

    /// Notes a use of the token with this hash.
    pub(super) fn note_use(&self, hash: &[u8; 32], now: Instant) {
        if let Some(held) = self.held(hash) {
            held.used_at.fetch_max(now.as_micros(), Ordering::Relaxed);
        }
    }

    /// The uses noted since the last call.
    pub(super) fn take_uses(&self) -> Vec<(Uuid, Instant)> {
        let mut uses = std::mem::take(&mut *self.gone.lock());
        uses.extend(self.tokens.values().filter_map(Held::take_use));
        uses
    }

    /// The users that tokens act as.
    pub(super) fn users(&self) -> Vec<Uuid> {
        self.tokens.values().filter_map(|held| held.token.user_id).collect()
    }
}

impl FromIterator<TokenRecord> for TokenIndex {
    fn from_iter<T: IntoIterator<Item = TokenRecord>>(tokens: T) -> Self {
        let mut index = Self::default();
        tokens.into_iter().for_each(|token| index.set(token));
        index
    }
}

#[cfg(test)]
mod tests {
    use flags_store::{api_tokens::Grant, users::Role};

    use super::*;

    fn token(number: u128, hash: [u8; 32]) -> TokenRecord {
        TokenRecord {
            id: Uuid::from_u128(number),
            name: String::new(),
            hash,
            last_four: String::new(),
            grant: Grant::Role(Role::Viewer),
            user_id: None,
            created_by: String::new(),
            created_at: Instant::from_micros(0),
            expires_at: None,
            lifetime: None,
            revoked_at: None,
            last_used_at: None,
            revision: 1,
        }
    }

    #[test]
    fn a_token_is_found_by_its_whole_hash_alone() {
        let hash: [u8; 32] = std::array::from_fn(|place| place as u8);
        let mut index: TokenIndex = [token(1, hash)].into_iter().collect();
        assert_eq!(index.get(&hash).unwrap().id, Uuid::from_u128(1));
        for place in 0..32 {
            let mut other = hash;
            other[place] ^= 1;
            assert!(index.get(&other).is_none(), "{place}");
        }
        index.remove(Uuid::from_u128(1));
        assert!(index.get(&hash).is_none());
    }

    #[test]
    fn uses_are_taken_once_and_the_latest_counts() {
        let index: TokenIndex = [token(1, [1; 32]), token(2, [2; 32])].into_iter().collect();
        index.note_use(&[2; 32], Instant::from_micros(9));
        index.note_use(&[2; 32], Instant::from_micros(7));
        assert_eq!(index.take_uses(), [(Uuid::from_u128(2), Instant::from_micros(9))]);
        assert!(index.take_uses().is_empty());
    }

    #[test]
    fn the_last_use_of_a_token_that_goes_is_not_lost() {
        let mut index: TokenIndex = [token(1, [1; 32]), token(2, [2; 32])].into_iter().collect();
        index.note_use(&[1; 32], Instant::from_micros(5));
        index.note_use(&[2; 32], Instant::from_micros(6));
        index.remove(Uuid::from_u128(1));
        index.set(token(2, [2; 32]));
        let uses = [(Uuid::from_u128(1), Instant::from_micros(5)), (Uuid::from_u128(2), Instant::from_micros(6))];
        assert_eq!(index.take_uses(), uses);
    }
}
