//! Queries for user overrides (`user_flag_overrides`).

mod list;

use std::{collections::HashSet, time::Duration};

use diesel::{ExpressionMethods, Insertable, OptionalExtension, QueryDsl, Queryable, Selectable};
use diesel_async::RunQueryDsl;
use flags_domain::{Action, Instant, OverrideStatus, ResourceKind, UserOverride};
use futures_util::TryStreamExt as _;
use uuid::Uuid;

pub use self::list::{
    OverrideFilter, OverrideListItem, OverrideOrder, count_by_flag, count_by_user, find_list_items, find_matching_ids,
    list,
};
use crate::{
    backend::{
        self,
        row_lock::{Locked, RowLock},
    },
    change_log::ChangeLogEntry,
    conn::{Backend, Conn, dispatch},
    decoded::{Decoded, RowKey, columns, readable},
    error::{Result, StoreError},
    flags,
    json::{parse_flag_name, to_json},
    schema::{feature_flags, user_flag_overrides},
    sql_types::{DbInstant, DbJson, DbUuid, LenientJson},
    store::with_timeout,
    transaction::Tx,
};

/// Stored override.
#[derive(Clone, Debug, PartialEq)]
pub struct OverrideRecord {
    /// Override of a flag for one user.
    pub user_override: UserOverride,
    /// Revision of the last change.
    pub revision: i64,
}

#[derive(Insertable)]
#[diesel(table_name = user_flag_overrides)]
struct NewOverrideRow {
    id: DbUuid,
    user_id: DbUuid,
    flag_name: String,
    override_value: DbJson,
    enabled: Option<bool>,
    reason: Option<String>,
    created_by: String,
    created_at: DbInstant,
    updated_at: DbInstant,
    expires_at: Option<DbInstant>,
}

#[derive(Queryable, Selectable)]
#[diesel(table_name = user_flag_overrides)]
struct OverrideRow {
    id: DbUuid,
    user_id: DbUuid,
    flag_name: String,
    override_value: LenientJson,
    enabled: Option<bool>,
    reason: Option<String>,
    created_by: String,
    created_at: Option<DbInstant>,
    updated_at: Option<DbInstant>,
    expires_at: Option<DbInstant>,
    revision: i64,
}

impl From<&UserOverride> for NewOverrideRow {
    fn from(o: &UserOverride) -> Self {
        Self {
            id: DbUuid(o.id),
            user_id: DbUuid(o.user_id),
            flag_name: o.flag_name.to_string(),
            override_value: DbJson(o.override_value.clone()),
            enabled: o.enabled,
            reason: o.reason.clone(),
            created_by: o.created_by.clone(),
            created_at: DbInstant(o.created_at),
            updated_at: DbInstant(o.updated_at),
            expires_at: o.expires_at.map(DbInstant),
        }
    }
}

impl TryFrom<OverrideRow> for OverrideRecord {
    type Error = StoreError;

    fn try_from(row: OverrideRow) -> Result<Self> {
        let user_override = UserOverride {
            id: row.id.0,
            user_id: row.user_id.0,
            flag_name: parse_flag_name(&row.flag_name)?,
            override_value: row
                .override_value
                .into_result()
                .map_err(|error| StoreError::corrupt("override_value", error))?,
            enabled: row.enabled,
            reason: row.reason,
            created_by: row.created_by,
            created_at: or_epoch(row.created_at),
            updated_at: or_epoch(row.updated_at),
            expires_at: row.expires_at.map(|at| at.0),
        };
        Ok(Self { user_override, revision: row.revision })
    }
}

impl RowKey for OverrideRow {
    fn key(&self) -> String {
        self.id.0.to_string()
    }
}

const TABLE: &str = "user_flag_overrides";

/// Replaces a missing time with 1970-01-01T00:00:00Z. Other programs may insert rows without a
/// time.
fn or_epoch(at: Option<DbInstant>) -> Instant {
    at.map_or(Instant::from_micros(0), |at| at.0)
}

