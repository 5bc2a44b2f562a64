//! Users, for admins and viewers.

use actix_web::{
    HttpRequest,
    web::{self, Data},
};
use flags_domain::Instant;
use flags_service::users::{ErasurePolicy, UserDetail, UserInput, UserPatch};
use flags_store::{
    Committed,
    change_log::Revision,
    users::{self as store, UserFilter, UserOrder},
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::{
    Routes, location_below,
    reply::{self, HandlerResult},
};
use crate::{
    app::App,
    auth::{ManageUsers, ReadUsers, Require},
    extract::{
        Body, Cursor, IfMatch, Json, Limit, Query, UserId, foreign_cursor, present, refuse_idempotency_key, short_text,
    },
    problem::{Problem, ProblemResponse},
    wire::{List, mirror, yes},
};

pub(super) fn routes(routes: &mut Routes) {
    routes.add::<__path_list>(web::to(list));
    routes.add::<__path_create>(web::to(create));
    routes.add::<__path_get>(web::to(get));
    routes.add::<__path_patch>(web::to(patch));
    routes.add::<__path_delete>(web::to(delete));
    routes.add::<__path_set_password>(web::to(set_password));
}

mirror! {
    /// What somebody may do: `admin` reads and changes, `viewer` reads, `user` sees only what concerns themselves.
    Role = store::Role { Admin, Viewer, User }
}

/// Somebody whom flags are evaluated for.
#[derive(Serialize, ToSchema)]
pub(crate) struct User {
    id: Uuid,
    email: String,
    #[schema(required)]
    display_name: Option<String>,
    role: Role,
    /// Their own attributes, for targeting.
    attributes: Map<String, Value>,
    /// An inactive user is nobody to the service.
    active: bool,
    /// Their unexpired overrides of flags that are not archived.
    override_count: i64,
    #[schema(value_type = String, format = DateTime)]
    created_at: Instant,
    #[schema(value_type = String, format = DateTime)]
    updated_at: Instant,
    /// The revision of their last change.
    revision: i64,
}

impl User {
    fn show(detail: UserDetail) -> Self {
        let user = detail.record;
        Self {
            id: user.id,
            email: user.email,
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

/// A new user.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CreateUser {
    /// Unique without regard to case.
    #[schema(max_length = 254)]
    email: String,
    #[schema(max_length = 255)]
    display_name: Option<String>,
    #[serde(default = "plain_user")]
    role: Role,
    /// An object; cannot hold `user_id`, `email`, `role` and `created_at`.
    #[serde(default)]
    attributes: Map<String, Value>,
    #[serde(default = "yes")]
    active: bool,
    /// To sign in with; who has none cannot. A request with a password takes no `Idempotency-Key`.
    #[schema(min_length = 12, max_length = 256, format = Password)]
    password: Option<String>,
}

/// A user's new password.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SetPassword {
    #[schema(min_length = 12, max_length = 256, format = Password)]
    password: String,
}

const fn plain_user() -> Role {
    Role::User
}

/// The fields of a user that are to change. Each named field is replaced whole.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PatchUser {
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false, max_length = 254)]
    email: Option<String>,
    /// `null` clears it.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<String>, max_length = 255)]
    display_name: Option<Option<String>>,
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false)]
    role: Option<Role>,
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false)]
    attributes: Option<Map<String, Value>>,
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false)]
    active: Option<bool>,
}

impl Body for CreateUser {}
impl Body for PatchUser {}
impl Body for SetPassword {}

/// In what order users are listed.
#[derive(Clone, Copy, Default, Deserialize, ToSchema)]
pub(crate) enum UserSort {
    /// By e-mail.
    #[default]
    #[serde(rename = "email")]
    Email,
    /// Newest first.
    #[serde(rename = "-created_at")]
    Newest,
}

/// Which users, and which part of the list.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct UserQuery {
    /// Any part of e-mail or name, case ignored; with fewer than three characters their beginnings.
    #[serde(default, deserialize_with = "short_text")]
    #[param(max_length = 255)]
    search: Option<String>,
    /// Only those with an unexpired override, or only those without.
    has_overrides: Option<bool>,
    #[serde(default)]
    #[param(inline, value_type = Option<UserSort>)]
    sort: UserSort,
    /// Most items, 1 to 200.
    #[serde(default)]
    #[param(value_type = Option<u32>, minimum = 1, maximum = 200, default = 50)]
    limit: Limit,
    /// `next_cursor` of the part before.
    #[param(value_type = Option<String>)]
    cursor: Option<Cursor<UserPlace>>,
}

/// The place of a user in either order.
#[derive(Clone, Deserialize, Serialize)]
pub(crate) enum UserPlace {
    Email(String, Uuid),
    Created(Instant, Uuid),
}

impl UserSort {
    fn order(self, after: Option<UserPlace>) -> Result<UserOrder, Problem> {
        match (self, after) {
            (Self::Email, None) => Ok(UserOrder::Email(None)),
            (Self::Email, Some(UserPlace::Email(email, id))) => Ok(UserOrder::Email(Some((email, id)))),
            (Self::Newest, None) => Ok(UserOrder::Newest(None)),
            (Self::Newest, Some(UserPlace::Created(at, id))) => Ok(UserOrder::Newest(Some((at, id)))),
            _ => Err(foreign_cursor()),
        }
    }

