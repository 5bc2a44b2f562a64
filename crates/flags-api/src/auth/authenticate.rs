//! Authentication of requests. It identifies the caller but never rejects a request: the extractors in the handlers'
//! signatures do that.

use std::time::Duration;

use actix_web::{HttpMessage as _, dev::ServiceRequest, http::header::AUTHORIZATION, web::Data};
use flags_service::credentials::{
    jwt::{JwtRejection, JwtUser, JwtUsers, JwtVerifier, VerifiedJwt, looks_like_jwt},
    secret::{Secret, SecretKind, hash},
};
use tracing::{Span, field::display};

use super::{
    Credential, Principal, StreamToken, client::client_address, cookie::session_secret_hash,
    require::invalid_stream_token, same_origin::check_cookie_request,
};
use crate::{
    extract::{wait_for_event_position, wait_for_min_revision},
    problem::Problem,
    route_facts::{Identification, MinRevision, RateClass, RouteFacts},
    state::App,
};

/// Result of authentication, stored in the request's extensions for the extractors.
///
/// `Err(None)` means that the request has no credential. `Err(Some(_))` means that the server rejected the credential,
/// or that the caller exceeded a rate limit.
pub(crate) type AuthenticationResult = Result<Principal, Option<Problem>>;

/// Authenticates the request and stores the [`AuthenticationResult`] in its extensions. Records the principal in the
/// request's tracing span.
pub(crate) async fn authenticate(request: &ServiceRequest, facts: RouteFacts) {
    let Some(app) = request.app_data::<Data<App>>() else { return };
    // Boxed because the future is large. An unboxed future would occupy memory until the response ends.
    let result = Box::pin(identify(app, request, facts)).await;
    if let Ok(principal) = &result {
        Span::current().record("principal", display(&principal.actor));
    }
    let result = apply_rate_limit(app, request, facts.rate_class, result);
    request.extensions_mut().insert(result);
}

async fn identify(app: &App, request: &ServiceRequest, facts: RouteFacts) -> AuthenticationResult {
    match facts.identification {
        Identification::None => Err(None),
        Identification::Credential => principal_from_credential(app, request, facts.min_revision).await,
        Identification::StreamToken => {
            principal_from_stream_token(app, request, facts.min_revision).await.map_err(Some)
        }
    }
}

/// Identifies the caller by the `Authorization` header or, without one, by the session cookie.
async fn principal_from_credential(
    app: &App,
    request: &ServiceRequest,
    min_revision: MinRevision,
) -> AuthenticationResult {
    let credential = if request.headers().contains_key(AUTHORIZATION) {
        let text = bearer_token(request).ok_or_else(|| Some(Problem::unauthorized()))?;
        credential_from_bearer(app, request, min_revision, text).await.map_err(Some)?
    } else {
        let Some(hash) = session_secret_hash(request.request(), &app.settings) else { return Err(None) };
        check_cookie_request(request.request(), &app.settings).map_err(Some)?;
        // A session that is not cached costs a database query. The limit of the address bounds the number of queries
        // that forged cookies can cause.
        if !app.sessions.is_cached(&hash)
            && let Some(wait) = check_address(app, request)
        {
            return Err(Some(rate_limited(wait)));
        }
        wait_for_requested_revision(app, request, min_revision).await.map_err(Some)?;
        Credential::Session { hash, user_id: None }
    };
    Principal::resolve(app, credential, true).await.map_err(Some)
}

/// Identifies the caller by the stream token in the URL and ignores all other credentials.
///
/// Opening a stream does not count as use of the session. Otherwise a leaked URL could keep the session alive.
async fn principal_from_stream_token(
    app: &App,
    request: &ServiceRequest,
    min_revision: MinRevision,
) -> Result<Principal, Problem> {
    let mut parameters = form_urlencoded::parse(request.query_string().as_bytes());
    let text = parameters.find(|(name, _)| name == "ticket").map(|(_, value)| value);
    let stream_token = text.and_then(|text| StreamToken::verify(&text, &app.stream_token_key, app.evaluation.now()));
    let stream_token = stream_token.ok_or_else(invalid_stream_token)?;
    wait_for_requested_revision(app, request, min_revision).await?;
    let credential = stream_token.credential.clone().limited_to(jwt_users(app));
    request.extensions_mut().insert(stream_token);
    Principal::resolve(app, credential, false).await
}

