//! What a caller showed: every kind of credential, and one match for each question about it.

use flags_domain::Instant;
use flags_service::{
    credentials::{jwt::VerifiedJwt, tokens},
    replica::{RecentChange, View},
    users,
};
use flags_store::{
    credentials::{Grant, TokenRecord},
    log::Entity,
    users::Role,
};
use uuid::Uuid;

/// What a caller showed, in a form that is no secret: for looking again whether it is still valid.
#[derive(Clone, Copy)]
pub(crate) enum Credential {
    /// An API token.
    Token {
        hash: [u8; 32],
        /// Whom it acts as, once that was looked up.
        user_id: Option<Uuid>,
    },
    /// A JWT. Its issuer's keys are not looked at again: it is short-lived.
    Jwt {
        user_id: Uuid,
        /// The most that it lets its bearer do.
        most: Role,
        expires_at: Instant,
    },
}

impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Credential(…)")
    }
}

/// What a valid credential stands for.
pub(super) struct Bearer {
    pub(super) acts_as: ActsAs,
    /// What it allows, whatever its user may do.
    pub(super) grant: Grant,
}

/// Who acts.
#[derive(Clone, Copy)]
pub(super) enum ActsAs {
    User(Uuid),
    /// A token without a user.
    Token(Uuid),
}

impl ActsAs {
    /// The name in the log.
    pub(super) fn actor(self) -> String {
        match self {
            Self::User(id) => users::actor_of(id),
            Self::Token(id) => tokens::actor_of(id),
        }
    }
}

impl Credential {
    /// This API token.
    pub(super) fn of_token(text: &str) -> Self {
        Self::Token { hash: tokens::hash(text), user_id: None }
    }

    /// A JWT that says this and names the user of this id. One that says nothing of a role leaves it to its user's.
    pub(super) fn of_jwt(verified: &VerifiedJwt, user_id: Uuid) -> Self {
        Self::Jwt { user_id, most: verified.role.unwrap_or(Role::Admin), expires_at: verified.expires_at }
    }

    /// The same, now that it is known whom it acts as.
    pub(super) fn acting_as(self, user_id: Option<Uuid>) -> Self {
        match self {
            Self::Token { hash, .. } => Self::Token { hash, user_id },
            Self::Jwt { .. } => self,
        }
    }

    /// What it stands for in this view; `None` if it is void.
    pub(super) fn bearer(&self, view: &View<'_>, now: Instant) -> Option<Bearer> {
        match self {
            Self::Token { hash, .. } => {
                let token = view.token(hash).filter(|token| is_live(token, now))?;
                let acts_as = token.user_id.map_or(ActsAs::Token(token.id), ActsAs::User);
                Some(Bearer { acts_as, grant: token.grant })
            }
            Self::Jwt { user_id, most, expires_at } => {
                (*expires_at > now).then_some(Bearer { acts_as: ActsAs::User(*user_id), grant: Grant::Role(*most) })
            }
        }
    }

    /// Whether it is valid in this view, as far as that can be told without a look at its user.
    pub(crate) fn is_live(&self, view: &View<'_>, now: Instant) -> bool {
        self.bearer(view, now).is_some()
    }

    /// When it becomes void by itself.
    pub(crate) fn ends_at(&self, view: &View<'_>) -> Option<Instant> {
        match self {
            Self::Token { hash, .. } => view.token(hash)?.expires_at,
            Self::Jwt { expires_at, .. } => Some(*expires_at),
        }
    }

    /// Whether a change concerns what its bearer may do.
    pub(crate) fn is_touched_by(&self, change: &RecentChange) -> bool {
        let user_id = match self {
            Self::Token { user_id, .. } => *user_id,
            Self::Jwt { user_id, .. } => Some(*user_id),
        };
        change.entity == Entity::User && change.user_id == user_id
    }
}

fn is_live(token: &TokenRecord, now: Instant) -> bool {
    token.revoked_at.is_none() && token.expires_at.is_none_or(|end| end > now)
}
