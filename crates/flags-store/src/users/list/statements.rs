//! SQL statements for lists of users.

use std::{collections::HashMap, ops::Range};

use diesel::{
    BoolExpressionMethods, EscapeExpressionMethods, ExpressionMethods, JoinOnDsl, QueryDsl, TextExpressionMethods,
    dsl::exists,
};
use diesel_async::RunQueryDsl;
use flags_domain::Instant;
use uuid::Uuid;

use super::{UserFilter, UserOrder};
use crate::{
    backend::{
        planner::{ExplainSyntax, Explained, WithoutIndex},
        user_search,
    },
    conn::{Backend, Conn, dispatch},
    decoded::{Decoded, columns, to_record},
    error::Result,
    page::{BoundedCount, MAX_TOTAL},
    schema::{feature_flags, user_flag_overrides, users},
    sql_types::{DbInstant, DbUuid},
    users::{
        TABLE, UserRecord, UserRow,
        search::{Prefix, Substring},
    },
};

/// Maximum number of users that an ordered scan reads. With more than [`MAX_TOTAL`] evenly distributed matches among a
/// million users, this is enough to fill a page.
const MAX_SCANNED_USERS: i64 = 10_000;

/// Search condition of one query.
#[derive(Clone, Copy)]
pub(super) enum SearchFilter<'a> {
    All,
    HandlePrefix(&'a Prefix),
    /// The handle has the prefix, ignoring case, and its original spelling is in the range. The
    /// range makes the index on `handle` usable.
    HandlePrefixInRange(&'a Range<String>, &'a Prefix),
    NamePrefix(&'a Prefix),
    /// The name has the prefix, but the handle does not.
    NamePrefixOnly(&'a Prefix),
    /// The handle or the name has the prefix. Uses the indexes of both columns.
    PrefixIndexed(&'a Prefix),
    /// The handle or the name has the prefix. Checks user by user instead of using the indexes.
    PrefixUnindexed(&'a Prefix),
    /// The search text contains the substring. Uses the search index.
    SubstringIndexed(&'a Substring),
    /// The search text contains the substring. Checks user by user instead of using the search index.
    SubstringUnindexed(&'a Substring),
}

/// How a query produces the sort order.
#[derive(Clone, Copy)]
pub(super) enum ScanStrategy<'a> {
    /// Scan the index of the sort order, up to this position (exclusive) or to its end.
    OrderedScan(Option<&'a SortPosition>),
    /// Find all matches, then sort them. The query hides the sort column from the planner, which might otherwise choose
    /// an unbounded ordered scan.
    Sort,
}

/// Sort key of a user in one of the sort orders.
pub(super) enum SortPosition {
    Handle(String),
    Created(DbInstant, DbUuid),
}

/// Handle, creation time and id of a user.
pub(super) type UserSortKeys = (String, DbInstant, DbUuid);

/// List query, which consists of several statements.
pub(super) struct UserListQuery<'a> {
    pub(super) conn: &'a mut Conn,
    pub(super) filter: &'a UserFilter,
    /// Query plans of the executed statements, if the caller wants them.
    pub(super) plans: Option<Vec<String>>,
    /// Number of rows that were omitted because they cannot be read.
    pub(super) unreadable: usize,
}

/// Selects columns of all users that match the search filter and the list filter, unordered.
macro_rules! select_matching {
    ($columns:expr, $search:expr, $filter:expr) => {{
        use users::dsl;
        let mut query = dsl::users.select($columns).into_boxed::<Db>();
        match $search {
            SearchFilter::All => {}
            SearchFilter::HandlePrefix(Prefix { lowercase_range: Range { start, end }, .. }) => {
                query = query.filter(dsl::handle_key.ge(start).and(dsl::handle_key.lt(end)));
            }
            SearchFilter::HandlePrefixInRange(range, Prefix { lowercase_range: Range { start, end }, .. }) => {
                query = query.filter(dsl::handle.ge(&range.start).and(dsl::handle.lt(&range.end)));
                query =
                    query.filter(WithoutIndex(dsl::handle_key).ge(start).and(WithoutIndex(dsl::handle_key).lt(end)));
            }
            SearchFilter::NamePrefix(Prefix { lowercase_range: Range { start, end }, .. }) => {
                query = query.filter(dsl::name_start.ge(start).and(dsl::name_start.lt(end)));
            }
            SearchFilter::NamePrefixOnly(Prefix { lowercase_range: Range { start, end }, .. }) => {
                query = query.filter(dsl::name_start.ge(start).and(dsl::name_start.lt(end)));
                query = query.filter(dsl::handle_key.lt(start).or(dsl::handle_key.ge(end)));
            }
            SearchFilter::PrefixIndexed(Prefix { lowercase_range: Range { start, end }, .. }) => {
                let handle_matches = dsl::handle_key.ge(start).and(dsl::handle_key.lt(end));
                query = query.filter(handle_matches.or(dsl::name_start.ge(start).and(dsl::name_start.lt(end))));
            }
            SearchFilter::PrefixUnindexed(Prefix { lowercase_range: Range { start, end }, .. }) => {
                let handle_matches = WithoutIndex(dsl::handle_key).ge(start).and(WithoutIndex(dsl::handle_key).lt(end));
                let name_matches = WithoutIndex(dsl::name_start).ge(start).and(WithoutIndex(dsl::name_start).lt(end));
                query = query.filter(handle_matches.or(name_matches));
            }
            SearchFilter::SubstringIndexed(term) => query = query.filter(term.index_condition()),
            SearchFilter::SubstringUnindexed(term) => {
                query = query.filter(dsl::search_text.like(&term.pattern).escape('\\'));
            }
        }
        if let Some(email_conflict) = $filter.email_conflict {
            // Keys of external ids contain a line feed as well, but no `@`.
            let is_conflict = dsl::handle_key.like("%@%\n%");
            query =
                if email_conflict { query.filter(is_conflict) } else { query.filter(diesel::dsl::not(is_conflict)) };
        }
        if let Some((has_overrides, now)) = $filter.has_overrides {
            let of_unarchived = user_flag_overrides::table
                .inner_join(feature_flags::table.on(feature_flags::name.eq(user_flag_overrides::flag_name)));
            let of_unarchived = of_unarchived.filter(feature_flags::archived_at.is_null());
            let overrides = of_unarchived.filter(user_flag_overrides::user_id.eq(dsl::id)).filter(
                user_flag_overrides::expires_at.is_null().or(diesel::NullableExpressionMethods::assume_not_null(
                    user_flag_overrides::expires_at.gt(DbInstant(now)),
                )),
            );
            query = if has_overrides {
                query.filter(exists(overrides))
            } else {
                query.filter(diesel::dsl::not(exists(overrides)))
            };
        }
        query
    }};
}

/// Selects handles and ids of all users that match the search filter and the list filter, in order.
macro_rules! select_ordered {
    ($search:expr, $filter:expr, $order:expr, $strategy:expr) => {{
        use users::dsl;
        let mut query = select_matching!((dsl::handle, dsl::id), $search, $filter);
        match $order {
            UserOrder::Handle(None) | UserOrder::Newest(None) => {}
            UserOrder::Handle(Some((handle, _))) => query = query.filter(dsl::handle.gt(handle)),
            UserOrder::Newest(Some((at, id))) => {
                // Selects the users after the position. The first condition is redundant, but it
                // bounds the index scan.
                query = query.filter(dsl::created_at.le(DbInstant(*at)));
                query = query.filter(dsl::created_at.lt(DbInstant(*at)).or(dsl::id.gt(DbUuid(*id))));
            }
        }
        match $strategy {
            ScanStrategy::OrderedScan(None) | ScanStrategy::Sort => {}
            ScanStrategy::OrderedScan(Some(SortPosition::Handle(end))) => query = query.filter(dsl::handle.lt(end)),
            ScanStrategy::OrderedScan(Some(SortPosition::Created(at, id))) => {
                query = query.filter(dsl::created_at.ge(*at)).filter(dsl::created_at.gt(*at).or(dsl::id.lt(*id)));
            }
        }
        match ($order, $strategy) {
            (UserOrder::Handle(_), ScanStrategy::OrderedScan(_)) => query.order(dsl::handle),
            (UserOrder::Handle(_), ScanStrategy::Sort) => query.order(WithoutIndex(dsl::handle)),
            (UserOrder::Newest(_), ScanStrategy::OrderedScan(_)) => query.order((dsl::created_at.desc(), dsl::id)),
            (UserOrder::Newest(_), ScanStrategy::Sort) => query.order((WithoutIndex(dsl::created_at).desc(), dsl::id)),
        }
    }};
}

/// Records the plan of a query if the caller wants plans.
macro_rules! record_plan {
    ($plans:expr, $c:ident, $query:expr) => {
        if let Some(plans) = &mut $plans {
            let query = Explained::<_, Db>::new($query);
            let rows = query.load::<<Db as ExplainSyntax>::PlanRow>($c).await?;
            plans.extend(rows.into_iter().map(Db::description));
        }
    };
}

impl UserListQuery<'_> {
    /// Counts the matching users, up to [`MAX_TOTAL`] + 1.
    pub(super) async fn count(&mut self, search: SearchFilter<'_>) -> Result<i64> {
        dispatch!(self.conn, |c| {
            // Select a column that the index contains. For any other column, SQLite would read every row of the table.
            record_plan!(self.plans, c, BoundedCount(select_matching!(users::handle_key, search, self.filter)));
            BoundedCount(select_matching!(users::handle_key, search, self.filter)).get_result(c).await
        })
    }

    /// Returns the sort keys of all users that match the substring, unsorted. `None` if there are
    /// more than [`MAX_TOTAL`].
    ///
    /// Loading all matches avoids a second search: their number is the total, and they can be
    /// sorted in memory.
    pub(super) async fn load_all_matches(&mut self, term: &Substring) -> Result<Option<Vec<UserSortKeys>>> {
        let max_matches = usize::try_from(MAX_TOTAL).unwrap_or(usize::MAX);
        let search = match &mut self.conn.0 {
            // Without another filter, SQLite can count the matches in the full-text index alone, which is fast.
            Backend::Sqlite(c) => {
                let is_only_filter = self.filter.has_overrides.is_none() && self.filter.email_conflict.is_none();
                let query = term.exact_full_text_query().filter(|_| is_only_filter);
                if let Some(query) = query {
                    type Db = diesel::sqlite::Sqlite;
                    record_plan!(self.plans, c, BoundedCount(query.clone()));
                    if user_search::count_matches(c, query).await? > MAX_TOTAL {
                        return Ok(None);
                    }
                }
                SearchFilter::SubstringIndexed(term)
            }
            // If at least 20 % of the users match, checking all users is faster than reading that many index entries.
            // If at least 2 % match, their number probably exceeds the maximum, so count them first.
            Backend::Postgres(c) => {
                let fraction = user_search::estimate_match_fraction(c, &term.pattern).await?;
                let search = if fraction >= 0.2 {
                    SearchFilter::SubstringUnindexed(term)
                } else {
                    SearchFilter::SubstringIndexed(term)
                };
                if fraction >= 0.02 && self.count(search).await? > MAX_TOTAL {
                    return Ok(None);
                }
                search
            }
        };
        let all: Vec<(Decoded<String>, Decoded<DbInstant>, Decoded<DbUuid>)> = dispatch!(self.conn, |c| {
            use users::dsl::{created_at, handle, id};
            let query = || select_matching!((handle, created_at, id), search, self.filter).limit(MAX_TOTAL + 1);
            record_plan!(self.plans, c, query());
            query().load(c).await
        })?;
        if all.len() > max_matches {
            return Ok(None);
        }
        let keys = all
            .into_iter()
            .map(|(email, at, id)| Some((email.or_logged(TABLE)?, at.or_logged(TABLE)?, id.or_logged(TABLE)?)));
        Ok(Some(self.keep_readable(keys)))
    }

    /// Returns handles and ids of the first matches in order.
    pub(super) async fn find_matches(
        &mut self,
        search: SearchFilter<'_>,
        order: &UserOrder,
        strategy: ScanStrategy<'_>,
        limit: u32,
    ) -> Result<Vec<(String, DbUuid)>> {
        let limit = i64::from(limit);
        let keys: Vec<(Decoded<String>, Decoded<DbUuid>)> = dispatch!(self.conn, |c| {
            record_plan!(self.plans, c, select_ordered!(search, self.filter, order, strategy).limit(limit));
            select_ordered!(search, self.filter, order, strategy).limit(limit).load(c).await
        })?;
        let keys = keys.into_iter().map(|(email, id)| Some((email.or_logged(TABLE)?, id.or_logged(TABLE)?)));
        Ok(self.keep_readable(keys))
    }

    /// Returns the rows that can be read, and counts the others.
    fn keep_readable<T>(&mut self, rows: impl ExactSizeIterator<Item = Option<T>>) -> Vec<T> {
        let count = rows.len();
        let readable: Vec<T> = rows.flatten().collect();
        self.unreadable += count - readable.len();
        readable
    }

    /// Returns the position at which an ordered scan must stop: [`MAX_SCANNED_USERS`] users after its start. `None` if
    /// fewer users follow, or if the user at that position cannot be read.
    pub(super) async fn scan_end(&mut self, order: &UserOrder) -> Result<Option<SortPosition>> {
        use diesel::OptionalExtension as _;
        use users::dsl;
        match order {
            UserOrder::Handle(after) => {
                let after = after.as_ref().map_or("", |(handle, _)| handle);
                let end: Option<Decoded<String>> = dispatch!(self.conn, |c| {
                    let rest = dsl::users.filter(dsl::handle.gt(after)).order(dsl::handle);
                    rest.select(dsl::handle).offset(MAX_SCANNED_USERS).first(c).await.optional()
                })?;
                Ok(end.and_then(|handle| handle.or_logged(TABLE)).map(SortPosition::Handle))
            }
            UserOrder::Newest(after) => {
                let (at, id) = after.unwrap_or((Instant::from_micros(i64::MAX), Uuid::nil()));
                let (at, id) = (DbInstant(at), DbUuid(id));
                let end: Option<(Decoded<DbInstant>, Decoded<DbUuid>)> = dispatch!(self.conn, |c| {
                    let rest = dsl::users.filter(dsl::created_at.le(at));
                    let rest = rest.filter(dsl::created_at.lt(at).or(dsl::id.gt(id)));
                    let rest = rest.order((dsl::created_at.desc(), dsl::id)).select((dsl::created_at, dsl::id));
                    rest.offset(MAX_SCANNED_USERS).first(c).await.optional()
                })?;
                let end = end.and_then(|(at, id)| Some((at.or_logged(TABLE)?, id.or_logged(TABLE)?)));
                Ok(end.map(|(at, id)| SortPosition::Created(at, id)))
            }
        }
    }

    /// Returns the users with the given ids, in the given order. Omits users that were deleted meanwhile, and users
    /// that cannot be read.
    pub(super) async fn load(&mut self, ids: &[DbUuid]) -> Result<Vec<UserRecord>> {
        let rows: Vec<Decoded<UserRow>> = dispatch!(self.conn, |c| {
            users::table.filter(users::id.eq_any(ids)).select(columns!(UserRow)).load(c).await
        })?;
        let records = rows.into_iter().map(|row| to_record::<_, UserRecord>(TABLE, row.or_logged(TABLE)?));
        let mut records: HashMap<_, _> = self.keep_readable(records).into_iter().map(|user| (user.id, user)).collect();
        Ok(ids.iter().filter_map(|id| records.remove(&id.0)).collect())
    }
}
