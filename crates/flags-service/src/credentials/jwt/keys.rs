//! Public keys of the issuer. Each key verifies exactly one algorithm.

use std::fmt;

use jsonwebtoken::{
    Algorithm, DecodingKey, crypto,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse},
};
use serde_json::Value;

use super::JwtRejection;

/// Minimum RSA key size in bits (NIST SP 800-131A).
const MIN_RSA_BITS: usize = 2_048;
/// Maximum RSA key size in bits. It bounds the cost of one verification.
const MAX_RSA_BITS: usize = 8_192;
/// JWK members of private and symmetric keys. A published private key is not trusted, because others can sign with it.
const SECRET_MEMBERS: [&str; 3] = ["d", "p", "k"];

/// Signature algorithm. Symmetric algorithms are not supported, because every verifier could also sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JwtAlgorithm {
    /// RSA PKCS#1 v1.5 with SHA-256.
    Rs256,
    /// RSA PKCS#1 v1.5 with SHA-384.
    Rs384,
    /// RSA PKCS#1 v1.5 with SHA-512.
    Rs512,
    /// RSA-PSS with SHA-256.
    Ps256,
    /// RSA-PSS with SHA-384.
    Ps384,
    /// RSA-PSS with SHA-512.
    Ps512,
    /// ECDSA on P-256 with SHA-256.
    Es256,
    /// ECDSA on P-384 with SHA-384.
    Es384,
    /// Ed25519.
    EdDsa,
}

impl JwtAlgorithm {
    /// All supported algorithms.
    pub const ALL: [Self; 9] = [
        Self::Rs256,
        Self::Rs384,
        Self::Rs512,
        Self::Ps256,
        Self::Ps384,
        Self::Ps512,
        Self::Es256,
        Self::Es384,
        Self::EdDsa,
    ];

    /// Name in the header parameter `alg` (RFC 7518, RFC 8037).
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Rs256 => "RS256",
            Self::Rs384 => "RS384",
            Self::Rs512 => "RS512",
            Self::Ps256 => "PS256",
            Self::Ps384 => "PS384",
            Self::Ps512 => "PS512",
            Self::Es256 => "ES256",
            Self::Es384 => "ES384",
            Self::EdDsa => "EdDSA",
        }
    }

    /// Parses an algorithm name. The name is case-sensitive.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|algorithm| algorithm.as_str() == name)
    }

    const fn key_kind(self) -> KeyKind {
        match self {
            Self::Rs256 | Self::Rs384 | Self::Rs512 | Self::Ps256 | Self::Ps384 | Self::Ps512 => KeyKind::Rsa,
            Self::Es256 => KeyKind::P256,
            Self::Es384 => KeyKind::P384,
            Self::EdDsa => KeyKind::Ed25519,
        }
    }

    const fn to_library(self) -> Algorithm {
        match self {
            Self::Rs256 => Algorithm::RS256,
            Self::Rs384 => Algorithm::RS384,
            Self::Rs512 => Algorithm::RS512,
            Self::Ps256 => Algorithm::PS256,
            Self::Ps384 => Algorithm::PS384,
            Self::Ps512 => Algorithm::PS512,
            Self::Es256 => Algorithm::ES256,
            Self::Es384 => Algorithm::ES384,
            Self::EdDsa => Algorithm::EdDSA,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum KeyKind {
    Rsa,
    P256,
    P384,
    Ed25519,
}

/// Public key that is pinned to one algorithm.
pub(super) struct VerificationKey {
    id: Option<String>,
    algorithm: JwtAlgorithm,
    key: DecodingKey,
}

impl VerificationKey {
    /// Verifies a base64url-encoded signature of `message`.
    pub(super) fn verify(&self, message: &str, signature: &str) -> bool {
        crypto::verify(signature, message.as_bytes(), &self.key, self.algorithm.to_library()).unwrap_or(false)
    }
}

/// Key in a key document that the server ignores because of `reason`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct IgnoredKey {
    pub(super) key_id: Option<String>,
    pub(super) reason: &'static str,
}

/// Keys of a document, split into usable and ignored keys.
#[derive(Default)]
pub(super) struct KeySet {
    keys: Vec<VerificationKey>,
    pub(super) ignored: Vec<IgnoredKey>,
}

impl fmt::Debug for KeySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeySet({} keys)", self.keys.len())
    }
}

/// The document is neither a JWK Set nor a JWK (RFC 7517).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the document is neither a JWK Set nor a JWK (RFC 7517)")]
pub(super) struct InvalidKeyDocument;

