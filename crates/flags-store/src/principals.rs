//! Queries for the principal of a credential: the credential and the user that it acts as, in one
//! statement.
//!
//! A transaction may change or delete the credential of its own caller. It must then check the
//! credential as it was before. Functions that change users, tokens and sessions therefore record
//! the previous states in the transaction.

use diesel::{ExpressionMethods, JoinOnDsl as _, NullableExpressionMethods, OptionalExtension, QueryDsl};
use diesel_async::RunQueryDsl;
use flags_domain::Role;
use uuid::Uuid;

pub use crate::principal_state::{CredentialRef, EffectiveGrant, StoredPrincipal};
use crate::{
    api_tokens::parse_grant,
    conn::{Conn, dispatch},
    error::{Result, StoreError},
    principal_state::{CredentialState, UserState},
    schema::{api_tokens, sessions, users},
    sql_types::{DbInstant, DbUuid},
    transaction::Tx,
};

/// Principal as it was before the transaction changed it.
#[derive(Clone, Copy, Debug)]
pub struct PriorPrincipal {
    /// The principal; `None` if the credential does not exist.
    pub principal: Option<StoredPrincipal>,
    /// Whether the transaction has changed or deleted the credential or its user.
    pub is_changed: bool,
}

/// Returns the principal of a credential; `None` if the credential does not exist or cannot be decoded.
pub async fn find(conn: &mut Conn, credential: &CredentialRef) -> Result<Option<StoredPrincipal>> {
    let found = match credential {
        CredentialRef::Token(hash) => find_token(conn, hash).await,
        CredentialRef::Session(hash) => find_session(conn, hash).await,
        CredentialRef::User(id) => find_user(conn, *id).await.map(|user| Some(identified_by_issuer(*id, user))),
        CredentialRef::AnyUser(id) => {
            let user = find_user(conn, *id).await;
            user.map(|user| Some(identified_by_issuer(*id, user.or(Some(UserState::UNKNOWN)))))
        }
    };
    match found {
        Err(StoreError::Corrupt(_)) => Ok(None),
        found => found,
    }
}

fn identified_by_issuer(id: Uuid, user: Option<UserState>) -> StoredPrincipal {
    StoredPrincipal { credential: CredentialState::unlimited(id, None), user }
}

/// Returns the principal of a credential as it was before the transaction changed it.
///
/// Reads the current state of rows that the transaction has not changed, including changes that
/// other transactions have committed.
pub async fn find_prior(tx: &mut Tx, credential: &CredentialRef) -> Result<PriorPrincipal> {
    let stored = find(tx.conn(), credential).await?;
    let prior_credential = tx.prior_states().credential(credential);
    let Some(state) = prior_credential.or(stored.map(|stored| stored.credential)) else {
        return Ok(PriorPrincipal { principal: None, is_changed: false });
    };
    let prior_user = state.user_id.and_then(|id| tx.prior_states().user(id));
    let user = match (prior_user, stored, state.user_id) {
        (Some(user), ..) => Some(user),
        (None, Some(stored), _) => stored.user,
        // The transaction has deleted the credential, but not its user.
        (None, None, Some(id)) => find_user(tx.conn(), id).await?,
        (None, None, None) => None,
    };
    let principal = Some(StoredPrincipal { credential: state, user });
    Ok(PriorPrincipal { principal, is_changed: prior_credential.is_some() || prior_user.is_some() })
}

async fn find_token(conn: &mut Conn, hash: &[u8; 32]) -> Result<Option<StoredPrincipal>> {
    type TokenColumns = (Option<String>, Option<String>, Option<DbUuid>, Option<DbInstant>, Option<DbInstant>);
    let row: Option<(TokenColumns, Option<(String, bool)>)> = dispatch!(conn, |c| {
        let user = users::table.on(api_tokens::user_id.eq(users::id.nullable()));
        let token = api_tokens::table.left_join(user).filter(api_tokens::token_hash.eq(&hash[..]));
        let columns =
            (api_tokens::role, api_tokens::scope, api_tokens::user_id, api_tokens::expires_at, api_tokens::revoked_at);
        token.select((columns, (users::role, users::active).nullable())).first(c).await.optional()
    })?;
    let Some(((role, scope, user_id, expires_at, revoked_at), user)) = row else { return Ok(None) };
    let credential = CredentialState {
        grant: parse_grant(role.as_deref(), scope.as_deref())?,
        user_id: user_id.map(|id| id.0),
        expires_at: expires_at.map(|at| at.0),
        is_revoked: revoked_at.is_some(),
    };
    Ok(Some(StoredPrincipal { credential, user: parse_user(user)? }))
}

async fn find_session(conn: &mut Conn, hash: &[u8; 32]) -> Result<Option<StoredPrincipal>> {
    let row: Option<(DbUuid, DbInstant, String, bool)> = dispatch!(conn, |c| {
        let session = sessions::table.inner_join(users::table.on(sessions::user_id.eq(users::id)));
        let session = session.filter(sessions::token_hash.eq(&hash[..]));
        session.select((sessions::user_id, sessions::ends_at, users::role, users::active)).first(c).await.optional()
    })?;
    let Some((user_id, ends_at, role, active)) = row else { return Ok(None) };
    let credential = CredentialState::unlimited(user_id.0, Some(ends_at.0));
    Ok(Some(StoredPrincipal { credential, user: parse_user(Some((role, active)))? }))
}

async fn find_user(conn: &mut Conn, id: Uuid) -> Result<Option<UserState>> {
    let row: Option<(String, bool)> = dispatch!(conn, |c| {
        users::table.find(DbUuid(id)).select((users::role, users::active)).first(c).await.optional()
    })?;
    parse_user(row)
}

fn parse_user(columns: Option<(String, bool)>) -> Result<Option<UserState>> {
    let Some((role, active)) = columns else { return Ok(None) };
    let role = Role::parse(&role).ok_or_else(|| StoreError::corrupt("users", "unknown role"))?;
    Ok(Some(UserState { role, active }))
}
