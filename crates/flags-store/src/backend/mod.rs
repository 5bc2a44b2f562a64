//! Code that is specific to PostgreSQL or SQLite.

pub(crate) mod planner;
pub(crate) mod pool;
pub(crate) mod postgres;
pub(crate) mod row_lock;
pub(crate) mod sqlite;
pub(crate) mod user_search;
