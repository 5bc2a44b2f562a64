//! Users.

mod email_conflicts;
mod external_ids;
mod last_admin;
mod lifecycle;
mod list;
mod search;

const USERS_PATH: &str = "/api/admin/users";
