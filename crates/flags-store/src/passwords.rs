//! Queries for password hashes (`user_passwords`).

use std::fmt;

use diesel::{ExpressionMethods, OptionalExtension, QueryDsl};
use diesel_async::RunQueryDsl;
use uuid::Uuid;

use crate::{
    conn::{Conn, dispatch},
    decoded::Decoded,
    error::Result,
    schema::{user_passwords, users as users_table},
    sql_types::{DbInstant, DbUuid},
    transaction::Tx,
    users::{self, UserRecord, email_lookup_keys},
};

/// Argon2id password hash in the PHC string format. Its `Debug` output does not contain the hash.
#[derive(Clone, PartialEq, Eq)]
pub struct PasswordHash(pub String);

impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PasswordHash(…)")
    }
}

/// User with a password.
#[derive(Clone, Debug)]
pub struct PasswordAccount {
    /// Id of the user.
    pub user_id: Uuid,
    /// Whether the user is active. Inactive users cannot sign in.
    pub active: bool,
    /// Hash of the user's password.
    pub hash: PasswordHash,
}

const TABLE: &str = "user_passwords";

/// Returns the user with this e-mail address, compared by [`email_key`](flags_domain::email_key).
/// `None` if the user does not exist, has no password, or cannot be read.
pub async fn find_account(conn: &mut Conn, email: &str) -> Result<Option<PasswordAccount>> {
    let keys = email_lookup_keys(email);
    let row: Option<(Decoded<DbUuid>, Decoded<bool>, Decoded<String>)> = dispatch!(conn, |c| {
        let account =
            users_table::table.inner_join(user_passwords::table).filter(users_table::handle_key.eq_any(&keys));
        let columns = (users_table::id, users_table::active, user_passwords::hash);
        account.order(users_table::handle_key.desc()).select(columns).first(c).await.optional()
    })?;
    Ok(row.and_then(|(user_id, active, hash)| {
        let (user_id, active) = (user_id.or_logged("users")?.0, active.or_logged("users")?);
        Some(PasswordAccount { user_id, active, hash: PasswordHash(hash.or_logged(TABLE)?) })
    }))
}

/// Returns the password hash of a user. `None` if the user has no password or the hash cannot be
/// read.
pub async fn find(conn: &mut Conn, user_id: Uuid) -> Result<Option<PasswordHash>> {
    let hash: Option<Decoded<String>> = dispatch!(conn, |c| {
        user_passwords::table.find(DbUuid(user_id)).select(user_passwords::hash).first(c).await.optional()
    })?;
    Ok(hash.and_then(|hash| hash.or_logged(TABLE)).map(PasswordHash))
}

/// Stores the password of a user that the same transaction creates. Records no entry in the change
/// log, because the user's creation is recorded.
pub async fn insert(tx: &mut Tx, user_id: Uuid, hash: &PasswordHash) -> Result<()> {
    let row = (
        user_passwords::user_id.eq(DbUuid(user_id)),
        user_passwords::hash.eq(&hash.0),
        user_passwords::set_at.eq(DbInstant(tx.now())),
    );
    dispatch!(tx.conn(), |c| diesel::insert_into(user_passwords::table).values(row).execute(c).await)?;
    Ok(())
}

/// Sets or replaces the password of a user, and records the change without the hash. The
/// transaction must hold the user's lock.
pub async fn set(tx: &mut Tx, user: &UserRecord, hash: &PasswordHash) -> Result<()> {
    let set_at = DbInstant(tx.now());
    dispatch!(tx.conn(), |c| {
        diesel::insert_into(user_passwords::table)
            .values((
                user_passwords::user_id.eq(DbUuid(user.id)),
                user_passwords::hash.eq(&hash.0),
                user_passwords::set_at.eq(set_at),
            ))
            .on_conflict(user_passwords::user_id)
            .do_update()
            .set((user_passwords::hash.eq(&hash.0), user_passwords::set_at.eq(set_at)))
            .execute(c)
            .await
    })?;
    users::record_password_change(tx, user);
    Ok(())
}
