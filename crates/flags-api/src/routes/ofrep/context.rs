//! Whom a request is about: the evaluation context as it was sent, and what is known of whom it names.

use std::{future::Future, pin::Pin};

use actix_web::{
    FromRequest, HttpRequest,
    dev::Payload,
    http::{
        StatusCode,
        header::{CONTENT_LENGTH, TRANSFER_ENCODING},
    },
};
use flags_domain::{CompiledFlag, EvaluationContext, MAX_ATTRIBUTES_BYTES, MAX_ATTRIBUTES_DEPTH, is_deeper_than};
use flags_service::evaluation::Subject;
use serde::Deserialize;
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::{
    app::App,
    auth::{Evaluates, FlagVisibility},
    extract::{MAX_BODY, json_body, json_text},
    problem::Problem,
};

/// The evaluation context of a request.
#[derive(Debug)]
pub(super) struct OfrepRequest {
    targeting_key: String,
    attributes: Map<String, Value>,
}

impl FromRequest for OfrepRequest {
    type Error = Problem;
    type Future = Pin<Box<dyn Future<Output = Result<Self, Problem>>>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let request = request.clone();
        let payload = payload.take();
        Box::pin(async move {
            if !has_body(&request) {
                return Err(no_targeting_key());
            }
            read(&json_body(&request, payload, MAX_BODY).await?)
        })
    }
}

fn has_body(request: &HttpRequest) -> bool {
    let length = request.headers().get(CONTENT_LENGTH);
    length.is_some_and(|length| length.as_bytes() != b"0") || request.headers().contains_key(TRANSFER_ENCODING)
}

fn no_targeting_key() -> Problem {
    let detail =
        "the context must have a targetingKey, whom flags are evaluated for: {\"context\": {\"targetingKey\": …}}";
    Problem::new(StatusCode::BAD_REQUEST, "targeting_key_missing", detail)
}

fn invalid(detail: impl Into<String>) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "invalid_context", detail)
}

/// What is beside the context is passed over: the protocol grows.
#[derive(Deserialize)]
struct Body {
    #[serde(default)]
    context: Option<Value>,
}

fn read(bytes: &[u8]) -> Result<OfrepRequest, Problem> {
    let text = json_text(bytes)?;
    // Serde would take an array for a struct.
    if !text.trim_start().starts_with('{') {
        return Err(invalid("the body must be a JSON object"));
    }
    let body: Body =
        serde_json::from_str(text).map_err(|error| invalid(format!("the context cannot be read: {error}")))?;
    let mut context = match body.context {
        None | Some(Value::Null) => return Err(no_targeting_key()),
        Some(Value::Object(context)) => context,
        Some(_) => return Err(invalid("the context must be a JSON object")),
    };
    let targeting_key = match context.remove("targetingKey") {
        None | Some(Value::Null) => return Err(no_targeting_key()),
        Some(Value::String(key)) if key.is_empty() => return Err(no_targeting_key()),
        Some(Value::String(key)) => key,
        Some(_) => return Err(invalid("the targetingKey must be a text")),
    };
    let context = Value::Object(context);
    if is_deeper_than(&context, MAX_ATTRIBUTES_DEPTH) {
        return Err(invalid(format!("the context may be nested at most {MAX_ATTRIBUTES_DEPTH} levels deep")));
    }
    if context.to_string().len() > MAX_ATTRIBUTES_BYTES {
        return Err(invalid(format!("the context may have at most {MAX_ATTRIBUTES_BYTES} bytes as JSON text")));
    }
    let Value::Object(attributes) = context else { return Err(invalid("the context must be a JSON object")) };
    Ok(OfrepRequest { targeting_key, attributes })
}

/// Whom flags are evaluated for, and by which flags.
pub(super) struct EvaluationTarget {
    /// Whose overrides count.
    user_id: Option<Uuid>,
    /// Who may become a user whose overrides count.
    named: Option<Uuid>,
    context: EvaluationContext,
    flags: FlagVisibility,
}

