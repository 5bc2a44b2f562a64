//! Scheduled changes: one named function a query.

use std::collections::HashMap;

use diesel::{
    AsChangeset, BoolExpressionMethods, ExpressionMethods, Insertable, OptionalExtension, QueryDsl, Queryable,
    Selectable, SelectableHelper, dsl::count_star,
};
use diesel_async::RunQueryDsl;
use flags_domain::{FlagName, Instant, ScheduledChange};
use uuid::Uuid;

use crate::{
    backend,
    change_log::{self, Action, ResourceKind},
    commit::{ChangeLogEntry, Tx},
    error::{Result, StoreError},
    page::{CountUpTo, Page},
    schema::scheduled_changes,
    sql_types::{DbInstant, DbJson, DbUuid},
    store::{Backend, Conn, on},
};

/// A scheduled change as it stands in the database.
#[derive(Clone, Debug, PartialEq)]
pub struct ScheduleRecord {
    /// The change.
    pub change: ScheduledChange,
    /// Its flag.
    pub flag_name: FlagName,
    /// The actor who made it.
    pub created_by: String,
    /// When it was made.
    pub created_at: Instant,
    /// When it was last changed.
    pub updated_at: Instant,
    /// When the worker recorded that it fell due.
    pub marked_at: Option<Instant>,
    /// The revision of its last change.
    pub revision: i64,
}

#[derive(Queryable, Selectable, Insertable, AsChangeset)]
#[diesel(table_name = scheduled_changes)]
#[diesel(treat_none_as_null = true)]
struct Row {
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
    marked_at: Option<DbInstant>,
    revision: i64,
}

impl From<&ScheduleRecord> for Row {
    fn from(record: &ScheduleRecord) -> Self {
        let change = &record.change;
        Self {
            id: DbUuid(change.id),
            flag_name: record.flag_name.to_string(),
            scheduled_at: DbInstant(change.scheduled_at),
            serve: change.serve.as_ref().map(|serve| DbJson(change_log::write(serve))),
            enabled: change.enabled,
            description: change.description.clone(),
            created_by: record.created_by.clone(),
            created_at: DbInstant(record.created_at),
            updated_at: DbInstant(record.updated_at),
            cancelled_at: change.cancelled_at.map(DbInstant),
            marked_at: record.marked_at.map(DbInstant),
            revision: record.revision,
        }
    }
}

impl TryFrom<Row> for ScheduleRecord {
    type Error = StoreError;

    fn try_from(row: Row) -> Result<Self> {
        let change = ScheduledChange {
            id: row.id.0,
            scheduled_at: row.scheduled_at.0,
            serve: row.serve.map(|serve| change_log::read("scheduled_changes", &serve.0)).transpose()?,
            enabled: row.enabled,
            description: row.description,
            cancelled_at: row.cancelled_at.map(|at| at.0),
        };
        Ok(Self {
            change,
            flag_name: change_log::read_name(&row.flag_name)?,
            created_by: row.created_by,
            created_at: row.created_at.0,
            updated_at: row.updated_at.0,
            marked_at: row.marked_at.map(|at| at.0),
            revision: row.revision,
        })
    }
}

fn records(rows: Vec<Row>) -> Result<Vec<ScheduleRecord>> {
    rows.into_iter().map(TryInto::try_into).collect()
}

/// The scheduled change of this id.
pub async fn find(conn: &mut Conn, id: Uuid) -> Result<Option<ScheduleRecord>> {
    let row: Option<Row> = on!(conn, |c| {
        scheduled_changes::table.find(DbUuid(id)).select(Row::as_select()).first(c).await.optional()
    })?;
    row.map(TryInto::try_into).transpose()
}

/// All scheduled changes of these flags, cancelled ones included, by instant.
pub async fn of_flags(conn: &mut Conn, names: &[FlagName]) -> Result<Vec<ScheduleRecord>> {
    let names: Vec<&str> = names.iter().map(FlagName::as_str).collect();
    let rows: Vec<Row> = on!(conn, |c| {
        let rows = scheduled_changes::table.filter(scheduled_changes::flag_name.eq_any(&names));
        let rows = rows.order((scheduled_changes::scheduled_at, scheduled_changes::id));
        rows.select(Row::as_select()).load(c).await
    })?;
    records(rows)
}

/// All scheduled changes of all flags, for loading the replica.
pub async fn load_all(conn: &mut Conn) -> Result<Vec<ScheduleRecord>> {
    let rows: Vec<Row> = on!(conn, |c| {
        scheduled_changes::table.order(scheduled_changes::id).select(Row::as_select()).load(c).await
    })?;
    records(rows)
}

/// Inserts a scheduled change; `false` if an uncancelled one stands at the same instant.
pub async fn insert(tx: &mut Tx, new: &ScheduleRecord) -> Result<bool> {
    let row = Row::from(new);
    let inserted = on!(tx.conn(), |c| {
        diesel::insert_into(scheduled_changes::table).values(&row).on_conflict_do_nothing().execute(c).await
    })?;
    if inserted == 1 {
        tx.record(entry(Action::Created, None, Some(new)));
    }
    Ok(inserted == 1)
}

