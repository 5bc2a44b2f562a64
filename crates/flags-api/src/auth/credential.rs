//! The kinds of credentials and how they are validated.

use std::sync::Arc;

use flags_domain::Instant;
use flags_service::{
    ServiceError,
    acting_user::{ActingUser, JwtSubject},
    credentials::{
        check::{RequiredCredential, RequiredPermission},
        jwt::{JwtUsers, VerifiedJwt},
    },
    replica::{RecentChange, View},
};
use flags_store::{
    actor_labels::{token_actor, user_actor},
    api_tokens::TokenGrant,
    change_log::ResourceKind,
    principals::CredentialRef,
    sessions::SessionRecord,
    users::Role,
};
use uuid::Uuid;

use crate::{problem::Problem, state::App};

/// Reference to the credential that a caller presented.
///
/// It contains hashes instead of secrets, so the server can keep it and validate the credential again later.
#[derive(Clone)]
pub(crate) enum Credential {
    /// API token.
    Token {
        /// SHA-256 of the token.
        hash: [u8; 32],
        /// User that the token acts as. `None` before the lookup, and for a token without a user.
        user_id: Option<Uuid>,
    },
    /// Session cookie.
    Session {
        /// SHA-256 of the session secret.
        hash: [u8; 32],
        /// User that is signed in. `None` before the lookup.
        user_id: Option<Uuid>,
    },
    /// JWT whose signature the server has verified. Later checks do not repeat the verification, because JWTs are
    /// short-lived.
    Jwt {
        /// Id of the user, stored or not.
        user_id: Uuid,
        /// Upper limit of the caller's role.
        max_role: Role,
        expires_at: Instant,
        /// Whether the user must be stored.
        users: JwtUsers,
        subject: Arc<JwtSubject>,
    },
}

impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Credential(…)")
    }
}

/// Identity and permissions of a valid credential.
pub(super) struct Identity {
    pub(super) actor_id: ActorId,
    /// Permissions of the credential itself, before they are limited to those of its user.
    pub(super) grant: TokenGrant,
    /// Session, if the credential is a session cookie.
    pub(super) session: Option<SessionRecord>,
    /// Time at which the credential expires at the latest. `None` if it does not expire.
    pub(super) expires_at: Option<Instant>,
}

/// Identifier of the principal that the change log records as the actor.
#[derive(Clone, Copy)]
pub(super) enum ActorId {
    User(Uuid),
    /// API token without a user.
    Token(Uuid),
}

impl ActorId {
    /// Returns the actor's name in the change log: `user:<id>` or `token:<id>`.
    pub(super) fn actor(self) -> String {
        match self {
            Self::User(id) => user_actor(id),
            Self::Token(id) => token_actor(id),
        }
    }
}

impl Credential {
    /// Builds the credential of a verified JWT. `key` is the evaluation key that identifies the user, or `None` if an
    /// e-mail address identifies the user. A JWT without a role claim does not limit the user's role.
    pub(super) fn from_jwt(verified: VerifiedJwt, user_id: Uuid, key: Option<&str>, users: JwtUsers) -> Self {
        Self::Jwt {
            user_id,
            max_role: verified.role.unwrap_or(Role::Admin),
            expires_at: verified.expires_at,
            users,
            subject: Arc::new(JwtSubject { key: key.map(Into::into), attributes: verified.attributes.0 }),
        }
    }

    /// Sets the user of an API token or a session. Returns a JWT unchanged, because it already contains its user.
    pub(super) fn with_user(self, user_id: Option<Uuid>) -> Self {
        match self {
            Self::Token { hash, .. } => Self::Token { hash, user_id },
            Self::Session { hash, .. } => Self::Session { hash, user_id },
            Self::Jwt { .. } => self,
        }
    }

    /// Applies the current setting of `--jwt-users` to the credential of a stream token: if the server accepts only
    /// stored users, a JWT requires a stored user.
    pub(super) fn limited_to(self, accepted: JwtUsers) -> Self {
        match (self, accepted) {
            (Self::Jwt { user_id, max_role, expires_at, subject, .. }, JwtUsers::Known) => {
                Self::Jwt { user_id, max_role, expires_at, users: JwtUsers::Known, subject }
            }
            (credential, _) => credential,
        }
    }

