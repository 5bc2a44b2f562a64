//! Scheduled changes, for admins and viewers.

use std::collections::BTreeMap;

use actix_web::{
    HttpRequest,
    web::{self, Data},
};
use flags_domain::{Instant, SchedulePreview, Violation, Weight};
use flags_service::{
    schedules::{ScheduleDetail, ScheduleInput, SchedulePatch},
    wall_time::read_instant,
};
use flags_store::{Committed, change_log::Revision};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::{
    Routes, location_below,
    reply::{self, HandlerResult, Reply},
};
use crate::{
    app::App,
    auth::{ManageSchedules, ReadSchedules, Require},
    extract::{Body, Cursor, IfMatch, Json, Limit, PathFlag, Query, ScheduleId, present},
    problem::ProblemResponse,
    wire::{List, ScheduleStatus, Serve},
};

pub(super) fn routes(routes: &mut Routes) {
    routes.add::<__path_list>(web::to(list));
    routes.add::<__path_create>(web::to(create));
    routes.add::<__path_get>(web::to(get));
    routes.add::<__path_patch>(web::to(patch));
    routes.add::<__path_cancel>(web::to(cancel));
    routes.add::<__path_list_all>(web::to(list_all));
}

/// A change of a flag's default or switch that acts from an instant on.
#[derive(Serialize, ToSchema)]
pub(crate) struct ScheduledChange {
    id: Uuid,
    flag_name: String,
    /// In force at exactly this instant and after.
    #[schema(value_type = String, format = DateTime)]
    scheduled_at: Instant,
    /// What the default becomes, if it changes.
    #[schema(required)]
    serve: Option<Serve>,
    /// What the switch becomes, if it changes.
    #[schema(required)]
    enabled: Option<bool>,
    #[schema(required)]
    description: Option<String>,
    status: ScheduleStatus,
    /// What it is going to change, as of its instant and as things stand now; `null` unless it is pending.
    #[schema(required)]
    preview: Option<Preview>,
    /// Who planned it: `user:<id>`, `token:<id>` or `system:<name>`.
    created_by: String,
    #[schema(value_type = String, format = DateTime)]
    created_at: Instant,
    #[schema(value_type = String, format = DateTime)]
    updated_at: Instant,
    #[schema(required, value_type = Option<String>, format = DateTime)]
    cancelled_at: Option<Instant>,
    /// The revision of its last change.
    revision: i64,
}

/// What a pending change is going to change.
#[derive(Serialize, ToSchema)]
pub(crate) struct Preview {
    before: Served,
    after: Served,
    /// What each variant whose share changes gains or loses, in percentage points.
    difference: BTreeMap<String, f64>,
}

/// Who gets what, if no override and no rule gives them something else.
#[derive(Serialize, ToSchema)]
pub(crate) struct Served {
    enabled: bool,
    /// Each variant's share in percent; of a flag that is off, all is `off_variant`.
    #[schema(value_type = BTreeMap<String, f64>)]
    weights: BTreeMap<String, Weight>,
}

impl Preview {
    fn show(preview: &SchedulePreview) -> Self {
        let shares = || preview.shares.iter();
        let points = |before: Weight, after: Weight| {
            (f64::from(after.thousandths()) - f64::from(before.thousandths())) / 1_000.0
        };
        Self {
            before: Served {
                enabled: preview.enabled_before,
                weights: shares().map(|(id, before, _)| (id.clone(), *before)).collect(),
            },
            after: Served {
                enabled: preview.enabled_after,
                weights: shares().map(|(id, _, after)| (id.clone(), *after)).collect(),
            },
            difference: shares()
                .filter(|(_, before, after)| before != after)
                .map(|(id, before, after)| (id.clone(), points(*before, *after)))
                .collect(),
        }
    }
}

