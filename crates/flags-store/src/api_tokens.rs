//! Queries for API tokens (`api_tokens`).

use diesel::{
    BoolExpressionMethods, ExpressionMethods, Insertable, NullableExpressionMethods, OptionalExtension, QueryDsl,
    Queryable, Selectable,
};
use diesel_async::RunQueryDsl;
pub use flags_domain::TokenGrant;
use flags_domain::{Action, Instant, ResourceKind, Role};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    actor_labels::{self, token_actor},
    change_log::ChangeLogEntry,
    conn::{Conn, dispatch},
    decoded::{Decoded, RowKey, columns, readable, to_record},
    error::{Result, StoreError},
    page::{BoundedCount, Page, next_bound},
    principal_state::{CredentialRef, CredentialState},
    schema::api_tokens,
    sql_types::{DbInstant, DbUuid},
    store::Store,
    transaction::Tx,
};

/// Stored API token. Contains the hash of the secret token, not the token.
#[derive(Clone, PartialEq, Eq)]
pub struct TokenRecord {
    /// Id of the token, which is not secret.
    pub id: Uuid,
    /// Display name.
    pub name: String,
    /// SHA-256 of the secret token.
    pub hash: [u8; 32],
    /// Last four characters of the secret token, shown to help users recognize it.
    pub last_four: String,
    /// Permissions of the token.
    pub grant: TokenGrant,
    /// User on whose behalf the token acts. `None` if the token is its own principal.
    pub user_id: Option<Uuid>,
    /// Actor that created the token.
    pub created_by: String,
    /// Creation time.
    pub created_at: Instant,
    /// Expiry. The token is invalid from this time on. `None` if it does not expire.
    pub expires_at: Option<Instant>,
    /// Lifetime at creation, in microseconds. `None` if unlimited. Rotation shortens `expires_at` but not this value.
    pub lifetime: Option<i64>,
    /// Time of revocation. A revoked token is invalid.
    pub revoked_at: Option<Instant>,
    /// Time of the last use. May be out of date, because servers write it in batches.
    pub last_used_at: Option<Instant>,
    /// Revision of the last change.
    pub revision: i64,
}

impl TokenRecord {
    /// Returns whether the token is neither revoked nor expired at `now`. Does not check the token's user.
    pub fn is_valid_at(&self, now: Instant) -> bool {
        self.revoked_at.is_none() && self.expires_at.is_none_or(|expiry| expiry > now)
    }
}

impl std::fmt::Debug for TokenRecord {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenRecord").field("id", &self.id).field("grant", &self.grant).finish_non_exhaustive()
    }
}

const EVALUATE_SCOPE: &str = "evaluate";

#[derive(Queryable, Selectable, Insertable)]
#[diesel(table_name = api_tokens)]
struct ApiTokenRow {
    id: DbUuid,
    name: String,
    token_hash: Vec<u8>,
    last_four: String,
    role: Option<String>,
    scope: Option<String>,
    user_id: Option<DbUuid>,
    created_by: String,
    created_at: DbInstant,
    expires_at: Option<DbInstant>,
    lifetime: Option<i64>,
    revoked_at: Option<DbInstant>,
    last_used_at: Option<DbInstant>,
    revision: i64,
}

impl From<&TokenRecord> for ApiTokenRow {
    fn from(token: &TokenRecord) -> Self {
        let (role, scope) = match token.grant {
            TokenGrant::Role(role) => (Some(role.as_str().to_owned()), None),
            TokenGrant::Evaluate => (None, Some(EVALUATE_SCOPE.to_owned())),
        };
        Self {
            id: DbUuid(token.id),
            name: token.name.clone(),
            token_hash: token.hash.to_vec(),
            last_four: token.last_four.clone(),
            role,
            scope,
            user_id: token.user_id.map(DbUuid),
            created_by: token.created_by.clone(),
            created_at: DbInstant(token.created_at),
            expires_at: token.expires_at.map(DbInstant),
            lifetime: token.lifetime,
            revoked_at: token.revoked_at.map(DbInstant),
            last_used_at: token.last_used_at.map(DbInstant),
            revision: token.revision,
        }
    }
}

