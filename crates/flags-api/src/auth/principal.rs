//! Who calls.

use std::sync::Arc;

use flags_domain::Instant;
use flags_service::{
    credentials::tokens::{self, Token},
    evaluation::Evaluation,
    replica::KnownUser,
    users,
};
use flags_store::{
    credentials::{Grant, TokenRecord},
    users::Role,
};

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
}

impl Principal {
    /// The caller who bears this token, looked up live.
    pub(crate) async fn of_token(evaluation: &Evaluation, text: &str, now: Instant) -> Result<Self, Problem> {
        if !Token::is_well_formed(text) {
            return Err(Problem::unauthorized());
        }
        let hash = tokens::hash(text);
        let live = |token: &TokenRecord| token.revoked_at.is_none() && token.expires_at.is_none_or(|end| end > now);
        let bearer = {
            let view = evaluation.replica().read();
            view.token(&hash).filter(|token| live(token)).map(|token| (token.id, token.grant, token.user_id))
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
        Ok(Self { actor, role, user })
    }
}
