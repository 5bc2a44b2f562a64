//! Behaviour that all HTTP operations share.

mod bad_input;
mod idempotency;
mod limits_and_headers;
