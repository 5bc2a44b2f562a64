//! API tokens, for admins.

use std::time::Duration;

use actix_web::{
    HttpRequest,
    web::{self, Data},
};
use flags_domain::{Instant, Violation};
use flags_service::credentials::tokens::{MAX_OVERLAP, NewToken, Rotation, TokenInput};
use flags_store::{
    Committed,
    api_tokens::{Grant, TokenFilter, TokenRecord},
    change_log::Revision,
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::{
    Routes, location_below,
    reply::{self, HandlerResult},
    session::Scope,
    users::Role,
};
use crate::{
    app::App,
    auth::{ManageTokens, ReadTokens, Require},
    extract::{Body, Cursor, IfMatch, Json, Limit, Query, TokenId, refuse_idempotency_key},
    problem::{Problem, ProblemResponse},
    wire::List,
};

pub(super) fn routes(routes: &mut Routes) {
    routes.add::<__path_list>(web::to(list));
    routes.add::<__path_create>(web::to(create));
    routes.add::<__path_get>(web::to(get));
    routes.add::<__path_revoke>(web::to(revoke));
    routes.add::<__path_rotate>(web::to(rotate));
}

/// Where a token stands.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum TokenStatus {
    Active,
    Expired,
    Revoked,
}

/// An API token, without its secret.
#[derive(Serialize, ToSchema)]
pub(crate) struct ApiToken {
    id: Uuid,
    name: String,
    /// What it may do, at most what its user may; or else `scope`.
    #[schema(required)]
    role: Option<Role>,
    #[schema(required)]
    scope: Option<Scope>,
    /// The user it acts as.
    #[schema(required)]
    user_id: Option<Uuid>,
    /// The end of its secret, to recognise it by.
    last_four: String,
    /// By the clock; a token of an inactive user is void all the same.
    status: TokenStatus,
    /// Who made it: `user:<id>`, `token:<id>` or `system:<name>`.
    created_by: String,
    #[schema(value_type = String, format = DateTime)]
    created_at: Instant,
    #[schema(required, value_type = Option<String>, format = DateTime)]
    expires_at: Option<Instant>,
    #[schema(required, value_type = Option<String>, format = DateTime)]
    revoked_at: Option<Instant>,
    /// When it was last used. Servers write it down every 15 seconds, so a use may show that much later.
    #[schema(required, value_type = Option<String>, format = DateTime)]
    last_used_at: Option<Instant>,
    /// The revision of its last change.
    revision: i64,
}

impl ApiToken {
    fn show(token: TokenRecord, now: Instant) -> Self {
        let status = match (token.revoked_at, token.is_live(now)) {
            (Some(_), _) => TokenStatus::Revoked,
            (None, false) => TokenStatus::Expired,
            (None, true) => TokenStatus::Active,
        };
        let (role, scope) = match token.grant {
            Grant::Role(role) => (Some(role.into()), None),
            Grant::Evaluate => (None, Some(Scope::Evaluate)),
        };
        Self {
            id: token.id,
            name: token.name,
            role,
            scope,
            user_id: token.user_id,
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

/// An API token that was just made, with its secret.
#[derive(Serialize, ToSchema)]
pub(crate) struct NewApiToken {
    #[serde(flatten)]
    about: ApiToken,
    /// For `Authorization: Bearer`. It is shown this once, and kept nowhere.
    #[schema(example = "flg_…")]
    token: String,
}

impl NewApiToken {
    fn show(made: NewToken, now: Instant) -> Self {
        Self { token: made.secret.reveal().to_owned(), about: ApiToken::show(made.record, now) }
    }
}

/// A new API token: with `role`, or else with `scope`.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CreateApiToken {
    /// For people, to tell tokens apart.
    #[schema(min_length = 1, max_length = 255)]
    name: String,
    role: Option<Role>,
    scope: Option<Scope>,
    /// The user it acts as; needed with the role `user`, not allowed with a scope.
    user_id: Option<Uuid>,
    /// It is void from this instant on; must lie in the future.
    #[schema(value_type = Option<String>, format = DateTime)]
    expires_at: Option<Instant>,
}

/// How a token is followed by another.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RotateApiToken {
    /// How long the old one goes on, in seconds.
    #[serde(default = "a_day")]
    #[schema(minimum = 0, maximum = 604_800, default = 86_400)]
    overlap_seconds: u32,
    /// When the new one ends; if left out, after as long as the old one was made for, or never if it was made without end.
    #[schema(value_type = Option<String>, format = DateTime)]
    expires_at: Option<Instant>,
}

const fn a_day() -> u32 {
    86_400
}

impl Body for CreateApiToken {}
impl Body for RotateApiToken {}

/// Which tokens, and which part of the list.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct TokenQuery {
    /// Only those that act as this user.
    user_id: Option<Uuid>,
    /// Only those that have neither expired nor been revoked.
    #[serde(default)]
    #[param(value_type = Option<bool>, default = false)]
    active_only: bool,
    /// Most items, 1 to 200.
    #[serde(default)]
    #[param(value_type = Option<u32>, minimum = 1, maximum = 200, default = 50)]
    limit: Limit,
    /// `next_cursor` of the part before.
    #[param(value_type = Option<String>)]
    cursor: Option<Cursor<(Instant, Uuid)>>,
}

