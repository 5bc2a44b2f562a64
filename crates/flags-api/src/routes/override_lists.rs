//! Lists of user overrides: of a user, of a flag, of all.

use actix_web::web::{self, Data};
use flags_domain::Instant;
use flags_store::overrides::{ListedOverride, OverrideFilter, OverrideOrder};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::{
    Routes,
    answer::{self, Answer},
    overrides::UserOverride,
};
use crate::{
    app::App,
    auth::{ReadOverrides, Require},
    extract::{Cursor, Limit, PathFlag, Query, UserId, foreign_cursor, short_text},
    problem::{Problem, ProblemResponse},
    wire::{List, OverrideStatus},
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
) -> Answer {
    let now = app.evaluation.now();
    let page = app.overrides.list_of_user(user_id.0, page.cursor.map(|cursor| cursor.0), page.limit.0).await?;
    let cursor = |last: &ListedOverride| Cursor(&last.record.user_override.flag_name).encode();
    answer::list(&List::new(page, cursor, |listed| UserOverride::show(listed, now)))
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
) -> Answer {
    let now = app.evaluation.now();
    let page = app.overrides.list_of_flag(&flag.0, page.cursor.map(|cursor| cursor.0), page.limit.0).await?;
    let cursor = |last: &ListedOverride| Cursor((&last.user_email, last.record.user_override.id)).encode();
    answer::list(&List::new(page, cursor, |listed| UserOverride::show(listed, now)))
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
    #[serde(default)]
    #[param(inline, value_type = Option<OverrideSort>)]
    sort: OverrideSort,
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
async fn list(_: Require<ReadOverrides>, app: Data<App>, Query(query): Query<OverrideQuery>) -> Answer {
    let now = app.evaluation.now();
    let OverrideQuery { search, flag_name, user_id, status, expires_before, .. } = query;
    let filter = read_filter(search, flag_name, user_id, status.map(|status| (status, now)), expires_before);
    let order = query.sort.order(query.cursor.map(|cursor| cursor.0))?;
    let page = app.overrides.list(&filter, order, query.limit.0).await?;
    let cursor = |last: &ListedOverride| Cursor(query.sort.place(last)).encode();
    answer::list(&List::new(page, cursor, |listed| UserOverride::show(listed, now)))
}
