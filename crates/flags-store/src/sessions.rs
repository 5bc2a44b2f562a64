//! Queries for sessions (`sessions`).
//!
//! Writes in this module are not recorded in the change log.

use std::fmt;

use diesel::{
    BoolExpressionMethods, ExpressionMethods, Insertable, OptionalExtension, QueryDsl, Queryable, Selectable,
};
use diesel_async::RunQueryDsl;
use flags_domain::Instant;
use uuid::Uuid;

use crate::{
    conn::{Conn, dispatch},
    decoded::{Decoded, RowKey, columns, to_record},
    error::{Result, StoreError},
    principal_state::{CredentialRef, CredentialState},
    schema::sessions,
    sql_types::{DbInstant, DbUuid},
    store::Store,
    transaction::Tx,
};

/// Stored session. Contains the hash of the session secret, not the secret.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SessionRecord {
    /// Id of the session, which is not secret.
    pub id: Uuid,
    /// SHA-256 of the secret in the session cookie.
    pub hash: [u8; 32],
    /// User that is signed in.
    pub user_id: Uuid,
    /// Time of the sign-in.
    pub created_at: Instant,
    /// Time of the last use, accurate to about a minute.
    pub last_seen_at: Instant,
    /// Absolute expiry. The session is invalid from this time on, even if it is in use.
    pub expires_at: Instant,
}

impl fmt::Debug for SessionRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionRecord").field("id", &self.id).field("user_id", &self.user_id).finish_non_exhaustive()
    }
}

#[derive(Queryable, Selectable, Insertable)]
#[diesel(table_name = sessions)]
struct SessionRow {
    id: DbUuid,
    token_hash: Vec<u8>,
    user_id: DbUuid,
    created_at: DbInstant,
    last_seen_at: DbInstant,
    #[diesel(column_name = ends_at)]
    expires_at: DbInstant,
}

impl TryFrom<SessionRow> for SessionRecord {
    type Error = StoreError;

    fn try_from(row: SessionRow) -> Result<Self> {
        Ok(Self {
            id: row.id.0,
            hash: row.token_hash.try_into().map_err(|_| StoreError::corrupt(TABLE, "token_hash must have 32 bytes"))?,
            user_id: row.user_id.0,
            created_at: row.created_at.0,
            last_seen_at: row.last_seen_at.0,
            expires_at: row.expires_at.0,
        })
    }
}

impl RowKey for SessionRow {
    fn key(&self) -> String {
        self.id.0.to_string()
    }
}

const TABLE: &str = "sessions";

/// Returns the session whose secret has this SHA-256. `None` if there is none or it cannot be read.
pub async fn find(conn: &mut Conn, hash: &[u8; 32]) -> Result<Option<SessionRecord>> {
    let row: Option<Decoded<SessionRow>> = dispatch!(conn, |c| {
        let session = sessions::table.filter(sessions::token_hash.eq(&hash[..]));
        session.select(columns!(SessionRow)).first(c).await.optional()
    })?;
    Ok(row.and_then(|row| to_record(TABLE, row.or_logged(TABLE)?)))
}

/// Inserts a session.
pub async fn insert(tx: &mut Tx, new: &SessionRecord) -> Result<()> {
    let row = SessionRow {
        id: DbUuid(new.id),
        token_hash: new.hash.to_vec(),
        user_id: DbUuid(new.user_id),
        created_at: DbInstant(new.created_at),
        last_seen_at: DbInstant(new.last_seen_at),
        expires_at: DbInstant(new.expires_at),
    };
    dispatch!(tx.conn(), |c| diesel::insert_into(sessions::table).values(&row).execute(c).await)?;
    Ok(())
}

/// Deletes the session whose secret has this SHA-256.
pub async fn delete(tx: &mut Tx, hash: &[u8; 32]) -> Result<()> {
    let deleted: Vec<DeletedSession> = dispatch!(tx.conn(), |c| {
        let row = diesel::delete(sessions::table.filter(sessions::token_hash.eq(&hash[..])));
        row.returning((sessions::token_hash, sessions::user_id, sessions::ends_at)).get_results(c).await
    })?;
    record_prior_states(tx, deleted);
    Ok(())
}

/// Columns `token_hash`, `user_id` and `ends_at` of a deleted session.
type DeletedSession = (Decoded<Vec<u8>>, Decoded<DbUuid>, Decoded<DbInstant>);

/// Records the states of deleted sessions, so that the transaction can still check its caller's
/// credential.
fn record_prior_states(tx: &mut Tx, deleted: Vec<DeletedSession>) {
    for (hash, user_id, ends_at) in deleted {
        // A session that cannot be read is not a valid credential, so its state is not needed.
        if let (Ok(hash), Ok(user_id), Ok(ends_at)) = (hash.into_value(), user_id.into_value(), ends_at.into_value())
            && let Ok(hash) = hash.try_into()
        {
            let before = CredentialState::unlimited(user_id.0, Some(ends_at.0));
            tx.prior_states().record_credential(CredentialRef::Session(hash), before);
        }
    }
}

/// Deletes all sessions of a user.
pub async fn delete_by_user(tx: &mut Tx, user_id: Uuid) -> Result<()> {
    let deleted: Vec<DeletedSession> = dispatch!(tx.conn(), |c| {
        let rows = diesel::delete(sessions::table.filter(sessions::user_id.eq(DbUuid(user_id))));
        rows.returning((sessions::token_hash, sessions::user_id, sessions::ends_at)).get_results(c).await
    })?;
    record_prior_states(tx, deleted);
    Ok(())
}

/// Sets the time of the last use. Never replaces a later time.
pub async fn update_last_seen(store: &Store, id: Uuid, at: Instant) -> Result<()> {
    let _permit = store.write_permit().await?;
    dispatch!(store.conn().await?, |c| {
        let session = sessions::table.find(DbUuid(id)).filter(sessions::last_seen_at.lt(DbInstant(at)));
        diesel::update(session).set(sessions::last_seen_at.eq(DbInstant(at))).execute(c).await
    })?;
    Ok(())
}

/// Deletes up to `limit` sessions that expired at or before `now` or were last used at or before `idle_since`. Returns
/// the number of deleted sessions.
pub async fn purge(store: &Store, now: Instant, idle_since: Instant, limit: i64) -> Result<u64> {
    let _permit = store.write_permit().await?;
    let mut conn = store.conn().await?;
    let is_ended = || sessions::ends_at.le(DbInstant(now)).or(sessions::last_seen_at.le(DbInstant(idle_since)));
    let ended: Vec<Decoded<DbUuid>> =
        dispatch!(conn, |c| sessions::table.filter(is_ended()).limit(limit).select(sessions::id).load(c).await)?;
    let ended: Vec<DbUuid> = ended.into_iter().filter_map(|id| id.or_logged(TABLE)).collect();
    let removed = dispatch!(conn, |c| {
        let rows = sessions::table.filter(sessions::id.eq_any(&ended)).filter(is_ended());
        diesel::delete(rows).execute(c).await
    })?;
    Ok(removed as u64)
}