/// All API tokens, newest first
#[utoipa::path(
    get, path = "/api/admin/api-tokens", tag = "API tokens", operation_id = "list_api_tokens", params(TokenQuery),
    responses((status = 200, body = List<ApiToken>), (status = "default", response = ProblemResponse)),
)]
async fn list(_: Require<ReadTokens>, app: Data<App>, Query(query): Query<TokenQuery>) -> HandlerResult {
    let now = app.evaluation.now();
    let filter = TokenFilter { user_id: query.user_id, valid_at: query.active_only.then_some(now) };
    let page = app.tokens.list(&filter, query.cursor.map(|cursor| cursor.0), query.limit.0).await?;
    let cursor = |last: &TokenRecord| Cursor((last.created_at, last.id)).encode();
    reply::json(&List::new(page, cursor, |token| ApiToken::show(token, now)))
}

/// Make an API token
#[utoipa::path(
    post, path = "/api/admin/api-tokens", tag = "API tokens", operation_id = "create_api_token",
    request_body = CreateApiToken,
    responses((status = 201, body = NewApiToken), (status = "default", response = ProblemResponse)),
)]
async fn create(
    author: Require<ManageTokens>,
    app: Data<App>,
    Json(body): Json<CreateApiToken>,
    request: HttpRequest,
) -> HandlerResult {
    refuse_idempotency_key(&request)?;
    let grant = match (body.role, body.scope) {
        (Some(role), None) => Grant::Role(role.into()),
        (None, Some(Scope::Evaluate)) => Grant::Evaluate,
        (None, None) => return Err(Violation::new("/role", "required", "give either role or scope").into()),
        (Some(_), Some(_)) => {
            return Err(Violation::new("/scope", "not_allowed", "give either role or scope, not both").into());
        }
    };
    let input = TokenInput { name: body.name, grant, user_id: body.user_id, expires_at: body.expires_at };
    let done = app.tokens.create(author.granted, input).await?;
    made(&app, request.path(), &done.committed, done.output)
}

/// 201 with a token and its secret, which stands below `path`.
fn made(app: &App, path: &str, committed: &Committed, made: NewToken) -> HandlerResult {
    let location = location_below(path, &made.record.id.to_string());
    let revision = made.record.revision;
    let shown = NewApiToken::show(made, app.evaluation.now());
    Ok(reply::created(committed, revision, location, &shown).into())
}

/// One API token
#[utoipa::path(
    get, path = "/api/admin/api-tokens/{id}", tag = "API tokens", operation_id = "get_api_token",
    params(("id" = Uuid, Path)),
    responses((status = 200, body = ApiToken), (status = "default", response = ProblemResponse)),
)]
async fn get(_: Require<ReadTokens>, app: Data<App>, id: TokenId) -> HandlerResult {
    let token = app.tokens.get(id.0).await?;
    let revision = Revision { number: token.revision, ..app.evaluation.replica().revision() };
    reply::resource(revision, &ApiToken::show(token, app.evaluation.now()))
}

/// Revoke an API token, for good
#[utoipa::path(
    delete, path = "/api/admin/api-tokens/{id}", tag = "API tokens", operation_id = "revoke_api_token",
    params(("id" = Uuid, Path)),
    responses((status = 204, description = "Revoked"), (status = "default", response = ProblemResponse)),
)]
async fn revoke(author: Require<ManageTokens>, app: Data<App>, id: TokenId, expected: IfMatch) -> HandlerResult {
    reply::removed(&app.tokens.revoke(author.granted, id.0, expected.0).await?)
}

/// Make an API token that takes the place of this one
///
/// The old one goes on for `overlap_seconds`, so that nothing stops while the new one is handed out.
#[utoipa::path(
    post, path = "/api/admin/api-tokens/{id}/rotate", tag = "API tokens", operation_id = "rotate_api_token",
    params(("id" = Uuid, Path)), request_body = RotateApiToken,
    responses((status = 201, body = NewApiToken), (status = "default", response = ProblemResponse)),
)]
async fn rotate(
    author: Require<ManageTokens>,
    app: Data<App>,
    id: TokenId,
    expected: IfMatch,
    Json(body): Json<RotateApiToken>,
    request: HttpRequest,
) -> HandlerResult {
    refuse_idempotency_key(&request)?;
    let overlap = Duration::from_secs(body.overlap_seconds.into());
    if overlap > MAX_OVERLAP {
        let detail = format!("must be at most {}", MAX_OVERLAP.as_secs());
        return Err(Problem::from(Violation::new("/overlap_seconds", "out_of_range", detail)));
    }
    let rotation = Rotation { overlap, expires_at: body.expires_at };
    let done = app.tokens.rotate(author.granted, id.0, rotation, expected.0).await?;
    made(&app, "/api/admin/api-tokens", &done.committed, done.output)
}
