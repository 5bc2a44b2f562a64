//! Lists of user overrides: by user, by flag, and all.

use actix_web::web::{self, Data};
use flags_domain::{Instant, Violation, search_form};
use flags_service::findings::{self, FindingFilter, ScanBudget};
use flags_store::overrides::{OverrideFilter, OverrideListItem, OverrideOrder};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::{
    overrides::UserOverrideResponse,
    reply::{self, HandlerResult},
};
use crate::{
    auth::{ReadOverrides, Require},
    extract::{FlagNameParam, PageCursor, PageLimit, Query, UserIdParam, deserialize_search_text, invalid_cursor},
    problem::{Problem, ProblemResponse},
    route_facts::RouteFacts,
    route_registry::RouteRegistry,
    state::App,
    wire::{PageResponse, WireFindingCode, WireOverrideStatus},
};

pub(super) fn routes(routes: &mut RouteRegistry) {
    routes.add::<__path_list_for_user>(web::to(list_for_user), RouteFacts::api());
    routes.add::<__path_list_for_flag>(web::to(list_for_flag), RouteFacts::api());
    routes.add::<__path_list>(web::to(list), RouteFacts::api());
}

/// Pagination.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListUserOverridesQuery {
    /// Maximum number of items.
    #[serde(default)]
    #[param(value_type = Option<u32>, minimum = 1, maximum = 200, default = 50)]
    limit: PageLimit,
    /// `next_cursor` of the previous page.
    #[param(value_type = Option<String>)]
    cursor: Option<PageCursor<String>>,
}

/// List a user's overrides
///
/// Ordered by flag name.
#[utoipa::path(
    get, path = "/api/admin/users/{user_id}/flag-overrides", tag = "overrides", operation_id = "list_user_overrides",
    params(("user_id" = Uuid, Path, description = "Id of the user"), ListUserOverridesQuery),
    responses(
        (status = 200, body = PageResponse<UserOverrideResponse>),
        (status = "default", response = ProblemResponse),
    ),
)]
async fn list_for_user(
    _: Require<ReadOverrides>,
    app: Data<App>,
    user_id: UserIdParam,
    Query(page): Query<ListUserOverridesQuery>,
) -> HandlerResult {
    let now = app.evaluation.now();
    let page = app.overrides.list_for_user(user_id.0, page.cursor.map(|cursor| cursor.0), page.limit.0).await?;
    let page = PageResponse::new(
        page,
        |last| PageCursor(&last.record.user_override.flag_name).encode(),
        |item| UserOverrideResponse::from_list_item(item, now),
    );
    reply::json(&page)
}

/// Pagination.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListFlagOverridesQuery {
    /// Maximum number of items.
    #[serde(default)]
    #[param(value_type = Option<u32>, minimum = 1, maximum = 200, default = 50)]
    limit: PageLimit,
    /// `next_cursor` of the previous page.
    #[param(value_type = Option<String>)]
    cursor: Option<PageCursor<(String, Uuid)>>,
}

/// List a flag's overrides
///
/// Ordered by the users' e-mail addresses; users without one by external id.
#[utoipa::path(
    get, path = "/api/admin/feature-flags/{flag_name}/user-overrides", tag = "overrides",
    operation_id = "list_flag_overrides",
    params(
        ("flag_name" = String, Path, description = "Name of the flag"),
        ListFlagOverridesQuery,
    ),
    responses(
        (status = 200, body = PageResponse<UserOverrideResponse>),
        (status = "default", response = ProblemResponse),
    ),
)]
async fn list_for_flag(
    _: Require<ReadOverrides>,
    app: Data<App>,
    flag: FlagNameParam,
    Query(page): Query<ListFlagOverridesQuery>,
) -> HandlerResult {
    let now = app.evaluation.now();
    let page = app.overrides.list_for_flag(&flag.0, page.cursor.map(|cursor| cursor.0), page.limit.0).await?;
    let page = PageResponse::new(
        page,
        |last| PageCursor((last.user.handle(), last.record.user_override.id)).encode(),
        |item| UserOverrideResponse::from_list_item(item, now),
    );
    reply::json(&page)
}

/// Sort order of overrides.
#[derive(Clone, Copy, Default, Deserialize, ToSchema)]
pub(crate) enum OverrideSort {
    /// By last change, most recent first.
    #[default]
    #[serde(rename = "-updated_at")]
    RecentlyUpdated,
    /// By expiry, soonest first; overrides that do not expire come last.
    #[serde(rename = "expires_at")]
    SoonestExpiry,
}

/// Filters and pagination.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListOverridesQuery {
    /// Case-insensitive search anywhere in the flag name, or in the user's e-mail address, display name or external id.
    #[serde(default, deserialize_with = "deserialize_search_text")]
    #[param(max_length = 255)]
    search: Option<String>,
    /// Only overrides of this flag.
    #[serde(default, deserialize_with = "deserialize_search_text")]
    #[param(max_length = 255)]
    flag_name: Option<String>,
    /// Only overrides of this user.
    user_id: Option<Uuid>,
    /// Only overrides with this status.
    #[param(inline)]
    status: Option<WireOverrideStatus>,
    /// Only overrides that expire before this time.
    #[param(value_type = Option<String>, format = DateTime)]
    expires_before: Option<Instant>,
    /// Only overrides with this finding. Cannot be combined with `search` or `sort`. The server scans a limited number
    /// of overrides per request, so a page may contain fewer items than `limit`, or none; continue while `next_cursor`
    /// is not `null`. `total` counts the items of the page.
    #[param(inline)]
    finding: Option<WireFindingCode>,
    /// Sort order: `-updated_at` (default) for most recently changed first, or `expires_at` for soonest expiry first.
    #[param(inline)]
    sort: Option<OverrideSort>,
    /// Maximum number of items.
    #[serde(default)]
    #[param(value_type = Option<u32>, minimum = 1, maximum = 200, default = 50)]
    limit: PageLimit,
    /// `next_cursor` of the previous page.
    #[param(value_type = Option<String>)]
    cursor: Option<PageCursor<OverridePageCursor>>,
}

