//! User overrides: one named function a query.

mod list;

use std::time::Duration;

use diesel::{ExpressionMethods, Insertable, OptionalExtension, QueryDsl, Queryable, Selectable, SelectableHelper};
use diesel_async::RunQueryDsl;
use flags_domain::{Instant, OverrideStatus, UserOverride};
use futures_util::TryStreamExt as _;
use uuid::Uuid;

pub use self::list::{
    ListedOverride, OverrideFilter, OverrideOrder, count_by_flag, count_by_user, find_listed, list, matching,
};
use crate::{
    backend,
    change_log::{self, Action, ResourceKind},
    commit::{ChangeLogEntry, Tx},
    error::{Result, StoreError},
    schema::{feature_flags, user_flag_overrides},
    sql_types::{DbInstant, DbJson, DbUuid, LenientJson},
    store::{Backend, Conn, on, within},
};

/// An override as it stands in the database.
#[derive(Clone, Debug, PartialEq)]
pub struct OverrideRecord {
    /// The override.
    pub user_override: UserOverride,
    /// The revision of its last change.
    pub revision: i64,
}

#[derive(Insertable)]
#[diesel(table_name = user_flag_overrides)]
struct NewRow {
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
struct Row {
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

impl From<&UserOverride> for NewRow {
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

impl TryFrom<Row> for OverrideRecord {
    type Error = StoreError;

