//! Users, for admins, support and viewers.

use actix_web::{
    HttpRequest,
    web::{self, Data},
};
use flags_domain::{Instant, search_form};
use flags_service::users::{ErasurePolicy, NewUser, UserDetail, UserPatch};
use flags_store::{
    Committed,
    change_log::Revision,
    users::{self as store, UserFilter, UserOrder},
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::reply::{self, HandlerResult, child_location};
use crate::{
    auth::{ManageUsers, ReadUsers, Require},
    extract::{
        IfMatch, Json, PageCursor, PageLimit, Query, RequestBody, UserIdParam, deserialize_present,
        deserialize_search_text, invalid_cursor, reject_idempotency_key,
    },
    problem::{Problem, ProblemResponse},
    route_facts::RouteFacts,
    route_registry::RouteRegistry,
    state::App,
    wire::{PageResponse, default_true, wire_enum},
};

pub(super) fn routes(routes: &mut RouteRegistry) {
    routes.add::<__path_list>(web::to(list), RouteFacts::api());
    routes.add::<__path_create>(web::to(create), RouteFacts::change().idempotent());
    routes.add::<__path_get>(web::to(get), RouteFacts::resource());
    routes.add::<__path_patch>(web::to(patch), RouteFacts::update());
    routes.add::<__path_delete>(web::to(delete), RouteFacts::update());
    routes.add::<__path_set_password>(web::to(set_password), RouteFacts::update());
}

wire_enum! {
    /// Access level. `admin` reads and changes everything. `support` reads everything and changes overrides of users
    /// with role `user`. `viewer` reads everything. `user` reads its own flag values and overrides.
    WireRole as Role = store::Role { Admin, Support, Viewer, User }
}

/// A user for whom flags are evaluated.
#[derive(Serialize, ToSchema)]
pub(crate) struct UserResponse {
    id: Uuid,
    /// Name to show: the display name, else the e-mail address, else the external id, else the id.
    user_label: String,
    /// E-mail address, unique regardless of case. `null` if the user has none.
    #[schema(required)]
    email: Option<String>,
    /// Id of the user in another system. `null` if the user has none.
    #[schema(required)]
    external_id: Option<String>,
    /// Display name. `null` if none was set.
    #[schema(required)]
    display_name: Option<String>,
    /// Access level.
    role: WireRole,
    /// Custom attributes for targeting.
    attributes: Map<String, Value>,
    /// Whether the user is active. Credentials of an inactive user are rejected. The OpenFeature endpoints ignore the
    /// stored attributes and overrides of an inactive user.
    active: bool,
    /// Number of unexpired overrides, not counting those of archived flags.
    override_count: i64,
    #[schema(value_type = String, format = DateTime)]
    created_at: Instant,
    #[schema(value_type = String, format = DateTime)]
    updated_at: Instant,
    /// Revision number of the last change.
    revision: i64,
}

impl UserResponse {
    fn from_detail(detail: UserDetail) -> Self {
        let user = detail.record;
        Self {
            id: user.id,
            user_label: user.identity().label(user.id),
            email: user.email,
            external_id: user.external_id,
            display_name: user.display_name,
            role: user.role.into(),
            attributes: user.attributes,
            active: user.active,
            override_count: detail.override_count,
            created_at: user.created_at,
            updated_at: user.updated_at,
            revision: user.revision,
        }
    }
}

/// A user to create.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CreateUserRequest {
    /// E-mail address, unique regardless of case. Required for a user with a password and for a user without an
    /// external id.
    #[schema(max_length = 254)]
    email: Option<String>,
    /// Id of the user in another system: 1 to 255 characters without `@`, unique, compared byte by byte. The server
    /// derives the user's `id` from it; an external id that is a UUID in lower case with hyphens becomes the `id`.
    #[schema(max_length = 255)]
    external_id: Option<String>,
    /// Display name.
    #[schema(max_length = 255)]
    display_name: Option<String>,
    /// Access level. Default: `user`.
    #[serde(default = "default_role")]
    role: WireRole,
    /// Custom attributes for targeting: at most 1,000 members and 5,000 array elements at any depth, and 64 KiB as JSON
    /// text. The keys `user_id`, `external_id`, `email`, `role` and `created_at` are reserved. Default: none.
    #[serde(default)]
    attributes: Map<String, Value>,
    /// Whether the user is active. Default: `true`.
    #[serde(default = "default_true")]
    active: bool,
    /// Password for signing in. A user without a password cannot sign in. Not allowed together with the header
    /// `Idempotency-Key`.
    #[schema(min_length = 12, max_length = 256, format = Password)]
    password: Option<String>,
}

/// A new password for a user.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SetPasswordRequest {
    /// New password. It replaces the current one.
    #[schema(min_length = 12, max_length = 256, format = Password)]
    password: String,
}

const fn default_role() -> WireRole {
    WireRole::User
}

