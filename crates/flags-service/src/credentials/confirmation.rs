//! Confirmation of credentials by the database, while the replica does not follow their changes.
//!
//! The replica accepts a revoked token until it has applied the revocation. If it has not followed the change log for a
//! minute although the database responds, the server therefore asks the database before it accepts a credential. While
//! the database does not respond, the server continues with its last state.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant as MonotonicInstant},
};

use flags_store::principals::{self, CredentialRef, EffectiveGrant, StoredPrincipal};
use parking_lot::Mutex;
use quick_cache::sync::Cache;
use tokio::{sync::Semaphore, time::timeout};

use crate::{core::Core, replica::Replica};

/// Time for which an answer of the database, or its absence, is used again.
const REUSE_INTERVAL: Duration = Duration::from_secs(1);
/// Timeout for an answer of the database, including the wait for a permit.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);
/// Maximum number of concurrent queries.
const MAX_QUERIES: usize = 4;
/// Maximum number of cached answers.
const MAX_ANSWERS: usize = 10_000;

/// Maximum age of the replica's tokens and users at which the server accepts credentials without asking the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MaxCredentialAge(pub Duration);

impl Default for MaxCredentialAge {
    /// One minute.
    fn default() -> Self {
        Self(Duration::from_secs(60))
    }
}

/// Asks the database about credentials. Cheap to clone.
#[derive(Clone)]
pub struct CredentialConfirmation(Arc<State>);

struct State {
    core: Core,
    replica: Arc<Replica>,
    max_age: MaxCredentialAge,
    answers: Cache<CredentialRef, (MonotonicInstant, Option<StoredPrincipal>)>,
    /// Time of the last query without an answer.
    unanswered_at: Mutex<Option<MonotonicInstant>>,
    permits: Semaphore,
}

impl fmt::Debug for CredentialConfirmation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CredentialConfirmation").finish_non_exhaustive()
    }
}

/// Answer of the database about a credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Confirmation {
    /// The replica is current, or the database does not respond. The server uses its own state.
    Unavailable,
    /// The credential is not valid.
    Rejected,
    /// The credential is valid and has these permissions.
    Granted(EffectiveGrant),
}

impl CredentialConfirmation {
    /// Creates the service. It asks the database if the tokens and users of `replica` are older than `max_age`.
    pub fn new(core: Core, replica: Arc<Replica>, max_age: MaxCredentialAge) -> Self {
        Self(Arc::new(State {
            core,
            replica,
            max_age,
            answers: Cache::new(MAX_ANSWERS),
            unanswered_at: Mutex::default(),
            permits: Semaphore::new(MAX_QUERIES),
        }))
    }

    /// Whether the replica has not followed changes of credentials for too long.
    pub fn is_needed(&self) -> bool {
        self.0.replica.credentials_age() >= self.0.max_age.0
    }

    /// Asks the database about a credential if [`is_needed`](Self::is_needed).
    pub async fn confirm(&self, credential: &CredentialRef) -> Confirmation {
        if !self.is_needed() {
            return Confirmation::Unavailable;
        }
        let recent = self.0.answers.get(credential).filter(|(at, _)| at.elapsed() < REUSE_INTERVAL);
        let answer = match recent {
            Some((_, answer)) => Some(answer),
            None => self.ask(credential).await,
        };
        match answer {
            None => Confirmation::Unavailable,
            Some(principal) => {
                let grant = principal.and_then(|principal| principal.grant_at(self.0.core.now()));
                grant.map_or(Confirmation::Rejected, Confirmation::Granted)
            }
        }
    }

    /// Reads a credential from the database. Returns `None` if the database cannot be read.
    async fn ask(&self, credential: &CredentialRef) -> Option<Option<StoredPrincipal>> {
        let started_at = MonotonicInstant::now();
        let query = async {
            let _permit = self.0.permits.acquire().await.ok()?;
            if self.0.unanswered_at.lock().is_some_and(|at| at.elapsed() < REUSE_INTERVAL) {
                return None;
            }
            self.0.core.read(async |conn| principals::find(conn, credential).await).await.ok()
        };
        let answer = timeout(ANSWER_TIMEOUT, query).await.ok().flatten();
        match &answer {
            Some(principal) => self.0.answers.insert(*credential, (started_at, *principal)),
            None => self.note_unanswered(),
        }
        answer
    }

    fn note_unanswered(&self) {
        let mut unanswered_at = self.0.unanswered_at.lock();
        if unanswered_at.is_none_or(|at| at.elapsed() >= REUSE_INTERVAL) {
            *unanswered_at = Some(MonotonicInstant::now());
        }
    }
}
