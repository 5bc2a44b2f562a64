//! What every request passes: its id, its line in the log, its place in the metrics, and the headers of every answer.

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
    problem::{MEDIA_TYPE, Problem},
    routes::ofrep,
};

/// The id of a request: the caller's `X-Request-Id` if it is sound, one of ours otherwise.
#[derive(Clone, Debug)]
pub(crate) struct RequestId(pub(crate) String);

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const CROSS_ORIGIN_OPENER_POLICY: HeaderName = HeaderName::from_static("cross-origin-opener-policy");
const PERMISSIONS_POLICY: HeaderName = HeaderName::from_static("permissions-policy");

/// The path of the route that answers, with the names of its parts: left in the request by the route itself.
#[derive(Clone, Debug)]
pub(crate) struct RouteTemplate(pub(crate) Arc<str>);

/// Template that stands for all paths that match no route.
const UNMATCHED: &str = "unmatched";

/// The outermost middleware. Its future is on the heap while a request lasts: every connection, each idle stream's too, has
/// room twice for what this returns. (Those of the middleware within are boxed by actix.)
pub(crate) fn request_middleware<B: MessageBody + 'static>(
    request: ServiceRequest,
    next: Next<B>,
) -> Pin<Box<impl Future<Output = Passed<B>>>> {
    Box::pin(pass(request, next))
}

type Passed<B> = Result<ServiceResponse<EitherBody<EitherBody<B, BoxBody>, BoxBody>>, Error>;

async fn pass<B: MessageBody + 'static>(request: ServiceRequest, next: Next<B>) -> Passed<B> {
    let begun = Instant::now();
    let id = request_id(&request);
    request.extensions_mut().insert(RequestId(id.clone()));
    let method = request.method().clone();
    let response = match too_large(&request) {
        None => next.call(request).await?.map_into_left_body(),
        Some(problem) => request.error_response(problem).map_into_right_body(),
    };
    let mut response = complete(response, &id);
    let route = route_label(response.request());
    let status = response.status();
    let elapsed = begun.elapsed();
    let label = method_label(&method);
    let labels = [("method", label.to_owned()), ("route", route.clone())];
    histogram!(HTTP_DURATION, &labels).record(elapsed.as_secs_f64());
    counter!(HTTP_REQUESTS, "method" => label, "route" => route.clone(), "status" => status.as_str().to_owned())
        .increment(1);
    let is_docs = response.request().path().starts_with("/docs");
    set_headers(response.headers_mut(), is_docs, &id);
    let elapsed_us = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX);
    tracing::debug!(request_id = id, %method, route, status = status.as_u16(), elapsed_us, "request");
    Ok(response)
}

/// Longest path with its query, in bytes.
const MAX_URI: usize = 16 * 1024;
/// Largest head besides, in bytes.
const MAX_HEADERS: usize = 32 * 1024;

fn too_large(request: &ServiceRequest) -> Option<Problem> {
    if request.uri().path().len() + request.query_string().len() > MAX_URI {
        let detail = format!("path and query may have at most {MAX_URI} bytes");
        return Some(Problem::new(StatusCode::URI_TOO_LONG, "uri_too_long", detail));
    }
    let size: usize = request.headers().iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    (size > MAX_HEADERS).then(|| {
        let detail = format!("all headers together may have at most {MAX_HEADERS} bytes");
        Problem::new(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "headers_too_large", detail)
    })
}

/// The template of the route that answered. (actix can be asked for it, but walks the whole table again.)
fn route_label(request: &HttpRequest) -> String {
    if let Some(RouteTemplate(template)) = request.extensions().get::<RouteTemplate>() {
        return template.to_string();
    }
    let pages = ["/docs/", "/openapi.json"];
    pages.into_iter().find(|page| request.path().starts_with(page)).unwrap_or(UNMATCHED).to_owned()
}

/// Callers may send any word as a method; labels must stay few.
fn method_label(method: &Method) -> &'static str {
    const KNOWN: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
    KNOWN.into_iter().find(|known| method.as_str() == *known).unwrap_or("other")
}

fn request_id(request: &ServiceRequest) -> String {
    // It is kept for ever with what the request changes: nothing that looks like a credential.
    let secret = |id: &str| SecretKind::ALL.iter().any(|kind| id.contains(kind.prefix())) || id.starts_with("eyJ");
    let sound = |id: &&str| {
        let plain = id.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
        (1..=64).contains(&id.len()) && plain && !secret(id)
    };
    let given = request.headers().get(X_REQUEST_ID).and_then(|value| value.to_str().ok()).filter(sound);
    given.map_or_else(|| Uuid::now_v7().to_string(), ToOwned::to_owned)
}

/// Writes the body of an error answer, now that the request's id is at hand, and logs its cause.
fn complete<B: MessageBody + 'static>(
    response: ServiceResponse<B>,
    id: &str,
) -> ServiceResponse<EitherBody<B, BoxBody>> {
    let Some(error) = response.response().error() else { return response.map_into_left_body() };
    let other;
    let problem = match error.as_error::<Problem>() {
        Some(problem) => problem,
        None => {
            let status = response.status();
            let refused = status.is_client_error();
            other = if refused {
                Problem::new(status, "refused", error.to_string())
            } else {
                Problem::internal(error.to_string())
            };
            &other
        }
    };
    if let Some(cause) = problem.cause() {
        if response.status().as_u16() == 503 {
            tracing::warn!(request_id = id, cause, "a request could not be served");
        } else {
            tracing::error!(request_id = id, cause, "a request failed");
        }
    }
    let (status, media_type, body) = match ofrep::failure(response.request().path(), problem, response.status()) {
        Some(failure) => failure,
        None => (response.status(), MEDIA_TYPE, problem.body(id)),
    };
    let mut response = response.map_body(|_, _| EitherBody::right(BoxBody::new(body)));
    *response.response_mut().status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    response
}

fn set_headers(headers: &mut HeaderMap, is_docs: bool, id: &str) {
    let mut default = |name: HeaderName, value: &'static str| {
        if !headers.contains_key(&name) {
            headers.insert(name, HeaderValue::from_static(value));
        }
    };
    default(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    default(header::REFERRER_POLICY, "no-referrer");
    default(header::X_FRAME_OPTIONS, "DENY");
    default(CROSS_ORIGIN_OPENER_POLICY, "same-origin");
    default(PERMISSIONS_POLICY, "camera=(), geolocation=(), microphone=()");
    default(header::CACHE_CONTROL, "no-store");
    // Swagger UI styles its elements in place.
    let csp = if is_docs {
        "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; frame-ancestors 'none'"
    } else {
        "default-src 'none'; frame-ancestors 'none'"
    };
    default(header::CONTENT_SECURITY_POLICY, csp);
    if let Ok(value) = HeaderValue::from_str(id) {
        headers.insert(X_REQUEST_ID, value);
    }
}
