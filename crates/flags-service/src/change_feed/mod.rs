//! Change feed: follows the change log, keeps the replica up to date, and reports when the replica becomes stale.

mod decode;
mod load;

use std::{
    collections::{BTreeMap, HashSet},
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use flags_domain::{Change, FlagName, Revision};
use flags_store::{
    Conn, Store, StoreError, api_tokens,
    change_log::{self, LoggedChange},
    users, with_timeout,
};
use parking_lot::Mutex;
use tokio::{
    sync::Notify,
    time::{MissedTickBehavior, interval, sleep},
};
use tracing::{
    Instrument as _, Span,
    field::{Empty, display},
};
use uuid::Uuid;

use self::decode::{decode_change, unrevoked_tokens};
pub use self::load::load;
use crate::{
    clock::Clock,
    error::ServiceError,
    metrics::{self, ActiveOverridesGauge},
    replica::{Commit, CredentialScope, CredentialUpdate, ExternalUser, LoadedState, Replica},
};

/// Interval at which the change log is polled, independent of notifications.
const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// Timeout for one poll of the change log, and for each query of a full load.
const DATABASE_TIMEOUT: Duration = Duration::from_secs(10);
/// Interval at which the feed checks whether the replica is stale.
const STALENESS_CHECK_INTERVAL: Duration = Duration::from_millis(500);
/// Maximum number of change-log rows read per query.
const BATCH_SIZE: usize = 5_000;
/// Pause after the first failed attempt to listen for notifications.
const MIN_LISTEN_BACKOFF: Duration = Duration::from_millis(100);
/// Maximum pause between two attempts to listen for notifications.
const MAX_LISTEN_BACKOFF: Duration = Duration::from_secs(5);

/// Applies the change log to a replica.
pub struct ChangeFeed {
    store: Store,
    replica: Arc<Replica>,
    /// Triggers a poll of the change log. [`Core`](crate::Core) notifies it after each commit of
    /// this process.
    wakeup: Arc<Notify>,
    clock: Arc<dyn Clock>,
    /// Epochs that this process has left. If the database returns to one of them, a backup was restored.
    retired_epochs: Mutex<HashSet<Uuid>>,
}

async fn with_database_timeout<T>(work: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
    with_timeout(DATABASE_TIMEOUT, work).await
}

/// Starts a new epoch if this is not the database or PostgreSQL timeline that wrote the change log, for example after a
/// backup was restored. A server must call this before its first [`load()`].
pub async fn check_database_identity(store: &Store) -> Result<(), StoreError> {
    if with_database_timeout(store.record_database_identity()).await? {
        tracing::warn!("change log was written by a different database or timeline; started a new epoch");
    }
    Ok(())
}

impl ChangeFeed {
    /// Creates a feed for `replica`. The owner of `wakeup` notifies it after each commit of this process.
    pub fn new(store: Store, replica: Arc<Replica>, wakeup: Arc<Notify>, clock: Arc<dyn Clock>) -> Self {
        Self { store, replica, wakeup, clock, retired_epochs: Mutex::default() }
    }

    /// Runs the feed until the future is dropped.
    ///
    /// If the database cannot be read, the feed retries at each poll; the replica keeps its last state.
    pub async fn run(self) {
        let is_listening = AtomicBool::new(false);
        tokio::join!(
            self.listen_for_notifications(&is_listening),
            self.poll_change_log(),
            self.report_staleness(&is_listening)
        );
    }

    /// Triggers a poll on each change notification, and whenever listening starts, because
    /// notifications may have been missed before. Without notifications, the feed finds each change
    /// at the next regular poll.
    async fn listen_for_notifications(&self, is_listening: &AtomicBool) {
        let mut backoff = MIN_LISTEN_BACKOFF;
        loop {
            match self.store.listen().await {
                Ok(mut listener) => {
                    backoff = MIN_LISTEN_BACKOFF;
                    is_listening.store(true, Ordering::Relaxed);
                    self.wakeup.notify_one();
                    let error = loop {
                        match listener.notified().await {
                            Ok(()) => self.wakeup.notify_one(),
                            Err(error) => break error,
                        }
                    };
                    tracing::warn!(
                        %error,
                        "change notifications lost; polling every second until LISTEN is re-established"
                    );
                }
                Err(error) => tracing::debug!(%error, "cannot listen for change notifications"),
            }
            is_listening.store(false, Ordering::Relaxed);
            sleep(backoff).await;
            backoff = (backoff * 2).min(MAX_LISTEN_BACKOFF);
        }
    }

    async fn poll_change_log(&self) {
        let mut ticks = interval(POLL_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut active_overrides = ActiveOverridesGauge::default();
        let mut unreadable_flags = BTreeMap::new();
        let mut is_failing = false;
        loop {
            let is_tick = tokio::select! {
                _ = ticks.tick() => true,
                () = self.wakeup.notified() => false,
            };
            let identity_check = if is_tick { check_database_identity(&self.store).await } else { Ok(()) };
            let result = match identity_check {
                Ok(()) => self.catch_up().await,
                Err(error) => Err(error.into()),
            };
            match &result {
                Ok(()) if is_failing => tracing::info!("change log can be read again"),
                Err(error) if !is_failing => {
                    tracing::error!(%error, "cannot read the change log; serving the last known state");
                }
                _ => {}
            }
            is_failing = result.is_err();
            if is_tick {
                let now = self.clock.now();
                active_overrides.set(self.replica.count_active(now));
                metrics::set_pending_changes(self.replica.snapshot(None).count_pending_changes(now));
                self.report_unreadable_flags(&mut unreadable_flags);
            }
        }
    }

    /// Logs flags that have become unreadable since the last call, and sets the gauge of unreadable
    /// flags. `reported` contains the flags that were unreadable at the last call, each with the
    /// reason.
    fn report_unreadable_flags(&self, reported: &mut BTreeMap<FlagName, String>) {
        let unreadable = self.replica.snapshot(None).unreadable_flags();
        for (flag, reason) in &unreadable {
            if reported.get(flag) != Some(reason) {
                tracing::error!(%flag, reason, "flag cannot be read or compiled; only overrides apply");
            }
        }
        metrics::set_unreadable_flags(unreadable.len());
        *reported = unreadable;
    }

    /// Wakes all streams when the replica becomes stale or current, and updates the gauges of
    /// replica and listener. Runs independently of polling, so that a blocked database query does
    /// not delay it.
    async fn report_staleness(&self, is_listening: &AtomicBool) {
        let mut ticks = interval(STALENESS_CHECK_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut was_stale = false;
        loop {
            ticks.tick().await;
            if std::mem::replace(&mut was_stale, self.replica.is_stale()) != was_stale {
                self.replica.notifier().wake_all();
            }
            metrics::set_listener_connected(is_listening.load(Ordering::Relaxed));
            metrics::set_replica_state(self.replica.revision().number, self.replica.age());
        }
    }

    /// Brings the replica up to the head of the change log. Reloads the replica if the change log does not continue
    /// from the replica's revision.
    pub async fn catch_up(&self) -> Result<(), ServiceError> {
        let reason = match with_database_timeout(self.apply_new_commits()).await {
            Ok(None) => return Ok(()),
            Ok(Some(reason)) => reason,
            Err(StoreError::Corrupt(cause)) => {
                tracing::error!(cause, "change log contains a row that cannot be decoded");
                ReloadReason::Unreadable
            }
            // Revocations must take effect even if other rows cannot be read, for example because
            // large flags or overrides caused a timeout.
            Err(error) => {
                self.follow_credentials().await;
                return Err(error.into());
            }
        };
        let span = tracing::info_span!("feed_round", reload = reason.as_str(), revision = Empty);
        self.reload(reason).instrument(span).await
    }

    /// Replaces the replica's state with the current state of the database.
    async fn reload(&self, reason: ReloadReason) -> Result<(), ServiceError> {
        self.follow_credentials().await;
        if let ReloadReason::Restored(epoch) = reason
            && with_database_timeout(self.store.start_new_epoch_if_current(epoch)).await?
        {
            tracing::warn!("change log went backwards after a restored backup; started a new epoch");
        }
        tracing::warn!(reason = reason.as_str(), "cannot continue from the current revision; reloading the replica");
        metrics::record_reload(reason.as_str());
        let previous_epoch = self.replica.revision().epoch;
        self.replica.replace(self.load_while_following_credentials().await?);
        let revision = self.replica.revision();
        Span::current().record("revision", display(revision));
        if previous_epoch != revision.epoch {
            self.retired_epochs.lock().insert(previous_epoch);
        }
        // The loaded state dates from the start of the load, so the commits since then must still
        // be applied. If that requires another reload, the next poll starts it.
        with_database_timeout(self.apply_new_commits()).await?;
        Ok(())
    }

    /// Loads the complete state. A load may take long, so changes of users and tokens are applied
    /// in the meantime.
    async fn load_while_following_credentials(&self) -> Result<LoadedState, ServiceError> {
        tokio::select! {
            loaded = load(&self.store) => loaded,
            never = self.keep_following_credentials() => match never {},
        }
    }

    async fn keep_following_credentials(&self) -> Infallible {
        loop {
            sleep(POLL_INTERVAL).await;
            self.follow_credentials().await;
        }
    }

    /// Applies only changes of users and tokens, so that no other row of the database delays a
    /// revocation.
    async fn follow_credentials(&self) {
        if let Err(error) = with_database_timeout(self.apply_credential_changes()).await {
            tracing::warn!(%error, "cannot read the changes of users and tokens");
        }
    }

    async fn apply_credential_changes(&self) -> Result<(), StoreError> {
        let mut conn = self.store.feed_conn().await?;
        let changes = change_log::read_credential_changes(&mut conn, self.replica.credential_revision()).await?;
        let (scope, tokens, external_users) = match changes.ids {
            None => (CredentialScope::All, api_tokens::load_all(&mut conn).await?, Vec::new()),
            Some(ids) => {
                let tokens = api_tokens::find_all(&mut conn, &ids.tokens).await?;
                // Rows of users that cannot be read must not delay revocations.
                let external_users = match find_external_users(&mut conn, &ids.users).await {
                    Ok(external_users) => external_users,
                    Err(error) => {
                        tracing::warn!(%error, "cannot read the external ids of changed users");
                        Vec::new()
                    }
                };
                (CredentialScope::Changed { user_ids: ids.users, token_ids: ids.tokens }, tokens, external_users)
            }
        };
        let tokens = unrevoked_tokens(tokens);
        let update = CredentialUpdate { revision: changes.head, scope, tokens, external_users };
        self.replica.apply_credentials(update);
        Ok(())
    }

    /// Applies all commits after the replica's revision. Returns a reason if the replica must be reloaded instead.
    async fn apply_new_commits(&self) -> Result<Option<ReloadReason>, StoreError> {
        let mut conn = self.store.feed_conn().await?;
        // Created with the first change, because the feed polls every second and most polls find no
        // change.
        let mut span = None;
        loop {
            let current = self.replica.revision();
            let (head, rows) = change_log::read_after(&mut conn, current.number, BATCH_SIZE).await?;
            metrics::set_change_log_head(head.number);
            if let Some(reason) = self.reload_reason(current, head) {
                return Ok(Some(reason));
            }
            if head.number == current.number {
                self.replica.mark_current();
                return Ok(None);
            }
            let span: &Span = span.get_or_insert_with(|| tracing::info_span!("feed_round", revision = Empty));
            let is_complete = self.apply_batch(&mut conn, current, rows).instrument(span.clone()).await?;
            span.record("revision", display(self.replica.revision()));
            if !is_complete {
                return Ok(Some(ReloadReason::MissingRevision));
            }
        }
    }

    /// Returns why the replica must be reloaded, or `None` if the change log continues from
    /// `current`.
    fn reload_reason(&self, current: Revision, head: Revision) -> Option<ReloadReason> {
        if head.epoch != current.epoch {
            let is_retired = self.retired_epochs.lock().contains(&head.epoch);
            return Some(if is_retired { ReloadReason::Restored(head.epoch) } else { ReloadReason::OtherEpoch });
        }
        (head.number < current.number).then_some(ReloadReason::Restored(head.epoch))
    }

    /// Applies a batch of change-log rows, commit by commit. Returns `false` if a revision after `current` is missing.
    async fn apply_batch(
        &self,
        conn: &mut Conn,
        current: Revision,
        rows: Vec<LoggedChange>,
    ) -> Result<bool, StoreError> {
        let mut number = current.number;
        for rows in rows.chunk_by(|a, b| a.summary.revision == b.summary.revision) {
            number += 1;
            if rows[0].summary.revision != number {
                return Ok(false);
            }
            let changes = rows.iter().map(decode_change).collect::<Result<Vec<_>, _>>()?;
            let token_ids: Vec<_> = changes.iter().filter_map(|described| changed_token(&described.change)).collect();
            let tokens = if token_ids.is_empty() { Vec::new() } else { api_tokens::find_all(conn, &token_ids).await? };
            let user_ids: Vec<_> = changes.iter().filter_map(|described| changed_user(&described.change)).collect();
            let external_users = find_external_users(conn, &user_ids).await?;
            metrics::record_propagation(rows[0].summary.at, self.clock.now());
            let revision = Revision { number, ..current };
            let tokens = unrevoked_tokens(tokens);
            self.replica.apply(Commit { revision, changes, tokens, external_users });
        }
        Ok(number > current.number)
    }
}

const fn changed_token(change: &Change) -> Option<Uuid> {
    if let Change::TokenChanged(id) = change { Some(*id) } else { None }
}

const fn changed_user(change: &Change) -> Option<Uuid> {
    if let Change::UserChanged(id) = change { Some(*id) } else { None }
}

/// Returns the external ids of these users. Users without one are omitted.
async fn find_external_users(conn: &mut Conn, ids: &[Uuid]) -> Result<Vec<ExternalUser>, StoreError> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let found = users::find_external_ids(conn, ids).await?;
    Ok(found.into_iter().map(|(id, external_id)| ExternalUser { id, external_id }).collect())
}

/// Reason for a reload of the replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ReloadReason {
    /// The database has an epoch that this process has not seen before.
    OtherEpoch,
    /// The change log went backwards: to a lower revision of this epoch, or to a retired epoch.
    Restored(Uuid),
    /// The change log does not contain the next revision, which may have been purged.
    MissingRevision,
    /// A row of the change log cannot be decoded.
    Unreadable,
}

impl ReloadReason {
    /// Value of the metric label `reason`.
    const fn as_str(self) -> &'static str {
        match self {
            Self::OtherEpoch => "other_epoch",
            Self::Restored(_) => "restored",
            Self::MissingRevision => "missing_revision",
            Self::Unreadable => "unreadable",
        }
    }
}
