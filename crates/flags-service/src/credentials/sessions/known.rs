//! What a server remembers of the sessions in use, so that a request seldom asks the database.

use std::{
    sync::Arc,
    time::{Duration, Instant as Moment},
};

use flags_domain::Instant;
use flags_store::{
    StoreError,
    sessions::{self as store, SessionRecord},
};
use parking_lot::Mutex;
use quick_cache::sync::Cache;
use uuid::Uuid;

use crate::{
    clock::micros,
    core::Core,
    error::{Result, ServiceError},
};

/// What was read of a session counts for so long.
const FRESH_FOR: Duration = Duration::from_secs(1);
/// How long a look at the database may take for a session that is known already.
const LOOK: Duration = Duration::from_secs(1);
/// Most sessions remembered.
const CAPACITY: usize = 100_000;
/// How exactly the last use is written down, in microseconds: to the minute.
const TOUCH_EVERY: i64 = 60 * 1_000_000;

/// The sessions that were found lately, by the SHA-256 of their secrets.
pub(super) struct KnownSessions {
    core: Core,
    idle: Duration,
    sessions: Cache<[u8; 32], Arc<Known>>,
}

/// What is remembered of a session.
struct Known {
    session: SessionRecord,
    seen: Mutex<Seen>,
}

struct Seen {
    /// When the database was last asked.
    read_at: Moment,
    /// When it was last used here or, as the database says, elsewhere.
    used_at: Instant,
    /// What of that is written down.
    written: Instant,
}

impl KnownSessions {
    /// Of a service whose sessions end when they are not used for `idle`.
    pub(super) fn new(core: Core, idle: Duration) -> Self {
        Self { core, idle, sessions: Cache::new(CAPACITY) }
    }

    /// Whether a session was found lately.
    pub(super) fn remembers(&self, hash: &[u8; 32]) -> bool {
        self.sessions.peek(hash).is_some()
    }

    /// Forgets one: the next look goes to the database.
    pub(super) fn remove(&self, hash: &[u8; 32]) {
        self.sessions.remove(hash);
    }

    /// Forgets all of a user.
    pub(super) fn forget(&self, user_id: Uuid) {
        self.sessions.retain(|_, known| known.session.user_id != user_id);
    }

    /// The session whose secret has this SHA-256, if it is alive. `used` says whether this is a use of it. While the database
    /// is out of reach a known session stays what it was.
    pub(super) async fn find(&self, hash: &[u8; 32], used: bool) -> Result<Option<SessionRecord>> {
        let now = self.core.now();
        let known = match self.sessions.get(hash) {
            Some(known) if !known.needs_look() => Some(known),
            // Boxed, as it is large and not for every request.
            known => Box::pin(self.look_up(hash, known)).await?,
        };
        let Some(known) = known.filter(|known| self.is_alive(known, now)) else { return Ok(None) };
        if used {
            self.note_use(&known, now);
        }
        Ok(Some(known.session))
    }

    async fn look_up(&self, hash: &[u8; 32], before: Option<Arc<Known>>) -> Result<Option<Arc<Known>>> {
        let read = self.core.read(async |conn| store::find(conn, hash).await);
        let found = match &before {
            None => read.await,
            // Better an old answer than none for long.
            Some(_) => tokio::time::timeout(LOOK, read).await.unwrap_or_else(|_| Err(too_late())),
        };
        match (found, before) {
            (Ok(Some(session)), Some(before)) => {
                before.refresh(&session);
                Ok(Some(before))
            }
            (Ok(Some(session)), None) => {
                let known = Arc::new(Known::new(session));
                self.sessions.insert(*hash, Arc::clone(&known));
                Ok(Some(known))
            }
            (Ok(None), _) => {
                self.sessions.remove(hash);
                Ok(None)
            }
            (Err(ServiceError::Store(StoreError::Unavailable(_))), Some(before)) => Ok(Some(before)),
            (Err(error), _) => Err(error),
        }
    }

    fn is_alive(&self, known: &Known, now: Instant) -> bool {
        let idle_end = known.seen.lock().used_at.plus_micros(micros(self.idle));
        now < known.session.ends_at && now < idle_end
    }

    /// Notes a use; now and then in the database as well, for other servers and for after a restart.
    fn note_use(&self, known: &Known, now: Instant) {
        let write = {
            let mut seen = known.seen.lock();
            seen.used_at = seen.used_at.max(now);
            let due = seen.written.plus_micros(TOUCH_EVERY) <= now;
            if due {
                seen.written = now;
            }
            due
        };
        if write {
            let (core, id) = (self.core.clone(), known.session.id);
            tokio::spawn(async move {
                if let Err(error) = store::touch(core.store(), id, now).await {
                    tracing::debug!(%error, "the last use of a session was not written down");
                }
            });
        }
    }
}

fn too_late() -> ServiceError {
    StoreError::Unavailable("the database did not answer in time".to_owned()).into()
}

impl Known {
    fn new(session: SessionRecord) -> Self {
        let (used_at, written) = (session.last_seen_at, session.last_seen_at);
        Self { session, seen: Mutex::new(Seen { read_at: Moment::now(), used_at, written }) }
    }

    /// Whether the database should be asked. Of those who come at once one asks, and the others go on with what is known.
    fn needs_look(&self) -> bool {
        let mut seen = self.seen.lock();
        let due = seen.read_at.elapsed() >= FRESH_FOR;
        if due {
            seen.read_at = Moment::now();
        }
        due
    }

    fn refresh(&self, session: &SessionRecord) {
        let mut seen = self.seen.lock();
        seen.used_at = seen.used_at.max(session.last_seen_at);
    }
}
