//! Integration tests: the real application on both databases, and the real binaries as processes.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod access;
mod audit;
mod audit_export;
mod audit_roles;
mod bad_input;
mod bulk;
mod concurrency;
mod explanations;
mod findings;
mod flags;
mod hardening;
mod idempotency;
mod jwt;
mod jwt_forgeries;
mod jwt_keys;
mod listener;
mod log;
mod me;
mod migrations;
mod ofrep;
mod ofrep_stream;
mod openapi;
mod outage;
mod overrides;
mod processes;
mod resume;
mod schedules;
mod search;
mod sign_in;
mod streams;
mod tidying;
mod tokens;
mod users;
mod worker;
