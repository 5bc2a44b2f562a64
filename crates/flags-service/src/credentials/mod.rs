//! Authentication: passwords, sessions, API tokens, JWTs of an external issuer, and signing keys.

pub mod check;
pub mod confirmation;
pub mod jwt;
pub mod passwords;
pub mod secret;
pub mod sessions;
pub mod signing;
pub mod throttle;
pub mod tokens;
