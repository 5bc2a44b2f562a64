//! The caller's own flag values and overrides. These handlers do no database work and allocate nothing per flag.

use std::fmt::Write as _;

use actix_web::{
    HttpResponse,
    web::{self, Data},
};
use flags_domain::{self as domain, Instant};
use flags_service::replica::OverrideRef;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{
    RouteRegistry,
    conditional::{content_tag, private, respond},
    reply::HandlerResult,
};
use crate::{
    app::App,
    auth::{ReadOwnFlags, Require},
    evaluation_json::{EvaluationCounts, build_own_flags_body, write_response_end, write_response_start, write_result},
    extract::{FlagNameParam, IfNoneMatch},
    problem::{Problem, ProblemResponse},
    wire::{WireFlagType, WireOverrideStatus},
};

pub(super) fn routes(routes: &mut RouteRegistry) {
    routes.add::<__path_get_own_flags>(web::to(get_own_flags));
    routes.add::<__path_get_own_overrides>(web::to(get_own_overrides));
    routes.add::<__path_get_own_flag>(web::to(get_own_flag));
}

/// Evaluation results of all flags that are visible to the caller.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes JSON that `evaluation_json` writes; used for the OpenAPI document only")]
pub(crate) struct OwnFlagsResponse {
    /// User that the flags were evaluated for.
    user_id: Uuid,
    /// Revision that was evaluated, as `<epoch>:<number>`.
    revision: String,
    /// Time of evaluation.
    #[schema(value_type = String, format = DateTime)]
    evaluated_at: Instant,
    /// Earliest time at which a result may change without a new revision, because an override expires or a scheduled
    /// change takes effect. `null` if there is none.
    #[schema(required, value_type = Option<String>, format = DateTime)]
    valid_until: Option<Instant>,
    /// Whether the server has been unable to read its database for at least 5 seconds.
    stale: bool,
    /// Results by flag name.
    flags: std::collections::BTreeMap<String, OwnFlagResult>,
}

/// Evaluation result of one flag.
#[derive(ToSchema)]
#[expect(dead_code, reason = "OpenAPI document only")]
pub(crate) struct OwnFlagResult {
    /// Value for the caller, of the flag's type.
    value: Value,
    /// Type of the flag's values.
    flag_type: WireFlagType,
    /// Id of the variant with this value. `null` if an override supplies a value that no variant has.
    #[schema(required)]
    variant: Option<String>,
    /// Layer that supplied the value.
    source: WireSource,
    /// Override that supplied the value. Present only if `source` is `override`.
    #[schema(required = false, nullable = false)]
    r#override: Option<AppliedOverride>,
    /// Result after the override expires. Present only if the override that supplied the value has an expiry.
    #[schema(required = false, nullable = false)]
    then: Option<ResultAfterExpiry>,
}

/// The override that supplied a value.
#[derive(ToSchema)]
#[expect(dead_code, reason = "OpenAPI document only")]
pub(crate) struct AppliedOverride {
    #[schema(value_type = String, format = DateTime)]
    created_at: Instant,
    #[schema(value_type = String, format = DateTime)]
    updated_at: Instant,
    /// When the override stops applying. `null` if it does not expire.
    #[schema(required, value_type = Option<String>, format = DateTime)]
    expires_at: Option<Instant>,
    /// Reason entered with the override; `null` if none. Present only if the server runs with
    /// `--show-reasons-to-users`.
    #[schema(required = false)]
    reason: Option<String>,
}

/// Evaluation result after an override has expired.
#[derive(ToSchema)]
#[expect(dead_code, reason = "OpenAPI document only")]
pub(crate) struct ResultAfterExpiry {
    /// Value from then on.
    value: Value,
    /// Id of the variant with this value.
    #[schema(required)]
    variant: Option<String>,
    /// Layer that supplies the value from then on.
    source: WireSource,
}

/// Evaluation result of one flag, with the state it was evaluated from.
#[derive(ToSchema)]
#[expect(dead_code, reason = "OpenAPI document only")]
pub(crate) struct OwnFlagResponse {
    /// User that the flag was evaluated for.
    user_id: Uuid,
    /// Flag name.
    name: String,
    /// Revision that was evaluated, as `<epoch>:<number>`.
    revision: String,
    /// Time of evaluation.
    #[schema(value_type = String, format = DateTime)]
    evaluated_at: Instant,
    /// Earliest time at which the result may change without a new revision. `null` if there is none.
    #[schema(required, value_type = Option<String>, format = DateTime)]
    valid_until: Option<Instant>,
    /// Whether the server has been unable to read its database for at least 5 seconds.
    stale: bool,
    #[schema(inline)]
    #[serde(flatten)]
    flag: OwnFlagResult,
}

