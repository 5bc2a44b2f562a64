//! HTTP API of the feature-flag service. HTTP and the JSON wire format are defined in this crate only.
//!
//! A handler's signature names the required permission (`auth`) and the extractors that parse and validate the request
//! (`extract`). The handler calls one service function and converts the result to a response. Errors are converted to
//! RFC 9457 problem documents in one place (`problem`).

mod auth;
mod body_check;
mod cors;
mod evaluation_json;
mod extract;
#[cfg(test)]
mod generated;
mod json;
mod metrics;
mod ofrep_failure;
mod open_streams;
mod openapi;
mod problem;
mod rate_limits;
mod request_id;
mod request_middleware;
mod route_facts;
mod route_registry;
mod routes;
mod server;
mod state;
mod streams;
mod wire;

pub use metrics::install as install_metrics;
pub use open_streams::StreamLimits;
pub use rate_limits::RateLimits;
pub use routes::{has_admin_ui, openapi};
pub use server::{serve, serve_metrics, stop};
pub use state::{App, Settings};
