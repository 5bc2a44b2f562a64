//! User overrides.

mod bulk;
mod concurrency;
mod create_users;
mod evaluation;
mod expiry;
mod findings;
mod lifecycle;
mod list;
mod lock_waits;
mod schema;
mod service;
mod update;
mod values;

use flags_tests::caller::Caller;
use serde_json::Value;

/// Path of the list of all overrides.
const LIST_PATH: &str = "/api/admin/flag-overrides";

/// Returns the caller's own value of a flag.
async fn own_value(caller: &Caller, flag: &str) -> Value {
    caller.get(&format!("/api/flags/me/{flag}")).await.expect(200).json()["value"].clone()
}
