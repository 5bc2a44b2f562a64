//! Code that is specific to PostgreSQL or SQLite.

pub(crate) mod postgres;
pub(crate) mod sqlite;

use diesel::backend::Backend;

/// SQL function that returns the greater of two values.
pub(crate) trait GreatestFunction: Backend {
    const GREATEST: &'static str;
}

/// Syntax and result format of `EXPLAIN`.
pub(crate) trait ExplainSyntax: Backend {
    const EXPLAIN: &'static str;
    /// SQL types of the columns of a plan row.
    type PlanColumns;
    /// Rust type of a plan row.
    type PlanRow;

    /// Returns the description in a plan row.
    fn description(row: Self::PlanRow) -> String;
}
