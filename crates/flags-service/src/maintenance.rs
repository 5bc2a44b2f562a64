//! Maintenance tasks that keep the database small. The worker runs them in rounds; each task uses
//! small transactions.
//!
//! Maintenance never changes evaluation results. Evaluation compares instants, so an override stops
//! applying at its expiry and not when its row is removed.

use std::time::Duration;

use flags_domain::Instant;
use flags_store::{
    Author, Tx,
    change_log::{self, Action},
    clock::database_time,
    idempotency, overrides,
    schedules::{self, ScheduleRecord},
    sessions, sign_in_attempts,
};

use crate::{
    clock::micros,
    core::{Command, Core},
    credentials::{
        check::CommandAuthor,
        sessions::MAX_LIFETIME,
        throttle::{FAILURE_RETENTION_MICROS, KNOWN_NETWORK_RETENTION_MICROS},
    },
    error::Result,
    metrics,
};

/// Maximum number of rows removed per transaction, so that locks are held only briefly.
const BATCH_SIZE: i64 = 1_000;

/// Maximum number of expired overrides removed per transaction.
const EXPIRED_OVERRIDES_BATCH_SIZE: i64 = 200;

/// Maximum number of flags whose due changes are recorded as applied per transaction.
const DUE_FLAGS_BATCH_SIZE: i64 = 50;

/// Maximum number of revisions removed per statement. A revision may have up to a thousand change-log rows.
const REVISIONS_BATCH_SIZE: i64 = 100;

/// Retention settings that the operator chooses.
#[derive(Clone, Copy, Debug, Default)]
pub struct RetentionPolicy {
    /// Time for which change-log rows are kept. `None` keeps them forever.
    pub change_log_retention: Option<Duration>,
}

/// Result of one maintenance round.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MaintenanceReport {
    /// Number of expired overrides removed.
    pub overrides_expired: u64,
    /// Number of due scheduled changes recorded as applied.
    pub scheduled_changes_applied: u64,
    /// Number of idempotency keys removed.
    pub idempotency_keys_purged: u64,
    /// Number of expired or unused sessions removed.
    pub sessions_purged: u64,
    /// Number of counters of failed sign-in attempts removed.
    pub sign_in_attempts_purged: u64,
    /// Number of change-log revisions removed.
    pub revisions_purged: u64,
}

impl std::fmt::Display for MaintenanceReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "removed {} expired overrides, recorded {} scheduled changes as applied, purged {} idempotency keys, \
             {} sessions, {} sign-in failure counters and {} change-log revisions",
            self.overrides_expired,
            self.scheduled_changes_applied,
            self.idempotency_keys_purged,
            self.sessions_purged,
            self.sign_in_attempts_purged,
            self.revisions_purged
        )
    }
}

/// Runs every task once. If a task fails, the remaining tasks still run.
///
/// # Errors
/// The first error of any task.
pub async fn run_round(core: &Core, policy: RetentionPolicy) -> Result<MaintenanceReport> {
    let backlog = measure_backlog(core).await;
    let overrides_expired = record_rows("expired_overrides", remove_expired_overrides(core).await);
    let scheduled_changes_applied = record_rows("scheduled_changes", mark_due_scheduled_changes(core).await);
    let idempotency_keys_purged = record_rows("idempotency_keys", purge_idempotency_keys(core).await);
    let sessions_purged = record_rows("sessions", purge_sessions(core).await);
    let sign_in_attempts_purged = record_rows("sign_in_attempts", purge_sign_in_attempts(core).await);
    let revisions_purged = match policy.change_log_retention {
        Some(retention) => record_rows("change_log_revisions", purge_change_log(core, retention).await),
        None => Ok(0),
    };
    backlog?;
    Ok(MaintenanceReport {
        overrides_expired: overrides_expired?,
        scheduled_changes_applied: scheduled_changes_applied?,
        idempotency_keys_purged: idempotency_keys_purged?,
        sessions_purged: sessions_purged?,
        sign_in_attempts_purged: sign_in_attempts_purged?,
        revisions_purged: revisions_purged?,
    })
}

/// Adds the processed rows of a task to its metric. Adds zero if the task failed, so that the series exists.
fn record_rows(task: &'static str, result: Result<u64>) -> Result<u64> {
    metrics::record_worker_rows(task, *result.as_ref().unwrap_or(&0));
    result
}

async fn measure_backlog(core: &Core) -> Result<()> {
    let now = core.now();
    let counts = core
        .read(async |conn| Ok((overrides::count_expired(conn, now).await?, schedules::count_due(conn, now).await?)));
    let (expired_overrides, due_changes) = counts.await?;
    metrics::set_worker_backlog("expired_overrides", expired_overrides);
    metrics::set_worker_backlog("scheduled_changes", due_changes);
    Ok(())
}

