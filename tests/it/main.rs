//! Integration tests: the real application on both databases, and the real binaries as processes.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod support;

mod access;
mod bad_input;
mod concurrency;
mod flags;
mod log;
mod me;
mod migrations;
mod openapi;
mod outage;
mod overrides;
mod processes;
mod schedules;
mod users;
mod worker;
