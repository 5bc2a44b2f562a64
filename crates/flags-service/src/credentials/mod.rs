//! How callers prove who they are.

pub mod jwt;
pub mod tokens;
