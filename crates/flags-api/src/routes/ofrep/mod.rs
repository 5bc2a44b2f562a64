//! The OpenFeature Remote Evaluation Protocol (OFREP 0.3.0): what the standard's own providers ask, and what they are told.

mod context;
mod failure;
mod stream;
mod write;

pub(crate) use failure::{EvaluationFailure, EvaluationFailureResponse, failure, is_below};

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
    failure::unreadable,
    write::write_evaluation,
};
use super::{
    Routes,
    conditional::{private, respond, tag},
    reply::HandlerResult,
};
use crate::{
    app::App,
    auth::{EvaluateFlags, Require, StreamToken},
    evaluation_json::Tally,
    extract::{EventPosition, FlagKey, IfNoneMatch},
    problem::Problem,
};

/// Where all flags are evaluated at once; below it stands each flag.
pub(crate) const BULK_EVALUATION: &str = "/ofrep/v1/evaluate/flags";
/// Where one hears that they should be evaluated again.
pub(crate) const EVENT_STREAM: &str = "/ofrep/v1/stream";

/// After so many seconds in the background a page is to close its stream.
const INACTIVITY_SECONDS: u32 = 120;

pub(super) fn routes(routes: &mut Routes) {
    routes.add::<__path_evaluate_flag>(web::to(evaluate_flag));
    routes.add::<__path_evaluate_flags>(web::to(evaluate_flags));
    stream::routes(routes);
}

/// A request of the protocol. Further members are passed over.
#[derive(ToSchema)]
#[expect(dead_code, reason = "read by hand, as its errors are the protocol's; stands in the OpenAPI document")]
pub(crate) struct EvaluationRequest {
    context: RequestContext,
}

/// Whom flags are evaluated for. All further members are attributes.
#[derive(ToSchema)]
#[expect(dead_code, reason = "as above")]
pub(crate) struct RequestContext {
    /// The user's id; with scope `evaluate` whatever the application knows its visitors by.
    #[serde(rename = "targetingKey")]
    #[schema(min_length = 1)]
    targeting_key: String,
}

/// What somebody gets of a flag, and why.
#[derive(ToSchema)]
#[expect(dead_code, reason = "written by hand, for speed; stands in the OpenAPI document")]
pub(crate) struct EvaluationSuccess {
    key: String,
    value: Value,
    reason: Reason,
    /// `override` where an override gives a value that no variant has.
    variant: String,
    /// `source`, `flag_type`; of an override `override_created_at`, `override_updated_at`, `override_expires_at` if it ends,
    /// and `override_reason` if the server was told to show reasons to users.
    metadata: BTreeMap<String, String>,
}

/// Why, in the words of OpenFeature.
#[derive(ToSchema)]
#[schema(rename_all = "SCREAMING_SNAKE_CASE")]
#[expect(dead_code, reason = "as above")]
pub(crate) enum Reason {
    /// An override, or a targeting rule.
    TargetingMatch,
    /// A split by weights, of whatever layer.
    Split,
    /// The default, or a scheduled change of it.
    Static,
    /// The flag is off.
    Disabled,
}

/// One flag among all.
#[derive(ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "as above")]
pub(crate) enum EvaluationResult {
    Success(EvaluationSuccess),
    /// The flag's definition cannot be evaluated.
    Failure(EvaluationFailure),
}

/// What somebody gets of all flags.
#[derive(ToSchema)]
#[expect(dead_code, reason = "as above")]
pub(crate) struct BulkEvaluation {
    /// By key.
    flags: Vec<EvaluationResult>,
    metadata: BulkMetadata,
    #[serde(rename = "eventStreams")]
    event_streams: Vec<EventStream>,
}

/// Where to hear that all flags should be evaluated again.
#[derive(ToSchema)]
#[expect(dead_code, reason = "as above")]
pub(crate) struct EventStream {
    /// Always `sse`: server-sent events.
    #[serde(rename = "type")]
    kind: &'static str,
    endpoint: EventStreamEndpoint,
    /// After so many seconds in the background a page is to close the stream.
    #[serde(rename = "inactivityDelaySec")]
    inactivity_delay_sec: u32,
}

/// An address on this origin.
#[derive(ToSchema)]
#[expect(dead_code, reason = "as above")]
pub(crate) struct EventStreamEndpoint {
    /// Path and query. It holds for one to two hours, and for as long as the credential that asked.
    #[serde(rename = "requestUri")]
    request_uri: String,
}

/// What holds for all of them.
#[derive(ToSchema)]
#[expect(dead_code, reason = "as above")]
pub(crate) struct BulkMetadata {
    /// Whether the server has not been able to read its database for 5 s.
    stale: bool,
    /// The next instant at which time alone may change something.
    #[schema(required = false, nullable = false, value_type = Option<String>, format = DateTime)]
    valid_until: Option<Instant>,
    /// `<epoch>:<number>`: the revision of the log that was evaluated.
    revision: String,
}

