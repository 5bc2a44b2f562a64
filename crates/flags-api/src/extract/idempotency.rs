//! `Idempotency-Key`: a name for one request, under which it is carried out once.

use actix_web::{HttpMessage as _, HttpRequest};
use flags_domain::Violation;
use flags_store::{Author, idempotency::IdempotencyKey};
use sha2::{Digest as _, Sha256};

use crate::problem::Problem;

const HEADER: &str = "Idempotency-Key";

/// SHA-256 of a request's body, left in the request by whoever read it.
#[derive(Clone, Copy, Debug)]
pub(super) struct BodyDigest(pub(super) [u8; 32]);

/// Remembers the body of a request that has a key.
pub(super) fn remember_body(request: &HttpRequest, body: &[u8]) {
    if request.headers().contains_key(HEADER) {
        request.extensions_mut().insert(BodyDigest(Sha256::digest(body).into()));
    }
}

/// Refuses a key with a request that carries or returns a secret: its answer could not be kept.
pub(crate) fn refuse_idempotency_key(request: &HttpRequest) -> Result<(), Problem> {
    if !request.headers().contains_key(HEADER) {
        return Ok(());
    }
    let detail = "requests that carry or return a secret take no such key, as their answers are not kept";
    Err(Violation::new(format!("/{HEADER}"), "not_allowed", detail).into())
}

/// The request's key, if it has one, with what it stands for. To be called once the body was read.
pub(crate) fn idempotency_key(request: &HttpRequest, author: &Author) -> Result<Option<IdempotencyKey>, Problem> {
    let mut values = request.headers().get_all(HEADER);
    let Some(value) = values.next() else { return Ok(None) };
    let key = value.to_str().ok().filter(|key| (1..=255).contains(&key.len()) && !key.contains(' '));
    let (Some(key), None) = (key, values.next()) else {
        let detail = "must be one text of 1 to 255 visible ASCII characters";
        return Err(Violation::new(format!("/{HEADER}"), "invalid_header", detail).into());
    };
    let body = request.extensions().get::<BodyDigest>().map_or([0; 32], |digest| digest.0);
    let mut hash = Sha256::new();
    for part in [request.method().as_str().as_bytes(), request.uri().to_string().as_bytes(), &body] {
        hash.update(part.len().to_be_bytes());
        hash.update(part);
    }
    // A precondition is part of what is asked for.
    for value in request.headers().get_all("If-Match") {
        hash.update(value.as_bytes());
    }
    let fingerprint = hash.finalize().into();
    Ok(Some(IdempotencyKey { caller: author.actor.clone(), key: key.to_owned(), fingerprint }))
}
