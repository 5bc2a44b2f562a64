//! What a caller showed: every kind of credential, and one match for each question about it.

use flags_domain::Instant;
use flags_service::{
    credentials::jwt::VerifiedJwt,
    replica::{RecentChange, View},
};
use flags_store::{
    actor_labels::{token_actor, user_actor},
    api_tokens::Grant,
    change_log::ResourceKind,
    sessions::SessionRecord,
    users::Role,
};
use uuid::Uuid;

use crate::{app::App, problem::Problem};

/// What a caller showed, in a form that is no secret: for looking again whether it is still valid.
#[derive(Clone, Copy)]
pub(crate) enum Credential {
    /// An API token.
    Token {
        /// Its SHA-256.
        hash: [u8; 32],
        /// Whom it acts as, once that was looked up.
        user_id: Option<Uuid>,
    },
    /// The cookie of somebody who is signed in.
    Session {
        /// Its SHA-256.
        hash: [u8; 32],
        /// Who is signed in, once that was looked up.
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
pub(super) struct Identity {
    pub(super) acts_as: ActsAs,
    /// What it allows, whatever its user may do.
    pub(super) grant: Grant,
    /// The session, if it is one.
    pub(super) session: Option<SessionRecord>,
    /// When it ends at the latest.
    pub(super) expires_at: Option<Instant>,
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
            Self::User(id) => user_actor(id),
            Self::Token(id) => token_actor(id),
        }
    }
}

impl Credential {
    /// A JWT that says this and names the user of this id. One that says nothing of a role leaves it to its user's.
    pub(super) fn of_jwt(verified: &VerifiedJwt, user_id: Uuid) -> Self {
        Self::Jwt { user_id, most: verified.role.unwrap_or(Role::Admin), expires_at: verified.expires_at }
    }

    /// The same, now that it is known whom it acts as.
    pub(super) const fn acting_as(self, user_id: Option<Uuid>) -> Self {
        match self {
            Self::Token { hash, .. } => Self::Token { hash, user_id },
            Self::Session { hash, .. } => Self::Session { hash, user_id },
            Self::Jwt { .. } => self,
        }
    }

    /// What it stands for now; `None` if it is void. `used` says that this is a use of it.
    pub(super) async fn identity(&self, app: &App, used: bool) -> Result<Option<Identity>, Problem> {
        let now = app.evaluation.now();
        Ok(match self {
            Self::Token { hash, .. } => {
                let view = app.evaluation.replica().read();
                let token = view.token(hash).filter(|token| token.is_live(now));
                if used && token.is_some() {
                    view.note_token_use(hash, now);
                }
                token.map(|token| Identity {
                    acts_as: token.user_id.map_or(ActsAs::Token(token.id), ActsAs::User),
                    grant: token.grant,
                    session: None,
                    expires_at: token.expires_at,
                })
            }
            // A session is as much as its user.
            Self::Session { hash, .. } => app.sessions.find(hash, used).await?.map(|session| Identity {
                acts_as: ActsAs::User(session.user_id),
                grant: Grant::Role(Role::Admin),
                session: Some(session),
                expires_at: Some(session.ends_at),
            }),
            Self::Jwt { user_id, most, expires_at } => (*expires_at > now).then_some(Identity {
                acts_as: ActsAs::User(*user_id),
                grant: Grant::Role(*most),
                session: None,
                expires_at: Some(*expires_at),
            }),
        })
    }

    /// Whether it is valid in this view, as far as that can be told without a look at its user or, for a session, at the
    /// database.
    pub(crate) fn is_live(&self, view: &View<'_>, now: Instant) -> bool {
        match self {
            Self::Token { hash, .. } => view.token(hash).is_some_and(|token| token.is_live(now)),
            Self::Session { .. } => true,
            Self::Jwt { expires_at, .. } => *expires_at > now,
        }
    }

    /// When it becomes void by itself, as far as that stands fast.
    pub(crate) fn ends_at(&self, view: &View<'_>) -> Option<Instant> {
        match self {
            Self::Token { hash, .. } => view.token(hash)?.expires_at,
            Self::Session { .. } => None,
            Self::Jwt { expires_at, .. } => Some(*expires_at),
        }
    }

    /// Whether it can end without a change of the log or an instant that says so: then it must be looked at every second.
    pub(crate) const fn ends_silently(&self) -> bool {
        matches!(self, Self::Session { .. })
    }

    /// Whether a change concerns what its bearer may do.
    pub(crate) fn is_touched_by(&self, change: &RecentChange) -> bool {
        let user_id = match self {
            Self::Token { user_id, .. } | Self::Session { user_id, .. } => *user_id,
            Self::Jwt { user_id, .. } => Some(*user_id),
        };
        change.entity == ResourceKind::User && change.user_id == user_id
    }

    /// A number that differs from credential to credential; of JWTs, from user to user.
    pub(super) fn key(&self) -> u64 {
        match self {
            Self::Token { hash, .. } | Self::Session { hash, .. } => {
                u64::from_be_bytes(std::array::from_fn(|place| hash[place]))
            }
            Self::Jwt { user_id, .. } => {
                let (high, low) = user_id.as_u64_pair();
                high ^ low
            }
        }
    }
}
