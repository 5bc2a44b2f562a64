//! JSON bodies: media type, size, syntax and shape, each with its own answer.

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

use super::idempotency::remember_body;
use crate::problem::Problem;

/// Longest that a body may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// Largest body unless something else is said, in bytes.
pub(crate) const MAX_BODY: usize = 256 * 1024;

/// What a request's body can be read as.
pub(crate) trait Body: DeserializeOwned {
    /// Largest body, in bytes.
    const LIMIT: usize = MAX_BODY;
}

/// A JSON body of this shape.
pub(crate) struct Json<T>(pub(crate) T);

impl<T: Body + 'static> FromRequest for Json<T> {
    type Error = Problem;
    type Future = Pin<Box<dyn Future<Output = Result<Self, Problem>>>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let request = request.clone();
        let payload = payload.take();
        Box::pin(async move {
            let bytes = json_body(&request, payload, T::LIMIT).await?;
            remember_body(&request, &bytes);
            parse(&bytes).map(Self)
        })
    }
}

/// The body of a request that says it is JSON, of at most so many bytes.
pub(crate) async fn json_body(request: &HttpRequest, payload: Payload, limit: usize) -> Result<Bytes, Problem> {
    check_media_type(request)?;
    timeout(BODY_TIMEOUT, read_body(request, payload, limit))
        .await
        .map_err(|_| Problem::new(StatusCode::REQUEST_TIMEOUT, "request_timeout", "the body did not arrive in time"))?
}

/// Whether the request says that its body is JSON.
pub(crate) fn is_json(request: &HttpRequest) -> bool {
    let value = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let merge_patch = request.method() == Method::PATCH && essence == "application/merge-patch+json";
    essence == "application/json" || merge_patch
}

fn check_media_type(request: &HttpRequest) -> Result<(), Problem> {
    if is_json(request) {
        return Ok(());
    }
    let detail = "send the body as JSON: Content-Type: application/json";
    Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", detail))
}

async fn read_body(request: &HttpRequest, mut payload: Payload, limit: usize) -> Result<Bytes, Problem> {
    let too_large = || {
        let detail = format!("the body may have at most {limit} bytes");
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", detail)
    };
    let announced = request.headers().get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    if announced.is_some_and(|length: usize| length > limit) {
        return Err(too_large());
    }
    let mut body = BytesMut::new();
    while let Some(chunk) = payload.next().await {
        let chunk = chunk.map_err(|_| {
            Problem::new(StatusCode::BAD_REQUEST, "body_incomplete", "the body ended before it was complete")
        })?;
        if body.len() + chunk.len() > limit {
            return Err(too_large());
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body.freeze())
}

/// The text of a body that is JSON, of whatever shape.
pub(crate) fn json_text(bytes: &[u8]) -> Result<&str, Problem> {
    let no_json =
        |why: String| Problem::new(StatusCode::BAD_REQUEST, "invalid_json", format!("the body is no JSON: {why}"));
    let text = std::str::from_utf8(bytes).map_err(|error| no_json(error.to_string()))?;
    serde_json::from_str::<IgnoredAny>(text).map_err(|error| no_json(error.to_string()))?;
    Ok(text)
}

/// 400 only for bytes that are no JSON; JSON of the wrong shape is 422.
fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    let text = json_text(bytes)?;
    // Serde would take an array for a struct, field by field.
    if !text.trim_start().starts_with('{') {
        return Err(Violation::new("", "invalid_type", "the body must be a JSON object").into());
    }
    let mut reader = serde_json::Deserializer::from_str(text);
    serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        let pointer = pointer(error.path());
        shape_violation(&pointer, &error.into_inner().to_string()).into()
    })
}

/// Serde says in words what is wrong; clients get it with a pointer and a code.
fn shape_violation(pointer: &str, text: &str) -> Violation {
    let message = text.split(" at line ").next().unwrap_or_default();
    let field = message.split('`').nth(1).unwrap_or_default();
    let at = |field: &str| {
        if pointer.ends_with(&format!("/{field}")) { pointer.to_owned() } else { format!("{pointer}/{field}") }
    };
    if message.starts_with("missing field") {
        Violation::new(at(field), "required", "this field is required")
    } else if message.starts_with("unknown field") {
        Violation::new(at(field), "unknown_field", message.to_owned())
    } else if message.starts_with("duplicate field") {
        Violation::new(at(field), "duplicate", "this field stands twice")
    } else if message.starts_with("recursion limit exceeded") {
        Violation::new(pointer, "too_deep", "is nested too deep")
    } else if message.starts_with("number out of range") {
        Violation::new(pointer, "number_out_of_range", "numbers must be finite doubles")
    } else {
        // What serde calls a variant of an enumeration has nothing to do with a flag's.
        Violation::new(pointer, "invalid_type", message.replace("unknown variant", "unknown value"))
    }
}

fn pointer(path: &Path) -> String {
    let segments = path.iter().filter_map(|segment| match segment {
        Segment::Seq { index } => Some(index.to_string()),
        Segment::Map { key } => Some(key.replace('~', "~0").replace('/', "~1")),
        Segment::Enum { .. } | Segment::Unknown => None,
    });
    segments.map(|segment| format!("/{segment}")).collect()
}

/// For `Option` fields of a patch: a field that is there is `Some`, even if it is `null`.
pub(crate) fn present<'de, T, D>(deserializer: D) -> Result<Option<T>, D::Error>
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
        let answer: Value = serde_json::from_str(&problem.body("r")).unwrap();
        assert_eq!(problem.status_code().as_u16(), status, "{answer}");
        let found: Vec<_> =
            answer["errors"].as_array().into_iter().flatten().map(|e| json!([e["pointer"], e["code"]])).collect();
        assert_eq!(Value::Array(found), expected, "{answer}");
    }

    #[test]
    fn bytes_that_are_no_json_are_told_apart_from_json_of_the_wrong_shape() {
        check("", 400, json!([]));
        check("{", 400, json!([]));
        check("{\"name\":\"a\"} x", 400, json!([]));
        check("\u{0}", 400, json!([]));
        check("[]", 422, json!([["", "invalid_type"]]));
        check("{}", 422, json!([["/name", "required"]]));
        check(r#"{"name":"a","nope":1}"#, 422, json!([["/nope", "unknown_field"]]));
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
