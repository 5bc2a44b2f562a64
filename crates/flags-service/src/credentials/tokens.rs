//! API tokens: made once, shown once, kept as their SHA-256.

use std::time::Duration;

use flags_domain::{Instant, Violation, check_key};
use flags_store::{
    Author, Committed, Page, Tx,
    api_tokens::{self, Grant, TokenFilter, TokenRecord},
    change_log::Action,
    users::{self, Role},
};
use uuid::Uuid;

use super::secret::{Secret, SecretKind, hash};
use crate::{
    clock::micros,
    core::{Command, CommandOutcome, Core},
    error::{Conflict, ResourceKind, Result, ServiceError, check},
    precondition::Precondition,
    replica::Replica,
};

/// Longest that a rotated token may go on beside the one that follows it.
pub const MAX_OVERLAP: Duration = Duration::from_secs(7 * 24 * 3_600);

/// A new token.
#[derive(Clone, Debug)]
pub struct TokenInput {
    /// For people.
    pub name: String,
    /// What it may do.
    pub grant: Grant,
    /// The user it acts as. The role `user` needs one, the scope `evaluate` takes none.
    pub user_id: Option<Uuid>,
    /// It is void from this instant on; must lie in the future.
    pub expires_at: Option<Instant>,
}

/// How a token is followed by another.
#[derive(Clone, Copy, Debug)]
pub struct Rotation {
    /// How long the old one goes on, at most [`MAX_OVERLAP`].
    pub overlap: Duration,
    /// When the new one ends; `None`: after as long as the old one was made for, if it was not made without end.
    pub expires_at: Option<Instant>,
}

/// A token that was just made. This is the only time its secret is seen.
#[derive(Clone, Debug)]
pub struct NewToken {
    /// What its bearer shows.
    pub secret: Secret,
    /// What is kept of it.
    pub record: TokenRecord,
}

/// Makes, lists and revokes tokens.
#[derive(Clone)]
pub struct TokenService {
    core: Core,
}

impl TokenService {
    /// On this core.
    pub const fn new(core: Core) -> Self {
        Self { core }
    }

    /// A page of tokens, newest first.
    pub async fn list(
        &self,
        filter: &TokenFilter,
        after: Option<(Instant, Uuid)>,
        limit: u32,
    ) -> Result<Page<TokenRecord>> {
        self.core.read(async |conn| api_tokens::list(conn, filter, after, limit).await).await
    }

    /// The token of this id.
    pub async fn get(&self, id: Uuid) -> Result<TokenRecord> {
        let found = self.core.read(async |conn| api_tokens::find(conn, id).await).await?;
        found.ok_or(ServiceError::NotFound(ResourceKind::ApiToken))
    }

    /// Makes a token.
    pub async fn create(&self, author: Author, input: TokenInput) -> Result<CommandOutcome<NewToken>> {
        let secret = Secret::generate(SecretKind::ApiToken)?;
        self.core.execute(author, CreateToken { id: Uuid::now_v7(), secret, input }).await
    }

    /// Makes a token void for good.
    pub async fn revoke(&self, author: Author, id: Uuid, precondition: Precondition) -> Result<Committed> {
        Ok(self.core.execute(author, RevokeToken { id, precondition }).await?.committed)
    }

    /// Makes a token that takes the place of another, which goes on for a while.
    pub async fn rotate(
        &self,
        author: Author,
        id: Uuid,
        rotation: Rotation,
        precondition: Precondition,
    ) -> Result<CommandOutcome<NewToken>> {
        let secret = Secret::generate(SecretKind::ApiToken)?;
        let command = RotateToken { id, new_id: Uuid::now_v7(), secret, rotation, precondition };
        self.core.execute(author, command).await
    }
}

/// Writes down which tokens were used since the last time, and when.
pub async fn note_uses(core: &Core, replica: &Replica) -> Result<()> {
    let used = replica.take_token_uses();
    if used.is_empty() { Ok(()) } else { Ok(api_tokens::mark_used(core.store(), &used).await?) }
}

#[derive(Clone)]
struct CreateToken {
    id: Uuid,
    secret: Secret,
    input: TokenInput,
}

impl Command for CreateToken {
    type Output = NewToken;