/// Fields to change. A field that is present replaces the whole stored value; omitted fields stay unchanged.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PatchUserRequest {
    /// E-mail address, unique regardless of case. `null` removes it, if the user has an external id and no password.
    #[serde(default, deserialize_with = "deserialize_present")]
    #[schema(value_type = Option<String>, max_length = 254)]
    email: Option<Option<String>>,
    /// Id of the user in another system. Can be set once, for a user that has none.
    #[serde(default, deserialize_with = "deserialize_present")]
    #[schema(value_type = Option<String>, max_length = 255)]
    external_id: Option<Option<String>>,
    /// Display name. `null` removes it.
    #[serde(default, deserialize_with = "deserialize_present")]
    #[schema(value_type = Option<String>, max_length = 255)]
    display_name: Option<Option<String>>,
    /// Access level.
    #[serde(default, deserialize_with = "deserialize_present")]
    #[schema(nullable = false)]
    role: Option<WireRole>,
    /// Custom attributes for targeting: at most 1,000 members and 5,000 array elements at any depth, and 64 KiB as JSON
    /// text. Stored attributes above a limit may stay, but not grow. Replaces all existing attributes.
    #[serde(default, deserialize_with = "deserialize_present")]
    #[schema(nullable = false)]
    attributes: Option<Map<String, Value>>,
    /// Whether the user is active.
    #[serde(default, deserialize_with = "deserialize_present")]
    #[schema(nullable = false)]
    active: Option<bool>,
}

impl RequestBody for CreateUserRequest {}
impl RequestBody for PatchUserRequest {}
impl RequestBody for SetPasswordRequest {}

/// Sort order of users.
#[derive(Clone, Copy, Default, Deserialize, ToSchema)]
pub(crate) enum UserSort {
    /// By e-mail address; users without an e-mail address by external id.
    #[default]
    #[serde(rename = "email")]
    Handle,
    /// By creation time, newest first.
    #[serde(rename = "-created_at")]
    Newest,
}

/// Filters and pagination.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListUsersQuery {
    /// Case-insensitive search in e-mail address, display name and external id. Three or more characters match
    /// anywhere. Fewer characters match only the start of the name and of the e-mail address, or of the external id of
    /// users without an e-mail address.
    #[serde(default, deserialize_with = "deserialize_search_text")]
    #[param(max_length = 255)]
    search: Option<String>,
    /// `true`: only users with an unexpired override. `false`: only users without one.
    has_overrides: Option<bool>,
    /// `true`: only users whose e-mail address an older user has in another spelling. They can sign in only with the
    /// exact spelling. `false`: only other users.
    email_conflict: Option<bool>,
    /// Sort order: `email` (default; users without e-mail address by external id), or `-created_at` for newest first.
    #[serde(default)]
    #[param(inline, value_type = Option<UserSort>)]
    sort: UserSort,
    /// Maximum number of items.
    #[serde(default)]
    #[param(value_type = Option<u32>, minimum = 1, maximum = 200, default = 50)]
    limit: PageLimit,
    /// `next_cursor` of the previous page.
    #[param(value_type = Option<String>)]
    cursor: Option<PageCursor<UserPageCursor>>,
}

/// Position in a list of users, for each sort order.
#[derive(Clone, Deserialize, Serialize)]
pub(crate) enum UserPageCursor {
    Handle(String, Uuid),
    Created(Instant, Uuid),
}

impl UserSort {
    fn order(self, after: Option<UserPageCursor>) -> Result<UserOrder, Problem> {
        match (self, after) {
            (Self::Handle, None) => Ok(UserOrder::Handle(None)),
            (Self::Handle, Some(UserPageCursor::Handle(handle, id))) => Ok(UserOrder::Handle(Some((handle, id)))),
            (Self::Newest, None) => Ok(UserOrder::Newest(None)),
            (Self::Newest, Some(UserPageCursor::Created(at, id))) => Ok(UserOrder::Newest(Some((at, id)))),
            _ => Err(invalid_cursor()),
        }
    }

    fn cursor_after(self, last: &UserDetail) -> UserPageCursor {
        let user = &last.record;
        match self {
            Self::Handle => UserPageCursor::Handle(user.handle().to_owned(), user.id),
            Self::Newest => UserPageCursor::Created(user.created_at, user.id),
        }
    }
}

/// List users
#[utoipa::path(
    get, path = "/api/admin/users", tag = "users", operation_id = "list_users", params(ListUsersQuery),
    responses((status = 200, body = PageResponse<UserResponse>), (status = "default", response = ProblemResponse)),
)]
async fn list(_: Require<ReadUsers>, app: Data<App>, Query(query): Query<ListUsersQuery>) -> HandlerResult {
    let now = app.evaluation.now();
    let filter = UserFilter {
        search: query.search.map(|text| search_form(&text)),
        has_overrides: query.has_overrides.map(|has_overrides| (has_overrides, now)),
        email_conflict: query.email_conflict,
    };
    let order = query.sort.order(query.cursor.map(|cursor| cursor.0))?;
    let page = app.users.list(&filter, order, query.limit.0).await?;
    let page =
        PageResponse::new(page, |last| PageCursor(query.sort.cursor_after(last)).encode(), UserResponse::from_detail);
    reply::json(&page)
}