/// Writes a scheduled change whose flag the transaction has claimed; the log calls it `action`.
pub async fn update(tx: &mut Tx, action: Action, before: &ScheduleRecord, after: &ScheduleRecord) -> Result<()> {
    let row = Row::from(after);
    on!(tx.conn(), |c| diesel::update(scheduled_changes::table.find(row.id)).set(&row).execute(c).await)?;
    tx.record(entry(action, Some(before), Some(after)));
    Ok(())
}

/// Removes a scheduled change whose flag the transaction has claimed.
pub async fn delete(tx: &mut Tx, gone: &ScheduleRecord) -> Result<()> {
    let id = DbUuid(gone.change.id);
    on!(tx.conn(), |c| diesel::delete(scheduled_changes::table.find(id)).execute(c).await)?;
    tx.record(entry(Action::Deleted, Some(gone), None));
    Ok(())
}

/// Up to `flags` flags with all their changes that are due at `now` and that nobody has marked, the flags held to the end of
/// the transaction; flags that another transaction holds are passed over.
pub async fn claim_due(tx: &mut Tx, now: Instant, flags: i64) -> Result<Vec<ScheduleRecord>> {
    let names = match &mut tx.conn().0 {
        Backend::Postgres(object) => {
            let names = backend::postgres::claim_flags_with_due_changes(object, DbInstant(now), flags).await?;
            Some(names)
        }
        // The transaction holds the whole file.
        Backend::Sqlite(_) => None,
    };
    let rows: Vec<Row> = on!(tx.conn(), |c| {
        let mut query = scheduled_changes::table
            .filter(scheduled_changes::marked_at.is_null())
            .filter(scheduled_changes::cancelled_at.is_null())
            .filter(scheduled_changes::scheduled_at.le(DbInstant(now)))
            .select(Row::as_select())
            .into_boxed::<Db>();
        if let Some(names) = names {
            query = query.filter(scheduled_changes::flag_name.eq_any(names));
        }
        query.order((scheduled_changes::scheduled_at, scheduled_changes::id)).limit(DUE_AT_ONCE).load(c).await
    })?;
    records(rows)
}

/// Most due changes that one transaction marks.
const DUE_AT_ONCE: i64 = 500;

/// How many changes are due at `now` and not marked.
pub async fn count_due(conn: &mut Conn, now: Instant) -> Result<i64> {
    on!(conn, |c| {
        scheduled_changes::table
            .filter(scheduled_changes::marked_at.is_null())
            .filter(scheduled_changes::cancelled_at.is_null())
            .filter(scheduled_changes::scheduled_at.le(DbInstant(now)))
            .count()
            .get_result(c)
            .await
    })
}

/// How many changes of each of these flags are pending. Flags without any are left out.
pub async fn count_pending(conn: &mut Conn, names: &[FlagName], now: Instant) -> Result<HashMap<String, i64>> {
    use scheduled_changes::dsl;
    let names: Vec<&str> = names.iter().map(FlagName::as_str).collect();
    let counts: Vec<(String, i64)> = on!(conn, |c| {
        dsl::scheduled_changes
            .filter(dsl::flag_name.eq_any(&names))
            .filter(dsl::cancelled_at.is_null())
            .filter(dsl::scheduled_at.gt(DbInstant(now)))
            .group_by(dsl::flag_name)
            .select((dsl::flag_name, count_star()))
            .load(c)
            .await
    })?;
    Ok(counts.into_iter().collect())
}

/// Which scheduled changes a list is to hold; what is `None` does not matter.
#[derive(Clone, Copy, Debug, Default)]
pub struct ScheduleFilter<'f> {
    /// Of this flag.
    pub flag_name: Option<&'f str>,
    /// Those that are to come at this instant, and were not cancelled.
    pub pending_at: Option<Instant>,
}

/// A page of scheduled changes by instant, then id, after the given place.
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
    let total: i64 = on!(conn, |c| CountUpTo(filtered!(dsl::id)).get_result(c).await)?;
    let bound = i64::from(limit) + 1;
    let rows: Vec<Row> = on!(conn, |c| {
        let mut query = filtered!(Row::as_select());
        if let Some((at, id)) = after {
            let later = dsl::scheduled_at.gt(DbInstant(at));
            query = query.filter(later.or(dsl::scheduled_at.eq(DbInstant(at)).and(dsl::id.gt(DbUuid(id)))));
        }
        query.order((dsl::scheduled_at.asc(), dsl::id.asc())).limit(bound).load(c).await
    })?;
    Ok(Page::cut(records(rows)?, limit, total))
}

fn entry(action: Action, before: Option<&ScheduleRecord>, after: Option<&ScheduleRecord>) -> ChangeLogEntry {
    let subject = after.or(before);
    ChangeLogEntry {
        action,
        entity: ResourceKind::ScheduledChange,
        entity_id: subject.map(|record| record.change.id),
        flag_name: subject.map(|record| record.flag_name.to_string()),
        user_id: None,
        before: before.map(|record| change_log::write(&record.change)),
        after: after.map(|record| change_log::write(&record.change)),
        reason: None,
    }
}
