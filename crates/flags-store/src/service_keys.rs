//! Queries for signing keys that all servers share (`service_keys`).
//!
//! Writes in this module are not logged and take no revision.

use diesel::{ExpressionMethods, OptionalExtension, QueryDsl};
use diesel_async::RunQueryDsl;

use crate::{
    conn::{Conn, dispatch},
    error::{Result, StoreError},
    schema::service_keys,
    store::Store,
};

/// Returns the key with this name. Inserts `new_key` if there is none.
///
/// All servers that call this concurrently receive the same key.
pub async fn find_or_insert(store: &Store, name: &str, new_key: &[u8; 32]) -> Result<[u8; 32]> {
    if let Some(key) = find(&mut store.conn().await?, name).await? {
        return Ok(key);
    }
    let _permit = store.write_permit().await?;
    let mut conn = store.conn().await?;
    let row = (service_keys::name.eq(name), service_keys::secret.eq(&new_key[..]));
    dispatch!(conn, |c| diesel::insert_into(service_keys::table)
        .values(row)
        .on_conflict_do_nothing()
        .execute(c)
        .await)?;
    let key = find(&mut conn, name).await?;
    key.ok_or_else(|| StoreError::corrupt("service_keys", "the key was removed concurrently"))
}

async fn find(conn: &mut Conn, name: &str) -> Result<Option<[u8; 32]>> {
    let secret: Option<Vec<u8>> =
        dispatch!(conn, |c| { service_keys::table.find(name).select(service_keys::secret).first(c).await.optional() })?;
    secret.map(decode).transpose()
}

fn decode(secret: Vec<u8>) -> Result<[u8; 32]> {
    secret.try_into().map_err(|_| StoreError::corrupt("service_keys", "secret must have 32 bytes"))
}
