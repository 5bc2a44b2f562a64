//! Overrides of one user, for admins, support and viewers.

use actix_web::{
    HttpRequest,
    web::{self, Data},
};
use flags_domain::Instant;
use flags_service::{
    CommandRequest, Precondition,
    overrides::{NewOverride, OverridePatch, UpsertOutcome},
};
use flags_store::{Committed, change_log::Revision, overrides::OverrideListItem};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::reply::{self, HandlerResult, child_location};
use crate::{
    auth::{ManageOverrides, ReadOverrides, Require},
    extract::{FlagNameParam, IfMatch, Json, Query, RequestBody, UserIdParam, UserReferenceParam, deserialize_present},
    problem::{Problem, ProblemResponse},
    route_facts::{Preconditions, RouteFacts},
    route_registry::RouteRegistry,
    state::App,
    wire::{WireOverrideStatus, default_true},
};

pub(super) fn routes(routes: &mut RouteRegistry) {
    routes.add::<__path_create>(web::to(create), RouteFacts::change().idempotent());
    routes.add::<__path_get>(web::to(get), RouteFacts::resource());
    routes.add::<__path_put>(web::to(put), RouteFacts::change().with_preconditions(Preconditions::IfMatchOrNoneMatch));
    routes.add::<__path_patch>(web::to(patch), RouteFacts::update());
    routes.add::<__path_delete>(web::to(delete), RouteFacts::update());
}

/// A value of one flag for one user. It takes precedence over the flag's enabled state, targeting rules, scheduled
/// changes and default.
#[derive(Serialize, ToSchema)]
pub(crate) struct UserOverrideResponse {
    /// Unique id. An override that is created after the previous one has expired gets a new id.
    id: Uuid,
    /// User that the override applies to.
    user_id: Uuid,
    /// Name of the user to show: the display name, else the e-mail address, else the external id, else the id.
    user_label: String,
    /// E-mail address of the user. `null` if the user has none.
    #[schema(required)]
    user_email: Option<String>,
    /// Flag that the override applies to.
    flag_name: String,
    /// Value for the user, of the flag's type.
    override_value: Value,
    /// Whether the override applies. A disabled override has no effect.
    enabled: bool,
    /// Why the override exists. `null` if no reason was entered.
    #[schema(required)]
    reason: Option<String>,
    /// Creator, as `user:<id>`, `token:<id>` or `system:<name>`.
    created_by: String,
    #[schema(value_type = String, format = DateTime)]
    created_at: Instant,
    #[schema(value_type = String, format = DateTime)]
    updated_at: Instant,
    /// When the override stops applying. `null` if it does not expire.
    #[schema(required, value_type = Option<String>, format = DateTime)]
    expires_at: Option<Instant>,
    /// Status at the time of the response.
    status: WireOverrideStatus,
    /// Revision number of the last change.
    revision: i64,
}

impl UserOverrideResponse {
    pub(super) fn from_list_item(item: OverrideListItem, now: Instant) -> Self {
        let OverrideListItem { record, user } = item;
        let o = record.user_override;
        Self {
            id: o.id,
            user_id: o.user_id,
            user_label: user.label(o.user_id),
            user_email: user.email,
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

/// An override to create.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CreateOverrideRequest {
    /// Flag to override.
    flag_name: String,
    /// Value for the user, of the flag's type. At most 64 KiB as JSON text and 32 levels of nesting.
    override_value: Value,
    /// Whether the override applies. Default: `true`.
    #[serde(default = "default_true")]
    enabled: bool,
    /// Why the override exists.
    #[schema(max_length = 500)]
    reason: Option<String>,
    /// When the override stops applying. Must be in the future. Omit it for an override that does not expire.
    #[schema(value_type = Option<String>, format = DateTime)]
    expires_at: Option<Instant>,
}

/// The complete new state of an override. Omitted fields get their defaults.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PutOverrideRequest {
    /// Value for the user, of the flag's type. At most 64 KiB as JSON text and 32 levels of nesting.
    override_value: Value,
    /// Whether the override applies. Default: `true`.
    #[serde(default = "default_true")]
    enabled: bool,
    /// Why the override exists.
    #[schema(max_length = 500)]
    reason: Option<String>,
    /// When the override stops applying. Must be in the future. Omit it for an override that does not expire.
    #[schema(value_type = Option<String>, format = DateTime)]
    expires_at: Option<Instant>,
}

/// Fields to change. Omitted fields stay unchanged.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PatchOverrideRequest {
    /// Value for the user, of the flag's type. `null` sets the JSON value null; it does not remove the override.
    #[serde(default, deserialize_with = "deserialize_present")]
    override_value: Option<Value>,
    /// Whether the override applies.
    #[serde(default, deserialize_with = "deserialize_present")]
    #[schema(nullable = false)]
    enabled: Option<bool>,
    /// Why the override exists. `null` removes it.
    #[serde(default, deserialize_with = "deserialize_present")]
    #[schema(value_type = Option<String>, max_length = 500)]
    reason: Option<Option<String>>,
    /// When the override stops applying. Must be in the future. `null` removes the expiry.
    #[serde(default, deserialize_with = "deserialize_present")]
    #[schema(value_type = Option<String>, format = DateTime)]
    expires_at: Option<Option<Instant>>,
}

