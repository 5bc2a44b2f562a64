//! Attempts to sign in, those that failed and where others succeeded: one named function a query. Book-keeping beside the
//! log.

use diesel::{BoolExpressionMethods, ExpressionMethods, OptionalExtension, QueryDsl};
use diesel_async::RunQueryDsl;
use flags_domain::Instant;
use uuid::Uuid;

use crate::{
    commit::Tx,
    error::Result,
    schema::{sign_in_attempts, sign_in_places, users},
    sql_types::{DbInstant, DbUuid},
    store::{Store, on},
};

/// How often somebody has failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempts {
    /// In a row.
    pub failures: i32,
    /// The last time.
    pub last_at: Instant,
}

/// What is known of a subject, which this transaction holds to its end: of two attempts at once one comes second.
pub async fn claim(tx: &mut Tx, subject: &[u8; 32]) -> Result<Attempts> {
    let first = DbInstant(tx.now());
    let (failures, last_at): (i32, DbInstant) = on!(tx.conn(), |c| {
        diesel::insert_into(sign_in_attempts::table)
            .values((
                sign_in_attempts::subject.eq(&subject[..]),
                sign_in_attempts::failures.eq(0),
                sign_in_attempts::last_at.eq(first),
            ))
            .on_conflict(sign_in_attempts::subject)
            .do_update()
            // Changes nothing, but locks the row and gives it back.
            .set(sign_in_attempts::failures.eq(sign_in_attempts::failures))
            .returning((sign_in_attempts::failures, sign_in_attempts::last_at))
            .get_result(c)
            .await
    })?;
    tx.refresh_now();
    Ok(Attempts { failures, last_at: last_at.0 })
}

/// Writes down what is known of a subject.
pub async fn set(tx: &mut Tx, subject: &[u8; 32], known: Attempts) -> Result<()> {
    on!(tx.conn(), |c| {
        diesel::update(sign_in_attempts::table.find(&subject[..]))
            .set((
                sign_in_attempts::failures.eq(known.failures),
                sign_in_attempts::last_at.eq(DbInstant(known.last_at)),
            ))
            .execute(c)
            .await
    })?;
    Ok(())
}

/// Forgets a subject.
pub async fn forget(tx: &mut Tx, subject: &[u8; 32]) -> Result<()> {
    on!(tx.conn(), |c| diesel::delete(sign_in_attempts::table.find(&subject[..])).execute(c).await)?;
    Ok(())
}

/// Whether the account of this key of an e-mail was signed in to from this place after `since`.
pub async fn is_known_place(tx: &mut Tx, email_key: &str, place: &[u8; 32], since: Instant) -> Result<bool> {
    let found: Option<DbInstant> = on!(tx.conn(), |c| {
        let places = sign_in_places::table.inner_join(users::table).filter(users::email_key.eq(email_key));
        let places =
            places.filter(sign_in_places::place.eq(&place[..]).and(sign_in_places::last_at.gt(DbInstant(since))));
        places.select(sign_in_places::last_at).first(c).await.optional()
    })?;
    Ok(found.is_some())
}

/// Writes down that an account was signed in to from this place.
pub async fn note_place(tx: &mut Tx, user_id: Uuid, place: &[u8; 32]) -> Result<()> {
    let now = DbInstant(tx.now());
    on!(tx.conn(), |c| {
        diesel::insert_into(sign_in_places::table)
            .values((
                sign_in_places::user_id.eq(DbUuid(user_id)),
                sign_in_places::place.eq(&place[..]),
                sign_in_places::last_at.eq(now),
            ))
            .on_conflict((sign_in_places::user_id, sign_in_places::place))
            .do_update()
            .set(sign_in_places::last_at.eq(now))
            .execute(c)
            .await
    })?;
    Ok(())
}

/// Forgets the places from which nobody has signed in since `until`, and returns how many.
pub async fn purge_places(store: &Store, until: Instant) -> Result<u64> {
    let _writer = store.writer().await?;
    let mut conn = store.conn().await?;
    let removed = on!(conn, |c| {
        diesel::delete(sign_in_places::table.filter(sign_in_places::last_at.le(DbInstant(until)))).execute(c).await
    })?;
    Ok(removed as u64)
}

/// Forgets up to `limit` subjects that have not failed since `until`, and returns how many.
pub async fn purge(store: &Store, until: Instant, limit: i64) -> Result<u64> {
    let _writer = store.writer().await?;
    let mut conn = store.conn().await?;
    let old: Vec<Vec<u8>> = on!(conn, |c| {
        let old = sign_in_attempts::table.filter(sign_in_attempts::last_at.le(DbInstant(until))).limit(limit);
        old.select(sign_in_attempts::subject).load(c).await
    })?;
    let removed = on!(conn, |c| {
        let old = sign_in_attempts::table.filter(sign_in_attempts::subject.eq_any(&old));
        diesel::delete(old.filter(sign_in_attempts::last_at.le(DbInstant(until)))).execute(c).await
    })?;
    Ok(removed as u64)
}