/// Returns the override of this user and flag.
pub async fn find(conn: &mut Conn, user_id: Uuid, flag_name: &str) -> Result<Option<OverrideRecord>> {
    let row: Option<Decoded<OverrideRow>> = dispatch!(conn, |c| {
        user_flag_overrides::table
            .filter(user_flag_overrides::user_id.eq(DbUuid(user_id)))
            .filter(user_flag_overrides::flag_name.eq(flag_name))
            .select(columns!(OverrideRow))
            .first(c)
            .await
            .optional()
    })?;
    row.map(|row| row.into_result(TABLE)?.try_into()).transpose()
}

/// Locks the override of this user and flag until the end of the transaction, and returns it.
///
/// Returns `None` if another transaction replaces the override with a new row while this call waits
/// for the lock.
pub async fn lock(tx: &mut Tx, user_id: Uuid, flag_name: &str) -> Result<Option<OverrideRecord>> {
    let row: Option<Decoded<OverrideRow>> = dispatch!(tx.conn(), |c| {
        let row = user_flag_overrides::table
            .filter(user_flag_overrides::user_id.eq(DbUuid(user_id)))
            .filter(user_flag_overrides::flag_name.eq(flag_name))
            .select(columns!(OverrideRow));
        Locked::new(row, RowLock::Update).get_result(c).await.optional()
    })?;
    tx.refresh_now();
    row.map(|row| row.into_result(TABLE)?.try_into()).transpose()
}

/// Inserts an override. Returns `false` if the user already has an override of this flag.
pub async fn insert(tx: &mut Tx, new: &UserOverride) -> Result<bool> {
    let row = NewOverrideRow::from(new);
    let inserted = dispatch!(tx.conn(), |c| {
        diesel::insert_into(user_flag_overrides::table).values(&row).on_conflict_do_nothing().execute(c).await
    })?;
    if inserted == 1 {
        tx.record(entry(Action::Created, None, Some(new)));
    }
    Ok(inserted == 1)
}

/// Writes the mutable columns of an override. The transaction must hold the override's lock.
pub async fn update(tx: &mut Tx, before: &UserOverride, after: &UserOverride) -> Result<()> {
    dispatch!(tx.conn(), |c| {
        diesel::update(user_flag_overrides::table.find(DbUuid(after.id)))
            .set((
                user_flag_overrides::override_value.eq(DbJson(after.override_value.clone())),
                user_flag_overrides::enabled.eq(after.enabled),
                user_flag_overrides::reason.eq(after.reason.as_deref()),
                user_flag_overrides::updated_at.eq(DbInstant(after.updated_at)),
                user_flag_overrides::expires_at.eq(after.expires_at.map(DbInstant)),
            ))
            .execute(c)
            .await
    })?;
    tx.record(entry(Action::Updated, Some(before), Some(after)));
    Ok(())
}

/// Deletes an override and records the change as [`Action::Expired`] or [`Action::Deleted`]. The
/// transaction must hold the override's lock.
pub async fn delete(tx: &mut Tx, user_override: &UserOverride) -> Result<()> {
    let now = tx.now();
    let deleted = dispatch!(tx.conn(), |c| diesel::delete(user_flag_overrides::table.find(DbUuid(user_override.id)))
        .execute(c)
        .await)?;
    let action = if user_override.status(now) == OverrideStatus::Expired { Action::Expired } else { Action::Deleted };
    if deleted == 1 {
        tx.record(entry(action, Some(user_override), None));
    }
    Ok(())
}

/// Locks up to `limit` overrides that expired at or before `cutoff` until the end of the transaction, and returns them.
///
/// Skips overrides that another transaction has locked, and rows that cannot be read.
pub async fn lock_expired(tx: &mut Tx, cutoff: Instant, mut limit: i64) -> Result<Vec<OverrideRecord>> {
    loop {
        let rows = lock_expired_rows(tx, cutoff, limit).await?;
        let is_last = (rows.len() as i64) < limit;
        let mut records: Vec<OverrideRecord> = readable(TABLE, rows);
        if is_last || !records.is_empty() {
            records.sort_unstable_by_key(|record| record.user_override.id);
            return Ok(records);
        }
        // None of these rows can be read. Read more rows, so that unreadable rows do not block the cleanup of later
        // ones.
        limit *= 2;
    }
}

