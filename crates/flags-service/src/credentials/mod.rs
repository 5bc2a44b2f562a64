//! How callers prove who they are.

pub mod jwt;
pub mod passwords;
pub mod secret;
pub mod sessions;
pub mod signing;
pub mod throttle;
pub mod tokens;
