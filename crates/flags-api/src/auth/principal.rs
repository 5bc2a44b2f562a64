//! The authenticated caller.

use std::sync::Arc;

use flags_domain::Instant;
use flags_service::{credentials::confirmation::Confirmation, replica::CachedUser};
use flags_store::{api_tokens::TokenGrant, sessions::SessionRecord, users::Role};

use super::credential::{ActorId, Credential};
use crate::{problem::Problem, state::App};

/// Authenticated identity of a caller.
#[derive(Clone, Debug)]
pub(crate) struct Principal {
    /// Name of the caller in the change log: `user:<id>` or `token:<id>`.
    pub(crate) actor: String,
    /// The lower of the credential's role and its user's role. `None` if the credential may only evaluate flags.
    pub(crate) role: Option<Role>,
    /// User that the credential acts as. The context contains the attributes of its JWT.
    pub(crate) user: Option<Arc<CachedUser>>,
    /// Whether `user` is not stored.
    pub(crate) is_unknown: bool,
    pub(crate) credential: Credential,
    /// Session, if the credential is a session cookie.
    pub(crate) session: Option<SessionRecord>,
    /// Time at which the credential expires at the latest. `None` if it does not expire.
    pub(crate) expires_at: Option<Instant>,
}

impl Principal {
    /// Validates the credential and looks up its user. `record_use` updates the time of the credential's last use.
    ///
    /// Fails with 401 if the credential is not valid, if its user is inactive, or if its user is not stored although
    /// the credential requires a stored user. If the replica has not followed changes of users and tokens for too long,
    /// the database must also accept the credential.
    pub(crate) async fn resolve(app: &App, credential: Credential, record_use: bool) -> Result<Self, Problem> {
        let identity = credential.resolve(app, record_use).await?.ok_or_else(Problem::unauthorized)?;
        let acting_user = match identity.actor_id {
            ActorId::Token(_) => None,
            ActorId::User(id) => Some(credential.acting_user(app, id).await?.ok_or_else(Problem::unauthorized)?),
        };
        let is_unknown = acting_user.as_ref().is_some_and(|acting| !acting.is_stored);
        let user = acting_user.map(|acting| acting.user);
        let confirmed = match app.credential_confirmation.confirm(&credential.reference()).await {
            Confirmation::Unavailable => None,
            Confirmation::Busy => {
                let detail = "too many credentials are waiting to be checked in the database; retry later";
                return Err(Problem::unavailable("busy", detail, "1"));
            }
            Confirmation::Rejected => return Err(Problem::unauthorized()),
            Confirmation::Granted(grant) => Some(grant),
        };
        let role = match identity.grant {
            TokenGrant::Evaluate => None,
            TokenGrant::Role(role) => Some(user.as_ref().map_or(role, |user| role.lower(user.role))),
        };
        // The database does not know the role claim of a JWT, so the lower of the two roles applies.
        let role = match confirmed {
            None => role,
            Some(grant) => role.zip(grant.role()).map(|(role, confirmed)| role.lower(confirmed)),
        };
        let credential = credential.with_user(user.as_ref().map(|user| user.id));
        let (session, expires_at) = (identity.session, identity.expires_at);
        Ok(Self { actor: identity.actor_id.actor(), role, user, is_unknown, credential, session, expires_at })
    }
}
