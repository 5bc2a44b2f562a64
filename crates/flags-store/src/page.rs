//! Pages of lists: where to go on, how many, and how many there are at all.

use diesel::{
    QueryResult,
    backend::Backend,
    query_builder::{AstPass, Query, QueryFragment, QueryId},
    sql_types::BigInt,
};

/// Totals are counted up to here and no further.
pub const MAX_TOTAL: i64 = 10_000;

/// A part of a list.
#[derive(Clone, Debug, PartialEq)]
pub struct Page<T> {
    /// The items, in order.
    pub items: Vec<T>,
    /// How many items the whole list has, counted up to [`MAX_TOTAL`] + 1.
    pub total: i64,
    /// Whether there are items after these.
    pub has_more: bool,
}

impl<T> Page<T> {
    /// Cuts off the one row that was read beyond `limit` to see whether there are more.
    pub(crate) fn cut(mut items: Vec<T>, limit: u32, total: i64) -> Self {
        let limit = limit as usize;
        let has_more = items.len() > limit;
        items.truncate(limit);
        Self { items, total, has_more }
    }

    /// The same page of something else.
    pub fn map<U>(self, f: impl FnMut(T) -> U) -> Page<U> {
        Page { items: self.items.into_iter().map(f).collect(), total: self.total, has_more: self.has_more }
    }
}

/// `SELECT COUNT(*)` over a query, giving up beyond [`MAX_TOTAL`].
#[derive(QueryId)]
pub(crate) struct CountUpTo<Q>(pub(crate) Q);

impl<Q, DB: Backend> QueryFragment<DB> for CountUpTo<Q>
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

impl<Q> Query for CountUpTo<Q> {
    type SqlType = BigInt;
}

/// `LIKE` pattern for texts that contain `part`, letter by letter.
pub(crate) fn containing(part: &str) -> String {
    format!("%{}%", escape(part))
}

/// `LIKE` pattern for texts that start with `part`.
pub(crate) fn starting_with(part: &str) -> String {
    format!("{}%", escape(part))
}

fn escape(part: &str) -> String {
    part.replace('\\', "\\\\").replace('%', "\\%").replace('_', "\\_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_in_what_is_searched_stand_for_themselves() {
        assert_eq!(containing(r"50%_a\"), r"%50\%\_a\\%");
        assert_eq!(starting_with("a_b"), r"a\_b%");
    }

    #[test]
    fn a_page_says_whether_there_are_more() {
        assert!(Page::cut(vec![1, 2, 3], 2, 3).has_more);
        assert_eq!(Page::cut(vec![1, 2], 2, 2), Page { items: vec![1, 2], total: 2, has_more: false });
    }
}
