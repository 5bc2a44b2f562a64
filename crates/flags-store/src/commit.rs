//! Write transactions. Every state change goes through [`Tx`], which appends it to the change log on commit.
//!
//! A function that changes a row takes a [`Tx`] and records a [`ChangeLogEntry`] in it. [`Tx::commit`] then increments
//! the revision in `log_head`, writes the new revision into the changed rows, and appends the entries to `change_log`.
//! All of this happens in the same database transaction.
//!
//! The `log_head` row is the last row that a transaction locks, and it stays locked until the commit. Revisions are
//! therefore dense and in commit order: a reader that has seen revision `n` has seen every earlier revision. A database
//! sequence does not guarantee this, because its numbers can become visible out of order.

use std::sync::Arc;

use diesel::{ExpressionMethods, Insertable, QueryDsl, QueryResult};
use diesel_async::{AsyncConnection, RunQueryDsl, TransactionManager};
use flags_domain::Instant;
use serde_json::Value;
use tokio::sync::OwnedSemaphorePermit;
use uuid::Uuid;

use crate::{
    backend::{self, postgres::RowLock},
    change_log::{Action, ResourceKind, Revision},
    error::{Result, StoreError},
    idempotency::{self, IdempotencyKey, StoredResponse},
    schema::{api_tokens, change_log, feature_flags, log_head, scheduled_changes, user_flag_overrides, users},
    sql_types::{DbInstant, DbJson, DbUuid},
    store::{Backend, Conn, Store, dispatch},
};

/// Write transaction. Dropping it without [`commit`](Tx::commit) rolls it back.
pub struct Tx {
    conn: Conn,
    clock: Arc<dyn Fn() -> Instant + Send + Sync>,
    now: Instant,
    entries: Vec<ChangeLogEntry>,
    _write_permit: OwnedSemaphorePermit,
}

/// Actor and request to which a change is attributed in the change log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Author {
    /// `user:<id>`, `token:<id>` or `system:<name>`.
    pub actor: String,
    /// Id of the HTTP request. `None` for changes made outside a request.
    pub request_id: Option<String>,
}

/// Change to be recorded in the change log.
#[derive(Clone, Debug, PartialEq)]
pub struct ChangeLogEntry {
    /// What happened to the resource.
    pub action: Action,
    /// Kind of the changed resource.
    pub resource_kind: ResourceKind,
    /// Id of the changed resource. `None` for flags, which are identified by name.
    pub resource_id: Option<Uuid>,
    /// Name of the flag that the change belongs to.
    pub flag_name: Option<String>,
    /// Id of the user that the change belongs to.
    pub user_id: Option<Uuid>,
    /// State before the change; must not contain personal data. `None` if the resource did not exist.
    pub before: Option<Value>,
    /// State after the change; must not contain personal data. `None` if the resource no longer exists.
    pub after: Option<Value>,
    /// Reason given by the author of the change.
    pub reason: Option<String>,
}

/// Proof of a durable change. Only [`Tx::commit`] and [`Tx::commit_with_response`] create it.
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

/// Insertable row of `change_log`.
#[derive(Insertable)]
#[diesel(table_name = change_log)]
pub(crate) struct ChangeLogInsert {
    revision: i64,
    ord: i32,
    id: DbUuid,
    at: DbInstant,
    actor: String,
    action: &'static str,
    #[diesel(column_name = entity)]
    resource_kind: &'static str,
    #[diesel(column_name = entity_id)]
    resource_id: Option<DbUuid>,
    flag_name: Option<String>,
    user_id: Option<DbUuid>,
    before: Option<DbJson>,
    after: Option<DbJson>,
    reason: Option<String>,
    request_id: Option<String>,
}

impl ChangeLogInsert {
    fn new(revision: i64, ord: usize, at: Instant, author: &Author, entry: &ChangeLogEntry) -> Self {
        Self {
            revision,
            ord: i32::try_from(ord).unwrap_or(i32::MAX),
            id: DbUuid(Uuid::now_v7()),
            at: DbInstant(at),
            actor: author.actor.clone(),
            action: entry.action.as_str(),
            resource_kind: entry.resource_kind.as_str(),
            resource_id: entry.resource_id.map(DbUuid),
            flag_name: entry.flag_name.clone(),
            user_id: entry.user_id.map(DbUuid),
            before: entry.before.clone().map(DbJson),
            after: entry.after.clone().map(DbJson),
            reason: entry.reason.clone(),
            request_id: author.request_id.clone(),
        }
    }
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
        match &mut conn.0 {
            Backend::Postgres(object) => backend::postgres::begin_write(object).await?,
            Backend::Sqlite(object) => backend::sqlite::begin_write(object).await?,
        }
        let now = clock();
        Ok(Tx { conn, clock, now, entries: Vec::new(), _write_permit: write_permit })
    }

    /// Returns a connection with a read-only snapshot of the database, taken at its first read. Dropping the connection
    /// ends the snapshot.
    pub async fn snapshot(&self) -> Result<Conn> {
        let mut conn = self.feed_conn().await?;
        match &mut conn.0 {
            Backend::Postgres(object) => backend::postgres::begin_snapshot(object).await?,
            Backend::Sqlite(object) => backend::sqlite::begin_snapshot(object).await?,
        }
        Ok(conn)
    }
}

