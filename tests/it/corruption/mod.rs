//! Rows that the program cannot read. Such a row must not affect other rows, other flags or other credentials.

mod every_column;
mod removal;
mod single_rows;
mod unreadable_flags;
