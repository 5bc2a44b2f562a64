//! The user that a credential acts as, with the attributes of its JWT.

use std::sync::Arc;

use flags_domain::EvaluationContext;
use flags_service::{
    credentials::jwt::JwtUsers,
    evaluation::{FoundUser, ResolvedKey},
    replica::CachedUser,
};
use flags_store::users::Role;
use serde_json::{Map, Value};
use uuid::Uuid;

use super::Credential;
use crate::{problem::Problem, state::App};

/// Subject of a JWT.
#[derive(Debug, Default)]
pub(crate) struct JwtSubject {
    /// Evaluation key. `None` if an e-mail address identifies the user, and for a stream token, which does not contain the
    /// key.
    pub(super) key: Option<Box<str>>,
    /// Attributes from the claims. They have priority over stored attributes.
    pub(super) attributes: Map<String, Value>,
}

/// User that a credential acts as.
pub(crate) struct ActingUser {
    /// The active user. The evaluation context contains the attributes of the JWT.
    pub(crate) user: Arc<CachedUser>,
    /// Whether the user is stored.
    pub(super) is_stored: bool,
}

impl Credential {
    /// Looks up the user with this id, which the credential identifies. Returns `None` if the user is inactive, or if it
    /// is not stored and the credential requires a stored user.
    pub(crate) async fn acting_user(&self, app: &App, id: Uuid) -> Result<Option<ActingUser>, Problem> {
        let Self::Jwt { subject, users, .. } = self else {
            return Ok(stored_user(app, id).await?.map(ActingUser::stored));
        };
        if *users == JwtUsers::Known {
            return Ok(stored_user(app, id).await?.map(|user| ActingUser::stored(subject.add_attributes(user))));
        }
        let Some(resolved) = subject.resolve(app, id).await? else { return Ok(None) };
        Ok(match resolved {
            FoundUser::Stored(user) if user.active => Some(ActingUser::stored(subject.add_attributes(user))),
            // A row that cannot be read may be the one of an inactive user.
            FoundUser::Stored(_) | FoundUser::Unreadable => None,
            FoundUser::Absent => Some(ActingUser { user: Arc::new(subject.unknown_user(id)), is_stored: false }),
        })
    }
}

async fn stored_user(app: &App, id: Uuid) -> Result<Option<Arc<CachedUser>>, Problem> {
    Ok(app.evaluation.user(id).await?.filter(|user| user.active))
}

impl ActingUser {
    const fn stored(user: Arc<CachedUser>) -> Self {
        Self { user, is_stored: true }
    }
}

impl JwtSubject {
    /// Looks up the user with this id. Returns `None` if the key belongs to another user by now.
    async fn resolve(&self, app: &App, id: Uuid) -> Result<Option<FoundUser>, Problem> {
        let Some(key) = &self.key else { return Ok(Some(app.evaluation.find_user(id).await?)) };
        let ResolvedKey { user_id, user } = app.evaluation.resolve_key(key).await?;
        Ok((user_id == id).then_some(user))
    }

    /// Adds the attributes to the context of a stored user.
    fn add_attributes(&self, user: Arc<CachedUser>) -> Arc<CachedUser> {
        if self.attributes.is_empty() {
            return user;
        }
        let context = user.context.with_attributes(self.attributes.clone());
        let (id, role, active, email) = (user.id, user.role, user.active, user.email.clone());
        Arc::new(CachedUser { id, role, active, email, context })
    }

    /// Creates the user of a key without a stored user. Its built-in attribute `role` equals the one of a new user, so
    /// that conditions on it hold before and after the user is stored.
    fn unknown_user(&self, id: Uuid) -> CachedUser {
        let role = Role::User;
        let mut attributes = self.attributes.clone();
        attributes.insert("role".to_owned(), role.as_str().into());
        let context = match &self.key {
            Some(key) => EvaluationContext::anonymous_user(key, id, attributes),
            // The stream of a stream token evaluates nothing.
            None => EvaluationContext::without_key(attributes),
        };
        CachedUser { id, role, active: true, email: None, context }
    }
}
