//! Outermost middleware: request ids, access log, metrics, error bodies and default response headers.

use std::{pin::Pin, sync::Arc, time::Instant};

use actix_web::{
    Error, HttpMessage as _, HttpRequest,
    body::{BoxBody, EitherBody, MessageBody},
    dev::{ServiceRequest, ServiceResponse},
    http::{
        Method, StatusCode,
        header::{self, HeaderMap, HeaderName, HeaderValue},
    },
    middleware::Next,
};
use flags_service::credentials::secret::SecretKind;
use metrics::{counter, histogram};
use uuid::Uuid;

use crate::{
    metrics::{HTTP_DURATION, HTTP_REQUESTS},
    problem::{PROBLEM_MEDIA_TYPE, Problem},
    routes::ofrep,
};

/// Id of a request: the caller's `X-Request-Id` if it is acceptable, otherwise a generated UUID.
#[derive(Clone, Debug)]
pub(crate) struct RequestId(pub(crate) String);

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const CROSS_ORIGIN_OPENER_POLICY: HeaderName = HeaderName::from_static("cross-origin-opener-policy");
const PERMISSIONS_POLICY: HeaderName = HeaderName::from_static("permissions-policy");

/// Path template of the matched route, such as `/api/admin/flags/{flag_name}`. The route stores it in the request's
/// extensions.
#[derive(Clone, Debug)]
pub(crate) struct RouteTemplate(pub(crate) Arc<str>);

/// Route label of all requests whose path matches no route.
const UNMATCHED: &str = "unmatched";

/// The outermost middleware.
///
/// Its future is boxed because actix reserves space for it twice in every connection, including idle event streams.
/// Actix boxes the futures of the inner middleware itself.
pub(crate) fn request_middleware<B: MessageBody + 'static>(
    request: ServiceRequest,
    next: Next<B>,
) -> Pin<Box<impl Future<Output = MiddlewareResult<B>>>> {
    Box::pin(handle(request, next))
}

type MiddlewareResult<B> = Result<ServiceResponse<EitherBody<EitherBody<B, BoxBody>, BoxBody>>, Error>;

async fn handle<B: MessageBody + 'static>(request: ServiceRequest, next: Next<B>) -> MiddlewareResult<B> {
    let started_at = Instant::now();
    let id = request_id(&request);
    request.extensions_mut().insert(RequestId(id.clone()));
    let method = request.method().clone();
    let response = match check_head_size(&request) {
        None => next.call(request).await?.map_into_left_body(),
        Some(problem) => request.error_response(problem).map_into_right_body(),
    };
    let mut response = write_error_body(response, &id);
    let route = route_label(response.request());
    let status = response.status();
    let elapsed = started_at.elapsed();
    let label = method_label(&method);
    let labels = [("method", label.to_owned()), ("route", route.clone())];
    histogram!(HTTP_DURATION, &labels).record(elapsed.as_secs_f64());
    counter!(HTTP_REQUESTS, "method" => label, "route" => route.clone(), "status" => status.as_str().to_owned())
        .increment(1);
    let is_docs = response.request().path().starts_with("/docs");
    set_default_headers(response.headers_mut(), is_docs, &id);
    let elapsed_us = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX);
    tracing::debug!(request_id = id, %method, route, status = status.as_u16(), elapsed_us, "request completed");
    Ok(response)
}

/// Maximum length of the path and the query string together, in bytes.
const MAX_URI_BYTES: usize = 16 * 1024;
/// Maximum length of all header names and values together, in bytes.
const MAX_HEADER_BYTES: usize = 32 * 1024;

fn check_head_size(request: &ServiceRequest) -> Option<Problem> {
    if request.uri().path().len() + request.query_string().len() > MAX_URI_BYTES {
        let detail = format!("path and query string must not exceed {MAX_URI_BYTES} bytes together");
        return Some(Problem::new(StatusCode::URI_TOO_LONG, "uri_too_long", detail));
    }
    let size: usize = request.headers().iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    (size > MAX_HEADER_BYTES).then(|| {
        let detail = format!("headers must not exceed {MAX_HEADER_BYTES} bytes together");
        Problem::new(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "headers_too_large", detail)
    })
}

