//! Creating, changing, listing and deleting users.

use std::collections::HashMap;

use flags_domain::{
    MAX_ATTRIBUTES_BYTES, MAX_ATTRIBUTES_DEPTH, RESERVED_ATTRIBUTES, UserIdNamespace, Violation,
    check_attribute_counts, check_external_id, check_json, check_text,
};
use flags_store::{
    Author, Committed, Page, Tx,
    actor_labels::{self, user_actor},
    api_tokens, change_log, idempotency,
    overrides::{self, OverrideOwner},
    passwords::{self as store_passwords, PasswordHash},
    sessions,
    users::{self, MAX_EMAIL_LENGTH, Role, TakenProperty, UserFilter, UserOrder, UserRecord},
};
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::{
    core::{Command, CommandOutcome, CommandRequest, Core, Progress},
    credentials::{
        check::CommandAuthor,
        passwords::{self, Password},
    },
    error::{Conflict, ResourceKind, Result, ServiceError, check},
    override_deletion::delete_overrides,
    patch::assign,
    precondition::Precondition,
    user_ids::user_id_namespace,
};

/// Properties of a new user.
#[derive(Clone, Debug)]
pub struct NewUser {
    /// E-mail address, unique regardless of case. Users with a password need one.
    pub email: Option<String>,
    /// Id in another system, from which the user's id is derived. Users without an e-mail address need one.
    pub external_id: Option<String>,
    /// Display name.
    pub display_name: Option<String>,
    /// Role, which limits the permissions of the user.
    pub role: Role,
    /// Attributes that targeting rules can evaluate.
    pub attributes: Map<String, Value>,
    /// Inactive users cannot authenticate. OFREP evaluation ignores their stored attributes and overrides.
    pub active: bool,
    /// Initial password. A user without a password cannot sign in.
    pub password: Option<Password>,
}

/// Changes to a user. `None` keeps a field.
#[derive(Clone, Debug, Default)]
pub struct UserPatch {
    /// E-mail address, unique regardless of case; `Some(None)` removes it.
    pub email: Option<Option<String>>,
    /// Id in another system. Can be set once, for a user that has none.
    pub external_id: Option<Option<String>>,
    /// Display name; `Some(None)` removes it.
    pub display_name: Option<Option<String>>,
    /// Role, which limits the permissions of the user.
    pub role: Option<Role>,
    /// Replacement for all attributes.
    pub attributes: Option<Map<String, Value>>,
    /// `false` also ends all sessions of the user.
    pub active: Option<bool>,
}

/// User with the number of overrides.
#[derive(Clone, Debug)]
pub struct UserDetail {
    /// Stored user.
    pub record: UserRecord,
    /// Number of unexpired overrides of flags that are not archived.
    pub override_count: i64,
}

/// Whether deleting a user erases the labels that the audit log shows for the user and the user's
/// tokens: e-mail address or external id, and token names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErasurePolicy {
    /// Keeps the labels, so that the audit log stays readable.
    KeepLabels,
    /// Erases the labels, even if the user was deleted earlier. The change log then identifies the user only by id.
    EraseLabels,
}

/// Creates, changes, lists and deletes users.
#[derive(Clone)]
pub struct UserService {
    core: Core,
}

impl UserService {
    /// Creates a service that executes its commands on `core`.
    pub const fn new(core: Core) -> Self {
        Self { core }
    }

    /// Returns a page of the users that match `filter`. Omits users whose row cannot be read.
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

    /// Returns a user by id, with the number of overrides.
    pub async fn get(&self, id: Uuid) -> Result<UserDetail> {
        let now = self.core.now();
        let found = self.core.read(async |conn| {
            let Some(record) = users::find(conn, id).await? else { return Ok(None) };
            let counts = overrides::count_by_user(conn, &[id], now).await?;
            Ok(Some(detail(record, &counts)))
        });
        found.await?.ok_or(ServiceError::NotFound(ResourceKind::User))
    }

