//! `flags-domain` beside the evaluators of other feature-flag systems, over the same flags in the same run.
//!
//! The program `compare` measures time, `allocations` counts allocations: a counting allocator slows down whoever
//! allocates, so they are two.
#![allow(clippy::unwrap_used, reason = "a benchmark: what cannot be set up cannot be measured")]

mod definition;
pub mod engines;
pub mod turns;

pub use definition::{Definition, Layer, USER, hundred};
pub use engines::{Engine, all};
pub use turns::{Contender, measure};

/// The version of a package that this program was built with.
pub fn version_of(package: &str) -> &'static str {
    let lock = include_str!("../Cargo.lock");
    let after = lock.split_once(&format!("name = \"{package}\"\nversion = \"")).map(|(_, after)| after);
    after.and_then(|after| after.split_once('"')).map(|(version, _)| version).unwrap()
}
