//! What only one of the databases knows.

pub(crate) mod postgres;
pub(crate) mod sqlite;
