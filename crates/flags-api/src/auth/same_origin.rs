//! Against forged requests: what a cookie changes must come from a page of this very site. `SameSite=Strict` keeps other sites'
//! requests from carrying the cookie; this holds where a browser does not, and for other hosts of the same site.

use actix_web::{
    HttpRequest,
    http::{
        Method, StatusCode, Uri,
        header::{CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderName, ORIGIN, TRANSFER_ENCODING},
    },
};

use crate::{app::Settings, extract::is_json, problem::Problem};

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Lets a request with a cookie through that changes nothing, or that comes from here and carries JSON.
pub(super) fn check_change_by_cookie(request: &HttpRequest, settings: &Settings) -> Result<(), Problem> {
    if [Method::GET, Method::HEAD, Method::OPTIONS].contains(request.method()) {
        return Ok(());
    }
    if !comes_from_here(request, settings) {
        return Err(cross_site());
    }
    // No form can send JSON; a request without a body, such as most DELETEs, needs to say nothing of it.
    let headers = request.headers();
    let has_body = headers.contains_key(TRANSFER_ENCODING)
        || headers.get(CONTENT_LENGTH).is_some_and(|length| length.as_bytes() != b"0");
    if (has_body || headers.contains_key(CONTENT_TYPE)) && !is_json(request) {
        let detail = "send the body as JSON: Content-Type: application/json";
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", detail));
    }
    Ok(())
}

/// Lets a sign-in through that comes from here, or from no browser: another site must not sign its visitors in.
pub(crate) fn check_sign_in(request: &HttpRequest, settings: &Settings) -> Result<(), Problem> {
    let by_browser = request.headers().contains_key(ORIGIN) || request.headers().contains_key(SEC_FETCH_SITE);
    if by_browser && !comes_from_here(request, settings) { Err(cross_site()) } else { Ok(()) }
}

fn cross_site() -> Problem {
    let detail = "a change by cookie must come from a page of this server: Origin or Sec-Fetch-Site must say so";
    Problem::forbidden("cross_site_request", detail)
}

/// What browsers say of where a request comes from, which scripts cannot change. Without a word of it, it is from nowhere.
fn comes_from_here(request: &HttpRequest, settings: &Settings) -> bool {
    let only = |name: HeaderName| {
        let mut values = request.headers().get_all(name);
        let value = values.next().and_then(|value| value.to_str().ok());
        (value, values.next().is_some())
    };
    let (site, several_sites) = only(SEC_FETCH_SITE);
    let (origin, several_origins) = only(ORIGIN);
    if several_sites || several_origins {
        return false;
    }
    let site_fits = site.map(|site| site == "same-origin");
    let origin_fits = origin.map(|origin| match &settings.public_url {
        Some(own) => origin.eq_ignore_ascii_case(own),
        None => is_authority(origin, only(HOST).0.unwrap_or_default()),
    });
    match (site_fits, origin_fits) {
        (None, None) => false,
        // A proxy may have changed the host's name: then the browser's own judgement counts.
        (Some(site), _) => site,
        (None, Some(origin)) => origin,
    }
}

/// Whether an origin is of this host and port. The scheme does not matter: TLS ends at a proxy.
fn is_authority(origin: &str, host: &str) -> bool {
    let Ok(uri) = origin.parse::<Uri>() else { return false };
    let default_port = match uri.scheme_str() {
        Some("https") => ":443",
        Some("http") => ":80",
        _ => return false,
    };
    let plain = |authority: &str| authority.strip_suffix(default_port).unwrap_or(authority).to_ascii_lowercase();
    let Some(authority) = uri.authority() else { return false };
    !host.is_empty() && plain(authority.as_str()) == plain(host)
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    fn from_here(headers: &[(&'static str, &'static str)], public_url: Option<&str>) -> bool {
        let request = TestRequest::post().insert_header((HOST, "flags.example.com"));
        let request = headers.iter().fold(request, |r, header| r.append_header(*header)).to_http_request();
        let settings = Settings { public_url: public_url.map(ToOwned::to_owned), ..Settings::default() };
        comes_from_here(&request, &settings)
    }

    #[test]
    fn only_this_very_origin_is_here() {
        assert!(from_here(&[("Origin", "https://flags.example.com")], None));
        assert!(from_here(&[("Origin", "https://flags.example.com:443")], None));
        assert!(from_here(&[("Origin", "http://FLAGS.example.com")], None));
        assert!(from_here(&[("Sec-Fetch-Site", "same-origin")], None));
        for elsewhere in [
            "https://evil.com",
            "https://evil.flags.example.com",
            "https://flags.example.com.evil.com",
            "https://flags.example.com:8443",
            "null",
            "",
            "file://",
            "https://flags.example.com@evil.com",
        ] {
            assert!(!from_here(&[("Origin", elsewhere)], None), "{elsewhere}");
        }
        for site in ["cross-site", "same-site", "none", "Same-Origin", ""] {
            assert!(!from_here(&[("Sec-Fetch-Site", site), ("Origin", "https://flags.example.com")], None), "{site}");
        }
        assert!(!from_here(&[], None), "silence is no origin");
        let two = [("Origin", "https://flags.example.com"), ("Origin", "https://evil.com")];
        assert!(!from_here(&two, None));
    }

    #[test]
    fn a_public_url_takes_the_place_of_the_host() {
        assert!(from_here(&[("Origin", "https://public.example.com")], Some("https://public.example.com")));
        assert!(!from_here(&[("Origin", "https://flags.example.com")], Some("https://public.example.com")));
        assert!(!from_here(&[("Origin", "http://public.example.com")], Some("https://public.example.com")));
    }
}
