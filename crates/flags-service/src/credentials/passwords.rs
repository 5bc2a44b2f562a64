//! Password hashing: Argon2id with the parameters that OWASP recommends (19 MiB, two passes, one lane), on blocking
//! threads.

use std::{
    fmt,
    sync::{Arc, LazyLock},
    thread,
};

use argon2::{Argon2, PasswordHasher as _, PasswordVerifier as _, password_hash::phc::PasswordHash as Phc};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use flags_domain::Violation;
use flags_store::passwords::PasswordHash;
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    task::spawn_blocking,
    time::{Duration, timeout},
};

use super::secret::random_bytes;
use crate::error::{Result, ServiceError};

/// Minimum length of a password in characters.
pub const MIN_LENGTH: usize = 12;
/// Maximum length of a password in characters.
pub const MAX_LENGTH: usize = 256;
/// Timeout for acquiring a permit to hash a password.
const PERMIT_TIMEOUT: Duration = Duration::from_secs(5);

/// Password in clear text. `Debug` does not print it.
#[derive(Clone)]
pub struct Password(String);

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(…)")
    }
}

impl From<String> for Password {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl Password {
    /// Checks the rules for new passwords and returns the first violation. `pointer` is the JSON
    /// pointer of the password in the request.
    ///
    /// As NIST SP 800-63B recommends, the rules limit the length and do not require specific kinds
    /// of characters.
    pub fn violation(&self, pointer: &str, email: &str) -> Option<Violation> {
        let length = self.0.chars().count();
        if length < MIN_LENGTH {
            return Some(Violation::new(pointer, "too_short", format!("must have at least {MIN_LENGTH} characters")));
        }
        if length > MAX_LENGTH {
            return Some(Violation::new(pointer, "too_long", format!("must have at most {MAX_LENGTH} characters")));
        }
        if self.0.contains('\0') {
            return Some(Violation::new(pointer, "nul_character", "must not contain the NUL character"));
        }
        let equals_email = self.0.eq_ignore_ascii_case(email);
        equals_email.then(|| Violation::new(pointer, "too_simple", "must not equal the e-mail address"))
    }
}

/// Error for a user with a password but without an e-mail address.
pub(crate) fn email_required() -> ServiceError {
    Violation::new("/email", "email_required", "a user with a password needs an e-mail address").into()
}

/// Generates a random password of 20 base64url characters (120 bits).
pub fn generate() -> Result<String> {
    Ok(URL_SAFE_NO_PAD.encode(random_bytes::<15>()?))
}

/// Limits concurrent hashing to half of the cores. One hash takes 19 MiB and tens of milliseconds of CPU time.
static HASHING_PERMITS: LazyLock<Semaphore> =
    LazyLock::new(|| Semaphore::new(thread::available_parallelism().map_or(1, |cores| cores.get().div_ceil(2))));

/// Hash that [`verify`] checks against if the account does not exist. It makes the response time
/// independent of whether the account exists.
static DUMMY_HASH: LazyLock<Arc<str>> = LazyLock::new(|| {
    let hash = Argon2::default().hash_password(b"dummy password").map(|hash| hash.to_string());
    hash.unwrap_or_default().into()
});

async fn acquire_hashing_permit() -> Result<SemaphorePermit<'static>> {
    let permit = timeout(PERMIT_TIMEOUT, HASHING_PERMITS.acquire()).await.ok().and_then(std::result::Result::ok);
    permit.ok_or(ServiceError::Busy("too many password checks are in progress; retry in a few seconds"))
}

async fn run_blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let _permit = acquire_hashing_permit().await?;
    spawn_blocking(work).await.unwrap_or_else(|error| Err(ServiceError::Internal(error.to_string())))
}

/// Hashes a password with a random salt.
pub async fn hash(password: Password) -> Result<PasswordHash> {
    run_blocking(move || match Argon2::default().hash_password(password.0.as_bytes()) {
        Ok(hash) => Ok(PasswordHash(hash.to_string())),
        Err(error) => Err(ServiceError::Internal(format!("cannot hash the password: {error}"))),
    })
    .await
}

/// Returns whether `password` matches `expected`. Without `expected`, returns `false` after the
/// same computing time.
pub async fn verify(password: Password, expected: Option<PasswordHash>) -> Result<bool> {
    run_blocking(move || {
        let account_exists = expected.is_some();
        let expected = expected.map_or_else(|| Arc::clone(&DUMMY_HASH), |hash| hash.0.into());
        // A password over the maximum length cannot match. Hashing at most MAX_LENGTH + 1 characters bounds the cost.
        let text: String = password.0.chars().take(MAX_LENGTH + 1).collect();
        let hash = Phc::new(&expected)
            .map_err(|error| ServiceError::Internal(format!("cannot parse a stored password hash: {error}")))?;
        Ok(Argon2::default().verify_password(text.as_bytes(), &hash).is_ok() && account_exists)
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn password(text: &str) -> Password {
        text.to_owned().into()
    }

    #[tokio::test]
    async fn hash_uses_owasp_parameters_and_verifies_only_its_password() {
        let first = hash(password("correct horse battery")).await.unwrap();
        assert!(first.0.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{}", first.0);
        assert_ne!(hash(password("correct horse battery")).await.unwrap(), first, "salts must differ");
        assert!(verify(password("correct horse battery"), Some(first.clone())).await.unwrap());
        assert!(!verify(password("Correct horse battery"), Some(first)).await.unwrap());
        assert!(!verify(password("dummy password"), None).await.unwrap(), "a missing account must not verify");
    }

    #[test]
    fn rejects_too_short_too_long_and_too_simple_passwords() {
        let code = |text: &str| password(text).violation("/password", "ann.long@example.com").map(|v| v.code);
        assert_eq!(code("elevenchars"), Some("too_short"));
        assert_eq!(code(&"x".repeat(257)), Some("too_long"));
        assert_eq!(code("with a\0 inside it"), Some("nul_character"));
        assert_eq!(code("Ann.Long@Example.com"), Some("too_simple"));
        assert_eq!(code("zwölf zeichen"), None);
        assert_eq!(code(&"x".repeat(256)), None);
    }

    #[test]
    fn debug_output_hides_passwords() {
        assert!(!format!("{:?} {:?}", password("secret"), PasswordHash("hash".into())).contains("ecret"));
    }
}
