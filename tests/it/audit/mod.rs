//! Audit log: list, export, erasure of users, and protection of the change log in the database.

mod append_only;
mod database_roles;
mod erasure;
mod export;
mod list;

use flags_tests::app::TestApp;
use serde_json::{Value, json};

const AUDIT_LOG_PATH: &str = "/api/admin/audit-log";
const EXPORT_PATH: &str = "/api/admin/audit-log/export";
const USERS_PATH: &str = "/api/admin/users";

/// Returns all entries that the query selects; they must fit on one page.
async fn list_entries(app: &TestApp, query: &str) -> Vec<Value> {
    let list = app.admin.get(&format!("{AUDIT_LOG_PATH}?limit=200&{query}")).await.expect(200).json();
    assert_eq!((&list["next_cursor"], &list["total_is_exact"]), (&Value::Null, &json!(true)));
    assert_eq!(list["total"], list["items"].as_array().unwrap().len());
    list["items"].as_array().unwrap().clone()
}