    fn try_from(row: Row) -> Result<Self> {
        // Rows that others inserted may lack the instants, which the specification's table allows.
        let instant = |at: Option<DbInstant>| at.map_or(Instant::from_micros(0), |at| at.0);
        let user_override = UserOverride {
            id: row.id.0,
            user_id: row.user_id.0,
            flag_name: change_log::read_name(&row.flag_name)?,
            override_value: row.override_value.0.map_err(|error| StoreError::corrupt("override_value", error))?,
            enabled: row.enabled,
            reason: row.reason,
            created_by: row.created_by,
            created_at: instant(row.created_at),
            updated_at: instant(row.updated_at),
            expires_at: row.expires_at.map(|at| at.0),
        };
        Ok(Self { user_override, revision: row.revision })
    }
}

/// The override of this user and flag.
pub async fn find(conn: &mut Conn, user_id: Uuid, flag_name: &str) -> Result<Option<OverrideRecord>> {
    let row: Option<Row> = on!(conn, |c| {
        user_flag_overrides::table
            .filter(user_flag_overrides::user_id.eq(DbUuid(user_id)))
            .filter(user_flag_overrides::flag_name.eq(flag_name))
            .select(Row::as_select())
            .first(c)
            .await
            .optional()
    })?;
    row.map(TryInto::try_into).transpose()
}

/// The same, held to the end of the transaction.
pub async fn claim(tx: &mut Tx, user_id: Uuid, flag_name: &str) -> Result<Option<OverrideRecord>> {
    if let Backend::Postgres(object) = &mut tx.conn().0 {
        backend::postgres::lock_override(object, DbUuid(user_id), flag_name).await?;
    }
    tx.refresh_now();
    find(tx.conn(), user_id, flag_name).await
}

/// Inserts an override; `false` if another transaction was faster.
pub async fn insert(tx: &mut Tx, new: &UserOverride) -> Result<bool> {
    let row = NewRow::from(new);
    let inserted = on!(tx.conn(), |c| {
        diesel::insert_into(user_flag_overrides::table).values(&row).on_conflict_do_nothing().execute(c).await
    })?;
    if inserted == 1 {
        tx.record(entry(Action::Created, None, Some(new)));
    }
    Ok(inserted == 1)
}

/// Writes the changed fields of an override that the transaction has claimed.
pub async fn update(tx: &mut Tx, before: &UserOverride, after: &UserOverride) -> Result<()> {
    on!(tx.conn(), |c| {
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

/// Removes an override that the transaction has claimed; as expired if its end has passed.
pub async fn delete(tx: &mut Tx, gone: &UserOverride) -> Result<()> {
    let now = tx.now();
    let deleted =
        on!(tx.conn(), |c| diesel::delete(user_flag_overrides::table.find(DbUuid(gone.id))).execute(c).await)?;
    let action = if gone.status(now) == OverrideStatus::Expired { Action::Expired } else { Action::Deleted };
    if deleted == 1 {
        tx.record(entry(action, Some(gone), None));
    }
    Ok(())
}

/// Up to `limit` overrides whose end has passed at `due`, held to the end of the transaction; those that another transaction
/// holds are passed over.
pub async fn claim_expired(tx: &mut Tx, due: Instant, limit: i64) -> Result<Vec<OverrideRecord>> {
    let now = DbInstant(due);
    let ids = match &mut tx.conn().0 {
        Backend::Postgres(object) => backend::postgres::claim_expired_overrides(object, now, limit).await?,
        Backend::Sqlite(object) => backend::sqlite::expired_overrides(object, now, limit).await?,
    };
    let rows: Vec<Row> = rows_of(tx.conn(), &ids).await?;
    let readable = |row: Row| {
        let id = row.id.0;
        let record = OverrideRecord::try_from(row);
        record.inspect_err(|error| tracing::error!(%id, %error, "an expired override cannot be read and stays")).ok()
    };
    Ok(rows.into_iter().filter_map(readable).collect())
}

/// Whose overrides are meant.
#[derive(Clone, Copy, Debug)]
pub enum OverrideOwner<'n> {
    /// One user's.
    User(Uuid),
    /// One flag's.
    Flag(&'n str),
}

/// Up to `limit` overrides of a user or flag, in the order of their ids, held to the end of the transaction.
pub async fn claim_some(tx: &mut Tx, of: OverrideOwner<'_>, limit: i64) -> Result<Vec<OverrideRecord>> {
    let mut ids: Vec<DbUuid> = on!(tx.conn(), |c| {
        let mut query = user_flag_overrides::table.select(user_flag_overrides::id).into_boxed::<Db>();
        query = match of {
            OverrideOwner::User(id) => query.filter(user_flag_overrides::user_id.eq(DbUuid(id))),
            OverrideOwner::Flag(name) => query.filter(user_flag_overrides::flag_name.eq(name.to_owned())),
        };
        query.order(user_flag_overrides::id).limit(limit).load(c).await
    })?;
    if let Backend::Postgres(object) = &mut tx.conn().0 {
        ids = backend::postgres::lock_overrides(object, &ids).await?;
    }
    tx.refresh_now();
    records(tx.conn(), &ids).await
}

/// Reads all overrides for loading the replica and hands them on one by one; never holds them all. The specification's table
/// lets others put in what cannot be read; such a row takes no other down.
///
/// `conn` must be a [snapshot](crate::Store::snapshot). Any wait for the database is bounded by `patience`.
pub async fn load_each(conn: &mut Conn, patience: Duration, mut each: impl FnMut(Result<UserOverride>)) -> Result<()> {
    match &mut conn.0 {
        Backend::Postgres(object) => {
            within(patience, async { Ok(backend::postgres::lift_statement_timeout(object).await?) }).await?;
            let query = user_flag_overrides::table.select(Row::as_select());
            let mut rows = within(patience, async { Ok(query.load_stream::<Row>(object).await?) }).await?;
            while let Some(row) = within(patience, async { Ok(rows.try_next().await?) }).await? {
                each(OverrideRecord::try_from(row).map(|record| record.user_override));
            }
        }
        // SQLite's rows are read on another thread, some at a time.
        Backend::Sqlite(_) => {
            let mut after = Uuid::nil();
            loop {
                let rows = within(patience, load_after(conn, after)).await?;
                let Some(last) = rows.as_slice().last() else { return Ok(()) };
                after = last.id.0;
                for row in rows {
                    each(OverrideRecord::try_from(row).map(|record| record.user_override));
                }
            }
        }
    }
    Ok(())
}

/// Overrides loaded at once where they are not streamed.
const LOAD_BATCH: i64 = 10_000;

async fn load_after(conn: &mut Conn, after: Uuid) -> Result<Vec<Row>> {
    on!(conn, |c| {
        user_flag_overrides::table
            .filter(user_flag_overrides::id.gt(DbUuid(after)))
            .order(user_flag_overrides::id)
            .limit(LOAD_BATCH)
            .select(Row::as_select())
            .load(c)
            .await
    })
}

/// Those of these overrides that are there, in the order of their ids, held to the end of the transaction. What belongs to a
/// flag that is being deleted is left to the deletion.
pub async fn claim_all(tx: &mut Tx, ids: &[Uuid]) -> Result<Vec<OverrideRecord>> {
    let mut ids: Vec<DbUuid> = ids.iter().copied().map(DbUuid).collect();
    if let Backend::Postgres(object) = &mut tx.conn().0 {
        ids = backend::postgres::lock_overrides(object, &ids).await?;
    }
    tx.refresh_now();
    ids = on!(tx.conn(), |c| {
        let going = feature_flags::table.filter(feature_flags::deleting.eq(true)).select(feature_flags::name);
        let rows = user_flag_overrides::table.filter(user_flag_overrides::id.eq_any(&ids));
        let rows = rows.filter(user_flag_overrides::flag_name.ne_all(going));
        rows.select(user_flag_overrides::id).load(c).await
    })?;
    records(tx.conn(), &ids).await
}

async fn records(conn: &mut Conn, ids: &[DbUuid]) -> Result<Vec<OverrideRecord>> {
    rows_of(conn, ids).await?.into_iter().map(TryInto::try_into).collect()
}

async fn rows_of(conn: &mut Conn, ids: &[DbUuid]) -> Result<Vec<Row>> {
    on!(conn, |c| {
        let rows = user_flag_overrides::table.filter(user_flag_overrides::id.eq_any(ids));
        rows.order(user_flag_overrides::id).select(Row::as_select()).load(c).await
    })
}

/// How many overrides have passed their end at `now` and are still there.
pub async fn count_expired(conn: &mut Conn, now: Instant) -> Result<i64> {
    on!(conn, |c| {
        let expired = user_flag_overrides::table.filter(user_flag_overrides::expires_at.le(DbInstant(now)));
        expired.count().get_result(c).await
    })
}

fn entry(action: Action, before: Option<&UserOverride>, after: Option<&UserOverride>) -> ChangeLogEntry {
    let subject = after.or(before);
    ChangeLogEntry {
        action,
        entity: ResourceKind::Override,
        entity_id: subject.map(|o| o.id),
        flag_name: subject.map(|o| o.flag_name.to_string()),
        user_id: subject.map(|o| o.user_id),
        before: before.map(change_log::write),
        after: after.map(change_log::write),
        reason: subject.and_then(|o| o.reason.clone()),
    }
}
