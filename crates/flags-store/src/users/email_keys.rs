//! Upgrade that recomputes the [`email_key`]s of users, because earlier versions computed them
//! differently.

use diesel::{
    BoolExpressionMethods, ExpressionMethods, OptionalExtension, QueryDsl, TextExpressionMethods, dsl::sql,
    sql_types::Bool,
};
use diesel_async::RunQueryDsl;
use flags_domain::email_key;
use uuid::Uuid;

use super::conflicting_email_key;
use crate::{
    conn::{Conn, dispatch},
    error::Result,
    schema::{pending_upgrades, users},
    sql_types::{DbInstant, DbUuid},
    store::Store,
};

/// Name of this upgrade in `pending_upgrades`.
const UPGRADE: &str = "email_keys";
/// Number of users per transaction.
const BATCH_SIZE: i64 = 1_000;

/// SQL condition for a handle with non-ASCII characters. The keys of ASCII handles have not
/// changed.
const IS_NOT_ASCII: &str = "octet_length(handle) <> length(handle)";

/// Creation time, id, handle and key of a user.
type Row = (DbInstant, DbUuid, String, String);

/// Whether the keys of e-mail addresses must be recomputed.
pub(crate) async fn is_pending(conn: &mut Conn) -> Result<bool> {
    let pending: Option<String> = dispatch!(conn, |c| {
        pending_upgrades::table.find(UPGRADE).select(pending_upgrades::name).first(c).await.optional()
    })?;
    Ok(pending.is_some())
}

/// Recomputes the keys of all non-ASCII e-mail addresses, in transactions of 1,000 users. Does
/// nothing if the upgrade is complete. An interrupted run can be repeated.
///
/// If the addresses of two users have the same key, the older user keeps it. The newer user can
/// then sign in only with the exact spelling of the address. Logs the ids of both users.
pub(crate) async fn recompute(store: &Store) -> Result<()> {
    if !is_pending(&mut store.conn().await?).await? {
        return Ok(());
    }
    let mut after = None;
    loop {
        let mut tx = store.begin(flags_domain::Instant::from_micros(0)).await?;
        let rows = load_after(tx.conn(), after).await?;
        let Some((created_at, id, ..)) = rows.last() else {
            dispatch!(tx.conn(), |c| diesel::delete(pending_upgrades::table.find(UPGRADE)).execute(c).await)?;
            return tx.commit_unlogged().await;
        };
        after = Some((*created_at, *id));
        for row in &rows {
            recompute_row(tx.conn(), row).await?;
        }
        tx.commit_unlogged().await?;
    }
}

/// Returns the next users with an e-mail address that is not ASCII, ordered by creation time.
async fn load_after(conn: &mut Conn, after: Option<(DbInstant, DbUuid)>) -> Result<Vec<Row>> {
    dispatch!(conn, |c| {
        let mut query = users::table
            .filter(sql::<Bool>(IS_NOT_ASCII))
            .filter(users::handle.like("%@%"))
            .select((users::created_at, users::id, users::handle, users::handle_key))
            .into_boxed::<Db>();
        if let Some((at, id)) = after {
            query = query.filter(users::created_at.gt(at).or(users::created_at.eq(at).and(users::id.gt(id))));
        }
        query.order((users::created_at, users::id)).limit(BATCH_SIZE).load(c).await
    })
}

async fn recompute_row(conn: &mut Conn, (created_at, id, handle, current_key): &Row) -> Result<()> {
    let key = email_key(handle);
    let owner: Option<Row> = dispatch!(conn, |c| {
        users::table
            .filter(users::handle_key.eq(&key))
            .select((users::created_at, users::id, users::handle, users::handle_key))
            .first(c)
            .await
            .optional()
    })?;
    match owner {
        Some((_, owner_id, ..)) if owner_id == *id => Ok(()),
        None if current_key.starts_with(&format!("{key}\n")) => Ok(()),
        None => set_key(conn, *id, &key).await,
        Some((owner_created_at, owner_id, owner_handle, _)) => {
            let is_older = (created_at.0, id.0) < (owner_created_at.0, owner_id.0);
            if is_older {
                set_key(conn, owner_id, &conflicting_email_key(&owner_handle)).await?;
                set_key(conn, *id, &key).await?;
                log_conflict(owner_id.0, id.0);
            } else {
                set_key(conn, *id, &conflicting_email_key(handle)).await?;
                log_conflict(id.0, owner_id.0);
            }
            Ok(())
        }
    }
}

async fn set_key(conn: &mut Conn, id: DbUuid, key: &str) -> Result<()> {
    dispatch!(conn, |c| { diesel::update(users::table.find(id)).set(users::handle_key.eq(key)).execute(c).await })?;
    Ok(())
}

fn log_conflict(user: Uuid, older_user: Uuid) {
    tracing::warn!(
        %user,
        %older_user,
        "two users have the same e-mail address in different spellings; the newer one must sign in with the exact spelling"
    );
}
