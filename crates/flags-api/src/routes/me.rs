//! The caller's own flag values and overrides. These handlers do no database work and allocate nothing per flag.

use actix_web::{
    HttpResponse,
    web::{self, Data},
};
use flags_domain::{CompiledFlag, EvaluationBudget, Instant};
use flags_service::replica::{CachedUser, OverrideRef, ReplicaSnapshot};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{
    conditional::{content_tag, private, respond},
    reply::HandlerResult,
};
use crate::{
    auth::{ReadOwnFlags, Require},
    evaluation_json::{
        EvaluatedState, EvaluationBody, OwnFlagResponse, OwnFlagsResponse, build_own_flag_body, build_own_flags_body,
    },
    extract::{FlagNameParam, IfNoneMatch},
    problem::{Problem, ProblemResponse},
    route_facts::RouteFacts,
    route_registry::RouteRegistry,
    state::{App, OverrideReasons},
    wire::WireOverrideStatus,
};

pub(super) fn routes(routes: &mut RouteRegistry) {
    routes.add::<__path_get_own_flags>(web::to(get_own_flags), RouteFacts::own_evaluation());
    routes.add::<__path_get_own_overrides>(web::to(get_own_overrides), RouteFacts::own_data());
    routes.add::<__path_get_own_flag>(web::to(get_own_flag), RouteFacts::own_evaluation());
}

/// Get own flag values
///
/// Returns the flags that are visible to clients. Supports `If-None-Match`; the tag covers the results, not the
/// revision or evaluation time. Send `Flags-Min-Revision` to get values that include a change you made.
#[utoipa::path(
    get, path = "/api/flags/me", tag = "my flags", operation_id = "get_my_flags",
    responses(
        (status = 200, body = OwnFlagsResponse),
        (status = 304, description = "Not modified since the response with this entity tag"),
        (status = "default", response = ProblemResponse),
    ),
)]
async fn get_own_flags(caller: Require<ReadOwnFlags>, app: Data<App>, if_none_match: IfNoneMatch) -> HandlerResult {
    let user = caller.granted;
    let snapshot = app.evaluation.replica().snapshot(Some(user.id));
    let state = evaluated_state(&app, &snapshot, &user);
    let results = snapshot.evaluate_all(&user.context, state.evaluated_at, CompiledFlag::client_visible);
    let body = build_own_flags_body(&state, results, snapshot.flag_count(), app.settings.override_reasons());
    respond_to_caller(&if_none_match, &state, body)
}

/// Describes the state of the snapshot for a response to `user`, evaluated at the current time.
fn evaluated_state(app: &App, snapshot: &ReplicaSnapshot, user: &CachedUser) -> EvaluatedState {
    EvaluatedState {
        user_id: user.id,
        revision: snapshot.revision(),
        evaluated_at: app.evaluation.now(),
        stale: app.evaluation.replica().is_stale(),
    }
}

fn respond_to_caller(if_none_match: &IfNoneMatch, state: &EvaluatedState, body: EvaluationBody) -> HandlerResult {
    let etag = content_tag(state.user_id.as_bytes(), state.revision.epoch, body.content());
    respond(if_none_match, &etag, body.body)
}

/// Get one of the caller's flag values
///
/// Returns 404 for flags that are not visible to clients. Supports `If-None-Match`.
#[utoipa::path(
    get, path = "/api/flags/me/{flag_name}", tag = "my flags", operation_id = "get_my_flag",
    params(("flag_name" = String, Path, description = "Name of the flag")),
    responses(
        (status = 200, body = OwnFlagResponse),
        (status = 304, description = "Not modified since the response with this entity tag"),
        (status = "default", response = ProblemResponse),
    ),
)]
async fn get_own_flag(
    caller: Require<ReadOwnFlags>,
    app: Data<App>,
    flag: FlagNameParam,
    if_none_match: IfNoneMatch,
) -> HandlerResult {
    let user = caller.granted;
    let snapshot = app.evaluation.replica().snapshot(Some(user.id));
    let state = evaluated_state(&app, &snapshot, &user);
    // A hidden flag is not evaluated, so that the response time does not reveal that it exists.
    let is_visible = snapshot.flag(&flag.0).is_some_and(|flag| flag.compiled().client_visible());
    let mut budget = EvaluationBudget::default();
    let result = is_visible.then(|| snapshot.evaluate(&flag.0, &user.context, state.evaluated_at, &mut budget));
    let evaluated = result.flatten().ok_or_else(|| Problem::not_found("flag_not_found", "no such flag"))?;
    let body = build_own_flag_body(&state, &evaluated, app.settings.override_reasons());
    respond_to_caller(&if_none_match, &state, body)
}

