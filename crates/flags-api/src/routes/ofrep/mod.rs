//! OpenFeature Remote Evaluation Protocol (OFREP 0.3.0).

mod context;
mod failure;
mod stream;
mod write;

pub(crate) use failure::{EvaluationFailure, EvaluationFailureResponse, error_response, is_ofrep_path};

use std::{collections::BTreeMap, fmt::Write as _};

use actix_web::{
    HttpResponse,
    web::{self, Data},
};
use flags_domain::{FlagState, Instant};
use flags_service::replica::View;
use serde_json::Value;
use utoipa::ToSchema;

use self::{
    context::{EvaluationTarget, OfrepRequest},
    failure::invalid_flag,
    write::write_evaluation,
};
use super::{
    RouteRegistry,
    conditional::{content_tag, private, respond},
    reply::HandlerResult,
};
use crate::{
    app::App,
    auth::{EvaluateFlags, Require, StreamToken},
    evaluation_json::EvaluationCounts,
    extract::{EventPosition, FlagKeyParam, IfNoneMatch},
    problem::Problem,
};

/// Path of the bulk evaluation. The evaluation of a single flag is one level below.
pub(crate) const BULK_EVALUATION_PATH: &str = "/ofrep/v1/evaluate/flags";
/// Path of the event stream.
pub(crate) const EVENT_STREAM_PATH: &str = "/ofrep/v1/stream";

/// Seconds in the background after which a page should close its event stream.
const INACTIVITY_SECONDS: u32 = 120;

pub(super) fn routes(routes: &mut RouteRegistry) {
    routes.add::<__path_evaluate_flag>(web::to(evaluate_flag));
    routes.add::<__path_evaluate_flags>(web::to(evaluate_flags));
    stream::routes(routes);
}

/// Evaluation request. Unknown members are ignored.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes JSON that `context` parses; used for the OpenAPI document only")]
pub(crate) struct EvaluationRequest {
    /// Context to evaluate flags for.
    context: WireEvaluationContext,
}

/// Evaluation context. All members other than `targetingKey` are attributes.
#[derive(ToSchema)]
#[expect(dead_code, reason = "OpenAPI document only")]
#[schema(as = EvaluationContext)]
pub(crate) struct WireEvaluationContext {
    /// Id of the user. With a token of scope `evaluate`, any non-empty string; if it is not the id of an active user,
    /// the context is anonymous.
    #[serde(rename = "targetingKey")]
    #[schema(min_length = 1)]
    targeting_key: String,
}

/// Evaluation result of one flag.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes JSON that `write` produces; used for the OpenAPI document only")]
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
    metadata: BTreeMap<String, String>,
}

/// Why a value was selected, as defined by OpenFeature.
///
/// - `TARGETING_MATCH`: an override or a targeting rule
/// - `SPLIT`: a percentage split, in any layer
/// - `STATIC`: the default, or a scheduled change of it
/// - `DISABLED`: the flag is off
#[derive(ToSchema)]
#[schema(rename_all = "SCREAMING_SNAKE_CASE")]
#[expect(dead_code, reason = "OpenAPI document only")]
pub(crate) enum EvaluationReason {
    TargetingMatch,
    Split,
    Static,
    Disabled,
}

/// Result of one flag in a bulk evaluation.
#[derive(ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "OpenAPI document only")]
pub(crate) enum EvaluationResult {
    Success(EvaluationSuccess),
    /// The flag's definition is invalid.
    Failure(EvaluationFailure),
}

/// Evaluation results of all flags that the caller can see.
#[derive(ToSchema)]
#[expect(dead_code, reason = "OpenAPI document only")]
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
#[expect(dead_code, reason = "OpenAPI document only")]
pub(crate) struct EventStreamDescriptor {
    /// Always `sse` (server-sent events).
    #[serde(rename = "type")]
    kind: &'static str,
    /// Address of the stream.
    endpoint: EventStreamEndpoint,
    /// Seconds in the background after which a page should close the stream.
    #[serde(rename = "inactivityDelaySec")]
    inactivity_delay_sec: u32,
}

/// Address on the same origin as the evaluation endpoint.
#[derive(ToSchema)]
#[expect(dead_code, reason = "OpenAPI document only")]
pub(crate) struct EventStreamEndpoint {
    /// Path and query, including a token for the stream. The token is valid for one to two hours, but no longer than
    /// the credential that requested it.
    #[serde(rename = "requestUri")]
    request_uri: String,
}

/// Metadata of a bulk evaluation.
#[derive(ToSchema)]
#[expect(dead_code, reason = "OpenAPI document only")]
pub(crate) struct BulkEvaluationMetadata {
    /// Whether the server has been unable to read its database for at least 5 seconds.
    stale: bool,
    /// Earliest time at which a result may change without a new revision. Absent if there is none.
    #[schema(required = false, nullable = false, value_type = Option<String>, format = DateTime)]
    valid_until: Option<Instant>,
    /// Revision that was evaluated, as `<epoch>:<number>`.
    revision: String,
}

