//! JWTs of an external issuer (RFC 7519), as a credential.
//!
//! What a token brings along decides nothing about how it is verified: the header's `kid` is compared with the ids of keys
//! that the operator's source gave, each key verifies one algorithm, and addresses or keys in a header are not looked at.
//! Claims are read after the signature was verified, by the service's own clock. Only users that the service knows count,
//! and nothing of a token is kept.

mod claims;
mod keys;
mod source;
mod strict_json;
#[cfg(test)]
mod tests;

use std::{fmt, sync::Arc};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use flags_domain::Instant;
use flags_store::users::Role;
use uuid::Uuid;

use self::{claims::Header, source::KeyRing};
pub use self::{keys::JwtAlgorithm, source::KeySource};
use crate::clock::Clock;

/// Longest token, in bytes.
const MAX_LENGTH: usize = 16 * 1024;

/// Whose tokens are accepted, and how they are read.
#[derive(Clone, Debug)]
pub struct JwtConfig {
    /// `iss`, exactly.
    pub issuer: String,
    /// `aud`, or one of it.
    pub audience: String,
    /// Where the issuer's keys are.
    pub keys: KeySource,
    /// How tokens may be signed. A key that does not say what it is for is pinned to the first of these that fits it.
    pub algorithms: Vec<JwtAlgorithm>,
    /// What names the user.
    pub user_claim: UserClaim,
    /// The claim that holds roles, if any counts; dots lead into objects. Without it a caller has their user's role.
    pub role_claim: Option<String>,
    /// What values of the role claim stand for; no other counts.
    pub allowed_roles: Vec<(String, Role)>,
}

/// The claim that names the user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UserClaim {
    /// `sub`: the user's id.
    Sub,
    /// Another one: the user's id, or their e-mail.
    Named(String),
}

/// Why tokens cannot be accepted at all.
#[derive(Debug, thiserror::Error)]
pub enum JwtConfigError {
    /// Something is missing or makes no sense.
    #[error("{0}")]
    Invalid(&'static str),
    /// The file cannot be read.
    #[error("the keys of the issuer cannot be read: {0}")]
    File(String),
    /// There is no key to verify with.
    #[error("the file of the issuer's keys has no key that can be used{0}")]
    NoUsableKey(String),
}

/// The user whom a token names.
#[derive(Clone, PartialEq, Eq)]
pub enum NamedUser {
    /// By id.
    Id(Uuid),
    /// By e-mail, in whatever case of its ASCII letters.
    Email(String),
}

impl fmt::Debug for NamedUser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => write!(f, "Id({id})"),
            Self::Email(_) => f.write_str("Email(…)"),
        }
    }
}

/// What a good token says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedJwt {
    /// Whom it is for.
    pub user: NamedUser,
    /// The most that its bearer may do, if a role claim counts. They may never do more than their user.
    pub role: Option<Role>,
    /// It is void from this instant on.
    pub expires_at: Instant,
}

/// Why a token is not accepted: for the log. Callers are told nothing of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JwtRefused {
    /// It is longer than 16 KiB.
    #[error("it is too long")]
    TooLong,
    /// It is no JWT.
    #[error("it is no JWT")]
    Malformed,
    /// Its header says something that is not supported.
    #[error("its header is not supported")]
    Header,
    /// It is signed in a way that is not allowed, or not with this key.
    #[error("its algorithm is not allowed, or not for its key")]
    Algorithm,
    /// It does not say which of several keys signed it.
    #[error("it names no key, and there is not exactly one")]
    NoKeyNamed,
    /// The issuer has no such key.
    #[error("the issuer has no such key")]
    UnknownKey,
    /// The signature is not the key's.
    #[error("its signature is wrong")]
    Signature,
    /// A claim is missing or malformed.
    #[error("a claim is missing or malformed")]
    Claims,
    /// It has expired.
    #[error("it has expired")]
    Expired,
    /// It is not valid yet.
    #[error("it is not valid yet")]
    NotYetValid,
    /// Somebody else issued it.
    #[error("it is of another issuer")]
    Issuer,
    /// It is for somebody else.
    #[error("it is for another audience")]
    Audience,
    /// It names no user.
    #[error("it names no user")]
    User,
    /// The issuer's keys could never be fetched so far: nothing is known about the token.
    #[error("the issuer's keys could not be fetched yet")]
    KeysUnavailable,
}

