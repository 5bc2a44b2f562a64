//! Who calls.

use std::sync::Arc;

use flags_domain::Instant;
use flags_service::{
    credentials::tokens,
    replica::{KnownUser, RecentChange, View},
    users,
};
use flags_store::{credentials::Grant, log::Entity, sessions::SessionRecord, users::Role};

use uuid::Uuid;

use crate::{app::App, problem::Problem};

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
    /// The session, if they are signed in.
    pub(crate) session: Option<SessionRecord>,
    /// When the credential ends at the latest.
    pub(crate) expires_at: Option<Instant>,
}

/// What a caller showed, in a form that is no secret: for looking again whether it is still valid.
#[derive(Clone, Copy)]
pub(crate) enum Credential {
    /// An API token.
    Token {
        /// Its SHA-256.
        hash: [u8; 32],
        /// Whom it acts as, once that is known.
        user_id: Option<Uuid>,
    },
    /// The cookie of somebody who is signed in.
    Session {
        /// Its SHA-256.
        hash: [u8; 32],
        /// Who is signed in, once that is known.
        user_id: Option<Uuid>,
    },
}

impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Credential(…)")
    }
}

impl Credential {
    /// A number that differs from credential to credential.
    pub(crate) fn key(&self) -> u64 {
        let (Self::Token { hash, .. } | Self::Session { hash, .. }) = self;
        u64::from_be_bytes(std::array::from_fn(|place| hash[place]))
    }

    const fn user_id(&self) -> Option<Uuid> {
        let (Self::Token { user_id, .. } | Self::Session { user_id, .. }) = self;
        *user_id
    }

    /// Whether a change concerns what its bearer may do.
    pub(crate) fn is_touched_by(&self, change: &RecentChange) -> bool {
        change.entity == Entity::User && change.user_id == self.user_id()
    }

    /// Whether it is valid in this view, as far as that can be told without a look at its user or, for a session, at the
    /// database.
    pub(crate) fn is_live(&self, view: &View<'_>, now: Instant) -> bool {
        match self {
            Self::Token { hash, .. } => view.token(hash).is_some_and(|token| token.is_live(now)),
            Self::Session { .. } => true,
        }
    }

    /// Whether it can end without a change of the log or an instant that says so: then it must be looked at every second.
    pub(crate) const fn ends_silently(&self) -> bool {
        matches!(self, Self::Session { .. })
    }
}

/// What a credential says of its bearer.
struct Bearer {
    /// Its own name in the log, for one that acts as no user.
    actor: String,
    grant: Grant,
    user_id: Option<Uuid>,
    session: Option<SessionRecord>,
    expires_at: Option<Instant>,
}

impl Principal {
    /// The caller who showed this credential, looked up live. `used` says that this is a use of it.
    pub(crate) async fn of(app: &App, credential: Credential, used: bool) -> Result<Self, Problem> {
        let now = app.evaluation.now();
        let bearer = match credential {
            Credential::Token { hash, .. } => bearer_of_token(app, &hash, now, used),
            Credential::Session { hash, .. } => bearer_of_session(app, &hash, used).await?,
        };
        let bearer = bearer.ok_or_else(Problem::unauthorized)?;
        let user = match bearer.user_id {
            None => None,
            Some(id) => {
                let user = app.evaluation.user(id).await?.filter(|user| user.active);
                Some(user.ok_or_else(Problem::unauthorized)?)
            }
        };
        let role = match bearer.grant {
            Grant::Evaluate => None,
            Grant::Role(role) => Some(user.as_ref().map_or(role, |user| role.lower(user.role))),
        };
        let user_id = bearer.user_id;
        let credential = match credential {
            Credential::Token { hash, .. } => Credential::Token { hash, user_id },
            Credential::Session { hash, .. } => Credential::Session { hash, user_id },
        };
        let actor = user.as_ref().map_or(bearer.actor, |user| users::actor_of(user.id));
        Ok(Self { actor, role, user, credential, session: bearer.session, expires_at: bearer.expires_at })
    }
}

fn bearer_of_token(app: &App, hash: &[u8; 32], now: Instant, used: bool) -> Option<Bearer> {
    let view = app.evaluation.replica().read();
    let token = view.token(hash).filter(|token| token.is_live(now))?;
    if used {
        view.note_token_use(hash, now);
    }
    Some(Bearer {
        actor: tokens::actor_of(token.id),
        grant: token.grant,
        user_id: token.user_id,
        session: None,
        expires_at: token.expires_at,
    })
}

/// A session is as much as its user.
async fn bearer_of_session(app: &App, hash: &[u8; 32], used: bool) -> Result<Option<Bearer>, Problem> {
    let session = app.sessions.find(hash, used).await?;
    Ok(session.map(|session| Bearer {
        actor: users::actor_of(session.user_id),
        grant: Grant::Role(Role::Admin),
        user_id: Some(session.user_id),
        session: Some(session),
        expires_at: Some(session.ends_at),
    }))
}
