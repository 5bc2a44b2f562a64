//! Queries for scheduled changes (`scheduled_changes`).

use diesel::{
    AsChangeset, BoolExpressionMethods, ExpressionMethods, Insertable, OptionalExtension, QueryDsl, Queryable,
    Selectable,
};
use diesel_async::RunQueryDsl;
use flags_domain::{Action, FlagName, Instant, ResourceKind, ScheduledChange, ScheduledChangeDefinition};
use uuid::Uuid;

use crate::{
    backend,
    change_log::ChangeLogEntry,
    conn::{Backend, Conn, dispatch},
    decoded::{Decoded, RowKey, columns, log_once, readable},
    error::{Result, StoreError},
    json::{from_json, parse_flag_name, to_json},
    page::{BoundedCount, Page, next_bound},
    schema::scheduled_changes,
    sql_types::{DbInstant, DbJson, DbUuid},
    transaction::Tx,
};

/// Stored scheduled change.
#[derive(Clone, Debug, PartialEq)]
pub struct ScheduleRecord {
    /// Definition of the change.
    pub change: ScheduledChange,
    /// Flag that the change applies to.
    pub flag_name: FlagName,
    /// Actor that created the scheduled change.
    pub created_by: String,
    /// Creation time.
    pub created_at: Instant,
    /// Time of the last edit.
    pub updated_at: Instant,
    /// Time at which the worker recorded the change as applied. Evaluation applies it at `scheduled_at` regardless.
    pub applied_at: Option<Instant>,
    /// Revision of the last change to this record.
    pub revision: i64,
}

/// A row of `scheduled_changes` that belongs to a flag.
#[derive(Clone, Debug, PartialEq)]
pub enum StoredSchedule {
    /// Change with a complete definition.
    Readable(Box<ScheduleRecord>),
    /// Change whose definition this version cannot read. It makes its flag unreadable.
    Unreadable {
        /// Id of the change; nil if it cannot be read.
        id: Uuid,
        /// Flag that the change applies to.
        flag_name: FlagName,
        /// Description of the first problem.
        reason: String,
    },
}

impl StoredSchedule {
    /// Flag that the change applies to.
    pub const fn flag_name(&self) -> &FlagName {
        match self {
            Self::Readable(record) => &record.flag_name,
            Self::Unreadable { flag_name, .. } => flag_name,
        }
    }

    /// Definition of the change, for evaluation.
    pub fn into_definition(self) -> ScheduledChangeDefinition {
        match self {
            Self::Readable(record) => ScheduledChangeDefinition::Readable(record.change),
            Self::Unreadable { id, reason, .. } => ScheduledChangeDefinition::Unreadable { id, reason },
        }
    }

    /// Returns the change. Fails with [`StoreError::UnreadableFlag`] if its definition cannot be read.
    pub fn into_readable(self) -> Result<ScheduleRecord> {
        match self {
            Self::Readable(record) => Ok(*record),
            Self::Unreadable { id, flag_name, reason } => Err(StoreError::UnreadableFlag {
                name: flag_name.to_string(),
                reason: format!("scheduled change {id}: {reason}"),
            }),
        }
    }

    /// Converts a row. Logs a row without a valid flag name and returns `None`, because the change
    /// belongs to no flag.
    fn from_row((row, id, flag_name): (Decoded<ScheduleRow>, Decoded<DbUuid>, Decoded<String>)) -> Option<Self> {
        let error = match row.into_value() {
            Ok(row) => match ScheduleRecord::try_from(row) {
                Ok(record) => return Some(Self::Readable(Box::new(record))),
                Err(error) => error.to_string(),
            },
            Err(error) => error.to_string(),
        };
        let name = flag_name.or_logged(TABLE)?;
        let flag_name = FlagName::new(&name).inspect_err(|error| log_once(TABLE, &name, &error.to_string())).ok()?;
        let id = id.into_value().map_or(Uuid::nil(), |id| id.0);
        Some(Self::Unreadable { id, flag_name, reason: error })
    }
}

