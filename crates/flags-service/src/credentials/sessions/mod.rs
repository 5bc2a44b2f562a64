//! Sign-in sessions.
//!
//! Sessions are stored in the database. Each server caches the sessions in use for one second, and longer while the
//! database is unavailable. A session that ends on one server is therefore rejected by all servers within two seconds.

mod cache;
mod commands;

use std::{fmt, sync::Arc, time::Duration};

use flags_store::{
    passwords::{self as store_passwords, PasswordAccount},
    sessions::SessionRecord,
    users::{self, UserRecord},
};
use uuid::Uuid;

use self::{
    cache::SessionCache,
    commands::{ChangePassword, EndAllSessions, EndSession, OpenSession, SetPassword},
};
use super::{
    check::{CommandAuthor, CredentialCheck},
    passwords::{self, Password},
    secret::{Secret, SecretKind},
    throttle::{ReserveSignInAttempt, SignInAttempt},
};
use crate::{
    core::{CommandOutcome, Core},
    error::{ResourceKind, Result, ServiceError, check},
    precondition::Precondition,
};

/// Upper limit of the idle timeout and of the session lifetime. The maintenance worker removes
/// sessions that were not used for this time.
pub const MAX_LIFETIME: Duration = Duration::from_secs(90 * 24 * 3_600);

/// Session lifetimes.
#[derive(Clone, Copy, Debug)]
pub struct SessionLifetimes {
    /// Idle timeout: a session ends after this time without use. The default is 8 hours.
    pub idle: Duration,
    /// Maximum session lifetime, regardless of use. The default is 7 days.
    pub absolute: Duration,
}

impl Default for SessionLifetimes {
    fn default() -> Self {
        Self { idle: Duration::from_secs(8 * 3_600), absolute: Duration::from_secs(7 * 24 * 3_600) }
    }
}

/// Attempt to sign in with a password.
#[derive(Clone, Debug)]
pub struct PasswordSignIn {
    /// E-mail address, case-insensitive.
    pub email: String,
    /// Password to verify.
    pub password: Password,
    /// Network of the client for throttling: an IPv4 address or an IPv6 /64 prefix.
    pub address: String,
    /// SHA-256 of the secret of the session that the new session replaces.
    pub previous: Option<[u8; 32]>,
}

/// Newly opened session.
#[derive(Clone, Debug)]
pub struct OpenedSession {
    /// Value for the session cookie.
    pub secret: Secret,
    /// Stored part of the session.
    pub session: SessionRecord,
}

/// Opens, finds and ends sessions, and changes passwords.
#[derive(Clone)]
pub struct SessionService {
    core: Core,
    lifetimes: SessionLifetimes,
    cache: Arc<SessionCache>,
}

impl fmt::Debug for SessionService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionService").field("lifetimes", &self.lifetimes).finish_non_exhaustive()
    }
}

impl SessionService {
    /// Creates the service with an empty session cache.
    pub fn new(core: Core, lifetimes: SessionLifetimes) -> Self {
        Self { cache: Arc::new(SessionCache::new(core.clone(), lifetimes.idle)), core, lifetimes }
    }

    /// Configured session lifetimes.
    pub const fn lifetimes(&self) -> SessionLifetimes {
        self.lifetimes
    }

    /// Opens a session with a new secret.
    ///
    /// The response time does not depend on whether the account exists.
    ///
    /// # Errors
    ///
    /// [`ServiceError::InvalidCredentials`] for an unknown account, a wrong password or an inactive user;
    /// [`ServiceError::TooManyAttempts`] during the delay after failed attempts.
    pub async fn sign_in(&self, sign_in: PasswordSignIn) -> Result<OpenedSession> {
        let attempt = SignInAttempt::new(&sign_in.email, &sign_in.address);
        self.core.execute_unlogged(CredentialCheck::NotRequired, ReserveSignInAttempt(attempt.clone())).await?;
        let account = self.core.read(async |conn| store_passwords::find_account(conn, &sign_in.email).await).await?;
        let expected = account.as_ref().map(|account| account.hash.clone());
        let password_matches = passwords::verify(sign_in.password, expected).await?;
        let Some(account) = account.filter(|account| password_matches && account.active) else {
            return Err(ServiceError::InvalidCredentials);
        };
        let command = self.open_session_command(&account, attempt, sign_in.previous)?;
        let (secret, previous) = (command.secret.clone(), command.previous);
        let session = self.core.execute_unlogged(CredentialCheck::NotRequired, command).await?;
        if let Some(previous) = previous {
            self.cache.remove(&previous);
        }
        Ok(OpenedSession { secret, session })
    }

