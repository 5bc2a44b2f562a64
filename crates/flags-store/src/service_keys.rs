//! What all servers sign with. Book-keeping beside the log: nothing here takes a revision.

use diesel::{ExpressionMethods, OptionalExtension, QueryDsl};
use diesel_async::RunQueryDsl;

use crate::{
    error::{Result, StoreError},
    schema::service_keys,
    store::{Conn, Store, on},
};

/// The key of this name; `fresh` becomes it if there is none. Of several servers that ask at once all get the same.
pub async fn find_or_insert(store: &Store, name: &str, fresh: &[u8; 32]) -> Result<[u8; 32]> {
    if let Some(key) = find(&mut store.conn().await?, name).await? {
        return Ok(key);
    }
    let _writer = store.writer().await?;
    let mut conn = store.conn().await?;
    let row = (service_keys::name.eq(name), service_keys::secret.eq(&fresh[..]));
    on!(conn, |c| diesel::insert_into(service_keys::table).values(row).on_conflict_do_nothing().execute(c).await)?;
    let key = find(&mut conn, name).await?;
    key.ok_or_else(|| StoreError::corrupt("service_keys", "a key went as it was made"))
}

async fn find(conn: &mut Conn, name: &str) -> Result<Option<[u8; 32]>> {
    let found: Option<Vec<u8>> =
        on!(conn, |c| { service_keys::table.find(name).select(service_keys::secret).first(c).await.optional() })?;
    let whole = |secret: Vec<u8>| {
        secret.try_into().map_err(|_| StoreError::corrupt("service_keys", "a key of the wrong length"))
    };
    found.map(whole).transpose()
}