const TABLE: &str = "scheduled_changes";

/// Selects the columns of [`StoredSchedule`].
macro_rules! stored_columns {
    () => {
        (columns!(ScheduleRow), scheduled_changes::id, scheduled_changes::flag_name)
    };
}

type StoredColumns = (Decoded<ScheduleRow>, Decoded<DbUuid>, Decoded<String>);

impl RowKey for ScheduleRow {
    fn key(&self) -> String {
        self.id.0.to_string()
    }
}

#[derive(Queryable, Selectable, Insertable, AsChangeset)]
#[diesel(table_name = scheduled_changes)]
#[diesel(treat_none_as_null = true)]
struct ScheduleRow {
    id: DbUuid,
    flag_name: String,
    scheduled_at: DbInstant,
    serve: Option<DbJson>,
    enabled: Option<bool>,
    description: Option<String>,
    created_by: String,
    created_at: DbInstant,
    updated_at: DbInstant,
    cancelled_at: Option<DbInstant>,
    #[diesel(column_name = marked_at)]
    applied_at: Option<DbInstant>,
    revision: i64,
}

impl From<&ScheduleRecord> for ScheduleRow {
    fn from(record: &ScheduleRecord) -> Self {
        let change = &record.change;
        Self {
            id: DbUuid(change.id),
            flag_name: record.flag_name.to_string(),
            scheduled_at: DbInstant(change.scheduled_at),
            serve: change.serve.as_ref().map(|serve| DbJson(to_json(serve))),
            enabled: change.enabled,
            description: change.description.clone(),
            created_by: record.created_by.clone(),
            created_at: DbInstant(record.created_at),
            updated_at: DbInstant(record.updated_at),
            cancelled_at: change.cancelled_at.map(DbInstant),
            applied_at: record.applied_at.map(DbInstant),
            revision: record.revision,
        }
    }
}

impl TryFrom<ScheduleRow> for ScheduleRecord {
    type Error = StoreError;

    fn try_from(row: ScheduleRow) -> Result<Self> {
        let change = ScheduledChange {
            id: row.id.0,
            scheduled_at: row.scheduled_at.0,
            serve: row.serve.map(|serve| from_json(TABLE, "serve", &serve.0)).transpose()?,
            enabled: row.enabled,
            description: row.description,
            cancelled_at: row.cancelled_at.map(|at| at.0),
        };
        Ok(Self {
            change,
            flag_name: parse_flag_name(&row.flag_name)?,
            created_by: row.created_by,
            created_at: row.created_at.0,
            updated_at: row.updated_at.0,
            applied_at: row.applied_at.map(|at| at.0),
            revision: row.revision,
        })
    }
}

/// Returns the scheduled change with this id.
pub async fn find(conn: &mut Conn, id: Uuid) -> Result<Option<ScheduleRecord>> {
    let row: Option<Decoded<ScheduleRow>> = dispatch!(conn, |c| {
        scheduled_changes::table.find(DbUuid(id)).select(columns!(ScheduleRow)).first(c).await.optional()
    })?;
    row.map(|row| row.into_result(TABLE)?.try_into()).transpose()
}

/// Returns all scheduled changes of these flags, including cancelled ones, in ascending order of `scheduled_at`.
pub async fn find_by_flags(conn: &mut Conn, names: &[FlagName]) -> Result<Vec<StoredSchedule>> {
    let names: Vec<&str> = names.iter().map(FlagName::as_str).collect();
    let rows: Vec<StoredColumns> = dispatch!(conn, |c| {
        let rows = scheduled_changes::table.filter(scheduled_changes::flag_name.eq_any(&names));
        let rows = rows.order((scheduled_changes::scheduled_at, scheduled_changes::id));
        rows.select(stored_columns!()).load(c).await
    })?;
    Ok(rows.into_iter().filter_map(StoredSchedule::from_row).collect())
}

