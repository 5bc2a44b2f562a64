//! Queries for users (`users`).
//!
//! Change-log entries of users contain no personal data: only the names of the changed fields, the role, and whether
//! the user is active.

pub(crate) mod email_keys;
mod external_ids;
mod handles;
mod identity;
mod list;
mod search;

use diesel::{
    AsChangeset, ExpressionMethods, Insertable, OptionalExtension, QueryDsl, Queryable, Selectable, dsl::exists,
};
use diesel_async::RunQueryDsl;
pub use flags_domain::Role;
use flags_domain::{Action, Instant, ResourceKind};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::{
    backend::row_lock::{Locked, RowLock},
    change_log::ChangeLogEntry,
    conn::{Conn, dispatch},
    decoded::{Decoded, RowKey, columns, readable},
    error::{Result, StoreError},
    principal_state::UserState,
    schema::users,
    sql_types::{DbInstant, DbJson, DbUuid},
    transaction::Tx,
};

use self::handles::{
    conflicting_email_key, handle, handle_key, is_email_handle, is_key_of_another, promote_to_freed_key, search_text,
};
pub use self::{
    external_ids::{find_external_ids, for_each_external_id},
    identity::{UserIdentity, find_labels},
    list::{UserFilter, UserOrder, explain, list},
};
pub(crate) use self::{handles::email_lookup_keys, identity::UserIdentityRow};

/// Maximum length of an e-mail address in characters. For ASCII addresses this is the limit of RFC 5321, which counts
/// bytes.
pub const MAX_EMAIL_LENGTH: usize = 254;

/// Stored user.
#[derive(Clone, Debug, PartialEq)]
pub struct UserRecord {
    /// Id of the user. Derived from the external id if the user was created with one.
    pub id: Uuid,
    /// E-mail address as entered. Unique by [`email_key`](flags_domain::email_key). A user has an e-mail address, an
    /// external id, or both.
    pub email: Option<String>,
    /// Id of the user in another system. Unique, compared byte by byte.
    pub external_id: Option<String>,
    /// Display name.
    pub display_name: Option<String>,
    /// Role of the user.
    pub role: Role,
    /// Custom attributes for targeting.
    pub attributes: Map<String, Value>,
    /// Whether the user is active. Inactive users cannot authenticate.
    pub active: bool,
    /// Creation time.
    pub created_at: Instant,
    /// Time of the last change.
    pub updated_at: Instant,
    /// Revision of the last change.
    pub revision: i64,
}

impl UserRecord {
    /// Returns the fields that identify the user for display.
    pub fn identity(&self) -> UserIdentity {
        UserIdentity {
            display_name: self.display_name.clone(),
            email: self.email.clone(),
            external_id: self.external_id.clone(),
        }
    }

    /// Returns the e-mail address or, without one, the external id. Unique. Lists of users are sorted by it.
    pub fn handle(&self) -> &str {
        handle(self.email.as_deref(), self.external_id.as_deref())
    }
}

#[derive(Queryable, Selectable, Insertable, AsChangeset)]
#[diesel(table_name = users)]
#[diesel(treat_none_as_null = true)]
struct UserRow {
    id: DbUuid,
    handle: String,
    handle_key: String,
    external_id: Option<String>,
    display_name: Option<String>,
    role: String,
    attributes: DbJson,
    active: bool,
    search_text: String,
    created_at: DbInstant,
    updated_at: DbInstant,
    revision: i64,
}

impl From<&UserRecord> for UserRow {
    fn from(user: &UserRecord) -> Self {
        Self {
            id: DbUuid(user.id),
            handle: user.handle().to_owned(),
            handle_key: handle_key(user.handle()),
            external_id: user.external_id.clone(),
            display_name: user.display_name.clone(),
            role: user.role.as_str().to_owned(),
            attributes: DbJson(Value::Object(user.attributes.clone())),
            active: user.active,
            search_text: search_text(user.handle(), user.display_name.as_deref(), user.external_id.as_deref()),
            created_at: DbInstant(user.created_at),
            updated_at: DbInstant(user.updated_at),
            revision: user.revision,
        }
    }
}

