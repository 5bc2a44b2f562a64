//! Sign-in and sign-out for the admin UI, and the identity of the caller.

use actix_web::{
    HttpRequest, HttpResponse,
    cookie::Cookie,
    web::{self, Data},
};
use flags_domain::{Instant, check_text};
use flags_service::credentials::sessions::{OpenedSession, PasswordChange, PasswordSignIn};
use flags_store::users::MAX_EMAIL_LENGTH;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::{
    reply::{FLAGS_REVISION, HandlerResult},
    users::WireRole,
};
use crate::{
    auth::{
        AnyCaller, Credential, ManageOwnSession, Principal, ReadOwnIdentity, Require, check_sign_in_origin,
        client_address, expired_session_cookie, session_cookie, session_secret_hash,
    },
    extract::{Json, RequestBody, reject_idempotency_key},
    problem::{Problem, ProblemResponse},
    route_facts::RouteFacts,
    route_registry::RouteRegistry,
    state::App,
};

pub(super) fn routes(routes: &mut RouteRegistry) {
    routes.add::<__path_login>(web::to(login), RouteFacts::api());
    routes.add::<__path_logout>(web::to(logout), RouteFacts::api());
    routes.add::<__path_logout_all>(web::to(logout_all), RouteFacts::api());
    routes.add::<__path_change_password>(web::to(change_password), RouteFacts::api());
    routes.add::<__path_me>(web::to(me), RouteFacts::api());
}

/// Credentials of a user.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct LoginRequest {
    /// E-mail address, in any case.
    #[schema(max_length = 254)]
    email: String,
    /// The user's password.
    #[schema(max_length = 256, format = Password)]
    password: String,
}

/// The caller's current and new password.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ChangePasswordRequest {
    /// Current password.
    #[schema(max_length = 256, format = Password)]
    current_password: String,
    /// New password. It replaces the current one.
    #[schema(min_length = 12, max_length = 256, format = Password)]
    new_password: String,
}

impl RequestBody for LoginRequest {}
impl RequestBody for ChangePasswordRequest {}

/// Kind of credential that authenticated the request.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum CredentialKind {
    ApiToken,
    Jwt,
    Session,
}

/// Permission of an API token that has no role. `evaluate` permits evaluating flags for any user or anonymous context,
/// and nothing else.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum TokenScope {
    Evaluate,
}

/// Identity and permissions of the caller.
#[derive(Serialize, ToSchema)]
pub(crate) struct IdentityResponse {
    /// Id of the user. `null` for a token without a user.
    #[schema(required)]
    id: Option<Uuid>,
    /// Name of the user to show: the display name, else the e-mail address, else the external id, else the id. `null`
    /// for a token without a user.
    #[schema(required)]
    user_label: Option<String>,
    /// Id of the user in another system.
    #[schema(required)]
    external_id: Option<String>,
    /// E-mail address of the user.
    #[schema(required)]
    email: Option<String>,
    /// Display name of the user.
    #[schema(required)]
    display_name: Option<String>,
    /// Effective access level: the lower of the credential's role and the user's role. `null` for a token with a scope.
    #[schema(required)]
    role: Option<WireRole>,
    /// Scope of a token that has no role.
    #[schema(required)]
    scope: Option<TokenScope>,
    /// Kind of credential that authenticated the request.
    credential: CredentialKind,
    /// Latest time at which the credential expires. `null` if it does not expire.
    #[schema(required, value_type = Option<String>, format = DateTime)]
    expires_at: Option<Instant>,
}

impl IdentityResponse {
    async fn from_principal(app: &App, principal: &Principal) -> Result<Self, Problem> {
        let user = match &principal.user {
            None => None,
            Some(user) => Some(app.users.get(user.id).await?.record),
        };
        Ok(Self {
            id: user.as_ref().map(|user| user.id),
            user_label: user.as_ref().map(|user| user.identity().label(user.id)),
            external_id: user.as_ref().and_then(|user| user.external_id.clone()),
            email: user.as_ref().and_then(|user| user.email.clone()),
            display_name: user.and_then(|user| user.display_name),
            role: principal.role.map(Into::into),
            scope: principal.role.is_none().then_some(TokenScope::Evaluate),
            credential: match principal.credential {
                Credential::Token { .. } => CredentialKind::ApiToken,
                Credential::Jwt { .. } => CredentialKind::Jwt,
                Credential::Session { .. } => CredentialKind::Session,
            },
            expires_at: principal.expires_at,
        })
    }
}

fn new_session_cookie(request: &HttpRequest, app: &App, opened: &OpenedSession) -> Cookie<'static> {
    let seconds = i64::try_from(app.sessions.lifetimes().absolute.as_secs()).unwrap_or(i64::MAX);
    session_cookie(request, &app.settings, &opened.secret, seconds)
}