impl ScheduledChange {
    fn show(detail: ScheduleDetail) -> Self {
        let record = detail.record;
        Self {
            id: record.change.id,
            flag_name: record.flag_name.into(),
            scheduled_at: record.change.scheduled_at,
            serve: record.change.serve.as_ref().map(Into::into),
            enabled: record.change.enabled,
            description: record.change.description,
            status: detail.status.into(),
            preview: detail.preview.as_ref().map(Preview::show),
            created_by: record.created_by,
            created_at: record.created_at,
            updated_at: record.updated_at,
            cancelled_at: record.change.cancelled_at,
            revision: record.revision,
        }
    }
}

/// A new scheduled change: at least one of `serve` and `enabled`.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CreateScheduledChange {
    /// In the future: an RFC 3339 instant, or a local time without offset such as `2030-03-31T02:30:00` with `timezone`.
    scheduled_at: String,
    /// Name of a zone in the IANA database, such as `Europe/Berlin`, if `scheduled_at` is a local time.
    timezone: Option<String>,
    serve: Option<Serve>,
    enabled: Option<bool>,
    #[schema(max_length = 2000)]
    description: Option<String>,
}

/// The fields of a pending change that are to change; `null` takes one away.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PatchScheduledChange {
    /// As when it was planned.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = String, required = false)]
    scheduled_at: Option<String>,
    /// The zone, if `scheduled_at` is a local time.
    timezone: Option<String>,
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<Serve>)]
    serve: Option<Option<Serve>>,
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<bool>)]
    enabled: Option<Option<bool>>,
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<String>, max_length = 2000)]
    description: Option<Option<String>>,
}

impl Body for CreateScheduledChange {}
impl Body for PatchScheduledChange {}

/// Which changes are listed.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ListedStatus {
    Pending,
}

/// Which changes, and which part of the list.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct SchedulePage {
    /// Only those that are to come. Left out, all of them.
    #[param(inline)]
    status: Option<ListedStatus>,
    /// Most items, 1 to 200.
    #[serde(default)]
    #[param(value_type = Option<u32>, minimum = 1, maximum = 200, default = 50)]
    limit: Limit,
    /// `next_cursor` of the part before.
    #[param(value_type = Option<String>)]
    cursor: Option<Cursor<(Instant, Uuid)>>,
}

fn cursor_of(last: &ScheduleDetail) -> String {
    Cursor((last.record.change.scheduled_at, last.record.change.id)).encode()
}

/// Scheduled changes of one flag, by instant
#[utoipa::path(
    get, path = "/api/admin/feature-flags/{flag_name}/scheduled-changes", tag = "scheduled changes",
    operation_id = "list_flag_scheduled_changes", params(("flag_name" = String, Path), SchedulePage),
    responses((status = 200, body = List<ScheduledChange>), (status = "default", response = ProblemResponse)),
)]
async fn list(
    _: Require<ReadSchedules>,
    app: Data<App>,
    flag: PathFlag,
    Query(page): Query<SchedulePage>,
) -> HandlerResult {
    let page = app
        .schedules
        .list(Some(&flag.0), page.status.is_some(), page.cursor.map(|cursor| cursor.0), page.limit.0)
        .await?;
    reply::json(&List::new(page, cursor_of, ScheduledChange::show))
}

/// Scheduled changes of all flags, by instant
#[utoipa::path(
    get, path = "/api/admin/scheduled-changes", tag = "scheduled changes", operation_id = "list_scheduled_changes",
    params(SchedulePage),
    responses((status = 200, body = List<ScheduledChange>), (status = "default", response = ProblemResponse)),
)]
async fn list_all(_: Require<ReadSchedules>, app: Data<App>, Query(page): Query<SchedulePage>) -> HandlerResult {
    let page =
        app.schedules.list(None, page.status.is_some(), page.cursor.map(|cursor| cursor.0), page.limit.0).await?;
    reply::json(&List::new(page, cursor_of, ScheduledChange::show))
}