impl TryFrom<ApiTokenRow> for TokenRecord {
    type Error = StoreError;

    fn try_from(row: ApiTokenRow) -> Result<Self> {
        let grant = parse_grant(row.role.as_deref(), row.scope.as_deref())?;
        Ok(Self {
            id: row.id.0,
            name: row.name,
            hash: row.token_hash.try_into().map_err(|_| corrupt("token_hash must have 32 bytes"))?,
            last_four: row.last_four,
            grant,
            user_id: row.user_id.map(|id| id.0),
            created_by: row.created_by,
            created_at: row.created_at.0,
            expires_at: row.expires_at.map(|at| at.0),
            lifetime: row.lifetime,
            revoked_at: row.revoked_at.map(|at| at.0),
            last_used_at: row.last_used_at.map(|at| at.0),
            revision: row.revision,
        })
    }
}

/// Parses the columns `role` and `scope`.
pub(crate) fn parse_grant(role: Option<&str>, scope: Option<&str>) -> Result<TokenGrant> {
    match (role, scope) {
        (Some(role), None) => Ok(TokenGrant::Role(Role::parse(role).ok_or_else(|| corrupt("unknown role"))?)),
        (None, Some(EVALUATE_SCOPE)) => Ok(TokenGrant::Evaluate),
        _ => Err(corrupt("must have either a role or a known scope")),
    }
}

fn corrupt(detail: &str) -> StoreError {
    StoreError::corrupt(TABLE, detail)
}

impl From<&TokenRecord> for CredentialState {
    fn from(token: &TokenRecord) -> Self {
        let is_revoked = token.revoked_at.is_some();
        Self { grant: token.grant, user_id: token.user_id, expires_at: token.expires_at, is_revoked }
    }
}

impl RowKey for ApiTokenRow {
    fn key(&self) -> String {
        self.id.0.to_string()
    }
}

const TABLE: &str = "api_tokens";

/// Returns all tokens that are not revoked, for loading the replica. Omits rows that cannot be
/// read, so the server does not accept these tokens.
pub async fn load_all(conn: &mut Conn) -> Result<Vec<TokenRecord>> {
    let rows: Vec<Decoded<ApiTokenRow>> = dispatch!(conn, |c| {
        let rows = api_tokens::table.filter(api_tokens::revoked_at.is_null());
        rows.order(api_tokens::id).select(columns!(ApiTokenRow)).load(c).await
    })?;
    Ok(readable(TABLE, rows))
}

/// Returns the tokens with the given ids. Omits unknown ids and rows that cannot be read.
pub async fn find_all(conn: &mut Conn, ids: &[Uuid]) -> Result<Vec<TokenRecord>> {
    let ids: Vec<_> = ids.iter().copied().map(DbUuid).collect();
    let rows: Vec<Decoded<ApiTokenRow>> = dispatch!(conn, |c| {
        api_tokens::table.filter(api_tokens::id.eq_any(&ids)).select(columns!(ApiTokenRow)).load(c).await
    })?;
    Ok(readable(TABLE, rows))
}

/// Returns the token with this id.
pub async fn find(conn: &mut Conn, id: Uuid) -> Result<Option<TokenRecord>> {
    let row: Option<Decoded<ApiTokenRow>> = dispatch!(conn, |c| api_tokens::table
        .find(DbUuid(id))
        .select(columns!(ApiTokenRow))
        .first(c)
        .await
        .optional())?;
    row.map(|row| row.into_result(TABLE)?.try_into()).transpose()
}

/// Filter for [`list`]. A field that is `None` does not restrict the result.
#[derive(Clone, Debug, Default)]
pub struct TokenFilter {
    /// Only tokens that act on behalf of this user.
    pub user_id: Option<Uuid>,
    /// Only tokens that are neither revoked nor expired at this time.
    pub valid_at: Option<Instant>,
}

