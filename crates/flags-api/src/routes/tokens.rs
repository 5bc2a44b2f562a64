//! API tokens, for admins.

use std::time::Duration;

use actix_web::{
    HttpRequest,
    web::{self, Data},
};
use flags_domain::{Instant, Violation};
use flags_service::credentials::tokens::{CreatedToken, MAX_OVERLAP, NewToken, TokenDetail, TokenRotation};
use flags_store::{
    Committed,
    api_tokens::{TokenFilter, TokenGrant},
    change_log::Revision,
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::{
    reply::{self, HandlerResult, child_location},
    session::TokenScope,
    users::WireRole,
};
use crate::{
    auth::{ManageTokens, ReadTokens, Require},
    extract::{IfMatch, Json, PageCursor, PageLimit, Query, RequestBody, TokenIdParam, reject_idempotency_key},
    problem::{Problem, ProblemResponse},
    route_facts::RouteFacts,
    route_registry::RouteRegistry,
    state::App,
    wire::PageResponse,
};

pub(super) fn routes(routes: &mut RouteRegistry) {
    routes.add::<__path_list>(web::to(list), RouteFacts::api());
    routes.add::<__path_create>(web::to(create), RouteFacts::change());
    routes.add::<__path_get>(web::to(get), RouteFacts::resource());
    routes.add::<__path_revoke>(web::to(revoke), RouteFacts::update());
    routes.add::<__path_rotate>(web::to(rotate), RouteFacts::update());
}

/// Status of an API token.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum TokenStatus {
    Active,
    Expired,
    Revoked,
}

/// An API token, without its secret.
#[derive(Serialize, ToSchema)]
pub(crate) struct ApiTokenResponse {
    id: Uuid,
    /// Display name.
    name: String,
    /// Access level. The effective access level is the lower of this role and the role of the token's user. `null` if
    /// the token has a `scope`.
    #[schema(required)]
    role: Option<WireRole>,
    /// Scope of a token that has no role.
    #[schema(required)]
    scope: Option<TokenScope>,
    /// User that the token acts as. `null` for a token without a user.
    #[schema(required)]
    user_id: Option<Uuid>,
    /// Name of the user to show: the display name, else the e-mail address, else the external id, else the id. `null`
    /// for a token without a user.
    #[schema(required)]
    user_label: Option<String>,
    /// Last four characters of the secret, to recognize the token.
    last_four: String,
    /// Status at the time of the response. A token of an inactive user is rejected even if its status is `active`.
    status: TokenStatus,
    /// Creator, as `user:<id>`, `token:<id>` or `system:<name>`.
    created_by: String,
    #[schema(value_type = String, format = DateTime)]
    created_at: Instant,
    /// When the token stops being valid. `null` if it does not expire.
    #[schema(required, value_type = Option<String>, format = DateTime)]
    expires_at: Option<Instant>,
    /// When the token was revoked. `null` if it was not revoked.
    #[schema(required, value_type = Option<String>, format = DateTime)]
    revoked_at: Option<Instant>,
    /// When the token was last used. Servers record uses every 15 seconds, so recent uses may be missing. `null` if it
    /// was never used.
    #[schema(required, value_type = Option<String>, format = DateTime)]
    last_used_at: Option<Instant>,
    /// Revision number of the last change.
    revision: i64,
}

impl ApiTokenResponse {
    fn from_detail(detail: TokenDetail, now: Instant) -> Self {
        let TokenDetail { record: token, user_label } = detail;
        let status = match (token.revoked_at, token.is_valid_at(now)) {
            (Some(_), _) => TokenStatus::Revoked,
            (None, false) => TokenStatus::Expired,
            (None, true) => TokenStatus::Active,
        };
        let (role, scope) = match token.grant {
            TokenGrant::Role(role) => (Some(role.into()), None),
            TokenGrant::Evaluate => (None, Some(TokenScope::Evaluate)),
        };
        Self {
            id: token.id,
            name: token.name,
            role,
            scope,
            user_id: token.user_id,
            user_label,
            last_four: token.last_four,
            status,
            created_by: token.created_by,
            created_at: token.created_at,
            expires_at: token.expires_at,
            revoked_at: token.revoked_at,
            last_used_at: token.last_used_at,
            revision: token.revision,
        }
    }
}

