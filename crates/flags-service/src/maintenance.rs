//! What keeps the database tidy. Each duty is one round of small transactions; the loop is the worker's.
//!
//! Nothing here changes what anybody sees: an override is gone at its end because evaluation compares instants.

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
        sessions::MAX_LIFETIME,
        throttle::{FORGOTTEN_AFTER, PLACE_KNOWN_FOR},
    },
    error::Result,
    metrics,
};

/// Most rows that one step removes: others should not wait long for it.
pub const BATCH: i64 = 1_000;

/// Most expired overrides that one transaction removes.
const EXPIRY_BATCH: i64 = 200;

/// Most flags whose due changes one transaction marks.
const FLAGS_AT_ONCE: i64 = 50;

/// Most revisions of the log that one statement removes; each may have a thousand rows.
const REVISIONS_AT_ONCE: i64 = 100;

/// What an operator can choose.
#[derive(Clone, Copy, Debug, Default)]
pub struct Policy {
    /// How long rows of the log are kept; for ever if `None`.
    pub keep_log: Option<Duration>,
}

/// What one round did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Round {
    /// Expired overrides removed.
    pub overrides_expired: u64,
    /// Due scheduled changes marked as applied.
    pub changes_marked: u64,
    /// Idempotency keys removed.
    pub keys_purged: u64,
    /// Sessions that were over removed.
    pub sessions_purged: u64,
    /// Accounts and addresses whose failed attempts to sign in were forgotten.
    pub attempts_purged: u64,
    /// Revisions of the log removed.
    pub revisions_purged: u64,
}

impl std::fmt::Display for Round {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "removed {} expired overrides, marked {} scheduled changes, purged {} idempotency keys, {} sessions, {} failed sign-ins and {} log \
             revisions",
            self.overrides_expired,
            self.changes_marked,
            self.keys_purged,
            self.sessions_purged,
            self.attempts_purged,
            self.revisions_purged
        )
    }
}

/// One round of every duty. A duty that fails does not keep the others from being done; the first failure is told.
pub async fn run_round(core: &Core, policy: Policy) -> Result<Round> {
    let measured = show_backlog(core).await;
    let overrides_expired = counted("expired_overrides", remove_expired_overrides(core).await);
    let changes_marked = counted("scheduled_changes", mark_due_changes(core).await);
    let keys_purged = counted("idempotency_keys", purge_idempotency_keys(core).await);
    let sessions_purged = counted("sessions", purge_sessions(core).await);
    let attempts_purged = counted("sign_in_attempts", purge_attempts(core).await);
    let revisions_purged = match policy.keep_log {
        Some(keep) => counted("log_revisions", purge_log(core, keep).await),
        None => Ok(0),
    };
    measured?;
    Ok(Round {
        overrides_expired: overrides_expired?,
        changes_marked: changes_marked?,
        keys_purged: keys_purged?,
        sessions_purged: sessions_purged?,
        attempts_purged: attempts_purged?,
        revisions_purged: revisions_purged?,
    })
}

fn counted(duty: &'static str, outcome: Result<u64>) -> Result<u64> {
    metrics::count_done(duty, *outcome.as_ref().unwrap_or(&0));
    outcome
}

async fn show_backlog(core: &Core) -> Result<()> {
    let now = core.now();
    let due = core
        .read(async |conn| Ok((overrides::count_expired(conn, now).await?, schedules::count_due(conn, now).await?)));
    let (expired, due) = due.await?;
    metrics::show_backlog("expired_overrides", expired);
    metrics::show_backlog("scheduled_changes", due);
    Ok(())
}

fn author() -> Author {
    Author { actor: "system:cleanup-worker".to_owned(), request_id: None }
}

/// Removes all overrides whose end has passed by this process's clock and by the database's, and returns how many went.
/// Several workers at once share the work: each passes over what another holds.
pub async fn remove_expired_overrides(core: &Core) -> Result<u64> {
    until_none_is_left(async || Ok(core.execute(author(), RemoveExpired).await?.output)).await
}

/// Marks all scheduled changes that have fallen due, by both clocks, and returns how many. The mark is for the log and for
/// people: evaluation compares instants. Several workers at once share the work, flag by flag.
pub async fn mark_due_changes(core: &Core) -> Result<u64> {
    until_none_is_left(async || Ok(core.execute(author(), MarkDue).await?.output)).await
}

/// Removes idempotency keys that are no longer kept, and returns how many went.
pub async fn purge_idempotency_keys(core: &Core) -> Result<u64> {
    let until = core.now().plus_micros(-idempotency::KEPT_FOR);
    until_none_is_left(async || Ok(idempotency::purge(core.store(), until, BATCH).await?)).await
}

/// Removes sessions that are over, and returns how many went. Servers may be told of a shorter idle time than the
/// 90 days after which an unused session goes here; they look at it themselves.
pub async fn purge_sessions(core: &Core) -> Result<u64> {
    let now = core.now();
    let idle_since = now.plus_micros(-micros(MAX_LIFETIME));
    until_none_is_left(async || Ok(sessions::purge(core.store(), now, idle_since, BATCH).await?)).await
}

/// Forgets failed attempts to sign in that no longer count, and returns of how many accounts and addresses; and where nobody
/// has signed in from for long.
pub async fn purge_attempts(core: &Core) -> Result<u64> {
    let now = core.now();
    sign_in_attempts::purge_places(core.store(), now.plus_micros(-PLACE_KNOWN_FOR)).await?;
    let until = now.plus_micros(-FORGOTTEN_AFTER);
    until_none_is_left(async || Ok(sign_in_attempts::purge(core.store(), until, BATCH).await?)).await
}

/// Removes the revisions of the log that are older than `keep`, and returns how many went. What is left is still dense;
/// a reader that was further behind loads everything anew.
pub async fn purge_log(core: &Core, keep: Duration) -> Result<u64> {
    let keep = micros(keep);
    let before = core.now().plus_micros(-keep);
    until_none_is_left(async || Ok(change_log::purge(core.store(), before, REVISIONS_AT_ONCE).await?)).await
}

async fn until_none_is_left(batch: impl AsyncFn() -> Result<u64>) -> Result<u64> {
    let mut done = 0;
    loop {
        match batch().await? {
            0 => return Ok(done),
            some => done += some,
        }
    }
}

/// The present instant, as far as database and process agree that it has come.
async fn agreed_now(tx: &mut Tx) -> Result<Instant> {
    Ok(database_time(tx.conn()).await?.map_or(tx.now(), |theirs: Instant| theirs.min(tx.now())))
}

#[derive(Clone)]
struct RemoveExpired;

impl Command for RemoveExpired {
    type Output = u64;

    async fn apply(&self, tx: &mut Tx, _: &Author) -> Result<u64> {
        let due = agreed_now(tx).await?;
        let batch = overrides::claim_expired(tx, due, EXPIRY_BATCH).await?;
        for gone in &batch {
            overrides::delete(tx, &gone.user_override).await?;
        }
        Ok(batch.len() as u64)
    }
}

#[derive(Clone)]
struct MarkDue;

impl Command for MarkDue {
    type Output = u64;

    async fn apply(&self, tx: &mut Tx, _: &Author) -> Result<u64> {
        let due = agreed_now(tx).await?;
        let batch = schedules::claim_due(tx, due, FLAGS_AT_ONCE).await?;
        for before in &batch {
            let after = ScheduleRecord { marked_at: Some(tx.now()), ..before.clone() };
            schedules::update(tx, Action::Applied, before, &after).await?;
        }
        Ok(batch.len() as u64)
    }
}
