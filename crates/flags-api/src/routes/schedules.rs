//! Scheduled changes of flags, for admins, support and viewers.

use std::collections::BTreeMap;

use actix_web::{
    HttpRequest,
    web::{self, Data},
};
use flags_domain::{Instant, SchedulePreview, Violation, Weight};
use flags_service::{
    schedules::{NewScheduledChange, ScheduledChangeDetail, ScheduledChangePatch},
    wall_time::parse_instant,
};
use flags_store::{Committed, change_log::Revision};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::reply::{self, HandlerResult, Reply, child_location};
use crate::{
    auth::{ManageSchedules, ReadSchedules, Require},
    extract::{
        FlagNameParam, IfMatch, Json, PageCursor, PageLimit, Query, RequestBody, ScheduledChangeIdParam,
        deserialize_present,
    },
    problem::ProblemResponse,
    route_facts::RouteFacts,
    route_registry::RouteRegistry,
    state::App,
    wire::{PageResponse, WireScheduleStatus, WireServe},
};

pub(super) fn routes(routes: &mut RouteRegistry) {
    routes.add::<__path_list>(web::to(list), RouteFacts::api());
    routes.add::<__path_create>(web::to(create), RouteFacts::change().idempotent());
    routes.add::<__path_get>(web::to(get), RouteFacts::resource());
    routes.add::<__path_patch>(web::to(patch), RouteFacts::update());
    routes.add::<__path_cancel>(web::to(cancel), RouteFacts::update().idempotent());
    routes.add::<__path_list_all>(web::to(list_all), RouteFacts::api());
}

/// A scheduled change of a flag's default, its enabled state, or both.
#[derive(Serialize, ToSchema)]
pub(crate) struct ScheduledChangeResponse {
    id: Uuid,
    /// Flag that the change applies to.
    flag_name: String,
    /// When the change takes effect. It applies from exactly this instant on.
    #[schema(value_type = String, format = DateTime)]
    scheduled_at: Instant,
    /// New default of the flag. `null` if the change does not set the default.
    #[schema(required)]
    serve: Option<WireServe>,
    /// Whether the change turns the flag on or off. `null` if the change does not set the enabled state.
    #[schema(required)]
    enabled: Option<bool>,
    /// Human-readable description.
    #[schema(required)]
    description: Option<String>,
    /// Status at the time of the response.
    status: WireScheduleStatus,
    /// Effect of the change, taking the flag's other pending changes into account. `null` unless the change is pending.
    #[schema(required)]
    preview: Option<ScheduledChangePreview>,
    /// Creator, as `user:<id>`, `token:<id>` or `system:<name>`.
    created_by: String,
    #[schema(value_type = String, format = DateTime)]
    created_at: Instant,
    #[schema(value_type = String, format = DateTime)]
    updated_at: Instant,
    /// When the change was cancelled. `null` if it was not cancelled.
    #[schema(required, value_type = Option<String>, format = DateTime)]
    cancelled_at: Option<Instant>,
    /// Revision number of the last change to this resource.
    revision: i64,
}

/// Effect of a pending change. It covers users for whom neither an override nor a targeting rule decides.
#[derive(Serialize, ToSchema)]
pub(crate) struct ScheduledChangePreview {
    /// State immediately before the change takes effect.
    before: PreviewState,
    /// State after the change takes effect.
    after: PreviewState,
    /// Change of each variant's share, in percentage points. Variants with an unchanged share are omitted.
    difference: BTreeMap<String, f64>,
}

/// Enabled state and shares of the variants at one point in time.
#[derive(Serialize, ToSchema)]
pub(crate) struct PreviewState {
    /// Whether the flag is on.
    enabled: bool,
    /// Share of each variant in percent, by variant id. While the flag is off, `off_variant` has 100.
    #[schema(value_type = BTreeMap<String, f64>)]
    weights: BTreeMap<String, Weight>,
}

impl ScheduledChangePreview {
    fn from_preview(preview: &SchedulePreview) -> Self {
        let before = preview.shares.iter().map(|(id, before, _)| (id.clone(), *before)).collect();
        let after = preview.shares.iter().map(|(id, _, after)| (id.clone(), *after)).collect();
        let changed = preview.shares.iter().filter(|(_, before, after)| before != after);
        Self {
            before: PreviewState { enabled: preview.enabled_before, weights: before },
            after: PreviewState { enabled: preview.enabled_after, weights: after },
            difference: changed.map(|(id, before, after)| (id.clone(), percentage_points(*before, *after))).collect(),
        }
    }
}

fn percentage_points(before: Weight, after: Weight) -> f64 {
    (f64::from(after.thousandths()) - f64::from(before.thousandths())) / 1_000.0
}

impl ScheduledChangeResponse {
    fn from_detail(detail: ScheduledChangeDetail) -> Self {
        let record = detail.record;
        Self {
            id: record.change.id,
            flag_name: record.flag_name.into(),
            scheduled_at: record.change.scheduled_at,
            serve: record.change.serve.as_ref().map(Into::into),
            enabled: record.change.enabled,
            description: record.change.description,
            status: detail.status.into(),
            preview: detail.preview.as_ref().map(ScheduledChangePreview::from_preview),
            created_by: record.created_by,
            created_at: record.created_at,
            updated_at: record.updated_at,
            cancelled_at: record.change.cancelled_at,
            revision: record.revision,
        }
    }
}