/// Returns the path template of the matched route. `HttpRequest::match_pattern` would search the routing table again.
fn route_label(request: &HttpRequest) -> String {
    if let Some(RouteTemplate(template)) = request.extensions().get::<RouteTemplate>() {
        return template.to_string();
    }
    let pages = ["/docs/", "/openapi.json"];
    pages.into_iter().find(|page| request.path().starts_with(page)).unwrap_or(UNMATCHED).to_owned()
}

/// Maps non-standard methods to `other`, because clients can send any token as a method and labels must be few.
fn method_label(method: &Method) -> &'static str {
    const KNOWN: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
    KNOWN.into_iter().find(|known| method.as_str() == *known).unwrap_or("other")
}

fn request_id(request: &ServiceRequest) -> String {
    // The change log stores the id permanently, so text that looks like a credential is not accepted.
    let looks_like_secret =
        |id: &str| SecretKind::ALL.iter().any(|kind| id.contains(kind.prefix())) || id.starts_with("eyJ");
    let is_acceptable = |id: &&str| {
        let has_valid_characters = id.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
        (1..=64).contains(&id.len()) && has_valid_characters && !looks_like_secret(id)
    };
    let from_caller = request.headers().get(X_REQUEST_ID).and_then(|value| value.to_str().ok()).filter(is_acceptable);
    from_caller.map_or_else(|| Uuid::now_v7().to_string(), ToOwned::to_owned)
}

/// Writes the body of an error response, which contains the request id, and logs the error's cause.
fn write_error_body<B: MessageBody + 'static>(
    response: ServiceResponse<B>,
    id: &str,
) -> ServiceResponse<EitherBody<B, BoxBody>> {
    let Some(error) = response.response().error() else { return response.map_into_left_body() };
    let converted;
    let problem = match error.as_error::<Problem>() {
        Some(problem) => problem,
        None => {
            let status = response.status();
            converted = if status.is_client_error() {
                Problem::new(status, "refused", error.to_string())
            } else {
                Problem::internal(error.to_string())
            };
            &converted
        }
    };
    if let Some(cause) = problem.cause() {
        if response.status().as_u16() == 503 {
            tracing::warn!(request_id = id, cause, "request failed because the service is unavailable");
        } else {
            tracing::error!(request_id = id, cause, "request failed with an internal error");
        }
    }
    let (status, media_type, body) = match ofrep::error_response(response.request().path(), problem, response.status())
    {
        Some(failure) => failure,
        None => (response.status(), PROBLEM_MEDIA_TYPE, problem.body(id)),
    };
    let mut response = response.map_body(|_, _| EitherBody::right(BoxBody::new(body)));
    *response.response_mut().status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    response
}

fn set_default_headers(headers: &mut HeaderMap, is_docs: bool, id: &str) {
    let mut set_default = |name: HeaderName, value: &'static str| {
        if !headers.contains_key(&name) {
            headers.insert(name, HeaderValue::from_static(value));
        }
    };
    set_default(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    set_default(header::REFERRER_POLICY, "no-referrer");
    set_default(header::X_FRAME_OPTIONS, "DENY");
    set_default(CROSS_ORIGIN_OPENER_POLICY, "same-origin");
    set_default(PERMISSIONS_POLICY, "camera=(), geolocation=(), microphone=()");
    set_default(header::CACHE_CONTROL, "no-store");
    // Swagger UI uses inline styles.
    let csp = if is_docs {
        "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; frame-ancestors 'none'"
    } else {
        "default-src 'none'; frame-ancestors 'none'"
    };
    set_default(header::CONTENT_SECURITY_POLICY, csp);
    if let Ok(value) = HeaderValue::from_str(id) {
        headers.insert(X_REQUEST_ID, value);
    }
}
