//! API tokens: one named function a query.

use diesel::{
    BoolExpressionMethods, ExpressionMethods, Insertable, NullableExpressionMethods, OptionalExtension, QueryDsl,
    Queryable, Selectable, SelectableHelper,
};
use diesel_async::RunQueryDsl;
use flags_domain::Instant;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    actor_labels::{self, token_actor},
    change_log::{Action, ResourceKind},
    commit::{ChangeLogEntry, Tx},
    error::{Result, StoreError},
    page::{CountUpTo, Page},
    schema::api_tokens,
    sql_types::{DbInstant, DbUuid},
    store::{Conn, Store, on},
    users::Role,
};

/// What a token may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grant {
    /// What this role may; the lower of it and its user's role, if it has a user.
    Role(Role),
    /// Evaluate flags for any user, and nothing else.
    Evaluate,
}

/// An API token as it stands in the database: its hash, never itself.
#[derive(Clone, PartialEq, Eq)]
pub struct TokenRecord {
    /// Identifies it.
    pub id: Uuid,
    /// For people.
    pub name: String,
    /// SHA-256 of the token.
    pub hash: [u8; 32],
    /// The token's last four characters, to recognise it by.
    pub last_four: String,
    /// What it may do.
    pub grant: Grant,
    /// The user it acts as.
    pub user_id: Option<Uuid>,
    /// The actor who made it.
    pub created_by: String,
    /// When it was made.
    pub created_at: Instant,
    /// It is void from this instant on.
    pub expires_at: Option<Instant>,
    /// How long it was made for, in microseconds; `None` if without end. One that is rotated ends sooner.
    pub lifetime: Option<i64>,
    /// Set: it is void.
    pub revoked_at: Option<Instant>,
    /// When it was last used, as far as servers have written it down.
    pub last_used_at: Option<Instant>,
    /// The revision of its last change.
    pub revision: i64,
}

impl TokenRecord {
    /// Whether it is valid at `now`, as far as that can be told without a look at its user.
    pub fn is_live(&self, now: Instant) -> bool {
        self.revoked_at.is_none() && self.expires_at.is_none_or(|end| end > now)
    }
}

impl std::fmt::Debug for TokenRecord {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenRecord").field("id", &self.id).field("grant", &self.grant).finish_non_exhaustive()
    }
}

const EVALUATE: &str = "evaluate";

