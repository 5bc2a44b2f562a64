//! The only way to change state: a transaction that ends by appending to the log.
//!
//! Whatever changes a row takes a [`Tx`] and hands it the log entry of the change; [`Tx::commit`] then counts the log's
//! head up, stamps the changed rows with the new revision, and appends the entries, all within the same transaction.
//! As the counter is updated last and held to the end, revisions are dense and in commit order: a reader that has seen
//! revision n has missed nothing below it. (A sequence gives no such thing: its numbers become visible out of order.)

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
    store::{Backend, Conn, Store, on},
};

/// A write transaction. Dropped without [`commit`](Tx::commit) it leaves nothing behind.
pub struct Tx {
    conn: Conn,
    clock: Arc<dyn Fn() -> Instant + Send + Sync>,
    now: Instant,
    entries: Vec<ChangeLogEntry>,
    _writer: OwnedSemaphorePermit,
}

/// Who changes something, and for which request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Author {
    /// `user:<id>`, `token:<id>` or `system:<name>`.
    pub actor: String,
    /// The request's id, if there is one.
    pub request_id: Option<String>,
}

/// One change as the log is to record it.
#[derive(Clone, Debug, PartialEq)]
pub struct ChangeLogEntry {
    /// What was done.
    pub action: Action,
    /// To what kind of thing.
    pub entity: ResourceKind,
    /// To which thing, where it has an id.
    pub entity_id: Option<Uuid>,
    /// The flag it concerns.
    pub flag_name: Option<String>,
    /// The user it concerns.
    pub user_id: Option<Uuid>,
    /// The state before; `None` if there was none. Never holds personal fields.
    pub before: Option<Value>,
    /// The state after; `None` if there is none.
    pub after: Option<Value>,
    /// Why, in the words of whoever did it.
    pub reason: Option<String>,
}

/// Proof that a change is durable: only the commits of a [`Tx`] make one.
#[derive(Clone, Debug)]
pub struct Committed {
    revision: Revision,
    entries: Vec<ChangeLogEntry>,
}

impl Committed {
    /// The revision the change got; the present one if nothing changed.
    pub const fn revision(&self) -> Revision {
        self.revision
    }

    /// What the log recorded. Empty if nothing changed.
    pub fn entries(&self) -> &[ChangeLogEntry] {
        &self.entries
    }
}

/// A row of the log as it is inserted.
#[derive(Insertable)]
#[diesel(table_name = change_log)]
pub(crate) struct ChangeLogInsert {
    revision: i64,
    ord: i32,
    id: DbUuid,
    at: DbInstant,
    actor: String,
    action: &'static str,
    entity: &'static str,
    entity_id: Option<DbUuid>,
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
            entity: entry.entity.as_str(),
            entity_id: entry.entity_id.map(DbUuid),
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
    /// Begins a transaction that may change state, all at the instant `now`.
    pub async fn begin(&self, now: Instant) -> Result<Tx> {
        self.begin_with_clock(Arc::new(move || now)).await
    }

    /// Begins a transaction that may change state. Its instant is taken from `clock` anew whenever it has waited for a
    /// lock: what was committed meanwhile, or fell due, came before.
    pub async fn begin_with_clock(&self, clock: Arc<dyn Fn() -> Instant + Send + Sync>) -> Result<Tx> {
        let writer = self.writer().await?;
        let mut conn = self.conn().await?;
        match &mut conn.0 {
            Backend::Postgres(object) => backend::postgres::begin_write(object).await?,
            Backend::Sqlite(object) => backend::sqlite::begin_write(object).await?,
        }
        let now = clock();
        Ok(Tx { conn, clock, now, entries: Vec::new(), _writer: writer })
    }

    /// A connection that sees the database as it is at its first read, and no later change. Ends when dropped.
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
    /// The instant of the change.
    pub const fn now(&self) -> Instant {
        self.now
    }

    /// To be called after every wait for a lock.
    pub(crate) fn refresh_now(&mut self) {
        self.now = (self.clock)();
    }

    /// The connection, to read within the transaction.
    pub const fn conn(&mut self) -> &mut Conn {
        &mut self.conn
    }

    /// Notes a change for the log. The functions that change rows call it; nobody else can.
    pub(crate) fn record(&mut self, entry: ChangeLogEntry) {
        self.entries.push(entry);
    }

    /// Holds the user's row to the end, so that nothing is born under a user who is just going.
    pub async fn lock_user_shared(&mut self, id: Uuid) -> Result<()> {
        self.lock_user_row(id, RowLock::Share).await
    }

    /// Holds the user's row to the end, alone.
    pub async fn lock_user(&mut self, id: Uuid) -> Result<()> {
        self.lock_user_row(id, RowLock::Update).await
    }

    /// Holds the flag's row to the end, so that nothing is born under a flag that is just going.
    pub async fn lock_flag_shared(&mut self, name: &str) -> Result<()> {
        self.lock_flag_row(name, RowLock::Share).await
    }

    /// Holds the flag's row to the end, alone.
    pub async fn lock_flag(&mut self, name: &str) -> Result<()> {
        self.lock_flag_row(name, RowLock::Update).await
    }

    /// Holds the log's head to the end, so that no other change commits meanwhile. The last lock to take.
    pub async fn lock_change_log_head(&mut self) -> Result<()> {
        match &mut self.conn.0 {
            Backend::Postgres(object) => backend::postgres::lock_change_log_head(object).await?,
            Backend::Sqlite(_) => {}
        }
        self.refresh_now();
        Ok(())
    }

