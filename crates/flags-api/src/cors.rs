//! Cross-origin resource sharing (CORS). Disabled unless the operator configures allowed origins.

use actix_cors::Cors;
use actix_web::http::{Method, header};

/// Time that browsers may cache the response to a preflight request, in seconds.
const PREFLIGHT_MAX_AGE_SECONDS: usize = 600;

/// Builds the CORS middleware for these origins, or for all origins if `*` is among them.
///
/// Credentials are not allowed, so browsers never send the session cookie cross-origin. Applications on other origins
/// must use a token.
pub(crate) fn cors(origins: &[String]) -> Cors {
    let cors = Cors::default()
        .allowed_methods([Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE])
        .allowed_headers([
            header::AUTHORIZATION,
            header::CONTENT_TYPE,
            header::IF_MATCH,
            header::IF_NONE_MATCH,
            header::CACHE_CONTROL,
            header::HeaderName::from_static("flags-min-revision"),
            header::HeaderName::from_static("idempotency-key"),
            header::HeaderName::from_static("last-event-id"),
            header::HeaderName::from_static("x-request-id"),
        ])
        .expose_headers(["ETag", "Flags-Revision", "Flags-User", "Location", "Retry-After", "X-Request-Id"])
        .block_on_origin_mismatch(false)
        .max_age(PREFLIGHT_MAX_AGE_SECONDS);
    if origins.iter().any(|origin| origin == "*") {
        return cors.allow_any_origin();
    }
    origins.iter().fold(cors, |cors, origin| cors.allowed_origin(origin))
}
