//! Derivation of user ids from external ids.

use flags_domain::UserIdNamespace;
use flags_store::{Store, service_keys};

use crate::error::Result;

/// Name of the database row that holds the secret namespace.
const NAMESPACE_KEY: &str = "user_ids";

/// Returns the namespace from which user ids are derived. It is created by a migration.
///
/// The namespace is stored in the database, so that all servers derive the same ids, even after a backup was restored.
pub(crate) async fn user_id_namespace(store: &Store) -> Result<UserIdNamespace> {
    let key = service_keys::find(&mut store.conn().await?, NAMESPACE_KEY).await?;
    Ok(UserIdNamespace::new(std::array::from_fn(|index| key[index])))
}
