//! Generated secrets for API tokens and sessions: a prefix, 32 random bytes and a checksum. The
//! database stores only the SHA-256 of a secret.

use std::fmt;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use rand::TryRng as _;
use sha2::{Digest as _, Sha256};

use crate::error::{Result, ServiceError};

/// Length in characters of 32 random bytes and their 4-byte CRC-32 in base64url.
const ENCODED_LENGTH: usize = 48;

/// Purpose of a secret. Each kind has its own prefix, which helps secret scanners to find leaked secrets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecretKind {
    /// An API token.
    ApiToken,
    /// Value of a session cookie.
    Session,
}

impl SecretKind {
    /// All kinds.
    pub const ALL: [Self; 2] = [Self::ApiToken, Self::Session];

    /// Prefix of every secret of this kind.
    pub const fn prefix(self) -> &'static str {
        match self {
            Self::ApiToken => "flg_",
            Self::Session => "fls_",
        }
    }
}

/// Secret in clear text. `Debug` does not print it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl Secret {
    /// Generates a secret from the operating system's random number generator.
    pub fn generate(kind: SecretKind) -> Result<Self> {
        let mut bytes = [0_u8; 36];
        bytes[..32].copy_from_slice(&random_bytes::<32>()?);
        let checksum = crc32fast::hash(&bytes[..32]);
        bytes[32..].copy_from_slice(&checksum.to_be_bytes());
        Ok(Self(format!("{}{}", kind.prefix(), URL_SAFE_NO_PAD.encode(bytes))))
    }

    /// Checks the form and the checksum of a secret. The caller can reject malformed secrets without a lookup.
    pub fn is_well_formed(kind: SecretKind, text: &str) -> bool {
        let Some(encoded) = text.strip_prefix(kind.prefix()).filter(|rest| rest.len() == ENCODED_LENGTH) else {
            return false;
        };
        let mut bytes = [0_u8; 36];
        URL_SAFE_NO_PAD.decode_slice(encoded, &mut bytes) == Ok(36)
            && crc32fast::hash(&bytes[..32]).to_be_bytes() == bytes[32..]
    }

    /// Clear text. The user sees it only once, when the secret is created.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// Last four characters, which help the user to identify the token.
    pub fn last_four(&self) -> &str {
        // Cannot panic: the text is ASCII and longer than four characters.
        &self.0[self.0.len() - 4..]
    }
}

/// Returns random bytes from the operating system's random number generator.
pub(crate) fn random_bytes<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0_u8; N];
    match rand::rngs::SysRng.try_fill_bytes(&mut bytes) {
        Ok(()) => Ok(bytes),
        Err(error) => Err(ServiceError::Internal(format!("cannot read random bytes: {error}"))),
    }
}

/// Computes the SHA-256 of a secret. A slow hash is not needed, because the secret has 256 random bits.
pub fn hash(secret: &str) -> [u8; 32] {
    Sha256::digest(secret).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksum_detects_any_changed_character() {
        let secret = Secret::generate(SecretKind::ApiToken).unwrap();
        let text = secret.reveal();
        assert_eq!(text.len(), 52);
        assert!(Secret::is_well_formed(SecretKind::ApiToken, text));
        assert!(!Secret::is_well_formed(SecretKind::Session, text), "a token must not pass as a session");
        assert_ne!(Secret::generate(SecretKind::ApiToken).unwrap(), secret);
        for index in 4..text.len() {
            let mut changed = text.to_owned().into_bytes();
            changed[index] = if changed[index] == b'A' { b'B' } else { b'A' };
            assert!(!Secret::is_well_formed(SecretKind::ApiToken, std::str::from_utf8(&changed).unwrap()), "{index}");
        }
    }

    #[test]
    fn rejects_malformed_secrets() {
        for text in ["", "flg_", "flg_short", "x", &"a".repeat(52), &format!("flg_{}", "é".repeat(24))] {
            assert!(!Secret::is_well_formed(SecretKind::ApiToken, text), "{text}");
        }
    }

    #[test]
    fn debug_output_hides_the_secret() {
        assert_eq!(format!("{:?}", Secret("flg_secret".to_owned())), "Secret(…)");
    }
}
