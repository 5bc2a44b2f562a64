//! Lists of users, with a query strategy that depends on the number of matches.
//!
//! - Few matches: find all of them with the search index, then sort them.
//! - Many matches: scan the users along the index of the sort order and check each one, until a page is full.
//!
//! The total, which must be counted anyway, determines the strategy. An ordered scan is bounded: matches may be rare at
//! the start of the sort order. If it finds too few, the query falls back to the search index.

use std::{cmp::Reverse, collections::HashMap, ops::Range};

use diesel::{
    BoolExpressionMethods, EscapeExpressionMethods, ExpressionMethods, JoinOnDsl, QueryDsl, SelectableHelper,
    TextExpressionMethods, dsl::exists,
};
use diesel_async::RunQueryDsl;
use flags_domain::Instant;
use uuid::Uuid;

use super::{
    UserRecord, UserRow,
    search::{Prefix, SearchTerm, Substring},
};
use crate::{
    backend::{self, ExplainSyntax},
    error::Result,
    page::{BoundedCount, Explained, MAX_TOTAL, Page, WithoutIndex},
    schema::{feature_flags, user_flag_overrides, users},
    sql_types::{DbInstant, DbUuid},
    store::{Backend, Conn, dispatch},
};

/// Maximum number of users that an ordered scan reads. With more than [`MAX_TOTAL`] evenly distributed matches among a
/// million users, this is enough to fill a page.
const MAX_SCANNED_USERS: i64 = 10_000;

/// Filter for [`list`]. A field that is `None` does not restrict the result.
#[derive(Clone, Debug, Default)]
pub struct UserFilter {
    /// Substring of the e-mail address or name, in lower case. A text of one or two characters is a prefix instead.
    pub search: Option<String>,
    /// `true`: only users that have an override of an unarchived flag that is unexpired at the given time. `false`:
    /// only users that do not.
    pub has_overrides: Option<(bool, Instant)>,
}

/// Sort order of [`list`], with the sort key of the last user of the previous page.
#[derive(Clone, Debug)]
pub enum UserOrder {
    /// Ascending by e-mail address. Addresses are unique, so the id is ignored.
    Email(Option<(String, Uuid)>),
    /// Descending by creation time, then ascending by id.
    Newest(Option<(Instant, Uuid)>),
}