/// Returns a page of tokens, newest first, then by id. Includes revoked tokens unless `filter` excludes them.
/// Omits rows that cannot be read.
///
/// `after` is the creation time and id of the last token of the previous page.
pub async fn list(
    conn: &mut Conn,
    filter: &TokenFilter,
    after: Option<(Instant, Uuid)>,
    limit: u32,
) -> Result<Page<TokenRecord>> {
    use api_tokens::dsl;
    macro_rules! filtered {
        ($query:expr) => {{
            let mut query = $query;
            if let Some(user_id) = filter.user_id {
                query = query.filter(dsl::user_id.eq(DbUuid(user_id)));
            }
            if let Some(now) = filter.valid_at {
                let unexpired = dsl::expires_at.is_null().or(dsl::expires_at.gt(DbInstant(now)).assume_not_null());
                query = query.filter(dsl::revoked_at.is_null()).filter(unexpired);
            }
            query
        }};
    }
    let total: i64 = dispatch!(conn, |c| BoundedCount(filtered!(dsl::api_tokens.select(dsl::id).into_boxed::<Db>()))
        .get_result(c)
        .await)?;
    let mut bound = i64::from(limit) + 1;
    loop {
        let rows: Vec<Decoded<ApiTokenRow>> = dispatch!(conn, |c| {
            let mut query = filtered!(dsl::api_tokens.select(columns!(ApiTokenRow)).into_boxed::<Db>());
            if let Some((at, id)) = after {
                query = query.filter(
                    dsl::created_at.lt(DbInstant(at)).or(dsl::created_at.eq(DbInstant(at)).and(dsl::id.gt(DbUuid(id)))),
                );
            }
            query.order((dsl::created_at.desc(), dsl::id.asc())).limit(bound).load(c).await
        })?;
        let found = rows.len();
        let items: Vec<TokenRecord> = readable(TABLE, rows);
        match next_bound(limit, bound, found, items.len()) {
            Some(next) => bound = next,
            None => return Ok(Page::from_overfetched(items, limit, total)),
        }
    }
}

/// Writes the expiry and revocation time of a token and records the change as `action`.
///
/// Fails with [`StoreError::TransactionConflict`] if the token has changed since `before` was read.
pub async fn update(tx: &mut Tx, action: Action, before: &TokenRecord, after: &TokenRecord) -> Result<()> {
    let (expires_at, revoked_at) = (after.expires_at.map(DbInstant), after.revoked_at.map(DbInstant));
    let changed = dispatch!(tx.conn(), |c| {
        let row = api_tokens::table.find(DbUuid(before.id)).filter(api_tokens::revision.eq(before.revision));
        let row = row.filter(api_tokens::revoked_at.is_null());
        let set = (api_tokens::expires_at.eq(expires_at), api_tokens::revoked_at.eq(revoked_at));
        diesel::update(row).set(set).execute(c).await
    })?;
    if changed == 0 {
        return Err(StoreError::TransactionConflict("another transaction has changed the token".to_owned()));
    }
    tx.prior_states().record_credential(CredentialRef::Token(before.hash), before.into());
    tx.record(entry(action, Some(before), Some(after)));
    Ok(())
}

/// Writes the last-use times of tokens. Never replaces a later time. Not recorded in the change
/// log.
pub async fn record_last_used(store: &Store, used: &[(Uuid, Instant)]) -> Result<()> {
    let _permit = store.write_permit().await?;
    let mut conn = store.conn().await?;
    for (id, at) in used {
        dispatch!(conn, |c| {
            let is_older =
                api_tokens::last_used_at.is_null().or(api_tokens::last_used_at.lt(DbInstant(*at)).assume_not_null());
            let row = api_tokens::table.find(DbUuid(*id)).filter(is_older);
            diesel::update(row).set(api_tokens::last_used_at.eq(DbInstant(*at))).execute(c).await
        })?;
    }
    Ok(())
}

