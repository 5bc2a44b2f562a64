//! Request ids: the value of `X-Request-Id`, which log lines, problem documents and change-log entries contain.

use actix_web::http::header::{HeaderMap, HeaderName, HeaderValue};
use flags_service::credentials::secret::SecretKind;
use uuid::Uuid;

/// Header of requests and responses that contains the request id.
pub(crate) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Maximum length of a request id, in characters.
const MAX_LENGTH: usize = 64;

/// Id of a request. The outermost middleware stores it in the request's extensions.
#[derive(Clone, Debug)]
pub(crate) struct RequestId(pub(crate) String);

impl RequestId {
    /// Returns the caller's `X-Request-Id` if it is well-formed and not a secret, otherwise a new UUID.
    pub(crate) fn from_headers(headers: &HeaderMap) -> Self {
        let from_caller = headers.get(X_REQUEST_ID).and_then(|value| value.to_str().ok());
        match from_caller.filter(|id| is_acceptable(id)) {
            Some(id) => Self(id.to_owned()),
            None => Self(Uuid::now_v7().to_string()),
        }
    }

    /// Returns the value of the response header.
    #[expect(clippy::expect_used, reason = "an id consists of letters, digits and the characters `-`, `_` and `.`")]
    pub(crate) fn header_value(&self) -> HeaderValue {
        HeaderValue::from_str(&self.0).expect("request ids are valid header text")
    }
}

fn is_acceptable(id: &str) -> bool {
    let has_valid_characters = id.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
    (1..=MAX_LENGTH).contains(&id.len()) && has_valid_characters && !looks_like_secret(id)
}

/// Whether the text looks like a credential. The change log stores request ids, so a credential must not become one.
fn looks_like_secret(id: &str) -> bool {
    SecretKind::ALL.iter().any(|kind| id.contains(kind.prefix())) || id.starts_with("eyJ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_only_short_ids_of_safe_characters_that_are_not_secrets() {
        for id in ["a", "my-id.1", "A_b-9.z", &"a".repeat(64)] {
            assert!(is_acceptable(id), "{id}");
        }
        for id in ["", "a b", "a<b>", "é", &"a".repeat(65), "flg_looks-like-a-token", "fls_x", "x-flg_y", "eyJhbGciOiJ"]
        {
            assert!(!is_acceptable(id), "{id}");
        }
    }
}
