//! `Idempotency-Key`: the server executes a request at most once per key and replays the stored response on a retry.

use actix_web::{HttpMessage as _, HttpRequest};
use flags_domain::Violation;
use flags_store::{Author, idempotency::IdempotencyKey};
use sha2::{Digest as _, Sha256};

use crate::problem::Problem;

const IDEMPOTENCY_KEY: &str = "Idempotency-Key";

/// SHA-256 of the request's body. The body extractor stores it in the request's extensions.
#[derive(Clone, Copy, Debug)]
pub(super) struct BodyDigest(pub(super) [u8; 32]);

/// Stores the digest of the body in the request's extensions, if the request has an idempotency key.
pub(super) fn store_body_digest(request: &HttpRequest, body: &[u8]) {
    if request.headers().contains_key(IDEMPOTENCY_KEY) {
        request.extensions_mut().insert(BodyDigest(Sha256::digest(body).into()));
    }
}

/// Fails with 422 if the request has an idempotency key. Operations whose request or response contains a secret must
/// call it, because the server does not store their responses and cannot replay them.
pub(crate) fn reject_idempotency_key(request: &HttpRequest) -> Result<(), Problem> {
    if !request.headers().contains_key(IDEMPOTENCY_KEY) {
        return Ok(());
    }
    let detail =
        "must not be sent with a request that contains or returns a secret, because its response is not stored";
    Err(Violation::new(format!("/{IDEMPOTENCY_KEY}"), "not_allowed", detail).into())
}

/// Returns the request's idempotency key with a fingerprint of the request, or `None` without the header. Call it after
/// the body has been read, because the fingerprint covers the body.
pub(crate) fn idempotency_key(request: &HttpRequest, author: &Author) -> Result<Option<IdempotencyKey>, Problem> {
    let mut values = request.headers().get_all(IDEMPOTENCY_KEY);
    let Some(value) = values.next() else { return Ok(None) };
    let key = value.to_str().ok().filter(|key| (1..=255).contains(&key.len()) && !key.contains(' '));
    let (Some(key), None) = (key, values.next()) else {
        let detail = "must be a single value of 1 to 255 visible ASCII characters";
        return Err(Violation::new(format!("/{IDEMPOTENCY_KEY}"), "invalid_header", detail).into());
    };
    let body = request.extensions().get::<BodyDigest>().map_or([0; 32], |digest| digest.0);
    let mut hash = Sha256::new();
    for field in [request.method().as_str().as_bytes(), request.uri().to_string().as_bytes(), &body] {
        hash.update(field.len().to_be_bytes());
        hash.update(field);
    }
    // The precondition is part of the fingerprint, so a retry must not change it.
    for value in request.headers().get_all("If-Match") {
        hash.update(value.as_bytes());
    }
    let fingerprint = hash.finalize().into();
    Ok(Some(IdempotencyKey { caller: author.actor.clone(), key: key.to_owned(), fingerprint }))
}