/// A new API token, with its secret.
#[derive(Serialize, ToSchema)]
pub(crate) struct IssuedApiTokenResponse {
    #[serde(flatten)]
    api_token: ApiTokenResponse,
    /// Secret to send as `Authorization: Bearer <token>`. The server does not store it and cannot return it again.
    #[schema(example = "flg_…")]
    token: String,
}

impl IssuedApiTokenResponse {
    fn new(created: CreatedToken, now: Instant) -> Self {
        let CreatedToken { secret, record, user_label } = created;
        Self {
            token: secret.reveal().to_owned(),
            api_token: ApiTokenResponse::from_detail(TokenDetail { record, user_label }, now),
        }
    }
}

/// An API token to create. Exactly one of `role` and `scope` is required.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CreateApiTokenRequest {
    /// Display name.
    #[schema(min_length = 1, max_length = 255)]
    name: String,
    /// Access level.
    role: Option<WireRole>,
    /// Scope of a token without a role.
    scope: Option<TokenScope>,
    /// User that the token acts as. Required with role `user`, not allowed with a scope.
    user_id: Option<Uuid>,
    /// When the token stops being valid. Must be in the future. Omit it for a token that does not expire.
    #[schema(value_type = Option<String>, format = DateTime)]
    expires_at: Option<Instant>,
}

/// Options for replacing a token.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RotateApiTokenRequest {
    /// Time for which the old token stays valid, in seconds. Default: one day.
    #[serde(default = "default_overlap_seconds")]
    #[schema(minimum = 0, maximum = 604_800, default = 86_400)]
    overlap_seconds: u32,
    /// When the new token stops being valid. Default: the new token gets the lifetime that the old one was created
    /// with.
    #[schema(value_type = Option<String>, format = DateTime)]
    expires_at: Option<Instant>,
}

const fn default_overlap_seconds() -> u32 {
    86_400
}

impl RequestBody for CreateApiTokenRequest {}
impl RequestBody for RotateApiTokenRequest {}

/// Filters and pagination.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListApiTokensQuery {
    /// Only tokens that act as this user.
    user_id: Option<Uuid>,
    /// Only tokens that have neither expired nor been revoked.
    #[serde(default)]
    #[param(value_type = Option<bool>, default = false)]
    active_only: bool,
    /// Maximum number of items.
    #[serde(default)]
    #[param(value_type = Option<u32>, minimum = 1, maximum = 200, default = 50)]
    limit: PageLimit,
    /// `next_cursor` of the previous page.
    #[param(value_type = Option<String>)]
    cursor: Option<PageCursor<(Instant, Uuid)>>,
}

/// List API tokens
///
/// Ordered by creation time, newest first.
#[utoipa::path(
    get, path = "/api/admin/api-tokens", tag = "API tokens", operation_id = "list_api_tokens",
    params(ListApiTokensQuery),
    responses((status = 200, body = PageResponse<ApiTokenResponse>), (status = "default", response = ProblemResponse)),
)]
async fn list(_: Require<ReadTokens>, app: Data<App>, Query(query): Query<ListApiTokensQuery>) -> HandlerResult {
    let now = app.evaluation.now();
    let filter = TokenFilter { user_id: query.user_id, valid_at: query.active_only.then_some(now) };
    let page = app.tokens.list(&filter, query.cursor.map(|cursor| cursor.0), query.limit.0).await?;
    let page = PageResponse::new(
        page,
        |last| PageCursor((last.record.created_at, last.record.id)).encode(),
        |token| ApiTokenResponse::from_detail(token, now),
    );
    reply::json(&page)
}