/// Returns the current setting of `--jwt-users`. Without a JWT issuer, only stored users are accepted.
fn jwt_users(app: &App) -> JwtUsers {
    app.settings.jwt.as_ref().map_or(JwtUsers::Known, |verifier| verifier.users())
}

/// Reads the credential from `Authorization: Bearer`.
///
/// The caller's user is looked up only after the replica has reached the revision that the request requires, because
/// that revision may change the user or the token.
async fn credential_from_bearer(
    app: &App,
    request: &ServiceRequest,
    min_revision: MinRevision,
    text: &str,
) -> Result<Credential, Problem> {
    if Secret::is_well_formed(SecretKind::ApiToken, text) {
        let hash = hash(text);
        // Check the limit of the address before the wait, so that requests with forged tokens cannot occupy the server.
        if app.evaluation.replica().read().token(&hash).is_none()
            && let Some(wait) = check_address(app, request)
        {
            return Err(rate_limited(wait));
        }
        wait_for_requested_revision(app, request, min_revision).await?;
        return Ok(Credential::Token { hash, user_id: None });
    }
    let verifier = app.settings.jwt.as_ref().filter(|_| looks_like_jwt(text)).ok_or_else(Problem::unauthorized)?;
    let verified = verify_jwt(app, verifier, text).await?;
    wait_for_requested_revision(app, request, min_revision).await?;
    match verified.user.clone() {
        JwtUser::Key(key) => {
            let user_id = app.evaluation.resolve_key(&key).await?.user_id;
            Ok(Credential::from_jwt(verified, user_id, Some(&key), verifier.users()))
        }
        JwtUser::Email(email) => {
            // Only a stored user can be identified by e-mail address, because an address is not an evaluation key.
            let user = app.evaluation.user_by_email(&email).await?.ok_or_else(Problem::unauthorized)?;
            Ok(Credential::from_jwt(verified, user.id, None, JwtUsers::Known))
        }
    }
}

async fn wait_for_requested_revision(
    app: &App,
    request: &ServiceRequest,
    min_revision: MinRevision,
) -> Result<(), Problem> {
    let replica = app.evaluation.replica();
    match min_revision {
        MinRevision::Unsupported => Ok(()),
        MinRevision::Header | MinRevision::UndocumentedHeader => {
            wait_for_min_revision(request.headers(), replica).await
        }
        MinRevision::EventPosition => {
            wait_for_min_revision(request.headers(), replica).await?;
            wait_for_event_position(request.query_string(), replica).await
        }
    }
}

/// Verifies a JWT. The reason for a rejection is written to the application log and is not sent to the caller.
async fn verify_jwt(app: &App, verifier: &JwtVerifier, text: &str) -> Result<VerifiedJwt, Problem> {
    verifier.verify(text, app.evaluation.now()).await.map_err(|rejection| {
        tracing::debug!(reason = %rejection, "JWT rejected");
        match rejection {
            JwtRejection::KeysUnavailable => {
                let detail = "the JWT issuer's keys cannot be fetched; retry later";
                Problem::unavailable("issuer_unavailable", detail, "5")
            }
            _ => Problem::unauthorized(),
        }
    })
}

/// Replaces the result with a 429 if the caller exceeds its rate limit. Each valid credential has its own limit; all
/// other requests share the limit of their address.
fn apply_rate_limit(
    app: &App,
    request: &ServiceRequest,
    rate_class: RateClass,
    result: AuthenticationResult,
) -> AuthenticationResult {
    let wait = match &result {
        Ok(principal) => app.rate_limiters.check_credential(rate_class, principal.credential.fingerprint()),
        Err(_) => check_address(app, request),
    };
    wait.map_or(result, |wait| Err(Some(rate_limited(wait))))
}

/// Counts the request against the limit of the client's address. Returns the time to wait if the limit is exceeded.
fn check_address(app: &App, request: &ServiceRequest) -> Option<Duration> {
    app.rate_limiters.check_address(|| client_address(request.request(), app.settings.trusted_proxies))
}

fn rate_limited(wait: Duration) -> Problem {
    Problem::too_many_requests("rate_limited", "rate limit exceeded; retry after the time in Retry-After", wait)
}

/// Whether the request carries a valid credential and is within its rate limit.
pub(crate) fn is_authenticated(request: &ServiceRequest) -> bool {
    request.extensions().get::<AuthenticationResult>().is_some_and(Result::is_ok)
}

fn bearer_token(request: &ServiceRequest) -> Option<&str> {
    let value = request.headers().get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}