/// A scheduled change to create. At least one of `serve` and `enabled` is required.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CreateScheduledChangeRequest {
    /// When the change takes effect. Must be in the future. Either an RFC 3339 timestamp, or a local time without
    /// offset such as `2030-03-31T02:30:00` together with `timezone`.
    scheduled_at: String,
    /// IANA time zone such as `Europe/Berlin`. Required if `scheduled_at` is a local time, otherwise not allowed.
    timezone: Option<String>,
    /// New default of the flag.
    serve: Option<WireServe>,
    /// Whether to turn the flag on or off.
    enabled: Option<bool>,
    /// Human-readable description.
    #[schema(max_length = 2000)]
    description: Option<String>,
}

/// Fields to change. Omitted fields stay unchanged. At least one of `serve` and `enabled` must remain set.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PatchScheduledChangeRequest {
    /// When the change takes effect, in the same format as at creation.
    #[serde(default, deserialize_with = "deserialize_present")]
    #[schema(value_type = String, required = false)]
    scheduled_at: Option<String>,
    /// IANA time zone. Required if `scheduled_at` is a local time, otherwise not allowed.
    timezone: Option<String>,
    /// New default of the flag. `null` means that the change does not set the default.
    #[serde(default, deserialize_with = "deserialize_present")]
    #[schema(value_type = Option<WireServe>)]
    serve: Option<Option<WireServe>>,
    /// Whether to turn the flag on or off. `null` means that the change does not set the enabled state.
    #[serde(default, deserialize_with = "deserialize_present")]
    #[schema(value_type = Option<bool>)]
    enabled: Option<Option<bool>>,
    /// Human-readable description. `null` removes it.
    #[serde(default, deserialize_with = "deserialize_present")]
    #[schema(value_type = Option<String>, max_length = 2000)]
    description: Option<Option<String>>,
}

impl RequestBody for CreateScheduledChangeRequest {}
impl RequestBody for PatchScheduledChangeRequest {}

/// Status to filter by.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ScheduleStatusFilter {
    Pending,
}

/// Filter and pagination.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListScheduledChangesQuery {
    /// Only scheduled changes with this status. Omitted: all.
    #[param(inline)]
    status: Option<ScheduleStatusFilter>,
    /// Maximum number of items.
    #[serde(default)]
    #[param(value_type = Option<u32>, minimum = 1, maximum = 200, default = 50)]
    limit: PageLimit,
    /// `next_cursor` of the previous page.
    #[param(value_type = Option<String>)]
    cursor: Option<PageCursor<(Instant, Uuid)>>,
}

fn cursor_after(last: &ScheduledChangeDetail) -> String {
    PageCursor((last.record.change.scheduled_at, last.record.change.id)).encode()
}

/// List a flag's scheduled changes
///
/// Ordered by `scheduled_at`.
#[utoipa::path(
    get, path = "/api/admin/feature-flags/{flag_name}/scheduled-changes", tag = "scheduled changes",
    operation_id = "list_flag_scheduled_changes",
    params(
        ("flag_name" = String, Path, description = "Name of the flag"),
        ListScheduledChangesQuery,
    ),
    responses(
        (status = 200, body = PageResponse<ScheduledChangeResponse>),
        (status = "default", response = ProblemResponse),
    ),
)]
async fn list(
    _: Require<ReadSchedules>,
    app: Data<App>,
    flag: FlagNameParam,
    Query(query): Query<ListScheduledChangesQuery>,
) -> HandlerResult {
    let page = app
        .schedules
        .list(Some(&flag.0), query.status.is_some(), query.cursor.map(|cursor| cursor.0), query.limit.0)
        .await?;
    reply::json(&PageResponse::new(page, cursor_after, ScheduledChangeResponse::from_detail))
}

/// List all scheduled changes
///
/// Ordered by `scheduled_at`.
#[utoipa::path(
    get, path = "/api/admin/scheduled-changes", tag = "scheduled changes", operation_id = "list_scheduled_changes",
    params(ListScheduledChangesQuery),
    responses(
        (status = 200, body = PageResponse<ScheduledChangeResponse>),
        (status = "default", response = ProblemResponse),
    ),
)]
async fn list_all(
    _: Require<ReadSchedules>,
    app: Data<App>,
    Query(query): Query<ListScheduledChangesQuery>,
) -> HandlerResult {
    let page =
        app.schedules.list(None, query.status.is_some(), query.cursor.map(|cursor| cursor.0), query.limit.0).await?;
    reply::json(&PageResponse::new(page, cursor_after, ScheduledChangeResponse::from_detail))
}

