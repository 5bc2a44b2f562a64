//! Secrets that this service makes: a prefix, 32 random bytes and a checksum. Only their SHA-256 is stored.

use std::fmt;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use rand::TryRng as _;
use sha2::{Digest as _, Sha256};

use crate::error::{Result, ServiceError};

/// 32 bytes of secret and 4 bytes of CRC-32, in base64url: 48 characters.
const ENCODED_LENGTH: usize = 48;

/// What a secret is for; its prefix tells, so that one that leaked is recognised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecretKind {
    /// An API token.
    ApiToken,
    /// The cookie of somebody who is signed in.
    Session,
}

impl SecretKind {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::ApiToken, Self::Session];

    /// What every secret of this kind begins with.
    pub const fn prefix(self) -> &'static str {
        match self {
            Self::ApiToken => "flg_",
            Self::Session => "fls_",
        }
    }
}

/// A secret as its bearer knows it. Never printed by accident.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl Secret {
    /// A new one, from the operating system's randomness.
    pub(super) fn generate(kind: SecretKind) -> Result<Self> {
        let mut bytes = [0_u8; 36];
        bytes[..32].copy_from_slice(&random_bytes()?);
        let checksum = crc32fast::hash(&bytes[..32]);
        bytes[32..].copy_from_slice(&checksum.to_be_bytes());
        Ok(Self(format!("{}{}", kind.prefix(), URL_SAFE_NO_PAD.encode(bytes))))
    }

    /// Whether the text has the form of such a secret and its checksum fits: typing errors need no look-up.
    pub fn is_well_formed(kind: SecretKind, text: &str) -> bool {
        let Some(encoded) = text.strip_prefix(kind.prefix()).filter(|rest| rest.len() == ENCODED_LENGTH) else {
            return false;
        };
        let mut bytes = [0_u8; 36];
        URL_SAFE_NO_PAD.decode_slice(encoded, &mut bytes) == Ok(36)
            && crc32fast::hash(&bytes[..32]).to_be_bytes() == bytes[32..]
    }

    /// The text, to be shown once.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// Its last four characters, to recognise it by.
    pub(super) fn last_four(&self) -> &str {
        // It is ASCII and longer than that.
        &self.0[self.0.len() - 4..]
    }
}

/// 256 bits of the operating system's randomness.
pub(super) fn random_bytes() -> Result<[u8; 32]> {
    let mut bytes = [0_u8; 32];
    let failed = |error: rand::rngs::SysError| ServiceError::Internal(format!("no randomness: {error}"));
    rand::rngs::SysRng.try_fill_bytes(&mut bytes).map_err(failed)?;
    Ok(bytes)
}

/// SHA-256 of a secret: 256 random bits need no slow hash.
pub fn hash(secret: &str) -> [u8; 32] {
    Sha256::digest(secret).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_well_formed_and_any_changed_letter_is_noticed() {
        let secret = Secret::generate(SecretKind::ApiToken).unwrap();
        let text = secret.reveal();
        assert_eq!(text.len(), 52);
        assert!(Secret::is_well_formed(SecretKind::ApiToken, text));
        assert!(!Secret::is_well_formed(SecretKind::Session, text), "a token is no session");
        assert_ne!(Secret::generate(SecretKind::ApiToken).unwrap(), secret);
        for place in 4..text.len() {
            let mut changed = text.to_owned().into_bytes();
            changed[place] = if changed[place] == b'A' { b'B' } else { b'A' };
            assert!(!Secret::is_well_formed(SecretKind::ApiToken, std::str::from_utf8(&changed).unwrap()), "{place}");
        }
    }

    #[test]
    fn what_is_no_secret_is_told_at_once() {
        for text in ["", "flg_", "flg_short", "x", &"a".repeat(52), &format!("flg_{}", "é".repeat(24))] {
            assert!(!Secret::is_well_formed(SecretKind::ApiToken, text), "{text}");
        }
    }

    #[test]
    fn a_secret_does_not_print_itself() {
        assert_eq!(format!("{:?}", Secret("flg_secret".to_owned())), "Secret(…)");
    }
}