/// Layer that supplied a value. The first of `override`, `disabled`, `targeting_rule`, `scheduled_change` and `default`
/// that applies decides; `disabled` means that the flag is off and serves its `off_variant`.
#[derive(Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = Source)]
pub(crate) enum WireSource {
    Override,
    TargetingRule,
    ScheduledChange,
    Default,
    Disabled,
}

impl From<domain::Source<'_>> for WireSource {
    fn from(source: domain::Source<'_>) -> Self {
        match source {
            domain::Source::Override => Self::Override,
            domain::Source::Disabled => Self::Disabled,
            domain::Source::TargetingRule { .. } => Self::TargetingRule,
            domain::Source::ScheduledChange { .. } => Self::ScheduledChange,
            domain::Source::Default => Self::Default,
        }
    }
}

/// Get own flag values
///
/// Returns the flags that are visible to clients. Supports `If-None-Match`; the tag covers the results, not the
/// revision or evaluation time. Send `Flags-Min-Revision` to read at or after a known change.
#[utoipa::path(
    get, path = "/api/flags/me", tag = "my flags", operation_id = "get_my_flags",
    responses(
        (status = 200, body = OwnFlagsResponse),
        (status = 304, description = "Not modified since the response with this entity tag"),
        (status = "default", response = ProblemResponse),
    ),
)]
async fn get_own_flags(caller: Require<ReadOwnFlags>, app: Data<App>, if_none_match: IfNoneMatch) -> HandlerResult {
    let now = app.evaluation.now();
    let user = caller.granted;
    let stale = app.evaluation.replica().is_stale();
    let view = app.evaluation.replica().read();
    let snapshot = build_own_flags_body(&view, &user, now, stale, app.settings.show_reasons_to_users);
    let etag =
        content_tag(user.id.as_bytes(), view.revision().epoch, &snapshot.body.as_bytes()[snapshot.content_offset..]);
    drop(view);
    respond(&if_none_match, &etag, snapshot.body)
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
    let now = app.evaluation.now();
    let user = caller.granted;
    let stale = app.evaluation.replica().is_stale();
    let view = app.evaluation.replica().read();
    let result = view.evaluate(&flag.0, &*user, now).filter(|evaluated| evaluated.flag.client_visible());
    let evaluated = result.ok_or_else(|| Problem::not_found("flag_not_found", "no such flag"))?;
    let mut body = String::with_capacity(512);
    write_response_start(&mut body, user.id, view.revision(), now);
    let content_start = body.len();
    write_response_end(&mut body, evaluated.resolution.valid_until, stale);
    let _ = write!(body, ",\"name\":\"{}\",", flag.0);
    write_result(&mut body, &evaluated, app.settings.show_reasons_to_users);
    body.push('}');
    let mut counts = EvaluationCounts::default();
    counts.record(&evaluated.resolution);
    counts.publish();
    respond(
        &if_none_match,
        &content_tag(user.id.as_bytes(), view.revision().epoch, &body.as_bytes()[content_start..]),
        body,
    )
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
    fn from_override(o: OverrideRef<'o>, now: Instant, include_reason: bool) -> Self {
        Self {
            id: o.id,
            flag_name: o.flag_name,
            override_value: o.value.value(),
            enabled: o.enabled,
            created_at: o.created_at,
            updated_at: o.updated_at,
            expires_at: o.expires_at,
            status: o.status(now).into(),
            reason: include_reason.then_some(o.reason),
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
    let now = app.evaluation.now();
    let user_id = caller.granted.id;
    let stale = app.evaluation.replica().is_stale();
    let view = app.evaluation.replica().read();
    let visible = |o: &OverrideRef<'_>| view.flag(o.flag_name).is_some_and(|flag| flag.compiled().client_visible());
    let include_reason = app.settings.show_reasons_to_users;
    let body = OwnOverridesResponse {
        user_id,
        revision: view.revision().to_string(),
        evaluated_at: now,
        stale,
        overrides: view
            .overrides_of(user_id)
            .filter(visible)
            .map(|o| OwnOverride::from_override(o, now, include_reason))
            .collect(),
    };
    Ok(private(HttpResponse::Ok()).json(&body))
}