    async fn apply(&self, tx: &mut Tx, author: &Author) -> Result<NewToken> {
        let input = &self.input;
        check(violations(input, tx.now()))?;
        if let Some(user_id) = input.user_id {
            tx.lock_user_shared(user_id).await?;
            users::find(tx.conn(), user_id).await?.ok_or(ServiceError::NotFound(ResourceKind::User))?;
        }
        insert(tx, author, self.id, &self.secret, input).await
    }

    fn stamp(output: &mut Self::Output, revision: i64) {
        output.record.revision = revision;
    }
}

async fn insert(tx: &mut Tx, author: &Author, id: Uuid, secret: &Secret, input: &TokenInput) -> Result<NewToken> {
    let record = TokenRecord {
        id,
        name: input.name.clone(),
        hash: hash(secret.reveal()),
        last_four: secret.last_four().to_owned(),
        grant: input.grant,
        user_id: input.user_id,
        created_by: author.actor.clone(),
        created_at: tx.now(),
        expires_at: input.expires_at,
        lifetime: input.expires_at.map(|end| end.as_micros() - tx.now().as_micros()),
        revoked_at: None,
        last_used_at: None,
        revision: 0,
    };
    api_tokens::insert(tx, &record).await?;
    Ok(NewToken { secret: secret.clone(), record })
}

/// A token that was not revoked, with its user held to the end of the transaction.
async fn claim(tx: &mut Tx, id: Uuid, precondition: &Precondition) -> Result<TokenRecord> {
    let user_id = api_tokens::find(tx.conn(), id).await?.and_then(|token| token.user_id);
    if let Some(user_id) = user_id {
        // The order of locks: users come first, and whoever deletes one deletes their tokens.
        tx.lock_user_shared(user_id).await?;
    }
    let token = api_tokens::find(tx.conn(), id).await?.filter(|token| token.revoked_at.is_none());
    precondition.check(tx, token.as_ref().map(|token| token.revision)).await?;
    token.ok_or(ServiceError::NotFound(ResourceKind::ApiToken))
}

#[derive(Clone)]
struct RevokeToken {
    id: Uuid,
    precondition: Precondition,
}

impl Command for RevokeToken {
    type Output = ();

    async fn apply(&self, tx: &mut Tx, _: &Author) -> Result<()> {
        let before = claim(tx, self.id, &self.precondition).await?;
        let after = TokenRecord { revoked_at: Some(tx.now()), ..before.clone() };
        Ok(api_tokens::update(tx, Action::Revoked, &before, &after).await?)
    }
}

#[derive(Clone)]
struct RotateToken {
    id: Uuid,
    new_id: Uuid,
    secret: Secret,
    rotation: Rotation,
    precondition: Precondition,
}

impl Command for RotateToken {
    type Output = NewToken;

    async fn apply(&self, tx: &mut Tx, author: &Author) -> Result<NewToken> {
        let before = claim(tx, self.id, &self.precondition).await?;
        let now = tx.now();
        if !before.is_live(now) {
            return Err(Conflict::TokenExpired.into());
        }
        let end = now.plus_micros(micros(self.rotation.overlap));
        let end = before.expires_at.map_or(end, |own| own.min(end));
        let input = TokenInput {
            name: before.name.clone(),
            grant: before.grant,
            user_id: before.user_id,
            expires_at: self.rotation.expires_at.or_else(|| before.lifetime.map(|life| now.plus_micros(life))),
        };
        check(violations(&input, now))?;
        let after = TokenRecord { expires_at: Some(end), ..before.clone() };
        if after != before {
            api_tokens::update(tx, Action::Updated, &before, &after).await?;
        }
        insert(tx, author, self.new_id, &self.secret, &input).await
    }

    fn stamp(output: &mut Self::Output, revision: i64) {
        output.record.revision = revision;
    }
}

fn violations(input: &TokenInput, now: Instant) -> Vec<Violation> {
    let mut found: Vec<_> = check_key("/name", &input.name, 255).into_iter().collect();
    match (input.grant, input.user_id) {
        (Grant::Role(Role::User), None) => {
            found.push(Violation::new("/user_id", "required", "a token of role user must act as a user"));
        }
        (Grant::Evaluate, Some(_)) => {
            found.push(Violation::new("/user_id", "not_allowed", "a token of scope evaluate acts as no user"));
        }
        _ => {}
    }
    if input.expires_at.is_some_and(|end| end <= now) {
        found.push(Violation::new("/expires_at", "not_in_future", "must lie in the future, or be left out"));
    }
    found
}
