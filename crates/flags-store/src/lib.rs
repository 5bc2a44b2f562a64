//! Storage layer of the feature-flag service, on PostgreSQL and SQLite.
//!
//! This is the only crate that contains SQL. Database-specific code lives in the `backend` module. All other queries
//! are written once and run on both databases through the `dispatch!` macro in the `conn` module.
//!
//! Every state change runs in a transaction ([`Tx`]), which appends its entries to the change log just
//! before it commits (module `commit`).
//!
//! Each of these layers uses only the ones before it:
//!
//! 1. `decoded`, `error`, `json`, `page`, `schema`, `sql_types`, `url`, `version`: types without I/O, and the entries
//!    and rows of `change_log`.
//! 2. `backend`: code that is specific to one database.
//! 3. `conn` and `store`: connections, pools and raw transactions.
//! 4. `principal_state` and `transaction`: [`Tx`], which collects change-log entries, and snapshots.
//! 5. The queries of each table: `users`, `flags`, `overrides`, `change_log`, `idempotency` and so on. `principals`,
//!    `migrate`, `epoch` and `listener` are on this layer as well.
//! 6. `commit`: writes the collected entries and commits.
//!
//! Functions return [`StoreError`]. Its variants tell the caller whether to retry, and when.

pub mod actor_labels;
pub mod api_tokens;
pub mod audit;
mod backend;
pub mod change_log;
pub mod clock;
mod commit;
mod conn;
mod decoded;
mod epoch;
mod error;
pub mod flags;
pub mod idempotency;
mod json;
mod listener;
mod migrate;
pub mod overrides;
mod page;
pub mod passwords;
mod principal_state;
pub mod principals;
pub mod schedules;
mod schema;
pub mod service_keys;
pub mod sessions;
pub mod sign_in_attempts;
mod sql_types;
mod store;
mod transaction;
mod url;
pub mod users;
mod version;

pub use change_log::{Author, ChangeLogEntry};
pub use commit::Committed;
pub use conn::Conn;
pub use error::{Result, StoreError};
pub use listener::Listener;
pub use migrate::down as migrate_down;
pub use page::{MAX_TOTAL, Page};
pub use store::{PoolUsage, Store, with_timeout};
pub use transaction::Tx;
pub use url::{DatabaseUrl, InvalidDatabaseUrl};
pub use version::{READER_VERSION, WRITER_VERSION};
