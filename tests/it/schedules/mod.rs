//! Scheduled changes.

mod create;
mod edit;
mod list;
mod preview;

/// Path of the scheduled changes of flag `f`.
const CHANGES_PATH: &str = "/api/admin/feature-flags/f/scheduled-changes";
