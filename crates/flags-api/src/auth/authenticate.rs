//! The middleware that finds out who calls. It refuses nobody: a handler that needs a caller says so in its signature.

use std::time::Duration;

use actix_web::{
    Error, HttpMessage as _,
    body::MessageBody,
    dev::{ServiceRequest, ServiceResponse},
    http::header::AUTHORIZATION,
    middleware::Next,
    web::Data,
};

use flags_service::credentials::{
    jwt::{JwtRefused, JwtVerifier, NamedUser, VerifiedJwt, looks_like_jwt},
    secret::{Secret, SecretKind, hash},
};

use super::{
    Credential, Principal, StreamToken, client::client_address, cookie::session_secret, require::no_ticket,
    same_origin::check_change_by_cookie,
};
use crate::{
    app::App,
    extract::{wait_for_event, wait_for_min_revision},
    problem::Problem,
    request_middleware::RequestId,
    routes::ofrep::{BULK_EVALUATION, EVENT_STREAM},
};

/// Who calls, or why that cannot be said: in the request's extensions, for the extractors.
pub(crate) type Outcome = Result<Principal, Option<Problem>>;

/// Looks at the credential and leaves in the request who calls, or why that cannot be said.
pub(crate) async fn authenticate(
    request: ServiceRequest,
    next: Next<impl MessageBody>,
) -> Result<ServiceResponse<impl MessageBody>, Error> {
    if let Some(app) = request.app_data::<Data<App>>().cloned() {
        // Boxed, as it is large: each request would carry room for it for as long as it lasts.
        let outcome = limited(&app, &request, Box::pin(identify(&app, &request)).await);
        request.extensions_mut().insert(outcome);
    }
    next.call(request).await
}

/// The caller. A credential in `Authorization` goes before a cookie.
async fn identify(app: &App, request: &ServiceRequest) -> Outcome {
    if request.path() == EVENT_STREAM {
        return of_ticket(app, request).await.map_err(Some);
    }
    let credential = if request.headers().contains_key(AUTHORIZATION) {
        let text = bearer(request).ok_or_else(|| Some(Problem::unauthorized()))?;
        of_authorization(app, request, text).await.map_err(Some)?
    } else {
        let Some(hash) = session_secret(request.request(), &app.settings) else { return Err(None) };
        check_change_by_cookie(request.request(), &app.settings).map_err(Some)?;
        // Before the database is asked: anybody can make up cookies, and each would cost a query.
        if !app.sessions.remembers(&hash)
            && let Some(wait) = check_address(app, request)
        {
            return Err(Some(too_many(wait)));
        }
        up_to_date(app, request).await.map_err(Some)?;
        Credential::Session { hash, user_id: None }
    };
    Principal::of(app, credential, true).await.map_err(Some)
}

/// The caller whose credential stands in the ticket of the address: there nothing else counts. Following is no use of it, or
/// whoever got hold of an address could keep a session alive.
async fn of_ticket(app: &App, request: &ServiceRequest) -> Result<Principal, Problem> {
    let mut parameters = form_urlencoded::parse(request.query_string().as_bytes());
    let text = parameters.find(|(name, _)| name == "ticket").map(|(_, value)| value);
    let ticket = text.and_then(|text| StreamToken::open(&text, &app.stream_token_key, app.evaluation.now()));
    let ticket = ticket.ok_or_else(no_ticket)?;
    up_to_date(app, request).await?;
    request.extensions_mut().insert(ticket);
    Principal::of(app, ticket.credential, false).await
}

/// The credential in `Authorization`. Whom it names is looked up as of the revision that the request wants to be answered
/// from: what was waited for may concern the caller.
async fn of_authorization(app: &App, request: &ServiceRequest, text: &str) -> Result<Credential, Problem> {
    if Secret::is_well_formed(SecretKind::ApiToken, text) {
        let hash = hash(text);
        // Before anything is waited for: anybody can make up tokens.
        if app.evaluation.replica().read().token(&hash).is_none()
            && let Some(wait) = check_address(app, request)
        {
            return Err(too_many(wait));
        }
        up_to_date(app, request).await?;
        return Ok(Credential::Token { hash, user_id: None });
    }
    let verifier = app.settings.jwt.as_ref().filter(|_| looks_like_jwt(text)).ok_or_else(Problem::unauthorized)?;
    let verified = verify(verifier, text, app, request).await?;
    up_to_date(app, request).await?;
    let user_id = match &verified.user {
        NamedUser::Id(id) => Some(*id),
        NamedUser::Email(email) => app.evaluation.user_by_email(email).await?.map(|user| user.id),
    };
    Ok(Credential::of_jwt(&verified, user_id.ok_or_else(Problem::unauthorized)?))
}

async fn up_to_date(app: &App, request: &ServiceRequest) -> Result<(), Problem> {
    let replica = app.evaluation.replica();
    wait_for_min_revision(request.headers(), replica).await?;
    if request.path() == BULK_EVALUATION { wait_for_event(request.query_string(), replica).await } else { Ok(()) }
}

/// What a JWT says. Why one is refused is for the log alone.
async fn verify(
    verifier: &JwtVerifier,
    text: &str,
    app: &App,
    request: &ServiceRequest,
) -> Result<VerifiedJwt, Problem> {
    verifier.verify(text, app.evaluation.now()).await.map_err(|refused| {
        let extensions = request.extensions();
        let request_id = extensions.get::<RequestId>().map(|id| id.0.as_str());
        tracing::debug!(request_id, why = %refused, "a JWT is refused");
        match refused {
            JwtRefused::KeysUnavailable => {
                let detail = "the keys of the issuer of JWTs cannot be fetched; try again";
                Problem::unavailable("issuer_unavailable", detail, "5")
            }
            _ => Problem::unauthorized(),
        }
    })
}

/// The same, unless the caller sends more than they may: each credential has its own limit, and whoever has none shares
/// that of their address.
fn limited(app: &App, request: &ServiceRequest, outcome: Outcome) -> Outcome {
    let refused = match &outcome {
        Ok(principal) => app.limits.check_credential(principal.credential.key(), request.path()),
        Err(_) => check_address(app, request),
    };
    refused.map_or(outcome, |wait| Err(Some(too_many(wait))))
}

/// How long the caller's address must wait, if it must.
fn check_address(app: &App, request: &ServiceRequest) -> Option<Duration> {
    app.limits.check_address(|| client_address(request.request(), app.settings.proxies))
}

fn too_many(wait: Duration) -> Problem {
    Problem::too_many_requests("rate_limited", "slow down; too many requests", wait)
}

/// Whether the caller's credential is valid.
pub(crate) fn is_known_caller(request: &ServiceRequest) -> bool {
    request.extensions().get::<Outcome>().is_some_and(Result::is_ok)
}

fn bearer(request: &ServiceRequest) -> Option<&str> {
    let value = request.headers().get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}
