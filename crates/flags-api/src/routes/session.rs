//! Signing in and out, for the admin UI, and who one is, for everybody.

use actix_web::{
    HttpRequest, HttpResponse,
    cookie::Cookie,
    web::{self, Data},
};
use flags_domain::{Instant, check_text};
use flags_service::credentials::sessions::{NewPassword, SignIn, SignedIn};
use flags_store::users::MAX_EMAIL_LENGTH;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::{
    Routes,
    reply::{FLAGS_REVISION, HandlerResult},
    users::Role,
};
use crate::{
    app::App,
    auth::{
        Credential, KnowSelf, OwnSession, Principal, Require, Visitor, check_sign_in, client_address,
        no_session_cookie, session_cookie, session_secret,
    },
    extract::{Body, Json, refuse_idempotency_key},
    problem::{Problem, ProblemResponse},
};

pub(super) fn routes(routes: &mut Routes) {
    routes.add::<__path_login>(web::to(login));
    routes.add::<__path_logout>(web::to(logout));
    routes.add::<__path_logout_all>(web::to(logout_all));
    routes.add::<__path_change_password>(web::to(change_password));
    routes.add::<__path_me>(web::to(me));
}

/// E-mail and password of somebody who wants to sign in.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Login {
    /// In whatever case.
    #[schema(max_length = 254)]
    email: String,
    #[schema(max_length = 256, format = Password)]
    password: String,
}

/// A new password, from whoever knows the present one.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ChangePassword {
    #[schema(max_length = 256, format = Password)]
    current_password: String,
    #[schema(min_length = 12, max_length = 256, format = Password)]
    new_password: String,
}

impl Body for Login {}
impl Body for ChangePassword {}

/// How a caller showed who they are.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum CredentialKind {
    ApiToken,
    Jwt,
    Session,
}

/// Instead of a role: evaluates flags for any user, and nothing else.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Scope {
    Evaluate,
}

/// Who calls.
#[derive(Serialize, ToSchema)]
pub(crate) struct Me {
    /// The user; `null` for a token that acts as none.
    #[schema(required)]
    id: Option<Uuid>,
    #[schema(required)]
    email: Option<String>,
    #[schema(required)]
    display_name: Option<String>,
    /// What they may do now: the lower of the credential's role and its user's.
    #[schema(required)]
    role: Option<Role>,
    /// For a token of this scope, which has no role.
    #[schema(required)]
    scope: Option<Scope>,
    credential: CredentialKind,
    /// When the credential ends at the latest.
    #[schema(required, value_type = Option<String>, format = DateTime)]
    expires_at: Option<Instant>,
}

impl Me {
    async fn show(app: &App, principal: &Principal) -> Result<Self, Problem> {
        let user = match &principal.user {
            None => None,
            Some(user) => Some(app.users.get(user.id).await?.record),
        };
        Ok(Self {
            id: user.as_ref().map(|user| user.id),
            email: user.as_ref().map(|user| user.email.clone()),
            display_name: user.and_then(|user| user.display_name),
            role: principal.role.map(Into::into),
            scope: principal.role.is_none().then_some(Scope::Evaluate),
            credential: match principal.credential {
                Credential::Token { .. } => CredentialKind::ApiToken,
                Credential::Jwt { .. } => CredentialKind::Jwt,
                Credential::Session { .. } => CredentialKind::Session,
            },
            expires_at: principal.expires_at,
        })
    }
}

fn cookie_of(request: &HttpRequest, app: &App, signed_in: &SignedIn) -> Cookie<'static> {
    let seconds = i64::try_from(app.sessions.lifetimes().absolute.as_secs()).unwrap_or(i64::MAX);
    session_cookie(request, &app.settings, &signed_in.secret, seconds)
}

