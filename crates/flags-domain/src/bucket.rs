//! Bucketing: which share of a split somebody falls into.
//!
//! MurmurHash3 x86 32-bit (Austin Appleby) of `"{salt}:{value}"` with seed 0, scaled to thousandths of a percent.

use smallvec::SmallVec;

/// How many buckets there are: 100 % in thousandths of a percent.
pub const BUCKETS: u32 = 100_000;

/// The bucket, `0..100_000`, of `value` under `salt`.
///
/// Allocates only when salt and value together are longer than 255 bytes.
pub fn bucket(salt: &str, value: &str) -> u32 {
    let mut text = SmallVec::<[u8; 256]>::new();
    text.extend_from_slice(salt.as_bytes());
    text.push(b':');
    text.extend_from_slice(value.as_bytes());
    scale(hash(&text))
}

/// MurmurHash3 x86 32-bit with seed 0.
fn hash(mut text: &[u8]) -> u32 {
    // Reading from memory cannot fail.
    murmur3::murmur3_32(&mut text, 0).unwrap_or_default()
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
        assert_eq!(hash(b""), 0);
        assert_eq!(hash(b"hello"), 0x248b_fa47);
        assert_eq!(hash(b"hello, world"), 0x149b_bb7f);
    }

    #[test]
    fn the_scale_covers_every_bucket_and_no_more() {
        assert_eq!(scale(0), 0);
        assert_eq!(scale(u32::MAX), BUCKETS - 1);
        assert_eq!(scale(1 << 31), BUCKETS / 2);
    }
}
