//! Users: whom flags are evaluated for.

use std::collections::HashMap;

use flags_domain::{
    MAX_ATTRIBUTES_BYTES, MAX_ATTRIBUTES_DEPTH, RESERVED_ATTRIBUTES, Violation, check_json, check_text,
};
use flags_store::{
    Author, Committed, Page, StoreError, Tx,
    actor_labels::{self, user_actor},
    api_tokens, idempotency, overrides,
    passwords::{self as store_passwords, PasswordHash},
    sessions,
    users::{self, MAX_EMAIL_LENGTH, Role, UserFilter, UserOrder, UserRecord},
};
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::{
    core::{Command, CommandOutcome, CommandRequest, Core, Progress},
    credentials::passwords::{self, Password},
    error::{Conflict, ResourceKind, Result, ServiceError, check},
    maintenance::BATCH,
    patch::assign,
    precondition::Precondition,
};

/// A new user.
#[derive(Clone, Debug)]
pub struct UserInput {
    /// Unique without regard to case.
    pub email: String,
    /// For people.
    pub display_name: Option<String>,
    /// What they may do.
    pub role: Role,
    /// Their own attributes, for targeting.
    pub attributes: Map<String, Value>,
    /// An inactive user is nobody to the service.
    pub active: bool,
    /// To sign in with; who has none cannot.
    pub password: Option<Password>,
}

/// What is to be different about a user; `None` leaves a field as it is.
#[derive(Clone, Debug, Default)]
pub struct UserPatch {
    /// Unique without regard to case.
    pub email: Option<String>,
    /// `Some(None)` clears it.
    pub display_name: Option<Option<String>>,
    /// What they may do.
    pub role: Option<Role>,
    /// All attributes.
    pub attributes: Option<Map<String, Value>>,
    /// An inactive user is nobody to the service.
    pub active: Option<bool>,
}

/// A user with what readers want to see beside them.
#[derive(Clone, Debug)]
pub struct UserDetail {
    /// The user.
    pub record: UserRecord,
    /// Their unexpired overrides of unarchived flags.
    pub override_count: i64,
}

/// What becomes of what makes a deleted user readable: the labels of theirs and of their tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErasurePolicy {
    /// They stay, so that the log can be read.
    Kept,
    /// They go, also if the user was deleted before. The log stays as it is and names nothing but ids.
    Erased,
}

/// Reads and changes users.
#[derive(Clone)]
pub struct UserService {
    core: Core,
}

impl UserService {
    /// On this core.
    pub const fn new(core: Core) -> Self {
        Self { core }
    }

    /// A page of users.
    pub async fn list(&self, filter: &UserFilter, order: UserOrder, limit: u32) -> Result<Page<UserDetail>> {
        let now = self.core.now();
        self.core
            .read(async |conn| {
                let page = users::list(conn, filter, order, limit).await?;
                let ids: Vec<_> = page.items.iter().map(|user| user.id).collect();
                let counts = overrides::count_by_user(conn, &ids, now).await?;
                Ok(page.map(|record| detail(record, &counts)))
            })
            .await
    }

    /// The user of this id.
    pub async fn get(&self, id: Uuid) -> Result<UserDetail> {
        let now = self.core.now();
        let found = self.core.read(async |conn| {
            let Some(record) = users::find(conn, id).await? else { return Ok(None) };
            let counts = overrides::count_by_user(conn, &[id], now).await?;
            Ok(Some(detail(record, &counts)))
        });
        found.await?.ok_or(ServiceError::NotFound(ResourceKind::User))
    }

    /// The user of this e-mail, in whatever case.
    pub async fn find_by_email(&self, email: &str) -> Result<Option<UserRecord>> {
        self.core.read(async |conn| users::find_by_email(conn, email).await).await
    }

    /// Creates a user.
    pub async fn create(
        &self,
        intent: impl Into<CommandRequest<UserDetail>>,
        input: UserInput,
    ) -> Result<CommandOutcome<UserDetail>> {
        let hash = match input.password.clone() {
            None => None,
            Some(password) => {
                check(password.violation("/password", &input.email).into_iter().collect())?;
                Some(passwords::hash(password).await?)
            }
        };
        self.core.execute(intent, CreateUser { id: Uuid::now_v7(), input, hash }).await
    }

