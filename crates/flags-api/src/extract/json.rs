//! JSON request bodies. An invalid media type, size, syntax or shape each has its own error code.

use std::{future::Future, pin::Pin, time::Duration};

use actix_web::{
    FromRequest, HttpRequest,
    dev::Payload,
    http::{Method, StatusCode, header},
    web::{Bytes, BytesMut},
};
use flags_domain::Violation;
use futures_util::StreamExt as _;
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, IgnoredAny},
};
use serde_path_to_error::{Path, Segment};
use tokio::time::timeout;

use super::idempotency::store_body_digest;
use crate::{body_check::run_body_check, problem::Problem};

/// Timeout for receiving a body.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// Default maximum size of a body, in bytes.
pub(crate) const MAX_BODY_BYTES: usize = 256 * 1024;

/// Type that a JSON request body can be deserialized to.
pub(crate) trait RequestBody: DeserializeOwned {
    /// Maximum size of the body, in bytes.
    const MAX_BYTES: usize = MAX_BODY_BYTES;
}

/// Extractor for a JSON body.
pub(crate) struct Json<T>(pub(crate) T);

impl<T: RequestBody + 'static> FromRequest for Json<T> {
    type Error = Problem;
    type Future = Pin<Box<dyn Future<Output = Result<Self, Problem>>>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let request = request.clone();
        let payload = payload.take();
        Box::pin(async move {
            let bytes = read_json_body(&request, payload, T::MAX_BYTES).await?;
            store_body_digest(&request, &bytes);
            parse(&bytes).map(Self)
        })
    }
}

/// Reads a body of at most `max_bytes`, and then repeats the permission check of the request. Checks the media type but
/// not the JSON syntax.
pub(crate) async fn read_json_body(
    request: &HttpRequest,
    payload: Payload,
    max_bytes: usize,
) -> Result<Bytes, Problem> {
    check_media_type(request)?;
    let body = timeout(BODY_TIMEOUT, read_body(request, payload, max_bytes)).await.map_err(|_| {
        let detail = format!("the body did not arrive within {} seconds", BODY_TIMEOUT.as_secs());
        Problem::new(StatusCode::REQUEST_TIMEOUT, "request_timeout", detail)
    })??;
    run_body_check(request).await?;
    Ok(body)
}

/// Whether `Content-Type` is `application/json` or, on a PATCH, `application/merge-patch+json` (RFC 7396).
pub(crate) fn has_json_content_type(request: &HttpRequest) -> bool {
    let value = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let merge_patch = request.method() == Method::PATCH && essence == "application/merge-patch+json";
    essence == "application/json" || merge_patch
}

fn check_media_type(request: &HttpRequest) -> Result<(), Problem> {
    if has_json_content_type(request) {
        return Ok(());
    }
    let detail = "Content-Type must be application/json";
    Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", detail))
}

async fn read_body(request: &HttpRequest, mut payload: Payload, max_bytes: usize) -> Result<Bytes, Problem> {
    let content_length =
        request.headers().get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    if content_length.is_some_and(|length: usize| length > max_bytes) {
        return Err(body_too_large(max_bytes));
    }
    let mut body = BytesMut::new();
    while let Some(chunk) = payload.next().await {
        let chunk = chunk.map_err(|_| {
            let detail = "the connection ended before the body was complete";
            Problem::new(StatusCode::BAD_REQUEST, "body_incomplete", detail)
        })?;
        if body.len() + chunk.len() > max_bytes {
            return Err(body_too_large(max_bytes));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body.freeze())
}

fn body_too_large(max_bytes: usize) -> Problem {
    let detail = format!("the body must not exceed {max_bytes} bytes");
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", detail)
}

/// Returns the body as text. Fails with 400 if it is not UTF-8 or not valid JSON.
pub(crate) fn json_text(bytes: &[u8]) -> Result<&str, Problem> {
    let text = std::str::from_utf8(bytes).map_err(invalid_json)?;
    serde_json::from_str::<IgnoredAny>(text).map_err(invalid_json)?;
    Ok(text)
}

fn invalid_json(error: impl std::fmt::Display) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "invalid_json", format!("the body is not valid JSON: {error}"))
}

/// Parses the body. Invalid JSON is a 400; valid JSON of the wrong shape is a 422.
fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    let text = json_text(bytes)?;
    // Serde also deserializes a struct from an array, field by field; the API accepts objects only.
    if !text.trim_start().starts_with('{') {
        return Err(Violation::new("", "invalid_type", "the body must be a JSON object").into());
    }
    let mut deserializer = serde_json::Deserializer::from_str(text);
    serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let pointer = pointer(error.path());
        shape_violation(&pointer, &error.into_inner().to_string()).into()
    })
}

