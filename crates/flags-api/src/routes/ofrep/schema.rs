//! Types of requests and hand-written responses for the OpenAPI document. Tests compare the responses with these types.

use std::collections::BTreeMap;

use flags_domain::Instant;
use serde_json::Value;
use utoipa::ToSchema;

use crate::ofrep_failure::EvaluationFailure;

/// Evaluation request. Unknown members are ignored.
#[derive(ToSchema)]
#[cfg_attr(test, derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(not(test), expect(dead_code, reason = "OpenAPI document only"))]
pub(crate) struct EvaluationRequest {
    /// Context to evaluate flags for. By default, an empty context.
    #[schema(required = false)]
    context: Option<WireEvaluationContext>,
}

/// Evaluation context. All members other than `targetingKey` are attributes: at most 1,000 members and 5,000 array
/// elements at any depth, and 64 KiB as JSON text.
#[derive(ToSchema)]
#[cfg_attr(test, derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(not(test), expect(dead_code, reason = "OpenAPI document only"))]
#[schema(as = EvaluationContext)]
pub(crate) struct WireEvaluationContext {
    /// Id or external id of the user. With a token of scope `evaluate`, any string; if it belongs to no active user,
    /// the context is anonymous. Without a key, conditions on `user_id` and `external_id` fail, and percentage splits
    /// by `user_id` serve the off variant. Other credentials need no key, because they evaluate for their own user. At
    /// most 4,096 bytes.
    #[serde(rename = "targetingKey")]
    #[schema(required = false, max_length = 4096)]
    targeting_key: Option<String>,
}

/// Evaluation result of one flag.
#[derive(ToSchema)]
#[cfg_attr(test, derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(not(test), expect(dead_code, reason = "OpenAPI document only"))]
pub(crate) struct EvaluationSuccess {
    /// Flag name.
    key: String,
    /// Value, of the flag's type.
    value: Value,
    /// Why this value was selected.
    reason: EvaluationReason,
    /// Id of the variant with this value. `override` if an override supplies a value that no variant has.
    variant: String,
    /// `source` and `flag_type`. If an override supplied the value, also `override_created_at`, `override_updated_at`,
    /// `override_expires_at` (if it expires) and `override_reason` (if the server runs with `--show-reasons-to-users`).
    /// `ignored_attributes` names the attributes in the request that do not apply, separated by commas.
    metadata: BTreeMap<String, String>,
}

/// Why a value was selected, as defined by OpenFeature.
///
/// - `TARGETING_MATCH`: an override or a targeting rule
/// - `SPLIT`: a percentage split, in any layer
/// - `STATIC`: the default, or a scheduled change of it
/// - `DISABLED`: the flag is off
#[derive(ToSchema)]
#[cfg_attr(test, derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(test, serde(rename_all = "SCREAMING_SNAKE_CASE"))]
#[cfg_attr(not(test), expect(dead_code, reason = "OpenAPI document only"))]
#[schema(rename_all = "SCREAMING_SNAKE_CASE")]
pub(crate) enum EvaluationReason {
    TargetingMatch,
    Split,
    Static,
    Disabled,
}

/// Result of one flag in a bulk evaluation.
#[derive(ToSchema)]
#[cfg_attr(test, derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(not(test), expect(dead_code, reason = "OpenAPI document only"))]
#[serde(untagged)]
pub(crate) enum EvaluationResult {
    Success(EvaluationSuccess),
    /// The flag's definition is invalid, or its evaluation exceeded the evaluation budget.
    Failure(EvaluationFailure),
}

/// Evaluation results of all flags that the caller can see.
#[derive(ToSchema)]
#[cfg_attr(test, derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(not(test), expect(dead_code, reason = "OpenAPI document only"))]
pub(crate) struct BulkEvaluationResponse {
    /// Results, ordered by key.
    flags: Vec<EvaluationResult>,
    /// Metadata of the whole evaluation.
    metadata: BulkEvaluationMetadata,
    /// Event streams that report when to evaluate again.
    #[serde(rename = "eventStreams")]
    event_streams: Vec<EventStreamDescriptor>,
}

/// Event stream that reports when to evaluate all flags again.
#[derive(ToSchema)]
#[cfg_attr(test, derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(not(test), expect(dead_code, reason = "OpenAPI document only"))]
pub(crate) struct EventStreamDescriptor {
    /// Always `sse` (server-sent events).
    #[serde(rename = "type")]
    kind: String,
    /// URL of the stream.
    endpoint: EventStreamEndpoint,
    /// Number of seconds in the background after which a page should close the stream.
    #[serde(rename = "inactivityDelaySec")]
    inactivity_delay_sec: u32,
}

/// URL on the same origin as the evaluation endpoint.
#[derive(ToSchema)]
#[cfg_attr(test, derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(not(test), expect(dead_code, reason = "OpenAPI document only"))]
pub(crate) struct EventStreamEndpoint {
    /// Path and query, including a token for the stream. The token is valid for one to two hours, but no longer than
    /// the credential that requested it.
    #[serde(rename = "requestUri")]
    request_uri: String,
}

/// Metadata of a bulk evaluation.
#[derive(ToSchema)]
#[cfg_attr(test, derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(not(test), expect(dead_code, reason = "OpenAPI document only"))]
pub(crate) struct BulkEvaluationMetadata {
    /// Whether the server has been unable to read its database for at least 5 seconds.
    stale: bool,
    /// Earliest time at which a result may change without a new revision. Absent if there is none.
    #[cfg_attr(test, serde(skip_serializing_if = "Option::is_none"))]
    #[schema(required = false, nullable = false, value_type = Option<String>, format = DateTime)]
    valid_until: Option<Instant>,
    /// Names of the attributes in the request that do not apply, because the key or the stored user supplies them,
    /// separated by commas. Absent if there are none.
    #[cfg_attr(test, serde(skip_serializing_if = "Option::is_none"))]
    #[schema(required = false, nullable = false)]
    ignored_attributes: Option<String>,
    /// Revision that was evaluated, as `<epoch>:<number>`.
    revision: String,
}