    /// Finds a user by e-mail address, id or external id. A text with an `@` is an e-mail address.
    /// An id has priority over an external id.
    pub async fn find_by_reference(&self, reference: &str) -> Result<Option<UserRecord>> {
        if reference.contains('@') {
            return self.find_by_email(reference).await;
        }
        let derived = user_id_namespace(self.core.store()).await?.user_id(reference);
        let found = self.core.read(async |conn| {
            let known = match Uuid::try_parse(reference) {
                Ok(id) => users::find(conn, id).await?,
                Err(_) => None,
            };
            match known {
                Some(user) => Ok(Some(user)),
                None => match users::find_by_external_id(conn, reference).await? {
                    Some(user) => Ok(Some(user)),
                    None => users::find(conn, derived).await,
                },
            }
        });
        found.await
    }

    /// Finds a user by e-mail address, regardless of case.
    pub async fn find_by_email(&self, email: &str) -> Result<Option<UserRecord>> {
        self.core.read(async |conn| users::find_by_email(conn, email).await).await
    }

    /// Creates a user. The user id is random, or derived from the external id if there is one.
    pub async fn create(
        &self,
        request: impl Into<CommandRequest<UserDetail>>,
        new_user: NewUser,
    ) -> Result<CommandOutcome<UserDetail>> {
        let hash = match new_user.password.clone() {
            None => None,
            Some(password) => {
                let email = new_user.email.as_deref().ok_or_else(passwords::email_required)?;
                check(password.violation("/password", email).into_iter().collect())?;
                Some(passwords::hash(password).await?)
            }
        };
        let id = match &new_user.external_id {
            None => Uuid::now_v7(),
            Some(external_id) => user_id_namespace(self.core.store()).await?.user_id(external_id),
        };
        self.core.execute(request, CreateUser { id, new_user, hash }).await
    }

    /// Applies a patch to a user. Writes nothing if the patch changes no value.
    pub async fn patch(
        &self,
        author: CommandAuthor,
        id: Uuid,
        patch: UserPatch,
        precondition: Precondition,
    ) -> Result<CommandOutcome<UserDetail>> {
        let namespace = match patch.external_id {
            Some(Some(_)) => Some(user_id_namespace(self.core.store()).await?),
            _ => None,
        };
        self.core.execute(author, PatchUser { id, patch, precondition, namespace }).await
    }

    /// Deletes a user with all overrides and API tokens, and records each deletion in the change
    /// log.
    ///
    /// A user with many overrides is first deactivated and then deleted in several revisions.
    pub async fn delete(
        &self,
        author: CommandAuthor,
        id: Uuid,
        precondition: Precondition,
        erasure: ErasurePolicy,
    ) -> Result<Committed> {
        let command = DeleteUser { id, precondition, erasure };
        self.core.execute_until_finished(author, command, DeleteUser::skip_precondition).await
    }
}

fn detail(record: UserRecord, counts: &HashMap<Uuid, i64>) -> UserDetail {
    let override_count = counts.get(&record.id).copied().unwrap_or(0);
    UserDetail { record, override_count }
}

#[derive(Clone)]
struct CreateUser {
    id: Uuid,
    new_user: NewUser,
    hash: Option<PasswordHash>,
}

impl Command for CreateUser {
    type Output = UserDetail;

    async fn apply(&self, tx: &mut Tx, _: &Author) -> Result<UserDetail> {
        let now = tx.now();
        let new_user = self.new_user.clone();
        let user = UserRecord {
            id: self.id,
            email: new_user.email,
            external_id: new_user.external_id,
            display_name: new_user.display_name,
            role: new_user.role,
            attributes: new_user.attributes,
            active: new_user.active,
            created_at: now,
            updated_at: now,
            revision: 0,
        };
        if let Some(taken) = insert_user(tx, &user).await? {
            return Err(taken_conflict(taken).into());
        }
        if let Some(hash) = &self.hash {
            store_passwords::insert(tx, user.id, hash).await?;
        }
        Ok(UserDetail { record: user, override_count: 0 })
    }
}

/// Checks and inserts a user with its label. If another user already has a unique property of the user, inserts nothing
/// and returns that property.
pub(crate) async fn insert_user(tx: &mut Tx, user: &UserRecord) -> Result<Option<TakenProperty>> {
    check(validate(user, None))?;
    let taken = users::insert(tx, user).await?;
    if taken.is_none() {
        actor_labels::set(tx, &user_actor(user.id), user.handle()).await?;
    }
    Ok(taken)
}

#[derive(Clone)]
struct PatchUser {
    id: Uuid,
    patch: UserPatch,
    precondition: Precondition,
    /// Namespace for deriving a user id from the new external id; `None` if the patch sets no
    /// external id.
    namespace: Option<UserIdNamespace>,
}

