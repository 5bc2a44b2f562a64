//! Evaluation context of an OFREP request, and the user that it names.

use std::{future::Future, pin::Pin};

use actix_web::{
    FromRequest, HttpRequest,
    dev::Payload,
    http::{
        StatusCode,
        header::{CONTENT_LENGTH, TRANSFER_ENCODING},
    },
};
use flags_domain::{
    CompiledFlag, EvaluationContext, MAX_ATTRIBUTES_BYTES, MAX_ATTRIBUTES_DEPTH, MAX_TARGETING_KEY_BYTES,
    check_attribute_counts, is_deeper_than,
};
use serde::Deserialize;
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::{
    auth::{EvaluationScope, FlagVisibility},
    extract::{MAX_BODY_BYTES, json_text, read_json_body},
    problem::Problem,
    state::App,
};

/// Evaluation context of a request.
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
            parse(&read_json_body(&request, payload, MAX_BODY_BYTES).await?)
        })
    }
}

fn has_body(request: &HttpRequest) -> bool {
    let length = request.headers().get(CONTENT_LENGTH);
    length.is_some_and(|length| length.as_bytes() != b"0") || request.headers().contains_key(TRANSFER_ENCODING)
}

fn no_targeting_key() -> Problem {
    let detail = "the context must have a targetingKey: {\"context\": {\"targetingKey\": \"…\"}}";
    Problem::new(StatusCode::BAD_REQUEST, "targeting_key_missing", detail)
}

fn invalid(detail: impl Into<String>) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "invalid_context", detail)
}

/// Body of an OFREP request. Other members are ignored, because later protocol versions may add some.
#[derive(Deserialize)]
struct EvaluationBody {
    #[serde(default)]
    context: Option<Value>,
}

fn parse(bytes: &[u8]) -> Result<OfrepRequest, Problem> {
    let text = json_text(bytes)?;
    // Serde would accept an array in place of an object.
    if !text.trim_start().starts_with('{') {
        return Err(invalid("the body must be a JSON object"));
    }
    let body: EvaluationBody =
        serde_json::from_str(text).map_err(|error| invalid(format!("invalid context: {error}")))?;
    let mut context = match body.context {
        None | Some(Value::Null) => return Err(no_targeting_key()),
        Some(Value::Object(context)) => context,
        Some(_) => return Err(invalid("the context must be a JSON object")),
    };
    let targeting_key = match context.remove("targetingKey") {
        None | Some(Value::Null) => return Err(no_targeting_key()),
        Some(Value::String(key)) if key.is_empty() => return Err(no_targeting_key()),
        Some(Value::String(key)) => key,
        Some(_) => return Err(invalid("the targetingKey must be a string")),
    };
    if targeting_key.len() > MAX_TARGETING_KEY_BYTES {
        return Err(invalid(format!("the targetingKey must have at most {MAX_TARGETING_KEY_BYTES} bytes")));
    }
    let context = Value::Object(context);
    if is_deeper_than(&context, MAX_ATTRIBUTES_DEPTH) {
        return Err(invalid(format!("the context must not exceed {MAX_ATTRIBUTES_DEPTH} levels of nesting")));
    }
    if context.to_string().len() > MAX_ATTRIBUTES_BYTES {
        return Err(invalid(format!("the context must not exceed {MAX_ATTRIBUTES_BYTES} bytes as JSON")));
    }
    let Value::Object(attributes) = context else { return Err(invalid("the context must be a JSON object")) };
    if let Some(violation) = check_attribute_counts("", &attributes, None).pop() {
        return Err(invalid(violation.detail));
    }
    Ok(OfrepRequest { targeting_key, attributes })
}

/// Subject to evaluate flags for, and the flags that the caller can see.
pub(super) struct EvaluationTarget {
    /// User whose overrides apply. `None` if the targeting key is not the id of an active user.
    user_id: Option<Uuid>,
    /// Targeting key parsed as a user id, whether or not such a user exists.
    parsed_user_id: Option<Uuid>,
    context: EvaluationContext,
    visibility: FlagVisibility,
}

