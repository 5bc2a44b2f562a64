//! Passwords, as their hashes: one named function a query.

use std::fmt;

use diesel::{ExpressionMethods, OptionalExtension, QueryDsl};
use diesel_async::RunQueryDsl;
use uuid::Uuid;

use crate::{
    commit::Tx,
    error::Result,
    schema::{user_passwords, users as users_table},
    sql_types::{DbInstant, DbUuid},
    store::{Conn, on},
    users::{self, UserRecord, email_key},
};

/// Argon2id hash of a password, in the PHC string format. Not for printing.
#[derive(Clone, PartialEq, Eq)]
pub struct PasswordHash(pub String);

impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PasswordHash(…)")
    }
}

/// Somebody who may sign in with a password.
#[derive(Clone, Debug)]
pub struct Account {
    /// Who.
    pub user_id: Uuid,
    /// An inactive user cannot sign in.
    pub active: bool,
    /// Their password.
    pub hash: PasswordHash,
}

/// Who has this e-mail, in whatever case, and a password.
pub async fn account(conn: &mut Conn, email: &str) -> Result<Option<Account>> {
    let key = email_key(email);
    let row: Option<(DbUuid, bool, String)> = on!(conn, |c| {
        let account = users_table::table.inner_join(user_passwords::table).filter(users_table::email_key.eq(&key));
        let columns = (users_table::id, users_table::active, user_passwords::hash);
        account.select(columns).first(c).await.optional()
    })?;
    Ok(row.map(|(user_id, active, hash)| Account { user_id: user_id.0, active, hash: PasswordHash(hash) }))
}

/// A user's password, if they have one.
pub async fn find(conn: &mut Conn, user_id: Uuid) -> Result<Option<PasswordHash>> {
    let hash: Option<String> = on!(conn, |c| {
        user_passwords::table.find(DbUuid(user_id)).select(user_passwords::hash).first(c).await.optional()
    })?;
    Ok(hash.map(PasswordHash))
}

/// Gives a user that is just being made their first password; the log has the user's creation.
pub async fn insert(tx: &mut Tx, user_id: Uuid, hash: &PasswordHash) -> Result<()> {
    let row = (
        user_passwords::user_id.eq(DbUuid(user_id)),
        user_passwords::hash.eq(&hash.0),
        user_passwords::set_at.eq(DbInstant(tx.now())),
    );
    on!(tx.conn(), |c| diesel::insert_into(user_passwords::table).values(row).execute(c).await)?;
    Ok(())
}

/// Sets the password of a user that the transaction has claimed. The log says that it changed.
pub async fn set(tx: &mut Tx, user: &UserRecord, hash: &PasswordHash) -> Result<()> {
    let set_at = DbInstant(tx.now());
    on!(tx.conn(), |c| {
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
    users::record_new_password(tx, user);
    Ok(())
}
