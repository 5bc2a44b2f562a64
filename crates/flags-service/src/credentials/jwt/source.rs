//! Where an issuer's keys come from: a file or a URL, read by one task, in the background.

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
    keys::{Ignored, KeySet},
};
use crate::clock::Clock;

/// How often keys are read again, in microseconds like all that follow: keys that were withdrawn are gone after so long.
const READ_EVERY: i64 = 600 * SECOND;
/// How long after a failure they are read again.
const AFTER_FAILURE: i64 = 60 * SECOND;
/// The same while there are none at all.
const WITHOUT_KEYS: i64 = 5 * SECOND;
/// At most how often keys are read because a token names one that is not known.
const ASKED_EVERY: i64 = 60 * SECOND;
const SECOND: i64 = 1_000_000;

/// Longest that fetching may take.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Largest document, in bytes.
const MAX_BYTES: usize = 1024 * 1024;
/// Most redirects.
const MAX_REDIRECTS: usize = 3;

/// Where an issuer's keys are: a JWK Set or a JWK (RFC 7517).
#[derive(Clone, PartialEq, Eq)]
pub enum KeySource {
    /// In a file.
    File(PathBuf),
    /// At a URL: `https`, or `http` on this host.
    Url(Url),
}

impl fmt::Debug for KeySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "File({})", path.display()),
            // A query may hold a secret.
            Self::Url(url) => write!(f, "Url({})", url.host_str().unwrap_or_default()),
        }
    }
}

impl KeySource {
    /// A URL if it begins like one, a file otherwise.
    pub fn parse(text: &str) -> Result<Self, JwtConfigError> {
        let lower = text.to_ascii_lowercase();
        if !["http://", "https://"].iter().any(|scheme| lower.starts_with(scheme)) {
            return Ok(Self::File(text.into()));
        }
        let url =
            Url::parse(text).map_err(|_| JwtConfigError::Invalid("the URL of the issuer's keys cannot be read"))?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(JwtConfigError::Invalid("the URL of the issuer's keys must not hold a name or a password"));
        }
        if !is_safe(&url) {
            let why = "keys of an issuer are fetched by https:// only, or by http:// from this host";
            return Err(JwtConfigError::Invalid(why));
        }
        Ok(Self::Url(url))
    }
}

