//! What all use cases share: the store, the clock, the replica, and the one way to change something.

use std::{sync::Arc, time::Duration};

use flags_store::{
    Author, Committed, Conn, Store, StoreError, Tx,
    change_log::Revision,
    idempotency::{self, Claim, IdempotencyKey, StoredResponse},
    within,
};
use tokio::{
    runtime::Handle,
    sync::Notify,
    time::{Instant, timeout_at},
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
    wakeup: Arc<Notify>,
}

/// Something that changes state. It may be applied several times, each time in a new transaction, until one commits.
pub trait Command: Clone + Send + Sync + 'static {
    /// What the caller wants to know.
    type Output: Send + 'static;

    /// Checks and changes the state within `tx`. `author` is who asks for it.
    fn apply(&self, tx: &mut Tx, author: &Author) -> impl Future<Output = Result<Self::Output>> + Send;

    /// Writes the revision into what the caller gets, where it shows one. Not called if nothing changed.
    fn stamp(_output: &mut Self::Output, _revision: i64) {}
}

/// Something that is no change of state, such as who is signed in: it stands in no log and takes no revision. It may be
/// applied several times, like a [`Command`].
pub(crate) trait UnloggedCommand: Send + Sync + 'static {
    /// What the caller wants to know.
    type Output: Send + 'static;

    /// Checks and writes within `tx`.
    fn apply(&self, tx: &mut Tx) -> impl Future<Output = Result<Self::Output>> + Send;
}

/// What a caller asks for: in whose name and, if they gave it a key, once only.
pub struct CommandRequest<T> {
    author: Author,
    once: Option<Idempotency<T>>,
}

/// Makes the answer to a change of what came out of it.
type Render<T> = Arc<dyn Fn(&T, &Committed) -> Vec<u8> + Send + Sync>;

struct Idempotency<T> {
    key: IdempotencyKey,
    render: Render<T>,
}

impl<T> From<Author> for CommandRequest<T> {
    fn from(author: Author) -> Self {
        Self { author, once: None }
    }
}

impl<T> CommandRequest<T> {
    /// To be carried out once, however often it is asked for under this key. The answer is made by `render`, kept with the
    /// change in one transaction, and given to whoever asks again ([`ServiceError::Answered`]).
    pub fn once(author: Author, key: IdempotencyKey, render: Render<T>) -> Self {
        Self { author, once: Some(Idempotency { key, render }) }
    }

    /// In whose name.
    pub const fn author(&self) -> &Author {
        &self.author
    }

    /// The key, if it is to be carried out once.
    pub(crate) fn key(&self) -> Option<&IdempotencyKey> {
        self.once.as_ref().map(|once| &once.key)
    }

    /// The answer to be kept.
    pub(crate) fn render(&self, output: &T, committed: &Committed) -> Vec<u8> {
        self.once.as_ref().map_or_else(Vec::new, |once| (once.render)(output, committed))
    }
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
pub struct CommandOutcome<T> {
    /// What the caller wants to know.
    pub output: T,
    /// The proof.
    pub committed: Committed,
}

impl Core {
    /// For a process without a replica: the worker and commands. Must be called on the runtime that is to carry writes.
    pub fn new(store: Store, clock: Arc<dyn Clock>) -> Self {
        Self { store, clock, follower: None, runtime: Handle::current() }
    }

    /// For a server, whose replica `wakeup` wakes up.
    #[must_use]
    pub fn with_replica(self, replica: Arc<Replica>, wakeup: Arc<Notify>) -> Self {
        Self { follower: Some(Follower { replica, wakeup }), ..self }
    }

    /// The present instant.
    pub fn now(&self) -> flags_domain::Instant {
        self.clock.now()
    }

    /// Waits until the clock says `at` or later.
    pub async fn wait_until(&self, at: flags_domain::Instant) {
        self.clock.wait_until(at).await;
    }

    /// The store.
    pub const fn store(&self) -> &Store {
        &self.store
    }

    /// Carries out a command: state, log and revision commit together or not at all. Returns once the change is durable
    /// and this process evaluates by it (or cannot follow its log for two seconds, which it says in its own).
    pub async fn execute<C: Command>(
        &self,
        intent: impl Into<CommandRequest<C::Output>>,
        command: C,
    ) -> Result<CommandOutcome<C::Output>> {
        let (this, intent) = (self.clone(), intent.into());
        self.detached(async move { this.write(&intent, &command).await }).await
    }

    /// Carries out a command again and again until it is through, in as many revisions as it takes; `next` prepares it for
    /// the next time.
    pub(crate) async fn execute_until_finished<C: Command<Output = Progress>>(
        &self,
        author: Author,
        mut command: C,
        next: fn(&mut C),
    ) -> Result<Committed> {
        let (this, intent) = (self.clone(), author.into());
        let steps = async move {
            loop {
                let done = this.write(&intent, &command).await?;
                if done.output == Progress::Finished {
                    return Ok(done.committed);
                }
                next(&mut command);
            }
        };
        self.detached(steps).await
    }

    /// Writes down something that is no change of state.
    pub(crate) async fn execute_unlogged<B: UnloggedCommand>(&self, books: B) -> Result<B::Output> {
        let this = self.clone();
        self.detached(async move { again_after_collisions(|| this.attempt_unlogged(&books)).await }).await
    }

