//! Ids of users with an external id.

use flags_domain::UserIdNamespace;
use flags_store::{Store, service_keys};

use crate::error::Result;

/// Name of the database row that holds the secret namespace.
const NAMESPACE_KEY: &str = "user_ids";

/// Returns the namespace of the database, which a migration has created.
///
/// It is part of the database, so that a backup, a replica and every server derive the same ids.
pub(crate) async fn user_id_namespace(store: &Store) -> Result<UserIdNamespace> {
    let key = service_keys::find(&mut store.conn().await?, NAMESPACE_KEY).await?;
    Ok(UserIdNamespace::new(std::array::from_fn(|index| key[index])))
}
