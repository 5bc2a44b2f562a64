//! What servers sign, so that each of them knows what another has given out: HMAC-SHA256 (RFC 2104) by a key that stands in
//! the database.

use std::fmt;

use flags_store::{Store, service_keys};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use super::secret::random_bytes;
use crate::error::{Result, ServiceError};

/// Signs the tickets of event streams.
const EVENT_STREAMS: &str = "event_streams";

/// A key to sign with. Never printed.
#[derive(Clone)]
pub struct SigningKey(Hmac<Sha256>);

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningKey(…)")
    }
}

impl SigningKey {
    /// The key of all servers on this database, for tickets of event streams; made if there is none yet.
    pub async fn of_event_streams(store: &Store) -> Result<Self> {
        Self::new(&service_keys::find_or_insert(store, EVENT_STREAMS, &random_bytes()?).await?)
    }

    /// A key of these bytes.
    pub fn new(bytes: &[u8; 32]) -> Result<Self> {
        let keyed = Hmac::new_from_slice(bytes);
        keyed.map(Self).map_err(|error| ServiceError::Internal(format!("no key to sign with: {error}")))
    }

    /// The signature of a message.
    pub fn sign(&self, message: &[u8]) -> [u8; 32] {
        self.0.clone().chain_update(message).finalize().into_bytes().into()
    }

    /// Whether the signature is this message's. Takes the same time wherever it differs.
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        self.0.clone().chain_update(message).verify_slice(signature).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_are_those_of_the_standard() {
        let key = SigningKey::new(&[0x0b; 32]).unwrap();
        let expected = "198a607eb44bfbc69903a0f1cf2bbdc5ba0aa3f3d9ae3c1c7a3b1696a0b68cf7";
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        assert_eq!(hex(&key.sign(b"Hi There")), expected);
    }

    #[test]
    fn a_signature_holds_for_its_key_and_message_alone() {
        let (key, other) = (SigningKey::new(&[1; 32]).unwrap(), SigningKey::new(&[2; 32]).unwrap());
        let signature = key.sign(b"message");
        assert!(key.verifies(b"message", &signature));
        assert!(!other.verifies(b"message", &signature) && !key.verifies(b"massage", &signature));
        assert!(!key.verifies(b"message", &signature[..31]) && !key.verifies(b"message", b""));
        for place in 0..32 {
            let mut forged = signature;
            forged[place] ^= 1;
            assert!(!key.verifies(b"message", &forged), "{place}");
        }
        assert_eq!(format!("{key:?}"), "SigningKey(…)");
    }
}
