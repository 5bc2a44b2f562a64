//! Scheduled changes.

mod lifecycle;
