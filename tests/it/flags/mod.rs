//! Feature flags.

mod lifecycle;
