//! API tokens. The secret is returned once, on creation; the database stores its SHA-256.

use std::{collections::HashMap, time::Duration};

use flags_domain::{Instant, Violation, check_key};
use flags_store::{
    Author, Committed, Page, StoreError, Tx,
    api_tokens::{self, TokenFilter, TokenGrant, TokenRecord},
    change_log::Action,
    users::{self, Role, UserRecord},
};
use uuid::Uuid;

use super::{
    check::CommandAuthor,
    secret::{Secret, SecretKind, hash},
};
use crate::{
    clock::micros,
    core::{Command, CommandOutcome, Core},
    error::{Conflict, ResourceKind, Result, ServiceError, check},
    precondition::Precondition,
    replica::Replica,
};

/// Maximum time during which a rotated token and its replacement are both valid.
pub const MAX_OVERLAP: Duration = Duration::from_secs(7 * 24 * 3_600);

/// Properties of a new API token.
#[derive(Clone, Debug)]
pub struct NewToken {
    /// Display name, at most 255 characters.
    pub name: String,
    /// Permissions: a role or the scope `evaluate`.
    pub grant: TokenGrant,
    /// User that the token acts as. Required for the role `user`, not allowed for the scope `evaluate`.
    pub user_id: Option<Uuid>,
    /// Expiry, which must be in the future; `None` for a token that does not expire.
    pub expires_at: Option<Instant>,
}

/// Options for rotating a token.
#[derive(Clone, Copy, Debug)]
pub struct TokenRotation {
    /// Time for which the old token stays valid, at most [`MAX_OVERLAP`].
    pub overlap: Duration,
    /// Expiry of the new token. With `None`, the new token gets the lifetime of the old token, or
    /// no expiry if the old token had none.
    pub expires_at: Option<Instant>,
}

/// Token with the label of its user.
#[derive(Clone, Debug)]
pub struct TokenDetail {
    /// Stored token.
    pub record: TokenRecord,
    /// Label of the user: the display name, else the e-mail address, else the external id, else the id. `None` for a
    /// token without a user.
    pub user_label: Option<String>,
}

impl TokenDetail {
    fn new(record: TokenRecord, labels: &HashMap<Uuid, String>) -> Self {
        let user_label = record.user_id.map(|id| labels.get(&id).cloned().unwrap_or_else(|| id.to_string()));
        Self { record, user_label }
    }
}

/// Newly created token with its secret, which cannot be read again later.
#[derive(Clone, Debug)]
pub struct CreatedToken {
    /// Secret that clients send in the `Authorization` header.
    pub secret: Secret,
    /// Stored part of the token.
    pub record: TokenRecord,
    /// Label of the token's user. `None` for a token without a user.
    pub user_label: Option<String>,
}

/// Creates, lists, rotates and revokes API tokens.
#[derive(Clone)]
pub struct TokenService {
    core: Core,
}

impl TokenService {
    /// Creates a service that executes its commands on `core`.
    pub const fn new(core: Core) -> Self {
        Self { core }
    }

    /// Returns a page of tokens, newest first. `after` is the position of the last token of the
    /// previous page.
    pub async fn list(
        &self,
        filter: &TokenFilter,
        after: Option<(Instant, Uuid)>,
        limit: u32,
    ) -> Result<Page<TokenDetail>> {
        self.core
            .read(async |conn| {
                let page = api_tokens::list(conn, filter, after, limit).await?;
                let user_ids: Vec<_> = page.items.iter().filter_map(|token| token.user_id).collect();
                let labels = users::find_labels(conn, &user_ids).await?;
                Ok(page.map(|record| TokenDetail::new(record, &labels)))
            })
            .await
    }

    /// Returns a token by id, including an expired or revoked token.
    pub async fn get(&self, id: Uuid) -> Result<TokenDetail> {
        let found = self.core.read(async |conn| {
            let Some(record) = api_tokens::find(conn, id).await? else { return Ok(None) };
            let user_ids: Vec<_> = record.user_id.into_iter().collect();
            let labels = users::find_labels(conn, &user_ids).await?;
            Ok(Some(TokenDetail::new(record, &labels)))
        });
        found.await?.ok_or(ServiceError::NotFound(ResourceKind::ApiToken))
    }

    /// Creates a token with a new secret.
    pub async fn create(&self, author: CommandAuthor, new_token: NewToken) -> Result<CommandOutcome<CreatedToken>> {
        let secret = Secret::generate(SecretKind::ApiToken)?;
        self.core.execute(author, CreateToken { id: Uuid::now_v7(), secret, new_token }).await
    }

    /// Revokes a token permanently.
    pub async fn revoke(&self, author: CommandAuthor, id: Uuid, precondition: Precondition) -> Result<Committed> {
        Ok(self.core.execute(author, RevokeToken { id, precondition }).await?.committed)
    }

    /// Creates a replacement for a token. The old token stays valid for `rotation.overlap`, but not
    /// beyond its own expiry.
    pub async fn rotate(
        &self,
        author: CommandAuthor,
        id: Uuid,
        rotation: TokenRotation,
        precondition: Precondition,
    ) -> Result<CommandOutcome<CreatedToken>> {
        let secret = Secret::generate(SecretKind::ApiToken)?;
        let command = RotateToken { id, new_id: Uuid::now_v7(), secret, rotation, precondition };
        self.core.execute(author, command).await
    }
}

/// Writes to the database the last-use times that the replica has collected since the previous
/// call.
pub async fn record_token_uses(core: &Core, replica: &Replica) -> Result<()> {
    let used = replica.take_token_uses();
    if used.is_empty() { Ok(()) } else { Ok(api_tokens::record_last_used(core.store(), &used).await?) }
}