/// Sign in
///
/// Sets a cookie; a session that the request brings is ended. After failures the next attempt has to wait (429).
#[utoipa::path(
    post, path = "/api/auth/login", tag = "session", operation_id = "login", security(()), request_body = Login,
    responses(
        (status = 200, body = Me, headers(("Set-Cookie" = String, description = "The session"))),
        (status = "default", response = ProblemResponse),
    ),
)]
async fn login(_: Visitor, app: Data<App>, Json(body): Json<Login>, request: HttpRequest) -> HandlerResult {
    refuse_idempotency_key(&request)?;
    check_sign_in(&request, &app.settings)?;
    if let Some(violation) = check_text("/email", &body.email, MAX_EMAIL_LENGTH) {
        return Err(violation.into());
    }
    let wanted = SignIn {
        email: body.email,
        password: body.password.into(),
        address: client_address(&request, app.settings.proxies),
        previous: session_secret(&request, &app.settings),
    };
    let signed_in = app.sessions.sign_in(wanted).await?;
    let user_id = Some(signed_in.session.user_id);
    let credential = Credential::Session { hash: signed_in.session.hash, user_id };
    let principal = Principal::of(&app, credential, true).await?;
    let cookie = cookie_of(&request, &app, &signed_in);
    Ok(HttpResponse::Ok().cookie(cookie).json(Me::show(&app, &principal).await?))
}

/// Sign out
#[utoipa::path(
    post, path = "/api/auth/logout", tag = "session", operation_id = "logout", security(("session" = [])),
    responses((status = 204, description = "Signed out"), (status = "default", response = ProblemResponse)),
)]
async fn logout(caller: Require<OwnSession>, app: Data<App>, request: HttpRequest) -> HandlerResult {
    let (_, session) = caller.granted;
    app.sessions.sign_out(&session).await?;
    Ok(HttpResponse::NoContent().cookie(no_session_cookie(&request, &app.settings)).finish())
}

/// Sign out everywhere
#[utoipa::path(
    post, path = "/api/auth/logout-all", tag = "session", operation_id = "logout_all", security(("session" = [])),
    responses((status = 204, description = "All sessions of the caller have ended"), (status = "default", response = ProblemResponse)),
)]
async fn logout_all(caller: Require<OwnSession>, app: Data<App>, request: HttpRequest) -> HandlerResult {
    let (_, session) = caller.granted;
    app.sessions.sign_out_everywhere(session.user_id).await?;
    Ok(HttpResponse::NoContent().cookie(no_session_cookie(&request, &app.settings)).finish())
}

/// Change one's password
///
/// All sessions end; a new one begins, whose cookie comes with the answer.
#[utoipa::path(
    post, path = "/api/auth/password", tag = "session", operation_id = "change_password", security(("session" = [])),
    request_body = ChangePassword,
    responses(
        (status = 204, description = "Changed", headers(
            ("Set-Cookie" = String, description = "The new session"),
            ("Flags-Revision" = String, description = "`<epoch>:<number>`"),
        )),
        (status = "default", response = ProblemResponse),
    ),
)]
async fn change_password(
    caller: Require<OwnSession>,
    app: Data<App>,
    Json(body): Json<ChangePassword>,
    request: HttpRequest,
) -> HandlerResult {
    refuse_idempotency_key(&request)?;
    let (author, session) = caller.granted;
    let address = client_address(&request, app.settings.proxies);
    let passwords = NewPassword { present: body.current_password.into(), new: body.new_password.into() };
    let done = app.sessions.change_password(author, &session, &address, passwords).await?;
    let revision = done.committed.revision().to_string();
    let cookie = cookie_of(&request, &app, &done.output);
    Ok(HttpResponse::NoContent().cookie(cookie).insert_header((FLAGS_REVISION, revision)).finish())
}

/// Who I am, and what I may do
#[utoipa::path(
    get, path = "/api/auth/me", tag = "session", operation_id = "me",
    responses((status = 200, body = Me), (status = "default", response = ProblemResponse)),
)]
async fn me(caller: Require<KnowSelf>, app: Data<App>) -> HandlerResult {
    Ok(HttpResponse::Ok().json(Me::show(&app, &caller.granted).await?))
}