/// Create a scheduled change
#[utoipa::path(
    post, path = "/api/admin/feature-flags/{flag_name}/scheduled-changes", tag = "scheduled changes",
    operation_id = "create_scheduled_change",
    params(
        ("flag_name" = String, Path, description = "Name of the flag"),
    ),
    request_body = CreateScheduledChangeRequest,
    responses((status = 201, body = ScheduledChangeResponse), (status = "default", response = ProblemResponse)),
)]
async fn create(
    author: Require<ManageSchedules>,
    app: Data<App>,
    flag: FlagNameParam,
    Json(body): Json<CreateScheduledChangeRequest>,
    request: HttpRequest,
) -> HandlerResult {
    let input = NewScheduledChange {
        scheduled_at: parse_instant(&body.scheduled_at, body.timezone.as_deref())?,
        serve: body.serve.map(|serve| serve.into_domain("/serve")).transpose()?,
        enabled: body.enabled,
        description: body.description,
    };
    let collection_path = request.path().to_owned();
    let reply = move |detail: &ScheduledChangeDetail, committed: &Committed| {
        let location = child_location(&collection_path, &detail.record.change.id.to_string());
        reply::created(
            committed,
            detail.record.revision,
            location,
            &ScheduledChangeResponse::from_detail(detail.clone()),
        )
    };
    let execute = async |command| app.schedules.create(command, &flag.0, input).await;
    reply::execute_idempotently(&request, author.granted, reply, execute).await
}

/// Get a scheduled change
#[utoipa::path(
    get, path = "/api/admin/feature-flags/{flag_name}/scheduled-changes/{id}", tag = "scheduled changes",
    operation_id = "get_scheduled_change",
    params(
        ("flag_name" = String, Path, description = "Name of the flag"),
        ("id" = Uuid, Path, description = "Id of the scheduled change"),
    ),
    responses((status = 200, body = ScheduledChangeResponse), (status = "default", response = ProblemResponse)),
)]
async fn get(
    _: Require<ReadSchedules>,
    app: Data<App>,
    flag: FlagNameParam,
    id: ScheduledChangeIdParam,
) -> HandlerResult {
    let detail = app.schedules.get(&flag.0, id.0).await?;
    let revision = Revision { number: detail.record.revision, ..app.evaluation.replica().revision() };
    reply::resource(revision, &ScheduledChangeResponse::from_detail(detail))
}

/// Update a pending scheduled change
#[utoipa::path(
    patch, path = "/api/admin/feature-flags/{flag_name}/scheduled-changes/{id}", tag = "scheduled changes",
    operation_id = "patch_scheduled_change",
    params(
        ("flag_name" = String, Path, description = "Name of the flag"),
        ("id" = Uuid, Path, description = "Id of the scheduled change"),
    ),
    request_body = PatchScheduledChangeRequest,
    responses((status = 200, body = ScheduledChangeResponse), (status = "default", response = ProblemResponse)),
)]
async fn patch(
    author: Require<ManageSchedules>,
    app: Data<App>,
    (flag, id): (FlagNameParam, ScheduledChangeIdParam),
    if_match: IfMatch,
    Json(body): Json<PatchScheduledChangeRequest>,
) -> HandlerResult {
    let scheduled_at = match (&body.scheduled_at, &body.timezone) {
        (Some(text), zone) => Some(parse_instant(text, zone.as_deref())?),
        (None, None) => None,
        (None, Some(_)) => {
            return Err(Violation::new("/timezone", "not_allowed", "requires a local time in `scheduled_at`").into());
        }
    };
    let patch = ScheduledChangePatch {
        scheduled_at,
        serve: body.serve.map(|serve| serve.map(|serve| serve.into_domain("/serve")).transpose()).transpose()?,
        enabled: body.enabled,
        description: body.description,
    };
    let outcome = app.schedules.patch(author.granted, &flag.0, id.0, patch, if_match.0).await?;
    Ok(scheduled_change_reply(&outcome.output, &outcome.committed).into())
}

/// Cancel a pending scheduled change
#[utoipa::path(
    post, path = "/api/admin/feature-flags/{flag_name}/scheduled-changes/{id}/cancel", tag = "scheduled changes",
    operation_id = "cancel_scheduled_change",
    params(
        ("flag_name" = String, Path, description = "Name of the flag"),
        ("id" = Uuid, Path, description = "Id of the scheduled change"),
    ),
    responses((status = 200, body = ScheduledChangeResponse), (status = "default", response = ProblemResponse)),
)]
async fn cancel(
    author: Require<ManageSchedules>,
    app: Data<App>,
    flag: FlagNameParam,
    id: ScheduledChangeIdParam,
    if_match: IfMatch,
    request: HttpRequest,
) -> HandlerResult {
    let execute = async |command| app.schedules.cancel(command, &flag.0, id.0, if_match.0).await;
    reply::execute_idempotently(&request, author.granted, scheduled_change_reply, execute).await
}

/// Builds the response to an update or a cancellation.
fn scheduled_change_reply(detail: &ScheduledChangeDetail, committed: &Committed) -> Reply {
    reply::changed(committed, detail.record.revision, &ScheduledChangeResponse::from_detail(detail.clone()))
}