/// Inserts a token. The name of the token becomes its actor label.
pub async fn insert(tx: &mut Tx, new: &TokenRecord) -> Result<()> {
    let row = ApiTokenRow::from(new);
    dispatch!(tx.conn(), |c| diesel::insert_into(api_tokens::table).values(&row).execute(c).await)?;
    actor_labels::set_for_user(tx, &token_actor(new.id), &new.name, new.user_id).await?;
    tx.record(entry(Action::Created, None, Some(new)));
    Ok(())
}

/// Deletes all tokens that act on behalf of this user, including those that cannot be read.
pub async fn delete_by_user(tx: &mut Tx, user_id: Uuid) -> Result<()> {
    let rows: Vec<(Decoded<DbUuid>, Decoded<ApiTokenRow>)> = dispatch!(tx.conn(), |c| {
        let rows = api_tokens::table.filter(api_tokens::user_id.eq(DbUuid(user_id)));
        rows.order(api_tokens::id).select((api_tokens::id, columns!(ApiTokenRow))).load(c).await
    })?;
    for (id, row) in rows {
        let id = id.into_result(TABLE)?;
        let token: Option<TokenRecord> = row.or_logged(TABLE).and_then(|row| to_record(TABLE, row));
        dispatch!(tx.conn(), |c| diesel::delete(api_tokens::table.find(id)).execute(c).await)?;
        let Some(token) = token else {
            let entry = entry(Action::Deleted, None, None);
            tx.record(ChangeLogEntry { resource_id: Some(id.0), user_id: Some(user_id), ..entry });
            continue;
        };
        tx.prior_states().record_credential(CredentialRef::Token(token.hash), (&token).into());
        tx.record(entry(Action::Deleted, Some(&token), None));
    }
    Ok(())
}

fn entry(action: Action, before: Option<&TokenRecord>, after: Option<&TokenRecord>) -> ChangeLogEntry {
    let mut after_state = after.map(logged_state);
    if let (Some(before), Some(after), Some(fields)) =
        (before, after, after_state.as_mut().and_then(Value::as_object_mut))
    {
        fields.insert("changed".to_owned(), json!(changed_fields(before, after)));
    }
    ChangeLogEntry {
        action,
        resource_kind: ResourceKind::ApiToken,
        resource_id: after.or(before).map(|token| token.id),
        flag_name: None,
        user_id: after.or(before).and_then(|token| token.user_id),
        before: before.map(logged_state),
        after: after_state,
        reason: None,
    }
}

/// State of a token as recorded in the change log. Omits the name, which may be personal data.
fn logged_state(token: &TokenRecord) -> Value {
    let (role, scope) = match token.grant {
        TokenGrant::Role(role) => (Some(role.as_str()), None),
        TokenGrant::Evaluate => (None, Some(EVALUATE_SCOPE)),
    };
    json!({
        "id": token.id, "last_four": token.last_four, "role": role, "scope": scope,
        "user_id": token.user_id, "expires_at": token.expires_at, "revoked_at": token.revoked_at,
    })
}

fn changed_fields(before: &TokenRecord, after: &TokenRecord) -> Vec<&'static str> {
    let fields =
        [("expires_at", before.expires_at != after.expires_at), ("revoked_at", before.revoked_at != after.revoked_at)];
    fields.into_iter().filter(|(_, changed)| *changed).map(|(name, _)| name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn change_log_entry_lists_changed_fields_and_omits_the_name() {
        let before = TokenRecord {
            id: Uuid::nil(),
            name: "Ann's laptop".to_owned(),
            hash: [0; 32],
            last_four: "abcd".to_owned(),
            grant: TokenGrant::Evaluate,
            user_id: None,
            created_by: "system:test".to_owned(),
            created_at: Instant::from_micros(0),
            expires_at: None,
            lifetime: None,
            revoked_at: None,
            last_used_at: None,
            revision: 1,
        };
        let after = TokenRecord { revoked_at: Some(before.created_at), ..before.clone() };
        let entry = entry(Action::Updated, Some(&before), Some(&after));
        assert!(!format!("{entry:?}").contains("Ann"), "{entry:?}");
        assert_eq!(entry.after.unwrap()["changed"], json!(["revoked_at"]));
    }
}
