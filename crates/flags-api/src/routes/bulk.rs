//! One change to many overrides at once.

use actix_web::{
    HttpRequest,
    http::StatusCode,
    web::{self, Data},
};
use flags_domain::{Instant, Violation};
use flags_service::bulk::{self, AT_ONCE, BulkResult, BulkTarget};
use flags_store::{Committed, change_log::Revision, overrides::OverrideFilter};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::{
    Routes,
    override_lists::read_filter,
    reply::{self, HandlerResult, Reply},
};
use crate::{
    app::App,
    auth::{ManageOverrides, Require},
    extract::{Body, Json, present, short_text},
    problem::{Problem, ProblemResponse},
    wire::{OverrideStatus, mirror},
};

pub(super) fn routes(routes: &mut Routes) {
    routes.add::<__path_change_many>(web::to(change_many));
}

/// What is to be done to each override.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum BulkAction {
    /// Switch it on.
    Enable,
    /// Switch it off.
    Disable,
    /// Remove it.
    Delete,
    /// Give it the end `expires_at`, or none.
    SetExpiry,
}

/// A change to many overrides: either those with these `ids`, or those that a `filter` lets through.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct BulkChange {
    action: BulkAction,
    /// At most 1,000; all are changed in one revision.
    #[schema(nullable = false, max_items = 1000)]
    #[serde(default, deserialize_with = "present")]
    ids: Option<Vec<Uuid>>,
    /// At most 100,000 overrides; more than 1,000 are changed in several revisions.
    #[schema(nullable = false)]
    #[serde(default, deserialize_with = "present")]
    filter: Option<BulkFilter>,
    /// With `set_expiry`: in the future, or `null` for none.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<String>, format = DateTime)]
    expires_at: Option<Option<Instant>>,
    /// Only say what would be done.
    #[serde(default)]
    dry_run: bool,
}

impl Body for BulkChange {}

/// Which overrides, as in their list; at least one condition.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct BulkFilter {
    /// Any part of the e-mail or the flag's name, case ignored.
    #[serde(default, deserialize_with = "short_text")]
    #[schema(nullable = false, max_length = 255)]
    search: Option<String>,
    #[serde(default, deserialize_with = "short_text")]
    #[schema(nullable = false, max_length = 255)]
    flag_name: Option<String>,
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false)]
    user_id: Option<Uuid>,
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false)]
    status: Option<OverrideStatus>,
    /// Ends before this instant.
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false, value_type = Option<String>, format = DateTime)]
    expires_before: Option<Instant>,
}

mirror! {
    /// What became of one override.
    BulkOutcome = bulk::BulkOutcome { Changed, Unchanged, NotFound }
}

/// What became of one override.
#[derive(Serialize, ToSchema)]
pub(crate) struct BulkItem {
    id: Uuid,
    outcome: BulkOutcome,
}

/// What became of all.
#[derive(Serialize, ToSchema)]
pub(crate) struct BulkAnswer {
    /// How many were changed, or would be.
    changed: usize,
    /// One entry for each id, or for each override that the filter lets through.
    results: Vec<BulkItem>,
    /// The revisions in which they were changed, `<epoch>:<number>` each; none in a dry run.
    revisions: Vec<String>,
}

fn show(result: &BulkResult, committed: &Committed) -> Reply {
    let item = |(id, outcome): &(Uuid, bulk::BulkOutcome)| BulkItem { id: *id, outcome: (*outcome).into() };
    let revision = |number: &i64| Revision { number: *number, ..committed.revision() }.to_string();
    let body = BulkAnswer {
        changed: result.changed(),
        results: result.results.iter().map(item).collect(),
        revisions: result.revisions.iter().map(revision).collect(),
    };
    Reply::without_tag(StatusCode::OK, committed, &body)
}

impl BulkChange {
    fn action(&self) -> Result<bulk::BulkAction, Violation> {
        let ends = |detail: &str, code| Err(Violation::new("/expires_at", code, detail.to_owned()));
        match (self.action, self.expires_at) {
            (BulkAction::SetExpiry, None) => ends("set_expiry needs an instant, or null for no end", "required"),
            (BulkAction::SetExpiry, Some(end)) => Ok(bulk::BulkAction::SetExpiry(end)),
            (_, Some(_)) => ends("only set_expiry takes this", "not_allowed"),
            (BulkAction::Enable, None) => Ok(bulk::BulkAction::Enable),
            (BulkAction::Disable, None) => Ok(bulk::BulkAction::Disable),
            (BulkAction::Delete, None) => Ok(bulk::BulkAction::Delete),
        }
    }

    fn target(self, now: Instant) -> Result<BulkTarget, Violation> {
        match (self.ids, self.filter) {
            (Some(ids), None) => check_ids(ids).map(BulkTarget::Ids),
            (None, Some(filter)) => filter.read(now).map(BulkTarget::Filter),
            _ => Err(Violation::new("", "ids_or_filter", "send either `ids` or `filter`")),
        }
    }
}

fn check_ids(ids: Vec<Uuid>) -> Result<Vec<Uuid>, Violation> {
    if ids.len() > AT_ONCE {
        return Err(Violation::new("/ids", "too_many", format!("must hold at most {AT_ONCE} ids")));
    }
    let mut seen = std::collections::HashSet::new();
    match ids.iter().position(|id| !seen.insert(*id)) {
        Some(place) => Err(Violation::new(format!("/ids/{place}"), "duplicate", "this id stands twice")),
        None => Ok(ids),
    }
}

impl BulkFilter {
    fn read(self, now: Instant) -> Result<OverrideFilter, Violation> {
        for (name, text) in [("search", &self.search), ("flag_name", &self.flag_name)] {
            if text.as_ref().is_some_and(|text| text.contains('\0')) {
                let detail = "must not contain the NUL character";
                return Err(Violation::new(format!("/filter/{name}"), "nul_character", detail));
            }
        }
        let Self { search, flag_name, user_id, status, expires_before } = self;
        let filter = read_filter(search, flag_name, user_id, status.map(|status| (status, now)), expires_before);
        let named = [
            filter.search.as_ref().is_some_and(|text| !text.is_empty()),
            filter.flag_name.is_some(),
            filter.user_id.is_some(),
            filter.status.is_some(),
            filter.expires_before.is_some(),
        ];
        if named.contains(&true) {
            return Ok(filter);
        }
        let detail = "would let every override through; name at least one condition";
        Err(Violation::new("/filter", "empty_filter", detail))
    }
}

/// Change many overrides at once
#[utoipa::path(
    post, path = "/api/admin/flag-overrides/bulk", tag = "overrides", operation_id = "change_overrides",
    request_body = BulkChange,
    responses((status = 200, body = BulkAnswer), (status = "default", response = ProblemResponse)),
)]
async fn change_many(
    author: Require<ManageOverrides>,
    app: Data<App>,
    Json(body): Json<BulkChange>,
    request: HttpRequest,
) -> HandlerResult {
    let dry_run = body.dry_run;
    let action = body.action().map_err(Problem::from)?;
    let target = body.target(app.evaluation.now()).map_err(Problem::from)?;
    let carry_out = async |intent| app.overrides.bulk(intent, action, target, dry_run).await;
    reply::execute_idempotently(&request, author.granted, show, carry_out).await
}
