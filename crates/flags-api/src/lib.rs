//! HTTP interface of the feature-flag service: the only crate that knows HTTP and the JSON of the wire.
//!
//! Handlers say in their signatures who may call them (`auth`), read requests by extractors that refuse with a pointer to
//! what is wrong (`extract`), call one use case, and show what came of it. Errors become RFC 9457 problems in one place
//! (`problem`).

mod app;
mod auth;
mod cors;
mod evaluation_json;
mod extract;
mod limits;
mod metrics;
mod openapi;
mod problem;
mod request_middleware;
mod routes;
mod streams;
mod wire;

pub use app::{App, Settings, serve, serve_metrics, stop};
pub use limits::RateLimits;
pub use metrics::install as install_metrics;
pub use openapi::openapi;
pub use streams::StreamLimits;
