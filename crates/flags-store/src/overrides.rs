//! User overrides: one named function a query.

use std::{collections::HashMap, time::Duration};

use diesel::{
    BoolExpressionMethods, EscapeExpressionMethods, ExpressionMethods, Insertable, JoinOnDsl,
    NullableExpressionMethods, OptionalExtension, QueryDsl, Queryable, Selectable, SelectableHelper,
    TextExpressionMethods, dsl::count_star,
};
use diesel_async::RunQueryDsl;
use flags_domain::{FlagName, Instant, OverrideStatus, UserOverride};
use futures_util::TryStreamExt as _;
use uuid::Uuid;

use crate::{
    backend,
    commit::{LogEntry, Tx},
    error::{Result, StoreError},
    log::{self, Action, Entity},
    page::{CountUpTo, Page, containing},
    schema::{feature_flags, user_flag_overrides, users},
    sql_types::{AnyJson, At, Json, Uid},
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

/// An override in a list, with what the list shows beside it.
#[derive(Clone, Debug, PartialEq)]
pub struct ListedOverride {
    /// The override.
    pub record: OverrideRecord,
    /// The e-mail of its user.
    pub user_email: String,
}

#[derive(Insertable)]
#[diesel(table_name = user_flag_overrides)]
struct NewRow {
    id: Uid,
    user_id: Uid,
    flag_name: String,
    override_value: Json,
    enabled: Option<bool>,
    reason: Option<String>,
    created_by: String,
    created_at: At,
    updated_at: At,
    expires_at: Option<At>,
}

#[derive(Queryable, Selectable)]
#[diesel(table_name = user_flag_overrides)]
struct Row {
    id: Uid,
    user_id: Uid,
    flag_name: String,
    override_value: AnyJson,
    enabled: Option<bool>,
    reason: Option<String>,
    created_by: String,
    created_at: Option<At>,
    updated_at: Option<At>,
    expires_at: Option<At>,
    revision: i64,
}

impl From<&UserOverride> for NewRow {
    fn from(o: &UserOverride) -> Self {
        Self {
            id: Uid(o.id),
            user_id: Uid(o.user_id),
            flag_name: o.flag_name.to_string(),
            override_value: Json(o.override_value.clone()),
            enabled: o.enabled,
            reason: o.reason.clone(),
            created_by: o.created_by.clone(),
            created_at: At(o.created_at),
            updated_at: At(o.updated_at),
            expires_at: o.expires_at.map(At),
        }
    }
}

impl TryFrom<Row> for OverrideRecord {
    type Error = StoreError;

    fn try_from(row: Row) -> Result<Self> {
        // Rows that others inserted may lack the instants, which the specification's table allows.
        let instant = |at: Option<At>| at.map_or(Instant::from_micros(0), |at| at.0);
        let user_override = UserOverride {
            id: row.id.0,
            user_id: row.user_id.0,
            flag_name: log::read_name(&row.flag_name)?,
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

fn listed((row, user_email): (Row, String)) -> Result<ListedOverride> {
    Ok(ListedOverride { record: row.try_into()?, user_email })
}

/// The override of this user and flag.
pub async fn find(conn: &mut Conn, user_id: Uuid, flag_name: &str) -> Result<Option<OverrideRecord>> {
    let row: Option<Row> = on!(conn, |c| {
        user_flag_overrides::table
            .filter(user_flag_overrides::user_id.eq(Uid(user_id)))
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
        backend::postgres::lock_override(object, Uid(user_id), flag_name).await?;
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
        diesel::update(user_flag_overrides::table.find(Uid(after.id)))
            .set((
                user_flag_overrides::override_value.eq(Json(after.override_value.clone())),
                user_flag_overrides::enabled.eq(after.enabled),
                user_flag_overrides::reason.eq(after.reason.as_deref()),
                user_flag_overrides::updated_at.eq(At(after.updated_at)),
                user_flag_overrides::expires_at.eq(after.expires_at.map(At)),
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
    let deleted = on!(tx.conn(), |c| diesel::delete(user_flag_overrides::table.find(Uid(gone.id))).execute(c).await)?;
    let action = if gone.status(now) == OverrideStatus::Expired { Action::Expired } else { Action::Deleted };
    if deleted == 1 {
        tx.record(entry(action, Some(gone), None));
    }
    Ok(())
}

/// Up to `limit` overrides whose end has passed at `due`, held to the end of the transaction; those that another transaction
/// holds are passed over.
pub async fn claim_expired(tx: &mut Tx, due: Instant, limit: i64) -> Result<Vec<OverrideRecord>> {
    let now = At(due);
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
pub enum Of<'n> {
    /// One user's.
    User(Uuid),
    /// One flag's.
    Flag(&'n str),
}

/// Up to `limit` overrides of a user or flag, in the order of their ids, held to the end of the transaction.
pub async fn claim_some(tx: &mut Tx, of: Of<'_>, limit: i64) -> Result<Vec<OverrideRecord>> {
    let mut ids: Vec<Uid> = on!(tx.conn(), |c| {
        let mut query = user_flag_overrides::table.select(user_flag_overrides::id).into_boxed::<Db>();
        query = match of {
            Of::User(id) => query.filter(user_flag_overrides::user_id.eq(Uid(id))),
            Of::Flag(name) => query.filter(user_flag_overrides::flag_name.eq(name.to_owned())),
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
            .filter(user_flag_overrides::id.gt(Uid(after)))
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
    let mut ids: Vec<Uid> = ids.iter().copied().map(Uid).collect();
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

async fn records(conn: &mut Conn, ids: &[Uid]) -> Result<Vec<OverrideRecord>> {
    rows_of(conn, ids).await?.into_iter().map(TryInto::try_into).collect()
}

async fn rows_of(conn: &mut Conn, ids: &[Uid]) -> Result<Vec<Row>> {
    on!(conn, |c| {
        let rows = user_flag_overrides::table.filter(user_flag_overrides::id.eq_any(ids));
        rows.order(user_flag_overrides::id).select(Row::as_select()).load(c).await
    })
}

/// How many overrides have passed their end at `now` and are still there.
pub async fn count_expired(conn: &mut Conn, now: Instant) -> Result<i64> {
    on!(conn, |c| {
        let expired = user_flag_overrides::table.filter(user_flag_overrides::expires_at.le(At(now)));
        expired.count().get_result(c).await
    })
}

/// Which overrides a list is to hold; all that is `None` does not matter.
#[derive(Clone, Debug, Default)]
pub struct OverrideFilter {
    /// Any part of the e-mail or the flag's name, in lower case.
    pub search: Option<String>,
    /// The flag.
    pub flag_name: Option<String>,
    /// The user.
    pub user_id: Option<Uuid>,
    /// The status at the given instant.
    pub status: Option<(OverrideStatus, Instant)>,
    /// Ends before this.
    pub expires_before: Option<Instant>,
}

/// In what order, and after what.
#[derive(Clone, Debug)]
pub enum OverrideOrder {
    /// By the flag's name.
    FlagName(Option<String>),
    /// By the user's e-mail, then id.
    UserEmail(Option<(String, Uuid)>),
    /// Newest change first, then id.
    NewestChange(Option<(i64, Uuid)>),
    /// Soonest end first, then id; those without end come last.
    SoonestEnd(Option<(Option<Instant>, Uuid)>),
}

/// The query with the conditions of a filter. It must join the users.
macro_rules! filtered {
    ($query:expr, $filter:expr) => {{
        use user_flag_overrides::dsl;
        let filter: &OverrideFilter = $filter;
        let mut query = $query;
        if let Some(part) = &filter.search {
            let pattern = containing(part);
            let in_email = users::email_key.like(pattern.clone()).escape('\\');
            query = query.filter(in_email.or(dsl::flag_name.like(pattern).escape('\\')));
        }
        if let Some(name) = &filter.flag_name {
            query = query.filter(dsl::flag_name.eq(name.clone()));
        }
        if let Some(id) = filter.user_id {
            query = query.filter(dsl::user_id.eq(Uid(id)));
        }
        let now_or = |at: Instant| dsl::expires_at.is_null().or(dsl::expires_at.gt(At(at)).assume_not_null());
        match filter.status {
            Some((OverrideStatus::Expired, at)) => query = query.filter(dsl::expires_at.le(At(at))),
            Some((OverrideStatus::Active, at)) => {
                query =
                    query.filter(now_or(at)).filter(dsl::enabled.is_null().or(dsl::enabled.eq(true).assume_not_null()));
            }
            Some((OverrideStatus::Disabled, at)) => {
                query = query.filter(now_or(at)).filter(dsl::enabled.eq(false));
            }
            None => {}
        }
        if let Some(at) = filter.expires_before {
            query = query.filter(dsl::expires_at.lt(At(at)));
        }
        query
    }};
}

/// A page of overrides.
pub async fn list(
    conn: &mut Conn,
    filter: &OverrideFilter,
    order: OverrideOrder,
    limit: u32,
) -> Result<Page<ListedOverride>> {
    use user_flag_overrides::dsl;
    let total: i64 = on!(conn, |c| {
        let all = dsl::user_flag_overrides
            .inner_join(users::table)
            .inner_join(feature_flags::table.on(feature_flags::name.eq(dsl::flag_name)))
            .select(dsl::id)
            .into_boxed::<Db>();
        CountUpTo(filtered!(all, filter)).get_result(c).await
    })?;
    let bound = i64::from(limit) + 1;
    let rows: Vec<(Row, String)> = on!(conn, |c| {
        // Joined for its name's order, which is by bytes on both databases.
        let all = dsl::user_flag_overrides
            .inner_join(users::table)
            .inner_join(feature_flags::table.on(feature_flags::name.eq(dsl::flag_name)))
            .select((Row::as_select(), users::email))
            .into_boxed::<Db>();
        let query = filtered!(all, filter);
        let query =
            match order {
                OverrideOrder::FlagName(after) => {
                    let query = query.order((feature_flags::name.asc(), dsl::id.asc()));
                    match after {
                        Some(name) => query.filter(feature_flags::name.gt(name)),
                        None => query,
                    }
                }
                OverrideOrder::UserEmail(after) => {
                    let query = query.order((users::email.asc(), dsl::id.asc()));
                    match after {
                        Some((email, id)) => query
                            .filter(users::email.gt(email.clone()).or(users::email.eq(email).and(dsl::id.gt(Uid(id))))),
                        None => query,
                    }
                }
                OverrideOrder::NewestChange(after) => {
                    let query = query.order((dsl::revision.desc(), dsl::id.asc()));
                    match after {
                        Some((revision, id)) => query
                            .filter(dsl::revision.lt(revision).or(dsl::revision.eq(revision).and(dsl::id.gt(Uid(id))))),
                        None => query,
                    }
                }
                OverrideOrder::SoonestEnd(after) => {
                    let query = query.order((dsl::expires_at.is_null().asc(), dsl::expires_at.asc(), dsl::id.asc()));
                    match after {
                        Some((Some(end), id)) => query.filter(
                            dsl::expires_at
                                .gt(At(end))
                                .assume_not_null()
                                .or(dsl::expires_at.eq(At(end)).assume_not_null().and(dsl::id.gt(Uid(id))))
                                .or(dsl::expires_at.is_null()),
                        ),
                        Some((None, id)) => query.filter(dsl::expires_at.is_null().and(dsl::id.gt(Uid(id)))),
                        None => query,
                    }
                }
            };
        query.limit(bound).load(c).await
    })?;
    let rows = rows.into_iter().map(listed).collect::<Result<Vec<_>>>()?;
    Ok(Page::cut(rows, limit, total))
}

/// The ids of the overrides that `filter` lets through, of those in `among` if given, in order, at most `limit`.
pub async fn matching(
    conn: &mut Conn,
    filter: &OverrideFilter,
    among: Option<&[Uuid]>,
    limit: usize,
) -> Result<Vec<Uuid>> {
    use user_flag_overrides::dsl;
    let bound = i64::try_from(limit).unwrap_or(i64::MAX);
    let among: Option<Vec<Uid>> = among.map(|ids| ids.iter().copied().map(Uid).collect());
    let ids: Vec<Uid> = on!(conn, |c| {
        let mut query = dsl::user_flag_overrides
            .inner_join(users::table)
            .inner_join(feature_flags::table.on(feature_flags::name.eq(dsl::flag_name)))
            .select(dsl::id)
            .into_boxed::<Db>();
        if let Some(ids) = among {
            query = query.filter(dsl::id.eq_any(ids));
        }
        filtered!(query, filter).order(dsl::id.asc()).limit(bound).load(c).await
    })?;
    Ok(ids.into_iter().map(|id| id.0).collect())
}

/// How many unexpired overrides each of these flags has. Flags without any are left out.
pub async fn count_by_flag(conn: &mut Conn, names: &[FlagName], now: Instant) -> Result<HashMap<String, i64>> {
    use user_flag_overrides::dsl;
    let names: Vec<&str> = names.iter().map(FlagName::as_str).collect();
    let counts: Vec<(String, i64)> = on!(conn, |c| {
        dsl::user_flag_overrides
            .filter(dsl::flag_name.eq_any(&names))
            .filter(dsl::expires_at.is_null().or(dsl::expires_at.gt(At(now)).assume_not_null()))
            .group_by(dsl::flag_name)
            .select((dsl::flag_name, count_star()))
            .load(c)
            .await
    })?;
    Ok(counts.into_iter().collect())
}

/// How many unexpired overrides of unarchived flags each of these users has. Users without any are left out.
pub async fn count_by_user(conn: &mut Conn, ids: &[Uuid], now: Instant) -> Result<HashMap<Uuid, i64>> {
    use user_flag_overrides::dsl;
    let ids: Vec<Uid> = ids.iter().copied().map(Uid).collect();
    let counts: Vec<(Uid, i64)> = on!(conn, |c| {
        dsl::user_flag_overrides
            .inner_join(feature_flags::table.on(feature_flags::name.eq(dsl::flag_name)))
            .filter(feature_flags::archived_at.is_null())
            .filter(dsl::user_id.eq_any(&ids))
            .filter(dsl::expires_at.is_null().or(dsl::expires_at.gt(At(now)).assume_not_null()))
            .group_by(dsl::user_id)
            .select((dsl::user_id, count_star()))
            .load(c)
            .await
    })?;
    Ok(counts.into_iter().map(|(id, count)| (id.0, count)).collect())
}

fn entry(action: Action, before: Option<&UserOverride>, after: Option<&UserOverride>) -> LogEntry {
    let subject = after.or(before);
    LogEntry {
        action,
        entity: Entity::Override,
        entity_id: subject.map(|o| o.id),
        flag_name: subject.map(|o| o.flag_name.to_string()),
        user_id: subject.map(|o| o.user_id),
        before: before.map(log::write),
        after: after.map(log::write),
        reason: subject.and_then(|o| o.reason.clone()),
    }
}
