//! Handles of users: the e-mail address or, without one, the external id. Keys make handles unique, and search texts
//! make them searchable.

use diesel::{ExpressionMethods, OptionalExtension, QueryDsl, dsl::exists};
use diesel_async::RunQueryDsl;
use flags_domain::{email_key, email_search_forms, search_form};

use super::{TABLE, UserRecord, UserRow, search};
use crate::{conn::dispatch, decoded::Decoded, error::Result, schema::users, sql_types::DbUuid, transaction::Tx};

/// Returns the e-mail address or, without one, the external id. Empty without either.
pub(super) fn handle<'u>(email: Option<&'u str>, external_id: Option<&'u str>) -> &'u str {
    email.or(external_id).unwrap_or_default()
}

/// Whether a handle is an e-mail address. External ids contain no `@`.
pub(super) fn is_email_handle(handle: &str) -> bool {
    handle.contains('@')
}

/// Returns the unique key for an e-mail address whose [`email_key`] already belongs to an older user.
pub(super) fn conflicting_email_key(email: &str) -> String {
    format!("{}\n{email}", email_key(email))
}

/// Returns the unique key of a user's handle. The key starts with the normalized handle, so prefix searches use it.
pub(super) fn handle_key(handle: &str) -> String {
    if is_email_handle(handle) { email_key(handle) } else { format!("{}\n{handle}", search_form(handle)) }
}

/// Returns the normalized content of `users.search_text`: the forms of the handle and the external id, separated by
/// [`search::SEPARATOR`], then a line feed and the display name.
pub(super) fn search_text(handle: &str, display_name: Option<&str>, external_id: Option<&str>) -> String {
    let mut ids = if is_email_handle(handle) { email_search_forms(handle) } else { vec![search_form(handle)] };
    ids.extend(external_id.filter(|id| *id != handle).map(search_form));
    format!("{}\n{}", ids.join(&search::SEPARATOR.to_string()), search_form(display_name.unwrap_or_default()))
}

/// Returns the two keys that a user with this e-mail address can have. A user has the second key if an older user
/// already has the first one. The second key matches only the exact spelling of the address, so it has priority. It
/// sorts after the first key.
pub(crate) fn email_lookup_keys(email: &str) -> [String; 2] {
    [email_key(email), conflicting_email_key(email)]
}

/// Gives the key of the address that `former` no longer has to the oldest of the users that have the same address in
/// another spelling, so that no further user can get the address.
pub(super) async fn promote_to_freed_key(tx: &mut Tx, former: &UserRecord) -> Result<()> {
    let Some(email) = &former.email else { return Ok(()) };
    let key = email_key(email);
    // Keys of conflicting users are the address, a line feed and the spelling.
    let (from, to) = (format!("{key}\n"), format!("{key}\u{b}"));
    let next: Option<Decoded<DbUuid>> = dispatch!(tx.conn(), |c| {
        let conflicting = users::table.filter(users::handle_key.gt(&from)).filter(users::handle_key.lt(&to));
        conflicting.order((users::created_at, users::id)).select(users::id).first(c).await.optional()
    })?;
    let Some(next) = next.and_then(|id| id.or_logged(TABLE)) else { return Ok(()) };
    // `former` may have been one of the users in conflict.
    let is_taken: bool = dispatch!(tx.conn(), |c| {
        diesel::select(exists(users::table.filter(users::handle_key.eq(&key)).select(users::id))).get_result(c).await
    })?;
    if !is_taken {
        dispatch!(tx.conn(), |c| {
            diesel::update(users::table.find(next)).set(users::handle_key.eq(&key)).execute(c).await
        })?;
    }
    Ok(())
}

/// Whether the key of a row belongs to another user.
pub(super) async fn is_key_of_another(tx: &mut Tx, row: &UserRow) -> Result<bool> {
    let owner: Option<Decoded<DbUuid>> = dispatch!(tx.conn(), |c| {
        let owner = users::table.filter(users::handle_key.eq(&row.handle_key)).filter(users::id.ne(row.id));
        owner.select(users::id).first(c).await.optional()
    })?;
    Ok(owner.is_some())
}
