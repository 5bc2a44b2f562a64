//! User overrides, for admins and viewers.

use actix_web::{
    HttpRequest,
    web::{self, Data},
};
use flags_domain::Instant;
use flags_service::overrides::{OverrideInput, OverridePatch, UpsertOutcome};
use flags_store::{Committed, change_log::Revision, overrides::ListedOverride};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{
    Routes, location_below,
    reply::{self, HandlerResult},
};
use crate::{
    app::App,
    auth::{ManageOverrides, ReadOverrides, Require},
    extract::{Body, IfMatch, Json, PathFlag, UserId, present},
    problem::ProblemResponse,
    wire::{OverrideStatus, yes},
};

pub(super) fn routes(routes: &mut Routes) {
    routes.add::<__path_create>(web::to(create));
    routes.add::<__path_get>(web::to(get));
    routes.add::<__path_put>(web::to(put));
    routes.add::<__path_patch>(web::to(patch));
    routes.add::<__path_delete>(web::to(delete));
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
    pub(super) fn show(listed: ListedOverride, now: Instant) -> Self {
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
) -> HandlerResult {
    let input = OverrideInput {
        override_value: body.override_value,
        enabled: body.enabled,
        reason: body.reason,
        expires_at: body.expires_at,
    };
    let (now, location) = (app.evaluation.now(), location_below(request.path(), &body.flag_name));
    let reply = move |listed: &ListedOverride, committed: &Committed| {
        let shown = UserOverride::show(listed.clone(), now);
        reply::created(committed, listed.record.revision, location.clone(), &shown)
    };
    let carry_out = async |intent| app.overrides.create(intent, user_id.0, &body.flag_name, input).await;
    reply::execute_idempotently(&request, author.granted, reply, carry_out).await
}

/// One override
#[utoipa::path(
    get, path = "/api/admin/users/{user_id}/flag-overrides/{flag_name}", tag = "overrides",
    operation_id = "get_user_override", params(("user_id" = Uuid, Path), ("flag_name" = String, Path)),
    responses((status = 200, body = UserOverride), (status = "default", response = ProblemResponse)),
)]
async fn get(_: Require<ReadOverrides>, app: Data<App>, user_id: UserId, flag: PathFlag) -> HandlerResult {
    let now = app.evaluation.now();
    let found = app.overrides.get(user_id.0, &flag.0).await?;
    let revision = Revision { number: found.record.revision, ..app.evaluation.replica().revision() };
    reply::resource(revision, &UserOverride::show(found, now))
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
) -> HandlerResult {
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
        UpsertOutcome::Created => reply::created(&done.committed, number, request.path().to_owned(), &body),
        UpsertOutcome::Replaced => reply::changed(&done.committed, number, &body),
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
) -> HandlerResult {
    let patch = OverridePatch {
        override_value: body.override_value,
        enabled: body.enabled,
        reason: body.reason,
        expires_at: body.expires_at,
    };
    let done = app.overrides.patch(author.granted, user_id.0, &flag.0, patch, expected.0).await?;
    let now = app.evaluation.now();
    let number = done.output.record.revision;
    Ok(reply::changed(&done.committed, number, &UserOverride::show(done.output, now)).into())
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
) -> HandlerResult {
    let done = app.overrides.delete(author.granted, user_id.0, &flag.0, expected.0).await?;
    reply::removed(&done.committed)
}
