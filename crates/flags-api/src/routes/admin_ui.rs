//! The embedded admin UI. The UI is one HTML page, which the server sends for every path of the UI's router, and the
//! files that the page loads.
//!
//! The build of `web/admin` writes the files, compressed copies (`.gz`), and `addresses.json`, the list of path
//! templates of the UI's router. Debug builds read the files from disk; release builds contain them. If the UI was not
//! built, the server shows a welcome page instead.

use actix_web::{
    HttpRequest, HttpResponse,
    http::header::{
        ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, ContentEncoding, ETAG, EntityTag, Header as _, IF_NONE_MATCH,
        IfNoneMatch, VARY,
    },
    web::{self, Path, ServiceConfig},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use rust_embed::{EmbeddedFile, RustEmbed};

use super::{
    docs::{declare, read_method},
    reply::HandlerResult,
    system::unmatched,
};
use crate::route_facts::{ContentSecurityPolicy, RouteFacts};

/// Files of the built admin UI. Empty if the UI has not been built.
#[derive(RustEmbed)]
#[folder = "../../web/admin/dist"]
struct UiFiles;

const PAGE: &str = "index.html";
const ADDRESSES: &str = "addresses.json";
/// Folder of files whose names contain a hash of their content.
const HASHED_FILES: &str = "assets/";

/// How long clients may cache a file.
#[derive(Clone, Copy)]
enum Caching {
    /// Forever, because the name contains a hash of the content.
    Immutable,
    /// Clients must revalidate the file with a conditional request before each use.
    Revalidated,
}

impl Caching {
    const fn header_value(self) -> &'static str {
        match self {
            Self::Immutable => "public, max-age=31536000, immutable",
            Self::Revalidated => "no-cache",
        }
    }
}

/// Returns whether this program contains the admin UI.
pub fn has_admin_ui() -> bool {
    UiFiles::get(PAGE).is_some()
}

/// Registers the page for every path of the UI's router, and the UI's files. The UI must have been built.
pub(super) fn configure(config: &mut ServiceConfig) {
    let facts = RouteFacts::open().with_content_security_policy(ContentSecurityPolicy::AdminUi);
    for address in addresses() {
        let page = web::resource(address).guard(read_method()).to(get_page);
        config.service(declare(page, "/{admin_ui_page}", facts));
    }
    for name in UiFiles::iter().filter(|name| is_public_root_file(name)) {
        let file = web::resource(format!("/{name}"))
            .guard(read_method())
            .to(move |request: HttpRequest| get_root_file(request, name.to_string()));
        config.service(declare(file, "/{admin_ui_file}", facts));
    }
    let hashed = web::resource("/assets/{file:.*}").guard(read_method()).to(get_hashed_file);
    config.service(declare(hashed, "/assets/{file}", facts));
}

/// Reads the path templates of the UI's router, in the syntax of actix.
fn addresses() -> Vec<String> {
    let Some(file) = UiFiles::get(ADDRESSES) else { return Vec::new() };
    match serde_json::from_slice(&file.data) {
        Ok(addresses) => addresses,
        Err(error) => {
            tracing::error!(%error, "the list of admin UI addresses is invalid; build the admin UI again");
            Vec::new()
        }
    }
}

/// Whether the server sends this file under its own path below `/`. It does not do so for the page, `addresses.json`,
/// compressed copies, hidden files and files in folders.
fn is_public_root_file(name: &str) -> bool {
    let is_compressed = name.ends_with(".gz");
    !name.contains('/') && !name.starts_with('.') && !is_compressed && ![PAGE, ADDRESSES].contains(&name)
}

async fn get_page(request: HttpRequest) -> HandlerResult {
    respond(&request, PAGE, Caching::Revalidated).await
}

async fn get_root_file(request: HttpRequest, name: String) -> HandlerResult {
    respond(&request, &name, Caching::Revalidated).await
}

async fn get_hashed_file(request: HttpRequest, file: Path<String>) -> HandlerResult {
    respond(&request, &format!("{HASHED_FILES}{file}"), Caching::Immutable).await
}

/// Responds with a file, compressed if the client accepts it. The entity tag differs between the two representations.
async fn respond(request: &HttpRequest, name: &str, caching: Caching) -> HandlerResult {
    let compressed = if accepts_gzip(request) { UiFiles::get(&format!("{name}.gz")) } else { None };
    let is_compressed = compressed.is_some();
    let Some(file) = compressed.or_else(|| UiFiles::get(name)) else { return unmatched().await };
    let tag = entity_tag(&file);
    let is_current = matches_tag(request, &tag);
    let mut response = if is_current { HttpResponse::NotModified() } else { HttpResponse::Ok() };
    response
        .insert_header((ETAG, tag))
        .insert_header((CACHE_CONTROL, caching.header_value()))
        .insert_header((VARY, ACCEPT_ENCODING.as_str()));
    if is_current {
        return Ok(response.finish());
    }
    if is_compressed {
        response.insert_header((CONTENT_ENCODING, ContentEncoding::Gzip));
    }
    Ok(response.content_type(media_type(name)).body(file.data.into_owned()))
}

/// Whether `Accept-Encoding` names gzip with a quality above 0.
fn accepts_gzip(request: &HttpRequest) -> bool {
    let header = request.headers().get(ACCEPT_ENCODING).and_then(|value| value.to_str().ok()).unwrap_or_default();
    header.split(',').any(|coding| {
        let mut parts = coding.split(';').map(str::trim);
        let is_gzip = parts.next().is_some_and(|name| name.eq_ignore_ascii_case("gzip"));
        let is_excluded = parts.any(|parameter| {
            parameter.strip_prefix("q=").and_then(|quality| quality.parse::<f32>().ok()).is_some_and(|q| q <= 0.0)
        });
        is_gzip && !is_excluded
    })
}

/// Strong entity tag of the bytes that are sent.
fn entity_tag(file: &EmbeddedFile) -> EntityTag {
    EntityTag::new_strong(URL_SAFE_NO_PAD.encode(file.metadata.sha256_hash()))
}

/// Whether `If-None-Match` names the tag. An invalid header is ignored.
fn matches_tag(request: &HttpRequest, tag: &EntityTag) -> bool {
    match IfNoneMatch::parse(request) {
        Ok(IfNoneMatch::Any) => request.headers().contains_key(IF_NONE_MATCH),
        Ok(IfNoneMatch::Items(tags)) => tags.iter().any(|other| other.weak_eq(tag)),
        Err(_) => false,
    }
}

/// Media type of the files that the UI's build produces.
fn media_type(name: &str) -> &'static str {
    match name.rsplit_once('.').map(|(_, extension)| extension) {
        Some("html") => "text/html; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        Some("woff2") => "font/woff2",
        Some("json" | "map") => "application/json",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    #[test]
    fn sends_compressed_files_only_to_clients_that_accept_gzip() {
        let cases = [
            ("gzip", true),
            ("br, gzip;q=0.5", true),
            ("GZIP", true),
            ("gzip;q=0", false),
            ("gzip; q=0.0", false),
            ("br", false),
            ("", false),
        ];
        for (header, expected) in cases {
            let request = TestRequest::default().insert_header((ACCEPT_ENCODING, header)).to_http_request();
            assert_eq!(accepts_gzip(&request), expected, "{header}");
        }
    }

    #[test]
    fn serves_only_public_files_of_the_root_folder_under_their_own_path() {
        for name in [PAGE, ADDRESSES, ".gitkeep", "theme.js.gz", "assets/index-abc.js"] {
            assert!(!is_public_root_file(name), "{name}");
        }
        assert!(is_public_root_file("theme.js"));
    }
}
