//! Bucketing: which share of a split somebody falls into.
//!
//! MurmurHash3 x86 32-bit (Austin Appleby) of `"{salt}:{value}"` with seed 0, scaled to thousandths of a percent.

use std::hash::Hasher as _;

use mur3::Hasher32;

/// How many buckets there are: 100 % in thousandths of a percent.
pub const BUCKETS: u32 = 100_000;

/// The bucket, `0..100_000`, of `value` under `salt`. Does not allocate.
pub fn bucket(salt: &str, value: &str) -> u32 {
    scale(hash([salt, ":", value]))
}

/// MurmurHash3 x86 32-bit with seed 0 of the parts joined.
fn hash<const N: usize>(parts: [&str; N]) -> u32 {
    let mut hasher = Hasher32::with_seed(0);
    for part in parts {
        hasher.write(part.as_bytes());
    }
    hasher.finish32()
}

/// `(hash * 100000) >> 32`, which spreads all 2^32 hashes evenly.
const fn scale(hash: u32) -> u32 {
    ((hash as u64 * BUCKETS as u64) >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_follow_the_reference_implementation() {
        // Known answers of MurmurHash3 x86 32 with seed 0.
        assert_eq!(hash([""]), 0);
        assert_eq!(hash(["hello"]), 0x248b_fa47);
        assert_eq!(hash(["hello, world"]), 0x149b_bb7f);
        assert_eq!(hash(["hel", "", "lo, w", "orld"]), 0x149b_bb7f);
    }

    #[test]
    fn the_hash_is_of_the_parts_joined() {
        let text = "checkout.flow:0198c2a4-7a3e-7c11-b1a5-5d4f3c2b1a09";
        for (first, second) in (0..=text.len()).flat_map(|end| (0..=end).map(move |start| (start, end))) {
            let parts = [&text[..first], &text[first..second], &text[second..]];
            assert_eq!(hash(parts), mur3::murmurhash3_x86_32(text.as_bytes(), 0), "{parts:?}");
        }
    }

    #[test]
    fn the_scale_covers_every_bucket_and_no_more() {
        assert_eq!(scale(0), 0);
        assert_eq!(scale(u32::MAX), BUCKETS - 1);
        assert_eq!(scale(1 << 31), BUCKETS / 2);
    }
}