/// Position in a list of overrides, for each sort order.
#[derive(Clone, Deserialize, Serialize)]
pub(crate) enum OverridePageCursor {
    Revision(i64, Uuid),
    Expiry(Option<Instant>, Uuid),
    /// Position in a list filtered by this finding: the last user and flag that were scanned. The scan order is by user
    /// shard, user id and flag name. If it changes, rename the variant, so that the server rejects older cursors.
    Scan(WireFindingCode, Uuid, String),
}

impl OverrideSort {
    fn order(self, after: Option<OverridePageCursor>) -> Result<OverrideOrder, Problem> {
        match (self, after) {
            (Self::RecentlyUpdated, None) => Ok(OverrideOrder::RecentlyUpdated(None)),
            (Self::RecentlyUpdated, Some(OverridePageCursor::Revision(revision, id))) => {
                Ok(OverrideOrder::RecentlyUpdated(Some((revision, id))))
            }
            (Self::SoonestExpiry, None) => Ok(OverrideOrder::SoonestExpiry(None)),
            (Self::SoonestExpiry, Some(OverridePageCursor::Expiry(expires_at, id))) => {
                Ok(OverrideOrder::SoonestExpiry(Some((expires_at, id))))
            }
            _ => Err(invalid_cursor()),
        }
    }

    fn cursor_after(self, last: &OverrideListItem) -> OverridePageCursor {
        let o = &last.record.user_override;
        match self {
            Self::RecentlyUpdated => OverridePageCursor::Revision(last.record.revision, o.id),
            Self::SoonestExpiry => OverridePageCursor::Expiry(o.expires_at, o.id),
        }
    }
}

/// Builds the store filter of a list or bulk request. `status` contains the instant for which statuses are computed.
pub(super) fn override_filter(
    search: Option<String>,
    flag_name: Option<String>,
    user_id: Option<Uuid>,
    status: Option<(WireOverrideStatus, Instant)>,
    expires_before: Option<Instant>,
) -> OverrideFilter {
    let search = search.map(|text| search_form(&text));
    let status = status.map(|(status, at)| (status.into(), at));
    OverrideFilter { search, flag_name, user_id, status, expires_before }
}

/// List all overrides
#[utoipa::path(
    get, path = "/api/admin/flag-overrides", tag = "overrides", operation_id = "list_overrides",
    params(ListOverridesQuery),
    responses(
        (status = 200, body = PageResponse<UserOverrideResponse>),
        (status = "default", response = ProblemResponse),
    ),
)]
async fn list(_: Require<ReadOverrides>, app: Data<App>, Query(query): Query<ListOverridesQuery>) -> HandlerResult {
    let now = app.evaluation.now();
    if let Some(finding) = query.finding {
        return list_findings(&app, finding, query, now).await;
    }
    let ListOverridesQuery { search, flag_name, user_id, status, expires_before, .. } = query;
    let sort = query.sort.unwrap_or_default();
    let filter = override_filter(search, flag_name, user_id, status.map(|status| (status, now)), expires_before);
    let order = sort.order(query.cursor.map(|cursor| cursor.0))?;
    let page = app.overrides.list(&filter, order, query.limit.0).await?;
    let page = PageResponse::new(
        page,
        |last| PageCursor(sort.cursor_after(last)).encode(),
        |item| UserOverrideResponse::from_list_item(item, now),
    );
    reply::json(&page)
}

fn not_with_finding(pointer: &str, detail: &str) -> Problem {
    Violation::new(pointer, "not_with_finding", detail).into()
}

async fn list_findings(app: &App, finding: WireFindingCode, query: ListOverridesQuery, now: Instant) -> HandlerResult {
    if query.search.is_some() {
        return Err(not_with_finding("/search", "cannot be used with `finding`; use `flag_name` or `user_id`"));
    }
    if query.sort.is_some() {
        return Err(not_with_finding("/sort", "cannot be used with `finding`; findings have a fixed order"));
    }
    let filter = FindingFilter {
        finding: finding.into(),
        flag_name: query.flag_name,
        user_id: query.user_id,
        status: query.status.map(Into::into),
        expires_before: query.expires_before,
    };
    let after = match query.cursor.map(|cursor| cursor.0) {
        None => None,
        Some(OverridePageCursor::Scan(same, user_id, flag_name)) if same == finding => Some((user_id, flag_name)),
        Some(_) => return Err(invalid_cursor()),
    };
    let is_first = after.is_none();
    let findings =
        findings::find(&app.evaluation, &filter, after, query.limit.0 as usize, ScanBudget::default()).await?;
    let ids: Vec<_> = findings.matches.iter().map(|item| item.id).collect();
    let listed = app.overrides.find_listed(&ids).await?;
    let is_complete = is_first && findings.next.is_none();
    let cursor = findings
        .next
        .map(|(user_id, flag_name)| PageCursor(OverridePageCursor::Scan(finding, user_id, flag_name)).encode());
    let items = listed.into_iter().map(|item| UserOverrideResponse::from_list_item(item, now)).collect();
    reply::json(&PageResponse::from_scan(items, is_complete, cursor))
}