/// Evaluate a flag
///
/// Evaluates one flag for the context (OFREP 0.3.0). A token of scope `evaluate` may use any `targetingKey`; attributes
/// of the context take precedence over the user's stored attributes. Every other credential may use only the id of its
/// own user, and cannot replace stored attributes.
#[utoipa::path(
    post, path = "/ofrep/v1/evaluate/flags/{key}", tag = "OpenFeature", operation_id = "evaluate_flag",
    params(("key" = String, Path, description = "Name of the flag")), request_body = EvaluationRequest,
    responses((status = 200, body = EvaluationSuccess), (status = "default", response = EvaluationFailureResponse)),
)]
async fn evaluate_flag(
    caller: Require<EvaluateFlags>,
    app: Data<App>,
    key: FlagKeyParam,
    context: OfrepRequest,
) -> HandlerResult {
    let (_, scope) = caller.granted;
    let target = EvaluationTarget::resolve(&app, scope, context).await?;
    let now = app.evaluation.now();
    let view = app.evaluation.replica().read();
    let flag = view.flag(&key.0).map(FlagState::compiled).filter(|flag| target.can_see(flag));
    flag.ok_or_else(|| Problem::not_found("flag_not_found", "no such flag"))?;
    let evaluated = view.evaluate(&key.0, target.subject(), now).ok_or_else(invalid_flag)?;
    let mut body = String::with_capacity(512);
    write_evaluation(&mut body, &evaluated, app.settings.show_reasons_to_users);
    let mut counts = EvaluationCounts::default();
    counts.record(&evaluated.resolution);
    counts.publish();
    Ok(private(HttpResponse::Ok()).content_type("application/json").body(body))
}

/// Evaluate all flags
///
/// Evaluates all flags that the caller can see, with the same rules as for a single flag. Supports `If-None-Match`; the
/// tag covers the targeting key and the response without `revision`. `eventStreams` contains the address of a stream
/// that reports when to evaluate again.
#[utoipa::path(
    post, path = "/ofrep/v1/evaluate/flags", tag = "OpenFeature", operation_id = "evaluate_flags",
    params(
        ("flagConfigEtag" = Option<String>, Query, description = "`etag` of the event that triggered this request. The server evaluates a state at least as new as the event; it waits up to 2 seconds, then responds with 503"),
        ("flagConfigLastModified" = Option<String>, Query, description = "Accepted and ignored"),
        ("If-None-Match" = Option<String>, Header, description = "`ETag` of a previous response"),
    ),
    request_body = EvaluationRequest,
    responses(
        (status = 200, body = BulkEvaluationResponse, headers(("ETag" = String, description = "Entity tag for `If-None-Match`"))),
        (status = 304, description = "Not modified since the response with this entity tag"),
        (status = "default", response = EvaluationFailureResponse),
    ),
)]
async fn evaluate_flags(
    caller: Require<EvaluateFlags>,
    app: Data<App>,
    if_none_match: IfNoneMatch,
    event: EventPosition,
    context: OfrepRequest,
) -> HandlerResult {
    let (credential, scope) = caller.granted;
    let target = EvaluationTarget::resolve(&app, scope, context).await?;
    let clock = app.evaluation.now();
    let now = event.evaluation_instant(clock);
    let stream_token = StreamToken::issue(credential, target.parsed_user_id(), clock).encode(&app.stream_token_key);
    let stale = app.evaluation.replica().is_stale();
    let view = app.evaluation.replica().read();
    let mut body = String::with_capacity(256 * view.flag_count() + 512);
    body.push_str("{\"flags\":[");
    let valid_until = write_flags(&mut body, &view, &target, now, app.settings.show_reasons_to_users);
    // Writing to a `String` cannot fail.
    let _ = write!(
        body,
        r#"],"eventStreams":[{{"type":"sse","endpoint":{{"requestUri":"{EVENT_STREAM_PATH}?ticket={stream_token}"}},"inactivityDelaySec":{INACTIVITY_SECONDS}}}],"metadata":{{"stale":{stale}"#
    );
    if let Some(at) = valid_until {
        let _ = write!(body, ",\"valid_until\":\"{at}\"");
    }
    let etag = content_tag(target.targeting_key().as_bytes(), view.revision().epoch, body.as_bytes());
    let _ = write!(body, ",\"revision\":\"{}\"}}}}", view.revision());
    drop(view);
    respond(&if_none_match, &etag, body)
}

/// Appends the results of all flags that the caller can see. Returns the earliest `valid_until`.
fn write_flags(
    out: &mut String,
    view: &View<'_>,
    target: &EvaluationTarget,
    now: Instant,
    include_reasons: bool,
) -> Option<Instant> {
    let mut valid_until: Option<Instant> = None;
    let mut counts = EvaluationCounts::default();
    let empty = out.len();
    let all = view.evaluate_each(target.subject(), now).filter(|(flag, _)| target.can_see(flag));
    for (flag, evaluated) in all {
        if out.len() > empty {
            out.push(',');
        }
        let Some(evaluated) = evaluated else {
            out.push_str(&EvaluationFailure::invalid_flag(flag.name()).json());
            continue;
        };
        write_evaluation(out, &evaluated, include_reasons);
        counts.record(&evaluated.resolution);
        valid_until = [valid_until, evaluated.resolution.valid_until].into_iter().flatten().min();
    }
    counts.publish();
    valid_until
}
