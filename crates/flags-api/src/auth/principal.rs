//! Who calls.

use std::sync::Arc;

use flags_domain::Instant;
use flags_service::replica::CachedUser;
use flags_store::{api_tokens::Grant, sessions::SessionRecord, users::Role};

use super::credential::{ActsAs, Credential};
use crate::{app::App, problem::Problem};

/// A caller whose credential is valid.
#[derive(Clone, Debug)]
pub(crate) struct Principal {
    /// The caller's name in the log: `user:<id>` or `token:<id>`.
    pub(crate) actor: String,
    /// What they may do: the lower of the credential's role and its user's. `None`: evaluate flags and nothing else.
    pub(crate) role: Option<Role>,
    /// The user the credential acts as.
    pub(crate) user: Option<Arc<CachedUser>>,
    /// What they showed.
    pub(crate) credential: Credential,
    /// The session, if they are signed in.
    pub(crate) session: Option<SessionRecord>,
    /// When the credential ends at the latest.
    pub(crate) expires_at: Option<Instant>,
}

impl Principal {
    /// The caller who showed this credential, looked up live. `used` says that this is a use of it.
    pub(crate) async fn of(app: &App, credential: Credential, used: bool) -> Result<Self, Problem> {
        let identity = credential.identity(app, used).await?.ok_or_else(Problem::unauthorized)?;
        let user = match identity.acts_as {
            ActsAs::Token(_) => None,
            ActsAs::User(id) => {
                let user = app.evaluation.user(id).await?.filter(|user| user.active);
                Some(user.ok_or_else(Problem::unauthorized)?)
            }
        };
        let role = match identity.grant {
            Grant::Evaluate => None,
            Grant::Role(role) => Some(user.as_ref().map_or(role, |user| role.lower(user.role))),
        };
        let credential = credential.acting_as(user.as_ref().map(|user| user.id));
        let (session, expires_at) = (identity.session, identity.expires_at);
        Ok(Self { actor: identity.acts_as.actor(), role, user, credential, session, expires_at })
    }
}
