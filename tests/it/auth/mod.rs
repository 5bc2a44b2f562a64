//! Authentication and authorization: login, sessions, API tokens, JWTs and permissions.

mod api_tokens;
mod cross_site_requests;
pub(crate) mod jwt;
mod jwt_forgeries;
mod jwt_keys;
mod jwt_users;
mod login;
mod login_throttling;
mod own_credential;
mod passwords;
mod permissions;
mod revocation;
mod revocation_races;
mod sessions;
mod support;

use serde_json::{Value, json};

pub(crate) const LOGIN_PATH: &str = "/api/auth/login";

/// Endpoint that returns the caller's identity.
pub(crate) const ME_PATH: &str = "/api/auth/me";

/// Request body of a login.
pub(crate) fn login_body(email: &str, password: &str) -> Value {
    json!({"email": email, "password": password})
}