/// Translates serde's error message to a violation with a pointer and a code.
fn shape_violation(pointer: &str, text: &str) -> Violation {
    let message = text.split(" at line ").next().unwrap_or_default();
    let field = message.split('`').nth(1).unwrap_or_default();
    if message.starts_with("missing field") {
        Violation::new(field_pointer(pointer, field), "required", "this field is required")
    } else if message.starts_with("unknown field") {
        Violation::new(field_pointer(pointer, field), "unknown_field", message.to_owned())
    } else if message.starts_with("duplicate field") {
        Violation::new(field_pointer(pointer, field), "duplicate", "this field occurs more than once")
    } else if message.starts_with("recursion limit exceeded") {
        Violation::new(pointer, "too_deep", "is nested too deeply")
    } else if message.starts_with("number out of range") {
        Violation::new(pointer, "number_out_of_range", "must be within the range of a 64-bit floating-point number")
    } else {
        // Serde's term "variant" for an enum value would be mistaken for a flag's variant.
        Violation::new(pointer, "invalid_type", message.replace("unknown variant", "unknown value"))
    }
}

/// Returns the pointer to a field. Serde reports some errors at the object and others at the field itself.
fn field_pointer(pointer: &str, field: &str) -> String {
    if pointer.ends_with(&format!("/{field}")) { pointer.to_owned() } else { format!("{pointer}/{field}") }
}

fn pointer(path: &Path) -> String {
    let segments = path.iter().filter_map(|segment| match segment {
        Segment::Seq { index } => Some(index.to_string()),
        Segment::Map { key } => Some(key.replace('~', "~0").replace('/', "~1")),
        Segment::Enum { .. } | Segment::Unknown => None,
    });
    segments.map(|segment| format!("/{segment}")).collect()
}

/// Deserializes an optional field of a patch: a field that is present becomes `Some`, even if its value is `null`.
pub(crate) fn deserialize_present<'de, T, D>(deserializer: D) -> Result<Option<T>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    T::deserialize(deserializer).map(Some)
}

#[cfg(test)]
mod tests {
    use actix_web::ResponseError as _;
    use serde_json::{Value, json};

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Sample {
        #[expect(dead_code)]
        name: String,
        #[expect(dead_code)]
        #[serde(default)]
        items: Vec<u8>,
    }

    fn check(body: &str, status: u16, expected: Value) {
        let problem = parse::<Sample>(body.as_bytes()).unwrap_err();
        let body: Value = serde_json::from_str(&problem.body("r")).unwrap();
        assert_eq!(problem.status_code().as_u16(), status, "{body}");
        let errors: Vec<_> =
            body["errors"].as_array().into_iter().flatten().map(|e| json!([e["pointer"], e["code"]])).collect();
        assert_eq!(Value::Array(errors), expected, "{body}");
    }

    #[test]
    fn invalid_json_is_400_and_json_of_the_wrong_shape_is_422() {
        check("", 400, json!([]));
        check("{", 400, json!([]));
        check("{\"name\":\"a\"} x", 400, json!([]));
        check("\u{0}", 400, json!([]));
        check("[]", 422, json!([["", "invalid_type"]]));
        check("{}", 422, json!([["/name", "required"]]));
        check(r#"{"name":"a","unknown":1}"#, 422, json!([["/unknown", "unknown_field"]]));
        check(r#"{"name":"a","name":"b"}"#, 422, json!([["/name", "duplicate"]]));
        check(r#"{"name":1}"#, 422, json!([["/name", "invalid_type"]]));
        check(r#"{"name":"a","items":[1,"x"]}"#, 422, json!([["/items/1", "invalid_type"]]));
        check(r#"{"name":1e999}"#, 422, json!([["/name", "number_out_of_range"]]));
        check("{} {}", 400, json!([]));
        check(r#"{"name":null,}"#, 400, json!([]));
        check(&"[".repeat(500), 400, json!([]));
        let deep = format!("{}{}", "[".repeat(500), "]".repeat(500));
        check(&deep, 422, json!([["", "invalid_type"]]));
        check(&format!(r#"{{"name":"a","items":{deep}}}"#), 422, json!([["/items/0", "invalid_type"]]));
    }
}
