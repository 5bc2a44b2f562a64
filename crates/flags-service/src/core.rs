//! Shared infrastructure of all services: store, clock, replica, and the execution of state changes.

#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use flags_domain::{Instant, Revision};
use flags_store::{
    Author, Committed, Conn, Store, StoreError, Tx,
    idempotency::{self, IdempotencyKey, KeyState, StoredResponse},
    principals, with_timeout,
};
use tokio::{
    runtime::Handle,
    sync::Notify,
    time::{self, timeout_at},
};
use tracing::{
    Instrument as _, Span,
    field::{Empty, display},
};

use crate::{
    clock::Clock,
    credentials::check::{CommandAuthor, CredentialCheck, OwnCredential},
    error::{Result, ServiceError},
    metrics,
    replica::Replica,
};

/// Timeout for a database read, and for a write including all retries.
const DATABASE_TIMEOUT: Duration = Duration::from_secs(10);
/// Maximum time that a committed write waits for this process's replica to apply it.
const REPLICA_APPLY_TIMEOUT: Duration = Duration::from_secs(2);
/// Maximum number of attempts for a write that conflicts with concurrent transactions.
const MAX_ATTEMPTS: u32 = 8;
/// Pause after the first conflict. The pause grows by the same amount with each further attempt.
const RETRY_PAUSE: Duration = Duration::from_millis(5);

/// Shared dependencies of all services: the store, the clock and, in a server, the replica. Cheap
/// to clone.
#[derive(Clone)]
pub struct Core {
    store: Store,
    clock: Arc<dyn Clock>,
    replica: Option<ReplicaHandle>,
    /// Writes run as tasks on this runtime, so that a client that disconnects does not cancel its write midway.
    runtime: Handle,
}

/// The replica of this process, and the wakeup of the change feed that updates it.
#[derive(Clone)]
struct ReplicaHandle {
    replica: Arc<Replica>,
    wakeup: Arc<Notify>,
}

/// A state change. It may be applied several times, each time in a new transaction, until a transaction commits.
pub trait Command: Clone + Send + Sync + 'static {
    /// Result returned to the caller.
    type Output: CommandOutput;

    /// Validates and applies the change within `tx`. The change log records `author` as the author.
    fn apply(&self, tx: &mut Tx, author: &Author) -> impl Future<Output = Result<Self::Output>> + Send;
}

/// Output of a [`Command`]. The commit determines the revision, so [`Command::apply`] cannot set it.
pub trait CommandOutput: Send + 'static {
    /// Sets the revision of the changed record to the revision of the commit. Not called if the command changed
    /// nothing.
    fn set_revision(&mut self, revision: i64);
}

/// A database change that is not recorded in the change log and takes no revision, such as opening a session. Like a
/// [`Command`], it may be applied several times.
pub(crate) trait UnloggedCommand: Send + Sync + 'static {
    /// Result returned to the caller.
    type Output: Send + 'static;

    /// Validates and applies the change within `tx`.
    fn apply(&self, tx: &mut Tx) -> impl Future<Output = Result<Self::Output>> + Send;
}

/// The author of a command, the credential that permits it and, if the client sent one, the
/// idempotency key.
pub struct CommandRequest<T> {
    author: CommandAuthor,
    idempotency: Option<Idempotency<T>>,
}

/// Serializes the response to a command, so that it can be stored for replay.
type RenderResponse<T> = Arc<dyn Fn(&T, &Committed) -> Vec<u8> + Send + Sync>;

struct Idempotency<T> {
    key: IdempotencyKey,
    render: RenderResponse<T>,
}

impl<T> From<CommandAuthor> for CommandRequest<T> {
    fn from(author: CommandAuthor) -> Self {
        Self { author, idempotency: None }
    }
}

impl<T> CommandRequest<T> {
    /// Creates a request that is executed at most once per key.
    ///
    /// The response that `render` serializes is stored in the same transaction as the change. A repeated request with
    /// the same key fails with [`ServiceError::Replayed`], which contains the stored response.
    pub fn idempotent(author: CommandAuthor, key: IdempotencyKey, render: RenderResponse<T>) -> Self {
        Self { author, idempotency: Some(Idempotency { key, render }) }
    }