/// One of the caller's overrides.
#[derive(Serialize, ToSchema)]
pub(crate) struct OwnOverride<'o> {
    id: Uuid,
    /// Flag that the override applies to.
    flag_name: &'o str,
    /// Value that the override supplies.
    #[schema(value_type = Value)]
    override_value: &'o Value,
    /// Whether the override is enabled. A disabled override has no effect.
    enabled: bool,
    #[schema(value_type = String, format = DateTime)]
    created_at: Instant,
    #[schema(value_type = String, format = DateTime)]
    updated_at: Instant,
    /// When the override stops applying. `null` if it does not expire.
    #[schema(value_type = Option<String>, format = DateTime)]
    expires_at: Option<Instant>,
    /// Status at `evaluated_at`.
    status: WireOverrideStatus,
    /// Reason entered with the override; `null` if none. Present only if the server runs with
    /// `--show-reasons-to-users`.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<Option<&'o str>>,
}

impl<'o> OwnOverride<'o> {
    fn from_override(o: OverrideRef<'o>, now: Instant, reasons: OverrideReasons) -> Self {
        Self {
            id: o.id,
            flag_name: o.flag_name,
            override_value: o.value.value(),
            enabled: o.enabled,
            created_at: o.created_at,
            updated_at: o.updated_at,
            expires_at: o.expires_at,
            status: o.status(now).into(),
            reason: (reasons == OverrideReasons::Shown).then_some(o.reason),
        }
    }
}

/// All overrides of the caller, of any status.
#[derive(Serialize, ToSchema)]
pub(crate) struct OwnOverridesResponse<'o> {
    /// User that the overrides belong to.
    user_id: Uuid,
    /// Revision of the state that was read, as `<epoch>:<number>`.
    revision: String,
    /// Time at which each `status` was determined.
    #[schema(value_type = String, format = DateTime)]
    evaluated_at: Instant,
    /// Whether the server has been unable to read its database for at least 5 seconds.
    stale: bool,
    /// Overrides, ordered by flag name.
    overrides: Vec<OwnOverride<'o>>,
}

/// List own overrides
///
/// Returns overrides of any status for flags that are visible to clients.
#[utoipa::path(
    get, path = "/api/flags/me/overrides", tag = "my flags", operation_id = "get_my_overrides",
    responses((status = 200, body = OwnOverridesResponse), (status = "default", response = ProblemResponse)),
)]
async fn get_own_overrides(caller: Require<ReadOwnFlags>, app: Data<App>) -> HandlerResult {
    let user = caller.granted;
    let snapshot = app.evaluation.replica().snapshot(Some(user.id));
    let EvaluatedState { user_id, revision, evaluated_at, stale } = evaluated_state(&app, &snapshot, &user);
    let visible = snapshot.overrides().filter(|o| is_visible(&snapshot, o));
    let reasons = app.settings.override_reasons();
    let overrides = visible.map(|o| OwnOverride::from_override(o, evaluated_at, reasons)).collect();
    let revision = revision.to_string();
    Ok(private(HttpResponse::Ok()).json(OwnOverridesResponse { user_id, revision, evaluated_at, stale, overrides }))
}

/// Whether users can see the flag of this override.
fn is_visible(snapshot: &ReplicaSnapshot, user_override: &OverrideRef<'_>) -> bool {
    snapshot.flag(user_override.flag_name).is_some_and(|flag| flag.compiled().client_visible())
}
