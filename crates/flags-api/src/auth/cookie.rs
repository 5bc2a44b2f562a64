//! The cookie of a session.

use actix_web::{
    HttpRequest,
    cookie::{Cookie, SameSite, time::Duration},
};
use flags_service::credentials::secret::{Secret, SecretKind, hash};

use super::client::is_plain_loopback;
use crate::app::Settings;

/// Browsers take a cookie of this name over TLS alone, for this host alone and for all its paths.
const NAME: &str = "__Host-flags_session";
/// To a browser on the same machine without TLS.
const LOOPBACK_NAME: &str = "flags_session";

const fn name(loopback: bool) -> &'static str {
    if loopback { LOOPBACK_NAME } else { NAME }
}

/// SHA-256 of the secret in a request's cookie, if there is one that may be.
pub(crate) fn session_secret(request: &HttpRequest, settings: &Settings) -> Option<[u8; 32]> {
    let cookie = request.cookie(name(is_plain_loopback(request, settings)))?;
    Secret::is_well_formed(SecretKind::Session, cookie.value()).then(|| hash(cookie.value()))
}

/// The cookie that signs in, for so many seconds.
pub(crate) fn session_cookie(
    request: &HttpRequest,
    settings: &Settings,
    secret: &Secret,
    seconds: i64,
) -> Cookie<'static> {
    cookie(request, settings, secret.reveal().to_owned(), Duration::seconds(seconds))
}

/// The cookie that signs out.
pub(crate) fn no_session_cookie(request: &HttpRequest, settings: &Settings) -> Cookie<'static> {
    cookie(request, settings, String::new(), Duration::ZERO)
}

fn cookie(request: &HttpRequest, settings: &Settings, value: String, max_age: Duration) -> Cookie<'static> {
    let loopback = is_plain_loopback(request, settings);
    Cookie::build(name(loopback), value)
        .path("/")
        .http_only(true)
        .secure(!loopback)
        .same_site(SameSite::Strict)
        .max_age(max_age)
        .finish()
}
