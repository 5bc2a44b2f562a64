//! The cases, one per file.

pub(crate) mod corrupt;
pub(crate) mod crash;
pub(crate) mod cursors;
pub(crate) mod cuts;
pub(crate) mod idle;
pub(crate) mod isolation;
pub(crate) mod listener;
pub(crate) mod network;
pub(crate) mod no_worker;
mod outage;
pub(crate) mod paused;
pub(crate) mod revocation;
pub(crate) mod scale;
pub(crate) mod shutdown;
pub(crate) mod stopped;
pub(crate) mod upgrade;
pub(crate) mod workers;
pub(crate) mod writers;
