//! Lists of user overrides: of a user, of a flag, of all.

use actix_web::web::{self, Data};
use flags_domain::{Instant, Violation};
use flags_service::findings::{self, FindingFilter, ScanBudget};
use flags_store::overrides::{ListedOverride, OverrideFilter, OverrideOrder};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::{
    Routes,
    overrides::UserOverride,
    reply::{self, HandlerResult},
};
use crate::{
    app::App,
    auth::{ReadOverrides, Require},
    extract::{Cursor, Limit, PathFlag, Query, UserId, foreign_cursor, short_text},
    problem::{Problem, ProblemResponse},
    wire::{Finding, List, OverrideStatus},
};

pub(super) fn routes(routes: &mut Routes) {
    routes.add::<__path_list_of_user>(web::to(list_of_user));
    routes.add::<__path_list_of_flag>(web::to(list_of_flag));
    routes.add::<__path_list>(web::to(list));
}

/// Which part of a list.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct FlagNamePage {
    /// Most items, 1 to 200.
    #[serde(default)]
    #[param(value_type = Option<u32>, minimum = 1, maximum = 200, default = 50)]
    limit: Limit,
    /// `next_cursor` of the part before.
    #[param(value_type = Option<String>)]
    cursor: Option<Cursor<String>>,
}

/// Overrides of one user, by flag name
#[utoipa::path(
    get, path = "/api/admin/users/{user_id}/flag-overrides", tag = "overrides", operation_id = "list_user_overrides",
    params(("user_id" = Uuid, Path), FlagNamePage),
    responses((status = 200, body = List<UserOverride>), (status = "default", response = ProblemResponse)),
)]
async fn list_of_user(
    _: Require<ReadOverrides>,
    app: Data<App>,
    user_id: UserId,
    Query(page): Query<FlagNamePage>,
) -> HandlerResult {
    let now = app.evaluation.now();
    let page = app.overrides.list_of_user(user_id.0, page.cursor.map(|cursor| cursor.0), page.limit.0).await?;
    let cursor = |last: &ListedOverride| Cursor(&last.record.user_override.flag_name).encode();
    reply::json(&List::new(page, cursor, |listed| UserOverride::show(listed, now)))
}

/// Which part of a list.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct EmailPage {
    /// Most items, 1 to 200.
    #[serde(default)]
    #[param(value_type = Option<u32>, minimum = 1, maximum = 200, default = 50)]
    limit: Limit,
    /// `next_cursor` of the part before.
    #[param(value_type = Option<String>)]
    cursor: Option<Cursor<(String, Uuid)>>,
}

/// All users' overrides of one flag, by e-mail
#[utoipa::path(
    get, path = "/api/admin/feature-flags/{flag_name}/user-overrides", tag = "overrides",
    operation_id = "list_flag_overrides", params(("flag_name" = String, Path), EmailPage),
    responses((status = 200, body = List<UserOverride>), (status = "default", response = ProblemResponse)),
)]
async fn list_of_flag(
    _: Require<ReadOverrides>,
    app: Data<App>,
    flag: PathFlag,
    Query(page): Query<EmailPage>,
) -> HandlerResult {
    let now = app.evaluation.now();
    let page = app.overrides.list_of_flag(&flag.0, page.cursor.map(|cursor| cursor.0), page.limit.0).await?;
    let cursor = |last: &ListedOverride| Cursor((&last.user_email, last.record.user_override.id)).encode();
    reply::json(&List::new(page, cursor, |listed| UserOverride::show(listed, now)))
}

/// In what order all overrides are listed.
#[derive(Clone, Copy, Default, Deserialize, ToSchema)]
pub(crate) enum OverrideSort {
    /// Newest change first.
    #[default]
    #[serde(rename = "-updated_at")]
    NewestChange,
    /// Soonest end first, those without an end last.
    #[serde(rename = "expires_at")]
    SoonestEnd,
}

/// Which overrides, and which part of the list.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct OverrideQuery {
    /// Any part of the e-mail or the flag's name, case ignored.
    #[serde(default, deserialize_with = "short_text")]
    #[param(max_length = 255)]
    search: Option<String>,
    #[serde(default, deserialize_with = "short_text")]
    #[param(max_length = 255)]
    flag_name: Option<String>,
    user_id: Option<Uuid>,
    #[param(inline)]
    status: Option<OverrideStatus>,
    /// Ends before this instant.
    #[param(value_type = Option<String>, format = DateTime)]
    expires_before: Option<Instant>,
    /// Only those to which this applies, as things are now. The answer comes from memory, in an order of its own; it takes
    /// no `search` and no `sort`, looks at a limited number of overrides and may be short: go on while there is a
    /// `next_cursor`. `total` counts this part.
    #[param(inline)]
    finding: Option<Finding>,
    #[param(inline)]
    sort: Option<OverrideSort>,
    /// Most items, 1 to 200.
    #[serde(default)]
    #[param(value_type = Option<u32>, minimum = 1, maximum = 200, default = 50)]
    limit: Limit,
    /// `next_cursor` of the part before.
    #[param(value_type = Option<String>)]
    cursor: Option<Cursor<OverridePlace>>,
}

