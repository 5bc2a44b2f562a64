//! Behaviour that all HTTP operations share.

mod bodies;
mod cors;
mod field_types;
mod fields;
mod idempotency;
mod limits;
mod paths;
mod query_parameters;
mod secrets;