/// Returns all scheduled changes of all flags, for loading the replica. Omits rows without a valid flag name.
pub async fn load_all(conn: &mut Conn) -> Result<Vec<StoredSchedule>> {
    let rows: Vec<StoredColumns> = dispatch!(conn, |c| {
        scheduled_changes::table.order(scheduled_changes::id).select(stored_columns!()).load(c).await
    })?;
    Ok(rows.into_iter().filter_map(StoredSchedule::from_row).collect())
}

/// Inserts a scheduled change. Returns `false` if the flag already has an uncancelled one at the same time.
pub async fn insert(tx: &mut Tx, new: &ScheduleRecord) -> Result<bool> {
    let row = ScheduleRow::from(new);
    let inserted = dispatch!(tx.conn(), |c| {
        diesel::insert_into(scheduled_changes::table).values(&row).on_conflict_do_nothing().execute(c).await
    })?;
    if inserted == 1 {
        tx.record(entry(Action::Created, None, Some(new)));
    }
    Ok(inserted == 1)
}

/// Writes all columns of a scheduled change and records the change as `action`. The transaction must hold the flag's
/// lock.
pub async fn update(tx: &mut Tx, action: Action, before: &ScheduleRecord, after: &ScheduleRecord) -> Result<()> {
    let row = ScheduleRow::from(after);
    dispatch!(tx.conn(), |c| diesel::update(scheduled_changes::table.find(row.id)).set(&row).execute(c).await)?;
    tx.record(entry(action, Some(before), Some(after)));
    Ok(())
}

/// Deletes a scheduled change. The transaction must hold the flag's lock.
pub async fn delete(tx: &mut Tx, record: &ScheduleRecord) -> Result<()> {
    let id = DbUuid(record.change.id);
    dispatch!(tx.conn(), |c| diesel::delete(scheduled_changes::table.find(id)).execute(c).await)?;
    tx.record(entry(Action::Deleted, Some(record), None));
    Ok(())
}

/// Locks up to `max_flags` flags with due changes until the end of the transaction. Returns up to
/// `MAX_DUE_CHANGES` of their changes that are due at `now` and not yet recorded as applied.
///
/// Skips flags that another transaction has locked, and rows that cannot be read. Raises both
/// limits if none of the rows within them can be read.
pub async fn lock_due(tx: &mut Tx, now: Instant, max_flags: i64) -> Result<Vec<ScheduleRecord>> {
    let (mut max_flags, mut max_changes) = (max_flags, MAX_DUE_CHANGES);
    loop {
        let due = lock_due_rows(tx, now, max_flags, max_changes).await?;
        let records: Vec<ScheduleRecord> = readable(TABLE, due.rows);
        if due.is_last || !records.is_empty() {
            return Ok(records);
        }
        // None of these rows can be read. Read more rows, so that unreadable rows do not block later changes.
        (max_flags, max_changes) = (max_flags * 2, max_changes * 2);
    }
}

/// Locked rows of due changes.
struct DueRows {
    rows: Vec<Decoded<ScheduleRow>>,
    /// Whether raising the limits would yield no further rows.
    is_last: bool,
}

async fn lock_due_rows(tx: &mut Tx, now: Instant, max_flags: i64, max_changes: i64) -> Result<DueRows> {
    let names = match &mut tx.conn().0 {
        Backend::Postgres(object) => {
            let names = backend::postgres::lock_flags_with_due_changes(object, DbInstant(now), max_flags).await?;
            Some(names)
        }
        // SQLite has no row locks. The transaction already holds the write lock of the whole file.
        Backend::Sqlite(_) => None,
    };
    let all_flags_locked = names.as_ref().is_none_or(|names| (names.len() as i64) < max_flags);
    let rows: Vec<Decoded<ScheduleRow>> = dispatch!(tx.conn(), |c| {
        let mut query = scheduled_changes::table
            .filter(scheduled_changes::marked_at.is_null())
            .filter(scheduled_changes::cancelled_at.is_null())
            .filter(scheduled_changes::scheduled_at.le(DbInstant(now)))
            .select(columns!(ScheduleRow))
            .into_boxed::<Db>();
        if let Some(names) = names {
            query = query.filter(scheduled_changes::flag_name.eq_any(names));
        }
        query.order((scheduled_changes::scheduled_at, scheduled_changes::id)).limit(max_changes).load(c).await
    })?;
    let is_last = all_flags_locked && (rows.len() as i64) < max_changes;
    Ok(DueRows { rows, is_last })
}

