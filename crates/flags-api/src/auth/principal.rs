//! Who calls.

use std::sync::Arc;

use flags_domain::Instant;
use flags_service::{
    credentials::tokens,
    evaluation::Evaluation,
    replica::{KnownUser, RecentChange, View},
    users,
};
use flags_store::{
    credentials::{Grant, TokenRecord},
    log::Entity,
    users::Role,
};

use uuid::Uuid;

use crate::problem::Problem;

/// A caller whose credential is valid.
#[derive(Clone, Debug)]
pub(crate) struct Principal {
    /// The caller's name in the log: `user:<id>` or `token:<id>`.
    pub(crate) actor: String,
    /// What they may do: the lower of the token's role and its user's. `None`: evaluate flags and nothing else.
    pub(crate) role: Option<Role>,
    /// The user the credential acts as.
    pub(crate) user: Option<Arc<KnownUser>>,
    /// What they showed.
    pub(crate) credential: Credential,
}

/// What a caller showed, in a form that is no secret: for looking again whether it is still valid.
#[derive(Clone, Copy)]
pub(crate) struct Credential {
    token_hash: [u8; 32],
    /// Whom it acts as.
    user_id: Option<Uuid>,
}

impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Credential(…)")
    }
}

impl Credential {
    /// Whether a change concerns what its bearer may do.
    pub(crate) fn is_touched_by(&self, change: &RecentChange) -> bool {
        change.entity == Entity::User && change.user_id == self.user_id
    }

    /// Whether it is valid in this view, as far as that can be told without a look at its user.
    pub(crate) fn is_live(&self, view: &View<'_>, now: Instant) -> bool {
        view.token(&self.token_hash).is_some_and(|token| is_live(token, now))
    }
}

fn is_live(token: &TokenRecord, now: Instant) -> bool {
    token.revoked_at.is_none() && token.expires_at.is_none_or(|end| end > now)
}

impl Principal {
    /// The caller who bears this token, looked up live.
    pub(crate) async fn of_token(evaluation: &Evaluation, text: &str, now: Instant) -> Result<Self, Problem> {
        Self::of(evaluation, Credential { token_hash: tokens::hash(text), user_id: None }, now).await
    }

    /// The caller who showed this credential, looked up live.
    pub(crate) async fn of(evaluation: &Evaluation, credential: Credential, now: Instant) -> Result<Self, Problem> {
        let bearer = {
            let view = evaluation.replica().read();
            let token = view.token(&credential.token_hash).filter(|token| is_live(token, now));
            token.map(|token| (token.id, token.grant, token.user_id))
        };
        let (id, grant, user_id) = bearer.ok_or_else(Problem::unauthorized)?;
        let user = match user_id {
            None => None,
            Some(id) => {
                let user = evaluation.user(id).await?.filter(|user| user.active);
                Some(user.ok_or_else(Problem::unauthorized)?)
            }
        };
        let role = match grant {
            Grant::Evaluate => None,
            Grant::Role(role) => Some(user.as_ref().map_or(role, |user| role.lower(user.role))),
        };
        let actor = user.as_ref().map_or_else(|| tokens::actor_of(id), |user| users::actor_of(user.id));
        Ok(Self { actor, role, user, credential: Credential { user_id, ..credential } })
    }
}
