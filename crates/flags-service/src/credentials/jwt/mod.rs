//! Verification of JWTs (RFC 7519) from one external issuer.
//!
//! The token cannot influence how it is verified. Keys come only from the source that the operator configured, and each
//! key verifies exactly one algorithm. The header's `kid` only selects one of these keys; key URLs and keys in the
//! header are ignored. The claims are parsed after the signature has been verified, and checked with the server's
//! clock. The server stores nothing from the token.

mod attributes;
mod claims;
mod keys;
mod source;
mod strict_json;
#[cfg(test)]
mod tests;

use std::{fmt, sync::Arc};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use flags_domain::{Instant, MAX_ATTRIBUTES};
use flags_store::users::Role;

pub use self::{
    attributes::{ClaimAttribute, ClaimAttributeError, ClaimAttributes},
    keys::JwtAlgorithm,
    source::KeySource,
};
use self::{claims::Header, source::KeyCache};
use crate::clock::Clock;

/// Maximum length of a token in bytes.
const MAX_LENGTH: usize = 16 * 1024;

/// Configuration of the accepted issuer and of the claims that the server evaluates.
#[derive(Clone, Debug)]
pub struct JwtConfig {
    /// Required value of the claim `iss`, compared exactly.
    pub issuer: String,
    /// Required value of the claim `aud`, or of one of its elements.
    pub audience: String,
    /// Source of the issuer's public keys.
    pub keys: KeySource,
    /// Allowed signature algorithms. A key without `alg` is pinned to the first algorithm of this list that fits its
    /// type.
    pub algorithms: Vec<JwtAlgorithm>,
    /// Claim that identifies the user.
    pub user_claim: UserClaim,
    /// Claim that contains roles; a dot selects a member of an object. Without a role claim, the
    /// stored role of the user applies.
    pub role_claim: Option<String>,
    /// Mapping from values of the role claim to roles. Other values are ignored.
    pub allowed_roles: Vec<(String, Role)>,
    /// Users whose tokens are accepted.
    pub users: JwtUsers,
    /// Claims that become attributes of the evaluation context.
    pub attributes: Vec<ClaimAttribute>,
}

/// Users whose tokens are accepted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum JwtUsers {
    /// Stored users only.
    #[default]
    Known,
    /// Stored users, and users that are not stored. The latter have the role `user` and may only read and evaluate
    /// their own flags.
    Any,
}

/// Claim that identifies the user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UserClaim {
    /// The claim `sub`, which contains the user id or the external id.
    Sub,
    /// Another claim, which contains the user id, the external id or the e-mail address.
    Named(String),
}

/// Error in the JWT configuration. The server detects it at startup.
#[derive(Debug, thiserror::Error)]
pub enum JwtConfigError {
    /// Invalid or incomplete option.
    #[error("{0}")]
    Invalid(&'static str),
    /// Two claims are mapped to one attribute.
    #[error("several claims are mapped to the attribute {0}; map one claim to each attribute")]
    RepeatedAttribute(String),
    /// The key source cannot be read.
    #[error("cannot read the JWT keys: {0}")]
    KeySource(String),
    /// The key file contains no usable key. The text is empty, or `: ` followed by the reason why
    /// the first key is unusable.
    #[error("the JWT key file contains no usable key{0}")]
    NoUsableKey(String),
}

/// User that a token identifies.
#[derive(Clone, PartialEq, Eq)]
pub enum JwtUser {
    /// Evaluation key: a user id or an external id, whether or not the user is stored. Not empty, at most
    /// [`MAX_TARGETING_KEY_BYTES`](flags_domain::MAX_TARGETING_KEY_BYTES).
    Key(String),
    /// E-mail address, compared by [`email_key`](flags_domain::email_key).
    Email(String),
}

impl fmt::Debug for JwtUser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // A key may be an e-mail address.
            Self::Key(_) => f.write_str("Key(…)"),
            Self::Email(_) => f.write_str("Email(…)"),
        }
    }
}

/// Claims of a valid token that the server uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedJwt {
    /// User that the token identifies.
    pub user: JwtUser,
    /// Upper limit for the caller's role; `None` without a role claim. The effective role never
    /// exceeds the stored role of the user.
    pub role: Option<Role>,
    /// Attributes of the evaluation context. They have priority over stored attributes.
    pub attributes: ClaimAttributes,
    /// Instant at which the token expires.
    pub expires_at: Instant,
}

/// Reason for rejecting a token. The server logs it; the response does not contain it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JwtRejection {
    /// The token exceeds 16 KiB.
    #[error("the token exceeds 16 KiB")]
    TooLong,
    /// The token is not a well-formed JWT.
    #[error("the token is not a well-formed JWT")]
    Malformed,
    /// The header uses an unsupported feature.
    #[error("the header has an unsupported parameter or value")]
    UnsupportedHeader,
    /// The algorithm is not in the configured list, or the key is for another algorithm.
    #[error("the algorithm is not allowed or does not match the key")]
    AlgorithmNotAllowed,
    /// The header has no `kid`, and the issuer does not have exactly one key.
    #[error("the header has no kid and the issuer does not have exactly one key")]
    AmbiguousKey,
    /// No key of the issuer has the `kid` of the header.
    #[error("the issuer has no key with this kid")]
    UnknownKey,
    /// The signature does not match.
    #[error("the signature is invalid")]
    InvalidSignature,
    /// The claim `exp` is missing, or `exp`, `nbf` or `iat` is malformed.
    #[error("the claim exp is missing, or exp, nbf or iat is not a number of seconds since 1970")]
    InvalidClaims,
    /// The token has expired.
    #[error("the token has expired")]
    Expired,
    /// The token is not valid yet (`nbf`, `iat`).
    #[error("the token is not valid yet")]
    NotYetValid,
    /// The claim `iss` is not the configured issuer.
    #[error("the token is from another issuer")]
    WrongIssuer,
    /// The claim `aud` does not contain the configured audience.
    #[error("the token is for another audience")]
    WrongAudience,
    /// The user claim is missing, malformed or unverified.
    #[error("the user claim is missing, malformed or not verified")]
    UnidentifiedUser,
    /// The claims that are mapped to attributes exceed the limits of one context.
    #[error("the claims that are mapped to attributes exceed the limits on number, size or nesting of attributes")]
    TooManyAttributes,
    /// The issuer's keys have not been fetched yet, so the token cannot be verified.
    #[error("the issuer's keys have not been fetched yet")]
    KeysUnavailable,
}

