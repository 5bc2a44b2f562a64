//! Commits of write transactions, which append every state change to the change log.
//!
//! A function that changes a row takes a [`Tx`] and records a [`ChangeLogEntry`] in it. [`Tx::commit`] then increments
//! the revision in `log_head`, writes the new revision into the changed rows, and appends the entries to `change_log`.
//! All of this happens in the same database transaction.
//!
//! The `log_head` row is the last row that a transaction locks, and it stays locked until the commit. Revisions are
//! therefore dense and in commit order: a reader that has seen revision `n` has seen every earlier revision. A database
//! sequence does not guarantee this, because its numbers can become visible out of order.

use diesel::{ExpressionMethods, QueryDsl};
use diesel_async::RunQueryDsl;
use flags_domain::{ResourceKind, Revision};

use crate::{
    change_log::{self, Author, ChangeLogEntry},
    conn::{Conn, dispatch},
    error::Result,
    idempotency::{self, IdempotencyKey, StoredResponse},
    schema::{api_tokens, feature_flags, scheduled_changes, user_flag_overrides, users},
    sql_types::DbUuid,
    transaction::Tx,
};

/// Result of a successful commit. Only [`Tx::commit`] and [`Tx::commit_with_response`] create it,
/// so a value proves that the change is durable.
#[derive(Clone, Debug)]
pub struct Committed {
    revision: Revision,
    entries: Vec<ChangeLogEntry>,
}

impl Committed {
    /// Revision assigned to the change, or the current revision if nothing changed.
    pub const fn revision(&self) -> Revision {
        self.revision
    }

    /// Entries appended to the change log. Empty if nothing changed.
    pub fn entries(&self) -> &[ChangeLogEntry] {
        &self.entries
    }
}

impl Tx {
    /// Takes the next revision for the recorded entries. This locks `log_head`, so no other change can commit before
    /// this transaction ends.
    ///
    /// Does nothing without recorded entries, or if the revision is already taken. The commit functions call this
    /// function. Call it earlier to read state that no other change can modify before the commit.
    pub async fn take_revision(&mut self) -> Result<()> {
        if self.revision().is_none() && !self.entries().is_empty() {
            let revision = change_log::increment_head(self.conn()).await?;
            self.set_revision(revision);
        }
        Ok(())
    }

    /// Appends the recorded entries to the change log under one new revision and commits.
    ///
    /// Without recorded entries, rolls back instead. This also discards writes that are not
    /// recorded in the change log.
    pub async fn commit(mut self, author: &Author) -> Result<Committed> {
        if self.entries().is_empty() {
            let revision = change_log::head(self.conn()).await?;
            self.rollback().await?;
            return Ok(Committed { revision, entries: Vec::new() });
        }
        let written = write_entries(&mut self, author).await;
        commit_or_roll_back(self, written).await
    }

    /// Commits like [`commit`](Self::commit) and stores a response under `key`, which the
    /// transaction has reserved.
    ///
    /// Unlike [`commit`](Self::commit), this function commits even without recorded entries. It
    /// calls `render` before it commits, so `render` must not publish the change.
    pub async fn commit_with_response(
        mut self,
        author: &Author,
        key: &IdempotencyKey,
        render: impl FnOnce(&Committed) -> Vec<u8>,
    ) -> Result<Committed> {
        let written = match write_entries(&mut self, author).await {
            Ok(committed) => {
                let response = StoredResponse { payload: render(&committed), revision: committed.revision.number };
                idempotency::store_response(&mut self, key, &response).await.map(|()| committed)
            }
            Err(error) => Err(error),
        };
        commit_or_roll_back(self, written).await
    }
}

/// Writes the recorded entries under a new revision. Without entries, takes no revision.
async fn write_entries(tx: &mut Tx, author: &Author) -> Result<Committed> {
    tx.take_revision().await?;
    let entries = tx.take_entries();
    let Some(revision) = tx.revision() else {
        return Ok(Committed { revision: change_log::head(tx.conn()).await?, entries });
    };
    let at = tx.now();
    set_row_revisions(tx.conn(), revision.number, &entries).await?;
    change_log::append(tx.conn(), revision.number, at, author, &entries).await?;
    Ok(Committed { revision, entries })
}

async fn commit_or_roll_back(mut tx: Tx, written: Result<Committed>) -> Result<Committed> {
    let result = match written {
        Ok(committed) => tx.conn().commit().await.map(|()| committed),
        Err(error) => Err(error),
    };
    if result.is_err() {
        // A failed rollback means that the connection is broken. The database then rolls back on its own.
        let _ = tx.rollback().await;
    }
    result
}

/// Writes the revision into every changed row that still exists.
async fn set_row_revisions(conn: &mut Conn, revision: i64, entries: &[ChangeLogEntry]) -> Result<()> {
    set_revision!(conn, users, users::id, ids(entries, ResourceKind::User), revision);
    set_revision!(conn, feature_flags, feature_flags::name, flag_names(entries), revision);
    set_revision!(
        conn,
        scheduled_changes,
        scheduled_changes::id,
        ids(entries, ResourceKind::ScheduledChange),
        revision
    );
    set_revision!(conn, user_flag_overrides, user_flag_overrides::id, ids(entries, ResourceKind::Override), revision);
    set_revision!(conn, api_tokens, api_tokens::id, ids(entries, ResourceKind::ApiToken), revision);
    Ok(())
}

macro_rules! set_revision {
    ($conn:expr, $table:ident, $key:expr, $keys:expr, $revision:expr) => {
        // The batch size is well below SQLite's limit of 32,766 parameters per statement.
        for batch in $keys.chunks(1_000) {
            dispatch!($conn, |c| {
                let rows = diesel::update($table::table.filter($key.eq_any(batch)));
                rows.set($table::revision.eq($revision)).execute(c).await
            })?;
        }
    };
}
use set_revision;

/// Returns the ids of the changed resources of this kind that still exist.
fn ids(entries: &[ChangeLogEntry], kind: ResourceKind) -> Vec<DbUuid> {
    let existing = entries.iter().filter(|entry| entry.resource_kind == kind && entry.after.is_some());
    existing.filter_map(|entry| entry.resource_id).map(DbUuid).collect()
}

/// Returns the names of the changed flags that still exist.
fn flag_names(entries: &[ChangeLogEntry]) -> Vec<&str> {
    let existing = entries.iter().filter(|entry| entry.resource_kind == ResourceKind::Flag && entry.after.is_some());
    existing.filter_map(|entry| entry.flag_name.as_deref()).collect()
}