/// Sign in
///
/// Sets a session cookie and ends the session that the request carries, if any. After failed attempts, further attempts
/// are throttled (429 with `Retry-After`).
#[utoipa::path(
    post, path = "/api/auth/login", tag = "session", operation_id = "login", security(()), request_body = LoginRequest,
    responses(
        (status = 200, body = IdentityResponse, headers(("Set-Cookie" = String, description = "Session cookie"))),
        (status = "default", response = ProblemResponse),
    ),
)]
async fn login(_: AnyCaller, app: Data<App>, Json(body): Json<LoginRequest>, request: HttpRequest) -> HandlerResult {
    reject_idempotency_key(&request)?;
    check_sign_in_origin(&request, &app.settings)?;
    if let Some(violation) = check_text("/email", &body.email, MAX_EMAIL_LENGTH) {
        return Err(violation.into());
    }
    let sign_in = PasswordSignIn {
        email: body.email,
        password: body.password.into(),
        address: client_address(&request, app.settings.trusted_proxies),
        previous: session_secret_hash(&request, &app.settings),
    };
    let opened = app.sessions.sign_in(sign_in).await?;
    let user_id = Some(opened.session.user_id);
    let credential = Credential::Session { hash: opened.session.hash, user_id };
    let principal = Principal::resolve(&app, credential, true).await?;
    let cookie = new_session_cookie(&request, &app, &opened);
    Ok(HttpResponse::Ok().cookie(cookie).json(IdentityResponse::from_principal(&app, &principal).await?))
}

/// Sign out
#[utoipa::path(
    post, path = "/api/auth/logout", tag = "session", operation_id = "logout", security(("session" = [])),
    responses((status = 204, description = "Signed out"), (status = "default", response = ProblemResponse)),
)]
async fn logout(caller: Require<ManageOwnSession>, app: Data<App>, request: HttpRequest) -> HandlerResult {
    let (author, session) = caller.granted;
    app.sessions.sign_out(&author, &session).await?;
    Ok(HttpResponse::NoContent().cookie(expired_session_cookie(&request, &app.settings)).finish())
}

/// Sign out everywhere
///
/// Ends all sessions of the caller.
#[utoipa::path(
    post, path = "/api/auth/logout-all", tag = "session", operation_id = "logout_all", security(("session" = [])),
    responses((status = 204, description = "All sessions ended"), (status = "default", response = ProblemResponse)),
)]
async fn logout_all(caller: Require<ManageOwnSession>, app: Data<App>, request: HttpRequest) -> HandlerResult {
    let (author, session) = caller.granted;
    app.sessions.sign_out_everywhere(&author, session.user_id).await?;
    Ok(HttpResponse::NoContent().cookie(expired_session_cookie(&request, &app.settings)).finish())
}

/// Change own password
///
/// Ends all sessions of the caller and starts a new one. The response sets the cookie of the new session.
#[utoipa::path(
    post, path = "/api/auth/password", tag = "session", operation_id = "change_password", security(("session" = [])),
    request_body = ChangePasswordRequest,
    responses(
        (status = 204, description = "Password changed", headers(
            ("Set-Cookie" = String, description = "Cookie of the new session"),
            ("Flags-Revision" = String, description = "Revision of the change, as `<epoch>:<number>`"),
        )),
        (status = "default", response = ProblemResponse),
    ),
)]
async fn change_password(
    caller: Require<ManageOwnSession>,
    app: Data<App>,
    Json(body): Json<ChangePasswordRequest>,
    request: HttpRequest,
) -> HandlerResult {
    reject_idempotency_key(&request)?;
    let (author, session) = caller.granted;
    let address = client_address(&request, app.settings.trusted_proxies);
    let passwords = PasswordChange { current: body.current_password.into(), new: body.new_password.into() };
    let outcome = app.sessions.change_password(author, &session, &address, passwords).await?;
    let revision = outcome.committed.revision().to_string();
    let cookie = new_session_cookie(&request, &app, &outcome.output);
    Ok(HttpResponse::NoContent().cookie(cookie).insert_header((FLAGS_REVISION, revision)).finish())
}

/// Get own identity and permissions
#[utoipa::path(
    get, path = "/api/auth/me", tag = "session", operation_id = "me",
    responses((status = 200, body = IdentityResponse), (status = "default", response = ProblemResponse)),
)]
async fn me(caller: Require<ReadOwnIdentity>, app: Data<App>) -> HandlerResult {
    Ok(HttpResponse::Ok().json(IdentityResponse::from_principal(&app, &caller.granted).await?))
}
