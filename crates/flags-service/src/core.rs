//! What all use cases share: the store, the clock, the replica, and the one way to change something.

use std::{sync::Arc, time::Duration};

use flags_store::{Author, Committed, Conn, Store, StoreError, Tx};
use tokio::{
    runtime::Handle,
    sync::Notify,
    time::{Instant, timeout, timeout_at},
};

use crate::{
    clock::Clock,
    error::{Result, ServiceError},
    metrics,
    replica::Replica,
};

/// Longest that a write with all its attempts, or a read of the database, may take.
const DEADLINE: Duration = Duration::from_secs(10);
/// Longest that an acknowledged write waits for the own replica.
const APPLY_DEADLINE: Duration = Duration::from_secs(2);
/// How often a write that collides with others is tried.
const ATTEMPTS: u32 = 8;

/// Store, clock and, in a server, the replica. Cheap to clone.
#[derive(Clone)]
pub struct Core {
    store: Store,
    clock: Arc<dyn Clock>,
    follower: Option<Follower>,
    /// Writes run here, so that a client that goes away cannot cancel one half way.
    runtime: Handle,
}

/// The replica and the bell of the task that feeds it.
#[derive(Clone)]
struct Follower {
    replica: Arc<Replica>,
    bell: Arc<Notify>,
}

/// Something that changes state. It may be applied several times, each time in a new transaction, until one commits.
pub trait Command: Clone + Send + Sync + 'static {
    /// What the caller wants to know.
    type Output: Send + 'static;

    /// Checks and changes the state within `tx`. `author` is who asks for it.
    fn apply(&self, tx: &mut Tx, author: &Author) -> impl Future<Output = Result<Self::Output>> + Send;
}

/// Whether a change that takes several revisions is through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// The command must be carried out again.
    More,
    /// Everything is done.
    Finished,
}

/// A change that is durable, and what came out of it.
#[derive(Clone, Debug)]
pub struct Done<T> {
    /// What the caller wants to know.
    pub output: T,
    /// The proof.
    pub committed: Committed,
}

impl<T> Done<T> {
    /// Writes the revision into what was changed; where nothing was, the old one stays.
    pub(crate) fn stamped(mut self, revision: impl FnOnce(&mut T) -> &mut i64) -> Self {
        if !self.committed.entries().is_empty() {
            *revision(&mut self.output) = self.committed.revision().number;
        }
        self
    }
}

impl Core {
    /// For a process without a replica: the worker and commands. Must be called on the runtime that is to carry writes.
    pub fn new(store: Store, clock: Arc<dyn Clock>) -> Self {
        Self { store, clock, follower: None, runtime: Handle::current() }
    }

    /// For a server, whose replica `bell` wakes up.
    #[must_use]
    pub fn with_replica(self, replica: Arc<Replica>, bell: Arc<Notify>) -> Self {
        Self { follower: Some(Follower { replica, bell }), ..self }
    }

    /// The present instant.
    pub fn now(&self) -> flags_domain::Instant {
        self.clock.now()
    }

    /// The store.
    pub const fn store(&self) -> &Store {
        &self.store
    }

    /// Carries out a command: state, log and revision commit together or not at all. Returns once the change is durable
    /// and this process evaluates by it.
    pub async fn execute<C: Command>(&self, author: Author, command: C) -> Result<Done<C::Output>> {
        let this = self.clone();
        self.spawn(async move { this.write(&author, &command).await }).await
    }

    /// Carries out a command again and again until it is through, in as many revisions as it takes; `next` prepares it for
    /// the next time.
    pub(crate) async fn execute_until_finished<C: Command<Output = Progress>>(
        &self,
        author: Author,
        mut command: C,
        next: fn(&mut C),
    ) -> Result<Committed> {
        let this = self.clone();
        let steps = async move {
            loop {
                let done = this.write(&author, &command).await?;
                if done.output == Progress::Finished {
                    return Ok(done.committed);
                }
                next(&mut command);
            }
        };
        self.spawn(steps).await
    }

    async fn spawn<T: Send + 'static>(&self, work: impl Future<Output = Result<T>> + Send + 'static) -> Result<T> {
        let outcome = self.runtime.spawn(work).await;
        outcome.unwrap_or_else(|error| Err(ServiceError::Internal(error.to_string())))
    }

    async fn write<C: Command>(&self, author: &Author, command: &C) -> Result<Done<C::Output>> {
        let deadline = Instant::now() + DEADLINE;
        let mut attempt = 1;
        let done = loop {
            let outcome = timeout_at(deadline, self.attempt(author, command)).await;
            match outcome.unwrap_or_else(|_| Err(ServiceError::Store(timed_out()))) {
                Err(ServiceError::Store(StoreError::Collision(_))) if attempt < ATTEMPTS => {
                    tokio::time::sleep(Duration::from_millis(5) * attempt).await;
                    attempt += 1;
                }
                outcome => break outcome?,
            }
        };
        metrics::count_changes(done.committed.entries());
        if let Some(follower) = &self.follower {
            follower.bell.notify_one();
            if !follower.replica.wait_for(done.committed.revision(), APPLY_DEADLINE).await {
                tracing::warn!(revision = %done.committed.revision(), "the replica lags behind a write of this process");
            }
        }
        Ok(done)
    }

    async fn attempt<C: Command>(&self, author: &Author, command: &C) -> Result<Done<C::Output>> {
        let clock = Arc::clone(&self.clock);
        let mut tx = self.store.begin_by(Arc::new(move || clock.now())).await?;
        match command.apply(&mut tx, author).await {
            Ok(output) => Ok(Done { output, committed: tx.commit(author).await? }),
            Err(error) => {
                // If this fails as well, the connection is broken and the database rolls back by itself.
                let _ = tx.rollback().await;
                Err(error)
            }
        }
    }

    /// Reads from the database.
    pub async fn read<T>(&self, query: impl AsyncFnOnce(&mut Conn) -> flags_store::Result<T>) -> Result<T> {
        let work = async {
            let mut conn = self.store.conn().await?;
            query(&mut conn).await
        };
        Ok(timeout(DEADLINE, work).await.unwrap_or_else(|_| Err(timed_out()))?)
    }
}

fn timed_out() -> StoreError {
    StoreError::Unavailable("the database did not answer in time".to_owned())
}
