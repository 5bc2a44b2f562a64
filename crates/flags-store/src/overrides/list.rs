//! Lists and counts of overrides.

use std::collections::HashMap;

use diesel::{
    BoolExpressionMethods, EscapeExpressionMethods, ExpressionMethods, JoinOnDsl, NullableExpressionMethods, QueryDsl,
    TextExpressionMethods, dsl::count_star,
};
use diesel_async::RunQueryDsl;
use flags_domain::{FlagName, Instant, OverrideStatus};
use uuid::Uuid;

use super::{OverrideRecord, OverrideRow, TABLE};
use crate::{
    conn::{Conn, dispatch},
    decoded::{Decoded, columns, to_record},
    error::Result,
    page::{BoundedCount, Page, contains_pattern, next_bound},
    schema::{feature_flags, user_flag_overrides, users},
    sql_types::{DbInstant, DbUuid},
    users::{UserIdentity, UserIdentityRow},
};

/// An override, with the identity of its user for display.
#[derive(Clone, Debug, PartialEq)]
pub struct OverrideListItem {
    /// Stored override.
    pub record: OverrideRecord,
    /// The override's user.
    pub user: UserIdentity,
}

/// Converts a row. Logs a row that cannot be read, and returns `None`.
fn list_item((row, user): (Decoded<OverrideRow>, Decoded<UserIdentityRow>)) -> Option<OverrideListItem> {
    let record = to_record(TABLE, row.or_logged(TABLE)?)?;
    Some(OverrideListItem { record, user: user.or_logged("users")?.into() })
}

/// Filter for lists of overrides. A field that is `None` does not restrict the result.
#[derive(Clone, Debug, Default)]
pub struct OverrideFilter {
    /// Substring of the user's e-mail address, name or external id, or of the flag's name, in lower case.
    pub search: Option<String>,
    /// Name of the flag.
    pub flag_name: Option<String>,
    /// Id of the user.
    pub user_id: Option<Uuid>,
    /// Status that the override must have at the given time.
    pub status: Option<(OverrideStatus, Instant)>,
    /// Upper bound (exclusive) of the expiry. Excludes overrides that do not expire.
    pub expires_before: Option<Instant>,
}

/// Sort order of [`list`], with the sort key of the last override of the previous page.
#[derive(Clone, Debug)]
pub enum OverrideOrder {
    /// Ascending by flag name. Only for lists of one user's overrides, where the name is unique.
    FlagName(Option<String>),
    /// Ascending by the user's handle (e-mail address or, without one, external id), then by id.
    UserHandle(Option<(String, Uuid)>),
    /// Descending by the revision of the last change, then ascending by id.
    RecentlyUpdated(Option<(i64, Uuid)>),
    /// Ascending by expiry, then by id. Overrides that do not expire come last.
    SoonestExpiry(Option<(Option<Instant>, Uuid)>),
}

/// Adds the conditions of a filter to a query. The query must join `users`.
macro_rules! filtered {
    ($query:expr, $filter:expr) => {{
        use user_flag_overrides::dsl;
        let filter: &OverrideFilter = $filter;
        let mut query = $query;
        if let Some(text) = &filter.search {
            let pattern = contains_pattern(text);
            let in_user = users::search_text.like(pattern.clone()).escape('\\');
            query = query.filter(in_user.or(dsl::flag_name.like(pattern).escape('\\')));
        }
        if let Some(name) = &filter.flag_name {
            query = query.filter(dsl::flag_name.eq(name.clone()));
        }
        if let Some(id) = filter.user_id {
            query = query.filter(dsl::user_id.eq(DbUuid(id)));
        }
        let is_unexpired =
            |at: Instant| dsl::expires_at.is_null().or(dsl::expires_at.gt(DbInstant(at)).assume_not_null());
        match filter.status {
            Some((OverrideStatus::Expired, at)) => query = query.filter(dsl::expires_at.le(DbInstant(at))),
            Some((OverrideStatus::Active, at)) => {
                query = query
                    .filter(is_unexpired(at))
                    .filter(dsl::enabled.is_null().or(dsl::enabled.eq(true).assume_not_null()));
            }
            Some((OverrideStatus::Disabled, at)) => {
                query = query.filter(is_unexpired(at)).filter(dsl::enabled.eq(false));
            }
            None => {}
        }
        if let Some(at) = filter.expires_before {
            query = query.filter(dsl::expires_at.lt(DbInstant(at)));
        }
        query
    }};
}

