//! Feature flags.

mod create;
mod delete;
mod list;
mod patch;
mod targeting_rules;

const FLAGS_PATH: &str = "/api/admin/feature-flags";
