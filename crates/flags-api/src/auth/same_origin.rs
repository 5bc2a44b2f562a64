//! Protection against cross-site request forgery.
//!
//! `SameSite=Strict` already prevents browsers from sending the session cookie with requests of other sites. These
//! checks also cover browsers that ignore `SameSite`, and other hosts of the same site.

use actix_web::{
    HttpRequest,
    http::{
        Method, StatusCode, Uri,
        header::{CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderName, ORIGIN, TRANSFER_ENCODING},
    },
};

use crate::{extract::has_json_content_type, problem::Problem, state::Settings};

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Checks a request that is authenticated by a cookie. Any method other than GET, HEAD and OPTIONS must come from this
/// origin (else 403), and a body must be JSON (else 415).
pub(super) fn check_cookie_request(request: &HttpRequest, settings: &Settings) -> Result<(), Problem> {
    if [Method::GET, Method::HEAD, Method::OPTIONS].contains(request.method()) {
        return Ok(());
    }
    if !is_same_origin(request, settings) {
        return Err(cross_site_request());
    }
    // HTML forms cannot send JSON. A request without a body, such as most DELETEs, needs no `Content-Type`.
    let headers = request.headers();
    let has_body = headers.contains_key(TRANSFER_ENCODING)
        || headers.get(CONTENT_LENGTH).is_some_and(|length| length.as_bytes() != b"0");
    if (has_body || headers.contains_key(CONTENT_TYPE)) && !has_json_content_type(request) {
        let detail = "Content-Type must be application/json";
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", detail));
    }
    Ok(())
}

/// Checks that a sign-in comes from this origin or from a client that is not a browser. Otherwise another site could
/// sign its visitors in to an account of its choice (login CSRF).
pub(crate) fn check_sign_in_origin(request: &HttpRequest, settings: &Settings) -> Result<(), Problem> {
    let is_browser = request.headers().contains_key(ORIGIN) || request.headers().contains_key(SEC_FETCH_SITE);
    if is_browser && !is_same_origin(request, settings) { Err(cross_site_request()) } else { Ok(()) }
}

fn cross_site_request() -> Problem {
    let detail = "a sign-in, or a change that is authenticated by a cookie, must come from the server's own origin; \
                  check the Origin and Sec-Fetch-Site headers";
    Problem::forbidden("cross_site_request", detail)
}

/// Whether the request comes from a page of this server, according to `Sec-Fetch-Site` and `Origin`. Scripts cannot set
/// these headers. Returns false if both are missing or one is repeated.
fn is_same_origin(request: &HttpRequest, settings: &Settings) -> bool {
    if is_repeated(request, SEC_FETCH_SITE) || is_repeated(request, ORIGIN) {
        return false;
    }
    let (site, origin) = (header_text(request, SEC_FETCH_SITE), header_text(request, ORIGIN));
    let site_matches = site.map(|site| site == "same-origin");
    let origin_matches = origin.map(|origin| match &settings.public_url {
        Some(public_url) => origin.eq_ignore_ascii_case(public_url),
        None => origin_matches_host(origin, header_text(request, HOST).unwrap_or_default()),
    });
    match (site_matches, origin_matches) {
        (None, None) => false,
        // `Sec-Fetch-Site` takes precedence: a proxy may have replaced `Host`, but the browser knows the real origin.
        (Some(site), _) => site,
        (None, Some(origin)) => origin,
    }
}

fn is_repeated(request: &HttpRequest, name: HeaderName) -> bool {
    request.headers().get_all(name).nth(1).is_some()
}

fn header_text(request: &HttpRequest, name: HeaderName) -> Option<&str> {
    request.headers().get(name)?.to_str().ok()
}

/// Whether the origin has this host and port. The scheme is ignored, because a proxy may terminate TLS.
fn origin_matches_host(origin: &str, host: &str) -> bool {
    let Ok(uri) = origin.parse::<Uri>() else { return false };
    let default_port = match uri.scheme_str() {
        Some("https") => ":443",
        Some("http") => ":80",
        _ => return false,
    };
    let Some(authority) = uri.authority() else { return false };
    let (authority, host) = (without_port(authority.as_str(), default_port), without_port(host, default_port));
    !host.is_empty() && authority.eq_ignore_ascii_case(host)
}

/// Removes this port from the end of an authority.
fn without_port<'a>(authority: &'a str, port: &str) -> &'a str {
    authority.strip_suffix(port).unwrap_or(authority)
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    fn is_accepted(headers: &[(&'static str, &'static str)], public_url: Option<&str>) -> bool {
        let request = TestRequest::post().insert_header((HOST, "flags.example.com"));
        let request = headers.iter().fold(request, |r, header| r.append_header(*header)).to_http_request();
        let settings = Settings { public_url: public_url.map(ToOwned::to_owned), ..Settings::default() };
        is_same_origin(&request, &settings)
    }

    #[test]
    fn accepts_only_the_same_origin() {
        assert!(is_accepted(&[("Origin", "https://flags.example.com")], None));
        assert!(is_accepted(&[("Origin", "https://flags.example.com:443")], None));
        assert!(is_accepted(&[("Origin", "http://FLAGS.example.com")], None));
        assert!(is_accepted(&[("Sec-Fetch-Site", "same-origin")], None));
        for other_origin in [
            "https://evil.com",
            "https://evil.flags.example.com",
            "https://flags.example.com.evil.com",
            "https://flags.example.com:8443",
            "null",
            "",
            "file://",
            "https://flags.example.com@evil.com",
        ] {
            assert!(!is_accepted(&[("Origin", other_origin)], None), "{other_origin}");
        }
        for site in ["cross-site", "same-site", "none", "Same-Origin", ""] {
            assert!(!is_accepted(&[("Sec-Fetch-Site", site), ("Origin", "https://flags.example.com")], None), "{site}");
        }
        assert!(!is_accepted(&[], None), "both headers are missing");
        let two = [("Origin", "https://flags.example.com"), ("Origin", "https://evil.com")];
        assert!(!is_accepted(&two, None));
    }

    #[test]
    fn public_url_replaces_the_host_header() {
        assert!(is_accepted(&[("Origin", "https://public.example.com")], Some("https://public.example.com")));
        assert!(!is_accepted(&[("Origin", "https://flags.example.com")], Some("https://public.example.com")));
        assert!(!is_accepted(&[("Origin", "http://public.example.com")], Some("https://public.example.com")));
    }
}