    fn place(self, last: &UserDetail) -> UserPlace {
        let user = &last.record;
        match self {
            Self::Email => UserPlace::Email(user.email.clone(), user.id),
            Self::Newest => UserPlace::Created(user.created_at, user.id),
        }
    }
}

/// All users
#[utoipa::path(
    get, path = "/api/admin/users", tag = "users", operation_id = "list_users", params(UserQuery),
    responses((status = 200, body = List<User>), (status = "default", response = ProblemResponse)),
)]
async fn list(_: Require<ReadUsers>, app: Data<App>, Query(query): Query<UserQuery>) -> HandlerResult {
    let now = app.evaluation.now();
    let filter = UserFilter {
        search: query.search.map(|text| text.to_lowercase()),
        has_overrides: query.has_overrides.map(|wanted| (wanted, now)),
    };
    let order = query.sort.order(query.cursor.map(|cursor| cursor.0))?;
    let page = app.users.list(&filter, order, query.limit.0).await?;
    let cursor = |last: &UserDetail| Cursor(query.sort.place(last)).encode();
    reply::json(&List::new(page, cursor, User::show))
}

/// Make a user known
#[utoipa::path(
    post, path = "/api/admin/users", tag = "users", operation_id = "create_user", request_body = CreateUser,
    responses((status = 201, body = User), (status = "default", response = ProblemResponse)),
)]
async fn create(
    author: Require<ManageUsers>,
    app: Data<App>,
    Json(body): Json<CreateUser>,
    request: HttpRequest,
) -> HandlerResult {
    let input = UserInput {
        email: body.email,
        display_name: body.display_name,
        role: body.role.into(),
        attributes: body.attributes,
        active: body.active,
        password: body.password.map(Into::into),
    };
    if input.password.is_some() {
        refuse_idempotency_key(&request)?;
    }
    let here = request.path().to_owned();
    let reply = move |detail: &UserDetail, committed: &Committed| {
        let location = location_below(&here, &detail.record.id.to_string());
        reply::created(committed, detail.record.revision, location, &User::show(detail.clone()))
    };
    reply::execute_idempotently(&request, author.granted, reply, async |intent| app.users.create(intent, input).await)
        .await
}

/// One user
#[utoipa::path(
    get, path = "/api/admin/users/{user_id}", tag = "users", operation_id = "get_user", params(("user_id" = Uuid, Path)),
    responses((status = 200, body = User), (status = "default", response = ProblemResponse)),
)]
async fn get(_: Require<ReadUsers>, app: Data<App>, user_id: UserId) -> HandlerResult {
    let detail = app.users.get(user_id.0).await?;
    let revision = Revision { number: detail.record.revision, ..app.evaluation.replica().revision() };
    reply::resource(revision, &User::show(detail))
}

/// Change fields of a user
#[utoipa::path(
    patch, path = "/api/admin/users/{user_id}", tag = "users", operation_id = "patch_user",
    params(("user_id" = Uuid, Path)), request_body = PatchUser,
    responses((status = 200, body = User), (status = "default", response = ProblemResponse)),
)]
async fn patch(
    author: Require<ManageUsers>,
    app: Data<App>,
    user_id: UserId,
    expected: IfMatch,
    Json(body): Json<PatchUser>,
) -> HandlerResult {
    let patch = UserPatch {
        email: body.email,
        display_name: body.display_name,
        role: body.role.map(Into::into),
        attributes: body.attributes,
        active: body.active,
    };
    let done = app.users.patch(author.granted, user_id.0, patch, expected.0).await?;
    Ok(reply::changed(&done.committed, done.output.record.revision, &User::show(done.output)).into())
}

/// Set a user's password
///
/// All their sessions end.
#[utoipa::path(
    put, path = "/api/admin/users/{user_id}/password", tag = "users", operation_id = "set_user_password",
    params(("user_id" = Uuid, Path)), request_body = SetPassword,
    responses((status = 204, description = "Set"), (status = "default", response = ProblemResponse)),
)]
async fn set_password(
    author: Require<ManageUsers>,
    app: Data<App>,
    user_id: UserId,
    expected: IfMatch,
    Json(body): Json<SetPassword>,
) -> HandlerResult {
    let done = app.sessions.set_password(author.granted, user_id.0, body.password.into(), expected.0).await?;
    reply::removed(&done.committed)
}

/// How a user is deleted.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct DeleteQuery {
    /// Also remove what makes the user readable in the audit log: their e-mail, and the names of their tokens. Works for
    /// users who were deleted before as well.
    #[serde(default)]
    #[param(value_type = Option<bool>, default = false)]
    erase: bool,
}

/// Delete a user with their overrides and tokens
#[utoipa::path(
    delete, path = "/api/admin/users/{user_id}", tag = "users", operation_id = "delete_user",
    params(("user_id" = Uuid, Path), DeleteQuery),
    responses((status = 204, description = "Deleted"), (status = "default", response = ProblemResponse)),
)]
async fn delete(
    author: Require<ManageUsers>,
    app: Data<App>,
    user_id: UserId,
    expected: IfMatch,
    Query(query): Query<DeleteQuery>,
) -> HandlerResult {
    let labels = if query.erase { ErasurePolicy::Erased } else { ErasurePolicy::Kept };
    reply::removed(&app.users.delete(author.granted, user_id.0, expected.0, labels).await?)
}
