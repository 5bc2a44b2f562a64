//! Event streams.

pub(crate) mod events;
mod resume;