async fn lock_expired_rows(tx: &mut Tx, cutoff: Instant, limit: i64) -> Result<Vec<Decoded<OverrideRow>>> {
    dispatch!(tx.conn(), |c| {
        let expired = user_flag_overrides::table
            .filter(user_flag_overrides::expires_at.le(DbInstant(cutoff)))
            // Skip overrides of unknown flags, which other programs may insert. The change log
            // cannot refer to such flags.
            .filter(user_flag_overrides::flag_name.eq_any(feature_flags::table.select(feature_flags::name)))
            .order((user_flag_overrides::expires_at, user_flag_overrides::id))
            .limit(limit)
            .select(columns!(OverrideRow));
        Locked::new(expired, RowLock::UpdateSkipLocked).load(c).await
    })
}

/// User or flag that overrides belong to.
#[derive(Clone, Copy, Debug)]
pub enum OverrideOwner<'n> {
    /// Overrides of one user, by id.
    User(Uuid),
    /// Overrides of one flag, by name.
    Flag(&'n str),
}

/// Locked overrides of a user or flag.
#[derive(Clone, Debug)]
pub struct OverrideBatch {
    /// Overrides in the order of their ids, without those that cannot be read.
    pub records: Vec<OverrideRecord>,
    /// Whether no further batch is needed: no overrides remain, or none in this batch can be read.
    pub is_last: bool,
}

/// Locks up to `limit` overrides of a user or flag until the end of the transaction, and returns them.
///
/// The transaction must hold the exclusive lock of the user or flag, which prevents new overrides.
pub async fn lock_batch(tx: &mut Tx, owner: OverrideOwner<'_>, limit: i64) -> Result<OverrideBatch> {
    // Read the ids without locks to find out whether more overrides remain. A statement that waits
    // for a lock omits rows deleted during the wait, so its row count does not show this.
    let ids: Vec<Decoded<DbUuid>> = dispatch!(tx.conn(), |c| {
        let mut query = user_flag_overrides::table.select(user_flag_overrides::id).into_boxed::<Db>();
        query = match owner {
            OverrideOwner::User(id) => query.filter(user_flag_overrides::user_id.eq(DbUuid(id))),
            OverrideOwner::Flag(name) => query.filter(user_flag_overrides::flag_name.eq(name.to_owned())),
        };
        query.order(user_flag_overrides::id).limit(limit).load(c).await
    })?;
    let is_last = i64::try_from(ids.len()).is_ok_and(|count| count < limit);
    let ids: Vec<DbUuid> = ids.into_iter().filter_map(|id| id.or_logged(TABLE)).collect();
    let records = if ids.is_empty() { Vec::new() } else { lock_rows(tx, &ids).await? };
    let is_last = is_last || records.is_empty();
    Ok(OverrideBatch { records, is_last })
}

/// Locks the rows with the given ids until the end of the transaction, and returns them in the order of their ids.
/// Omits rows that cannot be read.
async fn lock_rows(tx: &mut Tx, ids: &[DbUuid]) -> Result<Vec<OverrideRecord>> {
    let rows: Vec<Decoded<OverrideRow>> = dispatch!(tx.conn(), |c| {
        let rows = user_flag_overrides::table.filter(user_flag_overrides::id.eq_any(ids));
        let rows = rows.order(user_flag_overrides::id).select(columns!(OverrideRow));
        Locked::new(rows, RowLock::Update).load(c).await
    })?;
    tx.refresh_now();
    Ok(readable(TABLE, rows))
}

/// Calls `callback` with every override, for loading the replica. Never holds all overrides in
/// memory.
///
/// A row that cannot be decoded is passed to `callback` as an error, and reading continues. Such
/// rows can exist because other programs may write to the table.
///
/// `conn` must be a [snapshot](crate::Store::snapshot). `step_timeout` limits each database
/// operation, not the total time.
pub async fn for_each(
    conn: &mut Conn,
    step_timeout: Duration,
    mut callback: impl FnMut(Result<UserOverride>),
) -> Result<()> {
    match &mut conn.0 {
        Backend::Postgres(object) => {
            with_timeout(step_timeout, async { Ok(backend::postgres::disable_statement_timeout(object).await?) })
                .await?;
            type Db = diesel::pg::Pg;
            let query = user_flag_overrides::table.select(columns!(OverrideRow));
            let mut rows =
                with_timeout(step_timeout, async { Ok(query.load_stream::<Decoded<OverrideRow>>(object).await?) })
                    .await?;
            while let Some(row) = with_timeout(step_timeout, async { Ok(rows.try_next().await?) }).await? {
                callback(to_override(row));
            }
        }
        // diesel-async reads SQLite rows on another thread and cannot stream them, so they are loaded in batches.
        Backend::Sqlite(_) => {
            let mut after = Uuid::nil();
            loop {
                let rows = with_timeout(step_timeout, load_after(conn, after)).await?;
                let ids = rows.iter().rev().filter_map(|(id, _)| id.clone().into_value().ok());
                let last = ids.map(|id| id.0).next();
                for (_, row) in rows {
                    callback(to_override(row));
                }
                // Continue after the last id that can be read. Unreadable ids sort after or between
                // the valid ones, so no valid row is skipped.
                let Some(last) = last else { return Ok(()) };
                after = last;
            }
        }
    }
    Ok(())
}