impl RequestBody for CreateOverrideRequest {}
impl RequestBody for PutOverrideRequest {}
impl RequestBody for PatchOverrideRequest {}

/// Options for creating an override.
#[derive(Clone, Copy, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct CreateOverrideQuery {
    /// Whether to create the user if the path names the user by external id and there is none. The new user is active
    /// and has role `user`. The server creates the user in a separate revision.
    #[serde(default)]
    #[param(value_type = Option<bool>, default = false)]
    create_users: bool,
}

impl CreateOverrideQuery {
    /// Returns the external id of the user to create if there is none. `None` if no user may be created.
    fn new_user(self, user: &UserReferenceParam) -> Option<&str> {
        user.external_id.as_deref().filter(|_| self.create_users)
    }

    /// Adds advice to the error for an unknown user: send `create_users`.
    fn explain(self, problem: Problem, user: &UserReferenceParam) -> Problem {
        if problem.code() != "user_not_found" || self.create_users || user.external_id.is_none() {
            return problem;
        }
        problem.with_detail("no such user; add `?create_users=true` to the URL to create a user with this external id")
    }
}

/// Create a user override
///
/// Fails with 409 if the user already has an unexpired override of the flag.
#[utoipa::path(
    post, path = "/api/admin/users/{user_id}/flag-overrides", tag = "overrides", operation_id = "create_user_override",
    params(("user_id" = Uuid, Path, description = "Id of the user"), CreateOverrideQuery),
    request_body = CreateOverrideRequest,
    responses((status = 201, body = UserOverrideResponse), (status = "default", response = ProblemResponse)),
)]
async fn create(
    author: Require<ManageOverrides>,
    app: Data<App>,
    (user, Query(query)): (UserReferenceParam, Query<CreateOverrideQuery>),
    Json(body): Json<CreateOverrideRequest>,
    request: HttpRequest,
) -> HandlerResult {
    let input = NewOverride {
        override_value: body.override_value,
        enabled: body.enabled,
        reason: body.reason,
        expires_at: body.expires_at,
    };
    let (now, location) = (app.evaluation.now(), child_location(request.path(), &body.flag_name));
    let reply = move |item: &OverrideListItem, committed: &Committed| {
        let body = UserOverrideResponse::from_list_item(item.clone(), now);
        reply::created(committed, item.record.revision, location.clone(), &body)
    };
    let (flag_name, precondition) = (&body.flag_name, Precondition::None);
    let execute = async |command| {
        let user_id = match query.new_user(&user) {
            None => user.id,
            Some(external_id) => {
                app.overrides.find_or_create_user(&command, external_id, flag_name, &input, &precondition).await?
            }
        };
        app.overrides.create(command, user_id, flag_name, input).await
    };
    let result = reply::execute_idempotently(&request, author.granted, reply, execute).await;
    result.map_err(|problem| query.explain(problem, &user))
}

/// Get a user override
#[utoipa::path(
    get, path = "/api/admin/users/{user_id}/flag-overrides/{flag_name}", tag = "overrides",
    operation_id = "get_user_override",
    params(
        ("user_id" = Uuid, Path, description = "Id of the user"),
        ("flag_name" = String, Path, description = "Name of the flag"),
    ),
    responses((status = 200, body = UserOverrideResponse), (status = "default", response = ProblemResponse)),
)]
async fn get(_: Require<ReadOverrides>, app: Data<App>, user_id: UserIdParam, flag: FlagNameParam) -> HandlerResult {
    let now = app.evaluation.now();
    let item = app.overrides.get(user_id.0, &flag.0).await?;
    let revision = Revision { number: item.record.revision, ..app.evaluation.replica().revision() };
    reply::resource(revision, &UserOverrideResponse::from_list_item(item, now))
}

