//! Users: one named function a query.
//!
//! The log holds no personal field: it says which fields of a user changed, and what role and activity became.

mod list;
mod search;

use diesel::{
    AsChangeset, ExpressionMethods, Insertable, OptionalExtension, QueryDsl, Queryable, Selectable, SelectableHelper,
    dsl::exists,
};
use diesel_async::RunQueryDsl;
use flags_domain::Instant;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::{
    change_log::{Action, ResourceKind, names},
    commit::{ChangeLogEntry, Tx},
    error::{Result, StoreError},
    schema::users,
    sql_types::{DbInstant, DbJson, DbUuid},
    store::{Conn, on},
};

pub use list::{UserFilter, UserOrder, list, plans};
pub(crate) use search::Indexed;

/// Longest e-mail address, in characters. (RFC 5321 counts bytes: an address in ASCII can be no longer.)
pub const MAX_EMAIL_LENGTH: usize = 254;

names! {
    /// What somebody may do.
    Role {
        /// Reads and changes everything.
        Admin = "admin",
        /// Reads everything.
        Viewer = "viewer",
        /// Reads what concerns themselves.
        User = "user",
    }
}

impl Role {
    /// How much a role may, to compare: the lower of two is what both allow.
    const fn rank(self) -> u8 {
        match self {
            Self::User => 0,
            Self::Viewer => 1,
            Self::Admin => 2,
        }
    }

    /// The role that allows no more than either.
    #[must_use]
    pub const fn lower(self, other: Self) -> Self {
        if self.rank() <= other.rank() { self } else { other }
    }

    /// The role that allows no less than either.
    #[must_use]
    pub const fn higher(self, other: Self) -> Self {
        if self.rank() >= other.rank() { self } else { other }
    }
}

/// A user as they stand in the database.
#[derive(Clone, Debug, PartialEq)]
pub struct UserRecord {
    /// Identifies them; the targeting key.
    pub id: Uuid,
    /// As written; unique without regard to case.
    pub email: String,
    /// For people.
    pub display_name: Option<String>,
    /// What they may do.
    pub role: Role,
    /// Their own attributes, for targeting.
    pub attributes: Map<String, Value>,
    /// An inactive user is nobody to the service.
    pub active: bool,
    /// When they were made known.
    pub created_at: Instant,
    /// When they were last changed.
    pub updated_at: Instant,
    /// The revision of their last change.
    pub revision: i64,
}

#[derive(Queryable, Selectable, Insertable, AsChangeset)]
#[diesel(table_name = users)]
#[diesel(treat_none_as_null = true)]
struct Row {
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

impl From<&UserRecord> for Row {
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

impl TryFrom<Row> for UserRecord {
    type Error = StoreError;

