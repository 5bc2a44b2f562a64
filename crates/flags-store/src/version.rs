//! Versions of the data format. The database requires minimum versions, which migrations raise.

use crate::error::{Result, StoreError};

/// Version of the data format that this program can read. A migration raises `log_head.min_reader` if older programs
/// would misread the data.
pub const READER_VERSION: i32 = 2;

/// Version of the data format that this program writes. A migration raises `log_head.min_writer` if older programs
/// would write data that newer ones misread.
pub const WRITER_VERSION: i32 = 2;

/// Fails with [`StoreError::Outdated`] if the database requires a newer reader.
pub(crate) fn check_reader(min_reader: i32) -> Result<()> {
    check("reader", READER_VERSION, min_reader)
}

/// Fails with [`StoreError::Outdated`] if the database requires a newer writer.
pub(crate) fn check_writer(min_writer: i32) -> Result<()> {
    check("writer", WRITER_VERSION, min_writer)
}

const fn check(kind: &'static str, version: i32, required: i32) -> Result<()> {
    if version >= required { Ok(()) } else { Err(StoreError::Outdated { kind, version, required }) }
}