impl KeySet {
    /// Parses a JWK Set or a single JWK. Unusable keys are ignored, as RFC 7517 (section 5) recommends.
    pub(super) fn parse(document: &[u8], allowed: &[JwtAlgorithm]) -> Result<Self, InvalidKeyDocument> {
        let Ok(Value::Object(mut document)) = serde_json::from_slice(document) else { return Err(InvalidKeyDocument) };
        let keys = match document.remove("keys") {
            Some(Value::Array(keys)) => keys,
            None if document.contains_key("kty") => vec![Value::Object(document)],
            _ => return Err(InvalidKeyDocument),
        };
        let mut set = Self::default();
        for jwk in keys {
            let key_id = jwk.get("kid").and_then(Value::as_str).map(ToOwned::to_owned);
            match set.parse_key(jwk, allowed) {
                Ok(key) => set.keys.push(key),
                Err(reason) => set.ignored.push(IgnoredKey { key_id, reason }),
            }
        }
        Ok(set)
    }

    /// Parses one key. The error is the reason why the key cannot be used.
    fn parse_key(&self, jwk: Value, allowed: &[JwtAlgorithm]) -> Result<VerificationKey, &'static str> {
        if jwk.get("kty").is_some_and(|kind| kind == "oct") {
            return Err("symmetric keys are not supported");
        }
        if SECRET_MEMBERS.iter().any(|member| jwk.get(member).is_some()) {
            return Err("private keys are not accepted");
        }
        let jwk: Jwk = serde_json::from_value(jwk).map_err(|_| "the key is malformed")?;
        let is_for_signatures = match &jwk.common.public_key_use {
            None | Some(PublicKeyUse::Signature) => true,
            Some(_) => false,
        };
        let allows_verification =
            jwk.common.key_operations.as_ref().is_none_or(|operations| operations.contains(&KeyOperations::Verify));
        if !is_for_signatures || !allows_verification {
            return Err("the key is not for verifying signatures");
        }
        let kind = key_kind(&jwk)?;
        let mut fitting = allowed.iter().copied().filter(|algorithm| algorithm.key_kind() == kind);
        let algorithm = match jwk.common.key_algorithm {
            None => fitting.next(),
            Some(declared) => fitting.find(|algorithm| declared == algorithm.to_library().into()),
        };
        let algorithm = algorithm.ok_or("the algorithm is not allowed")?;
        let key = DecodingKey::from_jwk(&jwk).map_err(|_| "the key is malformed")?;
        let id = jwk.common.key_id;
        if self.keys.iter().any(|other| other.id == id && other.algorithm == algorithm && id.is_some()) {
            return Err("another key has the same kid and algorithm");
        }
        Ok(VerificationKey { id, algorithm, key })
    }

    /// Whether the set has no usable key. It may have ignored keys.
    pub(super) const fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Returns the key with this id and algorithm. Without an id, returns the only key of the set.
    pub(super) fn find(&self, id: Option<&str>, algorithm: JwtAlgorithm) -> Result<&VerificationKey, JwtRejection> {
        let Some(id) = id else {
            return match self.keys.as_slice() {
                [only] if only.algorithm == algorithm => Ok(only),
                [_] => Err(JwtRejection::AlgorithmNotAllowed),
                _ => Err(JwtRejection::AmbiguousKey),
            };
        };
        let mut candidates = self.keys.iter().filter(|key| key.id.as_deref() == Some(id)).peekable();
        if candidates.peek().is_none() {
            return Err(JwtRejection::UnknownKey);
        }
        candidates.find(|key| key.algorithm == algorithm).ok_or(JwtRejection::AlgorithmNotAllowed)
    }
}

fn key_kind(jwk: &Jwk) -> Result<KeyKind, &'static str> {
    match &jwk.algorithm {
        AlgorithmParameters::RSA(rsa) => {
            let bits = rsa_bits(&rsa.n).ok_or("the key is malformed")?;
            if bits < MIN_RSA_BITS {
                return Err("the RSA key is shorter than 2048 bits");
            }
            if bits > MAX_RSA_BITS { Err("the RSA key is longer than 8192 bits") } else { Ok(KeyKind::Rsa) }
        }
        AlgorithmParameters::EllipticCurve(ec) => match ec.curve {
            EllipticCurve::P256 => Ok(KeyKind::P256),
            EllipticCurve::P384 => Ok(KeyKind::P384),
            _ => Err("the curve is not supported"),
        },
        AlgorithmParameters::OctetKeyPair(pair) if pair.curve == EllipticCurve::Ed25519 => Ok(KeyKind::Ed25519),
        _ => Err("the key type is not supported"),
    }
}

/// Size in bits of a base64url-encoded RSA modulus.
fn rsa_bits(modulus: &str) -> Option<usize> {
    use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
    let bytes = URL_SAFE_NO_PAD.decode(modulus).ok()?;
    let zeros: usize = bytes.iter().take_while(|byte| **byte == 0).count();
    let first = bytes.get(zeros)?;
    Some((bytes.len() - zeros) * 8 - first.leading_zeros() as usize)
}
