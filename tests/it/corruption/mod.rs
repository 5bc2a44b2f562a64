//! Rows that the program cannot read. Such a row must not affect other rows, other flags or other credentials.

mod audit_log;
mod every_column;
mod removal;
mod single_rows;
mod unreadable_flags;
