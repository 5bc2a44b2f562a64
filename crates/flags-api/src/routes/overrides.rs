//! User overrides, for admins and viewers.

use actix_web::{
    HttpRequest,
    web::{self, Data},
};
use flags_domain::{Instant, Violation};
use flags_service::overrides::{OverrideInput, OverridePatch, Placed};
use flags_store::{
    Committed,
    log::Revision,
    overrides::{ListedOverride, OverrideFilter, OverrideOrder},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::{
    Routes,
    answer::{self, Answer},
    location_below,
};
use crate::{
    app::App,
    auth::{ManageOverrides, ReadOverrides, Require},
    extract::{Body, Cursor, IfMatch, Json, Limit, PathFlag, Query, UserId, present, short_text},
    problem::{Problem, ProblemResponse},
    wire::{List, OverrideStatus, yes},
};

pub(super) fn routes(routes: &mut Routes) {
    routes.add::<__path_list_of_user>(web::to(list_of_user));
    routes.add::<__path_create>(web::to(create));
    routes.add::<__path_get>(web::to(get));
    routes.add::<__path_put>(web::to(put));
    routes.add::<__path_patch>(web::to(patch));
    routes.add::<__path_delete>(web::to(delete));
    routes.add::<__path_list_of_flag>(web::to(list_of_flag));
    routes.add::<__path_list>(web::to(list));
}

/// What one user gets of one flag, whatever the other layers say.
#[derive(Serialize, ToSchema)]
pub(crate) struct UserOverride {
    id: Uuid,
    user_id: Uuid,
    user_email: String,
    flag_name: String,
    /// Of the flag's type.
    override_value: Value,
    /// Switched off it has no effect.
    enabled: bool,
    #[schema(required)]
    reason: Option<String>,
    /// Who made it: `user:<id>`, `token:<id>` or `system:<name>`.
    created_by: String,
    #[schema(value_type = String, format = DateTime)]
    created_at: Instant,
    #[schema(value_type = String, format = DateTime)]
    updated_at: Instant,
    /// It is gone at exactly this instant.
    #[schema(required, value_type = Option<String>, format = DateTime)]
    expires_at: Option<Instant>,
    status: OverrideStatus,
    /// The revision of its last change.
    revision: i64,
}

impl UserOverride {
    fn show(listed: ListedOverride, now: Instant) -> Self {
        let ListedOverride { record, user_email } = listed;
        let o = record.user_override;
        Self {
            id: o.id,
            user_id: o.user_id,
            user_email,
            status: o.status(now).into(),
            enabled: o.is_enabled(),
            flag_name: o.flag_name.into(),
            override_value: o.override_value,
            reason: o.reason,
            created_by: o.created_by,
            created_at: o.created_at,
            updated_at: o.updated_at,
            expires_at: o.expires_at,
            revision: record.revision,
        }
    }
}

/// A new override.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CreateOverride {
    flag_name: String,
    /// Of the flag's type; at most 64 KiB and 32 levels deep.
    override_value: Value,
    #[serde(default = "yes")]
    enabled: bool,
    #[schema(max_length = 500)]
    reason: Option<String>,
    /// In the future.
    #[schema(value_type = Option<String>, format = DateTime)]
    expires_at: Option<Instant>,
}

/// The whole of an override.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PutOverride {
    /// Of the flag's type; at most 64 KiB and 32 levels deep.
    override_value: Value,
    #[serde(default = "yes")]
    enabled: bool,
    #[schema(max_length = 500)]
    reason: Option<String>,
    /// In the future.
    #[schema(value_type = Option<String>, format = DateTime)]
    expires_at: Option<Instant>,
}

/// The fields of an override that are to change.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PatchOverride {
    /// Of the flag's type; `null` is the JSON value null.
    #[serde(default, deserialize_with = "present")]
    override_value: Option<Value>,
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false)]
    enabled: Option<bool>,
    /// `null` clears it.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<String>, max_length = 500)]
    reason: Option<Option<String>>,
    /// In the future; `null` takes it away.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<String>, format = DateTime)]
    expires_at: Option<Option<Instant>>,
}

impl Body for CreateOverride {}
impl Body for PutOverride {}
impl Body for PatchOverride {}

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