    fn open_session_command(
        &self,
        account: &PasswordAccount,
        attempt: SignInAttempt,
        previous: Option<[u8; 32]>,
    ) -> Result<OpenSession> {
        let secret = Secret::generate(SecretKind::Session)?;
        let verified_hash = account.hash.clone();
        Ok(OpenSession {
            id: Uuid::now_v7(),
            user_id: account.user_id,
            secret,
            verified_hash,
            attempt,
            previous,
            lifetimes: self.lifetimes,
        })
    }

    /// Returns the session whose secret has this SHA-256, unless it has ended. If `counts_as_use` is `true`, the lookup
    /// restarts the idle timeout.
    ///
    /// While the database is unavailable, the cached state of a session remains valid.
    pub async fn find(&self, hash: &[u8; 32], counts_as_use: bool) -> Result<Option<SessionRecord>> {
        self.cache.find(hash, counts_as_use).await
    }

    /// Returns whether the session whose secret has this SHA-256 is cached. [`Self::find`] rarely queries the database
    /// for a cached session.
    pub fn is_cached(&self, hash: &[u8; 32]) -> bool {
        self.cache.contains(hash)
    }

    /// Ends a session.
    pub async fn sign_out(&self, author: &CommandAuthor, session: &SessionRecord) -> Result<()> {
        self.core.execute_unlogged(*author.check(), EndSession { hash: session.hash }).await?;
        self.cache.remove(&session.hash);
        Ok(())
    }

    /// Ends all sessions of a user.
    pub async fn sign_out_everywhere(&self, author: &CommandAuthor, user_id: Uuid) -> Result<()> {
        self.core.execute_unlogged(*author.check(), EndAllSessions { user_id }).await?;
        self.cache.remove_user(user_id);
        Ok(())
    }

    /// Sets a user's password without checking the current one. Ends all sessions of the user.
    pub async fn set_password(
        &self,
        author: CommandAuthor,
        user_id: Uuid,
        password: Password,
        precondition: Precondition,
    ) -> Result<CommandOutcome<()>> {
        let user = self.find_user(user_id).await?;
        let email = user.email.as_deref().ok_or_else(passwords::email_required)?;
        check(password.violation("/password", email).into_iter().collect())?;
        let new_hash = passwords::hash(password).await?;
        let outcome = self.core.execute(author, SetPassword { user_id, new_hash, precondition }).await?;
        self.cache.remove_user(user_id);
        Ok(outcome)
    }

    async fn find_user(&self, id: Uuid) -> Result<UserRecord> {
        let user = self.core.read(async |conn| users::find(conn, id).await).await?;
        user.ok_or(ServiceError::NotFound(ResourceKind::User))
    }

    /// Changes the password of the session's user after verifying the current password. Ends all sessions of the user
    /// and opens a new one.
    ///
    /// # Errors
    ///
    /// [`ServiceError::InvalidCredentials`] if the current password is wrong.
    pub async fn change_password(
        &self,
        author: CommandAuthor,
        session: &SessionRecord,
        address: &str,
        change: PasswordChange,
    ) -> Result<CommandOutcome<OpenedSession>> {
        let user = self.find_user(session.user_id).await?;
        let email = user.email.as_deref().ok_or_else(passwords::email_required)?;
        check(change.new.violation("/new_password", email).into_iter().collect())?;
        let attempt = SignInAttempt::new(email, address);
        self.core.execute_unlogged(*author.check(), ReserveSignInAttempt(attempt.clone())).await?;
        let current_hash = self.core.read(async |conn| store_passwords::find(conn, user.id).await).await?;
        if !passwords::verify(change.current, current_hash.clone()).await? {
            return Err(ServiceError::InvalidCredentials);
        }
        let Some(current_hash) = current_hash else { return Err(ServiceError::InvalidCredentials) };
        let new_hash = passwords::hash(change.new).await?;
        let account = PasswordAccount { user_id: user.id, active: true, hash: current_hash };
        let open_session = self.open_session_command(&account, attempt, None)?;
        let secret = open_session.secret.clone();
        let outcome = self.core.execute(author, ChangePassword { open_session, new_hash }).await?;
        self.cache.remove_user(user.id);
        let opened = OpenedSession { secret, session: outcome.output };
        Ok(CommandOutcome { output: opened, committed: outcome.committed })
    }
}

/// Current and new password.
#[derive(Clone, Debug)]
pub struct PasswordChange {
    /// Current password, which the service verifies.
    pub current: Password,
    /// New password.
    pub new: Password,
}
