//! Who calls.

use std::sync::Arc;

use flags_domain::Instant;
use flags_service::{evaluation::Evaluation, replica::KnownUser};
use flags_store::{credentials::Grant, users::Role};

use super::credential::{ActsAs, Credential};
use crate::problem::Problem;

/// A caller whose credential is valid.
#[derive(Clone, Debug)]
pub(crate) struct Principal {
    /// The caller's name in the log: `user:<id>` or `token:<id>`.
    pub(crate) actor: String,
    /// What they may do: the lower of the credential's role and its user's. `None`: evaluate flags and nothing else.
    pub(crate) role: Option<Role>,
    /// The user the credential acts as.
    pub(crate) user: Option<Arc<KnownUser>>,
    /// What they showed.
    pub(crate) credential: Credential,
}

impl Principal {
    /// The caller who showed this credential, looked up live.
    pub(crate) async fn of(evaluation: &Evaluation, credential: Credential, now: Instant) -> Result<Self, Problem> {
        let bearer = {
            let view = evaluation.replica().read();
            credential.bearer(&view, now)
        };
        let bearer = bearer.ok_or_else(Problem::unauthorized)?;
        let user = match bearer.acts_as {
            ActsAs::Token(_) => None,
            ActsAs::User(id) => {
                let user = evaluation.user(id).await?.filter(|user| user.active);
                Some(user.ok_or_else(Problem::unauthorized)?)
            }
        };
        let role = match bearer.grant {
            Grant::Evaluate => None,
            Grant::Role(role) => Some(user.as_ref().map_or(role, |user| role.lower(user.role))),
        };
        let credential = credential.acting_as(user.as_ref().map(|user| user.id));
        Ok(Self { actor: bearer.acts_as.actor(), role, user, credential })
    }
}
