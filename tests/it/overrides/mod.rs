//! User overrides.

mod bulk;
mod concurrency;
mod findings;
mod lifecycle;