    async fn attempt_unlogged<B: UnloggedCommand>(&self, books: &B) -> Result<B::Output> {
        let mut tx = self.begin().await?;
        match books.apply(&mut tx).await {
            Ok(output) => {
                tx.commit_unlogged().await?;
                Ok(output)
            }
            Err(error) => {
                // If this fails as well, the connection is broken and the database rolls back by itself.
                let _ = tx.rollback().await;
                Err(error)
            }
        }
    }

    /// Does something to its end, even if nobody waits for it any more.
    pub(crate) async fn detached<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        let outcome = self.runtime.spawn(work).await;
        outcome.unwrap_or_else(|error| Err(ServiceError::Internal(error.to_string())))
    }

    async fn write<C: Command>(
        &self,
        intent: &CommandRequest<C::Output>,
        command: &C,
    ) -> Result<CommandOutcome<C::Output>> {
        let outcome = again_after_collisions(|| self.attempt(intent, command)).await;
        match &outcome {
            Ok(done) => {
                metrics::count_changes(done.committed.entries());
                self.reach(done.committed.revision()).await;
            }
            // Whoever asks again is to find the change as well.
            Err(ServiceError::Answered(StoredResponse { revision, .. })) => self.reach_number(*revision).await,
            Err(_) => {}
        }
        outcome
    }

    /// Waits, for some time, until this process evaluates by a revision.
    async fn reach(&self, revision: Revision) {
        let Some(follower) = &self.follower else { return };
        follower.wakeup.notify_one();
        if !follower.replica.wait_for(revision, APPLY_DEADLINE).await {
            tracing::warn!(%revision, "the replica lags behind a write of this process");
        }
    }

    async fn reach_number(&self, number: i64) {
        if let Some(follower) = &self.follower {
            self.reach(Revision { number, ..follower.replica.revision() }).await;
        }
    }

    pub(crate) async fn begin(&self) -> Result<Tx> {
        let clock = Arc::clone(&self.clock);
        Ok(self.store.begin_with_clock(Arc::new(move || clock.now())).await?)
    }

    async fn attempt<C: Command>(
        &self,
        intent: &CommandRequest<C::Output>,
        command: &C,
    ) -> Result<CommandOutcome<C::Output>> {
        let mut tx = self.begin().await?;
        match Self::apply(&mut tx, intent, command).await {
            Ok(output) => Self::commit::<C>(tx, intent, output).await,
            Err(error) => {
                // If this fails as well, the connection is broken and the database rolls back by itself.
                let _ = tx.rollback().await;
                Err(error)
            }
        }
    }

    async fn apply<C: Command>(tx: &mut Tx, intent: &CommandRequest<C::Output>, command: &C) -> Result<C::Output> {
        if let Some(once) = &intent.once {
            claim(tx, &once.key).await?;
        }
        command.apply(tx, &intent.author).await
    }

    async fn commit<C: Command>(
        tx: Tx,
        intent: &CommandRequest<C::Output>,
        mut output: C::Output,
    ) -> Result<CommandOutcome<C::Output>> {
        let stamp = |output: &mut C::Output, committed: &Committed| {
            if !committed.entries().is_empty() {
                C::stamp(output, committed.revision().number);
            }
        };
        let committed = match &intent.once {
            None => {
                let committed = tx.commit(&intent.author).await?;
                stamp(&mut output, &committed);
                committed
            }
            Some(once) => {
                let answer = |committed: &Committed| {
                    stamp(&mut output, committed);
                    (once.render)(&output, committed)
                };
                tx.commit_with_response(&intent.author, &once.key, answer).await?
            }
        };
        Ok(CommandOutcome { output, committed })
    }

    /// Reads from the database.
    pub async fn read<T>(&self, query: impl AsyncFnOnce(&mut Conn) -> flags_store::Result<T>) -> Result<T> {
        let work = async {
            let mut conn = self.store.conn().await?;
            query(&mut conn).await
        };
        Ok(within(DEADLINE, work).await?)
    }
}

/// Tries something until no other transaction is in its way, for a limited time.
async fn again_after_collisions<T, F: Future<Output = Result<T>>>(attempt: impl Fn() -> F) -> Result<T> {
    let deadline = Instant::now() + DEADLINE;
    let mut attempts = 1;
    loop {
        let outcome = timeout_at(deadline, attempt()).await;
        match outcome.unwrap_or_else(|_| Err(ServiceError::Store(timed_out()))) {
            Err(ServiceError::Store(StoreError::Collision(_))) if attempts < ATTEMPTS => {
                tokio::time::sleep(Duration::from_millis(5) * attempts).await;
                attempts += 1;
            }
            outcome => return outcome,
        }
    }
}

fn timed_out() -> StoreError {
    StoreError::Unavailable("the database did not answer in time".to_owned())
}

/// Claims a key for the transaction; fails if it was used.
async fn claim(tx: &mut Tx, key: &IdempotencyKey) -> Result<()> {
    match idempotency::claim(tx, key).await? {
        Claim::Free => Ok(()),
        Claim::Answered(kept) => Err(ServiceError::Answered(kept)),
        Claim::Taken => Err(ServiceError::KeyTaken),
    }
}
