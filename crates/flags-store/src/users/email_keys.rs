//! Recomputes keys of e-mail addresses and search texts after an upgrade that normalizes them differently.

use diesel::{AsChangeset, ExpressionMethods, OptionalExtension, QueryDsl, dsl::sql, sql_types::Bool};
use diesel_async::RunQueryDsl;
use uuid::Uuid;

use super::{
    TABLE,
    handles::{conflicting_email_key, handle_key, is_email_handle, search_text},
};
use crate::{
    conn::{Conn, dispatch},
    decoded::Decoded,
    error::Result,
    schema::{pending_upgrades, users},
    sql_types::{DbInstant, DbUuid},
    store::Store,
};

/// Name of this upgrade in `pending_upgrades`.
const UPGRADE: &str = "email_keys";
/// Number of users per transaction.
const BATCH_SIZE: i64 = 1_000;

/// SQL condition for users whose key or search text may have changed: a text contains characters outside of ASCII, or a
/// domain label such as `xn--mnchen-3ya`.
const MAY_HAVE_CHANGED: &str = "(octet_length(handle) <> length(handle) \
    OR octet_length(search_text) <> length(search_text) OR search_text LIKE '%xn--%')";

/// Columns of a user that the recomputation reads, in the order of [`Row`].
macro_rules! row_columns {
    () => {
        (
            users::id,
            users::created_at,
            users::handle,
            users::handle_key,
            users::display_name,
            users::external_id,
            users::search_text,
        )
    };
}

/// Id, creation time, handle, key, display name, external id and search text of a user.
type Row = (DbUuid, DbInstant, String, String, Option<String>, Option<String>, String);

/// Whether the keys of e-mail addresses must be recomputed.
pub(crate) async fn is_pending(conn: &mut Conn) -> Result<bool> {
    let pending: Option<String> = dispatch!(conn, |c| {
        pending_upgrades::table.find(UPGRADE).select(pending_upgrades::name).first(c).await.optional()
    })?;
    Ok(pending.is_some())
}

/// Recomputes the keys of all e-mail addresses and all search texts if this is pending, in transactions of 1,000 users.
/// After an interruption, it can be called again.
///
/// If the addresses of two users have the same key, the older user keeps it. The newer user can
/// then sign in only with the exact spelling of the address. Logs the ids of both users. Skips rows that cannot be read,
/// because their users cannot sign in.
pub(crate) async fn recompute(store: &Store) -> Result<()> {
    if !is_pending(&mut store.conn().await?).await? {
        return Ok(());
    }
    let mut after = None;
    loop {
        let mut tx = store.begin(flags_domain::Instant::from_micros(0)).await?;
        let rows = load_after(tx.conn(), after).await?;
        let rows: Vec<Row> = rows.into_iter().filter_map(|row| row.or_logged(TABLE)).collect();
        let Some((id, ..)) = rows.last() else {
            dispatch!(tx.conn(), |c| diesel::delete(pending_upgrades::table.find(UPGRADE)).execute(c).await)?;
            return tx.commit_unlogged().await;
        };
        after = Some(*id);
        let mut conflicts = Vec::new();
        for row in &rows {
            conflicts.extend(recompute_row(tx.conn(), row).await?);
        }
        tx.commit_unlogged().await?;
        conflicts.iter().for_each(log_conflict);
    }
}

/// Returns the next users whose forms may have changed, ordered by id. Creation times do not order all rows: those
/// outside of the range of [`Instant`](flags_domain::Instant) are read as the same instant.
async fn load_after(conn: &mut Conn, after: Option<DbUuid>) -> Result<Vec<Decoded<Row>>> {
    dispatch!(conn, |c| {
        let mut query = users::table.filter(sql::<Bool>(MAY_HAVE_CHANGED)).select(row_columns!()).into_boxed::<Db>();
        if let Some(id) = after {
            query = query.filter(users::id.gt(id));
        }
        query.order(users::id).limit(BATCH_SIZE).load(c).await
    })
}

/// Two users with the same e-mail address in different spellings.
struct EmailConflict {
    user: Uuid,
    older_user: Uuid,
}

/// Columns that a recomputation changes.
#[derive(AsChangeset, PartialEq, Eq)]
#[diesel(table_name = users)]
struct Forms {
    handle_key: String,
    search_text: String,
}

async fn recompute_row(conn: &mut Conn, row: &Row) -> Result<Option<EmailConflict>> {
    let (id, created_at, handle, current_key, display_name, external_id, current_text) = row;
    let key = handle_key(handle);
    let search_text = search_text(handle, display_name.as_deref(), external_id.as_deref());
    let stored = Forms { handle_key: current_key.clone(), search_text: current_text.clone() };
    let owner = if is_email_handle(handle) { find_owner(conn, &key, *id).await? } else { None };
    let (handle_key, conflict) = match owner {
        None => (key, None),
        Some((owner_created_at, owner_id, owner_handle)) => {
            if (created_at.0, id.0) < (owner_created_at.0, owner_id.0) {
                let owner_key = conflicting_email_key(&owner_handle);
                dispatch!(conn, |c| {
                    diesel::update(users::table.find(owner_id)).set(users::handle_key.eq(&owner_key)).execute(c).await
                })?;
                (key, Some(EmailConflict { user: owner_id.0, older_user: id.0 }))
            } else {
                (conflicting_email_key(handle), Some(EmailConflict { user: id.0, older_user: owner_id.0 }))
            }
        }
    };
    let forms = Forms { handle_key, search_text };
    if forms == stored {
        // Nothing has changed, or an interrupted run has already updated this row and reported its conflict.
        return Ok(None);
    }
    dispatch!(conn, |c| diesel::update(users::table.find(id)).set(&forms).execute(c).await)?;
    Ok(conflict)
}

/// Returns creation time, id and handle of another user with this key.
async fn find_owner(conn: &mut Conn, key: &str, id: DbUuid) -> Result<Option<(DbInstant, DbUuid, String)>> {
    dispatch!(conn, |c| {
        let owner = users::table.filter(users::handle_key.eq(key)).filter(users::id.ne(id));
        owner.select((users::created_at, users::id, users::handle)).first(c).await.optional()
    })
}

fn log_conflict(EmailConflict { user, older_user }: &EmailConflict) {
    tracing::warn!(
        %user,
        %older_user,
        "two users have the same e-mail address in different spellings; the newer user can sign in only with the exact \
         spelling"
    );
}