/// Plan a change
#[utoipa::path(
    post, path = "/api/admin/feature-flags/{flag_name}/scheduled-changes", tag = "scheduled changes",
    operation_id = "create_scheduled_change", params(("flag_name" = String, Path)), request_body = CreateScheduledChange,
    responses((status = 201, body = ScheduledChange), (status = "default", response = ProblemResponse)),
)]
async fn create(
    author: Require<ManageSchedules>,
    app: Data<App>,
    flag: PathFlag,
    Json(body): Json<CreateScheduledChange>,
    request: HttpRequest,
) -> HandlerResult {
    let input = ScheduleInput {
        scheduled_at: read_instant(&body.scheduled_at, body.timezone.as_deref())?,
        serve: body.serve.map(|serve| serve.read("/serve")).transpose()?,
        enabled: body.enabled,
        description: body.description,
    };
    let here = request.path().to_owned();
    let reply = move |detail: &ScheduleDetail, committed: &Committed| {
        let location = location_below(&here, &detail.record.change.id.to_string());
        reply::created(committed, detail.record.revision, location, &ScheduledChange::show(detail.clone()))
    };
    let carry_out = async |intent| app.schedules.create(intent, &flag.0, input).await;
    reply::execute_idempotently(&request, author.granted, reply, carry_out).await
}

/// One scheduled change
#[utoipa::path(
    get, path = "/api/admin/feature-flags/{flag_name}/scheduled-changes/{id}", tag = "scheduled changes",
    operation_id = "get_scheduled_change", params(("flag_name" = String, Path), ("id" = Uuid, Path)),
    responses((status = 200, body = ScheduledChange), (status = "default", response = ProblemResponse)),
)]
async fn get(_: Require<ReadSchedules>, app: Data<App>, flag: PathFlag, id: ScheduleId) -> HandlerResult {
    let detail = app.schedules.get(&flag.0, id.0).await?;
    let revision = Revision { number: detail.record.revision, ..app.evaluation.replica().revision() };
    reply::resource(revision, &ScheduledChange::show(detail))
}

/// Change fields of a pending change
#[utoipa::path(
    patch, path = "/api/admin/feature-flags/{flag_name}/scheduled-changes/{id}", tag = "scheduled changes",
    operation_id = "patch_scheduled_change", params(("flag_name" = String, Path), ("id" = Uuid, Path)),
    request_body = PatchScheduledChange,
    responses((status = 200, body = ScheduledChange), (status = "default", response = ProblemResponse)),
)]
async fn patch(
    author: Require<ManageSchedules>,
    app: Data<App>,
    (flag, id): (PathFlag, ScheduleId),
    expected: IfMatch,
    Json(body): Json<PatchScheduledChange>,
) -> HandlerResult {
    let scheduled_at = match (&body.scheduled_at, &body.timezone) {
        (Some(text), zone) => Some(read_instant(text, zone.as_deref())?),
        (None, None) => None,
        (None, Some(_)) => {
            return Err(Violation::new("/timezone", "not_allowed", "goes with a local time in `scheduled_at`").into());
        }
    };
    let patch = SchedulePatch {
        scheduled_at,
        serve: body.serve.map(|serve| serve.map(|serve| serve.read("/serve")).transpose()).transpose()?,
        enabled: body.enabled,
        description: body.description,
    };
    let done = app.schedules.patch(author.granted, &flag.0, id.0, patch, expected.0).await?;
    Ok(show_changed(&done.output, &done.committed).into())
}

/// Call a pending change off
#[utoipa::path(
    post, path = "/api/admin/feature-flags/{flag_name}/scheduled-changes/{id}/cancel", tag = "scheduled changes",
    operation_id = "cancel_scheduled_change", params(("flag_name" = String, Path), ("id" = Uuid, Path)),
    responses((status = 200, body = ScheduledChange), (status = "default", response = ProblemResponse)),
)]
async fn cancel(
    author: Require<ManageSchedules>,
    app: Data<App>,
    flag: PathFlag,
    id: ScheduleId,
    expected: IfMatch,
    request: HttpRequest,
) -> HandlerResult {
    let carry_out = async |intent| app.schedules.cancel(intent, &flag.0, id.0, expected.0).await;
    reply::execute_idempotently(&request, author.granted, show_changed, carry_out).await
}

/// The answer to a change of a scheduled change.
fn show_changed(detail: &ScheduleDetail, committed: &Committed) -> Reply {
    reply::changed(committed, detail.record.revision, &ScheduledChange::show(detail.clone()))
}
