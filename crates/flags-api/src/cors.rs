//! Which pages of other origins may read answers; none, unless the operator names them.

use actix_cors::Cors;
use actix_web::http::{Method, header};

/// How long browsers may remember what is allowed, in seconds.
const MAX_AGE: usize = 600;

/// For these origins, or for all if `*` is among them. Cookies never cross over: an application brings a token.
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
        .max_age(MAX_AGE);
    if origins.iter().any(|origin| origin == "*") {
        return cors.allow_any_origin();
    }
    origins.iter().fold(cors, |cors, origin| cors.allowed_origin(origin))
}
