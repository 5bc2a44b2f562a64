//! What signing in, signing out and changing a password do to the database.

use flags_store::{
    Author, Tx,
    passwords::{self as store_passwords, PasswordHash},
    sessions::{self as store, SessionRecord},
    users::{self, UserRecord},
};
use uuid::Uuid;

use super::Lifetimes;
use crate::{
    clock::micros,
    core::{Command, UnloggedCommand},
    credentials::{
        secret::{Secret, hash},
        throttle::{self, Attempt},
    },
    error::{ResourceKind, Result, ServiceError},
    precondition::Precondition,
    users::claim,
};

#[derive(Clone)]
pub(super) struct OpenSession {
    pub(super) id: Uuid,
    pub(super) user_id: Uuid,
    pub(super) secret: Secret,
    /// The password that was checked: if it was changed since, it no longer opens anything.
    pub(super) password: PasswordHash,
    pub(super) attempt: Attempt,
    pub(super) previous: Option<[u8; 32]>,
    pub(super) lifetimes: Lifetimes,
}

impl UnloggedCommand for OpenSession {
    type Output = SessionRecord;

    async fn apply(&self, tx: &mut Tx) -> Result<SessionRecord> {
        // Nobody can deactivate the user, or change the password, before this session is there to be ended.
        tx.lock_user_shared(self.user_id).await?;
        let active = users::find(tx.conn(), self.user_id).await?.is_some_and(|user| user.active);
        let password = store_passwords::find(tx.conn(), self.user_id).await?;
        if !active || password.as_ref() != Some(&self.password) {
            return Err(ServiceError::SignInRefused);
        }
        self.insert(tx).await
    }
}

impl OpenSession {
    async fn insert(&self, tx: &mut Tx) -> Result<SessionRecord> {
        if let Some(previous) = &self.previous {
            store::delete(tx, previous).await?;
        }
        throttle::succeeded(tx, &self.attempt, self.user_id).await?;
        let now = tx.now();
        let session = SessionRecord {
            id: self.id,
            hash: hash(self.secret.reveal()),
            user_id: self.user_id,
            created_at: now,
            last_seen_at: now,
            ends_at: now.plus_micros(micros(self.lifetimes.absolute)),
        };
        store::insert(tx, &session).await?;
        Ok(session)
    }
}

#[derive(Clone)]
pub(super) struct ChangePassword {
    pub(super) open: OpenSession,
    pub(super) hash: PasswordHash,
}

impl Command for ChangePassword {
    type Output = SessionRecord;

    async fn apply(&self, tx: &mut Tx, _: &Author) -> Result<SessionRecord> {
        let user_id = self.open.user_id;
        tx.lock_user(user_id).await?;
        let user = users::find(tx.conn(), user_id).await?.filter(|user| user.active);
        let user = user.ok_or(ServiceError::NotFound(ResourceKind::User))?;
        if store_passwords::find(tx.conn(), user_id).await?.as_ref() != Some(&self.open.password) {
            return Err(ServiceError::SignInRefused);
        }
        set_password(tx, &user, &self.hash).await?;
        self.open.insert(tx).await
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
pub(super) struct EndAll {
    pub(super) user_id: Uuid,
}

impl UnloggedCommand for EndAll {
    type Output = ();

    async fn apply(&self, tx: &mut Tx) -> Result<()> {
        Ok(store::delete_of_user(tx, self.user_id).await?)
    }
}

#[derive(Clone)]
pub(super) struct SetPassword {
    pub(super) user_id: Uuid,
    pub(super) hash: PasswordHash,
    pub(super) precondition: Precondition,
}

impl Command for SetPassword {
    type Output = UserRecord;

    async fn apply(&self, tx: &mut Tx, _: &Author) -> Result<UserRecord> {
        let user = claim(tx, self.user_id, &self.precondition).await?;
        set_password(tx, &user, &self.hash).await?;
        Ok(user)
    }

    fn stamp(output: &mut Self::Output, revision: i64) {
        output.revision = revision;
    }
}

/// Sets the password of a user that the transaction has claimed, and ends all sessions that the old one opened.
async fn set_password(tx: &mut Tx, user: &UserRecord, hash: &PasswordHash) -> Result<()> {
    store_passwords::set(tx, user, hash).await?;
    Ok(store::delete_of_user(tx, user.id).await?)
}
