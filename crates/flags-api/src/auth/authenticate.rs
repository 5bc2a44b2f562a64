//! The middleware that finds out who calls. It refuses nobody: a handler that needs a caller says so in its signature.

use actix_web::{
    Error, HttpMessage as _,
    body::MessageBody,
    dev::{ServiceRequest, ServiceResponse},
    http::header::AUTHORIZATION,
    middleware::Next,
    web::Data,
};

use flags_service::credentials::secret::{Secret, SecretKind, hash};

use super::{
    Credential, Principal, client::client_address, cookie::session_secret, same_origin::check_change_by_cookie,
};
use crate::{app::App, extract::wait_for_min_revision, problem::Problem};

/// Who calls, or why that cannot be said: in the request's extensions, for the extractors.
pub(crate) type Outcome = Result<Principal, Option<Problem>>;

/// Looks at the credential and leaves its bearer in the request.
pub(crate) async fn authenticate(
    request: ServiceRequest,
    next: Next<impl MessageBody>,
) -> Result<ServiceResponse<impl MessageBody>, Error> {
    if let Some(app) = request.app_data::<Data<App>>().cloned() {
        let outcome = limited(&app, &request, identify(&app, &request).await);
        request.extensions_mut().insert(outcome);
    }
    next.call(request).await
}

/// The caller, as of the revision that the request wants to be answered from: what was waited for may concern the caller. A
/// credential in `Authorization` goes before a cookie.
async fn identify(app: &App, request: &ServiceRequest) -> Outcome {
    let credential = match bearer(request) {
        Some(text) if Secret::is_well_formed(SecretKind::ApiToken, text) => {
            Credential::Token { hash: hash(text), user_id: None }
        }
        Some(_) => return Err(Some(Problem::unauthorized())),
        None if request.headers().contains_key(AUTHORIZATION) => return Err(Some(Problem::unauthorized())),
        None => {
            let Some(secret) = session_secret(request.request()) else { return Err(None) };
            check_change_by_cookie(request.request(), &app.settings).map_err(Some)?;
            Credential::Session { hash: secret, user_id: None }
        }
    };
    wait_for_min_revision(request.headers(), app.evaluation.replica()).await.map_err(Some)?;
    Principal::of(app, credential, true).await.map_err(Some)
}

/// The same, unless the caller sends more than they may: each credential has its own measure, and whoever has none shares
/// that of their address.
fn limited(app: &App, request: &ServiceRequest, outcome: Outcome) -> Outcome {
    let refused = match &outcome {
        Ok(principal) => app.limits.check_credential(principal.credential.key(), request.path()),
        Err(_) => app.limits.check_address(|| client_address(request.request(), app.settings.proxies)),
    };
    match refused {
        None => outcome,
        Some(wait) => Err(Some(Problem::too_many_requests("rate_limited", "slow down; too many requests", wait))),
    }
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