impl TryFrom<UserRow> for UserRecord {
    type Error = StoreError;

    fn try_from(row: UserRow) -> Result<Self> {
        let Value::Object(attributes) = row.attributes.0 else {
            return Err(StoreError::corrupt(TABLE, "attributes must be a JSON object"));
        };
        Ok(Self {
            id: row.id.0,
            email: Some(row.handle).filter(|handle| is_email_handle(handle)),
            external_id: row.external_id,
            display_name: row.display_name,
            role: Role::parse(&row.role).ok_or_else(|| StoreError::corrupt(TABLE, "unknown role"))?,
            attributes,
            active: row.active,
            created_at: row.created_at.0,
            updated_at: row.updated_at.0,
            revision: row.revision,
        })
    }
}

impl From<&UserRecord> for UserState {
    fn from(user: &UserRecord) -> Self {
        Self { role: user.role, active: user.active }
    }
}

impl RowKey for UserRow {
    fn key(&self) -> String {
        self.id.0.to_string()
    }
}

const TABLE: &str = "users";

/// Returns the user with this id.
pub async fn find(conn: &mut Conn, id: Uuid) -> Result<Option<UserRecord>> {
    let row: Option<Decoded<UserRow>> =
        dispatch!(conn, |c| users::table.find(DbUuid(id)).select(columns!(UserRow)).first(c).await.optional())?;
    row.map(|row| row.into_result(TABLE)?.try_into()).transpose()
}

/// Locks the user (shared) until the end of the transaction, so that the user cannot be deleted concurrently, and
/// returns the user.
pub async fn lock_shared(tx: &mut Tx, id: Uuid) -> Result<Option<UserRecord>> {
    lock_row(tx, id, RowLock::Share).await
}

/// Locks the user (exclusive) until the end of the transaction, and returns the user.
pub async fn lock(tx: &mut Tx, id: Uuid) -> Result<Option<UserRecord>> {
    lock_row(tx, id, RowLock::Update).await
}

async fn lock_row(tx: &mut Tx, id: Uuid, lock: RowLock) -> Result<Option<UserRecord>> {
    let row: Option<Decoded<UserRow>> = dispatch!(tx.conn(), |c| {
        let row = users::table.find(DbUuid(id)).select(columns!(UserRow));
        Locked::new(row, lock).get_result(c).await.optional()
    })?;
    tx.refresh_now();
    row.map(|row| row.into_result(TABLE)?.try_into()).transpose()
}

/// Returns the users with the given ids, in ascending order of their ids. Omits unknown ids and rows that cannot be
/// read.
pub async fn find_all(conn: &mut Conn, ids: &[Uuid]) -> Result<Vec<UserRecord>> {
    let ids: Vec<_> = ids.iter().copied().map(DbUuid).collect();
    let rows: Vec<Decoded<UserRow>> = dispatch!(conn, |c| {
        users::table.filter(users::id.eq_any(&ids)).order(users::id).select(columns!(UserRow)).load(c).await
    })?;
    Ok(readable(TABLE, rows))
}

/// Returns the user with this external id.
pub async fn find_by_external_id(conn: &mut Conn, external_id: &str) -> Result<Option<UserRecord>> {
    let row: Option<Decoded<UserRow>> = dispatch!(conn, |c| {
        let user = users::table.filter(users::external_id.eq(external_id));
        user.select(columns!(UserRow)).first(c).await.optional()
    })?;
    row.map(|row| row.into_result(TABLE)?.try_into()).transpose()
}

/// Returns the user with this e-mail address, compared by [`email_key`](flags_domain::email_key). A user with exactly
/// this spelling has priority.
pub async fn find_by_email(conn: &mut Conn, email: &str) -> Result<Option<UserRecord>> {
    let keys = email_lookup_keys(email);
    let row: Option<Decoded<UserRow>> = dispatch!(conn, |c| {
        let matches = users::table.filter(users::handle_key.eq_any(&keys)).order(users::handle_key.desc());
        matches.select(columns!(UserRow)).first(c).await.optional()
    })?;
    row.map(|row| row.into_result(TABLE)?.try_into()).transpose()
}

