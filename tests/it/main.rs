//! Integration tests. They run the application in-process on SQLite and PostgreSQL, and the binaries as processes.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

mod audit;
mod auth;
mod change_log;
mod corruption;
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
