//! Queries for failed sign-in attempts (`sign_in_attempts`) and for the networks from which users
//! have signed in (`sign_in_places`).
//!
//! Failures are counted per throttle key: the hash of an account, of a network, or of both
//! together. Writes in this module are not recorded in the change log.

use diesel::{BoolExpressionMethods, ExpressionMethods, OptionalExtension, QueryDsl};
use diesel_async::RunQueryDsl;
use flags_domain::Instant;
use uuid::Uuid;

use crate::{
    conn::dispatch,
    decoded::Decoded,
    error::Result,
    schema::{sign_in_attempts, sign_in_places, users},
    sql_types::{DbInstant, DbUuid},
    store::Store,
    transaction::Tx,
    users::email_lookup_keys,
};

/// Failed sign-in attempts of one throttle key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FailedAttempts {
    /// Number of consecutive failures.
    pub failures: i32,
    /// Time of the last failure. Without a failure, the time at which [`lock`] inserted the row.
    pub last_at: Instant,
}

const TABLE: &str = "sign_in_attempts";

/// Locks the row of a throttle key until the end of the transaction, and returns its failed attempts. Inserts a row if
/// there is none. Concurrent attempts with the same key therefore run one after the other. A row that cannot be read
/// counts as one without failures.
pub async fn lock(tx: &mut Tx, key: &[u8; 32]) -> Result<FailedAttempts> {
    let now = DbInstant(tx.now());
    let (failures, last_at): (Decoded<i32>, Decoded<DbInstant>) = dispatch!(tx.conn(), |c| {
        diesel::insert_into(sign_in_attempts::table)
            .values((
                sign_in_attempts::subject.eq(&key[..]),
                sign_in_attempts::failures.eq(0),
                sign_in_attempts::last_at.eq(now),
            ))
            .on_conflict(sign_in_attempts::subject)
            .do_update()
            // An update without effect locks the existing row and lets `returning` read it.
            .set(sign_in_attempts::failures.eq(sign_in_attempts::failures))
            .returning((sign_in_attempts::failures, sign_in_attempts::last_at))
            .get_result(c)
            .await
    })?;
    tx.refresh_now();
    Ok(match (failures.or_logged(TABLE), last_at.or_logged(TABLE)) {
        (Some(failures), Some(last_at)) => FailedAttempts { failures, last_at: last_at.0 },
        _ => FailedAttempts { failures: 0, last_at: tx.now() },
    })
}

/// Updates the failed attempts of a throttle key. The row must exist.
pub async fn set(tx: &mut Tx, key: &[u8; 32], attempts: FailedAttempts) -> Result<()> {
    dispatch!(tx.conn(), |c| {
        diesel::update(sign_in_attempts::table.find(&key[..]))
            .set((
                sign_in_attempts::failures.eq(attempts.failures),
                sign_in_attempts::last_at.eq(DbInstant(attempts.last_at)),
            ))
            .execute(c)
            .await
    })?;
    Ok(())
}

/// Deletes the failed attempts of a throttle key.
pub async fn delete(tx: &mut Tx, key: &[u8; 32]) -> Result<()> {
    dispatch!(tx.conn(), |c| diesel::delete(sign_in_attempts::table.find(&key[..])).execute(c).await)?;
    Ok(())
}

/// Returns whether a user with this e-mail address has signed in from this network after `since`.
pub async fn is_known_network(tx: &mut Tx, email: &str, network: &[u8; 32], since: Instant) -> Result<bool> {
    let keys = email_lookup_keys(email);
    let found: Option<Decoded<DbInstant>> = dispatch!(tx.conn(), |c| {
        let rows = sign_in_places::table.inner_join(users::table).filter(users::handle_key.eq_any(&keys));
        let rows =
            rows.filter(sign_in_places::place.eq(&network[..]).and(sign_in_places::last_at.gt(DbInstant(since))));
        rows.select(sign_in_places::last_at).first(c).await.optional()
    })?;
    Ok(found.is_some())
}

/// Records a successful sign-in of a user from this network.
pub async fn record_network(tx: &mut Tx, user_id: Uuid, network: &[u8; 32]) -> Result<()> {
    let now = DbInstant(tx.now());
    dispatch!(tx.conn(), |c| {
        diesel::insert_into(sign_in_places::table)
            .values((
                sign_in_places::user_id.eq(DbUuid(user_id)),
                sign_in_places::place.eq(&network[..]),
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

/// Deletes networks that were last used at or before `until`. Returns the number of deleted rows.
pub async fn purge_networks(store: &Store, until: Instant) -> Result<u64> {
    let _permit = store.write_permit().await?;
    let mut conn = store.conn().await?;
    let removed = dispatch!(conn, |c| {
        diesel::delete(sign_in_places::table.filter(sign_in_places::last_at.le(DbInstant(until)))).execute(c).await
    })?;
    Ok(removed as u64)
}

/// Deletes up to `limit` throttle keys whose last failure was at or before `until`. Returns the number of deleted rows.
pub async fn purge(store: &Store, until: Instant, limit: i64) -> Result<u64> {
    let _permit = store.write_permit().await?;
    let mut conn = store.conn().await?;
    let stale: Vec<Decoded<Vec<u8>>> = dispatch!(conn, |c| {
        let rows = sign_in_attempts::table.filter(sign_in_attempts::last_at.le(DbInstant(until))).limit(limit);
        rows.select(sign_in_attempts::subject).load(c).await
    })?;
    let stale: Vec<Vec<u8>> = stale.into_iter().filter_map(|subject| subject.or_logged(TABLE)).collect();
    let removed = dispatch!(conn, |c| {
        let rows = sign_in_attempts::table.filter(sign_in_attempts::subject.eq_any(&stale));
        diesel::delete(rows.filter(sign_in_attempts::last_at.le(DbInstant(until)))).execute(c).await
    })?;
    Ok(removed as u64)
}
