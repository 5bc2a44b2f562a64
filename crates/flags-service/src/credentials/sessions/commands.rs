//! Database commands for signing in, signing out and changing passwords.

use flags_store::{
    Author, StoreError, Tx,
    passwords::{self as store_passwords, PasswordHash},
    sessions::{self as store, SessionRecord},
    users::{self, UserRecord},
};
use uuid::Uuid;

use super::SessionLifetimes;
use crate::{
    clock::micros,
    core::{Command, UnloggedCommand},
    credentials::{
        secret::{Secret, hash},
        throttle::{self, SignInAttempt},
    },
    error::{ResourceKind, Result, ServiceError},
    precondition::Precondition,
    users::lock_user,
};

#[derive(Clone)]
pub(super) struct OpenSession {
    pub(super) id: Uuid,
    pub(super) user_id: Uuid,
    pub(super) secret: Secret,
    /// Hash that the entered password was verified against. The command fails if the password has changed since.
    pub(super) verified_hash: PasswordHash,
    pub(super) attempt: SignInAttempt,
    pub(super) previous: Option<[u8; 32]>,
    pub(super) lifetimes: SessionLifetimes,
}

impl UnloggedCommand for OpenSession {
    type Output = SessionRecord;

    async fn apply(&self, tx: &mut Tx) -> Result<SessionRecord> {
        // The lock makes a concurrent deactivation or password change wait, so that it deletes this
        // session too. A user whose row cannot be read cannot sign in.
        let user = match users::lock_shared(tx, self.user_id).await {
            Err(StoreError::Corrupt(_)) => None,
            found => found?,
        };
        let is_active = user.is_some_and(|user| user.active);
        let current_hash = store_passwords::find(tx.conn(), self.user_id).await?;
        if !is_active || current_hash.as_ref() != Some(&self.verified_hash) {
            return Err(ServiceError::InvalidCredentials);
        }
        self.insert(tx).await
    }
}

impl OpenSession {
    async fn insert(&self, tx: &mut Tx) -> Result<SessionRecord> {
        if let Some(previous) = &self.previous {
            store::delete(tx, previous).await?;
        }
        throttle::record_success(tx, &self.attempt, self.user_id).await?;
        let now = tx.now();
        let session = SessionRecord {
            id: self.id,
            hash: hash(self.secret.reveal()),
            user_id: self.user_id,
            created_at: now,
            last_seen_at: now,
            expires_at: now.plus_micros(micros(self.lifetimes.absolute)),
        };
        store::insert(tx, &session).await?;
        Ok(session)
    }
}

#[derive(Clone)]
pub(super) struct ChangePassword {
    pub(super) open_session: OpenSession,
    pub(super) new_hash: PasswordHash,
}

impl Command for ChangePassword {
    type Output = SessionRecord;

    async fn apply(&self, tx: &mut Tx, _: &Author) -> Result<SessionRecord> {
        let user_id = self.open_session.user_id;
        let user = users::lock(tx, user_id).await?.filter(|user| user.active);
        let user = user.ok_or(ServiceError::NotFound(ResourceKind::User))?;
        if store_passwords::find(tx.conn(), user_id).await?.as_ref() != Some(&self.open_session.verified_hash) {
            return Err(ServiceError::InvalidCredentials);
        }
        set_password(tx, &user, &self.new_hash).await?;
        self.open_session.insert(tx).await
    }
}

#[derive(Clone)]
pub(super) struct EndSession {
    pub(super) hash: [u8; 32],
}

impl UnloggedCommand for EndSession {
    type Output = ();

    async fn apply(&self, tx: &mut Tx) -> Result<()> {
        Ok(store::delete(tx, &self.hash).await?)
    }
}

#[derive(Clone)]
pub(super) struct EndAllSessions {
    pub(super) user_id: Uuid,
}

impl UnloggedCommand for EndAllSessions {
    type Output = ();

    async fn apply(&self, tx: &mut Tx) -> Result<()> {
        Ok(store::delete_by_user(tx, self.user_id).await?)
    }
}

#[derive(Clone)]
pub(super) struct SetPassword {
    pub(super) user_id: Uuid,
    pub(super) new_hash: PasswordHash,
    pub(super) precondition: Precondition,
}

impl Command for SetPassword {
    type Output = ();

    async fn apply(&self, tx: &mut Tx, _: &Author) -> Result<()> {
        let user = lock_user(tx, self.user_id, &self.precondition).await?;
        set_password(tx, &user, &self.new_hash).await
    }
}

/// Sets the password of a user and deletes all sessions of the user. The transaction must hold the lock on the user.
async fn set_password(tx: &mut Tx, user: &UserRecord, hash: &PasswordHash) -> Result<()> {
    store_passwords::set(tx, user, hash).await?;
    Ok(store::delete_by_user(tx, user.id).await?)
}
