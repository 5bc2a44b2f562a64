//! Appending revisions to the change log, and purging them.

use diesel::{ExpressionMethods, OptionalExtension as _, QueryDsl};
use diesel_async::RunQueryDsl;
use flags_domain::{Instant, Revision};

use super::{
    entry::{Author, ChangeLogEntry},
    read::{decode_head_column, missing_head},
    row::ChangeLogRow,
};
use crate::{
    backend::row_lock::{Locked, RowLock},
    conn::{Backend, Conn, dispatch},
    decoded::Decoded,
    error::{Result, StoreError},
    schema::{change_log, log_head},
    sql_types::{DbInstant, DbUuid},
    store::Store,
    transaction::Tx,
    version::check_writer,
};

/// Maximum number of rows per statement. Keeps the number of parameters well below PostgreSQL's
/// limit of 65,535.
const ROWS_PER_STATEMENT: usize = 1_000;

/// Locks the head of the change log until the end of the transaction, so that no other change can commit.
///
/// A transaction must acquire this lock last. Any other order can deadlock.
pub async fn lock_head(tx: &mut Tx) -> Result<()> {
    let locked: Option<Decoded<i64>> = dispatch!(tx.conn(), |c| {
        let head = Locked::new(log_head::table.select(log_head::revision), RowLock::Update);
        head.get_result(c).await.optional()
    })?;
    decode_head_column(locked.ok_or_else(missing_head)?)?;
    tx.refresh_now();
    Ok(())
}

/// Increments and returns the head revision. This locks `log_head`, so no other change can commit before this
/// transaction ends.
///
/// Fails with [`StoreError::ChangeLogUnreadable`] if the head is missing or cannot be read, and with
/// [`StoreError::Outdated`] if the database requires a newer writer. The caller must then roll back.
pub(crate) async fn increment_head(conn: &mut Conn) -> Result<Revision> {
    type Head = (Decoded<DbUuid>, Decoded<i64>, Decoded<i32>);
    let head: Option<Head> = dispatch!(conn, |c| {
        // The range excludes NULL and, on SQLite, text and blob values, which `+ 1` would convert
        // to numbers.
        diesel::update(log_head::table.filter(log_head::revision.between(0, i64::MAX - 1)))
            .set(log_head::revision.eq(log_head::revision + 1))
            .returning((log_head::epoch, log_head::revision, log_head::min_writer))
            .get_result(c)
            .await
            .optional()
    })?;
    let (epoch, number, min_writer) = head.ok_or_else(|| {
        let detail = "log_head has no row with a valid revision; restore the row from a backup";
        StoreError::ChangeLogUnreadable(detail.to_owned())
    })?;
    check_writer(decode_head_column(min_writer)?)?;
    Ok(Revision { epoch: decode_head_column(epoch)?.0, number: decode_head_column(number)? })
}

/// Appends the entries of one revision.
pub(crate) async fn append(
    conn: &mut Conn,
    revision: i64,
    at: Instant,
    author: &Author,
    entries: &[ChangeLogEntry],
) -> Result<()> {
    insert_rows(conn, revision, at, author, entries).await.map_err(|error| match error {
        // The new revision already has rows, so `log_head` and `change_log` contradict each other.
        StoreError::UniqueViolation(_) => {
            StoreError::ChangeLogUnreadable(format!("change_log already contains revision {revision}"))
        }
        error => error,
    })
}

async fn insert_rows(
    conn: &mut Conn,
    revision: i64,
    at: Instant,
    author: &Author,
    entries: &[ChangeLogEntry],
) -> Result<()> {
    let entries = entries.iter().enumerate();
    let rows: Vec<_> = entries.map(|(ord, entry)| ChangeLogRow::new(revision, ord, at, author, entry)).collect();
    match &mut conn.0 {
        // Insert in batches, because each round trip extends the time for which `log_head` is locked.
        Backend::Postgres(object) => {
            for batch in rows.chunks(ROWS_PER_STATEMENT) {
                diesel::insert_into(change_log::table).values(batch).execute(object).await?;
            }
        }
        // Insert one by one: diesel-async has no batch insert for SQLite, and SQLite needs no network round trips.
        Backend::Sqlite(object) => {
            for row in &rows {
                diesel::insert_into(change_log::table).values(row).execute(object).await?;
            }
        }
    }
    Ok(())
}

/// Removes up to `limit` of the oldest revisions that were written before `before`. Returns the
/// number of removed revisions.
///
/// Updates `log_head.lowest_revision` accordingly. The purge itself is not recorded in the change
/// log.
pub async fn purge(store: &Store, before: Instant, limit: i64) -> Result<u64> {
    let _permit = store.write_permit().await?;
    let mut conn = store.conn().await?;
    let oldest: Vec<(Decoded<i64>, Decoded<DbInstant>)> = dispatch!(conn, |c| {
        let first_rows = change_log::table.filter(change_log::ord.eq(0));
        first_rows.order(change_log::revision).limit(limit).select((change_log::revision, change_log::at)).load(c).await
    })?;
    // Skip rows that cannot be read. They are purged together with later rows.
    let oldest: Vec<_> = oldest
        .into_iter()
        .filter_map(|(revision, at)| Some((revision.into_value().ok()?, at.into_value().ok()?)))
        .collect();
    // Stop at the first revision that must be kept, so that the remaining revisions have no gap. A
    // later revision may have an earlier time, because the clocks of processes differ.
    let Some(last) = oldest.iter().take_while(|(_, at)| at.0 < before).map(|(revision, _)| *revision).last() else {
        return Ok(0);
    };
    // Update `lowest_revision` first. If the process stops after this statement, readers see a
    // range that is too short, but never one with missing rows.
    dispatch!(conn, |c| {
        let head = diesel::update(log_head::table.filter(log_head::lowest_revision.le(last)));
        head.set(log_head::lowest_revision.eq(last + 1)).execute(c).await
    })?;
    dispatch!(conn, |c| { diesel::delete(change_log::table.filter(change_log::revision.le(last))).execute(c).await })?;
    Ok(oldest.iter().filter(|(revision, _)| *revision <= last).count() as u64)
}