/// Returns whether the text has the form of a JWT: three non-empty base64url segments.
pub fn looks_like_jwt(text: &str) -> bool {
    split_segments(text).is_some()
}

fn split_segments(text: &str) -> Option<[&str; 3]> {
    let mut rest = text.split('.');
    let segments = [rest.next()?, rest.next()?, rest.next()?];
    (rest.next().is_none() && segments.into_iter().all(is_base64url)).then_some(segments)
}

fn is_base64url(segment: &str) -> bool {
    !segment.is_empty() && segment.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
}

fn decode_segment(segment: &str) -> Result<Vec<u8>, JwtRejection> {
    URL_SAFE_NO_PAD.decode(segment).map_err(|_| JwtRejection::Malformed)
}

/// Verifies the tokens of one issuer.
pub struct JwtVerifier {
    config: JwtConfig,
    keys: Arc<KeyCache>,
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
    /// Validates the configuration and starts the task that loads the keys.
    ///
    /// A key file is read before this function returns and must contain a usable key. Keys at a URL are fetched in the
    /// background, so the server starts while the issuer is unavailable. The task reloads the keys every ten minutes,
    /// measured with `clock`.
    pub async fn start(config: JwtConfig, clock: Arc<dyn Clock>) -> Result<Self, JwtConfigError> {
        validate(&config)?;
        let keys = KeyCache::start(config.keys.clone(), config.algorithms.clone(), clock).await?;
        Ok(Self { config, keys })
    }

    /// Users whose tokens are accepted.
    pub const fn users(&self) -> JwtUsers {
        self.config.users
    }

    /// Verifies the signature and the claims of a token at `now`.
    pub async fn verify(&self, text: &str, now: Instant) -> Result<VerifiedJwt, JwtRejection> {
        if text.len() > MAX_LENGTH {
            return Err(JwtRejection::TooLong);
        }
        let [header, payload, signature] = split_segments(text).ok_or(JwtRejection::Malformed)?;
        let message = &text[..header.len() + 1 + payload.len()];
        let header = Header::parse(&decode_segment(header)?)?;
        self.verify_signature(&header, message, signature, now).await?;
        claims::parse_and_check(&decode_segment(payload)?, &self.config, now)
    }

    async fn verify_signature(
        &self,
        header: &Header,
        message: &str,
        signature: &str,
        now: Instant,
    ) -> Result<(), JwtRejection> {
        let algorithm =
            JwtAlgorithm::parse(&header.algorithm).filter(|algorithm| self.config.algorithms.contains(algorithm));
        let algorithm = algorithm.ok_or(JwtRejection::AlgorithmNotAllowed)?;
        let key_id = header.key_id.as_deref();
        let mut keys = self.keys.current().await.ok_or(JwtRejection::KeysUnavailable)?;
        if keys.find(key_id, algorithm).is_err_and(|rejection| rejection == JwtRejection::UnknownKey) {
            // The issuer may have added the key since the last load.
            keys = self.keys.reload(now).await.ok_or(JwtRejection::KeysUnavailable)?;
        }
        let is_valid = keys.find(key_id, algorithm)?.verify(message, signature);
        if is_valid { Ok(()) } else { Err(JwtRejection::InvalidSignature) }
    }
}

fn validate(config: &JwtConfig) -> Result<(), JwtConfigError> {
    if config.issuer.is_empty() || config.audience.is_empty() {
        return Err(JwtConfigError::Invalid("the JWT issuer and audience must not be empty"));
    }
    if config.algorithms.is_empty() {
        return Err(JwtConfigError::Invalid("at least one JWT algorithm must be allowed"));
    }
    let user_claim = match &config.user_claim {
        UserClaim::Sub => None,
        UserClaim::Named(name) => Some(name),
    };
    if user_claim.into_iter().chain(&config.role_claim).any(|name| name.is_empty()) {
        return Err(JwtConfigError::Invalid("the name of a JWT claim must not be empty"));
    }
    validate_attributes(&config.attributes)?;
    match (&config.role_claim, config.allowed_roles.is_empty()) {
        (Some(_), true) => Err(JwtConfigError::Invalid(
            "a JWT role claim is configured, but no role mapping; add at least one VALUE=ROLE",
        )),
        (None, false) => Err(JwtConfigError::Invalid(
            "a JWT role mapping is configured, but the role claim is not; name the claim that contains the roles",
        )),
        _ => Ok(()),
    }
}

fn validate_attributes(attributes: &[ClaimAttribute]) -> Result<(), JwtConfigError> {
    if attributes.len() > MAX_ATTRIBUTES {
        return Err(JwtConfigError::Invalid("at most 1000 JWT claims can be mapped to attributes"));
    }
    let mut names: Vec<_> = attributes.iter().map(ClaimAttribute::name).collect();
    names.sort_unstable();
    match names.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(JwtConfigError::RepeatedAttribute(pair[0].to_owned())),
        None => Ok(()),
    }
}