    /// Author of the command.
    pub const fn author(&self) -> &CommandAuthor {
        &self.author
    }

    /// The idempotency key, if the client sent one.
    pub(crate) fn key(&self) -> Option<&IdempotencyKey> {
        self.idempotency.as_ref().map(|idempotency| &idempotency.key)
    }

    /// Serializes the response that is stored under the idempotency key. Empty if the request has
    /// no key.
    pub(crate) fn render(&self, output: &T, committed: &Committed) -> Vec<u8> {
        self.idempotency.as_ref().map_or_else(Vec::new, |idempotency| (idempotency.render)(output, committed))
    }
}

/// Progress of a change that is split into several commits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// The command must be executed again.
    Unfinished,
    /// The change is complete.
    Finished,
}

/// Result of a committed command.
#[derive(Clone, Debug)]
pub struct CommandOutcome<T> {
    /// Output of the command.
    pub output: T,
    /// Revision and change-log entries of the commit. There are no entries if the command changed
    /// nothing.
    pub committed: Committed,
}

impl Core {
    /// Creates a core without a replica, for the worker and for command-line tools. Writes run on
    /// the current Tokio runtime.
    ///
    /// # Panics
    /// Panics outside of a Tokio runtime.
    pub fn new(store: Store, clock: Arc<dyn Clock>) -> Self {
        Self { store, clock, replica: None, runtime: Handle::current() }
    }

    /// Adds the server's replica. `wakeup` must be the wakeup of the [`ChangeFeed`](crate::change_feed::ChangeFeed)
    /// that updates `replica`.
    #[must_use]
    pub fn with_replica(self, replica: Arc<Replica>, wakeup: Arc<Notify>) -> Self {
        Self { replica: Some(ReplicaHandle { replica, wakeup }), ..self }
    }

    pub(crate) const fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    /// Current instant of the clock.
    pub fn now(&self) -> Instant {
        self.clock.now()
    }

    /// Waits until the clock reaches `at`.
    pub async fn wait_until(&self, at: Instant) {
        self.clock.wait_until(at).await;
    }

    /// Database access.
    pub const fn store(&self) -> &Store {
        &self.store
    }

    /// Executes a command. The state change and its change-log entries commit in one transaction, and only if the
    /// author's credential is still valid.
    ///
    /// Returns when the change is durable and this process's replica has applied it. If the replica does not apply it
    /// within 2 seconds, logs a warning and returns success.
    pub async fn execute<C: Command>(
        &self,
        request: impl Into<CommandRequest<C::Output>>,
        command: C,
    ) -> Result<CommandOutcome<C::Output>> {
        let (this, request) = (self.clone(), request.into());
        self.run_detached(async move { Ok(this.commit_and_apply(&request, &command).await?.0) }).await
    }

    /// Executes a command repeatedly, in one commit each, until it reports [`Progress::Finished`]. Calls `prepare_next`
    /// before each further execution. Each commit requires that the author's credential is still valid, unless the
    /// command has changed this credential itself.
    pub(crate) async fn execute_until_finished<C: Command<Output = Progress>>(
        &self,
        author: CommandAuthor,
        mut command: C,
        prepare_next: fn(&mut C),
    ) -> Result<Committed> {
        let (this, mut request) = (self.clone(), CommandRequest::from(author));
        let steps = async move {
            loop {
                let (outcome, own_credential) = this.commit_and_apply(&request, &command).await?;
                if outcome.output == Progress::Finished {
                    return Ok(outcome.committed);
                }
                if own_credential == OwnCredential::Changed {
                    request = request.author.after_own_change().into();
                }
                prepare_next(&mut command);
            }
        };
        self.run_detached(steps).await
    }