#[derive(Queryable, Selectable, Insertable)]
#[diesel(table_name = api_tokens)]
struct Row {
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

impl From<&TokenRecord> for Row {
    fn from(token: &TokenRecord) -> Self {
        let (role, scope) = match token.grant {
            Grant::Role(role) => (Some(role.as_str().to_owned()), None),
            Grant::Evaluate => (None, Some(EVALUATE.to_owned())),
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

impl TryFrom<Row> for TokenRecord {
    type Error = StoreError;

    fn try_from(row: Row) -> Result<Self> {
        let corrupt = |what: &str| StoreError::corrupt("api_tokens", what);
        let grant = match (row.role.as_deref(), row.scope.as_deref()) {
            (Some(role), None) => Grant::Role(Role::parse(role).ok_or_else(|| corrupt("unknown role"))?),
            (None, Some(EVALUATE)) => Grant::Evaluate,
            _ => return Err(corrupt("neither a known role nor a known scope")),
        };
        Ok(Self {
            id: row.id.0,
            name: row.name,
            hash: row.token_hash.try_into().map_err(|_| corrupt("a hash of the wrong length"))?,
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

/// All tokens that were not revoked, for loading the replica.
pub async fn load_all(conn: &mut Conn) -> Result<Vec<TokenRecord>> {
    let rows: Vec<Row> = on!(conn, |c| {
        let rows = api_tokens::table.filter(api_tokens::revoked_at.is_null());
        rows.order(api_tokens::id).select(Row::as_select()).load(c).await
    })?;
    rows.into_iter().map(TryInto::try_into).collect()
}

/// The tokens of these ids that exist.
pub async fn find_all(conn: &mut Conn, ids: &[Uuid]) -> Result<Vec<TokenRecord>> {
    let ids: Vec<_> = ids.iter().copied().map(DbUuid).collect();
    let rows: Vec<Row> = on!(conn, |c| {
        api_tokens::table.filter(api_tokens::id.eq_any(&ids)).select(Row::as_select()).load(c).await
    })?;
    rows.into_iter().map(TryInto::try_into).collect()
}

/// The token of this id.
pub async fn find(conn: &mut Conn, id: Uuid) -> Result<Option<TokenRecord>> {
    let row: Option<Row> =
        on!(conn, |c| api_tokens::table.find(DbUuid(id)).select(Row::as_select()).first(c).await.optional())?;
    row.map(TryInto::try_into).transpose()
}

/// Which tokens a list is to hold; all that is `None` does not matter.
#[derive(Clone, Debug, Default)]
pub struct TokenFilter {
    /// Only those that act as this user.
    pub user_id: Option<Uuid>,
    /// Only those that are valid at this instant.
    pub valid_at: Option<Instant>,
}

/// A page of tokens, newest first, those that were revoked among them.
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
    let total: i64 =
        on!(conn, |c| CountUpTo(filtered!(dsl::api_tokens.select(dsl::id).into_boxed::<Db>())).get_result(c).await)?;
    let rows: Vec<Row> = on!(conn, |c| {
        let mut query = filtered!(dsl::api_tokens.select(Row::as_select()).into_boxed::<Db>());
        if let Some((at, id)) = after {
            query = query.filter(
                dsl::created_at.lt(DbInstant(at)).or(dsl::created_at.eq(DbInstant(at)).and(dsl::id.gt(DbUuid(id)))),
            );
        }
        query.order((dsl::created_at.desc(), dsl::id.asc())).limit(i64::from(limit) + 1).load(c).await
    })?;
    let rows = rows.into_iter().map(TryInto::try_into).collect::<Result<Vec<_>>>()?;
    Ok(Page::cut(rows, limit, total))
}

/// Writes a new end, or the revocation, of a token that is still as it was `before`; a [`StoreError::Collision`] if it is
/// not.
pub async fn update(tx: &mut Tx, action: Action, before: &TokenRecord, after: &TokenRecord) -> Result<()> {
    let (expires_at, revoked_at) = (after.expires_at.map(DbInstant), after.revoked_at.map(DbInstant));
    let changed = on!(tx.conn(), |c| {
        let row = api_tokens::table.find(DbUuid(before.id)).filter(api_tokens::revision.eq(before.revision));
        let row = row.filter(api_tokens::revoked_at.is_null());
        let set = (api_tokens::expires_at.eq(expires_at), api_tokens::revoked_at.eq(revoked_at));
        diesel::update(row).set(set).execute(c).await
    })?;
    if changed == 0 {
        return Err(StoreError::Collision("the token was changed by another".to_owned()));
    }
    tx.record(entry(action, Some(before), Some(after)));
    Ok(())
}

/// Writes down when tokens were last used. Book-keeping: no revision.
pub async fn mark_used(store: &Store, used: &[(Uuid, Instant)]) -> Result<()> {
    let _writer = store.writer().await?;
    let mut conn = store.conn().await?;
    for (id, at) in used {
        on!(conn, |c| {
            let older =
                api_tokens::last_used_at.is_null().or(api_tokens::last_used_at.lt(DbInstant(*at)).assume_not_null());
            let row = api_tokens::table.find(DbUuid(*id)).filter(older);
            diesel::update(row).set(api_tokens::last_used_at.eq(DbInstant(*at))).execute(c).await
        })?;
    }
    Ok(())
}

/// The tokens that act as this user.
pub async fn of_user(conn: &mut Conn, user_id: Uuid) -> Result<Vec<TokenRecord>> {
    let rows: Vec<Row> = on!(conn, |c| {
        let rows = api_tokens::table.filter(api_tokens::user_id.eq(DbUuid(user_id)));
        rows.order(api_tokens::id).select(Row::as_select()).load(c).await
    })?;
    rows.into_iter().map(TryInto::try_into).collect()
}

/// Inserts a token, with its name as its label.
pub async fn insert(tx: &mut Tx, new: &TokenRecord) -> Result<()> {
    let row = Row::from(new);
    on!(tx.conn(), |c| diesel::insert_into(api_tokens::table).values(&row).execute(c).await)?;
    actor_labels::set_of(tx, &token_actor(new.id), &new.name, new.user_id).await?;
    tx.record(entry(Action::Created, None, Some(new)));
    Ok(())
}

/// Removes a token, with the user it acts as.
pub async fn delete(tx: &mut Tx, gone: &TokenRecord) -> Result<()> {
    let id = DbUuid(gone.id);
    on!(tx.conn(), |c| diesel::delete(api_tokens::table.find(id)).execute(c).await)?;
    tx.record(entry(Action::Deleted, Some(gone), None));
    Ok(())
}

/// The log holds no name of a token: it says that it changed, and what else became of the token.
fn entry(action: Action, before: Option<&TokenRecord>, after: Option<&TokenRecord>) -> ChangeLogEntry {
    let state = |token: &TokenRecord| {
        let (role, scope) = match token.grant {
            Grant::Role(role) => (Some(role.as_str()), None),
            Grant::Evaluate => (None, Some(EVALUATE)),
        };
        json!({
            "id": token.id, "last_four": token.last_four, "role": role, "scope": scope,
            "user_id": token.user_id, "expires_at": token.expires_at, "revoked_at": token.revoked_at,
        })
    };
    let mut after_state = after.map(state);
    if let (Some(before), Some(after), Some(fields)) =
        (before, after, after_state.as_mut().and_then(Value::as_object_mut))
    {
        fields.insert("changed".to_owned(), json!(changed_fields(before, after)));
    }
    ChangeLogEntry {
        action,
        entity: ResourceKind::ApiToken,
        entity_id: after.or(before).map(|token| token.id),
        flag_name: None,
        user_id: after.or(before).and_then(|token| token.user_id),
        before: before.map(state),
        after: after_state,
        reason: None,
    }
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
    fn the_log_says_what_became_of_a_token_and_not_its_name() {
        let before = TokenRecord {
            id: Uuid::nil(),
            name: "Ann's laptop".to_owned(),
            hash: [0; 32],
            last_four: "abcd".to_owned(),
            grant: Grant::Evaluate,
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
