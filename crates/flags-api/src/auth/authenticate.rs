//! The middleware that finds out who calls. It refuses nobody: a handler that needs a caller says so in its signature.

use actix_web::{
    Error, HttpMessage as _,
    body::MessageBody,
    dev::{ServiceRequest, ServiceResponse},
    http::header::AUTHORIZATION,
    middleware::Next,
    web::Data,
};

use flags_domain::Instant;
use flags_service::credentials::{
    jwt::{JwtRefused, JwtVerifier, NamedUser, VerifiedJwt, looks_like_jwt},
    tokens::Token,
};

use super::{Credential, Principal};
use crate::{app::App, extract::wait_for_min_revision, problem::Problem};

/// Who calls, or why that cannot be said: in the request's extensions, for the extractors.
pub(super) type Outcome = Result<Principal, Option<Problem>>;

/// Looks at the credential and leaves its bearer in the request.
pub(crate) async fn authenticate(
    request: ServiceRequest,
    next: Next<impl MessageBody>,
) -> Result<ServiceResponse<impl MessageBody>, Error> {
    if let Some(app) = request.app_data::<Data<App>>().cloned() {
        let outcome: Outcome = match bearer(&request) {
            None => Err(None),
            Some(token) => identify(&app, &request, token).await.map_err(Some),
        };
        request.extensions_mut().insert(outcome);
    }
    next.call(request).await
}

/// The caller, as of the revision that the request wants to be answered from: what was waited for may concern the caller.
async fn identify(app: &App, request: &ServiceRequest, text: &str) -> Result<Principal, Problem> {
    let up_to_date = wait_for_min_revision(request.headers(), app.evaluation.replica());
    let credential = if Token::is_well_formed(text) {
        up_to_date.await?;
        Credential::of_token(text)
    } else if let Some(verifier) = app.settings.jwt.as_ref().filter(|_| looks_like_jwt(text)) {
        let verified = verify(verifier, text, app.evaluation.now()).await?;
        up_to_date.await?;
        let user_id = match &verified.user {
            NamedUser::Id(id) => Some(*id),
            NamedUser::Email(email) => app.evaluation.user_by_email(email).await?.map(|user| user.id),
        };
        Credential::of_jwt(&verified, user_id.ok_or_else(Problem::unauthorized)?)
    } else {
        return Err(Problem::unauthorized());
    };
    Principal::of(&app.evaluation, credential, app.evaluation.now()).await
}

/// What a JWT says. Why one is refused is for the log alone.
async fn verify(verifier: &JwtVerifier, text: &str, now: Instant) -> Result<VerifiedJwt, Problem> {
    verifier.verify(text, now).await.map_err(|refused| {
        tracing::debug!(why = %refused, "a JWT is refused");
        match refused {
            JwtRefused::KeysUnavailable => {
                let detail = "the keys of the issuer of JWTs cannot be fetched; try again";
                Problem::unavailable("issuer_unavailable", detail, "5")
            }
            _ => Problem::unauthorized(),
        }
    })
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