    /// Commits a command, repeating it after conflicts, and then waits until this process's replica has applied it.
    async fn commit_and_apply<C: Command>(
        &self,
        request: &CommandRequest<C::Output>,
        command: &C,
    ) -> Result<(CommandOutcome<C::Output>, OwnCredential)> {
        let span = tracing::info_span!("command", command = short_type_name::<C>(), revision = Empty);
        let work = async {
            let result = retry_on_conflict(|| self.commit(request, command)).await;
            if let Err(error) = &result {
                self.check_after_failure(request.author.check(), error).await?;
            }
            match &result {
                Ok((outcome, _)) => {
                    Span::current().record("revision", display(outcome.committed.revision()));
                    metrics::record_override_changes(outcome.committed.entries());
                    self.wait_for_replica(outcome.committed.revision()).await;
                }
                // A replayed response may describe a change that the replica of this process has not applied yet.
                Err(ServiceError::Replayed(StoredResponse { revision, .. })) => {
                    self.wait_for_replica_number(*revision).await;
                }
                Err(_) => {}
            }
            result
        };
        work.instrument(span).await
    }

    /// Checks the credential again after a command failed. With a credential that is no longer
    /// valid, the caller must learn neither the error nor a stored response.
    async fn check_after_failure(&self, check: &CredentialCheck, error: &ServiceError) -> Result<()> {
        match error {
            ServiceError::Store(StoreError::UnreadableFlag { .. }) => self.check_credential(check).await,
            // These errors reveal nothing about the data that the command has read.
            ServiceError::Store(_) | ServiceError::Internal(_) | ServiceError::CredentialRejected(_) => Ok(()),
            _ => self.check_credential(check).await,
        }
    }

    /// Fails with [`ServiceError::CredentialRejected`] if the credential is no longer valid.
    pub(crate) async fn check_credential(&self, check: &CredentialCheck) -> Result<()> {
        let CredentialCheck::Required(required) = check else { return Ok(()) };
        let stored = self.read(async |conn| principals::find(conn, &required.credential).await).await?;
        required.check_stored(stored, self.now())
    }

    /// Applies a command in one transaction and commits it. Also returns whether the command changed the credential
    /// that permits it.
    async fn commit<C: Command>(
        &self,
        request: &CommandRequest<C::Output>,
        command: &C,
    ) -> Result<(CommandOutcome<C::Output>, OwnCredential)> {
        let author = request.author.author();
        let mut tx = self.begin().await?;
        let applied = async {
            if let Some(idempotency) = &request.idempotency {
                reserve_idempotency_key(&mut tx, &idempotency.key).await?;
            }
            let output = command.apply(&mut tx, author).await?;
            Ok((output, take_revision_and_check(&mut tx, request.author.check()).await?))
        }
        .await;
        let (tx, (mut output, own_credential)) = roll_back_on_error(tx, applied).await?;
        let committed = match &request.idempotency {
            None => {
                let committed = tx.commit(author).await?;
                set_revision(&mut output, &committed);
                committed
            }
            Some(idempotency) => {
                let render = |committed: &Committed| {
                    set_revision(&mut output, committed);
                    (idempotency.render)(&output, committed)
                };
                tx.commit_with_response(author, &idempotency.key, render).await?
            }
        };
        Ok((CommandOutcome { output, committed }, own_credential))
    }

    /// Executes an unlogged command. Commits only if the credential is still valid.
    pub(crate) async fn execute_unlogged<C: UnloggedCommand>(
        &self,
        check: CredentialCheck,
        command: C,
    ) -> Result<C::Output> {
        let this = self.clone();
        let span = tracing::info_span!("command", command = short_type_name::<C>());
        let work = async move {
            let result = retry_on_conflict(|| this.commit_unlogged(&check, &command)).await;
            if let Err(error) = &result {
                this.check_after_failure(&check, error).await?;
            }
            result
        };
        self.run_detached(work.instrument(span)).await
    }

    async fn commit_unlogged<C: UnloggedCommand>(&self, check: &CredentialCheck, command: &C) -> Result<C::Output> {
        let mut tx = self.begin().await?;
        let applied = async {
            let output = command.apply(&mut tx).await?;
            check.check_in(&mut tx).await?;
            Ok(output)
        }
        .await;
        let (tx, output) = roll_back_on_error(tx, applied).await?;
        tx.commit_unlogged().await?;
        Ok(output)
    }

    pub(crate) async fn begin(&self) -> Result<Tx> {
        let clock = Arc::clone(&self.clock);
        Ok(self.store.begin_with_clock(Arc::new(move || clock.now())).await?)
    }

