//! The database as the source of users for evaluation.

use std::sync::Arc;

use flags_domain::EvaluationContext;
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
        Evaluation::new(Arc::clone(self.clock()), Arc::new(self.clone()), Arc::clone(replica))
    }
}

impl UserSource for Core {
    fn find(&self, id: Uuid) -> UserLookup<'_, Option<CachedUser>> {
        Box::pin(async move {
            let record = self.read(async |conn| users::find(conn, id).await).await.map_err(unreadable)?;
            Ok(record.map(CachedUser::from))
        })
    }

    fn find_by_email<'a>(&'a self, email: &'a str) -> UserLookup<'a, Option<CachedUser>> {
        Box::pin(async move {
            let record = self.read(async |conn| users::find_by_email(conn, email).await).await.map_err(unreadable)?;
            Ok(record.map(CachedUser::from))
        })
    }

    fn find_all<'a>(&'a self, ids: &'a [Uuid]) -> UserLookup<'a, Vec<CachedUser>> {
        Box::pin(async move {
            let records = self.read(async |conn| users::find_all(conn, ids).await).await?;
            Ok(records.into_iter().map(CachedUser::from).collect())
        })
    }
}

/// Converts the error for a user whose row cannot be read. Such a user is not accepted as a principal.
fn unreadable(error: ServiceError) -> ServiceError {
    match error {
        ServiceError::Store(StoreError::Corrupt(_)) => ServiceError::UserUnreadable,
        error => error,
    }
}

impl From<UserRecord> for CachedUser {
    fn from(user: UserRecord) -> Self {
        let context =
            EvaluationContext::user(user.id, &user.email, user.role.as_str(), user.created_at, user.attributes);
        Self { id: user.id, role: user.role, active: user.active, email: user.email.into(), context }
    }
}
