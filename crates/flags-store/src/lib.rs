//! Repository of the feature-flag service on PostgreSQL and SQLite.
//!
//! The only crate that knows SQL; only its `backend` names a database, and every query is written once for both (see the
//! `on!` macro in `store`). State changes only through [`Tx`], which appends to the log last (see `commit`).
//!
//! Errors are [`StoreError`], told apart by what a caller can do about them.

pub mod actor_labels;
pub mod api_tokens;
pub mod audit;
mod backend;
pub mod change_log;
pub mod clock;
mod commit;
mod epoch;
mod error;
pub mod flags;
pub mod idempotency;
mod listener;
mod migrate;
pub mod overrides;
mod page;
pub mod passwords;
pub mod schedules;
mod schema;
pub mod service_keys;
pub mod sessions;
pub mod sign_in_attempts;
mod sql_types;
mod store;
mod url;
pub mod users;

pub use commit::{Author, ChangeLogEntry, Committed, Tx};
pub use error::{Result, StoreError};
pub use listener::Listener;
pub use migrate::down as migrate_down;
pub use page::{MAX_TOTAL, Page};
pub use store::{Conn, PoolUse, Store, within};
pub use url::{DatabaseUrl, InvalidDatabaseUrl};
