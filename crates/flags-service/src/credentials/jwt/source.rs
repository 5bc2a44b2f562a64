//! Loading of the issuer's keys from a file or a URL by a background task.

use std::{
    fmt,
    io::Read as _,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use flags_domain::Instant;
use reqwest::{Url, redirect};
use tokio::sync::{Notify, watch};

use super::{
    JwtAlgorithm, JwtConfigError,
    keys::{IgnoredKey, KeySet},
};
use crate::clock::Clock;

/// Interval between two loads in microseconds. Keys that the issuer has removed stay accepted for at most this time.
const RELOAD_INTERVAL_MICROS: i64 = 600 * SECOND_MICROS;
/// Delay after a failed load in microseconds.
const RETRY_DELAY_MICROS: i64 = 60 * SECOND_MICROS;
/// Delay after a failed load in microseconds while no keys have been loaded yet.
const INITIAL_RETRY_DELAY_MICROS: i64 = 5 * SECOND_MICROS;
/// Minimum time in microseconds between the previous load and a load that an unknown key id triggers.
const UNKNOWN_KEY_RELOAD_INTERVAL_MICROS: i64 = 60 * SECOND_MICROS;
const SECOND_MICROS: i64 = 1_000_000;

/// Timeout for one HTTP request, including redirects and the body.
const FETCH_TIMEOUT: Duration = Duration::from_secs(5);
/// Maximum size of a key document in bytes.
const MAX_BYTES: usize = 1024 * 1024;
/// Maximum number of HTTP redirects.
const MAX_REDIRECTS: usize = 3;

/// Location of the issuer's JWK Set or JWK (RFC 7517).
#[derive(Clone, PartialEq, Eq)]
pub enum KeySource {
    /// File path.
    File(PathBuf),
    /// URL with the scheme `https`, or `http` for a loopback host.
    Url(Url),
}

impl fmt::Debug for KeySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "File({})", path.display()),
            // Only the host is printed, because the query may contain a secret.
            Self::Url(url) => write!(f, "Url({})", url.host_str().unwrap_or_default()),
        }
    }
}

impl KeySource {
    /// Parses a URL if the text starts with `http://` or `https://`; otherwise the text is a file path.
    pub fn parse(text: &str) -> Result<Self, JwtConfigError> {
        let lower = text.to_ascii_lowercase();
        if !["http://", "https://"].iter().any(|scheme| lower.starts_with(scheme)) {
            return Ok(Self::File(text.into()));
        }
        let url = Url::parse(text).map_err(|_| JwtConfigError::Invalid("the URL of the JWT keys is malformed"))?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(JwtConfigError::Invalid("the URL of the JWT keys must not contain a user name or password"));
        }
        if !is_tamper_proof(&url) {
            let message = "the URL of the JWT keys must use https://, or http:// with a loopback host";
            return Err(JwtConfigError::Invalid(message));
        }
        Ok(Self::Url(url))
    }
}

/// Returns whether the connection to `url` prevents network attackers from replacing the keys.
fn is_tamper_proof(url: &Url) -> bool {
    match url.scheme() {
        "https" => true,
        "http" => url.host_str().is_some_and(is_loopback),
        _ => false,
    }
}

fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    address.map_or_else(|_| host.eq_ignore_ascii_case("localhost"), |address| address.is_loopback())
}

/// Most recently loaded keys, shared by all requests. Only the background task loads keys, so there is at most one load
/// at a time, and a cancelled request does not cancel a load.
pub(super) struct KeyCache {
    state: watch::Sender<LoadState>,
    reload_requested: Notify,
    closed: Notify,
    algorithms: Vec<JwtAlgorithm>,
    clock: Arc<dyn Clock>,
}

struct LoadState {
    /// `None` until the first successful load.
    keys: Option<Arc<KeySet>>,
    /// Start of the most recent load.
    started_at: Instant,
    /// Whether a load is requested or in progress.
    is_loading: bool,
}

