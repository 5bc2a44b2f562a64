//! Conditional responses for evaluation results: private to the caller, with an entity tag over the content.

use actix_web::{HttpResponse, HttpResponseBuilder, http::header};
use uuid::Uuid;
use xxhash_rust::xxh3::xxh3_128;

use super::reply::HandlerResult;
use crate::extract::IfNoneMatch;

/// Entity tag of an evaluation response.
///
/// `content` is the body without the revision and the evaluation time, so the tag changes only when the results do.
/// `subject` identifies the user or targeting key.
pub(super) fn content_tag(subject: &[u8], epoch: Uuid, content: &[u8]) -> String {
    let hash = xxh3_128(content) ^ xxh3_128(subject) ^ xxh3_128(epoch.as_bytes()).rotate_left(1);
    format!("\"{hash:032x}\"")
}

/// Returns 304 if `If-None-Match` contains `etag`, otherwise 200 with the body.
pub(super) fn respond(if_none_match: &IfNoneMatch, etag: &str, body: String) -> HandlerResult {
    let not_modified = if_none_match.matches(etag);
    let mut response = private(if not_modified { HttpResponse::NotModified() } else { HttpResponse::Ok() });
    response.insert_header((header::ETAG, etag));
    Ok(if not_modified { response.finish() } else { response.content_type("application/json").body(body) })
}

/// Adds the cache headers of a response that is specific to the caller.
pub(super) fn private(mut response: HttpResponseBuilder) -> HttpResponseBuilder {
    response
        .insert_header((header::CACHE_CONTROL, "private, no-cache"))
        .insert_header((header::VARY, "Authorization, Cookie"));
    response
}
