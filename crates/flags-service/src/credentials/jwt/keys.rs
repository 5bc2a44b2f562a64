//! The keys that an issuer signs with, each pinned to one algorithm.

use std::fmt;

use jsonwebtoken::{
    Algorithm, DecodingKey, crypto,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse},
};
use serde_json::Value;

use super::JwtRefused;

/// Shortest RSA key that counts, in bits (NIST SP 800-131A).
const MIN_RSA_BITS: usize = 2_048;
/// Longest RSA key that signatures are verified with, in bits.
const MAX_RSA_BITS: usize = 8_192;
/// What only a private or a symmetric key has: no such key is to be trusted, as others know it.
const SECRET_PARTS: [&str; 3] = ["d", "p", "k"];

/// How a token may be signed. Symmetric ways are missing on purpose: who can verify could sign.
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
    /// All of them.
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

    /// The name in a header (RFC 7518, RFC 8037).
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

    /// The algorithm of this name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|algorithm| algorithm.as_str() == name)
    }

    const fn kind(self) -> KeyKind {
        match self {
            Self::Rs256 | Self::Rs384 | Self::Rs512 | Self::Ps256 | Self::Ps384 | Self::Ps512 => KeyKind::Rsa,
            Self::Es256 => KeyKind::P256,
            Self::Es384 => KeyKind::P384,
            Self::EdDsa => KeyKind::Ed25519,
        }
    }

    const fn library(self) -> Algorithm {
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

/// One key.
pub(super) struct Key {
    id: Option<String>,
    /// The one algorithm it verifies.
    algorithm: JwtAlgorithm,
    key: DecodingKey,
}

impl Key {
    /// Whether `signature`, in base64url, is this key's for `message`.
    pub(super) fn verifies(&self, message: &str, signature: &str) -> bool {
        crypto::verify(signature, message.as_bytes(), &self.key, self.algorithm.library()).unwrap_or(false)
    }
}

/// A key of the document that is not used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ignored {
    pub(super) key_id: Option<String>,
    pub(super) why: &'static str,
}

/// The usable keys of a document, and what was left out.
#[derive(Default)]
pub(super) struct KeySet {
    keys: Vec<Key>,
    pub(super) ignored: Vec<Ignored>,
}

impl fmt::Debug for KeySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeySet({} keys)", self.keys.len())
    }
}

/// The text is neither a JWK Set nor a JWK (RFC 7517).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("neither a JWK Set nor a JWK (RFC 7517)")]
pub(super) struct NoKeyDocument;

impl KeySet {
    /// Reads a JWK Set or a bare JWK. Keys that cannot be used are left out, as the standard has it.
    pub(super) fn read(document: &[u8], allowed: &[JwtAlgorithm]) -> Result<Self, NoKeyDocument> {
        let Ok(Value::Object(mut document)) = serde_json::from_slice(document) else { return Err(NoKeyDocument) };
        let keys = match document.remove("keys") {
            Some(Value::Array(keys)) => keys,
            None if document.contains_key("kty") => vec![Value::Object(document)],
            _ => return Err(NoKeyDocument),
        };
        let mut set = Self::default();
        for jwk in keys {
            let key_id = jwk.get("kid").and_then(Value::as_str).map(ToOwned::to_owned);
            match set.usable(jwk, allowed) {
                Ok(key) => set.keys.push(key),
                Err(why) => set.ignored.push(Ignored { key_id, why }),
            }
        }
        Ok(set)
    }

    fn usable(&self, jwk: Value, allowed: &[JwtAlgorithm]) -> Result<Key, &'static str> {
        if jwk.get("kty").is_some_and(|kind| kind == "oct") {
            return Err("it is symmetric: who can verify could sign");
        }
        if SECRET_PARTS.iter().any(|part| jwk.get(part).is_some()) {
            return Err("it is a private key, which nobody but the issuer may have");
        }
        let jwk: Jwk = serde_json::from_value(jwk).map_err(|_| "it cannot be read")?;
        let is_for_signatures = match &jwk.common.public_key_use {
            None | Some(PublicKeyUse::Signature) => true,
            Some(_) => false,
        };
        let verifies = jwk.common.key_operations.as_ref().is_none_or(|all| all.contains(&KeyOperations::Verify));
        if !is_for_signatures || !verifies {
            return Err("it is not for verifying signatures");
        }
        let kind = kind(&jwk)?;
        let mut fitting = allowed.iter().copied().filter(|algorithm| algorithm.kind() == kind);
        let algorithm = match jwk.common.key_algorithm {
            None => fitting.next(),
            Some(own) => fitting.find(|algorithm| own == algorithm.library().into()),
        };
        let algorithm = algorithm.ok_or("its algorithm is none of the allowed ones")?;
        let key = DecodingKey::from_jwk(&jwk).map_err(|_| "it cannot be read")?;
        let id = jwk.common.key_id;
        if self.keys.iter().any(|other| other.id == id && other.algorithm == algorithm && id.is_some()) {
            return Err("another key has its id");
        }
        Ok(Key { id, algorithm, key })
    }

    /// Whether there is none.
    pub(super) const fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The key that a header names, which must be the one for its algorithm. A header that names none means the only one.
    pub(super) fn find(&self, id: Option<&str>, algorithm: JwtAlgorithm) -> Result<&Key, JwtRefused> {
        let Some(id) = id else {
            return match self.keys.as_slice() {
                [only] if only.algorithm == algorithm => Ok(only),
                [_] => Err(JwtRefused::Algorithm),
                _ => Err(JwtRefused::NoKeyNamed),
            };
        };
        let mut named = self.keys.iter().filter(|key| key.id.as_deref() == Some(id)).peekable();
        if named.peek().is_none() {
            return Err(JwtRefused::UnknownKey);
        }
        named.find(|key| key.algorithm == algorithm).ok_or(JwtRefused::Algorithm)
    }
}

fn kind(jwk: &Jwk) -> Result<KeyKind, &'static str> {
    match &jwk.algorithm {
        AlgorithmParameters::RSA(rsa) => {
            let bits = rsa_bits(&rsa.n).ok_or("it cannot be read")?;
            if bits < MIN_RSA_BITS {
                return Err("it is shorter than 2048 bits");
            }
            if bits > MAX_RSA_BITS { Err("it is longer than 8192 bits") } else { Ok(KeyKind::Rsa) }
        }
        AlgorithmParameters::EllipticCurve(ec) => match ec.curve {
            EllipticCurve::P256 => Ok(KeyKind::P256),
            EllipticCurve::P384 => Ok(KeyKind::P384),
            _ => Err("its curve is not supported"),
        },
        AlgorithmParameters::OctetKeyPair(pair) if pair.curve == EllipticCurve::Ed25519 => Ok(KeyKind::Ed25519),
        _ => Err("its kind is not supported"),
    }
}

/// The length of a modulus in base64url.
fn rsa_bits(modulus: &str) -> Option<usize> {
    use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
    let bytes = URL_SAFE_NO_PAD.decode(modulus).ok()?;
    let zeros: usize = bytes.iter().take_while(|byte| **byte == 0).count();
    let first = bytes.get(zeros)?;
    Some((bytes.len() - zeros) * 8 - first.leading_zeros() as usize)
}
