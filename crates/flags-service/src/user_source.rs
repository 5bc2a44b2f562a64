//! The database as the source of users for evaluation.

use std::sync::Arc;

use flags_domain::{EvaluationContext, StoredUser, UserIdNamespace};
use flags_store::{
    StoreError,
    users::{self, UserRecord},
};
use uuid::Uuid;

use crate::{
    core::Core,
    error::ServiceError,
    evaluation::{Evaluation, UserLookup, UserSource},
    replica::{CachedUser, Replica},
};

impl Core {
    /// Creates a service that evaluates flags from `replica` and reads uncached users from the database.
    pub fn evaluation(&self, replica: &Arc<Replica>) -> Evaluation {
        let users = DatabaseUsers { core: self.clone(), replica: Arc::clone(replica) };
        Evaluation::new(Arc::clone(self.clock()), Arc::new(users), Arc::clone(replica))
    }
}

/// The users in the database.
struct DatabaseUsers {
    core: Core,
    /// Supplies the namespace of derived user ids.
    replica: Arc<Replica>,
}

impl DatabaseUsers {
    fn cached(&self, user: UserRecord) -> CachedUser {
        cached_user(user, self.replica.user_id_namespace())
    }
}

impl UserSource for DatabaseUsers {
    fn find(&self, id: Uuid) -> UserLookup<'_, Option<CachedUser>> {
        Box::pin(async move {
            let record = self.core.read(async |conn| users::find(conn, id).await).await.map_err(unreadable)?;
            Ok(record.map(|user| self.cached(user)))
        })
    }

    fn find_by_email<'a>(&'a self, email: &'a str) -> UserLookup<'a, Option<CachedUser>> {
        Box::pin(async move {
            let record =
                self.core.read(async |conn| users::find_by_email(conn, email).await).await.map_err(unreadable)?;
            Ok(record.map(|user| self.cached(user)))
        })
    }

    fn find_all<'a>(&'a self, ids: &'a [Uuid]) -> UserLookup<'a, Vec<CachedUser>> {
        Box::pin(async move {
            let records = self.core.read(async |conn| users::find_all(conn, ids).await).await?;
            Ok(records.into_iter().map(|user| self.cached(user)).collect())
        })
    }
}

/// Converts the error for a user whose row cannot be decoded. Such a user cannot authenticate.
fn unreadable(error: ServiceError) -> ServiceError {
    match error {
        ServiceError::Store(StoreError::Corrupt(_)) => ServiceError::UserUnreadable,
        error => error,
    }
}

/// Converts a stored user to the fields that evaluation and authorization need.
pub(crate) fn cached_user(user: UserRecord, namespace: UserIdNamespace) -> CachedUser {
    let own_id = user.id.to_string();
    // If a user was created with an external id, the user id is derived from the external id.
    let created_with = user.external_id.as_deref().filter(|external_id| namespace.user_id(external_id) == user.id);
    let stored = StoredUser {
        id: user.id,
        evaluation_key: created_with.unwrap_or(&own_id),
        external_id: user.external_id.as_deref(),
        email: user.email.as_deref(),
        role: user.role.as_str(),
        created_at: user.created_at,
    };
    let context = EvaluationContext::user(stored, user.attributes);
    CachedUser { id: user.id, role: user.role, active: user.active, email: user.email.map(Into::into), context }
}