    /// Changes the named fields of a user.
    pub async fn patch(
        &self,
        author: Author,
        id: Uuid,
        patch: UserPatch,
        precondition: Precondition,
    ) -> Result<CommandOutcome<UserDetail>> {
        self.core.execute(author, PatchUser { id, patch, precondition }).await
    }

    /// Deletes a user with their overrides and tokens, each recorded. Very many overrides go in several revisions, while
    /// the user is inactive already.
    pub async fn delete(
        &self,
        author: Author,
        id: Uuid,
        precondition: Precondition,
        labels: ErasurePolicy,
    ) -> Result<Committed> {
        let next = |command: &mut DeleteUser| command.precondition = Precondition::None;
        self.core.execute_until_finished(author, DeleteUser { id, precondition, labels }, next).await
    }
}

fn detail(record: UserRecord, counts: &HashMap<Uuid, i64>) -> UserDetail {
    let override_count = counts.get(&record.id).copied().unwrap_or(0);
    UserDetail { record, override_count }
}

#[derive(Clone)]
struct CreateUser {
    id: Uuid,
    input: UserInput,
    hash: Option<PasswordHash>,
}

impl Command for CreateUser {
    type Output = UserDetail;

    async fn apply(&self, tx: &mut Tx, _: &Author) -> Result<UserDetail> {
        let now = tx.now();
        let input = self.input.clone();
        let user = UserRecord {
            id: self.id,
            email: input.email,
            display_name: input.display_name,
            role: input.role,
            attributes: input.attributes,
            active: input.active,
            created_at: now,
            updated_at: now,
            revision: 0,
        };
        check(violations(&user))?;
        if !users::insert(tx, &user).await? {
            return Err(Conflict::EmailTaken.into());
        }
        actor_labels::set(tx, &user_actor(user.id), &user.email).await?;
        if let Some(hash) = &self.hash {
            store_passwords::insert(tx, user.id, hash).await?;
        }
        Ok(UserDetail { record: user, override_count: 0 })
    }

    fn stamp(output: &mut Self::Output, revision: i64) {
        output.record.revision = revision;
    }
}

#[derive(Clone)]
struct PatchUser {
    id: Uuid,
    patch: UserPatch,
    precondition: Precondition,
}

impl Command for PatchUser {
    type Output = UserDetail;

    async fn apply(&self, tx: &mut Tx, _: &Author) -> Result<UserDetail> {
        let before = claim(tx, self.id, &self.precondition).await?;
        let patch = self.patch.clone();
        let mut after = before.clone();
        assign(&mut after.email, patch.email);
        assign(&mut after.display_name, patch.display_name);
        assign(&mut after.role, patch.role);
        assign(&mut after.attributes, patch.attributes);
        assign(&mut after.active, patch.active);
        let now = tx.now();
        let counts = overrides::count_by_user(tx.conn(), &[self.id], now).await?;
        if after == before {
            return Ok(detail(before, &counts));
        }
        check(violations(&after))?;
        after.updated_at = tx.now();
        users::update(tx, &before, &after).await.map_err(|error| match error {
            StoreError::Duplicate(_) => Conflict::EmailTaken.into(),
            other => ServiceError::Store(other),
        })?;
        actor_labels::set(tx, &user_actor(after.id), &after.email).await?;
        if !after.active {
            sessions::delete_of_user(tx, self.id).await?;
        }
        if is_active_admin(&before) && !is_active_admin(&after) {
            check_not_last_admin(tx, self.id).await?;
        }
        Ok(detail(after, &counts))
    }

    fn stamp(output: &mut Self::Output, revision: i64) {
        output.record.revision = revision;
    }
}

#[derive(Clone)]
struct DeleteUser {
    id: Uuid,
    precondition: Precondition,
    labels: ErasurePolicy,
}

impl Command for DeleteUser {
    type Output = Progress;