impl KeyCache {
    /// Starts the background task. A key file is loaded first and must contain a usable key.
    pub(super) async fn start(
        source: KeySource,
        algorithms: Vec<JwtAlgorithm>,
        clock: Arc<dyn Clock>,
    ) -> Result<Arc<Self>, JwtConfigError> {
        let (loader, keys) = match source {
            KeySource::File(path) => {
                let loader = KeyLoader::File(path);
                let document = loader.load().await.map_err(JwtConfigError::KeySource)?;
                let keys = KeySet::parse(&document, &algorithms)
                    .map_err(|error| JwtConfigError::KeySource(error.to_string()))?;
                if keys.is_empty() {
                    return Err(JwtConfigError::NoUsableKey(first_reason(&keys)));
                }
                warn_about_ignored_keys(&keys.ignored, &[]);
                (loader, Some(Arc::new(keys)))
            }
            KeySource::Url(url) => (KeyLoader::Url(http_client()?, url), None),
        };
        let state = LoadState { is_loading: keys.is_none(), keys, started_at: clock.now() };
        let state = watch::Sender::new(state);
        let cache = Self { state, reload_requested: Notify::new(), closed: Notify::new(), algorithms, clock };
        let cache = Arc::new(cache);
        tokio::spawn(Arc::clone(&cache).run(loader));
        Ok(cache)
    }

    /// Stops the background task.
    pub(super) fn close(&self) {
        self.closed.notify_one();
    }

    /// Returns the loaded keys. If no keys have been loaded yet, waits for a load in progress and
    /// returns `None` if the load fails.
    pub(super) async fn current(&self) -> Option<Arc<KeySet>> {
        if let Some(keys) = &self.state.borrow().keys {
            return Some(Arc::clone(keys));
        }
        self.wait_for_load().await
    }

    /// Reloads the keys, unless the last load started less than a minute before `now`. Returns the resulting keys.
    pub(super) async fn reload(&self, now: Instant) -> Option<Arc<KeySet>> {
        let reload_starts = self.state.send_if_modified(|state| {
            let reload_allowed_at = state.started_at.plus_micros(UNKNOWN_KEY_RELOAD_INTERVAL_MICROS);
            let reload_starts = !state.is_loading && reload_allowed_at <= now;
            if reload_starts {
                (state.is_loading, state.started_at) = (true, now);
            }
            reload_starts
        });
        if reload_starts {
            self.reload_requested.notify_one();
        }
        self.wait_for_load().await
    }

    /// Waits until no load is in progress. Returns the keys, or `None` if no load has succeeded
    /// yet.
    async fn wait_for_load(&self) -> Option<Arc<KeySet>> {
        let mut state = self.state.subscribe();
        // Cannot fail: `self` owns the sender.
        let state = state.wait_for(|state| !state.is_loading).await.ok()?;
        state.keys.clone()
    }

    async fn run(self: Arc<Self>, loader: KeyLoader) {
        let mut last_load_failed = false;
        loop {
            let next_load_at = {
                let state = self.state.borrow();
                let delay = match (&state.keys, last_load_failed) {
                    (None, _) => INITIAL_RETRY_DELAY_MICROS,
                    (Some(_), true) => RETRY_DELAY_MICROS,
                    (Some(_), false) => RELOAD_INTERVAL_MICROS,
                };
                (!state.is_loading).then(|| state.started_at.plus_micros(delay))
            };
            if let Some(at) = next_load_at {
                tokio::select! {
                    () = self.clock.wait_until(at) => {}
                    // A scheduled load may already have served this request. In that case
                    // `is_loading` is false.
                    () = self.reload_requested.notified() => if !self.state.borrow().is_loading { continue },
                    () = self.closed.notified() => return,
                }
            }
            let now = self.clock.now();
            self.state.send_modify(|state| (state.is_loading, state.started_at) = (true, now));
            let loaded = tokio::select! {
                loaded = loader.load() => loaded,
                () = self.closed.notified() => return,
            };
            last_load_failed = !self.finish_load(loaded, &loader);
        }
    }

