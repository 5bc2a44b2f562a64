//! Transactions: [`Tx`], in which every state change runs, and read-only snapshots.
//!
//! A [`Tx`] only collects the change-log entries. The `commit` module writes them and commits.

use std::sync::Arc;

use flags_domain::{Instant, Revision};
use tokio::sync::OwnedSemaphorePermit;

use crate::{
    change_log::ChangeLogEntry,
    conn::Conn,
    error::{Result, StoreError},
    principal_state::PriorStates,
    store::Store,
};

/// Write transaction. Dropping it without [`commit`](Tx::commit) rolls it back.
pub struct Tx {
    conn: Conn,
    clock: Arc<dyn Fn() -> Instant + Send + Sync>,
    now: Instant,
    entries: Vec<ChangeLogEntry>,
    /// Revision of the recorded entries; `None` until the transaction has taken one.
    revision: Option<Revision>,
    prior_states: PriorStates,
    _write_permit: OwnedSemaphorePermit,
}

impl Store {
    /// Begins a write transaction whose time is fixed at `now`.
    pub async fn begin(&self, now: Instant) -> Result<Tx> {
        self.begin_with_clock(Arc::new(move || now)).await
    }

    /// Begins a write transaction that reads its time from `clock`.
    ///
    /// The transaction reads the clock again after it acquires a lock, because other changes may have been committed,
    /// or become due, while it was blocked.
    pub async fn begin_with_clock(&self, clock: Arc<dyn Fn() -> Instant + Send + Sync>) -> Result<Tx> {
        let write_permit = self.write_permit().await?;
        let mut conn = self.conn().await?;
        conn.begin_write().await?;
        let now = clock();
        Ok(Tx {
            conn,
            clock,
            now,
            entries: Vec::new(),
            revision: None,
            prior_states: PriorStates::default(),
            _write_permit: write_permit,
        })
    }

    /// Returns a connection with a read-only snapshot of the database, taken at the first read.
    /// Dropping the connection ends the snapshot.
    pub async fn snapshot(&self) -> Result<Conn> {
        let mut conn = self.feed_conn().await?;
        conn.begin_snapshot().await?;
        Ok(conn)
    }
}

impl Tx {
    /// Time that the transaction uses for its changes.
    pub const fn now(&self) -> Instant {
        self.now
    }

    /// Reads the clock. Unlike [`now`](Self::now), the result advances during the transaction.
    pub fn read_clock(&self) -> Instant {
        (self.clock)()
    }

    /// Reads the clock again. Every function that may block on a lock calls this afterwards.
    pub(crate) fn refresh_now(&mut self) {
        self.now = (self.clock)();
    }

    /// Connection of the transaction, for reads that must see its own writes.
    pub const fn conn(&mut self) -> &mut Conn {
        &mut self.conn
    }

    /// Adds an entry to be appended to the change log on commit. Every function that changes a row calls this.
    pub(crate) fn record(&mut self, entry: ChangeLogEntry) {
        self.entries.push(entry);
    }

    /// Recorded entries.
    pub(crate) fn entries(&self) -> &[ChangeLogEntry] {
        &self.entries
    }

    /// Sets the revision of the recorded entries.
    pub(crate) const fn set_revision(&mut self, revision: Revision) {
        self.revision = Some(revision);
    }

    /// Revision of the recorded entries; `None` until the transaction has taken one.
    pub(crate) const fn revision(&self) -> Option<Revision> {
        self.revision
    }

    /// States of users, tokens and sessions before this transaction changed them.
    pub(crate) const fn prior_states(&mut self) -> &mut PriorStates {
        &mut self.prior_states
    }

    /// Removes and returns the recorded entries.
    pub(crate) fn take_entries(&mut self) -> Vec<ChangeLogEntry> {
        std::mem::take(&mut self.entries)
    }

    /// Commits writes that are not recorded in the change log, such as those of sessions. Takes no
    /// revision.
    ///
    /// Fails with [`StoreError::Database`] if the transaction has recorded entries.
    pub async fn commit_unlogged(mut self) -> Result<()> {
        if !self.entries.is_empty() {
            return Err(StoreError::Database(
                "cannot commit without logging: the transaction has recorded change-log entries".to_owned(),
            ));
        }
        self.conn.commit().await
    }

    /// Discards all writes of the transaction.
    pub async fn rollback(mut self) -> Result<()> {
        self.conn.rollback().await
    }
}
