//! Sessions: who is signed in. How somebody signed in does not matter to what a session is.
//!
//! A session lives in the database; each server remembers for a second what it read of those in use, and for as long as the
//! database is out of reach. So one that is ended anywhere is void everywhere within two seconds.

mod commands;
mod known;

use std::{fmt, sync::Arc, time::Duration};

use flags_store::{
    Author,
    passwords::{self as store_passwords, Account},
    sessions::SessionRecord,
    users::{self, UserRecord},
};
use uuid::Uuid;

use self::{
    commands::{ChangePassword, EndAll, EndSession, OpenSession, SetPassword},
    known::KnownSessions,
};
use super::{
    passwords::{self, Password},
    secret::{Secret, SecretKind},
    throttle::{Attempt, ReserveAttempt},
};
use crate::{
    core::{CommandOutcome, Core},
    error::{ResourceKind, Result, ServiceError, check},
    precondition::Precondition,
};

/// Longest that a session can live, unused or altogether. Whoever tidies up leaves younger ones alone.
pub const MAX_LIFETIME: Duration = Duration::from_secs(90 * 24 * 3_600);

/// How long sessions live.
#[derive(Clone, Copy, Debug)]
pub struct Lifetimes {
    /// Without being used.
    pub idle: Duration,
    /// However much they are used.
    pub absolute: Duration,
}

impl Default for Lifetimes {
    fn default() -> Self {
        Self { idle: Duration::from_secs(8 * 3_600), absolute: Duration::from_secs(7 * 24 * 3_600) }
    }
}

/// Somebody who wants to sign in with a password.
#[derive(Clone, Debug)]
pub struct SignIn {
    /// In whatever case.
    pub email: String,
    /// As typed.
    pub password: Password,
    /// Where the attempt comes from.
    pub address: String,
    /// The session that the new one takes the place of, by its SHA-256.
    pub previous: Option<[u8; 32]>,
}

/// A session that has just begun.
#[derive(Clone, Debug)]
pub struct SignedIn {
    /// For the cookie.
    pub secret: Secret,
    /// The session.
    pub session: SessionRecord,
}

/// Signs people in and out, and knows who is signed in.
#[derive(Clone)]
pub struct SessionService {
    core: Core,
    lifetimes: Lifetimes,
    known: Arc<KnownSessions>,
}

impl fmt::Debug for SessionService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionService").field("lifetimes", &self.lifetimes).finish_non_exhaustive()
    }
}

impl SessionService {
    /// On this core.
    pub fn new(core: Core, lifetimes: Lifetimes) -> Self {
        Self { known: Arc::new(KnownSessions::new(core.clone(), lifetimes.idle)), core, lifetimes }
    }

    /// How long sessions live.
    pub const fn lifetimes(&self) -> Lifetimes {
        self.lifetimes
    }

    /// Signs somebody in: a new session, under a new secret. Takes the same time whether or not there is such an account.
    pub async fn sign_in(&self, wanted: SignIn) -> Result<SignedIn> {
        let attempt = Attempt::new(&wanted.email, &wanted.address);
        self.core.execute_unlogged(ReserveAttempt(attempt.clone())).await?;
        let account = self.core.read(async |conn| store_passwords::account(conn, &wanted.email).await).await?;
        let expected = account.as_ref().map(|account| account.hash.clone());
        let fits = passwords::verify(wanted.password, expected).await?;
        let Some(account) = account.filter(|account| fits && account.active) else {
            return Err(ServiceError::SignInRefused);
        };
        let open = self.open(&account, attempt, wanted.previous)?;
        let (secret, previous) = (open.secret.clone(), open.previous);
        let session = self.core.execute_unlogged(open).await?;
        if let Some(previous) = previous {
            self.known.remove(&previous);
        }
        Ok(SignedIn { secret, session })
    }

    fn open(&self, account: &Account, attempt: Attempt, previous: Option<[u8; 32]>) -> Result<OpenSession> {
        let secret = Secret::generate(SecretKind::Session)?;
        let password = account.hash.clone();
        Ok(OpenSession {
            id: Uuid::now_v7(),
            user_id: account.user_id,
            secret,
            password,
            attempt,
            previous,
            lifetimes: self.lifetimes,
        })
    }

    /// The session whose secret has this SHA-256, if it is alive. `used` says whether this is a use of it. While the database
    /// is out of reach a known session stays what it was.
    pub async fn find(&self, hash: &[u8; 32], used: bool) -> Result<Option<SessionRecord>> {
        self.known.find(hash, used).await
    }

    /// Whether the session whose secret has this SHA-256 was found lately, so that a look at it costs the database little.
    pub fn remembers(&self, hash: &[u8; 32]) -> bool {
        self.known.remembers(hash)
    }

    /// Ends a session.
    pub async fn sign_out(&self, session: &SessionRecord) -> Result<()> {
        self.core.execute_unlogged(EndSession { hash: session.hash }).await?;
        self.known.remove(&session.hash);
        Ok(())
    }

    /// Ends all sessions of a user.
    pub async fn sign_out_everywhere(&self, user_id: Uuid) -> Result<()> {
        self.core.execute_unlogged(EndAll { user_id }).await?;
        self.known.forget(user_id);
        Ok(())
    }

    /// Sets a user's password, whatever it was; all their sessions end.
    pub async fn set_password(
        &self,
        author: Author,
        user_id: Uuid,
        password: Password,
        precondition: Precondition,
    ) -> Result<CommandOutcome<UserRecord>> {
        let user = self.user(user_id).await?;
        check(password.violation("/password", &user.email).into_iter().collect())?;
        let hash = passwords::hash(password).await?;
        let done = self.core.execute(author, SetPassword { user_id, hash, precondition }).await?;
        self.known.forget(user_id);
        Ok(done)
    }

    async fn user(&self, id: Uuid) -> Result<UserRecord> {
        let user = self.core.read(async |conn| users::find(conn, id).await).await?;
        user.ok_or(ServiceError::NotFound(ResourceKind::User))
    }

    /// Changes the password of whoever is signed in, if they know the present one. All their sessions end; a new one begins.
    pub async fn change_password(
        &self,
        author: Author,
        session: &SessionRecord,
        address: &str,
        passwords: NewPassword,
    ) -> Result<CommandOutcome<SignedIn>> {
        let user = self.user(session.user_id).await?;
        check(passwords.new.violation("/new_password", &user.email).into_iter().collect())?;
        let attempt = Attempt::new(&user.email, address);
        self.core.execute_unlogged(ReserveAttempt(attempt.clone())).await?;
        let present = self.core.read(async |conn| store_passwords::find(conn, user.id).await).await?;
        if !passwords::verify(passwords.present, present.clone()).await? {
            return Err(ServiceError::SignInRefused);
        }
        let Some(present) = present else { return Err(ServiceError::SignInRefused) };
        let hash = passwords::hash(passwords.new).await?;
        let account = Account { user_id: user.id, active: true, hash: present };
        let open = self.open(&account, attempt, None)?;
        let secret = open.secret.clone();
        let done = self.core.execute(author, ChangePassword { open, hash }).await?;
        self.known.forget(user.id);
        let signed_in = SignedIn { secret, session: done.output };
        Ok(CommandOutcome { output: signed_in, committed: done.committed })
    }
}

/// What somebody types to change their password.
#[derive(Clone, Debug)]
pub struct NewPassword {
    /// The one they have.
    pub present: Password,
    /// The one they want.
    pub new: Password,
}
