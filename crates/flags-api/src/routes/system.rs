//! For operators: health, readiness, metrics; and what answers where nothing else does.

use actix_web::{
    HttpRequest, HttpResponse,
    http::{Method, StatusCode},
    web::{self, Data},
};
use serde::Serialize;
use utoipa::ToSchema;

use super::{Routes, reply::HandlerResult};
use crate::{
    app::App,
    problem::{Problem, ProblemResponse},
};

pub(super) fn routes(routes: &mut Routes) {
    routes.add::<__path_healthz>(web::to(healthz));
    routes.add::<__path_readyz>(web::to(readyz));
}

pub(crate) fn metrics_route(routes: &mut Routes) {
    routes.add::<__path_metrics>(web::to(metrics));
}

/// Whether the process lives.
#[derive(Serialize, ToSchema)]
pub(crate) struct Health {
    /// Always `ok`.
    status: &'static str,
}

/// Whether the process lives
#[utoipa::path(
    get, path = "/healthz", tag = "system", operation_id = "healthz", security(()),
    responses((status = 200, body = Health), (status = "default", response = ProblemResponse)),
)]
async fn healthz() -> HttpResponse {
    HttpResponse::Ok().json(Health { status: "ok" })
}

/// Whether this server should get requests, and by what state it evaluates.
#[derive(Serialize, ToSchema)]
pub(crate) struct Readiness {
    /// `ready`, or `stopping` once shutdown has begun.
    status: &'static str,
    /// `<epoch>:<number>`: the revision this server evaluates by.
    revision: String,
    /// Seconds since the database was last read.
    age_seconds: f64,
    /// Whether that is 5 s or more. A stale server still answers: it stays in the balancer.
    stale: bool,
}

/// Whether this server should get requests
///
/// 200 from the first state to the beginning of shutdown, however the database fares.
#[utoipa::path(
    get, path = "/readyz", tag = "system", operation_id = "readyz", security(()),
    responses((status = 200, body = Readiness), (status = 503, description = "Stopping", body = Readiness), (status = "default", response = ProblemResponse)),
)]
async fn readyz(app: Data<App>) -> HttpResponse {
    let replica = app.evaluation.replica();
    let ready = app.is_ready();
    let body = Readiness {
        status: if ready { "ready" } else { "stopping" },
        revision: replica.revision().to_string(),
        age_seconds: replica.age().as_secs_f64(),
        stale: replica.is_stale(),
    };
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    HttpResponse::build(status).json(body)
}

/// Metrics for Prometheus
#[utoipa::path(
    get, path = "/metrics", tag = "system", operation_id = "metrics", security(()),
    responses((status = 200, body = String, content_type = "text/plain"), (status = "default", response = ProblemResponse)),
)]
async fn metrics(app: Data<App>) -> HandlerResult {
    let handle = app.metrics.as_ref().ok_or_else(|| Problem::not_found("not_found", "metrics are off"))?;
    Ok(HttpResponse::Ok().content_type("text/plain; version=0.0.4; charset=utf-8").body(handle.render()))
}

const WELCOME: &str = include_str!("welcome.html");

/// Where no route matches: a problem below the API's paths; elsewhere, to a browser's GET, the page that says where things
/// are.
pub(crate) async fn unmatched(request: HttpRequest) -> HandlerResult {
    let below = |root: &str| request.path() == root || request.path().starts_with(&format!("{root}/"));
    let ours = ["/api", "/ofrep", "/healthz", "/readyz", "/metrics", "/openapi.json", "/docs"].into_iter().any(below);
    if ours || ![Method::GET, Method::HEAD].contains(request.method()) {
        return Err(Problem::not_found("not_found", "there is nothing at this path; /docs says what there is"));
    }
    Ok(HttpResponse::Ok().content_type("text/html; charset=utf-8").body(WELCOME))
}
