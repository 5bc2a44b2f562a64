//! Lists of users. The query strategy depends on the number of matches:
//!
//! - Few matches: find all of them with the search index, then sort them.
//! - Many matches: scan the users along the index of the sort order and check each one, until a
//!   page is full.
//!
//! The total, which must be counted anyway, determines the strategy. An ordered scan is bounded,
//! because matches may be rare at the start of the sort order. If the scan finds too few matches,
//! the query falls back to the search index.

mod statements;

use std::cmp::Reverse;

use flags_domain::Instant;
use uuid::Uuid;

use self::statements::{ScanStrategy, SearchFilter, UserListQuery, UserSortKeys};
use super::{
    UserRecord,
    search::{Prefix, SearchTerm},
};
use crate::{
    conn::Conn,
    error::Result,
    page::{MAX_TOTAL, Page},
    sql_types::DbUuid,
};

/// Filter for [`list`]. A field that is `None` does not restrict the result.
#[derive(Clone, Debug, Default)]
pub struct UserFilter {
    /// Substring of the handle, the name or the external id, in the [`search_form`](flags_domain::search_form). A text
    /// of one or two characters is a prefix of the handle or the name instead.
    pub search: Option<String>,
    /// `true`: only users with an override that is unexpired at the given time and whose flag is not archived. `false`:
    /// only users without one.
    pub has_overrides: Option<(bool, Instant)>,
    /// `true`: only users whose e-mail address an older user has in another spelling. `false`: only other users.
    pub email_conflict: Option<bool>,
}

/// Sort order of [`list`], with the sort key of the last user of the previous page.
#[derive(Clone, Debug)]
pub enum UserOrder {
    /// Ascending by handle: the e-mail address or, without one, the external id. Handles are unique, so the id is
    /// ignored.
    Handle(Option<(String, Uuid)>),
    /// Descending by creation time, then ascending by id.
    Newest(Option<(Instant, Uuid)>),
}

/// Returns a page of users. Omits rows that cannot be read.
pub async fn list(conn: &mut Conn, filter: &UserFilter, order: UserOrder, limit: u32) -> Result<Page<UserRecord>> {
    UserListQuery { conn, filter, plans: None, unreadable: 0 }.run(order, limit).await
}

/// Executes [`list`] and returns the lines of the query plans of its statements. For tests and benchmarks.
pub async fn explain(conn: &mut Conn, filter: &UserFilter, order: UserOrder, limit: u32) -> Result<Vec<String>> {
    let mut query = UserListQuery { conn, filter, plans: Some(Vec::new()), unreadable: 0 };
    query.run(order, limit).await?;
    Ok(query.plans.unwrap_or_default())
}

impl UserListQuery<'_> {
    async fn run(&mut self, order: UserOrder, limit: u32) -> Result<Page<UserRecord>> {
        let mut row_limit = limit + 1;
        loop {
            self.unreadable = 0;
            let (total, users) = self.find_first(&order, row_limit).await?;
            let is_short = self.unreadable > 0 && users.len() <= limit as usize;
            // Unreadable rows are omitted, so read more rows to fill the page.
            if !is_short || i64::from(row_limit) > MAX_TOTAL {
                return Ok(Page::from_overfetched(users, limit, total));
            }
            row_limit *= 4;
        }
    }

    /// Returns the total, and up to `row_limit` users in order.
    async fn find_first(&mut self, order: &UserOrder, row_limit: u32) -> Result<(i64, Vec<UserRecord>)> {
        let term = self.filter.search.as_deref().and_then(SearchTerm::new);
        let (total, matches) = match &term {
            None => {
                let total = self.count(SearchFilter::All).await?;
                (total, self.find_matches(SearchFilter::All, order, ScanStrategy::OrderedScan(None), row_limit).await?)
            }
            Some(SearchTerm::Prefix(prefix)) => {
                let handle_matches = self.count(SearchFilter::HandlePrefix(prefix)).await?;
                let name_only_matches = self.count(SearchFilter::NamePrefixOnly(prefix)).await?;
                let total = (handle_matches + name_only_matches).min(MAX_TOTAL + 1);
                let matches = match order {
                    UserOrder::Handle(_) => {
                        let unindexed = SearchFilter::PrefixUnindexed(prefix);
                        match self.scan_if_many(total, unindexed, order, row_limit).await? {
                            Some(matches) => matches,
                            None => self.prefix_matches_by_handle(prefix, order, row_limit).await?,
                        }
                    }
                    UserOrder::Newest(_) => {
                        let filters = [SearchFilter::PrefixIndexed(prefix), SearchFilter::PrefixUnindexed(prefix)];
                        self.scan_or_sort(total, filters, order, row_limit).await?
                    }
                };
                (total, matches)
            }
            Some(SearchTerm::Substring(term)) => match self.load_all_matches(term).await? {
                Some(all) => (i64::try_from(all.len()).unwrap_or(i64::MAX), first_page(all, order, row_limit)),
                None => {
                    let filters = [SearchFilter::SubstringIndexed(term), SearchFilter::SubstringUnindexed(term)];
                    (MAX_TOTAL + 1, self.scan_or_sort(MAX_TOTAL + 1, filters, order, row_limit).await?)
                }
            },
        };
        let ids: Vec<_> = matches.into_iter().map(|(_, id)| id).collect();
        Ok((total, self.load(&ids).await?))
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

    /// Returns the first matches of a prefix, sorted by handle.
    ///
    /// Matches by handle come from the index in order. Matches by name are sorted and merged with them.
    async fn prefix_matches_by_handle(
        &mut self,
        prefix: &Prefix,
        order: &UserOrder,
        limit: u32,
    ) -> Result<Vec<(String, DbUuid)>> {
        let mut matches = Vec::new();
        for range in &prefix.original_case_ranges {
            let missing = limit.saturating_sub(u32::try_from(matches.len()).unwrap_or(limit));
            if missing > 0 {
                let search = SearchFilter::HandlePrefixInRange(range, prefix);
                matches.extend(self.find_matches(search, order, ScanStrategy::OrderedScan(None), missing).await?);
            }
        }
        matches.extend(self.find_matches(SearchFilter::NamePrefix(prefix), order, ScanStrategy::Sort, limit).await?);
        matches.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        matches.dedup_by(|(a, _), (b, _)| a == b);
        matches.truncate(limit as usize);
        Ok(matches)
    }
}

/// Sort key of [`UserOrder::Newest`].
fn newest_first((_, at, id): &UserSortKeys) -> (Reverse<Instant>, Uuid) {
    (Reverse(at.0), id.0)
}

/// Sorts users and returns the first ones after the position in `order`.
fn first_page(mut all: Vec<UserSortKeys>, order: &UserOrder, limit: u32) -> Vec<(String, DbUuid)> {
    match order {
        UserOrder::Handle(after) => {
            all.retain(|(handle, ..)| after.as_ref().is_none_or(|(after, _)| handle > after));
            all.sort_unstable_by(|(a, ..), (b, ..)| a.cmp(b));
        }
        UserOrder::Newest(after) => {
            all.retain(|user| after.is_none_or(|(at, id)| newest_first(user) > (Reverse(at), id)));
            all.sort_unstable_by_key(newest_first);
        }
    }
    all.into_iter().take(limit as usize).map(|(handle, _, id)| (handle, id)).collect()
}
