//! Benchmark of `flags-domain` against the evaluators of other feature-flag systems, with the same flags in the same
//! run.
//!
//! The program `compare` measures time, and `allocations` counts allocations. They are separate programs because a
//! counting allocator slows down engines that allocate.
#![allow(clippy::unwrap_used, reason = "a benchmark cannot continue if its setup fails")]

mod definition;
pub mod engines;
pub mod interleaved;

pub use definition::{Definition, Layer, USER, hundred_definitions};
pub use engines::{Engine, all_engines};
pub use interleaved::{Candidate, measure};

/// Returns the version of a dependency, as pinned in `Cargo.lock`. Panics if there is no such package.
pub fn version_of(package: &str) -> &'static str {
    let lock = include_str!("../Cargo.lock");
    let after = lock.split_once(&format!("name = \"{package}\"\nversion = \"")).map(|(_, after)| after);
    after.and_then(|after| after.split_once('"')).map(|(version, _)| version).unwrap()
}
