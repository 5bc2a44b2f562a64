//! What only one of the databases knows.

pub(crate) mod postgres;
pub(crate) mod sqlite;

use diesel::backend::Backend;

/// What a database calls the greater of two values.
pub(crate) trait Computing: Backend {
    const GREATER: &'static str;
}

/// How a database is asked how it would go about a query, and answers.
pub(crate) trait Explaining: Backend {
    const EXPLAIN: &'static str;
    /// The types of a line's columns.
    type Columns;
    /// A line as it is read.
    type Line;

    /// What a line says.
    fn text(line: Self::Line) -> String;
}