fn author() -> CommandAuthor {
    CommandAuthor::without_credential(Author { actor: "system:cleanup-worker".to_owned(), request_id: None })
}

/// Removes all overrides that have expired by both this process's clock and the database's clock. Returns their number.
///
/// Several workers can run at the same time: each skips rows that another has locked.
pub async fn remove_expired_overrides(core: &Core) -> Result<u64> {
    repeat_until_empty(async || Ok(core.execute(author(), RemoveExpired).await?.output)).await
}

/// Records all scheduled changes as applied that are due by both this process's clock and the
/// database's clock. Returns their number.
///
/// Only the audit log and the UI use this record; evaluation compares instants. Several workers can
/// run at the same time: each skips flags that another has locked.
pub async fn mark_due_scheduled_changes(core: &Core) -> Result<u64> {
    repeat_until_empty(async || Ok(core.execute(author(), MarkDueChanges).await?.output)).await
}

/// Removes idempotency keys older than 24 hours. Returns their number.
pub async fn purge_idempotency_keys(core: &Core) -> Result<u64> {
    let until = core.now().plus_micros(-idempotency::RETENTION_MICROS);
    repeat_until_empty(async || Ok(idempotency::purge(core.store(), until, BATCH_SIZE).await?)).await
}

/// Removes sessions that have expired or were not used for 90 days. Returns their number.
///
/// Servers may have a shorter idle timeout, which they enforce themselves.
pub async fn purge_sessions(core: &Core) -> Result<u64> {
    let now = core.now();
    let idle_since = now.plus_micros(-micros(MAX_LIFETIME));
    repeat_until_empty(async || Ok(sessions::purge(core.store(), now, idle_since, BATCH_SIZE).await?)).await
}

/// Removes counters of failed sign-in attempts that have reset. Returns their number.
///
/// Also removes known networks without a sign-in for 90 days; the result does not include their
/// number.
pub async fn purge_sign_in_attempts(core: &Core) -> Result<u64> {
    let now = core.now();
    sign_in_attempts::purge_networks(core.store(), now.plus_micros(-KNOWN_NETWORK_RETENTION_MICROS)).await?;
    let until = now.plus_micros(-FAILURE_RETENTION_MICROS);
    repeat_until_empty(async || Ok(sign_in_attempts::purge(core.store(), until, BATCH_SIZE).await?)).await
}

/// Removes change-log revisions older than `retention`. Returns the number of removed revisions.
///
/// Only the oldest revisions are removed, so the remaining ones have no gaps. If a server's replica still needs a
/// removed revision, the server reloads the replica.
pub async fn purge_change_log(core: &Core, retention: Duration) -> Result<u64> {
    let retention = micros(retention);
    let before = core.now().plus_micros(-retention);
    repeat_until_empty(async || Ok(change_log::purge(core.store(), before, REVISIONS_BATCH_SIZE).await?)).await
}

/// Calls `process_batch` until it returns 0, and returns the sum.
async fn repeat_until_empty(process_batch: impl AsyncFn() -> Result<u64>) -> Result<u64> {
    let mut total = 0;
    loop {
        match process_batch().await? {
            0 => return Ok(total),
            count => total += count,
        }
    }
}

/// Returns the earlier of the current instants of this process and of the database. Every instant up to the result has
/// passed by both clocks.
async fn earlier_now(tx: &mut Tx) -> Result<Instant> {
    Ok(database_time(tx.conn()).await?.map_or(tx.now(), |database_now: Instant| database_now.min(tx.now())))
}

#[derive(Clone)]
struct RemoveExpired;

impl Command for RemoveExpired {
    type Output = u64;

    async fn apply(&self, tx: &mut Tx, _: &Author) -> Result<u64> {
        let now = earlier_now(tx).await?;
        let batch = overrides::lock_expired(tx, now, EXPIRED_OVERRIDES_BATCH_SIZE).await?;
        for record in &batch {
            overrides::delete(tx, &record.user_override).await?;
        }
        Ok(batch.len() as u64)
    }
}

#[derive(Clone)]
struct MarkDueChanges;

impl Command for MarkDueChanges {
    type Output = u64;

    async fn apply(&self, tx: &mut Tx, _: &Author) -> Result<u64> {
        let now = earlier_now(tx).await?;
        let batch = schedules::lock_due(tx, now, DUE_FLAGS_BATCH_SIZE).await?;
        for before in &batch {
            let after = ScheduleRecord { applied_at: Some(tx.now()), ..before.clone() };
            schedules::update(tx, Action::Applied, before, &after).await?;
        }
        Ok(batch.len() as u64)
    }
}
