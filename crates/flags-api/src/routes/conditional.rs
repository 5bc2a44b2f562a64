//! Answers of evaluations: for one reader alone, and tagged by what they say.

use actix_web::{HttpResponse, HttpResponseBuilder, http::header};
use uuid::Uuid;
use xxhash_rust::xxh3::xxh3_128;

use super::reply::HandlerResult;
use crate::extract::IfNoneMatch;

/// A tag of what somebody was answered: of everything but the revision and the instant of evaluation.
pub(super) fn tag(whose: &[u8], epoch: Uuid, answer: &[u8]) -> String {
    let hash = xxh3_128(answer) ^ xxh3_128(whose) ^ xxh3_128(epoch.as_bytes()).rotate_left(1);
    format!("\"{hash:032x}\"")
}

/// The answer, unless the reader has it already.
pub(super) fn respond(known: &IfNoneMatch, etag: &str, body: String) -> HandlerResult {
    let has = known.has(etag);
    let mut response = private(if has { HttpResponse::NotModified() } else { HttpResponse::Ok() });
    response.insert_header((header::ETAG, etag));
    Ok(if has { response.finish() } else { response.content_type("application/json").body(body) })
}

/// With the headers of an answer that is not for everybody.
pub(super) fn private(mut response: HttpResponseBuilder) -> HttpResponseBuilder {
    response
        .insert_header((header::CACHE_CONTROL, "private, no-cache"))
        .insert_header((header::VARY, "Authorization, Cookie"));
    response
}
