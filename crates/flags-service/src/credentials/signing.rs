//! HMAC-SHA256 signatures (RFC 2104). The key is stored in the database and shared by all servers,
//! so every server accepts the signatures of all others.

use std::fmt;

use flags_store::{Store, service_keys};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use crate::error::{Result, ServiceError};

/// Name of the database row that holds the key for stream tokens.
const EVENT_STREAMS: &str = "event_streams";

/// Secret HMAC key. `Debug` does not print it.
#[derive(Clone)]
pub struct SigningKey(Hmac<Sha256>);

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningKey(…)")
    }
}

impl SigningKey {
    /// Returns the key for stream tokens that all servers on this database share.
    pub async fn for_event_streams(store: &Store) -> Result<Self> {
        Self::new(&service_keys::find(&mut store.conn().await?, EVENT_STREAMS).await?)
    }

    /// Creates a key from raw bytes.
    pub fn new(bytes: &[u8; 32]) -> Result<Self> {
        let hmac = Hmac::new_from_slice(bytes);
        hmac.map(Self).map_err(|error| ServiceError::Internal(format!("invalid signing key: {error}")))
    }

    /// Derives a secret key for another purpose. No signed message may equal `purpose`; otherwise the signature would
    /// reveal the key.
    pub(crate) fn derive_key(&self, purpose: &str) -> [u8; 16] {
        let signature = self.sign(purpose.as_bytes());
        std::array::from_fn(|index| signature[index])
    }

    /// Computes the signature of a message.
    pub fn sign(&self, message: &[u8]) -> [u8; 32] {
        self.0.clone().chain_update(message).finalize().into_bytes().into()
    }

    /// Verifies a signature in constant time.
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        self.0.clone().chain_update(message).verify_slice(signature).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signature_is_hmac_sha256() {
        let key = SigningKey::new(&[0x0b; 32]).unwrap();
        let expected = "198a607eb44bfbc69903a0f1cf2bbdc5ba0aa3f3d9ae3c1c7a3b1696a0b68cf7";
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        assert_eq!(hex(&key.sign(b"Hi There")), expected);
    }

    #[test]
    fn rejects_signatures_of_other_keys_and_messages() {
        let (key, other) = (SigningKey::new(&[1; 32]).unwrap(), SigningKey::new(&[2; 32]).unwrap());
        let signature = key.sign(b"message");
        assert!(key.verify(b"message", &signature));
        assert!(!other.verify(b"message", &signature) && !key.verify(b"massage", &signature));
        assert!(!key.verify(b"message", &signature[..31]) && !key.verify(b"message", b""));
        for index in 0..32 {
            let mut forged = signature;
            forged[index] ^= 1;
            assert!(!key.verify(b"message", &forged), "byte {index}");
        }
        assert_eq!(format!("{key:?}"), "SigningKey(…)");
    }
}
