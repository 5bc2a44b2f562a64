//! The session cookie.

use actix_web::{
    HttpRequest,
    cookie::{Cookie, SameSite, time::Duration},
};
use flags_service::credentials::secret::{Secret, SecretKind, hash};

use super::client::is_direct_loopback;
use crate::state::Settings;

/// Because of the `__Host-` prefix, browsers accept the cookie only over TLS, for this host and for the path `/`
/// (RFC 6265bis, section 4.1.3.2).
const COOKIE_NAME: &str = "__Host-flags_session";
/// Name of the cookie for a browser that connects over plain HTTP from the same machine.
const LOOPBACK_COOKIE_NAME: &str = "flags_session";

const fn cookie_name(loopback: bool) -> &'static str {
    if loopback { LOOPBACK_COOKIE_NAME } else { COOKIE_NAME }
}

/// Returns the SHA-256 of the request's session secret; `None` without a cookie or if the secret is malformed.
pub(crate) fn session_secret_hash(request: &HttpRequest, settings: &Settings) -> Option<[u8; 32]> {
    let cookie = request.cookie(cookie_name(is_direct_loopback(request, settings)))?;
    Secret::is_well_formed(SecretKind::Session, cookie.value()).then(|| hash(cookie.value()))
}

/// Builds the cookie that signs the browser in.
pub(crate) fn session_cookie(
    request: &HttpRequest,
    settings: &Settings,
    secret: &Secret,
    max_age_seconds: i64,
) -> Cookie<'static> {
    cookie(request, settings, secret.reveal().to_owned(), Duration::seconds(max_age_seconds))
}

/// Builds the cookie that signs the browser out: an empty value that expires at once.
pub(crate) fn expired_session_cookie(request: &HttpRequest, settings: &Settings) -> Cookie<'static> {
    cookie(request, settings, String::new(), Duration::ZERO)
}

fn cookie(request: &HttpRequest, settings: &Settings, value: String, max_age: Duration) -> Cookie<'static> {
    let loopback = is_direct_loopback(request, settings);
    Cookie::build(cookie_name(loopback), value)
        .path("/")
        .http_only(true)
        .secure(!loopback)
        .same_site(SameSite::Strict)
        .max_age(max_age)
        .finish()
}
