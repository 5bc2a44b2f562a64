//! Users.

mod lifecycle;
mod search;
