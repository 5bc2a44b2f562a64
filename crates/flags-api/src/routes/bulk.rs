//! Bulk changes of user overrides.

use actix_web::{
    HttpRequest,
    http::StatusCode,
    web::{self, Data},
};
use flags_domain::{Instant, Violation};
use flags_service::bulk::{self, BATCH_SIZE, BulkResult, BulkSelection};
use flags_store::{Committed, change_log::Revision, overrides::OverrideFilter};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::{
    override_lists::override_filter,
    reply::{self, HandlerResult, Reply},
};
use crate::{
    auth::{ManageOverrides, Require},
    extract::{Json, RequestBody, deserialize_present, deserialize_search_text},
    problem::{Problem, ProblemResponse},
    route_facts::RouteFacts,
    route_registry::RouteRegistry,
    state::App,
    wire::{WireOverrideStatus, wire_enum},
};

pub(super) fn routes(routes: &mut RouteRegistry) {
    routes.add::<__path_change_overrides>(web::to(change_overrides), RouteFacts::bulk_change().idempotent());
}

/// Change to apply to each override.
///
/// - `enable`: enable it
/// - `disable`: disable it
/// - `delete`: delete it
/// - `set_expiry`: set `expires_at`, or remove the expiry
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = BulkAction)]
pub(crate) enum WireBulkAction {
    Enable,
    Disable,
    Delete,
    SetExpiry,
}

/// A change to apply to many overrides. Exactly one of `ids` and `filter` is required.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct BulkOverrideRequest {
    /// Change to apply.
    action: WireBulkAction,
    /// Ids of the overrides, at most 1,000 and without duplicates. All are changed in one revision.
    #[schema(nullable = false, max_items = 1000)]
    #[serde(default, deserialize_with = "deserialize_present")]
    ids: Option<Vec<Uuid>>,
    /// Selects at most 100,000 overrides, for role support at most 1,000. More than 1,000 are changed in several
    /// revisions.
    #[schema(nullable = false)]
    #[serde(default, deserialize_with = "deserialize_present")]
    filter: Option<BulkOverrideFilter>,
    /// New expiry. Required for `set_expiry`, otherwise not allowed. Must be in the future; `null` removes the expiry.
    #[serde(default, deserialize_with = "deserialize_present")]
    #[schema(value_type = Option<String>, format = DateTime)]
    expires_at: Option<Option<Instant>>,
    /// Whether to return the result without changing anything. Default: `false`.
    #[serde(default)]
    dry_run: bool,
}

impl RequestBody for BulkOverrideRequest {}

/// Selects overrides that match all conditions. At least one condition is required.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct BulkOverrideFilter {
    /// Case-insensitive search anywhere in the flag name, or in the user's e-mail address, display name or external id.
    #[serde(default, deserialize_with = "deserialize_search_text")]
    #[schema(nullable = false, max_length = 255)]
    search: Option<String>,
    /// Only overrides of this flag.
    #[serde(default, deserialize_with = "deserialize_search_text")]
    #[schema(nullable = false, max_length = 255)]
    flag_name: Option<String>,
    /// Only overrides of this user.
    #[serde(default, deserialize_with = "deserialize_present")]
    #[schema(nullable = false)]
    user_id: Option<Uuid>,
    /// Only overrides with this status.
    #[serde(default, deserialize_with = "deserialize_present")]
    #[schema(nullable = false)]
    status: Option<WireOverrideStatus>,
    /// Only overrides that expire before this time.
    #[serde(default, deserialize_with = "deserialize_present")]
    #[schema(nullable = false, value_type = Option<String>, format = DateTime)]
    expires_before: Option<Instant>,
}

wire_enum! {
    /// Result for one override.
    ///
    /// - `changed`: the override was changed or deleted, or would be in a dry run
    /// - `unchanged`: the override already had the requested state
    /// - `not_found`: the override does not exist; except for `delete`, an expired override also counts as not found
    /// - `forbidden`: the caller has role support, and the user of the override has a role other than `user`
    WireBulkOutcome as BulkOutcome = bulk::BulkOutcome { Changed, Unchanged, NotFound, Forbidden }
}

/// Result for one override.
#[derive(Serialize, ToSchema)]
pub(crate) struct BulkOverrideResult {
    /// Id of the override.
    id: Uuid,
    /// What the bulk change did to the override, or would do in a dry run.
    outcome: WireBulkOutcome,
}

