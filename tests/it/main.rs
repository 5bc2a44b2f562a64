//! Integration tests: the real application on both databases, and the real binaries as processes.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod audit;
mod auth;
mod change_log;
mod explanations;
mod flags;
mod http;
mod me;
mod ofrep;
mod operations;
mod overrides;
mod schedules;
mod streams;
mod users;