/// Whether the text has the form of a JWT: three parts in base64url, none of them empty.
pub fn looks_like_jwt(text: &str) -> bool {
    parts(text).is_some()
}

fn parts(text: &str) -> Option<[&str; 3]> {
    let mut parts = text.split('.');
    let found = [parts.next()?, parts.next()?, parts.next()?];
    let is_base64url = |part: &&str| {
        !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    (parts.next().is_none() && found.iter().all(is_base64url)).then_some(found)
}

/// Verifies the tokens of one issuer.
pub struct JwtVerifier {
    config: JwtConfig,
    keys: Arc<KeyRing>,
}

impl fmt::Debug for JwtVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JwtVerifier(…)")
    }
}

impl Drop for JwtVerifier {
    fn drop(&mut self) {
        self.keys.close();
    }
}

impl JwtVerifier {
    /// For tokens of this issuer. Keys in a file are read now, and must be good; keys at a URL are fetched in the
    /// background, so that an issuer that is down keeps nobody from starting. Keys are read again every ten minutes of
    /// `clock`, which also tells how long ago an unknown key was last asked for.
    pub async fn start(config: JwtConfig, clock: Arc<dyn Clock>) -> Result<Self, JwtConfigError> {
        check(&config)?;
        let keys = KeyRing::start(config.keys.clone(), config.algorithms.clone(), clock).await?;
        Ok(Self { config, keys })
    }

    /// What the token says, if it is good at `now`.
    pub async fn verify(&self, text: &str, now: Instant) -> Result<VerifiedJwt, JwtRefused> {
        if text.len() > MAX_LENGTH {
            return Err(JwtRefused::TooLong);
        }
        let [header, payload, signature] = parts(text).ok_or(JwtRefused::Malformed)?;
        let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| JwtRefused::Malformed);
        let message = &text[..header.len() + 1 + payload.len()];
        let header = Header::read(&decode(header)?)?;
        self.verify_signature(&header, message, signature, now).await?;
        claims::check(&decode(payload)?, &self.config, now)
    }

    async fn verify_signature(
        &self,
        header: &Header,
        message: &str,
        signature: &str,
        now: Instant,
    ) -> Result<(), JwtRefused> {
        let algorithm = JwtAlgorithm::parse(&header.algorithm).filter(|one| self.config.algorithms.contains(one));
        let algorithm = algorithm.ok_or(JwtRefused::Algorithm)?;
        let id = header.key_id.as_deref();
        let mut keys = self.keys.present().await.ok_or(JwtRefused::KeysUnavailable)?;
        if keys.find(id, algorithm).is_err_and(|why| why == JwtRefused::UnknownKey) {
            // It may be new.
            keys = self.keys.read_again(now).await.ok_or(JwtRefused::KeysUnavailable)?;
        }
        let is_good = keys.find(id, algorithm)?.verifies(message, signature);
        if is_good { Ok(()) } else { Err(JwtRefused::Signature) }
    }
}

fn check(config: &JwtConfig) -> Result<(), JwtConfigError> {
    let invalid = |why| Err(JwtConfigError::Invalid(why));
    if config.issuer.is_empty() || config.audience.is_empty() {
        return invalid("the issuer and the audience of JWTs must not be empty");
    }
    if config.algorithms.is_empty() {
        return invalid("at least one algorithm of JWTs must be allowed");
    }
    let empty = |name: &String| name.is_empty();
    let user_claim = match &config.user_claim {
        UserClaim::Sub => None,
        UserClaim::Named(name) => Some(name),
    };
    if user_claim.is_some_and(empty) || config.role_claim.as_ref().is_some_and(empty) {
        return invalid("the name of a claim must not be empty");
    }
    match (&config.role_claim, config.allowed_roles.is_empty()) {
        (Some(_), true) => invalid("a role claim of JWTs counts only for values that are allowed; none is"),
        (None, false) => invalid("values of a role claim are allowed, but the claim is not named"),
        _ => Ok(()),
    }
}