/// Create an override for a user
#[utoipa::path(
    post, path = "/api/admin/users/{user_id}/flag-overrides", tag = "overrides", operation_id = "create_user_override",
    params(("user_id" = Uuid, Path)), request_body = CreateOverride,
    responses((status = 201, body = UserOverride), (status = "default", response = ProblemResponse)),
)]
async fn create(
    author: Require<ManageOverrides>,
    app: Data<App>,
    user_id: UserId,
    Json(body): Json<CreateOverride>,
    request: HttpRequest,
) -> Answer {
    let input = OverrideInput {
        override_value: body.override_value,
        enabled: body.enabled,
        reason: body.reason,
        expires_at: body.expires_at,
    };
    let (now, location) = (app.evaluation.now(), location_below(request.path(), &body.flag_name));
    let reply = move |listed: &ListedOverride, committed: &Committed| {
        let shown = UserOverride::show(listed.clone(), now);
        answer::created(committed, listed.record.revision, location.clone(), &shown)
    };
    let carry_out = async |intent| app.overrides.create(intent, user_id.0, &body.flag_name, input).await;
    answer::once(&request, author.granted, reply, carry_out).await
}

/// One override
#[utoipa::path(
    get, path = "/api/admin/users/{user_id}/flag-overrides/{flag_name}", tag = "overrides",
    operation_id = "get_user_override", params(("user_id" = Uuid, Path), ("flag_name" = String, Path)),
    responses((status = 200, body = UserOverride), (status = "default", response = ProblemResponse)),
)]
async fn get(_: Require<ReadOverrides>, app: Data<App>, user_id: UserId, flag: PathFlag) -> Answer {
    let now = app.evaluation.now();
    let found = app.overrides.get(user_id.0, &flag.0).await?;
    let revision = Revision { number: found.record.revision, ..app.evaluation.replica().revision() };
    answer::resource(revision, &UserOverride::show(found, now))
}

/// Create or replace an override
#[utoipa::path(
    put, path = "/api/admin/users/{user_id}/flag-overrides/{flag_name}", tag = "overrides",
    operation_id = "put_user_override", params(("user_id" = Uuid, Path), ("flag_name" = String, Path)),
    request_body = PutOverride,
    responses(
        (status = 200, description = "Replaced", body = UserOverride), (status = 201, description = "Created", body = UserOverride),
        (status = "default", response = ProblemResponse),
    ),
)]
async fn put(
    author: Require<ManageOverrides>,
    app: Data<App>,
    (user_id, flag): (UserId, PathFlag),
    expected: IfMatch,
    Json(body): Json<PutOverride>,
    request: HttpRequest,
) -> Answer {
    let input = OverrideInput {
        override_value: body.override_value,
        enabled: body.enabled,
        reason: body.reason,
        expires_at: body.expires_at,
    };
    let done = app.overrides.set_override(author.granted, user_id.0, &flag.0, input, expected.0).await?;
    let now = app.evaluation.now();
    let (placed, listed) = done.output;
    let number = listed.record.revision;
    let body = UserOverride::show(listed, now);
    Ok(match placed {
        Placed::Created => answer::created(&done.committed, number, request.path().to_owned(), &body),
        Placed::Replaced => answer::changed(&done.committed, number, &body),
    }
    .into())
}

/// Change fields of an override
#[utoipa::path(
    patch, path = "/api/admin/users/{user_id}/flag-overrides/{flag_name}", tag = "overrides",
    operation_id = "patch_user_override", params(("user_id" = Uuid, Path), ("flag_name" = String, Path)),
    request_body = PatchOverride,
    responses((status = 200, body = UserOverride), (status = "default", response = ProblemResponse)),
)]
async fn patch(
    author: Require<ManageOverrides>,
    app: Data<App>,
    (user_id, flag): (UserId, PathFlag),
    expected: IfMatch,
    Json(body): Json<PatchOverride>,
) -> Answer {
    let patch = OverridePatch {
        override_value: body.override_value,
        enabled: body.enabled,
        reason: body.reason,
        expires_at: body.expires_at,
    };
    let done = app.overrides.patch(author.granted, user_id.0, &flag.0, patch, expected.0).await?;
    let now = app.evaluation.now();
    let number = done.output.record.revision;
    Ok(answer::changed(&done.committed, number, &UserOverride::show(done.output, now)).into())
}

/// Remove an override
#[utoipa::path(
    delete, path = "/api/admin/users/{user_id}/flag-overrides/{flag_name}", tag = "overrides",
    operation_id = "delete_user_override", params(("user_id" = Uuid, Path), ("flag_name" = String, Path)),
    responses((status = 204, description = "Removed"), (status = "default", response = ProblemResponse)),
)]
async fn delete(
    author: Require<ManageOverrides>,
    app: Data<App>,
    user_id: UserId,
    flag: PathFlag,
    expected: IfMatch,
) -> Answer {
    let done = app.overrides.delete(author.granted, user_id.0, &flag.0, expected.0).await?;
    answer::removed(&done.committed)
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

/// A cursor of the same list in another order.
pub(super) fn foreign_cursor() -> Problem {
    Violation::new("/cursor", "invalid_parameter", "is no cursor of this list in this order; start without one").into()
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
