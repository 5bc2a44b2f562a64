//! Sign-in, API tokens, JWTs and permissions.

pub(crate) mod jwt;
mod jwt_forgeries;
mod jwt_keys;
mod permissions;
pub(crate) mod sign_in;
mod tokens;