impl EvaluationTarget {
    /// Resolves the targeting key of a request.
    ///
    /// Fails with 403 if `scope` does not permit it. If the key is not the id of an active user, the context consists
    /// of the request's attributes only.
    pub(super) async fn resolve(app: &App, scope: EvaluationScope, request: OfrepRequest) -> Result<Self, Problem> {
        let OfrepRequest { targeting_key, attributes } = request;
        let parsed_user_id = Uuid::try_parse(&targeting_key).ok();
        let visibility = scope.flag_visibility();
        match scope {
            EvaluationScope::OwnUser(user) if parsed_user_id == Some(user.id) => {
                // Look the user up again: reading the body may have taken a while since authentication.
                let user = app.evaluation.user(user.id).await?.filter(|user| user.active);
                let user = user.ok_or_else(Problem::unauthorized)?;
                let context = user.context.with_fallback_attributes(attributes);
                Ok(Self { user_id: parsed_user_id, parsed_user_id, context, visibility })
            }
            EvaluationScope::OwnUser(_) => {
                let detail =
                    "this credential may evaluate flags for its own user only; send the user's id as targetingKey";
                Err(Problem::forbidden("forbidden", detail))
            }
            EvaluationScope::AnyContext => {
                let user = match parsed_user_id {
                    Some(id) => app.evaluation.user(id).await?.filter(|user| user.active),
                    None => None,
                };
                let user_id = user.as_ref().map(|user| user.id);
                let context = match user {
                    Some(user) => user.context.with_attributes(attributes),
                    None => EvaluationContext::anonymous(&targeting_key, Map::new()).with_attributes(attributes),
                };
                Ok(Self { user_id, parsed_user_id, context, visibility })
            }
        }
    }

    /// User whose overrides apply. `None` if the targeting key is not the id of an active user.
    pub(super) const fn user_id(&self) -> Option<Uuid> {
        self.user_id
    }

    pub(super) const fn context(&self) -> &EvaluationContext {
        &self.context
    }

    /// User whose changes can affect the results, whether or not the user exists.
    pub(super) const fn parsed_user_id(&self) -> Option<Uuid> {
        self.parsed_user_id
    }

    /// Normalized targeting key: for a user, the id in canonical form.
    pub(super) fn targeting_key(&self) -> &str {
        self.context.targeting_key()
    }

    /// Whether the caller can see this flag.
    pub(super) const fn can_see(&self, flag: &CompiledFlag) -> bool {
        self.visibility.includes(flag)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(body: &str) -> &'static str {
        parse(body.as_bytes()).map_or_else(|problem| problem.code(), |_| "ok")
    }

    #[test]
    fn splits_context_into_targeting_key_and_attributes() {
        let body = r#"{"context": {"targetingKey": "k", "plan": "pro", "a\u0000": "\u0000"}, "from": "the future", "n": 1e999}"#;
        let request = parse(body.as_bytes()).unwrap();
        assert_eq!(request.targeting_key, "k");
        assert_eq!(Value::Object(request.attributes), serde_json::json!({"plan": "pro", "a\0": "\0"}));
    }

    #[test]
    fn rejects_missing_targeting_keys() {
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
    fn distinguishes_invalid_contexts_from_invalid_json() {
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
    fn limits_depth_and_size_of_contexts() {
        let nested = |levels: usize| {
            let value = format!("{}1{}", "[".repeat(levels - 2), "]".repeat(levels - 2));
            code(&format!(r#"{{"context": {{"targetingKey": "k", "a": {value}}}}}"#))
        };
        assert_eq!((nested(32), nested(33), nested(500)), ("ok", "invalid_context", "invalid_context"));
        let sized = |bytes: usize| {
            code(&format!(
                r#"{{"context": {{"targetingKey": "k", "a": "{}"}}}}"#,
                "x".repeat(bytes - r#"{"a":""}"#.len())
            ))
        };
        assert_eq!((sized(64 * 1024), sized(64 * 1024 + 1)), ("ok", "invalid_context"));
    }
}
