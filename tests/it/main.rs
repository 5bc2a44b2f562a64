//! Integration tests: the real application on both databases, and the real binaries as processes.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod access;
mod bad_input;
mod bulk;
mod concurrency;
mod flags;
mod idempotency;
mod listener;
mod log;
mod me;
mod migrations;
mod openapi;
mod outage;
mod overrides;
mod processes;
mod resume;
mod schedules;
mod search;
mod streams;
mod users;
mod worker;