    /// Validates the credential. Returns `None` if it is unknown, revoked or expired. `record_use` updates the time of
    /// its last use.
    pub(super) async fn resolve(&self, app: &App, record_use: bool) -> Result<Option<Identity>, Problem> {
        let now = app.evaluation.now();
        Ok(match self {
            Self::Token { hash, .. } => {
                let view = app.evaluation.replica().read();
                let token = view.token(hash).filter(|token| token.is_valid_at(now));
                if record_use && token.is_some() {
                    view.record_token_use(hash, now);
                }
                token.map(|token| Identity {
                    actor_id: token.user_id.map_or(ActorId::Token(token.id), ActorId::User),
                    grant: token.grant,
                    session: None,
                    expires_at: token.expires_at,
                })
            }
            // A session has the full role of its user, so the credential itself sets no limit below admin.
            Self::Session { hash, .. } => app.sessions.find(hash, record_use).await?.map(|session| Identity {
                actor_id: ActorId::User(session.user_id),
                grant: TokenGrant::Role(Role::Admin),
                session: Some(session),
                expires_at: Some(session.expires_at),
            }),
            Self::Jwt { user_id, max_role, expires_at, .. } => (*expires_at > now).then_some(Identity {
                actor_id: ActorId::User(*user_id),
                grant: TokenGrant::Role(*max_role),
                session: None,
                expires_at: Some(*expires_at),
            }),
        })
    }

    /// Looks up the user that the credential acts as. Returns `None` if the user is inactive, or if the user is not
    /// stored although the credential requires a stored user.
    pub(crate) async fn acting_user(&self, app: &App, id: Uuid) -> Result<Option<ActingUser>, ServiceError> {
        match self {
            Self::Token { .. } | Self::Session { .. } => app.evaluation.acting_user(id).await,
            Self::Jwt { subject, users, .. } => app.evaluation.jwt_user(id, subject, *users).await,
        }
    }

    /// Returns the key by which the database finds the credential. For a JWT, this is the user's id.
    pub(super) const fn reference(&self) -> CredentialRef {
        match self {
            Self::Token { hash, .. } => CredentialRef::Token(*hash),
            Self::Session { hash, .. } => CredentialRef::Session(*hash),
            Self::Jwt { user_id, users: JwtUsers::Known, .. } => CredentialRef::User(*user_id),
            Self::Jwt { user_id, users: JwtUsers::Any, .. } => CredentialRef::AnyUser(*user_id),
        }
    }

    /// Returns the condition under which a command of the caller may commit: the credential is still valid and has the
    /// permission.
    pub(super) const fn required(&self, permission: RequiredPermission) -> RequiredCredential {
        let expires_at = match self {
            Self::Jwt { expires_at, .. } => Some(*expires_at),
            Self::Token { .. } | Self::Session { .. } => None,
        };
        RequiredCredential { credential: self.reference(), expires_at, permission }
    }

    /// Whether the credential is valid according to the replica. Does not check the credential's user. Always true for
    /// a session, because the replica does not contain sessions.
    pub(crate) fn is_valid_at(&self, view: &View<'_>, now: Instant) -> bool {
        match self {
            Self::Token { hash, .. } => view.token(hash).is_some_and(|token| token.is_valid_at(now)),
            Self::Session { .. } => true,
            Self::Jwt { expires_at, .. } => *expires_at > now,
        }
    }

    /// Returns the credential's fixed expiry. `None` for a session, because its idle timeout may end it earlier.
    pub(crate) fn expires_at(&self, view: &View<'_>) -> Option<Instant> {
        match self {
            Self::Token { hash, .. } => view.token(hash)?.expires_at,
            Self::Session { .. } => None,
            Self::Jwt { expires_at, .. } => Some(*expires_at),
        }
    }

    /// Whether the credential can become invalid without a change-log entry and without a fixed expiry. A stream must
    /// then validate it periodically.
    pub(crate) const fn needs_periodic_check(&self) -> bool {
        matches!(self, Self::Session { .. })
    }

    /// Whether the change affects the credential's user and may therefore change the caller's permissions.
    pub(crate) fn is_affected_by(&self, change: &RecentChange) -> bool {
        let user_id = match self {
            Self::Token { user_id, .. } | Self::Session { user_id, .. } => *user_id,
            Self::Jwt { user_id, .. } => Some(*user_id),
        };
        change.resource_kind == ResourceKind::User && change.user_id == user_id
    }

    /// Returns a 64-bit key that identifies the credential. All JWTs of a user have the same key.
    pub(super) fn fingerprint(&self) -> u64 {
        match self {
            Self::Token { hash, .. } | Self::Session { hash, .. } => {
                u64::from_be_bytes(std::array::from_fn(|index| hash[index]))
            }
            Self::Jwt { user_id, .. } => {
                let (high, low) = user_id.as_u64_pair();
                high ^ low
            }
        }
    }
}
