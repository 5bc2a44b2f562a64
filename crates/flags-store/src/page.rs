//! Pages of lists: where to go on, how many, and how many there are at all.

use std::marker::PhantomData;

use diesel::{
    QueryResult,
    backend::Backend,
    expression::{AppearsOnTable, Expression, ValidGrouping},
    query_builder::{AstPass, Query, QueryFragment, QueryId},
    sql_types::BigInt,
};

use crate::backend::{Computing, Explaining};

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

/// An expression to sort by of which no index is to give the order.
#[derive(Clone, Copy, QueryId)]
pub(crate) struct Computed<E>(pub(crate) E);

impl<E: Expression> Expression for Computed<E> {
    type SqlType = E::SqlType;
}

impl<E: ValidGrouping<G>, G> ValidGrouping<G> for Computed<E> {
    type IsAggregate = E::IsAggregate;
}

impl<E: AppearsOnTable<T>, T> AppearsOnTable<T> for Computed<E> {}

impl<E: QueryFragment<DB>, DB: Computing> QueryFragment<DB> for Computed<E> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, DB>) -> QueryResult<()> {
        // A plan made once for all values would be made for the wrong ones.
        out.unsafe_to_cache_prepared();
        // The greater of a value and itself: no planner sees through it.
        out.push_sql(DB::GREATER);
        out.push_sql("(");
        self.0.walk_ast(out.reborrow())?;
        out.push_sql(", ");
        self.0.walk_ast(out.reborrow())?;
        out.push_sql(")");
        Ok(())
    }
}

/// The plan of a query instead of its rows.
pub(crate) struct Explained<Q, DB>(Q, PhantomData<DB>);

impl<Q, DB> Explained<Q, DB> {
    pub(crate) const fn new(query: Q) -> Self {
        Self(query, PhantomData)
    }
}

impl<Q, DB> QueryId for Explained<Q, DB> {
    type QueryId = ();
    const HAS_STATIC_QUERY_ID: bool = false;
}

impl<Q: QueryFragment<DB>, DB: Explaining> QueryFragment<DB> for Explained<Q, DB> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, DB>) -> QueryResult<()> {
        out.push_sql(DB::EXPLAIN);
        self.0.walk_ast(out)
    }
}

impl<Q, DB: Explaining> Query for Explained<Q, DB> {
    type SqlType = DB::Columns;
}

/// `LIKE` pattern for texts that contain `part`, letter by letter.
pub(crate) fn containing(part: &str) -> String {
    format!("%{}%", escape(part))
}

/// A text in a pattern of `LIKE`, where it stands for itself.
pub(crate) fn escape(part: &str) -> String {
    part.replace('\\', "\\\\").replace('%', "\\%").replace('_', "\\_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_in_what_is_searched_stand_for_themselves() {
        assert_eq!(containing(r"50%_a\"), r"%50\%\_a\\%");
    }

    #[test]
    fn a_page_says_whether_there_are_more() {
        assert!(Page::cut(vec![1, 2, 3], 2, 3).has_more);
        assert_eq!(Page::cut(vec![1, 2], 2, 2), Page { items: vec![1, 2], total: 2, has_more: false });
    }
}