/// Maximum number of due changes per transaction.
const MAX_DUE_CHANGES: i64 = 500;

/// Returns the number of changes that are due at `now` and not yet recorded as applied.
pub async fn count_due(conn: &mut Conn, now: Instant) -> Result<i64> {
    dispatch!(conn, |c| {
        scheduled_changes::table
            .filter(scheduled_changes::marked_at.is_null())
            .filter(scheduled_changes::cancelled_at.is_null())
            .filter(scheduled_changes::scheduled_at.le(DbInstant(now)))
            .count()
            .get_result(c)
            .await
    })
}

/// Filter for [`list`]. A field that is `None` does not restrict the result.
#[derive(Clone, Copy, Debug, Default)]
pub struct ScheduleFilter<'f> {
    /// Name of the flag.
    pub flag_name: Option<&'f str>,
    /// Only changes that are neither due at this time nor cancelled.
    pub pending_at: Option<Instant>,
}

/// Returns a page of scheduled changes, ascending by `scheduled_at`, then by id. Omits rows that cannot be read.
///
/// `after` is the time and id of the last change of the previous page.
pub async fn list(
    conn: &mut Conn,
    filter: ScheduleFilter<'_>,
    after: Option<(Instant, Uuid)>,
    limit: u32,
) -> Result<Page<ScheduleRecord>> {
    use scheduled_changes::dsl;
    macro_rules! filtered {
        ($columns:expr) => {{
            let mut query = dsl::scheduled_changes.select($columns).into_boxed::<Db>();
            if let Some(name) = filter.flag_name {
                query = query.filter(dsl::flag_name.eq(name.to_owned()));
            }
            if let Some(now) = filter.pending_at {
                query = query.filter(dsl::scheduled_at.gt(DbInstant(now))).filter(dsl::cancelled_at.is_null());
            }
            query
        }};
    }
    let total: i64 = dispatch!(conn, |c| BoundedCount(filtered!(dsl::id)).get_result(c).await)?;
    let mut bound = i64::from(limit) + 1;
    loop {
        let rows: Vec<Decoded<ScheduleRow>> = dispatch!(conn, |c| {
            let mut query = filtered!(columns!(ScheduleRow));
            if let Some((at, id)) = after {
                let later = dsl::scheduled_at.gt(DbInstant(at));
                query = query.filter(later.or(dsl::scheduled_at.eq(DbInstant(at)).and(dsl::id.gt(DbUuid(id)))));
            }
            query.order((dsl::scheduled_at.asc(), dsl::id.asc())).limit(bound).load(c).await
        })?;
        let found = rows.len();
        let items: Vec<ScheduleRecord> = readable(TABLE, rows);
        match next_bound(limit, bound, found, items.len()) {
            Some(next) => bound = next,
            None => return Ok(Page::from_overfetched(items, limit, total)),
        }
    }
}

fn entry(action: Action, before: Option<&ScheduleRecord>, after: Option<&ScheduleRecord>) -> ChangeLogEntry {
    let subject = after.or(before);
    ChangeLogEntry {
        action,
        resource_kind: ResourceKind::ScheduledChange,
        resource_id: subject.map(|record| record.change.id),
        flag_name: subject.map(|record| record.flag_name.to_string()),
        user_id: None,
        before: before.map(|record| to_json(&record.change)),
        after: after.map(|record| to_json(&record.change)),
        reason: None,
    }
}