    /// Ends a load. If the document is valid, replaces the keys and returns `true`; otherwise keeps
    /// the old keys.
    fn finish_load(&self, loaded: Result<Vec<u8>, String>, loader: &KeyLoader) -> bool {
        let parsed =
            loaded.and_then(|document| KeySet::parse(&document, &self.algorithms).map_err(|error| error.to_string()));
        if let Err(error) = &parsed {
            tracing::warn!(error, source = loader.name(), "failed to load the JWT keys");
        }
        let keys = parsed.ok().map(Arc::new);
        if let Some(keys) = &keys {
            let previous = self.state.borrow().keys.clone();
            warn_about_ignored_keys(&keys.ignored, previous.as_ref().map_or(&[], |previous| &previous.ignored));
            if keys.is_empty() {
                tracing::warn!(source = loader.name(), "the JWT issuer publishes no usable key");
            }
        }
        let succeeded = keys.is_some();
        self.state.send_modify(|state| {
            state.is_loading = false;
            if let Some(keys) = keys {
                state.keys = Some(keys);
            }
        });
        succeeded
    }
}

/// Logs the ignored keys that are not in `already_logged`.
fn warn_about_ignored_keys(ignored: &[IgnoredKey], already_logged: &[IgnoredKey]) {
    for key in ignored.iter().filter(|key| !already_logged.contains(key)) {
        tracing::warn!(kid = key.key_id.as_deref(), reason = key.reason, "ignoring a key of the JWT issuer");
    }
}

/// Reason why the first key of a document is unusable, as a suffix for [`JwtConfigError::NoUsableKey`].
fn first_reason(keys: &KeySet) -> String {
    keys.ignored.first().map_or_else(String::new, |ignored| format!(": {}", ignored.reason))
}

enum KeyLoader {
    File(PathBuf),
    Url(reqwest::Client, Url),
}

fn http_client() -> Result<reqwest::Client, JwtConfigError> {
    let redirects = redirect::Policy::custom(|attempt| {
        if attempt.previous().len() > MAX_REDIRECTS {
            attempt.error("too many redirects")
        } else if is_tamper_proof(attempt.url()) {
            attempt.follow()
        } else {
            attempt.error("redirect to a URL without https")
        }
    });
    let client = reqwest::Client::builder().timeout(FETCH_TIMEOUT).redirect(redirects).build();
    client.map_err(|error| JwtConfigError::KeySource(with_causes(&error)))
}

impl KeyLoader {
    /// Description of the source for the application log: `file` or the host. The full URL may contain a secret.
    fn name(&self) -> &str {
        match self {
            Self::File(_) => "file",
            Self::Url(_, url) => url.host_str().unwrap_or_default(),
        }
    }

    async fn load(&self) -> Result<Vec<u8>, String> {
        match self {
            Self::File(path) => {
                let path = path.clone();
                let content = tokio::task::spawn_blocking(move || read_file(&path)).await;
                content.map_err(|error| error.to_string())?
            }
            Self::Url(client, url) => fetch(client, url).await,
        }
    }
}

fn read_file(path: &Path) -> Result<Vec<u8>, String> {
    let describe = |error: std::io::Error| format!("{}: {error}", path.display());
    let mut document = Vec::new();
    let max_bytes = u64::try_from(MAX_BYTES).unwrap_or(u64::MAX);
    std::fs::File::open(path).map_err(describe)?.take(max_bytes + 1).read_to_end(&mut document).map_err(describe)?;
    if document.len() > MAX_BYTES {
        return Err(format!("{}: the file is larger than 1 MiB", path.display()));
    }
    Ok(document)
}

async fn fetch(client: &reqwest::Client, url: &Url) -> Result<Vec<u8>, String> {
    let request = client.get(url.clone()).header("accept", "application/jwk-set+json, application/json");
    let response = request.send().await.and_then(reqwest::Response::error_for_status);
    let mut response = response.map_err(describe)?;
    let mut document = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(describe)? {
        if document.len() + chunk.len() > MAX_BYTES {
            return Err("the response is larger than 1 MiB".to_owned());
        }
        document.extend_from_slice(&chunk);
    }
    Ok(document)
}

/// Formats an error without the URL, which may contain credentials.
fn describe(error: reqwest::Error) -> String {
    with_causes(&error.without_url())
}

/// Formats an error with the chain of its causes.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