impl Command for PatchUser {
    type Output = UserDetail;

    async fn apply(&self, tx: &mut Tx, _: &Author) -> Result<UserDetail> {
        let before = lock_user(tx, self.id, &self.precondition).await?;
        let patch = self.patch.clone();
        let mut after = before.clone();
        if let Some(external_id) = &patch.external_id
            && before.external_id.is_some()
            && *external_id != before.external_id
        {
            return Err(Conflict::ExternalIdFixed.into());
        }
        assign(&mut after.email, patch.email);
        assign(&mut after.external_id, patch.external_id);
        assign(&mut after.display_name, patch.display_name);
        assign(&mut after.role, patch.role);
        assign(&mut after.attributes, patch.attributes);
        assign(&mut after.active, patch.active);
        let now = tx.now();
        let counts = overrides::count_by_user(tx.conn(), &[self.id], now).await?;
        if after == before {
            return Ok(detail(before, &counts));
        }
        check(validate(&after, Some(&before)))?;
        if before.email.is_some() && after.email.is_none() && store_passwords::find(tx.conn(), self.id).await?.is_some()
        {
            return Err(passwords::email_required());
        }
        if let (Some(namespace), Some(external_id)) = (self.namespace, &after.external_id) {
            let derived = namespace.user_id(external_id);
            let owner = if derived == self.id { None } else { users::find(tx.conn(), derived).await? };
            if owner.is_some_and(|owner| owner.external_id != after.external_id) {
                return Err(Conflict::IdTaken.into());
            }
        }
        after.updated_at = tx.now();
        if let Some(taken) = users::update(tx, &before, &after).await? {
            return Err(taken_conflict(taken).into());
        }
        actor_labels::set(tx, &user_actor(after.id), after.handle()).await?;
        if !after.active {
            sessions::delete_by_user(tx, self.id).await?;
        }
        if is_active_admin(&before) && !is_active_admin(&after) {
            check_not_last_admin(tx, self.id).await?;
        }
        Ok(detail(after, &counts))
    }
}

#[derive(Clone)]
struct DeleteUser {
    id: Uuid,
    precondition: Precondition,
    erasure: ErasurePolicy,
}

impl DeleteUser {
    /// Removes the precondition after the first batch, because that batch changes the user's
    /// revision.
    fn skip_precondition(&mut self) {
        self.precondition = Precondition::None;
    }
}

impl Command for DeleteUser {
    type Output = Progress;

    async fn apply(&self, tx: &mut Tx, _: &Author) -> Result<Progress> {
        let user = match lock_user(tx, self.id, &self.precondition).await {
            Err(ServiceError::NotFound(_)) if self.erasure == ErasurePolicy::EraseLabels => {
                return if erase_labels(tx, self.id).await? {
                    Ok(Progress::Finished)
                } else {
                    Err(ServiceError::NotFound(ResourceKind::User))
                };
            }
            found => found?,
        };
        if delete_overrides(tx, OverrideOwner::User(self.id)).await? == Progress::Unfinished {
            if user.active {
                let deactivated = UserRecord { active: false, updated_at: tx.now(), ..user.clone() };
                // E-mail address and external id are unchanged, so the update cannot conflict with
                // another user.
                let _ = users::update(tx, &user, &deactivated).await?;
                sessions::delete_by_user(tx, self.id).await?;
                if is_active_admin(&user) {
                    check_not_last_admin(tx, self.id).await?;
                }
            }
            return Ok(Progress::Unfinished);
        }
        api_tokens::delete_by_user(tx, self.id).await?;
        // Deleting the user would delete the sessions as well. This call also records their previous states, which the
        // credential check needs if the caller deletes their own user.
        sessions::delete_by_user(tx, self.id).await?;
        users::delete(tx, &user).await?;
        if self.erasure == ErasurePolicy::EraseLabels {
            erase_labels(tx, self.id).await?;
        }
        if is_active_admin(&user) {
            check_not_last_admin(tx, self.id).await?;
        }
        Ok(Progress::Finished)
    }
}

