//! Confirmation of credentials by the database while the replica is outdated.
//!
//! The replica accepts a revoked token until it has applied the revocation. If the replica has not
//! followed the change log for a minute, the server therefore asks the database before it accepts a
//! credential. If the database does not respond either, the server continues with the state of the
//! replica.

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

/// Time for which the server reuses the result of a query, including a failure.
const REUSE_INTERVAL: Duration = Duration::from_secs(1);
/// Timeout for each of two steps: waiting until fewer than [`MAX_QUERIES`] queries are running, and the query itself.
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
    /// Time of the last query that failed or timed out.
    unanswered_at: Mutex<Option<MonotonicInstant>>,
    /// Time of the last successful query.
    answered_at: Mutex<Option<MonotonicInstant>>,
    permits: Semaphore,
}

impl fmt::Debug for CredentialConfirmation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CredentialConfirmation").finish_non_exhaustive()
    }
}

/// Result of checking a credential in the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Confirmation {
    /// The database was not asked because the replica is current, or it does not respond. The server uses the state of
    /// the replica.
    Unavailable,
    /// The database responds, but too many queries are waiting. The caller can retry.
    Busy,
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
            answered_at: Mutex::default(),
            permits: Semaphore::new(MAX_QUERIES),
        }))
    }

    /// Whether the replica's users and tokens are older than the maximum age.
    pub fn is_needed(&self) -> bool {
        self.0.replica.credentials_age() >= self.0.max_age.0
    }

    /// Asks the database about a credential if [`is_needed`](Self::is_needed).
    pub async fn confirm(&self, credential: &CredentialRef) -> Confirmation {
        if !self.is_needed() {
            return Confirmation::Unavailable;
        }
        match self.ask(credential).await {
            Answer::Silent => Confirmation::Unavailable,
            Answer::Busy => Confirmation::Busy,
            Answer::Principal(principal) => {
                let grant = principal.and_then(|principal| principal.grant_at(self.0.core.now()));
                grant.map_or(Confirmation::Rejected, Confirmation::Granted)
            }
        }
    }

    /// Returns a recent answer about the credential or, without one, reads it from the database.
    async fn ask(&self, credential: &CredentialRef) -> Answer {
        if let Some(answer) = self.recent_answer(credential) {
            return answer;
        }
        let Ok(Ok(_permit)) = timeout(ANSWER_TIMEOUT, self.0.permits.acquire()).await else {
            return self.answer_without_query();
        };
        // Another request may have asked about the same credential during the wait.
        if let Some(answer) = self.recent_answer(credential) {
            return answer;
        }
        let started_at = MonotonicInstant::now();
        let query = self.0.core.read(async |conn| principals::find(conn, credential).await);
        let Ok(Ok(principal)) = timeout(ANSWER_TIMEOUT, query).await else {
            *self.0.unanswered_at.lock() = Some(MonotonicInstant::now());
            return Answer::Silent;
        };
        *self.0.answered_at.lock() = Some(MonotonicInstant::now());
        self.0.answers.insert(*credential, (started_at, principal));
        Answer::Principal(principal)
    }

    /// Returns the answer if no query could start in time: `Busy` if the database has answered
    /// another query recently, otherwise `Silent`.
    fn answer_without_query(&self) -> Answer {
        if is_recent(*self.0.answered_at.lock()) { Answer::Busy } else { Answer::Silent }
    }

    fn recent_answer(&self, credential: &CredentialRef) -> Option<Answer> {
        if let Some((at, principal)) = self.0.answers.get(credential)
            && is_recent(Some(at))
        {
            return Some(Answer::Principal(principal));
        }
        is_recent(*self.0.unanswered_at.lock()).then_some(Answer::Silent)
    }
}

/// Result of a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    /// The state of the credential; `None` if it does not exist.
    Principal(Option<StoredPrincipal>),
    /// The database does not respond, or the query failed.
    Silent,
    /// The database responds, but too many queries are waiting.
    Busy,
}

fn is_recent(at: Option<MonotonicInstant>) -> bool {
    at.is_some_and(|at| at.elapsed() < REUSE_INTERVAL)
}

#[cfg(test)]
mod tests {
    use flags_domain::{Role, TokenGrant};
    use uuid::Uuid;

    use super::*;
    use crate::{SystemClock, change_feed::load};

    #[tokio::test]
    async fn delayed_query_is_busy_only_after_a_recent_answer_of_the_database() {
        let directory = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}", directory.path().join("flags.db").display());
        let store = flags_store::Store::open(&url.parse().unwrap()).await.unwrap();
        store.migrate().await.unwrap();
        let replica = Arc::new(Replica::new(load(&store).await.unwrap()));
        let core = Core::new(store, Arc::new(SystemClock::default()));
        let confirmation = CredentialConfirmation::new(core, replica, MaxCredentialAge(Duration::ZERO));
        assert_eq!(confirmation.answer_without_query(), Answer::Silent);
        assert_eq!(confirmation.confirm(&CredentialRef::Token([1; 32])).await, Confirmation::Rejected);
        assert_eq!(confirmation.answer_without_query(), Answer::Busy);
        let unknown = Uuid::from_u128(1);
        assert_eq!(confirmation.confirm(&CredentialRef::User(unknown)).await, Confirmation::Rejected);
        let user = Confirmation::Granted(EffectiveGrant(TokenGrant::Role(Role::User)));
        assert_eq!(confirmation.confirm(&CredentialRef::AnyUser(unknown)).await, user);
    }
}
