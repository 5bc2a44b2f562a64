//! The middleware that finds out who calls. It refuses nobody: a handler that needs a caller says so in its signature.

use actix_web::{
    Error, HttpMessage as _,
    body::MessageBody,
    dev::{ServiceRequest, ServiceResponse},
    http::header::AUTHORIZATION,
    middleware::Next,
    web::Data,
};

use flags_service::credentials::tokens::Token;

use super::Principal;
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
async fn identify(app: &App, request: &ServiceRequest, token: &str) -> Result<Principal, Problem> {
    if !Token::is_well_formed(token) {
        return Err(Problem::unauthorized());
    }
    wait_for_min_revision(request.headers(), app.evaluation.replica()).await?;
    Principal::of_token(&app.evaluation, token, app.evaluation.now()).await
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
