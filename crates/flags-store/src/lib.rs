//! Storage layer of the feature-flag service, on PostgreSQL and SQLite.
//!
//! This is the only crate that contains SQL. Database-specific code lives in the `backend` module. All other queries
//! are written once and run on both databases through the `dispatch!` macro in the `store` module.
//!
//! Every state change runs in a transaction ([`Tx`]), which appends its change-log entries just before it commits. See
//! the `commit` module.
//!
//! Functions return [`StoreError`]. Its variants tell the caller whether to retry, and when.

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
pub use store::{Conn, PoolUsage, Store, with_timeout};
pub use url::{DatabaseUrl, InvalidDatabaseUrl};