/// Whether nobody on the way can put other keys in place of those at `url`.
fn is_safe(url: &Url) -> bool {
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

/// The keys as last read, for any number of readers, and the task that reads them: nobody else does, so that one document
/// is read at a time, and a caller that goes away stops nothing.
pub(super) struct KeyRing {
    standing: watch::Sender<Standing>,
    wanted: Notify,
    closed: Notify,
    algorithms: Vec<JwtAlgorithm>,
    clock: Arc<dyn Clock>,
}

struct Standing {
    /// `None` if they could never be read.
    keys: Option<Arc<KeySet>>,
    /// When they were last begun to be read.
    begun_at: Instant,
    /// Whether they are being read.
    reading: bool,
}

impl KeyRing {
    /// Reads a file, which must have a key; fetching begins in the background.
    pub(super) async fn start(
        source: KeySource,
        algorithms: Vec<JwtAlgorithm>,
        clock: Arc<dyn Clock>,
    ) -> Result<Arc<Self>, JwtConfigError> {
        let (reader, keys) = match source {
            KeySource::File(path) => {
                let reader = Reader::File(path);
                let document = reader.read().await.map_err(JwtConfigError::File)?;
                let keys = KeySet::read(&document, &algorithms).map_err(|e| JwtConfigError::File(e.to_string()))?;
                if keys.is_empty() {
                    return Err(JwtConfigError::NoUsableKey(first_reason(&keys)));
                }
                warn_of_ignored(&keys.ignored, &[]);
                (reader, Some(Arc::new(keys)))
            }
            KeySource::Url(url) => (Reader::Url(client()?, url), None),
        };
        let standing = Standing { reading: keys.is_none(), keys, begun_at: clock.now() };
        let standing = watch::Sender::new(standing);
        let this = Self { standing, wanted: Notify::new(), closed: Notify::new(), algorithms, clock };
        let this = Arc::new(this);
        tokio::spawn(Arc::clone(&this).run(reader));
        Ok(this)
    }

    /// Ends the task.
    pub(super) fn close(&self) {
        self.closed.notify_one();
    }

    /// The keys at hand. While they are read for the first time that is waited for.
    pub(super) async fn present(&self) -> Option<Arc<KeySet>> {
        if let Some(keys) = &self.standing.borrow().keys {
            return Some(Arc::clone(keys));
        }
        self.read_through().await
    }

    /// The keys, read again unless that was begun less than a minute before `now`.
    pub(super) async fn read_again(&self, now: Instant) -> Option<Arc<KeySet>> {
        let begun = self.standing.send_if_modified(|standing| {
            let again_at = standing.begun_at.plus_micros(ASKED_EVERY);
            let begins = !standing.reading && again_at <= now;
            if begins {
                (standing.reading, standing.begun_at) = (true, now);
            }
            begins
        });
        if begun {
            self.wanted.notify_one();
        }
        self.read_through().await
    }

    /// The keys, once nobody is reading them.
    async fn read_through(&self) -> Option<Arc<KeySet>> {
        let mut standing = self.standing.subscribe();
        // The sender is `self`.
        let standing = standing.wait_for(|standing| !standing.reading).await.ok()?;
        standing.keys.clone()
    }

    async fn run(self: Arc<Self>, reader: Reader) {
        let mut failed = false;
        loop {
            let wait_until = {
                let standing = self.standing.borrow();
                let wait = match (&standing.keys, failed) {
                    (None, _) => WITHOUT_KEYS,
                    (Some(_), true) => AFTER_FAILURE,
                    (Some(_), false) => READ_EVERY,
                };
                (!standing.reading).then(|| standing.begun_at.plus_micros(wait))
            };
            if let Some(at) = wait_until {
                tokio::select! {
                    () = self.clock.wait_until(at) => {}
                    // Unless that was done in the meantime, when the time had come for it anyway.
                    () = self.wanted.notified() => if !self.standing.borrow().reading { continue },
                    () = self.closed.notified() => return,
                }
            }
            let now = self.clock.now();
            self.standing.send_modify(|standing| (standing.reading, standing.begun_at) = (true, now));
            let read = tokio::select! {
                read = reader.read() => read,
                () = self.closed.notified() => return,
            };
            failed = !self.take_in(read, &reader);
        }
    }

    /// Puts what was read in place of what was there; `false` if nothing could be read, and the old keys stay.
    fn take_in(&self, read: Result<Vec<u8>, String>, reader: &Reader) -> bool {
        let read = read.and_then(|document| KeySet::read(&document, &self.algorithms).map_err(|e| e.to_string()));
        if let Err(error) = &read {
            tracing::warn!(error, from = reader.name(), "the keys of the issuer of JWTs cannot be read");
        }
        let keys = read.ok().map(Arc::new);
        if let Some(keys) = &keys {
            let before = self.standing.borrow().keys.clone();
            warn_of_ignored(&keys.ignored, before.as_ref().map_or(&[], |before| &before.ignored));
            if keys.is_empty() {
                tracing::warn!(from = reader.name(), "the issuer of JWTs has no key that can be used");
            }
        }
        let is_read = keys.is_some();
        self.standing.send_modify(|standing| {
            standing.reading = false;
            if let Some(keys) = keys {
                standing.keys = Some(keys);
            }
        });
        is_read
    }
}

/// Says which keys are not used, once for each.
fn warn_of_ignored(ignored: &[Ignored], known: &[Ignored]) {
    for key in ignored.iter().filter(|key| !known.contains(key)) {
        tracing::warn!(kid = key.key_id.as_deref(), "a key of the issuer of JWTs is not used: {}", key.why);
    }
}

/// Why the first key of a document without a usable one is none, for whoever wrote it.
fn first_reason(keys: &KeySet) -> String {
    keys.ignored.first().map_or_else(String::new, |ignored| format!(": {}", ignored.why))
}

/// Reads the document.
enum Reader {
    File(PathBuf),
    Url(reqwest::Client, Url),
}

fn client() -> Result<reqwest::Client, JwtConfigError> {
    let redirects = redirect::Policy::custom(|attempt| {
        if attempt.previous().len() > MAX_REDIRECTS {
            attempt.error("too many redirects")
        } else if is_safe(attempt.url()) {
            attempt.follow()
        } else {
            attempt.error("a redirect to where others could listen in")
        }
    });
    let client = reqwest::Client::builder().timeout(TIMEOUT).redirect(redirects).build();
    client.map_err(|error| JwtConfigError::File(with_causes(&error)))
}

impl Reader {
    /// Where from, without what may be a secret.
    fn name(&self) -> &str {
        match self {
            Self::File(_) => "file",
            Self::Url(_, url) => url.host_str().unwrap_or_default(),
        }
    }

    async fn read(&self) -> Result<Vec<u8>, String> {
        match self {
            Self::File(path) => {
                let path = path.clone();
                let read = tokio::task::spawn_blocking(move || read_file(&path)).await;
                read.map_err(|error| error.to_string())?
            }
            Self::Url(client, url) => fetch(client, url).await,
        }
    }
}

fn read_file(path: &Path) -> Result<Vec<u8>, String> {
    let failed = |error: std::io::Error| format!("{}: {error}", path.display());
    let mut document = Vec::new();
    let most = u64::try_from(MAX_BYTES).unwrap_or(u64::MAX);
    std::fs::File::open(path).map_err(failed)?.take(most + 1).read_to_end(&mut document).map_err(failed)?;
    if document.len() > MAX_BYTES {
        return Err(format!("{}: it is larger than 1 MiB", path.display()));
    }
    Ok(document)
}

async fn fetch(client: &reqwest::Client, url: &Url) -> Result<Vec<u8>, String> {
    let failed = |error: reqwest::Error| with_causes(&error.without_url());
    let request = client.get(url.clone()).header("accept", "application/jwk-set+json, application/json");
    let mut response = request.send().await.map_err(failed)?.error_for_status().map_err(failed)?;
    let mut document = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(failed)? {
        if document.len() + chunk.len() > MAX_BYTES {
            return Err("the answer is larger than 1 MiB".to_owned());
        }
        document.extend_from_slice(&chunk);
    }
    Ok(document)
}

/// An error says what failed, and its causes why.
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
