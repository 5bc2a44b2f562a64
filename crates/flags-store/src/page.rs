//! Building blocks for paginated lists.

use diesel::{
    QueryResult,
    backend::Backend,
    query_builder::{AstPass, Query, QueryFragment, QueryId},
    sql_types::BigInt,
};

/// Maximum total that is counted exactly. For longer lists, [`Page::total`] is `MAX_TOTAL + 1`.
pub const MAX_TOTAL: i64 = 10_000;

/// One page of a list.
#[derive(Clone, Debug, PartialEq)]
pub struct Page<T> {
    /// Items in list order.
    pub items: Vec<T>,
    /// Number of items in the whole list, counted up to [`MAX_TOTAL`] + 1. Includes rows that cannot be read, which
    /// `items` omits.
    pub total: i64,
    /// Whether the list continues after this page.
    pub has_more: bool,
}

impl<T> Page<T> {
    /// Builds a page from up to `limit + 1` rows. The extra row only shows that the list continues, and is dropped.
    pub(crate) fn from_overfetched(mut items: Vec<T>, limit: u32, total: i64) -> Self {
        let limit = limit as usize;
        let has_more = items.len() > limit;
        items.truncate(limit);
        Self { items, total, has_more }
    }

    /// Applies `f` to every item.
    pub fn map<U>(self, f: impl FnMut(T) -> U) -> Page<U> {
        Page { items: self.items.into_iter().map(f).collect(), total: self.total, has_more: self.has_more }
    }
}

/// Returns the row limit for the next attempt to fill a page; `None` if no further attempt is
/// needed.
///
/// Lists omit rows that cannot be read. If a page would therefore be short although the list
/// continues, the query is repeated with a higher limit.
///
/// `bound` is the row limit of the last attempt, which returned `found` rows. Of these, `readable`
/// rows can be read.
pub(crate) const fn next_bound(limit: u32, bound: i64, found: usize, readable: usize) -> Option<i64> {
    let may_continue = found as i64 >= bound;
    if may_continue && readable <= limit as usize && bound < MAX_TOTAL { Some(bound * 4) } else { None }
}

/// `SELECT COUNT(*)` over a query that stops at [`MAX_TOTAL`] + 1 rows.
#[derive(QueryId)]
pub(crate) struct BoundedCount<Q>(pub(crate) Q);

impl<Q, DB: Backend> QueryFragment<DB> for BoundedCount<Q>
where
    Q: QueryFragment<DB>,
{
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, DB>) -> QueryResult<()> {
        out.push_sql("SELECT COUNT(*) FROM (");
        self.0.walk_ast(out.reborrow())?;
        out.push_sql(" LIMIT 10001) AS counted");
        Ok(())
    }
}

impl<Q> Query for BoundedCount<Q> {
    type SqlType = BigInt;
}

/// Returns a `LIKE` pattern for texts that contain `text` literally. The escape character is `\`.
pub(crate) fn contains_pattern(text: &str) -> String {
    format!("%{}%", escape_like(text))
}

/// Escapes the wildcards of `LIKE` in `text` with `\`.
pub(crate) fn escape_like(text: &str) -> String {
    text.replace('\\', "\\\\").replace('%', "\\%").replace('_', "\\_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contains_pattern_escapes_wildcards() {
        assert_eq!(contains_pattern(r"50%_a\"), r"%50\%\_a\\%");
    }

    #[test]
    fn page_with_unreadable_rows_is_read_again_with_a_higher_bound() {
        assert_eq!(next_bound(2, 3, 3, 3), None, "complete");
        assert_eq!(next_bound(2, 3, 2, 1), None, "the list ends");
        assert_eq!(next_bound(2, 3, 3, 2), Some(12));
        assert_eq!(next_bound(2, 12, 12, 3), None);
    }

    #[test]
    fn from_overfetched_detects_and_drops_the_extra_row() {
        assert!(Page::from_overfetched(vec![1, 2, 3], 2, 3).has_more);
        assert_eq!(Page::from_overfetched(vec![1, 2], 2, 2), Page { items: vec![1, 2], total: 2, has_more: false });
    }
}