/// Create an API token
///
/// The response is the only one that contains the token's secret.
#[utoipa::path(
    post, path = "/api/admin/api-tokens", tag = "API tokens", operation_id = "create_api_token",
    request_body = CreateApiTokenRequest,
    responses((status = 201, body = IssuedApiTokenResponse), (status = "default", response = ProblemResponse)),
)]
async fn create(
    author: Require<ManageTokens>,
    app: Data<App>,
    Json(body): Json<CreateApiTokenRequest>,
    request: HttpRequest,
) -> HandlerResult {
    reject_idempotency_key(&request)?;
    let grant = match (body.role, body.scope) {
        (Some(role), None) => TokenGrant::Role(role.into()),
        (None, Some(TokenScope::Evaluate)) => TokenGrant::Evaluate,
        (None, None) => return Err(Violation::new("/role", "required", "either role or scope is required").into()),
        (Some(_), Some(_)) => {
            return Err(Violation::new(
                "/scope",
                "not_allowed",
                "role and scope are mutually exclusive; send only one of them",
            )
            .into());
        }
    };
    let input = NewToken { name: body.name, grant, user_id: body.user_id, expires_at: body.expires_at };
    let outcome = app.tokens.create(author.granted, input).await?;
    issued(&app, request.path(), &outcome.committed, outcome.output)
}

/// Returns 201 with a new token and its secret.
fn issued(app: &App, collection_path: &str, committed: &Committed, created: CreatedToken) -> HandlerResult {
    let location = child_location(collection_path, &created.record.id.to_string());
    let revision = created.record.revision;
    let body = IssuedApiTokenResponse::new(created, app.evaluation.now());
    Ok(reply::created(committed, revision, location, &body).into())
}

/// Get an API token
#[utoipa::path(
    get, path = "/api/admin/api-tokens/{id}", tag = "API tokens", operation_id = "get_api_token",
    params(("id" = Uuid, Path, description = "Id of the API token")),
    responses((status = 200, body = ApiTokenResponse), (status = "default", response = ProblemResponse)),
)]
async fn get(_: Require<ReadTokens>, app: Data<App>, id: TokenIdParam) -> HandlerResult {
    let token = app.tokens.get(id.0).await?;
    let revision = Revision { number: token.record.revision, ..app.evaluation.replica().revision() };
    reply::resource(revision, &ApiTokenResponse::from_detail(token, app.evaluation.now()))
}

/// Revoke an API token
///
/// A revoked token cannot be restored.
#[utoipa::path(
    delete, path = "/api/admin/api-tokens/{id}", tag = "API tokens", operation_id = "revoke_api_token",
    params(("id" = Uuid, Path, description = "Id of the API token")),
    responses((status = 204, description = "Token revoked"), (status = "default", response = ProblemResponse)),
)]
async fn revoke(author: Require<ManageTokens>, app: Data<App>, id: TokenIdParam, if_match: IfMatch) -> HandlerResult {
    reply::no_content(&app.tokens.revoke(author.granted, id.0, if_match.0).await?)
}

/// Rotate an API token
///
/// Creates a token that replaces this one. The old token stays valid for `overlap_seconds`, so that clients can switch
/// without an interruption.
#[utoipa::path(
    post, path = "/api/admin/api-tokens/{id}/rotate", tag = "API tokens", operation_id = "rotate_api_token",
    params(("id" = Uuid, Path, description = "Id of the API token")), request_body = RotateApiTokenRequest,
    responses((status = 201, body = IssuedApiTokenResponse), (status = "default", response = ProblemResponse)),
)]
async fn rotate(
    author: Require<ManageTokens>,
    app: Data<App>,
    id: TokenIdParam,
    if_match: IfMatch,
    Json(body): Json<RotateApiTokenRequest>,
    request: HttpRequest,
) -> HandlerResult {
    reject_idempotency_key(&request)?;
    let overlap = Duration::from_secs(body.overlap_seconds.into());
    if overlap > MAX_OVERLAP {
        let detail = format!("must be at most {} seconds", MAX_OVERLAP.as_secs());
        return Err(Problem::from(Violation::new("/overlap_seconds", "out_of_range", detail)));
    }
    let rotation = TokenRotation { overlap, expires_at: body.expires_at };
    let outcome = app.tokens.rotate(author.granted, id.0, rotation, if_match.0).await?;
    issued(&app, "/api/admin/api-tokens", &outcome.committed, outcome.output)
}