/// Results of a bulk change.
#[derive(Serialize, ToSchema)]
pub(crate) struct BulkOverrideResponse {
    /// Number of overrides that were changed, or would be in a dry run.
    changed: usize,
    /// One entry for each requested id, or for each override that the filter selects.
    results: Vec<BulkOverrideResult>,
    /// Revisions of the changes, as `<epoch>:<number>`. Empty for a dry run, or if nothing changed.
    revisions: Vec<String>,
}

fn bulk_reply(result: &BulkResult, committed: &Committed) -> Reply {
    let results = result.results.iter().map(|(id, outcome)| BulkOverrideResult { id: *id, outcome: (*outcome).into() });
    let revisions = result.revisions.iter().map(|number| Revision { number: *number, ..committed.revision() });
    let body = BulkOverrideResponse {
        changed: result.changed(),
        results: results.collect(),
        revisions: revisions.map(|revision| revision.to_string()).collect(),
    };
    Reply::without_tag(StatusCode::OK, committed, &body)
}

impl BulkOverrideRequest {
    fn action(&self) -> Result<bulk::BulkAction, Violation> {
        match (self.action, self.expires_at) {
            (WireBulkAction::SetExpiry, None) => {
                let detail = "set_expiry requires a timestamp, or null to remove the expiry";
                Err(Violation::new("/expires_at", "required", detail))
            }
            (WireBulkAction::SetExpiry, Some(expires_at)) => Ok(bulk::BulkAction::SetExpiry(expires_at)),
            (_, Some(_)) => {
                Err(Violation::new("/expires_at", "not_allowed", "only allowed with the action set_expiry"))
            }
            (WireBulkAction::Enable, None) => Ok(bulk::BulkAction::Enable),
            (WireBulkAction::Disable, None) => Ok(bulk::BulkAction::Disable),
            (WireBulkAction::Delete, None) => Ok(bulk::BulkAction::Delete),
        }
    }

    fn target(self, now: Instant) -> Result<BulkSelection, Violation> {
        match (self.ids, self.filter) {
            (Some(ids), None) => check_ids(ids).map(BulkSelection::Ids),
            (None, Some(filter)) => filter.into_store_filter(now).map(BulkSelection::Filter),
            _ => Err(Violation::new("", "ids_or_filter", "requires exactly one of `ids` and `filter`")),
        }
    }
}

fn check_ids(ids: Vec<Uuid>) -> Result<Vec<Uuid>, Violation> {
    if ids.len() > BATCH_SIZE {
        return Err(Violation::new("/ids", "too_many", format!("must contain at most {BATCH_SIZE} ids")));
    }
    let mut seen = std::collections::HashSet::new();
    match ids.iter().position(|id| !seen.insert(*id)) {
        Some(index) => Err(Violation::new(format!("/ids/{index}"), "duplicate", "this id occurs more than once")),
        None => Ok(ids),
    }
}

impl BulkOverrideFilter {
    fn into_store_filter(self, now: Instant) -> Result<OverrideFilter, Violation> {
        for (name, text) in [("search", &self.search), ("flag_name", &self.flag_name)] {
            if text.as_ref().is_some_and(|text| text.contains('\0')) {
                let detail = "must not contain the NUL character";
                return Err(Violation::new(format!("/filter/{name}"), "nul_character", detail));
            }
        }
        let Self { search, flag_name, user_id, status, expires_before } = self;
        let filter = override_filter(search, flag_name, user_id, status.map(|status| (status, now)), expires_before);
        let has_condition = [
            filter.search.as_ref().is_some_and(|text| !text.is_empty()),
            filter.flag_name.is_some(),
            filter.user_id.is_some(),
            filter.status.is_some(),
            filter.expires_before.is_some(),
        ];
        if has_condition.contains(&true) {
            return Ok(filter);
        }
        let detail = "would select every override; send at least one condition";
        Err(Violation::new("/filter", "empty_filter", detail))
    }
}

/// Change many overrides
#[utoipa::path(
    post, path = "/api/admin/flag-overrides/bulk", tag = "overrides", operation_id = "change_overrides",
    request_body = BulkOverrideRequest,
    responses((status = 200, body = BulkOverrideResponse), (status = "default", response = ProblemResponse)),
)]
async fn change_overrides(
    author: Require<ManageOverrides>,
    app: Data<App>,
    Json(body): Json<BulkOverrideRequest>,
    request: HttpRequest,
) -> HandlerResult {
    let dry_run = body.dry_run;
    let action = body.action().map_err(Problem::from)?;
    let target = body.target(app.evaluation.now()).map_err(Problem::from)?;
    let execute = async |command| app.overrides.bulk_change(command, action, target, dry_run).await;
    reply::execute_idempotently(&request, author.granted, bulk_reply, execute).await
}
