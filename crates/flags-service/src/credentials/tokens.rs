//! API tokens: `flg_`, 32 random bytes and a checksum. Only their SHA-256 is stored.

use std::fmt;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use flags_domain::{Instant, Violation, check_key};
use flags_store::{
    Author, Tx,
    credentials::{self, Grant, TokenRecord},
    users::{self, Role},
};
use rand::TryRng as _;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use crate::{
    core::{Command, Core, Done},
    error::{Result, ServiceError, Thing, check},
};

const PREFIX: &str = "flg_";
/// 32 bytes of secret and 4 bytes of CRC-32, in base64url: 48 characters.
const ENCODED_LENGTH: usize = 48;

/// A token as its bearer knows it. Never printed by accident.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

impl Token {
    /// A new one, from the operating system's randomness.
    fn generate() -> Result<Self> {
        let mut bytes = [0_u8; 36];
        let failed = |error: rand::rngs::SysError| ServiceError::Internal(format!("no randomness: {error}"));
        rand::rngs::SysRng.try_fill_bytes(&mut bytes[..32]).map_err(failed)?;
        let checksum = crc32fast::hash(&bytes[..32]);
        bytes[32..].copy_from_slice(&checksum.to_be_bytes());
        Ok(Self(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes))))
    }

    /// Whether the text has the form of a token and its checksum fits: typing errors need no look-up.
    pub fn is_well_formed(text: &str) -> bool {
        let Some(encoded) = text.strip_prefix(PREFIX).filter(|rest| rest.len() == ENCODED_LENGTH) else { return false };
        let mut bytes = [0_u8; 36];
        URL_SAFE_NO_PAD.decode_slice(encoded, &mut bytes) == Ok(36)
            && crc32fast::hash(&bytes[..32]).to_be_bytes() == bytes[32..]
    }

    /// The text, to be shown once.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

/// SHA-256 of a token: a secret of 256 random bits needs no slow hash.
pub fn hash(token: &str) -> [u8; 32] {
    Sha256::digest(token).into()
}

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

/// Makes tokens.
#[derive(Clone)]
pub struct TokenService {
    core: Core,
}

impl TokenService {
    /// On this core.
    pub const fn new(core: Core) -> Self {
        Self { core }
    }

    /// Makes a token; this is the only time it is seen.
    pub async fn create(&self, author: Author, input: TokenInput) -> Result<Done<Token>> {
        let token = Token::generate()?;
        self.core.execute(author, CreateToken { id: Uuid::now_v7(), token, input }).await
    }
}

#[derive(Clone)]
struct CreateToken {
    id: Uuid,
    token: Token,
    input: TokenInput,
}

impl Command for CreateToken {
    type Output = Token;

    async fn apply(&self, tx: &mut Tx, author: &Author) -> Result<Token> {
        let input = &self.input;
        check(violations(input, tx.now()))?;
        if let Some(user_id) = input.user_id {
            tx.share_user(user_id).await?;
            users::find(tx.conn(), user_id).await?.ok_or(ServiceError::NotFound(Thing::User))?;
        }
        let text = self.token.reveal();
        let record = TokenRecord {
            id: self.id,
            name: input.name.clone(),
            hash: hash(text),
            last_four: text[text.len() - 4..].to_owned(),
            grant: input.grant,
            user_id: input.user_id,
            created_by: author.actor.clone(),
            created_at: tx.now(),
            expires_at: input.expires_at,
            revoked_at: None,
            revision: 0,
        };
        credentials::insert(tx, &record).await?;
        Ok(self.token.clone())
    }
}

/// The name of a token in the log.
pub fn actor_of(id: Uuid) -> String {
    credentials::token_actor(id)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_well_formed_and_any_changed_letter_is_noticed() {
        let token = Token::generate().unwrap();
        let text = token.reveal();
        assert_eq!(text.len(), 52);
        assert!(Token::is_well_formed(text));
        assert_ne!(Token::generate().unwrap(), token);
        for place in 4..text.len() {
            let mut changed = text.to_owned().into_bytes();
            changed[place] = if changed[place] == b'A' { b'B' } else { b'A' };
            assert!(!Token::is_well_formed(std::str::from_utf8(&changed).unwrap()), "{place}");
        }
    }

    #[test]
    fn what_is_no_token_is_told_at_once() {
        for text in ["", "flg_", "flg_short", "x", &"a".repeat(52), &format!("flg_{}", "é".repeat(24))] {
            assert!(!Token::is_well_formed(text), "{text}");
        }
    }

    #[test]
    fn a_token_does_not_print_itself() {
        assert_eq!(format!("{:?}", Token("flg_secret".to_owned())), "Token(…)");
    }
}
