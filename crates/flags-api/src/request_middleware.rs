//! Outermost middleware: request ids, access log, metrics, error bodies and default response headers.

use std::{pin::Pin, time::Instant};

use actix_web::{
    Error, HttpMessage as _,
    body::{BoxBody, EitherBody, MessageBody},
    dev::{ServiceRequest, ServiceResponse},
    http::{
        Method, StatusCode,
        header::{self, HeaderMap, HeaderName, HeaderValue},
    },
    middleware::Next,
};
use metrics::{counter, histogram};
use tracing::{Instrument as _, field::Empty};

use crate::{
    metrics::{HTTP_DURATION, HTTP_REQUESTS},
    ofrep_failure,
    problem::{PROBLEM_MEDIA_TYPE, Problem},
    request_id::{RequestId, X_REQUEST_ID},
    route_facts::{ContentSecurityPolicy, ErrorFormat, MatchedRoute},
};

const CROSS_ORIGIN_OPENER_POLICY: HeaderName = HeaderName::from_static("cross-origin-opener-policy");
const PERMISSIONS_POLICY: HeaderName = HeaderName::from_static("permissions-policy");

/// The outermost middleware.
///
/// The future is boxed because actix reserves space for it twice in every connection, including idle event streams.
/// Actix itself boxes the futures of the inner middleware.
///
/// The request's tracing span ends with the headers of the response, so idle event streams have no open span.
pub(crate) fn request_middleware<B: MessageBody + 'static>(
    request: ServiceRequest,
    next: Next<B>,
) -> Pin<Box<impl Future<Output = MiddlewareResult<B>>>> {
    let id = RequestId::from_headers(request.headers());
    let span = tracing::info_span!(
        "request",
        request_id = %id.0,
        method = %request.method(),
        route = Empty,
        principal = Empty
    );
    Box::pin(handle(request, next, id).instrument(span))
}

type MiddlewareResult<B> = Result<ServiceResponse<EitherBody<EitherBody<B, BoxBody>, BoxBody>>, Error>;

async fn handle<B: MessageBody + 'static>(
    request: ServiceRequest,
    next: Next<B>,
    id: RequestId,
) -> MiddlewareResult<B> {
    let started_at = Instant::now();
    let method = method_label(request.method());
    request.extensions_mut().insert(id.clone());
    let response = match check_head_size(&request) {
        None => next.call(request).await?.map_into_left_body(),
        Some(problem) => request.error_response(problem).map_into_right_body(),
    };
    let route = matched_route(&response);
    let mut response = write_error_body(response, route.facts.error_format, &id);
    set_default_headers(response.headers_mut(), route.facts.content_security_policy);
    response.headers_mut().insert(X_REQUEST_ID, id.header_value());
    record(method, route, response.status(), started_at);
    Ok(response)
}

/// Returns the route that handled the request. `HttpRequest::match_pattern` would search the routing table again.
fn matched_route<B>(response: &ServiceResponse<B>) -> MatchedRoute {
    let request = response.request();
    let matched = request.extensions().get::<MatchedRoute>().cloned();
    matched.unwrap_or_else(|| {
        let unmatched = MatchedRoute::unmatched(request.path());
        unmatched.clone().store_in(request);
        unmatched
    })
}

/// Updates the metrics and writes the access log.
fn record(method: &'static str, route: MatchedRoute, status: StatusCode, started_at: Instant) {
    let elapsed = started_at.elapsed();
    let route = route.template;
    histogram!(HTTP_DURATION, "method" => method, "route" => route.clone()).record(elapsed.as_secs_f64());
    counter!(HTTP_REQUESTS, "method" => method, "route" => route, "status" => status.as_str().to_owned()).increment(1);
    let elapsed_us = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX);
    tracing::debug!(status = status.as_u16(), elapsed_us, "request completed");
}

/// Maximum length of the path and the query string together, in bytes.
const MAX_URI_BYTES: usize = 16 * 1024;
/// Maximum length of all header names and values together, in bytes.
const MAX_HEADER_BYTES: usize = 32 * 1024;

fn check_head_size(request: &ServiceRequest) -> Option<Problem> {
    if request.uri().path().len() + request.query_string().len() > MAX_URI_BYTES {
        let detail = format!("path and query string together must not exceed {MAX_URI_BYTES} bytes");
        return Some(Problem::new(StatusCode::URI_TOO_LONG, "uri_too_long", detail));
    }
    let size: usize = request.headers().iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    (size > MAX_HEADER_BYTES).then(|| {
        let detail = format!("all headers together must not exceed {MAX_HEADER_BYTES} bytes");
        Problem::new(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "headers_too_large", detail)
    })
}

/// Maps non-standard methods to `other`. Clients can send any method name, and each label value creates a time series.
fn method_label(method: &Method) -> &'static str {
    const KNOWN: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
    KNOWN.into_iter().find(|known| method.as_str() == *known).unwrap_or("other")
}

/// Writes the body of an error response and logs the error's cause. The body contains the request id.
fn write_error_body<B: MessageBody + 'static>(
    response: ServiceResponse<B>,
    format: ErrorFormat,
    id: &RequestId,
) -> ServiceResponse<EitherBody<B, BoxBody>> {
    let Some(error) = response.response().error() else { return response.map_into_left_body() };
    let status = response.status();
    let converted;
    let problem = match error.as_error::<Problem>() {
        Some(problem) => problem,
        None => {
            converted = convert_error(status, error.to_string());
            &converted
        }
    };
    log_cause(problem, status);
    let (status, media_type, body) = match format {
        ErrorFormat::Problem => (status, PROBLEM_MEDIA_TYPE, problem.body(&id.0)),
        ErrorFormat::Ofrep => ofrep_failure::response_parts(response.request().path(), problem, status),
    };
    let mut response = response.map_body(|_, _| EitherBody::right(BoxBody::new(body)));
    *response.response_mut().status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    response
}

/// Converts an error of actix or its middleware.
fn convert_error(status: StatusCode, text: String) -> Problem {
    if status.is_client_error() { Problem::new(status, "refused", text) } else { Problem::internal(text) }
}

fn log_cause(problem: &Problem, status: StatusCode) {
    let Some(cause) = problem.cause() else { return };
    if status == StatusCode::SERVICE_UNAVAILABLE {
        tracing::warn!(cause, "request failed because the service is unavailable");
    } else {
        tracing::error!(cause, "request failed with an internal error");
    }
}

fn set_default_headers(headers: &mut HeaderMap, policy: ContentSecurityPolicy) {
    let csp = match policy {
        ContentSecurityPolicy::Data => "default-src 'none'; frame-ancestors 'none'",
        // Swagger UI uses inline styles.
        ContentSecurityPolicy::Page => {
            "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; frame-ancestors 'none'"
        }
        ContentSecurityPolicy::AdminUi => {
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; \
             connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; \
             require-trusted-types-for 'script'"
        }
    };
    let defaults = [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (CROSS_ORIGIN_OPENER_POLICY, "same-origin"),
        (PERMISSIONS_POLICY, "camera=(), geolocation=(), microphone=()"),
        (header::CACHE_CONTROL, "no-store"),
        (header::CONTENT_SECURITY_POLICY, csp),
    ];
    for (name, value) in defaults {
        if !headers.contains_key(&name) {
            headers.insert(name, HeaderValue::from_static(value));
        }
    }
}