impl EvaluationTarget {
    /// Whom a caller who may do this has asked for. Of somebody who is no active user nothing is known but what was sent.
    pub(super) async fn of(app: &App, may: Evaluates, asked: OfrepRequest) -> Result<Self, Problem> {
        let OfrepRequest { targeting_key, attributes } = asked;
        let named = Uuid::try_parse(&targeting_key).ok();
        let flags = may.flags();
        match may {
            Evaluates::Own(user) if named == Some(user.id) => {
                // Once more: the body may have taken its time since it was found out who calls.
                let user = app.evaluation.user(user.id).await?.filter(|user| user.active);
                let user = user.ok_or_else(Problem::unauthorized)?;
                Ok(Self { user_id: named, named, context: user.context.completed_by(attributes), flags })
            }
            Evaluates::Own(_) => {
                let detail =
                    "this credential may evaluate flags for its own user alone: the targetingKey must be their id";
                Err(Problem::forbidden("forbidden", detail))
            }
            Evaluates::Anybody => {
                let user = match named {
                    Some(id) => app.evaluation.user(id).await?.filter(|user| user.active),
                    None => None,
                };
                let user_id = user.as_ref().map(|user| user.id);
                let context = match user {
                    Some(user) => user.context.overlaid_by(attributes),
                    None => EvaluationContext::anonymous(&targeting_key, Map::new()).overlaid_by(attributes),
                };
                Ok(Self { user_id, named, context, flags })
            }
        }
    }

    pub(super) const fn subject(&self) -> Subject<'_> {
        Subject { user_id: self.user_id, context: &self.context }
    }

    /// The user whose changes may matter, be they one already or not.
    pub(super) const fn named(&self) -> Option<Uuid> {
        self.named
    }

    /// The key as it counts: of a user, their id in its usual form.
    pub(super) fn targeting_key(&self) -> &str {
        self.context.targeting_key()
    }

    /// Whether the caller may know of this flag.
    pub(super) const fn sees(&self, flag: &CompiledFlag) -> bool {
        self.flags.has(flag)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(body: &str) -> &'static str {
        read(body.as_bytes()).map_or_else(|problem| problem.code(), |_| "read")
    }

    #[test]
    fn a_context_is_its_key_and_its_attributes() {
        let body = r#"{"context": {"targetingKey": "k", "plan": "pro", "a\u0000": "\u0000"}, "from": "the future", "n": 1e999}"#;
        let asked = read(body.as_bytes()).unwrap();
        assert_eq!(asked.targeting_key, "k");
        assert_eq!(Value::Object(asked.attributes), serde_json::json!({"plan": "pro", "a\0": "\0"}));
    }

    #[test]
    fn without_a_key_nothing_is_evaluated() {
        for body in [
            "{}",
            r#"{"context": null}"#,
            r#"{"context": {}}"#,
            r#"{"context": {"targetingKey": ""}}"#,
            r#"{"context": {"targetingKey": null}}"#,
            r#"{"context": {"targeting_key": "k"}}"#,
        ] {
            assert_eq!(code(body), "targeting_key_missing", "{body}");
        }
    }

    #[test]
    fn what_is_no_context_is_told_from_what_is_no_json() {
        for body in ["", "{", "nope", "{\"context\": {},}", "{} {}"] {
            assert_eq!(code(body), "invalid_json", "{body}");
        }
        for body in [
            "[]",
            "null",
            r#"{"context": []}"#,
            r#"{"context": "k"}"#,
            r#"{"context": {"targetingKey": 1}}"#,
            r#"{"context": {"targetingKey": ["k"]}}"#,
            r#"{"context": {"targetingKey": "k", "n": 1e999}}"#,
        ] {
            assert_eq!(code(body), "invalid_context", "{body}");
        }
    }

    #[test]
    fn a_context_is_bounded_like_a_users_attributes() {
        let nested = |levels: usize| {
            let value = format!("{}1{}", "[".repeat(levels - 2), "]".repeat(levels - 2));
            code(&format!(r#"{{"context": {{"targetingKey": "k", "a": {value}}}}}"#))
        };
        assert_eq!((nested(32), nested(33), nested(500)), ("read", "invalid_context", "invalid_context"));
        let sized = |bytes: usize| {
            code(&format!(
                r#"{{"context": {{"targetingKey": "k", "a": "{}"}}}}"#,
                "x".repeat(bytes - r#"{"a":""}"#.len())
            ))
        };
        assert_eq!((sized(64 * 1024), sized(64 * 1024 + 1)), ("read", "invalid_context"));
    }
}