/// Returns whether the database contains any users.
pub async fn any_exist(conn: &mut Conn) -> Result<bool> {
    dispatch!(conn, |c| diesel::select(exists(users::table.select(users::id))).get_result(c).await)
}

/// Maximum number of admins that [`has_other_active_admin`] reads.
const MAX_READ_ADMINS: i64 = 100;

/// Returns whether there is an active admin other than `excluded`. A user whose row cannot be read does not count,
/// because such a user cannot authenticate.
pub async fn has_other_active_admin(conn: &mut Conn, excluded: Uuid) -> Result<bool> {
    let rows: Vec<Decoded<UserRow>> = dispatch!(conn, |c| {
        let admins = users::table
            .filter(users::role.eq(Role::Admin.as_str()))
            .filter(users::active.eq(true))
            .filter(users::id.ne(DbUuid(excluded)));
        admins.order(users::id).limit(MAX_READ_ADMINS).select(columns!(UserRow)).load(c).await
    })?;
    Ok(!readable::<UserRow, UserRecord>(TABLE, rows).is_empty())
}

/// Unique property of a user that another user already has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TakenProperty {
    /// The id.
    Id,
    /// The e-mail address.
    Email,
    /// The external id.
    ExternalId,
}

/// Number of users that [`lock_with_role`] locks per query.
const LOCK_BATCH: usize = 1_000;

/// Inserts a user. If another user already has a unique property of `new`, inserts nothing and returns that property.
pub async fn insert(tx: &mut Tx, new: &UserRecord) -> Result<Option<TakenProperty>> {
    let row = UserRow::from(new);
    let inserted = dispatch!(tx.conn(), |c| {
        diesel::insert_into(users::table).values(&row).on_conflict_do_nothing().execute(c).await
    })?;
    if inserted == 1 {
        tx.record(entry(Action::Created, None, Some(new)));
        return Ok(None);
    }
    let has_external_id = match &new.external_id {
        Some(external_id) => find_by_external_id(tx.conn(), external_id).await?.is_some(),
        None => false,
    };
    if has_external_id {
        return Ok(Some(TakenProperty::ExternalId));
    }
    let has_id = find(tx.conn(), new.id).await?.is_some();
    Ok(Some(if has_id { TakenProperty::Id } else { TakenProperty::Email }))
}

/// Locks (shared) those of the given users that have this role, until the end of the transaction. Returns their ids in
/// ascending order.
pub async fn lock_with_role(tx: &mut Tx, ids: &[Uuid], role: Role) -> Result<Vec<Uuid>> {
    let ids: Vec<_> = ids.iter().copied().map(DbUuid).collect();
    let mut locked: Vec<Uuid> = Vec::new();
    for batch in ids.chunks(LOCK_BATCH) {
        let found: Vec<DbUuid> = dispatch!(tx.conn(), |c| {
            let rows = users::table.filter(users::id.eq_any(batch)).filter(users::role.eq(role.as_str()));
            Locked::new(rows.order(users::id).select(users::id), RowLock::Share).load(c).await
        })?;
        locked.extend(found.into_iter().map(|id| id.0));
    }
    tx.refresh_now();
    Ok(locked)
}

/// Writes all columns of a user. The transaction must hold the user's lock.
///
/// If an older user has the same e-mail address in another spelling, the user keeps the key for the exact spelling
/// until the address changes or the conflict ends.
///
/// If another user already has a unique property of `after`, returns that property. The transaction must then be rolled
/// back.
pub async fn update(tx: &mut Tx, before: &UserRecord, after: &UserRecord) -> Result<Option<TakenProperty>> {
    let mut row = UserRow::from(after);
    if before.email.is_some() && before.email == after.email && is_key_of_another(tx, &row).await? {
        row.handle_key = conflicting_email_key(&row.handle);
    }
    let updated = dispatch!(tx.conn(), |c| diesel::update(users::table.find(row.id)).set(&row).execute(c).await);
    match updated {
        Ok(_) => {
            if before.email != after.email {
                promote_to_freed_key(tx, before).await?;
            }
            tx.prior_states().record_user(before.id, before.into());
            tx.record(entry(Action::Updated, Some(before), Some(after)));
            Ok(None)
        }
        Err(StoreError::UniqueViolation(constraint)) if constraint.contains("external_id") => {
            Ok(Some(TakenProperty::ExternalId))
        }
        Err(StoreError::UniqueViolation(_)) => Ok(Some(TakenProperty::Email)),
        Err(error) => Err(error),
    }
}