/// Erases the labels and idempotency keys of a deleted user. Returns `false` if there were no
/// labels.
async fn erase_labels(tx: &mut Tx, id: Uuid) -> Result<bool> {
    let erased_labels = actor_labels::erase(tx, id).await?;
    // The lock on the user prevents other transactions from storing new labels or idempotency keys.
    idempotency::delete_mentioning_user(tx, id).await?;
    users::record_erasure(tx, id);
    Ok(erased_labels > 0)
}

/// Locks a user until the end of the transaction, checks the precondition and returns the user.
pub(crate) async fn lock_user(tx: &mut Tx, id: Uuid, precondition: &Precondition) -> Result<UserRecord> {
    let user = users::lock(tx, id).await?;
    precondition.check(tx, user.as_ref().map(|user| user.revision)).await?;
    user.ok_or(ServiceError::NotFound(ResourceKind::User))
}

fn is_active_admin(user: &UserRecord) -> bool {
    user.active && user.role == Role::Admin
}

/// Fails if no other active admin remains. Locks the head of the change log, so that two admins
/// cannot demote each other concurrently.
///
/// Must be called last in a transaction, because the lock blocks all other changes.
async fn check_not_last_admin(tx: &mut Tx, id: Uuid) -> Result<()> {
    change_log::lock_head(tx).await?;
    if users::has_other_active_admin(tx.conn(), id).await? { Ok(()) } else { Err(Conflict::LastAdmin.into()) }
}

/// Returns the violations of a user. `stored` is the user before an edit. Attribute counts above a
/// limit are accepted if the edit does not increase them.
fn validate(user: &UserRecord, stored: Option<&UserRecord>) -> Vec<Violation> {
    let mut violations = Vec::new();
    if user.email.is_none() && user.external_id.is_none() {
        let detail = "a user needs an e-mail address or an external id";
        violations.push(Violation::new("/email", "email_or_external_id_required", detail));
    }
    if let Some(email) = &user.email {
        violations.extend(check_text("/email", email, MAX_EMAIL_LENGTH));
        if !is_email(email) {
            let detail = "must be an e-mail address such as ann@example.com; use `external_id` for other ids";
            violations.push(Violation::new("/email", "invalid_email", detail));
        }
    }
    violations.extend(user.external_id.as_ref().and_then(|id| check_external_id("/external_id", id)));
    violations.extend(user.display_name.as_ref().and_then(|name| check_text("/display_name", name, 255)));
    // A name that was reserved after the user was stored does not prevent other changes.
    let is_stored = |name: &str| stored.is_some_and(|stored| stored.attributes.contains_key(name));
    let is_new = |name: &str| user.attributes.contains_key(name) && !is_stored(name);
    let reserved = RESERVED_ATTRIBUTES.iter().filter(|name| is_new(name));
    violations.extend(reserved.map(|name| {
        Violation::new(
            format!("/attributes/{name}"),
            "reserved_attribute",
            "attribute name is reserved; choose another name",
        )
    }));
    let attributes = Value::Object(user.attributes.clone());
    violations.extend(check_json("/attributes", &attributes, MAX_ATTRIBUTES_BYTES, MAX_ATTRIBUTES_DEPTH).err());
    let stored = stored.map(|stored| &stored.attributes);
    violations.extend(check_attribute_counts("/attributes", &user.attributes, stored));
    violations
}

const fn taken_conflict(taken: TakenProperty) -> Conflict {
    match taken {
        TakenProperty::Id => Conflict::IdTaken,
        TakenProperty::Email => Conflict::EmailTaken,
        TakenProperty::ExternalId => Conflict::ExternalIdTaken,
    }
}

/// Checks for exactly one `@` with text on both sides and no whitespace. Only an e-mail to the
/// address could prove that it exists.
fn is_email(text: &str) -> bool {
    let parts = text.split_once('@');
    parts.is_some_and(|(local, domain)| !local.is_empty() && !domain.is_empty() && !domain.contains('@'))
        && !text.contains(|c: char| c.is_whitespace() || c.is_control())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn email_needs_one_at_sign_and_no_whitespace() {
        for valid in ["a@b", "Ann.Lee+x@example.com", "ü@ö.de"] {
            assert!(is_email(valid), "{valid}");
        }
        for invalid in ["", "@", "a@", "@b", "a@b@c", "a b@c", "a@b\n"] {
            assert!(!is_email(invalid), "{invalid:?}");
        }
    }
}
