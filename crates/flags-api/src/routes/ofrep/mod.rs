//! OpenFeature Remote Evaluation Protocol (OFREP 0.3.0).

mod context;
mod schema;
mod stream;
mod write;

use actix_web::{
    HttpResponse,
    web::{self, Data},
};
use flags_domain::{EvaluationBudget, FlagState, Source};

use self::{
    context::{EvaluationTarget, OfrepRequest},
    schema::{BulkEvaluationResponse, EvaluationRequest, EvaluationSuccess},
    write::{BulkState, finish_bulk_body, write_bulk_content, write_evaluation},
};
use super::{
    conditional::{content_tag, private, respond},
    reply::HandlerResult,
};
use crate::{
    auth::{EvaluateFlags, Require, StreamToken},
    evaluation_json::EvaluationCounts,
    extract::{EventPosition, FlagKeyParam, IfNoneMatch},
    ofrep_failure::{EvaluationFailureResponse, evaluation_too_expensive, invalid_flag},
    problem::Problem,
    route_facts::{MinRevision, RouteFacts},
    route_registry::RouteRegistry,
    state::App,
};

/// Path of the event stream.
const EVENT_STREAM_PATH: &str = "/ofrep/v1/stream";

pub(super) fn routes(routes: &mut RouteRegistry) {
    routes.add::<__path_evaluate_flag>(web::to(evaluate_flag), RouteFacts::ofrep());
    routes.add::<__path_evaluate_flags>(
        web::to(evaluate_flags),
        RouteFacts::ofrep().with_min_revision(MinRevision::EventPosition),
    );
    stream::routes(routes);
}

/// Evaluate a flag
///
/// Evaluates one flag for the context (OFREP 0.3.0). A token of scope `evaluate` may use any `targetingKey`. Attributes
/// of its context take precedence over the user's stored attributes, but not over the user's built-in attributes. Every
/// other credential evaluates for its own user. It cannot replace stored attributes or attributes from a JWT, and
/// cannot supply built-in attributes.
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
    let (credential, scope) = caller.granted;
    let target = EvaluationTarget::resolve(&app, &credential, scope, context).await?;
    let now = app.evaluation.now();
    let snapshot = app.evaluation.replica().snapshot(target.user_id());
    let flag = snapshot.flag(&key.0).map(FlagState::compiled).filter(|flag| target.can_see(flag));
    flag.ok_or_else(|| Problem::not_found("flag_not_found", "no such flag"))?;
    let evaluated = snapshot.evaluate(&key.0, target.context(), now, &mut EvaluationBudget::default());
    let evaluated = evaluated.ok_or_else(invalid_flag)?;
    let mut counts = EvaluationCounts::default();
    counts.record(&evaluated.resolution);
    counts.publish();
    if evaluated.resolution.source == Source::EvaluationTooExpensive {
        return Err(evaluation_too_expensive());
    }
    let mut body = String::with_capacity(512);
    write_evaluation(&mut body, &evaluated, app.settings.override_reasons(), &target.ignored_attributes());
    Ok(private(HttpResponse::Ok()).content_type("application/json").body(body))
}

/// Evaluate all flags
///
/// Evaluates all flags that the caller can see, with the same rules as for a single flag. Supports `If-None-Match`; the
/// tag covers the targeting key and the response without `revision`. `eventStreams` contains the URL of a stream that
/// reports when to evaluate again.
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
    let target = EvaluationTarget::resolve(&app, &credential, scope, context).await?;
    let clock = app.evaluation.now();
    let now = event.evaluation_instant(clock);
    let stream_token = StreamToken::issue(credential, target.keyed_user_id(), clock).encode(&app.stream_token_key);
    let stale = app.evaluation.replica().is_stale();
    let snapshot = app.evaluation.replica().snapshot(target.user_id());
    let results = snapshot.evaluate_each(target.context(), now, |flag| target.can_see(flag));
    let ignored_attributes = target.ignored_attributes();
    let state = BulkState {
        stream_token: &stream_token,
        stale,
        flag_count: snapshot.flag_count(),
        ignored_attributes: &ignored_attributes,
    };
    let content = write_bulk_content(results, &state, app.settings.override_reasons());
    let revision = snapshot.revision();
    let etag = content_tag(target.evaluation_key().as_bytes(), revision.epoch, content.as_bytes());
    respond(&if_none_match, &etag, finish_bulk_body(content, revision))
}
