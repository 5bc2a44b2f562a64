//! Buckets of percentage splits.
//!
//! A bucket is the MurmurHash3 x86 32-bit hash (Austin Appleby, seed 0) of the UTF-8 text `"{salt}:{value}"`, scaled to
//! `0..100_000`: `(hash * 100_000) >> 32`. A weight of 12.5 % covers 12,500 consecutive buckets.

use std::hash::Hasher as _;

use mur3::Hasher32;

/// Number of buckets: one for each thousandth of a percent.
pub const BUCKETS: u32 = 100_000;

/// Returns the bucket, `0..100_000`, of `value` under `salt`. Does not allocate.
///
/// ```
/// use flags_domain::bucket::bucket;
///
/// // The MurmurHash3 hash of "abc:" is 2144382016.
/// assert_eq!(bucket("abc", ""), 49_927);
/// ```
pub fn bucket(salt: &str, value: &str) -> u32 {
    scale(hash([salt, ":", value]))
}

/// Returns the MurmurHash3 x86 32-bit hash, with seed 0, of the concatenated `chunks`.
fn hash<const N: usize>(chunks: [&str; N]) -> u32 {
    let mut hasher = Hasher32::with_seed(0);
    for chunk in chunks {
        hasher.write(chunk.as_bytes());
    }
    hasher.finish32()
}

/// Maps a hash to a bucket by multiplication and shift, which avoids the bias of a modulo.
const fn scale(hash: u32) -> u32 {
    ((hash as u64 * BUCKETS as u64) >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hash_equals_reference_implementation() {
        // Published test values of MurmurHash3 x86 32-bit with seed 0.
        assert_eq!(hash([""]), 0);
        assert_eq!(hash(["hello"]), 0x248b_fa47);
        assert_eq!(hash(["hello, world"]), 0x149b_bb7f);
        assert_eq!(hash(["hel", "", "lo, w", "orld"]), 0x149b_bb7f);
    }

    #[test]
    fn hash_does_not_depend_on_chunk_boundaries() {
        let text = "checkout.flow:0198c2a4-7a3e-7c11-b1a5-5d4f3c2b1a09";
        for (first, second) in (0..=text.len()).flat_map(|end| (0..=end).map(move |start| (start, end))) {
            let chunks = [&text[..first], &text[first..second], &text[second..]];
            assert_eq!(hash(chunks), mur3::murmurhash3_x86_32(text.as_bytes(), 0), "{chunks:?}");
        }
    }

    #[test]
    fn scale_covers_exactly_the_buckets() {
        assert_eq!(scale(0), 0);
        assert_eq!(scale(u32::MAX), BUCKETS - 1);
        assert_eq!(scale(1 << 31), BUCKETS / 2);
    }
}
