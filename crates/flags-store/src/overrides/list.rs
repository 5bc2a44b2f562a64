//! Lists and counts of overrides.

use std::collections::HashMap;

use diesel::{
    BoolExpressionMethods, EscapeExpressionMethods, ExpressionMethods, JoinOnDsl, NullableExpressionMethods, QueryDsl,
    SelectableHelper, TextExpressionMethods, dsl::count_star,
};
use diesel_async::RunQueryDsl;
use flags_domain::{FlagName, Instant, OverrideStatus};
use uuid::Uuid;

use super::{OverrideRecord, Row};
use crate::{
    error::Result,
    page::{CountUpTo, Page, containing},
    schema::{feature_flags, user_flag_overrides, users},
    sql_types::{DbInstant, DbUuid},
    store::{Conn, on},
};

/// An override in a list, with what the list shows beside it.
#[derive(Clone, Debug, PartialEq)]
pub struct ListedOverride {
    /// The override.
    pub record: OverrideRecord,
    /// The e-mail of its user.
    pub user_email: String,
}

fn listed((row, user_email): (Row, String)) -> Result<ListedOverride> {
    Ok(ListedOverride { record: row.try_into()?, user_email })
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
            query = query.filter(dsl::user_id.eq(DbUuid(id)));
        }
        let now_or = |at: Instant| dsl::expires_at.is_null().or(dsl::expires_at.gt(DbInstant(at)).assume_not_null());
        match filter.status {
            Some((OverrideStatus::Expired, at)) => query = query.filter(dsl::expires_at.le(DbInstant(at))),
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
            query = query.filter(dsl::expires_at.lt(DbInstant(at)));
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
        let query = match order {
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
                        .filter(users::email.gt(email.clone()).or(users::email.eq(email).and(dsl::id.gt(DbUuid(id))))),
                    None => query,
                }
            }
            OverrideOrder::NewestChange(after) => {
                let query = query.order((dsl::revision.desc(), dsl::id.asc()));
                match after {
                    Some((revision, id)) => query
                        .filter(dsl::revision.lt(revision).or(dsl::revision.eq(revision).and(dsl::id.gt(DbUuid(id))))),
                    None => query,
                }
            }
            OverrideOrder::SoonestEnd(after) => {
                let query = query.order((dsl::expires_at.is_null().asc(), dsl::expires_at.asc(), dsl::id.asc()));
                match after {
                    Some((Some(end), id)) => query.filter(
                        dsl::expires_at
                            .gt(DbInstant(end))
                            .assume_not_null()
                            .or(dsl::expires_at.eq(DbInstant(end)).assume_not_null().and(dsl::id.gt(DbUuid(id))))
                            .or(dsl::expires_at.is_null()),
                    ),
                    Some((None, id)) => query.filter(dsl::expires_at.is_null().and(dsl::id.gt(DbUuid(id)))),
                    None => query,
                }
            }
        };
        query.limit(bound).load(c).await
    })?;
    let rows = rows.into_iter().map(listed).collect::<Result<Vec<_>>>()?;
    Ok(Page::cut(rows, limit, total))
}

/// Those of these overrides that are there, in no particular order.
pub async fn find_listed(conn: &mut Conn, ids: &[Uuid]) -> Result<Vec<ListedOverride>> {
    use user_flag_overrides::dsl;
    let ids: Vec<_> = ids.iter().copied().map(DbUuid).collect();
    let rows: Vec<(Row, String)> = on!(conn, |c| {
        let all = dsl::user_flag_overrides.inner_join(users::table).filter(dsl::id.eq_any(&ids));
        all.select((Row::as_select(), users::email)).load(c).await
    })?;
    rows.into_iter().map(listed).collect()
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
    let among: Option<Vec<DbUuid>> = among.map(|ids| ids.iter().copied().map(DbUuid).collect());
    let ids: Vec<DbUuid> = on!(conn, |c| {
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
            .filter(dsl::expires_at.is_null().or(dsl::expires_at.gt(DbInstant(now)).assume_not_null()))
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
    let ids: Vec<DbUuid> = ids.iter().copied().map(DbUuid).collect();
    let counts: Vec<(DbUuid, i64)> = on!(conn, |c| {
        dsl::user_flag_overrides
            .inner_join(feature_flags::table.on(feature_flags::name.eq(dsl::flag_name)))
            .filter(feature_flags::archived_at.is_null())
            .filter(dsl::user_id.eq_any(&ids))
            .filter(dsl::expires_at.is_null().or(dsl::expires_at.gt(DbInstant(now)).assume_not_null()))
            .group_by(dsl::user_id)
            .select((dsl::user_id, count_star()))
            .load(c)
            .await
    })?;
    Ok(counts.into_iter().map(|(id, count)| (id.0, count)).collect())
}
