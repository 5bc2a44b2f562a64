//! HTTP API of the feature-flag service. HTTP and the JSON wire format are defined in this crate only.
//!
//! A handler's signature names the required permission (`auth`) and the extractors that parse and validate the request
//! (`extract`). The handler calls one service function and converts the result to a response. Errors are converted to
//! RFC 9457 problem documents in one place (`problem`).

mod app;
mod auth;
mod cors;
mod evaluation_json;
mod extract;
mod metrics;
mod openapi;
mod problem;
mod rate_limits;
mod request_middleware;
mod routes;
mod streams;
mod wire;

pub use app::{App, Settings, serve, serve_metrics, stop};
pub use metrics::install as install_metrics;
pub use openapi::openapi;
pub use rate_limits::RateLimits;
pub use streams::StreamLimits;
