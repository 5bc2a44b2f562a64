//! How callers prove who they are.

pub mod tokens;