#[derive(Clone)]
struct CreateToken {
    id: Uuid,
    secret: Secret,
    new_token: NewToken,
}

impl Command for CreateToken {
    type Output = CreatedToken;

    async fn apply(&self, tx: &mut Tx, author: &Author) -> Result<CreatedToken> {
        let new_token = &self.new_token;
        check(validate(new_token, tx.now()))?;
        let user = match new_token.user_id {
            None => None,
            Some(id) => Some(users::lock_shared(tx, id).await?.ok_or(ServiceError::NotFound(ResourceKind::User))?),
        };
        insert(tx, author, self.id, &self.secret, new_token, user.as_ref()).await
    }
}

/// Inserts a token. `user` is the locked user of the token.
async fn insert(
    tx: &mut Tx,
    author: &Author,
    id: Uuid,
    secret: &Secret,
    new_token: &NewToken,
    user: Option<&UserRecord>,
) -> Result<CreatedToken> {
    let record = TokenRecord {
        id,
        name: new_token.name.clone(),
        hash: hash(secret.reveal()),
        last_four: secret.last_four().to_owned(),
        grant: new_token.grant,
        user_id: new_token.user_id,
        created_by: author.actor.clone(),
        created_at: tx.now(),
        expires_at: new_token.expires_at,
        lifetime: new_token.expires_at.map(|expiry| expiry.as_micros() - tx.now().as_micros()),
        revoked_at: None,
        last_used_at: None,
        revision: 0,
    };
    api_tokens::insert(tx, &record).await?;
    let labels = user.map(|user| (user.id, user.identity().label(user.id))).into_iter().collect();
    let TokenDetail { record, user_label } = TokenDetail::new(record, &labels);
    Ok(CreatedToken { secret: secret.clone(), record, user_label })
}

/// Returns a token that is not revoked, and its user with a shared lock until the end of the transaction. The user is
/// `None` if the token has none, or if the user's row cannot be read.
async fn lock_unrevoked_token(
    tx: &mut Tx,
    id: Uuid,
    precondition: &Precondition,
) -> Result<(TokenRecord, Option<UserRecord>)> {
    let user_id = api_tokens::find(tx.conn(), id).await?.and_then(|token| token.user_id);
    let mut user = None;
    if let Some(user_id) = user_id {
        // The lock order requires the lock on the user first. The lock also prevents the deletion
        // of the user and its tokens. It is held even if the user's row cannot be read.
        match users::lock_shared(tx, user_id).await {
            Ok(locked) => user = locked,
            Err(StoreError::Corrupt(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let token = api_tokens::find(tx.conn(), id).await?.filter(|token| token.revoked_at.is_none());
    precondition.check(tx, token.as_ref().map(|token| token.revision)).await?;
    Ok((token.ok_or(ServiceError::NotFound(ResourceKind::ApiToken))?, user))
}

#[derive(Clone)]
struct RevokeToken {
    id: Uuid,
    precondition: Precondition,
}

impl Command for RevokeToken {
    type Output = ();

    async fn apply(&self, tx: &mut Tx, _: &Author) -> Result<()> {
        let (before, _) = lock_unrevoked_token(tx, self.id, &self.precondition).await?;
        let after = TokenRecord { revoked_at: Some(tx.now()), ..before.clone() };
        Ok(api_tokens::update(tx, Action::Revoked, &before, &after).await?)
    }
}

#[derive(Clone)]
struct RotateToken {
    id: Uuid,
    new_id: Uuid,
    secret: Secret,
    rotation: TokenRotation,
    precondition: Precondition,
}

impl Command for RotateToken {
    type Output = CreatedToken;

    async fn apply(&self, tx: &mut Tx, author: &Author) -> Result<CreatedToken> {
        let (before, user) = lock_unrevoked_token(tx, self.id, &self.precondition).await?;
        let now = tx.now();
        if !before.is_valid_at(now) {
            return Err(Conflict::TokenExpired.into());
        }
        let overlap_end = now.plus_micros(micros(self.rotation.overlap));
        let old_expiry = before.expires_at.map_or(overlap_end, |expiry| expiry.min(overlap_end));
        let new_token = NewToken {
            name: before.name.clone(),
            grant: before.grant,
            user_id: before.user_id,
            expires_at: self.rotation.expires_at.or_else(|| before.lifetime.map(|lifetime| now.plus_micros(lifetime))),
        };
        check(validate(&new_token, now))?;
        let after = TokenRecord { expires_at: Some(old_expiry), ..before.clone() };
        if after != before {
            api_tokens::update(tx, Action::Updated, &before, &after).await?;
        }
        insert(tx, author, self.new_id, &self.secret, &new_token, user.as_ref()).await
    }
}

fn validate(new_token: &NewToken, now: Instant) -> Vec<Violation> {
    let mut violations: Vec<_> = check_key("/name", &new_token.name, 255).into_iter().collect();
    match (new_token.grant, new_token.user_id) {
        (TokenGrant::Role(Role::User), None) => {
            violations.push(Violation::new("/user_id", "required", "is required for a token with role user"));
        }
        (TokenGrant::Evaluate, Some(_)) => {
            violations.push(Violation::new(
                "/user_id",
                "not_allowed",
                "is not allowed for a token with scope evaluate",
            ));
        }
        _ => {}
    }
    if new_token.expires_at.is_some_and(|expiry| expiry <= now) {
        violations.push(Violation::new(
            "/expires_at",
            "not_in_future",
            "must be in the future; omit it for a token that does not expire",
        ));
    }
    violations
}