/// Records a password change in the change log, without the hash.
pub(crate) fn record_password_change(tx: &mut Tx, user: &UserRecord) {
    let mut entry = entry(Action::Updated, Some(user), Some(user));
    if let Some(Value::Object(fields)) = entry.after.as_mut() {
        fields.insert("changed".to_owned(), json!(["password"]));
    }
    tx.prior_states().record_user(user.id, user.into());
    tx.record(entry);
}

/// Deletes a user. The transaction must hold the user's lock. The user must have no overrides and no tokens.
pub async fn delete(tx: &mut Tx, user: &UserRecord) -> Result<()> {
    let id = DbUuid(user.id);
    dispatch!(tx.conn(), |c| diesel::delete(users::table.find(id)).execute(c).await)?;
    promote_to_freed_key(tx, user).await?;
    tx.prior_states().record_user(user.id, user.into());
    tx.record(entry(Action::Deleted, Some(user), None));
    Ok(())
}

/// Records in the change log that a user's labels were removed by [`actor_labels::erase`](crate::actor_labels::erase).
pub fn record_erasure(tx: &mut Tx, id: Uuid) {
    let empty = entry(Action::Erased, None, None);
    tx.record(ChangeLogEntry { resource_id: Some(id), user_id: Some(id), ..empty });
}

fn entry(action: Action, before: Option<&UserRecord>, after: Option<&UserRecord>) -> ChangeLogEntry {
    let mut after_state = after.map(logged_state);
    if let (Some(before), Some(after), Some(Value::Object(fields))) = (before, after, after_state.as_mut()) {
        fields.insert("changed".to_owned(), json!(changed_fields(before, after)));
    }
    ChangeLogEntry {
        action,
        resource_kind: ResourceKind::User,
        resource_id: after.or(before).map(|user| user.id),
        flag_name: None,
        user_id: after.or(before).map(|user| user.id),
        before: before.map(logged_state),
        after: after_state,
        reason: None,
    }
}

/// State of a user as recorded in the change log, without personal data.
fn logged_state(user: &UserRecord) -> Value {
    json!({"id": user.id, "role": user.role.as_str(), "active": user.active})
}

fn changed_fields(before: &UserRecord, after: &UserRecord) -> Vec<&'static str> {
    let fields = [
        ("email", before.email != after.email),
        ("external_id", before.external_id != after.external_id),
        ("display_name", before.display_name != after.display_name),
        ("role", before.role != after.role),
        ("attributes", before.attributes != after.attributes),
        ("active", before.active != after.active),
    ];
    fields.into_iter().filter(|(_, changed)| *changed).map(|(name, _)| name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn change_log_entry_lists_changed_fields_without_personal_data() {
        let before = UserRecord {
            id: Uuid::nil(),
            email: Some("old@example.com".into()),
            external_id: None,
            display_name: None,
            role: Role::User,
            attributes: Map::new(),
            active: true,
            created_at: Instant::from_micros(0),
            updated_at: Instant::from_micros(0),
            revision: 1,
        };
        let after = UserRecord { email: Some("new@example.com".into()), role: Role::Admin, ..before.clone() };
        let entry = entry(Action::Updated, Some(&before), Some(&after));
        let text = format!("{entry:?}");
        assert!(!text.contains("example.com"), "{text}");
        assert_eq!(entry.after.unwrap()["changed"], json!(["email", "role"]));
    }
}