    /// Runs `work` as a separate task, which completes even if the caller's future is dropped. The
    /// task runs in the caller's tracing span.
    pub(crate) async fn run_detached<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        let outcome = self.runtime.spawn(work.in_current_span()).await;
        outcome.unwrap_or_else(|error| Err(ServiceError::Internal(error.to_string())))
    }

    /// Waits until the replica has applied `revision`, for at most [`REPLICA_APPLY_TIMEOUT`].
    async fn wait_for_replica(&self, revision: Revision) {
        let Some(ReplicaHandle { replica, wakeup }) = &self.replica else { return };
        wakeup.notify_one();
        if !replica.wait_for(revision, REPLICA_APPLY_TIMEOUT).await {
            tracing::warn!(%revision, "replica did not apply a committed write of this process in time");
        }
    }

    /// Waits until the replica has applied the revision with this number in its current epoch.
    async fn wait_for_replica_number(&self, number: i64) {
        if let Some(ReplicaHandle { replica, .. }) = &self.replica {
            self.wait_for_replica(Revision { number, ..replica.revision() }).await;
        }
    }

    /// Runs a database query with a timeout of 10 seconds.
    pub async fn read<T>(&self, query: impl AsyncFnOnce(&mut Conn) -> flags_store::Result<T>) -> Result<T> {
        let work = async {
            let mut conn = self.store.conn().await?;
            query(&mut conn).await
        };
        Ok(with_timeout(DATABASE_TIMEOUT, work).await?)
    }
}

/// Retries `attempt` after transaction conflicts, up to [`MAX_ATTEMPTS`] times within [`DATABASE_TIMEOUT`].
async fn retry_on_conflict<T, F: Future<Output = Result<T>>>(attempt: impl Fn() -> F) -> Result<T> {
    let deadline = time::Instant::now() + DATABASE_TIMEOUT;
    let mut attempts = 1;
    loop {
        let result = timeout_at(deadline, attempt()).await;
        match result.unwrap_or_else(|_| Err(ServiceError::Store(timed_out()))) {
            Err(ServiceError::Store(StoreError::TransactionConflict(_))) if attempts < MAX_ATTEMPTS => {
                time::sleep(RETRY_PAUSE * attempts).await;
                attempts += 1;
            }
            result => return result,
        }
    }
}

fn timed_out() -> StoreError {
    StoreError::Unavailable("the database did not respond in time".to_owned())
}

/// Rolls `tx` back if the command failed. Otherwise returns `tx` and the output of the command.
async fn roll_back_on_error<T>(tx: Tx, applied: Result<T>) -> Result<(Tx, T)> {
    match applied {
        Ok(output) => Ok((tx, output)),
        Err(error) => {
            // A failed rollback means that the connection is broken; the database then rolls back by itself.
            let _ = tx.rollback().await;
            Err(error)
        }
    }
}

/// Takes the revision of the recorded changes and then checks the credential. After that, no other transaction can
/// revoke the credential before this one commits. If no changes are recorded, only checks the credential.
pub(crate) async fn take_revision_and_check(tx: &mut Tx, check: &CredentialCheck) -> Result<OwnCredential> {
    tx.take_revision().await?;
    check.check_in(tx).await
}

/// Sets the revision of the output, unless the command changed nothing.
fn set_revision(output: &mut impl CommandOutput, committed: &Committed) {
    if !committed.entries().is_empty() {
        output.set_revision(committed.revision().number);
    }
}

/// Returns the name of a type without its modules and type parameters.
fn short_type_name<T>() -> &'static str {
    let name = std::any::type_name::<T>();
    let name = name.split_once('<').map_or(name, |(name, _)| name);
    name.rsplit_once("::").map_or(name, |(_, name)| name)
}

/// Reserves an idempotency key for the transaction. Fails if the key was used before.
async fn reserve_idempotency_key(tx: &mut Tx, key: &IdempotencyKey) -> Result<()> {
    match idempotency::reserve(tx, key).await? {
        KeyState::New => Ok(()),
        KeyState::Completed(response) => Err(ServiceError::Replayed(response)),
        KeyState::Mismatch => Err(ServiceError::IdempotencyKeyReused),
    }
}
