//! Queries for signing keys that all servers share (`service_keys`).
//!
//! The keys are created by a migration.

use diesel::{OptionalExtension, QueryDsl};
use diesel_async::RunQueryDsl;

use crate::{
    conn::{Conn, dispatch},
    decoded::Decoded,
    error::{Result, StoreError},
    schema::service_keys,
};

/// Returns the key with this name, which a migration has created. Every server receives the same
/// key.
///
/// Fails with [`StoreError::Corrupt`] if the key is missing or cannot be read. The key is not
/// replaced automatically, because a new key would invalidate all existing signatures.
pub async fn find(conn: &mut Conn, name: &str) -> Result<[u8; 32]> {
    let secret: Option<Decoded<Vec<u8>>> =
        dispatch!(conn, |c| { service_keys::table.find(name).select(service_keys::secret).first(c).await.optional() })?;
    let missing = || StoreError::corrupt(TABLE, format!("the row {name} is missing; restore it from a backup"));
    decode(secret.ok_or_else(missing)?.into_result(TABLE)?)
}

const TABLE: &str = "service_keys";

fn decode(secret: Vec<u8>) -> Result<[u8; 32]> {
    secret.try_into().map_err(|_| StoreError::corrupt(TABLE, "secret must have 32 bytes"))
}