    /// SQLite has locked everything already.
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

    /// Appends what was recorded to the log under one revision and commits. A transaction in which nothing was recorded
    /// changed nothing: it takes no revision and is rolled back, with any book-keeping that was done in it.
    pub async fn commit(mut self, author: &Author) -> Result<Committed> {
        if self.entries.is_empty() {
            let revision = crate::change_log::head(&mut self.conn).await?;
            self.rollback().await?;
            return Ok(Committed { revision, entries: Vec::new() });
        }
        self.commit_with(author, |_| None).await
    }

    /// The same, and keeps an answer with the idempotency key that the transaction has claimed: `answer` makes it of what is
    /// about to be committed, and must not let anything of it out.
    pub async fn commit_with_response(
        self,
        author: &Author,
        key: &IdempotencyKey,
        answer: impl FnOnce(&Committed) -> Vec<u8>,
    ) -> Result<Committed> {
        self.commit_with(author, |committed| Some((key, answer(committed)))).await
    }

    /// Commits what is no change of state, such as sessions: nothing may have been recorded, and no revision is taken.
    pub async fn commit_unlogged(mut self) -> Result<()> {
        if !self.entries.is_empty() {
            return Err(StoreError::Refused("a change of state must go through the log".to_owned()));
        }
        on!(self.conn, |c| commit(c).await)
    }

    async fn commit_with<'k>(
        mut self,
        author: &Author,
        answer: impl FnOnce(&Committed) -> Option<(&'k IdempotencyKey, Vec<u8>)>,
    ) -> Result<Committed> {
        match self.finish(author, answer).await {
            Ok(committed) => Ok(committed),
            Err(error) => {
                // If this fails as well, the connection is broken and the database rolls back by itself.
                let _ = self.rollback().await;
                Err(error)
            }
        }
    }

    async fn finish<'k>(
        &mut self,
        author: &Author,
        answer: impl FnOnce(&Committed) -> Option<(&'k IdempotencyKey, Vec<u8>)>,
    ) -> Result<Committed> {
        let entries = std::mem::take(&mut self.entries);
        let revision = if entries.is_empty() {
            crate::change_log::head(&mut self.conn).await?
        } else {
            let revision = next_revision(&mut self.conn).await?;
            self.stamp(revision.number, &entries).await?;
            self.append(revision.number, author, &entries).await?;
            revision
        };
        let committed = Committed { revision, entries };
        if let Some((key, answer)) = answer(&committed) {
            idempotency::keep(self, key, &StoredResponse { answer, revision: revision.number }).await?;
        }
        on!(self.conn, |c| commit(c).await)?;
        Ok(committed)
    }

    /// Takes everything back.
    pub async fn rollback(mut self) -> Result<()> {
        on!(self.conn, |c| rollback(c).await)
    }

    async fn append(&mut self, revision: i64, author: &Author, entries: &[ChangeLogEntry]) -> Result<()> {
        let row = |(ord, entry)| ChangeLogInsert::new(revision, ord, self.now, author, entry);
        let rows: Vec<_> = entries.iter().enumerate().map(row).collect();
        match &mut self.conn.0 {
            Backend::Postgres(object) => backend::postgres::append_log(object, &rows).await?,
            Backend::Sqlite(object) => backend::sqlite::append_log(object, &rows).await?,
        }
        Ok(())
    }

    /// Writes the revision into every row that was changed and is still there.
    async fn stamp(&mut self, revision: i64, entries: &[ChangeLogEntry]) -> Result<()> {
        let ids = |entity| {
            let of_entity = move |entry: &&ChangeLogEntry| entry.entity == entity && entry.after.is_some();
            entries.iter().filter(of_entity).filter_map(|entry| entry.entity_id).map(DbUuid).collect::<Vec<_>>()
        };
        let flags = entries.iter().filter(|entry| entry.entity == ResourceKind::Flag && entry.after.is_some());
        let flags: Vec<_> = flags.filter_map(|entry| entry.flag_name.as_deref()).collect();
        stamp!(self, users, users::id, ids(ResourceKind::User), revision);
        stamp!(self, feature_flags, feature_flags::name, flags, revision);
        stamp!(self, scheduled_changes, scheduled_changes::id, ids(ResourceKind::ScheduledChange), revision);
        stamp!(self, user_flag_overrides, user_flag_overrides::id, ids(ResourceKind::Override), revision);
        stamp!(self, api_tokens, api_tokens::id, ids(ResourceKind::ApiToken), revision);
        Ok(())
    }
}

macro_rules! stamp {
    ($tx:expr, $table:ident, $key:expr, $keys:expr, $revision:expr) => {
        // Far below SQLite's limit of 32,766 parameters a statement.
        for part in $keys.chunks(1_000) {
            on!($tx.conn, |c| {
                let rows = diesel::update($table::table.filter($key.eq_any(part)));
                rows.set($table::revision.eq($revision)).execute(c).await
            })?;
        }
    };
}
use stamp;

/// Counts the log's head up. From here to the end of the transaction no other can commit a change.
async fn next_revision(conn: &mut Conn) -> Result<Revision> {
    let (epoch, number): (DbUuid, i64) = on!(conn, |c| {
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
