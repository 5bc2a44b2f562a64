//! Health, readiness and metrics endpoints, and the fallback for unmatched paths.

use actix_web::{
    HttpResponse,
    http::StatusCode,
    web::{self, Data},
};
use serde::Serialize;
use utoipa::ToSchema;

use super::reply::HandlerResult;
use crate::{
    problem::{Problem, ProblemResponse},
    route_facts::RouteFacts,
    route_registry::RouteRegistry,
    state::App,
};

pub(super) fn routes(routes: &mut RouteRegistry) {
    routes.add::<__path_healthz>(web::to(healthz), RouteFacts::open());
    routes.add::<__path_readyz>(web::to(readyz), RouteFacts::open());
}

pub(crate) fn metrics_route(routes: &mut RouteRegistry) {
    routes.add::<__path_metrics>(web::to(metrics), RouteFacts::open());
}

/// Result of the liveness check.
#[derive(Serialize, ToSchema)]
pub(crate) struct HealthResponse {
    /// Always `ok`.
    status: &'static str,
}

/// Check liveness
///
/// Returns 200 while the process serves requests.
#[utoipa::path(
    get, path = "/healthz", tag = "system", operation_id = "healthz", security(()),
    responses((status = 200, body = HealthResponse), (status = "default", response = ProblemResponse)),
)]
async fn healthz() -> HttpResponse {
    HttpResponse::Ok().json(HealthResponse { status: "ok" })
}

/// Readiness of this server and the state of its replica.
#[derive(Serialize, ToSchema)]
pub(crate) struct ReadinessResponse {
    /// `ready`, or `stopping` once shutdown has begun.
    status: &'static str,
    /// Revision that this server evaluates with, as `<epoch>:<number>`.
    revision: String,
    /// Seconds since the server last read the database successfully.
    age_seconds: f64,
    /// Whether `age_seconds` is 5 or more. A stale server stays ready and serves its last state.
    stale: bool,
}

/// Check readiness
///
/// Returns 200 once the server has loaded its state, and 503 once shutdown has begun. A database outage does not make a
/// server unready.
#[utoipa::path(
    get, path = "/readyz", tag = "system", operation_id = "readyz", security(()),
    responses(
        (status = 200, body = ReadinessResponse),
        (status = 503, description = "Shutting down", body = ReadinessResponse),
        (status = "default", response = ProblemResponse),
    ),
)]
async fn readyz(app: Data<App>) -> HttpResponse {
    let replica = app.evaluation.replica();
    let ready = app.is_ready();
    let body = ReadinessResponse {
        status: if ready { "ready" } else { "stopping" },
        revision: replica.revision().to_string(),
        age_seconds: replica.age().as_secs_f64(),
        stale: replica.is_stale(),
    };
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    HttpResponse::build(status).json(body)
}

/// Get Prometheus metrics
#[utoipa::path(
    get, path = "/metrics", tag = "system", operation_id = "metrics", security(()),
    responses(
        (status = 200, body = String, content_type = "text/plain"),
        (status = "default", response = ProblemResponse),
    ),
)]
async fn metrics(app: Data<App>) -> HandlerResult {
    let handle =
        app.metrics.as_ref().ok_or_else(|| Problem::not_found("not_found", "this server does not record metrics"))?;
    Ok(HttpResponse::Ok().content_type("text/plain; version=0.0.4; charset=utf-8").body(handle.render()))
}

/// Responds to requests that no route matches.
pub(crate) async fn unmatched() -> HandlerResult {
    Err(Problem::not_found("not_found", "no such path; see /docs for the list of operations"))
}