impl Tx {
    /// Time that the transaction uses for its changes.
    pub const fn now(&self) -> Instant {
        self.now
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

    /// Locks the user's row (shared) until the end of the transaction, so that the user cannot be deleted concurrently.
    pub async fn lock_user_shared(&mut self, id: Uuid) -> Result<()> {
        self.lock_user_row(id, RowLock::Share).await
    }

    /// Locks the user's row (exclusive) until the end of the transaction.
    pub async fn lock_user(&mut self, id: Uuid) -> Result<()> {
        self.lock_user_row(id, RowLock::Update).await
    }

    /// Locks the flag's row (shared) until the end of the transaction, so that the flag cannot be deleted concurrently.
    pub async fn lock_flag_shared(&mut self, name: &str) -> Result<()> {
        self.lock_flag_row(name, RowLock::Share).await
    }

    /// Locks the flag's row (exclusive) until the end of the transaction.
    pub async fn lock_flag(&mut self, name: &str) -> Result<()> {
        self.lock_flag_row(name, RowLock::Update).await
    }

    /// Locks the head of the change log until the end of the transaction, so that no other change can commit.
    ///
    /// A transaction must acquire this lock last. Any other order can deadlock.
    pub async fn lock_change_log_head(&mut self) -> Result<()> {
        match &mut self.conn.0 {
            Backend::Postgres(object) => backend::postgres::lock_change_log_head(object).await?,
            Backend::Sqlite(_) => {}
        }
        self.refresh_now();
        Ok(())
    }

    /// Locks the row on PostgreSQL. On SQLite, the transaction already holds the write lock of the whole file.
    async fn lock_user_row(&mut self, id: Uuid, lock: RowLock) -> Result<()> {
        match &mut self.conn.0 {
            Backend::Postgres(object) => backend::postgres::lock_user_row(object, DbUuid(id), lock).await?,
            Backend::Sqlite(_) => {}
        }
        self.refresh_now();
        Ok(())
    }

    async fn lock_flag_row(&mut self, name: &str, lock: RowLock) -> Result<()> {
        match &mut self.conn.0 {
            Backend::Postgres(object) => backend::postgres::lock_flag_row(object, name, lock).await?,
            Backend::Sqlite(_) => {}
        }
        self.refresh_now();
        Ok(())
    }

    /// Appends the recorded entries to the change log under one new revision and commits.
    ///
    /// Without recorded entries, it takes no revision and rolls back, which also discards unlogged writes.
    pub async fn commit(mut self, author: &Author) -> Result<Committed> {
        if self.entries.is_empty() {
            let revision = crate::change_log::head(&mut self.conn).await?;
            self.rollback().await?;
            return Ok(Committed { revision, entries: Vec::new() });
        }
        self.commit_with(author, |_| None).await
    }

    /// Commits like [`commit`](Self::commit) and stores a response under `key`, which the transaction has reserved.
    ///
    /// It commits even without recorded entries. `render` builds the response before the transaction is committed, so
    /// `render` must not publish the change.
    pub async fn commit_with_response(
        self,
        author: &Author,
        key: &IdempotencyKey,
        render: impl FnOnce(&Committed) -> Vec<u8>,
    ) -> Result<Committed> {
        self.commit_with(author, |committed| Some((key, render(committed)))).await
    }

    /// Commits writes that the change log does not cover, such as sessions, without taking a revision.
    ///
    /// Fails with [`StoreError::Database`] if the transaction has recorded entries.
    pub async fn commit_unlogged(mut self) -> Result<()> {
        if !self.entries.is_empty() {
            return Err(StoreError::Database(
                "cannot commit without logging: the transaction has recorded change-log entries".to_owned(),
            ));
        }
        dispatch!(self.conn, |c| commit(c).await)
    }

    async fn commit_with<'k>(
        mut self,
        author: &Author,
        render: impl FnOnce(&Committed) -> Option<(&'k IdempotencyKey, Vec<u8>)>,
    ) -> Result<Committed> {
        match self.finish(author, render).await {
            Ok(committed) => Ok(committed),
            Err(error) => {
                // A failed rollback means that the connection is broken. The database then rolls back on its own.
                let _ = self.rollback().await;
                Err(error)
            }
        }
    }

    async fn finish<'k>(
        &mut self,
        author: &Author,
        render: impl FnOnce(&Committed) -> Option<(&'k IdempotencyKey, Vec<u8>)>,
    ) -> Result<Committed> {
        let entries = std::mem::take(&mut self.entries);
        let revision = if entries.is_empty() {
            crate::change_log::head(&mut self.conn).await?
        } else {
            let revision = next_revision(&mut self.conn).await?;
            self.set_row_revisions(revision.number, &entries).await?;
            self.append_entries(revision.number, author, &entries).await?;
            revision
        };
        let committed = Committed { revision, entries };
        if let Some((key, payload)) = render(&committed) {
            idempotency::store_response(self, key, &StoredResponse { payload, revision: revision.number }).await?;
        }
        dispatch!(self.conn, |c| commit(c).await)?;
        Ok(committed)
    }

    /// Discards all writes of the transaction.
    pub async fn rollback(mut self) -> Result<()> {
        dispatch!(self.conn, |c| rollback(c).await)
    }

    async fn append_entries(&mut self, revision: i64, author: &Author, entries: &[ChangeLogEntry]) -> Result<()> {
        let row = |(ord, entry)| ChangeLogInsert::new(revision, ord, self.now, author, entry);
        let rows: Vec<_> = entries.iter().enumerate().map(row).collect();
        match &mut self.conn.0 {
            Backend::Postgres(object) => backend::postgres::append_change_log(object, &rows).await?,
            Backend::Sqlite(object) => backend::sqlite::append_change_log(object, &rows).await?,
        }
        Ok(())
    }

    /// Writes the revision into every changed row that still exists.
    async fn set_row_revisions(&mut self, revision: i64, entries: &[ChangeLogEntry]) -> Result<()> {
        let ids = |kind| {
            let of_kind = move |entry: &&ChangeLogEntry| entry.resource_kind == kind && entry.after.is_some();
            entries.iter().filter(of_kind).filter_map(|entry| entry.resource_id).map(DbUuid).collect::<Vec<_>>()
        };
        let flags = entries.iter().filter(|entry| entry.resource_kind == ResourceKind::Flag && entry.after.is_some());
        let flags: Vec<_> = flags.filter_map(|entry| entry.flag_name.as_deref()).collect();
        set_revision!(self, users, users::id, ids(ResourceKind::User), revision);
        set_revision!(self, feature_flags, feature_flags::name, flags, revision);
        set_revision!(self, scheduled_changes, scheduled_changes::id, ids(ResourceKind::ScheduledChange), revision);
        set_revision!(self, user_flag_overrides, user_flag_overrides::id, ids(ResourceKind::Override), revision);
        set_revision!(self, api_tokens, api_tokens::id, ids(ResourceKind::ApiToken), revision);
        Ok(())
    }
}

macro_rules! set_revision {
    ($tx:expr, $table:ident, $key:expr, $keys:expr, $revision:expr) => {
        // Well below SQLite's limit of 32,766 parameters per statement.
        for batch in $keys.chunks(1_000) {
            dispatch!($tx.conn, |c| {
                let rows = diesel::update($table::table.filter($key.eq_any(batch)));
                rows.set($table::revision.eq($revision)).execute(c).await
            })?;
        }
    };
}
use set_revision;

/// Increments and returns the head revision. This locks `log_head`, so no other change can commit before this
/// transaction ends.
async fn next_revision(conn: &mut Conn) -> Result<Revision> {
    let (epoch, number): (DbUuid, i64) = dispatch!(conn, |c| {
        diesel::update(log_head::table)
            .set(log_head::revision.eq(log_head::revision + 1))
            .returning((log_head::epoch, log_head::revision))
            .get_result(c)
            .await
    })?;
    Ok(Revision { epoch: epoch.0, number })
}

async fn commit<C: AsyncConnection>(conn: &mut C) -> QueryResult<()> {
    C::TransactionManager::commit_transaction(conn).await
}

async fn rollback<C: AsyncConnection>(conn: &mut C) -> QueryResult<()> {
    C::TransactionManager::rollback_transaction(conn).await
}