    fn try_from(row: Row) -> Result<Self> {
        let Value::Object(attributes) = row.attributes.0 else {
            return Err(StoreError::corrupt("users", "attributes are no object"));
        };
        Ok(Self {
            id: row.id.0,
            email: row.email,
            display_name: row.display_name,
            role: Role::parse(&row.role).ok_or_else(|| StoreError::corrupt("users", "unknown role"))?,
            attributes,
            active: row.active,
            created_at: row.created_at.0,
            updated_at: row.updated_at.0,
            revision: row.revision,
        })
    }
}

/// The user of this id.
pub async fn find(conn: &mut Conn, id: Uuid) -> Result<Option<UserRecord>> {
    let row: Option<Row> =
        on!(conn, |c| users::table.find(DbUuid(id)).select(Row::as_select()).first(c).await.optional())?;
    row.map(TryInto::try_into).transpose()
}

/// The users of these ids that exist, in the order of their ids.
pub async fn find_all(conn: &mut Conn, ids: &[Uuid]) -> Result<Vec<UserRecord>> {
    let ids: Vec<_> = ids.iter().copied().map(DbUuid).collect();
    let rows: Vec<Row> = on!(conn, |c| {
        users::table.filter(users::id.eq_any(&ids)).order(users::id).select(Row::as_select()).load(c).await
    })?;
    rows.into_iter().map(TryInto::try_into).collect()
}

/// An e-mail without regard to case: what it is compared and unique by.
pub fn email_key(email: &str) -> String {
    email.to_lowercase()
}

/// The user of this e-mail, in whatever case.
pub async fn find_by_email(conn: &mut Conn, email: &str) -> Result<Option<UserRecord>> {
    let key = email_key(email);
    let row: Option<Row> = on!(conn, |c| {
        users::table.filter(users::email_key.eq(&key)).select(Row::as_select()).first(c).await.optional()
    })?;
    row.map(TryInto::try_into).transpose()
}

/// Whether anybody is there at all.
pub async fn any(conn: &mut Conn) -> Result<bool> {
    on!(conn, |c| diesel::select(exists(users::table.select(users::id))).get_result(c).await)
}

/// Whether there is an active admin other than this user.
pub async fn another_active_admin(conn: &mut Conn, than: Uuid) -> Result<bool> {
    on!(conn, |c| {
        let admins = users::table
            .filter(users::role.eq(Role::Admin.as_str()))
            .filter(users::active.eq(true))
            .filter(users::id.ne(DbUuid(than)));
        diesel::select(exists(admins)).get_result(c).await
    })
}

/// Inserts a user; `false` if the e-mail is taken.
pub async fn insert(tx: &mut Tx, new: &UserRecord) -> Result<bool> {
    let row = Row::from(new);
    let inserted = on!(tx.conn(), |c| {
        diesel::insert_into(users::table).values(&row).on_conflict_do_nothing().execute(c).await
    })?;
    if inserted == 1 {
        tx.record(entry(Action::Created, None, Some(new)));
    }
    Ok(inserted == 1)
}

/// Writes a user that the transaction has claimed. A taken e-mail is a [`StoreError::Duplicate`].
pub async fn update(tx: &mut Tx, before: &UserRecord, after: &UserRecord) -> Result<()> {
    let row = Row::from(after);
    on!(tx.conn(), |c| diesel::update(users::table.find(row.id)).set(&row).execute(c).await)?;
    tx.record(entry(Action::Updated, Some(before), Some(after)));
    Ok(())
}

/// Records that a user's password was set. The hash stands in a table of its own and never in the log.
pub(crate) fn record_new_password(tx: &mut Tx, user: &UserRecord) {
    let mut entry = entry(Action::Updated, Some(user), Some(user));
    if let Some(Value::Object(fields)) = entry.after.as_mut() {
        fields.insert("changed".to_owned(), json!(["password"]));
    }
    tx.record(entry);
}

/// Removes a user that the transaction has claimed. Their overrides and tokens must be gone.
pub async fn delete(tx: &mut Tx, gone: &UserRecord) -> Result<()> {
    let id = DbUuid(gone.id);
    on!(tx.conn(), |c| diesel::delete(users::table.find(id)).execute(c).await)?;
    tx.record(entry(Action::Deleted, Some(gone), None));
    Ok(())
}

/// Records that what made a user readable was removed (see [`actor_labels::erase`](crate::actor_labels::erase)).
pub fn record_erasure(tx: &mut Tx, id: Uuid) {
    let nothing = entry(Action::Erased, None, None);
    tx.record(ChangeLogEntry { entity_id: Some(id), user_id: Some(id), ..nothing });
}

fn entry(action: Action, before: Option<&UserRecord>, after: Option<&UserRecord>) -> ChangeLogEntry {
    let state = |user: &UserRecord| json!({"id": user.id, "role": user.role.as_str(), "active": user.active});
    let mut after_state = after.map(state);
    if let (Some(before), Some(after), Some(Value::Object(fields))) = (before, after, after_state.as_mut()) {
        fields.insert("changed".to_owned(), json!(changed_fields(before, after)));
    }
    ChangeLogEntry {
        action,
        entity: ResourceKind::User,
        entity_id: after.or(before).map(|user| user.id),
        flag_name: None,
        user_id: after.or(before).map(|user| user.id),
        before: before.map(state),
        after: after_state,
        reason: None,
    }
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
    fn the_lower_of_two_roles_is_what_both_allow() {
        assert_eq!(Role::Admin.lower(Role::Viewer), Role::Viewer);
        assert_eq!(Role::User.lower(Role::Admin), Role::User);
        assert_eq!(Role::Admin.lower(Role::Admin), Role::Admin);
    }

    #[test]
    fn the_log_says_which_fields_changed_and_not_to_what() {
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
