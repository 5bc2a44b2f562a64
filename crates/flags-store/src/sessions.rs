//! Who is signed in: one named function a query. Book-keeping beside the log: nothing here takes a revision.

use std::fmt;

use diesel::{
    BoolExpressionMethods, ExpressionMethods, Insertable, OptionalExtension, QueryDsl, Queryable, Selectable,
    SelectableHelper,
};
use diesel_async::RunQueryDsl;
use flags_domain::Instant;
use uuid::Uuid;

use crate::{
    commit::Tx,
    error::{Result, StoreError},
    schema::sessions,
    sql_types::{DbInstant, DbUuid},
    store::{Conn, Store, on},
};

/// A session as it stands in the database: the hash of its secret, never the secret.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SessionRecord {
    /// Identifies it.
    pub id: Uuid,
    /// SHA-256 of the secret in the cookie.
    pub hash: [u8; 32],
    /// Who is signed in.
    pub user_id: Uuid,
    /// Since when.
    pub created_at: Instant,
    /// When it was last used, to the minute.
    pub last_seen_at: Instant,
    /// It is void from this instant on.
    pub ends_at: Instant,
}

impl fmt::Debug for SessionRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionRecord").field("id", &self.id).field("user_id", &self.user_id).finish_non_exhaustive()
    }
}

#[derive(Queryable, Selectable, Insertable)]
#[diesel(table_name = sessions)]
struct Row {
    id: DbUuid,
    token_hash: Vec<u8>,
    user_id: DbUuid,
    created_at: DbInstant,
    last_seen_at: DbInstant,
    ends_at: DbInstant,
}

impl TryFrom<Row> for SessionRecord {
    type Error = StoreError;

    fn try_from(row: Row) -> Result<Self> {
        Ok(Self {
            id: row.id.0,
            hash: row
                .token_hash
                .try_into()
                .map_err(|_| StoreError::corrupt("sessions", "a hash of the wrong length"))?,
            user_id: row.user_id.0,
            created_at: row.created_at.0,
            last_seen_at: row.last_seen_at.0,
            ends_at: row.ends_at.0,
        })
    }
}

/// The session whose secret has this SHA-256.
pub async fn find(conn: &mut Conn, hash: &[u8; 32]) -> Result<Option<SessionRecord>> {
    let row: Option<Row> = on!(conn, |c| {
        let session = sessions::table.filter(sessions::token_hash.eq(&hash[..]));
        session.select(Row::as_select()).first(c).await.optional()
    })?;
    row.map(TryInto::try_into).transpose()
}

/// Inserts a session.
pub async fn insert(tx: &mut Tx, new: &SessionRecord) -> Result<()> {
    let row = Row {
        id: DbUuid(new.id),
        token_hash: new.hash.to_vec(),
        user_id: DbUuid(new.user_id),
        created_at: DbInstant(new.created_at),
        last_seen_at: DbInstant(new.last_seen_at),
        ends_at: DbInstant(new.ends_at),
    };
    on!(tx.conn(), |c| diesel::insert_into(sessions::table).values(&row).execute(c).await)?;
    Ok(())
}

/// Removes the session whose secret has this SHA-256.
pub async fn delete(tx: &mut Tx, hash: &[u8; 32]) -> Result<()> {
    on!(tx.conn(), |c| {
        diesel::delete(sessions::table.filter(sessions::token_hash.eq(&hash[..]))).execute(c).await
    })?;
    Ok(())
}

/// Removes all sessions of a user.
pub async fn delete_of_user(tx: &mut Tx, user_id: Uuid) -> Result<()> {
    on!(tx.conn(), |c| {
        diesel::delete(sessions::table.filter(sessions::user_id.eq(DbUuid(user_id)))).execute(c).await
    })?;
    Ok(())
}

/// Notes that a session was used.
pub async fn touch(store: &Store, id: Uuid, at: Instant) -> Result<()> {
    let _writer = store.writer().await?;
    on!(store.conn().await?, |c| {
        let session = sessions::table.find(DbUuid(id)).filter(sessions::last_seen_at.lt(DbInstant(at)));
        diesel::update(session).set(sessions::last_seen_at.eq(DbInstant(at))).execute(c).await
    })?;
    Ok(())
}

/// Removes up to `limit` sessions that have ended by `now` or were last used at or before `idle_since`, and returns how
/// many went.
pub async fn purge(store: &Store, now: Instant, idle_since: Instant, limit: i64) -> Result<u64> {
    let _writer = store.writer().await?;
    let mut conn = store.conn().await?;
    let is_over = || sessions::ends_at.le(DbInstant(now)).or(sessions::last_seen_at.le(DbInstant(idle_since)));
    let over: Vec<DbUuid> =
        on!(conn, |c| sessions::table.filter(is_over()).limit(limit).select(sessions::id).load(c).await)?;
    let removed = on!(conn, |c| {
        let over = sessions::table.filter(sessions::id.eq_any(&over)).filter(is_over());
        diesel::delete(over).execute(c).await
    })?;
    Ok(removed as u64)
}
