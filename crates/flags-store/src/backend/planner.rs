//! Expressions that influence the query planner, and queries that return query plans.

use std::marker::PhantomData;

use diesel::{
    QueryResult,
    backend::Backend,
    expression::{AppearsOnTable, Expression, ValidGrouping},
    pg::Pg,
    query_builder::{AstPass, Query, QueryFragment, QueryId},
    sql_types::{Integer, Text},
    sqlite::Sqlite,
};

/// SQL function that returns the greater of two values.
pub(crate) trait GreatestFunction: Backend {
    const GREATEST: &'static str;
}

impl GreatestFunction for Pg {
    const GREATEST: &'static str = "GREATEST";
}

impl GreatestFunction for Sqlite {
    const GREATEST: &'static str = "max";
}

/// Expression that hides a column from the query planner, so that it cannot use an index on that column.
#[derive(Clone, Copy, QueryId)]
pub(crate) struct WithoutIndex<E>(pub(crate) E);

impl<E: Expression> Expression for WithoutIndex<E> {
    type SqlType = E::SqlType;
}

impl<E: ValidGrouping<G>, G> ValidGrouping<G> for WithoutIndex<E> {
    type IsAggregate = E::IsAggregate;
}

impl<E: AppearsOnTable<T>, T> AppearsOnTable<T> for WithoutIndex<E> {}

impl<E: QueryFragment<DB>, DB: GreatestFunction> QueryFragment<DB> for WithoutIndex<E> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, DB>) -> QueryResult<()> {
        // The best plan depends on the bound values, so the database must plan the statement for
        // each execution.
        out.unsafe_to_cache_prepared();
        // `GREATEST(x, x)` equals `x`, but planners do not simplify it.
        out.push_sql(DB::GREATEST);
        out.push_sql("(");
        self.0.walk_ast(out.reborrow())?;
        out.push_sql(", ");
        self.0.walk_ast(out.reborrow())?;
        out.push_sql(")");
        Ok(())
    }
}

/// Syntax and result format of `EXPLAIN`.
pub(crate) trait ExplainSyntax: Backend {
    const EXPLAIN: &'static str;
    /// SQL types of the columns of a plan row.
    type PlanColumns;
    /// Rust type of a plan row.
    type PlanRow;

    /// Returns the text that describes the step of the plan.
    fn description(row: Self::PlanRow) -> String;
}

impl ExplainSyntax for Pg {
    const EXPLAIN: &'static str = "EXPLAIN ";
    type PlanColumns = Text;
    type PlanRow = String;

    fn description(row: String) -> String {
        row
    }
}

impl ExplainSyntax for Sqlite {
    const EXPLAIN: &'static str = "EXPLAIN QUERY PLAN ";
    type PlanColumns = (Integer, Integer, Integer, Text);
    type PlanRow = (i32, i32, i32, String);

    fn description((.., detail): Self::PlanRow) -> String {
        detail
    }
}

/// `EXPLAIN` of a query.
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

impl<Q: QueryFragment<DB>, DB: ExplainSyntax> QueryFragment<DB> for Explained<Q, DB> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, DB>) -> QueryResult<()> {
        out.push_sql(DB::EXPLAIN);
        self.0.walk_ast(out)
    }
}

impl<Q, DB: ExplainSyntax> Query for Explained<Q, DB> {
    type SqlType = DB::PlanColumns;
}