/// Create or replace a user override
#[utoipa::path(
    put, path = "/api/admin/users/{user_id}/flag-overrides/{flag_name}", tag = "overrides",
    operation_id = "put_user_override",
    params(
        ("user_id" = Uuid, Path, description = "Id of the user"),
        ("flag_name" = String, Path, description = "Name of the flag"),
        CreateOverrideQuery,
    ),
    request_body = PutOverrideRequest,
    responses(
        (status = 200, description = "Override replaced", body = UserOverrideResponse),
        (status = 201, description = "Override created", body = UserOverrideResponse),
        (status = "default", response = ProblemResponse),
    ),
)]
async fn put(
    author: Require<ManageOverrides>,
    app: Data<App>,
    (user, flag, Query(query)): (UserReferenceParam, FlagNameParam, Query<CreateOverrideQuery>),
    if_match: IfMatch,
    Json(body): Json<PutOverrideRequest>,
    request: HttpRequest,
) -> HandlerResult {
    let input = NewOverride {
        override_value: body.override_value,
        enabled: body.enabled,
        reason: body.reason,
        expires_at: body.expires_at,
    };
    let user_id = match query.new_user(&user) {
        None => user.id,
        Some(external_id) => {
            let command = CommandRequest::<()>::from(author.granted.clone());
            app.overrides.find_or_create_user(&command, external_id, &flag.0, &input, &if_match.0).await?
        }
    };
    let outcome = app.overrides.set_override(author.granted, user_id, &flag.0, input, if_match.0).await;
    let outcome = outcome.map_err(|error| query.explain(error.into(), &user))?;
    let now = app.evaluation.now();
    let (upsert_outcome, item) = outcome.output;
    let number = item.record.revision;
    let body = UserOverrideResponse::from_list_item(item, now);
    Ok(match upsert_outcome {
        UpsertOutcome::Created => reply::created(&outcome.committed, number, request.path().to_owned(), &body),
        UpsertOutcome::Replaced => reply::changed(&outcome.committed, number, &body),
    }
    .into())
}

/// Update a user override
#[utoipa::path(
    patch, path = "/api/admin/users/{user_id}/flag-overrides/{flag_name}", tag = "overrides",
    operation_id = "patch_user_override",
    params(
        ("user_id" = Uuid, Path, description = "Id of the user"),
        ("flag_name" = String, Path, description = "Name of the flag"),
    ),
    request_body = PatchOverrideRequest,
    responses((status = 200, body = UserOverrideResponse), (status = "default", response = ProblemResponse)),
)]
async fn patch(
    author: Require<ManageOverrides>,
    app: Data<App>,
    (user_id, flag): (UserIdParam, FlagNameParam),
    if_match: IfMatch,
    Json(body): Json<PatchOverrideRequest>,
) -> HandlerResult {
    let patch = OverridePatch {
        override_value: body.override_value,
        enabled: body.enabled,
        reason: body.reason,
        expires_at: body.expires_at,
    };
    let outcome = app.overrides.patch(author.granted, user_id.0, &flag.0, patch, if_match.0).await?;
    let now = app.evaluation.now();
    let number = outcome.output.record.revision;
    Ok(reply::changed(&outcome.committed, number, &UserOverrideResponse::from_list_item(outcome.output, now)).into())
}

/// Delete a user override
#[utoipa::path(
    delete, path = "/api/admin/users/{user_id}/flag-overrides/{flag_name}", tag = "overrides",
    operation_id = "delete_user_override",
    params(
        ("user_id" = Uuid, Path, description = "Id of the user"),
        ("flag_name" = String, Path, description = "Name of the flag"),
    ),
    responses((status = 204, description = "Override deleted"), (status = "default", response = ProblemResponse)),
)]
async fn delete(
    author: Require<ManageOverrides>,
    app: Data<App>,
    user_id: UserIdParam,
    flag: FlagNameParam,
    if_match: IfMatch,
) -> HandlerResult {
    let outcome = app.overrides.delete(author.granted, user_id.0, &flag.0, if_match.0).await?;
    reply::no_content(&outcome.committed)
}
