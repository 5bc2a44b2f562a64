//! Cache of the sessions in use on this server. It saves a database query for most requests.

use std::{
    sync::Arc,
    time::{Duration, Instant as MonotonicInstant},
};

use flags_domain::Instant;
use flags_store::{
    StoreError,
    sessions::{self as store, SessionRecord},
};
use parking_lot::Mutex;
use quick_cache::sync::Cache;
use tracing::Instrument as _;
use uuid::Uuid;

use crate::{
    clock::micros,
    core::Core,
    error::{Result, ServiceError},
};

/// Time until a cached session is read from the database again.
const REVALIDATION_INTERVAL: Duration = Duration::from_secs(1);
/// Timeout for reading a session that is already cached. After a timeout, the server uses the
/// cached state.
const REVALIDATION_TIMEOUT: Duration = Duration::from_secs(1);
/// Maximum number of cached sessions.
const MAX_SESSIONS: usize = 100_000;
/// Minimum time between two writes of the last use of a session: one minute in microseconds.
const LAST_USE_WRITE_INTERVAL_MICROS: i64 = 60 * 1_000_000;

/// Cached sessions, keyed by the SHA-256 of their secrets.
pub(super) struct SessionCache {
    core: Core,
    idle_timeout: Duration,
    sessions: Cache<[u8; 32], Arc<CachedSession>>,
}

struct CachedSession {
    session: SessionRecord,
    activity: Mutex<SessionActivity>,
}

struct SessionActivity {
    /// Start of the last read from the database.
    revalidated_at: MonotonicInstant,
    /// Latest use on this server or, according to the database, on another one.
    last_used_at: Instant,
    /// Last use that this server has written to the database.
    last_written_at: Instant,
}

impl SessionCache {
    /// Creates an empty cache. A session ends after `idle_timeout` without use.
    pub(super) fn new(core: Core, idle_timeout: Duration) -> Self {
        Self { core, idle_timeout, sessions: Cache::new(MAX_SESSIONS) }
    }

    pub(super) fn contains(&self, hash: &[u8; 32]) -> bool {
        self.sessions.peek(hash).is_some()
    }

    /// Removes a session. The next lookup reads the database.
    pub(super) fn remove(&self, hash: &[u8; 32]) {
        self.sessions.remove(hash);
    }

    /// Removes all sessions of a user.
    pub(super) fn remove_user(&self, user_id: Uuid) {
        self.sessions.retain(|_, cached| cached.session.user_id != user_id);
    }

    /// Returns the session whose secret has this SHA-256, unless it has ended. If `counts_as_use` is `true`, the lookup
    /// restarts the idle timeout.
    ///
    /// While the database is unavailable, the cached state of a session remains valid.
    pub(super) async fn find(&self, hash: &[u8; 32], counts_as_use: bool) -> Result<Option<SessionRecord>> {
        let now = self.core.now();
        let cached = match self.sessions.get(hash) {
            Some(cached) if !cached.begin_revalidation_if_due() => Some(cached),
            // Boxed because the future is large and most requests do not need it.
            cached => Box::pin(self.load(hash, cached)).await?,
        };
        let Some(cached) = cached.filter(|cached| self.is_active(cached, now)) else { return Ok(None) };
        if counts_as_use {
            self.record_use(&cached, now);
        }
        Ok(Some(cached.session))
    }

    /// Reads a session from the database. If that fails because the database is unavailable, returns `cached`.
    async fn load(&self, hash: &[u8; 32], cached: Option<Arc<CachedSession>>) -> Result<Option<Arc<CachedSession>>> {
        let read = self.core.read(async |conn| store::find(conn, hash).await);
        let found = match &cached {
            None => read.await,
            // A slow database must not delay the response, because the cached session can be used.
            Some(_) => tokio::time::timeout(REVALIDATION_TIMEOUT, read).await.unwrap_or_else(|_| Err(timed_out())),
        };
        match (found, cached) {
            (Ok(Some(session)), Some(cached)) => {
                cached.update_last_use(&session);
                Ok(Some(cached))
            }
            (Ok(Some(session)), None) => {
                let cached = Arc::new(CachedSession::new(session));
                self.sessions.insert(*hash, Arc::clone(&cached));
                Ok(Some(cached))
            }
            (Ok(None), _) => {
                self.sessions.remove(hash);
                Ok(None)
            }
            (Err(ServiceError::Store(StoreError::Unavailable(_))), Some(cached)) => Ok(Some(cached)),
            (Err(error), _) => Err(error),
        }
    }

    fn is_active(&self, cached: &CachedSession, now: Instant) -> bool {
        let idle_end = cached.activity.lock().last_used_at.plus_micros(micros(self.idle_timeout));
        now < cached.session.expires_at && now < idle_end
    }

    /// Records a use in memory. Also writes it to the database at most once a minute, for other
    /// servers and for restarts.
    fn record_use(&self, cached: &CachedSession, now: Instant) {
        let write_is_due = {
            let mut activity = cached.activity.lock();
            activity.last_used_at = activity.last_used_at.max(now);
            let is_due = activity.last_written_at.plus_micros(LAST_USE_WRITE_INTERVAL_MICROS) <= now;
            if is_due {
                activity.last_written_at = now;
            }
            is_due
        };
        if write_is_due {
            let (core, id) = (self.core.clone(), cached.session.id);
            let write = async move {
                if let Err(error) = store::update_last_seen(core.store(), id, now).await {
                    tracing::debug!(%error, "failed to store the last-used time of a session");
                }
            };
            tokio::spawn(write.in_current_span());
        }
    }
}

fn timed_out() -> ServiceError {
    StoreError::Unavailable("database query timed out".to_owned()).into()
}

impl CachedSession {
    fn new(session: SessionRecord) -> Self {
        let activity = SessionActivity {
            revalidated_at: MonotonicInstant::now(),
            last_used_at: session.last_seen_at,
            last_written_at: session.last_seen_at,
        };
        Self { session, activity: Mutex::new(activity) }
    }

    /// Returns whether the caller must read the session from the database. Of several concurrent callers only one gets
    /// `true`; the others use the cached state.
    fn begin_revalidation_if_due(&self) -> bool {
        let mut activity = self.activity.lock();
        let is_due = activity.revalidated_at.elapsed() >= REVALIDATION_INTERVAL;
        if is_due {
            activity.revalidated_at = MonotonicInstant::now();
        }
        is_due
    }

    fn update_last_use(&self, session: &SessionRecord) {
        let mut activity = self.activity.lock();
        activity.last_used_at = activity.last_used_at.max(session.last_seen_at);
    }
}