/// Returns a page of overrides. Omits overrides of unknown flags, and rows that cannot be read.
pub async fn list(
    conn: &mut Conn,
    filter: &OverrideFilter,
    order: OverrideOrder,
    limit: u32,
) -> Result<Page<OverrideListItem>> {
    use user_flag_overrides::dsl;
    let total: i64 = dispatch!(conn, |c| {
        let all = dsl::user_flag_overrides
            .inner_join(users::table)
            .inner_join(feature_flags::table.on(feature_flags::name.eq(dsl::flag_name)))
            .select(dsl::id)
            .into_boxed::<Db>();
        BoundedCount(filtered!(all, filter)).get_result(c).await
    })?;
    let mut bound = i64::from(limit) + 1;
    loop {
        let rows: Vec<(Decoded<OverrideRow>, Decoded<UserIdentityRow>)> = dispatch!(conn, |c| {
            // Sort by the name in `feature_flags`, which both databases compare byte by byte.
            let all = dsl::user_flag_overrides
                .inner_join(users::table)
                .inner_join(feature_flags::table.on(feature_flags::name.eq(dsl::flag_name)))
                .select((columns!(OverrideRow), columns!(UserIdentityRow)))
                .into_boxed::<Db>();
            let query = filtered!(all, filter);
            let query = match order.clone() {
                OverrideOrder::FlagName(after) => {
                    let query = query.order((feature_flags::name.asc(), dsl::id.asc()));
                    match after {
                        Some(name) => query.filter(feature_flags::name.gt(name)),
                        None => query,
                    }
                }
                OverrideOrder::UserHandle(after) => {
                    let query = query.order((users::handle.asc(), dsl::id.asc()));
                    match after {
                        Some((handle, id)) => query.filter(
                            users::handle.gt(handle.clone()).or(users::handle.eq(handle).and(dsl::id.gt(DbUuid(id)))),
                        ),
                        None => query,
                    }
                }
                OverrideOrder::RecentlyUpdated(after) => {
                    let query = query.order((dsl::revision.desc(), dsl::id.asc()));
                    match after {
                        Some((revision, id)) => query.filter(
                            dsl::revision.lt(revision).or(dsl::revision.eq(revision).and(dsl::id.gt(DbUuid(id)))),
                        ),
                        None => query,
                    }
                }
                OverrideOrder::SoonestExpiry(after) => {
                    let query = query.order((dsl::expires_at.is_null().asc(), dsl::expires_at.asc(), dsl::id.asc()));
                    match after {
                        Some((Some(expiry), id)) => query.filter(
                            dsl::expires_at
                                .gt(DbInstant(expiry))
                                .assume_not_null()
                                .or(dsl::expires_at.eq(DbInstant(expiry)).assume_not_null().and(dsl::id.gt(DbUuid(id))))
                                .or(dsl::expires_at.is_null()),
                        ),
                        Some((None, id)) => query.filter(dsl::expires_at.is_null().and(dsl::id.gt(DbUuid(id)))),
                        None => query,
                    }
                }
            };
            query.limit(bound).load(c).await
        })?;
        let found = rows.len();
        let items: Vec<_> = rows.into_iter().filter_map(list_item).collect();
        match next_bound(limit, bound, found, items.len()) {
            Some(next) => bound = next,
            None => return Ok(Page::from_overfetched(items, limit, total)),
        }
    }
}

/// Returns the overrides with the given ids, in no particular order. Omits unknown ids and rows that
/// cannot be read.
pub async fn find_list_items(conn: &mut Conn, ids: &[Uuid]) -> Result<Vec<OverrideListItem>> {
    use user_flag_overrides::dsl;
    let ids: Vec<_> = ids.iter().copied().map(DbUuid).collect();
    let rows: Vec<(Decoded<OverrideRow>, Decoded<UserIdentityRow>)> = dispatch!(conn, |c| {
        let all = dsl::user_flag_overrides.inner_join(users::table).filter(dsl::id.eq_any(&ids));
        all.select((columns!(OverrideRow), columns!(UserIdentityRow))).load(c).await
    })?;
    Ok(rows.into_iter().filter_map(list_item).collect())
}

/// Returns the ids of up to `limit` overrides that match `filter`, in ascending order. If `candidates` is not `None`,
/// returns only ids from it.
pub async fn find_matching_ids(
    conn: &mut Conn,
    filter: &OverrideFilter,
    candidates: Option<&[Uuid]>,
    limit: usize,
) -> Result<Vec<Uuid>> {
    use user_flag_overrides::dsl;
    let bound = i64::try_from(limit).unwrap_or(i64::MAX);
    let candidates: Option<Vec<DbUuid>> = candidates.map(|ids| ids.iter().copied().map(DbUuid).collect());
    let ids: Vec<Decoded<DbUuid>> = dispatch!(conn, |c| {
        let mut query = dsl::user_flag_overrides
            .inner_join(users::table)
            .inner_join(feature_flags::table.on(feature_flags::name.eq(dsl::flag_name)))
            .select(dsl::id)
            .into_boxed::<Db>();
        if let Some(ids) = candidates {
            query = query.filter(dsl::id.eq_any(ids));
        }
        filtered!(query, filter).order(dsl::id.asc()).limit(bound).load(c).await
    })?;
    Ok(ids.into_iter().filter_map(|id| id.or_logged(TABLE)).map(|id| id.0).collect())
}

/// Returns the number of unexpired overrides for each of these flags. Omits flags without unexpired
/// overrides.
pub async fn count_by_flag(conn: &mut Conn, names: &[FlagName], now: Instant) -> Result<HashMap<String, i64>> {
    use user_flag_overrides::dsl;
    let names: Vec<&str> = names.iter().map(FlagName::as_str).collect();
    let counts: Vec<(String, i64)> = dispatch!(conn, |c| {
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

/// Returns the number of unexpired overrides of unarchived flags for each of these users. Omits
/// users without such overrides.
pub async fn count_by_user(conn: &mut Conn, ids: &[Uuid], now: Instant) -> Result<HashMap<Uuid, i64>> {
    use user_flag_overrides::dsl;
    let ids: Vec<DbUuid> = ids.iter().copied().map(DbUuid).collect();
    let counts: Vec<(DbUuid, i64)> = dispatch!(conn, |c| {
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