    async fn apply(&self, tx: &mut Tx, _: &Author) -> Result<Progress> {
        let user = match claim(tx, self.id, &self.precondition).await {
            Err(ServiceError::NotFound(_)) if self.labels == ErasurePolicy::Erased => {
                return if erase(tx, self.id).await? {
                    Ok(Progress::Finished)
                } else {
                    Err(ServiceError::NotFound(ResourceKind::User))
                };
            }
            claimed => claimed?,
        };
        let batch = overrides::claim_some(tx, overrides::OverrideOwner::User(self.id), BATCH).await?;
        for gone in &batch {
            overrides::delete(tx, &gone.user_override).await?;
        }
        if i64::try_from(batch.len()).is_ok_and(|count| count == BATCH) {
            if user.active {
                let inactive = UserRecord { active: false, updated_at: tx.now(), ..user.clone() };
                users::update(tx, &user, &inactive).await?;
                sessions::delete_of_user(tx, self.id).await?;
                if is_active_admin(&user) {
                    check_not_last_admin(tx, self.id).await?;
                }
            }
            return Ok(Progress::More);
        }
        for token in api_tokens::of_user(tx.conn(), self.id).await? {
            api_tokens::delete(tx, &token).await?;
        }
        users::delete(tx, &user).await?;
        if self.labels == ErasurePolicy::Erased {
            erase(tx, self.id).await?;
        }
        if is_active_admin(&user) {
            check_not_last_admin(tx, self.id).await?;
        }
        Ok(Progress::Finished)
    }
}

/// Removes what makes a deleted user readable beside the log; `false` if no label was left.
async fn erase(tx: &mut Tx, id: Uuid) -> Result<bool> {
    let labels = actor_labels::erase(tx, id).await?;
    // Only now that nobody can be about to keep one: whoever makes something of the user's shares their row.
    idempotency::forget_user(tx, id).await?;
    users::record_erasure(tx, id);
    Ok(labels > 0)
}

/// The user, held to the end of the transaction.
pub(crate) async fn claim(tx: &mut Tx, id: Uuid, precondition: &Precondition) -> Result<UserRecord> {
    tx.lock_user(id).await?;
    let user = users::find(tx.conn(), id).await?;
    precondition.check(tx, user.as_ref().map(|user| user.revision)).await?;
    user.ok_or(ServiceError::NotFound(ResourceKind::User))
}

fn is_active_admin(user: &UserRecord) -> bool {
    user.active && user.role == Role::Admin
}

/// Under the lock of the log's head, so that of two who demote each other one comes second and is refused. The last lock
/// to take: whoever holds it keeps all other changes waiting.
async fn check_not_last_admin(tx: &mut Tx, id: Uuid) -> Result<()> {
    tx.lock_change_log_head().await?;
    if users::another_active_admin(tx.conn(), id).await? { Ok(()) } else { Err(Conflict::LastAdmin.into()) }
}

fn violations(user: &UserRecord) -> Vec<Violation> {
    let mut found = Vec::new();
    found.extend(check_text("/email", &user.email, MAX_EMAIL_LENGTH));
    if !is_email(&user.email) {
        found.push(Violation::new("/email", "invalid_email", "must be an e-mail address such as ann@example.com"));
    }
    found.extend(user.display_name.as_ref().and_then(|name| check_text("/display_name", name, 255)));
    let reserved = RESERVED_ATTRIBUTES.iter().filter(|name| user.attributes.contains_key(**name));
    found.extend(reserved.map(|name| {
        Violation::new(format!("/attributes/{name}"), "reserved_attribute", "this attribute is the service's own")
    }));
    let attributes = Value::Object(user.attributes.clone());
    found.extend(check_json("/attributes", &attributes, MAX_ATTRIBUTES_BYTES, MAX_ATTRIBUTES_DEPTH).err());
    found
}

/// Something on both sides of exactly one `@`, and no blanks: whether mail arrives there only sending tells.
fn is_email(text: &str) -> bool {
    let parts = text.split_once('@');
    let blank = |c: char| c.is_whitespace() || c.is_control();
    parts.is_some_and(|(local, domain)| !local.is_empty() && !domain.is_empty() && !domain.contains('@'))
        && !text.contains(blank)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_email_has_two_sides_and_no_blanks() {
        for good in ["a@b", "Ann.Lee+x@example.com", "ü@ö.de"] {
            assert!(is_email(good), "{good}");
        }
        for bad in ["", "@", "a@", "@b", "a@b@c", "a b@c", "a@b\n"] {
            assert!(!is_email(bad), "{bad:?}");
        }
    }
}
