//! Queries for users (`users`).
//!
//! Change-log entries of users contain no personal data: only the names of the changed fields, the role, and whether
//! the user is active.

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

pub use list::{UserFilter, UserOrder, explain, list};

/// Maximum length of an e-mail address in characters. For ASCII addresses this is the limit of RFC 5321, which counts
/// bytes.
pub const MAX_EMAIL_LENGTH: usize = 254;

/// Stored user.
#[derive(Clone, Debug, PartialEq)]
pub struct UserRecord {
    /// Id of the user, which is also the targeting key.
    pub id: Uuid,
    /// E-mail address in its original case. Unique, ignoring case.
    pub email: String,
    /// Display name.
    pub display_name: Option<String>,
    /// Role of the user.
    pub role: Role,
    /// Custom attributes for targeting.
    pub attributes: Map<String, Value>,
    /// Whether the user is active. The service treats an inactive user as unknown.
    pub active: bool,
    /// Creation time.
    pub created_at: Instant,
    /// Time of the last change.
    pub updated_at: Instant,
    /// Revision of the last change.
    pub revision: i64,
}

#[derive(Queryable, Selectable, Insertable, AsChangeset)]
#[diesel(table_name = users)]
#[diesel(treat_none_as_null = true)]
struct UserRow {
    id: DbUuid,
    email: String,
    email_key: String,
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
        let name = user.display_name.as_deref().unwrap_or_default();
        Self {
            id: DbUuid(user.id),
            email: user.email.clone(),
            email_key: email_key(&user.email),
            display_name: user.display_name.clone(),
            role: user.role.as_str().to_owned(),
            attributes: DbJson(Value::Object(user.attributes.clone())),
            active: user.active,
            search_text: format!("{}\n{name}", user.email).to_lowercase(),
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
            email: row.email,
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

/// Returns the lower-case form of an e-mail address, by which addresses are compared and unique.
pub fn email_key(email: &str) -> String {
    email.to_lowercase()
}

/// Returns the user with this e-mail address, ignoring case.
pub async fn find_by_email(conn: &mut Conn, email: &str) -> Result<Option<UserRecord>> {
    let key = email_key(email);
    let row: Option<Decoded<UserRow>> = dispatch!(conn, |c| {
        users::table.filter(users::email_key.eq(&key)).select(columns!(UserRow)).first(c).await.optional()
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

/// Inserts a user. Returns `false` if the e-mail address is already taken.
pub async fn insert(tx: &mut Tx, new: &UserRecord) -> Result<bool> {
    let row = UserRow::from(new);
    let inserted = dispatch!(tx.conn(), |c| {
        diesel::insert_into(users::table).values(&row).on_conflict_do_nothing().execute(c).await
    })?;
    if inserted == 1 {
        tx.record(entry(Action::Created, None, Some(new)));
    }
    Ok(inserted == 1)
}

/// Writes all columns of a user. The transaction must hold the user's lock.
///
/// Fails with [`StoreError::UniqueViolation`] if the e-mail address is already taken.
pub async fn update(tx: &mut Tx, before: &UserRecord, after: &UserRecord) -> Result<()> {
    let row = UserRow::from(after);
    dispatch!(tx.conn(), |c| diesel::update(users::table.find(row.id)).set(&row).execute(c).await)?;
    tx.prior_states().record_user(before.id, before.into());
    tx.record(entry(Action::Updated, Some(before), Some(after)));
    Ok(())
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

/// State of a user in the change log, without personal data.
fn logged_state(user: &UserRecord) -> Value {
    json!({"id": user.id, "role": user.role.as_str(), "active": user.active})
}

fn changed_fields(before: &UserRecord, after: &UserRecord) -> Vec<&'static str> {
    let fields = [
        ("email", before.email != after.email),
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
            email: "old@example.com".into(),
            display_name: None,
            role: Role::User,
            attributes: Map::new(),
            active: true,
            created_at: Instant::from_micros(0),
            updated_at: Instant::from_micros(0),
            revision: 1,
        };
        let after = UserRecord { email: "new@example.com".into(), role: Role::Admin, ..before.clone() };
        let entry = entry(Action::Updated, Some(&before), Some(&after));
        let text = format!("{entry:?}");
        assert!(!text.contains("example.com"), "{text}");
        assert_eq!(entry.after.unwrap()["changed"], json!(["email", "role"]));
    }
}