fn to_override(row: Decoded<OverrideRow>) -> Result<UserOverride> {
    Ok(OverrideRecord::try_from(row.into_result(TABLE)?)?.user_override)
}

/// Number of overrides per batch when loading from SQLite.
const LOAD_BATCH: i64 = 10_000;

async fn load_after(conn: &mut Conn, after: Uuid) -> Result<Vec<(Decoded<DbUuid>, Decoded<OverrideRow>)>> {
    dispatch!(conn, |c| {
        user_flag_overrides::table
            .filter(user_flag_overrides::id.gt(DbUuid(after)))
            .order(user_flag_overrides::id)
            .limit(LOAD_BATCH)
            .select((user_flag_overrides::id, columns!(OverrideRow)))
            .load(c)
            .await
    })
}

/// Locks the given overrides until the end of the transaction, and returns them in the order of their ids.
///
/// Omits unknown ids, rows that cannot be read, and overrides of flags that are being deleted, because that deletion
/// removes them.
pub async fn lock_by_ids(tx: &mut Tx, ids: &[Uuid]) -> Result<Vec<OverrideRecord>> {
    let ids: Vec<DbUuid> = ids.iter().copied().map(DbUuid).collect();
    let mut records = lock_rows(tx, &ids).await?;
    // A separate statement, because the previous one may have waited for a transaction that began to delete a flag.
    let deleting: HashSet<String> = flags::find_deleting(tx.conn()).await?.into_iter().collect();
    records.retain(|record| !deleting.contains(record.user_override.flag_name.as_str()));
    Ok(records)
}

/// Returns the users of the overrides with the given ids, in ascending order. Omits unknown ids and rows that cannot be
/// read.
pub async fn find_user_ids(conn: &mut Conn, ids: &[Uuid]) -> Result<Vec<Uuid>> {
    let ids: Vec<DbUuid> = ids.iter().copied().map(DbUuid).collect();
    let user_ids: Vec<Decoded<DbUuid>> = dispatch!(conn, |c| {
        let rows = user_flag_overrides::table.filter(user_flag_overrides::id.eq_any(&ids));
        rows.select(user_flag_overrides::user_id).load(c).await
    })?;
    let mut user_ids: Vec<Uuid> = user_ids.into_iter().filter_map(|id| Some(id.or_logged(TABLE)?.0)).collect();
    user_ids.sort_unstable();
    user_ids.dedup();
    Ok(user_ids)
}

/// Returns the number of stored overrides that expired at or before `now`.
pub async fn count_expired(conn: &mut Conn, now: Instant) -> Result<i64> {
    dispatch!(conn, |c| {
        let expired = user_flag_overrides::table.filter(user_flag_overrides::expires_at.le(DbInstant(now)));
        expired.count().get_result(c).await
    })
}

fn entry(action: Action, before: Option<&UserOverride>, after: Option<&UserOverride>) -> ChangeLogEntry {
    let subject = after.or(before);
    ChangeLogEntry {
        action,
        resource_kind: ResourceKind::Override,
        resource_id: subject.map(|o| o.id),
        flag_name: subject.map(|o| o.flag_name.to_string()),
        user_id: subject.map(|o| o.user_id),
        before: before.map(to_json),
        after: after.map(to_json),
        reason: subject.and_then(|o| o.reason.clone()),
    }
}