/// Evaluate a flag
///
/// For whomever the context's `targetingKey` names, by OFREP 0.3.0. With scope `evaluate` that may be anybody, and attributes
/// of the context win over those that are known; a user's own credential may name that user alone, and attributes only add.
#[utoipa::path(
    post, path = "/ofrep/v1/evaluate/flags/{key}", tag = "OpenFeature", operation_id = "evaluate_flag",
    params(("key" = String, Path)), request_body = EvaluationRequest,
    responses((status = 200, body = EvaluationSuccess), (status = "default", response = EvaluationFailureResponse)),
)]
async fn evaluate_flag(
    caller: Require<EvaluateFlags>,
    app: Data<App>,
    key: FlagKey,
    asked: OfrepRequest,
) -> HandlerResult {
    let (_, may) = caller.granted;
    let evaluatee = EvaluationTarget::of(&app, may, asked).await?;
    let now = app.evaluation.now();
    let view = app.evaluation.replica().read();
    let flag = view.flag(&key.0).map(FlagState::compiled).filter(|flag| evaluatee.sees(flag));
    flag.ok_or_else(|| Problem::not_found("flag_not_found", "there is no such flag"))?;
    let evaluated = view.evaluate(&key.0, evaluatee.subject(), now).ok_or_else(unreadable)?;
    let mut body = String::with_capacity(512);
    write_evaluation(&mut body, &evaluated, app.settings.show_reasons_to_users);
    let mut tally = Tally::default();
    tally.count(&evaluated.resolution);
    tally.publish();
    Ok(private(HttpResponse::Ok()).content_type("application/json").body(body))
}

/// Evaluate all flags
///
/// The same of every flag that the caller may know of. Supports `If-None-Match`: the tag covers context, values and time.
/// `eventStreams` says where to hear that one should ask again.
#[utoipa::path(
    post, path = "/ofrep/v1/evaluate/flags", tag = "OpenFeature", operation_id = "evaluate_flags",
    params(
        ("flagConfigEtag" = Option<String>, Query, description = "`etag` of the event that made the provider ask: the answer is of no older state (waits up to 2 s, else 503)"),
        ("flagConfigLastModified" = Option<String>, Query, description = "Taken and passed over"),
        ("If-None-Match" = Option<String>, Header, description = "The tag of an answer one has"),
    ),
    request_body = EvaluationRequest,
    responses(
        (status = 200, body = BulkEvaluation, headers(("ETag" = String, description = "For `If-None-Match`"))),
        (status = 304, description = "The reader has it already"),
        (status = "default", response = EvaluationFailureResponse),
    ),
)]
async fn evaluate_flags(
    caller: Require<EvaluateFlags>,
    app: Data<App>,
    known: IfNoneMatch,
    event: EventPosition,
    asked: OfrepRequest,
) -> HandlerResult {
    let (credential, may) = caller.granted;
    let evaluatee = EvaluationTarget::of(&app, may, asked).await?;
    let clock = app.evaluation.now();
    let now = event.instant(clock);
    let ticket = StreamToken::issue(credential, evaluatee.named(), clock).seal(&app.stream_token_key);
    let stale = app.evaluation.replica().is_stale();
    let view = app.evaluation.replica().read();
    let mut body = String::with_capacity(256 * view.flag_count() + 512);
    body.push_str("{\"flags\":[");
    let valid_until = write_flags(&mut body, &view, &evaluatee, now, app.settings.show_reasons_to_users);
    // Writing to a string cannot fail.
    let _ = write!(
        body,
        r#"],"eventStreams":[{{"type":"sse","endpoint":{{"requestUri":"{EVENT_STREAM}?ticket={ticket}"}},"inactivityDelaySec":{INACTIVITY_SECONDS}}}],"metadata":{{"stale":{stale}"#
    );
    if let Some(at) = valid_until {
        let _ = write!(body, ",\"valid_until\":\"{at}\"");
    }
    let etag = tag(evaluatee.targeting_key().as_bytes(), view.revision().epoch, body.as_bytes());
    let _ = write!(body, ",\"revision\":\"{}\"}}}}", view.revision());
    drop(view);
    respond(&known, &etag, body)
}

/// Appends all flags that the evaluatee may know of; returns the earliest of their `valid_until`.
fn write_flags(
    out: &mut String,
    view: &View<'_>,
    evaluatee: &EvaluationTarget,
    now: Instant,
    reasons: bool,
) -> Option<Instant> {
    let mut valid_until: Option<Instant> = None;
    let mut tally = Tally::default();
    let empty = out.len();
    let all = view.evaluate_each(evaluatee.subject(), now).filter(|(flag, _)| evaluatee.sees(flag));
    for (flag, evaluated) in all {
        if out.len() > empty {
            out.push(',');
        }
        let Some(evaluated) = evaluated else {
            out.push_str(&EvaluationFailure::unreadable(flag.name()).json());
            continue;
        };
        write_evaluation(out, &evaluated, reasons);
        tally.count(&evaluated.resolution);
        valid_until = [valid_until, evaluated.resolution.valid_until].into_iter().flatten().min();
    }
    tally.publish();
    valid_until
}
