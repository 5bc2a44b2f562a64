//! Users with overrides, partitioned into shards.

use std::{collections::HashMap, fmt};

use siphasher::sip::SipHasher24;
use uuid::Uuid;

/// Number of shards. With small shards, growing a map does not block readers for long.
const SHARDS: usize = 1024;

/// Secret key that determines the shard of each user.
///
/// Without the key, callers who choose user ids cannot predict shards, so they cannot put many users into one shard.
/// Page cursors of searches refer to the order of shards, so all servers on a database must use the same key and keep
/// it after a restart. `Debug` does not print the key.
#[derive(Clone, Copy)]
pub struct ShardKey(SipHasher24);

impl fmt::Debug for ShardKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ShardKey(…)")
    }
}

impl ShardKey {
    /// Creates a key from secret bytes.
    pub fn new(bytes: &[u8; 16]) -> Self {
        Self(SipHasher24::new_with_key(bytes))
    }

    fn shard_of(&self, user_id: Uuid) -> usize {
        let [.., high, low] = self.0.hash(user_id.as_bytes()).to_be_bytes();
        usize::from(u16::from_be_bytes([high, low])) % SHARDS
    }
}

/// For each user with overrides, the key of the first entry in the
/// [`OverrideIndex`](super::override_index::OverrideIndex).
#[derive(Debug)]
pub(super) struct UserShards {
    key: ShardKey,
    /// One map per shard. The maps use the standard hasher, which has a random key in each process.
    shards: Box<[HashMap<Uuid, u32>]>,
}

impl UserShards {
    pub(super) fn new(key: ShardKey) -> Self {
        Self { key, shards: std::iter::repeat_with(HashMap::new).take(SHARDS).collect() }
    }

    /// Returns the index of a user's shard, whether or not the user has overrides.
    pub(super) fn shard_of(&self, user_id: Uuid) -> usize {
        self.key.shard_of(user_id)
    }

    /// Returns the users in a shard in no particular order, or `None` if there is no such shard.
    pub(super) fn in_shard(&self, shard: usize) -> Option<impl Iterator<Item = Uuid>> {
        self.shards.get(shard).map(|users| users.keys().copied())
    }

    pub(super) fn first_entry(&self, user_id: Uuid) -> Option<u32> {
        self.shards[self.shard_of(user_id)].get(&user_id).copied()
    }

    /// Sets the key of a user's first entry. Adds the user if necessary.
    pub(super) fn set_first_entry(&mut self, user_id: Uuid, entry: u32) {
        self.shards[self.key.shard_of(user_id)].insert(user_id, entry);
    }

    pub(super) fn remove(&mut self, user_id: Uuid) {
        self.shards[self.key.shard_of(user_id)].remove(&user_id);
    }

    /// Number of users.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.shards.iter().map(HashMap::len).sum()
    }
}

#[cfg(test)]
mod tests {
    use std::hash::BuildHasher as _;

    use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

    use super::*;

    const USERS: u128 = 200_000;

    /// Cost of storing a set of users.
    #[derive(Debug)]
    struct Cost {
        /// Number of users in the largest shard.
        largest_shard: usize,
        /// Memory that the maps reserve, in bytes.
        bytes: usize,
        /// Largest number of users that one insertion moved because it made a map grow.
        longest_growth: usize,
        /// Maximum number of users with the same position in a map. An insertion at this position
        /// compares its id with all of them.
        longest_chain: usize,
    }

    /// Inserts [`USERS`] users and measures their cost.
    fn cost(user_id: impl FnMut(u128) -> u128) -> Cost {
        let mut users = UserShards::new(ShardKey::new(&[7; 16]));
        let mut longest_growth = 0;
        for user_id in (0..USERS).map(user_id).map(Uuid::from_u128) {
            let shard = users.shard_of(user_id);
            let (length, capacity) = (users.shards[shard].len(), users.shards[shard].capacity());
            users.set_first_entry(user_id, 0);
            if users.shards[shard].capacity() != capacity {
                longest_growth = longest_growth.max(length);
            }
        }
        assert_eq!(users.len(), USERS as usize, "all ids differ");
        Cost {
            largest_shard: users.shards.iter().map(HashMap::len).max().unwrap(),
            bytes: users.shards.iter().map(|shard| buckets(shard) * (size_of::<(Uuid, u32)>() + 1)).sum(),
            longest_growth,
            longest_chain: users.shards.iter().map(longest_chain).max().unwrap(),
        }
    }

    /// Number of buckets. The standard map fills at most 7 of 8 buckets.
    fn buckets(shard: &HashMap<Uuid, u32>) -> usize {
        (shard.capacity() * 8 / 7).next_power_of_two()
    }

    fn longest_chain(shard: &HashMap<Uuid, u32>) -> usize {
        let mut chains = vec![0_usize; buckets(shard)];
        for user_id in shard.keys() {
            chains[shard.hasher().hash_one(user_id) as usize % buckets(shard)] += 1;
        }
        chains.into_iter().max().unwrap()
    }

    #[test]
    fn chosen_user_ids_cost_no_more_than_random_user_ids() {
        let mut rng = StdRng::seed_from_u64(1);
        let random = cost(|_| rng.random());
        assert_cost("random", &random, &random);
        assert_cost("sequential", &cost(|number| number), &random);
        assert_cost("constant suffix", &cost(|number| number << 64 | 0xabcd), &random);
        // FxHash XORs both halves of an id with constants and multiplies the results. For these
        // ids, one factor is 0.
        assert_cost("colliding in FxHash", &cost(|number| 0xd308_a385_886a_3f24 << 64 | number), &random);
    }

    fn assert_cost(kind: &str, cost: &Cost, random: &Cost) {
        assert!(cost.largest_shard < USERS as usize / SHARDS * 3 / 2, "{kind}: {cost:?}");
        assert!(cost.bytes < random.bytes * 11 / 10, "{kind}: {cost:?}");
        assert!(cost.longest_growth <= random.longest_growth, "{kind}: {cost:?}");
        // Each run uses random hash keys. The probability of a chain of 16 users is below one in a
        // billion.
        assert!(cost.longest_chain < 16, "{kind}: {cost:?}");
    }

    #[test]
    fn shard_is_siphash_2_4_of_the_user_id() {
        let key = ShardKey::new(&std::array::from_fn(|index| index as u8));
        let user_id = Uuid::from_bytes(std::array::from_fn(|index| index as u8));
        // Output of the reference implementation for this key and message.
        assert_eq!(key.0.hash(user_id.as_bytes()), 0x3f2a_cc7f_57c2_9bdb);
        assert_eq!(key.shard_of(user_id), 0x9bdb % SHARDS);
        assert_eq!(format!("{key:?}"), "ShardKey(…)");
    }
}