/// Search condition of one query.
#[derive(Clone, Copy)]
enum SearchFilter<'a> {
    All,
    EmailPrefix(&'a Prefix),
    /// The e-mail address has the prefix, and its original form lies in the range.
    EmailPrefixInRange(&'a Range<String>, &'a Prefix),
    NamePrefix(&'a Prefix),
    /// The name has the prefix, but the e-mail address does not.
    NamePrefixOnly(&'a Prefix),
    /// The e-mail address or the name has the prefix. Uses the indexes of both columns.
    PrefixIndexed(&'a Prefix),
    /// The e-mail address or the name has the prefix. Checks each user without these indexes.
    PrefixUnindexed(&'a Prefix),
    /// The search text contains the substring. Uses the search index.
    SubstringIndexed(&'a Substring),
    /// The search text contains the substring. Checks each user without the search index.
    SubstringUnindexed(&'a Substring),
}

/// How a query produces the sort order.
#[derive(Clone, Copy)]
enum ScanStrategy<'a> {
    /// Scan the index of the sort order, up to this position (exclusive) or to its end.
    OrderedScan(Option<&'a SortPosition>),
    /// Find all matches, then sort them. The query hides the sort column from the planner, which might otherwise choose
    /// an unbounded ordered scan.
    Sort,
}

/// Position in one of the sort orders.
enum SortPosition {
    Email(String),
    Created(DbInstant, DbUuid),
}

/// E-mail address, creation time and id of a user.
type UserSortKeys = (String, DbInstant, DbUuid);

/// List query, which consists of several statements.
struct UserListQuery<'a> {
    conn: &'a mut Conn,
    filter: &'a UserFilter,
    /// Query plans of the executed statements, if the caller wants them.
    plans: Option<Vec<String>>,
}

/// Returns a page of users.
pub async fn list(conn: &mut Conn, filter: &UserFilter, order: UserOrder, limit: u32) -> Result<Page<UserRecord>> {
    UserListQuery { conn, filter, plans: None }.run(order, limit).await
}

/// Executes [`list`] and returns the lines of the query plans of its statements. For tests and benchmarks.
pub async fn explain(conn: &mut Conn, filter: &UserFilter, order: UserOrder, limit: u32) -> Result<Vec<String>> {
    let mut query = UserListQuery { conn, filter, plans: Some(Vec::new()) };
    query.run(order, limit).await?;
    Ok(query.plans.unwrap_or_default())
}

/// Selects columns of all users that match the search filter and the list filter, unordered.
macro_rules! select_matching {
    ($columns:expr, $search:expr, $filter:expr) => {{
        use users::dsl;
        let mut query = dsl::users.select($columns).into_boxed::<Db>();
        match $search {
            SearchFilter::All => {}
            SearchFilter::EmailPrefix(Prefix { lowercase_range: Range { start, end }, .. }) => {
                query = query.filter(dsl::email_key.ge(start).and(dsl::email_key.lt(end)));
            }
            SearchFilter::EmailPrefixInRange(range, Prefix { lowercase_range: Range { start, end }, .. }) => {
                query = query.filter(dsl::email.ge(&range.start).and(dsl::email.lt(&range.end)));
                query = query.filter(WithoutIndex(dsl::email_key).ge(start).and(WithoutIndex(dsl::email_key).lt(end)));
            }
            SearchFilter::NamePrefix(Prefix { lowercase_range: Range { start, end }, .. }) => {
                query = query.filter(dsl::name_start.ge(start).and(dsl::name_start.lt(end)));
            }
            SearchFilter::NamePrefixOnly(Prefix { lowercase_range: Range { start, end }, .. }) => {
                query = query.filter(dsl::name_start.ge(start).and(dsl::name_start.lt(end)));
                query = query.filter(dsl::email_key.lt(start).or(dsl::email_key.ge(end)));
            }
            SearchFilter::PrefixIndexed(Prefix { lowercase_range: Range { start, end }, .. }) => {
                let email_matches = dsl::email_key.ge(start).and(dsl::email_key.lt(end));
                query = query.filter(email_matches.or(dsl::name_start.ge(start).and(dsl::name_start.lt(end))));
            }
            SearchFilter::PrefixUnindexed(Prefix { lowercase_range: Range { start, end }, .. }) => {
                let email_matches = WithoutIndex(dsl::email_key).ge(start).and(WithoutIndex(dsl::email_key).lt(end));
                let name_matches = WithoutIndex(dsl::name_start).ge(start).and(WithoutIndex(dsl::name_start).lt(end));
                query = query.filter(email_matches.or(name_matches));
            }
            SearchFilter::SubstringIndexed(term) => query = query.filter(term.index_condition()),
            SearchFilter::SubstringUnindexed(term) => {
                query = query.filter(dsl::search_text.like(&term.pattern).escape('\\'));
            }
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

/// Selects e-mail addresses and ids of all users that match the search filter and the list filter, in order.
macro_rules! select_ordered {
    ($search:expr, $filter:expr, $order:expr, $strategy:expr) => {{
        use users::dsl;
        let mut query = select_matching!((dsl::email, dsl::id), $search, $filter);
        match $order {
            UserOrder::Email(None) | UserOrder::Newest(None) => {}
            UserOrder::Email(Some((email, _))) => query = query.filter(dsl::email.gt(email)),
            UserOrder::Newest(Some((at, id))) => {
                // Together, these conditions select the users after the position. In this form, the first one bounds
                // the index scan.
                query = query.filter(dsl::created_at.le(DbInstant(*at)));
                query = query.filter(dsl::created_at.lt(DbInstant(*at)).or(dsl::id.gt(DbUuid(*id))));
            }
        }
        match $strategy {
            ScanStrategy::OrderedScan(None) | ScanStrategy::Sort => {}
            ScanStrategy::OrderedScan(Some(SortPosition::Email(end))) => query = query.filter(dsl::email.lt(end)),
            ScanStrategy::OrderedScan(Some(SortPosition::Created(at, id))) => {
                query = query.filter(dsl::created_at.ge(*at)).filter(dsl::created_at.gt(*at).or(dsl::id.lt(*id)));
            }
        }
        match ($order, $strategy) {
            (UserOrder::Email(_), ScanStrategy::OrderedScan(_)) => query.order(dsl::email),
            (UserOrder::Email(_), ScanStrategy::Sort) => query.order(WithoutIndex(dsl::email)),
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
    async fn run(&mut self, order: UserOrder, limit: u32) -> Result<Page<UserRecord>> {
        let term = self.filter.search.as_deref().and_then(SearchTerm::new);
        let row_limit = limit + 1;
        let (total, matches) = match &term {
            None => {
                let total = self.count(SearchFilter::All).await?;
                (total, self.find_matches(SearchFilter::All, &order, ScanStrategy::OrderedScan(None), row_limit).await?)
            }
            Some(SearchTerm::Prefix(prefix)) => {
                let email_matches = self.count(SearchFilter::EmailPrefix(prefix)).await?;
                let name_only_matches = self.count(SearchFilter::NamePrefixOnly(prefix)).await?;
                let total = (email_matches + name_only_matches).min(MAX_TOTAL + 1);
                let matches = match &order {
                    UserOrder::Email(_) => {
                        let unindexed = SearchFilter::PrefixUnindexed(prefix);
                        match self.scan_if_many(total, unindexed, &order, row_limit).await? {
                            Some(matches) => matches,
                            None => self.prefix_matches_by_email(prefix, &order, row_limit).await?,
                        }
                    }
                    UserOrder::Newest(_) => {
                        let filters = [SearchFilter::PrefixIndexed(prefix), SearchFilter::PrefixUnindexed(prefix)];
                        self.scan_or_sort(total, filters, &order, row_limit).await?
                    }
                };
                (total, matches)
            }
            Some(SearchTerm::Substring(term)) => match self.load_all_matches(term).await? {
                Some(all) => (i64::try_from(all.len()).unwrap_or(i64::MAX), first_page(all, &order, row_limit)),
                None => {
                    let filters = [SearchFilter::SubstringIndexed(term), SearchFilter::SubstringUnindexed(term)];
                    (MAX_TOTAL + 1, self.scan_or_sort(MAX_TOTAL + 1, filters, &order, row_limit).await?)
                }
            },
        };
        let page = Page::from_overfetched(matches, limit, total);
        let ids: Vec<_> = page.items.into_iter().map(|(_, id)| id).collect();
        Ok(Page { items: self.load(&ids).await?, total, has_more: page.has_more })
    }

    /// Counts the matching users, up to [`MAX_TOTAL`] + 1.
    async fn count(&mut self, search: SearchFilter<'_>) -> Result<i64> {
        dispatch!(self.conn, |c| {
            // Select a column that the index contains. For any other column, SQLite would read every row of the table.
            record_plan!(self.plans, c, BoundedCount(select_matching!(users::email_key, search, self.filter)));
            BoundedCount(select_matching!(users::email_key, search, self.filter)).get_result(c).await
        })
    }

    /// Returns the sort keys of all users that match the substring, unsorted. `None` if there are more than
    /// [`MAX_TOTAL`].
    ///
    /// Loading them directly avoids running the same search twice, once to count and once to sort.
    async fn load_all_matches(&mut self, term: &Substring) -> Result<Option<Vec<UserSortKeys>>> {
        let max_matches = usize::try_from(MAX_TOTAL).unwrap_or(usize::MAX);
        let search = match &mut self.conn.0 {
            // Without another filter, SQLite can count the matches in the full-text index alone, which is fast.
            Backend::Sqlite(c) => {
                let query = term.exact_full_text_query().filter(|_| self.filter.has_overrides.is_none());
                if let Some(query) = query {
                    type Db = diesel::sqlite::Sqlite;
                    record_plan!(self.plans, c, BoundedCount(query.clone()));
                    if backend::sqlite::count_matches(c, query).await? > MAX_TOTAL {
                        return Ok(None);
                    }
                }
                SearchFilter::SubstringIndexed(term)
            }
            // If at least 20 % of the users match, checking all users is faster than reading as many entries from the
            // index. If at least 2 % match, their number probably exceeds the maximum, so count them first.
            Backend::Postgres(c) => {
                let fraction = backend::postgres::estimate_match_fraction(c, &term.pattern).await?;
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
        let all: Vec<UserSortKeys> = dispatch!(self.conn, |c| {
            use users::dsl::{created_at, email, id};
            let query = || select_matching!((email, created_at, id), search, self.filter).limit(MAX_TOTAL + 1);
            record_plan!(self.plans, c, query());
            query().load(c).await
        })?;
        Ok(Some(all).filter(|all| all.len() <= max_matches))
    }

    /// Returns the first matches in order, by an ordered scan if there are many matches, else by sorting.
    ///
    /// `indexed` and `unindexed` are the same search condition with and without use of the search index.
    async fn scan_or_sort(
        &mut self,
        total: i64,
        [indexed, unindexed]: [SearchFilter<'_>; 2],
        order: &UserOrder,
        limit: u32,
    ) -> Result<Vec<(String, DbUuid)>> {
        match self.scan_if_many(total, unindexed, order, limit).await? {
            Some(matches) => Ok(matches),
            None => self.find_matches(indexed, order, ScanStrategy::Sort, limit).await,
        }
    }

    /// Returns the first matches by a bounded ordered scan. `None` if `total` is at most [`MAX_TOTAL`], or if the scan
    /// finds too few.
    async fn scan_if_many(
        &mut self,
        total: i64,
        unindexed: SearchFilter<'_>,
        order: &UserOrder,
        limit: u32,
    ) -> Result<Option<Vec<(String, DbUuid)>>> {
        if total <= MAX_TOTAL {
            return Ok(None);
        }
        let end = self.scan_end(order).await?;
        let matches = self.find_matches(unindexed, order, ScanStrategy::OrderedScan(end.as_ref()), limit).await?;
        Ok(Some(matches).filter(|matches| end.is_none() || matches.len() >= limit as usize))
    }

    /// Returns the first matches of a prefix, sorted by e-mail address.
    ///
    /// Matches by e-mail address come from the index in order. Matches by name are sorted and merged with them.
    async fn prefix_matches_by_email(
        &mut self,
        prefix: &Prefix,
        order: &UserOrder,
        limit: u32,
    ) -> Result<Vec<(String, DbUuid)>> {
        let mut matches = Vec::new();
        for range in &prefix.original_case_ranges {
            let missing = limit.saturating_sub(u32::try_from(matches.len()).unwrap_or(limit));
            if missing > 0 {
                let search = SearchFilter::EmailPrefixInRange(range, prefix);
                matches.extend(self.find_matches(search, order, ScanStrategy::OrderedScan(None), missing).await?);
            }
        }
        matches.extend(self.find_matches(SearchFilter::NamePrefix(prefix), order, ScanStrategy::Sort, limit).await?);
        matches.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        matches.dedup_by(|(a, _), (b, _)| a == b);
        matches.truncate(limit as usize);
        Ok(matches)
    }

    /// Returns e-mail addresses and ids of the first matches in order.
    async fn find_matches(
        &mut self,
        search: SearchFilter<'_>,
        order: &UserOrder,
        strategy: ScanStrategy<'_>,
        limit: u32,
    ) -> Result<Vec<(String, DbUuid)>> {
        let limit = i64::from(limit);
        dispatch!(self.conn, |c| {
            record_plan!(self.plans, c, select_ordered!(search, self.filter, order, strategy).limit(limit));
            select_ordered!(search, self.filter, order, strategy).limit(limit).load(c).await
        })
    }

    /// Returns the position of the user at which an ordered scan must stop, [`MAX_SCANNED_USERS`] after its start.
    /// `None` if fewer users follow.
    async fn scan_end(&mut self, order: &UserOrder) -> Result<Option<SortPosition>> {
        use diesel::OptionalExtension as _;
        use users::dsl;
        match order {
            UserOrder::Email(after) => {
                let after = after.as_ref().map_or("", |(email, _)| email);
                let end = dispatch!(self.conn, |c| {
                    let rest = dsl::users.filter(dsl::email.gt(after)).order(dsl::email);
                    rest.select(dsl::email).offset(MAX_SCANNED_USERS).first(c).await.optional()
                })?;
                Ok(end.map(SortPosition::Email))
            }
            UserOrder::Newest(after) => {
                let (at, id) = after.unwrap_or((Instant::from_micros(i64::MAX), Uuid::nil()));
                let (at, id) = (DbInstant(at), DbUuid(id));
                let end: Option<(DbInstant, DbUuid)> = dispatch!(self.conn, |c| {
                    let rest = dsl::users.filter(dsl::created_at.le(at));
                    let rest = rest.filter(dsl::created_at.lt(at).or(dsl::id.gt(id)));
                    let rest = rest.order((dsl::created_at.desc(), dsl::id)).select((dsl::created_at, dsl::id));
                    rest.offset(MAX_SCANNED_USERS).first(c).await.optional()
                })?;
                Ok(end.map(|(at, id)| SortPosition::Created(at, id)))
            }
        }
    }

    /// Returns the users with the given ids, in the given order. Users that were deleted meanwhile are omitted.
    async fn load(&mut self, ids: &[DbUuid]) -> Result<Vec<UserRecord>> {
        let rows: Vec<UserRow> = dispatch!(self.conn, |c| {
            users::table.filter(users::id.eq_any(ids)).select(UserRow::as_select()).load(c).await
        })?;
        let mut rows: HashMap<DbUuid, UserRow> = rows.into_iter().map(|row| (row.id, row)).collect();
        ids.iter().filter_map(|id| rows.remove(id)).map(TryInto::try_into).collect()
    }
}

/// Sorts users and returns the first ones after the position in `order`.
fn first_page(mut all: Vec<UserSortKeys>, order: &UserOrder, limit: u32) -> Vec<(String, DbUuid)> {
    match order {
        UserOrder::Email(after) => {
            all.retain(|(email, ..)| after.as_ref().is_none_or(|(after, _)| email > after));
            all.sort_unstable_by(|(a, ..), (b, ..)| a.cmp(b));
        }
        UserOrder::Newest(after) => {
            let key = |(_, at, id): &UserSortKeys| (Reverse(at.0), id.0);
            all.retain(|user| after.is_none_or(|(at, id)| key(user) > (Reverse(at), id)));
            all.sort_unstable_by_key(key);
        }
    }
    all.into_iter().take(limit as usize).map(|(email, _, id)| (email, id)).collect()
}
