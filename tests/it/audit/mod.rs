//! The audit log: reading, export and database roles.

mod database_roles;
mod export;
mod log;