/// The place of an override in either order.
#[derive(Clone, Deserialize, Serialize)]
pub(crate) enum OverridePlace {
    Revision(i64, Uuid),
    End(Option<Instant>, Uuid),
    /// Of one finding: after this user's override of this flag.
    Found(Finding, Uuid, String),
}

impl OverrideSort {
    fn order(self, after: Option<OverridePlace>) -> Result<OverrideOrder, Problem> {
        match (self, after) {
            (Self::NewestChange, None) => Ok(OverrideOrder::NewestChange(None)),
            (Self::NewestChange, Some(OverridePlace::Revision(at, id))) => {
                Ok(OverrideOrder::NewestChange(Some((at, id))))
            }
            (Self::SoonestEnd, None) => Ok(OverrideOrder::SoonestEnd(None)),
            (Self::SoonestEnd, Some(OverridePlace::End(end, id))) => Ok(OverrideOrder::SoonestEnd(Some((end, id)))),
            _ => Err(foreign_cursor()),
        }
    }

    fn place(self, last: &ListedOverride) -> OverridePlace {
        let o = &last.record.user_override;
        match self {
            Self::NewestChange => OverridePlace::Revision(last.record.revision, o.id),
            Self::SoonestEnd => OverridePlace::End(o.expires_at, o.id),
        }
    }
}

/// What a list or a bulk change says of the overrides it means.
pub(super) fn read_filter(
    search: Option<String>,
    flag_name: Option<String>,
    user_id: Option<Uuid>,
    status: Option<(OverrideStatus, Instant)>,
    expires_before: Option<Instant>,
) -> OverrideFilter {
    let search = search.map(|text| text.to_lowercase());
    let status = status.map(|(status, at)| (status.into(), at));
    OverrideFilter { search, flag_name, user_id, status, expires_before }
}

/// All overrides
#[utoipa::path(
    get, path = "/api/admin/flag-overrides", tag = "overrides", operation_id = "list_overrides", params(OverrideQuery),
    responses((status = 200, body = List<UserOverride>), (status = "default", response = ProblemResponse)),
)]
async fn list(_: Require<ReadOverrides>, app: Data<App>, Query(query): Query<OverrideQuery>) -> HandlerResult {
    let now = app.evaluation.now();
    if let Some(finding) = query.finding {
        return list_findings(&app, finding, query, now).await;
    }
    let OverrideQuery { search, flag_name, user_id, status, expires_before, .. } = query;
    let sort = query.sort.unwrap_or_default();
    let filter = read_filter(search, flag_name, user_id, status.map(|status| (status, now)), expires_before);
    let order = sort.order(query.cursor.map(|cursor| cursor.0))?;
    let page = app.overrides.list(&filter, order, query.limit.0).await?;
    let cursor = |last: &ListedOverride| Cursor(sort.place(last)).encode();
    reply::json(&List::new(page, cursor, |listed| UserOverride::show(listed, now)))
}

async fn list_findings(app: &App, finding: Finding, query: OverrideQuery, now: Instant) -> HandlerResult {
    let not_with = |pointer, detail| Violation::new(pointer, "not_with_finding", detail);
    if query.search.is_some() {
        return Err(not_with("/search", "cannot be used with `finding`; use `flag_name` or `user_id`").into());
    }
    if query.sort.is_some() {
        return Err(not_with("/sort", "cannot be used with `finding`, which has an order of its own").into());
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
        Some(OverridePlace::Found(same, user_id, flag_name)) if same == finding => Some((user_id, flag_name)),
        Some(_) => return Err(foreign_cursor()),
    };
    let is_first = after.is_none();
    let findings =
        findings::find(&app.evaluation, &filter, after, query.limit.0 as usize, ScanBudget::default()).await?;
    let ids: Vec<_> = findings.found.iter().map(|found| found.id).collect();
    let listed = app.overrides.find_listed(&ids).await?;
    let is_whole = is_first && findings.next.is_none();
    let cursor =
        findings.next.map(|(user_id, flag_name)| Cursor(OverridePlace::Found(finding, user_id, flag_name)).encode());
    let items = listed.into_iter().map(|listed| UserOverride::show(listed, now)).collect();
    reply::json(&List::found(items, is_whole, cursor))
}
