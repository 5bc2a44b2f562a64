//! Evaluation context of an OFREP request, and the user that the targeting key names.

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
    RESERVED_ATTRIBUTES, check_attribute_counts, is_deeper_than,
};
use flags_service::evaluation::ResolvedKey;
use serde::Deserialize;
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::{
    auth::{Credential, EvaluationScope, FlagVisibility},
    extract::{MAX_BODY_BYTES, json_text, read_json_body},
    problem::Problem,
    state::App,
};

/// Evaluation context of a request, before the targeting key is resolved.
#[derive(Debug)]
pub(super) struct OfrepRequest {
    /// `None` if the context has no targeting key or an empty one.
    targeting_key: Option<String>,
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
                return Err(invalid("the request must have a JSON body, such as {\"context\": {}}"));
            }
            parse(&read_json_body(&request, payload, MAX_BODY_BYTES).await?)
        })
    }
}

fn has_body(request: &HttpRequest) -> bool {
    let length = request.headers().get(CONTENT_LENGTH);
    length.is_some_and(|length| length.as_bytes() != b"0") || request.headers().contains_key(TRANSFER_ENCODING)
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
        None | Some(Value::Null) => Map::new(),
        Some(Value::Object(context)) => context,
        Some(_) => return Err(invalid("the context must be a JSON object")),
    };
    let targeting_key = match context.remove("targetingKey") {
        None | Some(Value::Null) => None,
        Some(Value::String(key)) => Some(key).filter(|key| !key.is_empty()),
        Some(_) => return Err(invalid("the targetingKey must be a string")),
    };
    if targeting_key.as_ref().is_some_and(|key| key.len() > MAX_TARGETING_KEY_BYTES) {
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

/// Context to evaluate flags for, and the flags that the caller can see.
pub(super) struct EvaluationTarget {
    /// User whose overrides apply. `None` without a targeting key and for an inactive user.
    user_id: Option<Uuid>,
    /// Id of the user that the targeting key identifies. The user may be inactive, or may not exist yet if the id is
    /// derived from an external id.
    keyed_user_id: Option<Uuid>,
    context: EvaluationContext,
    /// Names of attributes in the request that do not apply, because the key or the stored user supplies them.
    ignored_attributes: Vec<&'static str>,
    visibility: FlagVisibility,
}

impl EvaluationTarget {
    /// Resolves the targeting key of a request.
    ///
    /// Fails with 403 if `scope` does not permit the key. With [`EvaluationScope::AnyContext`], a key without an active
    /// user yields a context that consists of the key and the request's attributes.
    pub(super) async fn resolve(
        app: &App,
        credential: &Credential,
        scope: EvaluationScope,
        request: OfrepRequest,
    ) -> Result<Self, Problem> {
        let visibility = scope.flag_visibility();
        match scope {
            EvaluationScope::OwnUser(user) => Self::for_own_user(app, (credential, user.id), request, visibility).await,
            EvaluationScope::AnyContext => Self::for_any_context(app, request, visibility).await,
        }
    }

    /// Resolves a request of a caller that may evaluate flags only for its own user. Without a targeting key, the
    /// credential identifies the user.
    async fn for_own_user(
        app: &App,
        (credential, own_id): (&Credential, Uuid),
        mut request: OfrepRequest,
        visibility: FlagVisibility,
    ) -> Result<Self, Problem> {
        if let Some(key) = &request.targeting_key
            && app.evaluation.resolve_key(key).await?.user_id != own_id
        {
            let detail = "this credential may evaluate flags for its own user only; send the user's id or external id \
                          as targetingKey";
            return Err(Problem::forbidden("forbidden", detail));
        }
        // Look the user up again, because the user may have changed while the body was read.
        let user = credential.acting_user(app, own_id).await?.ok_or_else(Problem::unauthorized)?.user;
        // Users cannot choose their built-in attributes, not even those that the stored user lacks.
        let built_in = RESERVED_ATTRIBUTES.into_iter();
        let ignored_attributes = built_in.filter(|name| request.attributes.remove(*name).is_some()).collect();
        Ok(Self {
            user_id: Some(own_id),
            keyed_user_id: Some(own_id),
            ignored_attributes,
            context: user.context.with_fallback_attributes(request.attributes),
            visibility,
        })
    }

    async fn for_any_context(app: &App, request: OfrepRequest, visibility: FlagVisibility) -> Result<Self, Problem> {
        let OfrepRequest { targeting_key, attributes } = request;
        let resolved = match &targeting_key {
            None => None,
            Some(key) => Some(app.evaluation.resolve_key(key).await?),
        };
        let keyed_user_id = resolved.as_ref().map(|resolved| resolved.user_id);
        let is_inactive = resolved.as_ref().is_some_and(ResolvedKey::is_inactive);
        let context = match resolved.zip(targeting_key) {
            Some((resolved, key)) => resolved.context(&key),
            None => EvaluationContext::without_key(Map::new()),
        };
        Ok(Self {
            user_id: keyed_user_id.filter(|_| !is_inactive),
            keyed_user_id,
            ignored_attributes: context.ignored_attributes(&attributes),
            context: context.with_attributes(attributes),
            visibility,
        })
    }

    /// User whose overrides apply. `None` without a targeting key and for an inactive user.
    pub(super) const fn user_id(&self) -> Option<Uuid> {
        self.user_id
    }

    pub(super) const fn context(&self) -> &EvaluationContext {
        &self.context
    }

    /// User whose changes can affect the results, even if the user does not exist yet or is inactive.
    pub(super) const fn keyed_user_id(&self) -> Option<Uuid> {
        self.keyed_user_id
    }

    /// Text that percentage splits hash by default. For a stored user, it is the external id that the user was created
    /// with, else the user id in lower case. Otherwise, it is the targeting key. Empty if the context has no key.
    pub(super) fn evaluation_key(&self) -> &str {
        self.context.evaluation_key().unwrap_or_default()
    }

    /// Names of attributes in the request that do not apply, separated by commas. Empty if there are none.
    pub(super) fn ignored_attributes(&self) -> String {
        self.ignored_attributes.join(",")
    }

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
        assert_eq!(request.targeting_key.as_deref(), Some("k"));
        assert_eq!(Value::Object(request.attributes), serde_json::json!({"plan": "pro", "a\0": "\0"}));
    }

    #[test]
    fn targeting_keys_are_optional() {
        for body in [
            "{}",
            r#"{"context": null}"#,
            r#"{"context": {}}"#,
            r#"{"context": {"targetingKey": ""}}"#,
            r#"{"context": {"targetingKey": null}}"#,
            r#"{"context": {"targeting_key": "k"}}"#,
        ] {
            assert_eq!(parse(body.as_bytes()).unwrap().targeting_key, None, "{body}");
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