/// Create a user
#[utoipa::path(
    post, path = "/api/admin/users", tag = "users", operation_id = "create_user", request_body = CreateUserRequest,
    responses((status = 201, body = UserResponse), (status = "default", response = ProblemResponse)),
)]
async fn create(
    author: Require<ManageUsers>,
    app: Data<App>,
    Json(body): Json<CreateUserRequest>,
    request: HttpRequest,
) -> HandlerResult {
    let input = NewUser {
        email: body.email,
        external_id: body.external_id,
        display_name: body.display_name,
        role: body.role.into(),
        attributes: body.attributes,
        active: body.active,
        password: body.password.map(Into::into),
    };
    if input.password.is_some() {
        reject_idempotency_key(&request)?;
    }
    let collection_path = request.path().to_owned();
    let reply = move |detail: &UserDetail, committed: &Committed| {
        let location = child_location(&collection_path, &detail.record.id.to_string());
        reply::created(committed, detail.record.revision, location, &UserResponse::from_detail(detail.clone()))
    };
    reply::execute_idempotently(&request, author.granted, reply, async |command| app.users.create(command, input).await)
        .await
}

/// Get a user
#[utoipa::path(
    get, path = "/api/admin/users/{user_id}", tag = "users", operation_id = "get_user",
    params(
        ("user_id" = Uuid, Path, description = "Id of the user"),
    ),
    responses((status = 200, body = UserResponse), (status = "default", response = ProblemResponse)),
)]
async fn get(_: Require<ReadUsers>, app: Data<App>, user_id: UserIdParam) -> HandlerResult {
    let detail = app.users.get(user_id.0).await?;
    let revision = Revision { number: detail.record.revision, ..app.evaluation.replica().revision() };
    reply::resource(revision, &UserResponse::from_detail(detail))
}

/// Update a user
#[utoipa::path(
    patch, path = "/api/admin/users/{user_id}", tag = "users", operation_id = "patch_user",
    params(("user_id" = Uuid, Path, description = "Id of the user")), request_body = PatchUserRequest,
    responses((status = 200, body = UserResponse), (status = "default", response = ProblemResponse)),
)]
async fn patch(
    author: Require<ManageUsers>,
    app: Data<App>,
    user_id: UserIdParam,
    if_match: IfMatch,
    Json(body): Json<PatchUserRequest>,
) -> HandlerResult {
    let patch = UserPatch {
        email: body.email,
        external_id: body.external_id,
        display_name: body.display_name,
        role: body.role.map(Into::into),
        attributes: body.attributes,
        active: body.active,
    };
    let outcome = app.users.patch(author.granted, user_id.0, patch, if_match.0).await?;
    Ok(reply::changed(&outcome.committed, outcome.output.record.revision, &UserResponse::from_detail(outcome.output))
        .into())
}

/// Set a user's password
///
/// Ends all sessions of the user.
#[utoipa::path(
    put, path = "/api/admin/users/{user_id}/password", tag = "users", operation_id = "set_user_password",
    params(("user_id" = Uuid, Path, description = "Id of the user")), request_body = SetPasswordRequest,
    responses((status = 204, description = "Password set"), (status = "default", response = ProblemResponse)),
)]
async fn set_password(
    author: Require<ManageUsers>,
    app: Data<App>,
    user_id: UserIdParam,
    if_match: IfMatch,
    Json(body): Json<SetPasswordRequest>,
) -> HandlerResult {
    let outcome = app.sessions.set_password(author.granted, user_id.0, body.password.into(), if_match.0).await?;
    reply::no_content(&outcome.committed)
}

/// Options for deleting a user.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct DeleteUserQuery {
    /// Whether to also erase the user's e-mail address or external id and the names of the user's tokens from the audit
    /// log. Also works for a user that was deleted earlier.
    #[serde(default)]
    #[param(value_type = Option<bool>, default = false)]
    erase: bool,
}

/// Delete a user
///
/// Also deletes the user's overrides and API tokens.
#[utoipa::path(
    delete, path = "/api/admin/users/{user_id}", tag = "users", operation_id = "delete_user",
    params(("user_id" = Uuid, Path, description = "Id of the user"), DeleteUserQuery),
    responses((status = 204, description = "User deleted"), (status = "default", response = ProblemResponse)),
)]
async fn delete(
    author: Require<ManageUsers>,
    app: Data<App>,
    user_id: UserIdParam,
    if_match: IfMatch,
    Query(query): Query<DeleteUserQuery>,
) -> HandlerResult {
    let erasure_policy = if query.erase { ErasurePolicy::EraseLabels } else { ErasurePolicy::KeepLabels };
    reply::no_content(&app.users.delete(author.granted, user_id.0, if_match.0, erasure_policy).await?)
}
