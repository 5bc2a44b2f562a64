//! Passwords: Argon2id with the parameters that OWASP recommends (19 MiB, two passes, one lane), on threads of their own.

use std::{
    fmt,
    sync::{Arc, LazyLock},
    thread,
};

use argon2::{Argon2, PasswordHasher as _, PasswordVerifier as _, password_hash::phc::PasswordHash as Phc};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use flags_domain::Violation;
use flags_store::passwords::PasswordHash;
use rand::TryRng as _;
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    task::spawn_blocking,
    time::{Duration, timeout},
};

use crate::error::{Result, ServiceError};

/// Fewest characters of a password.
pub const MIN_LENGTH: usize = 12;
/// Most characters of a password.
pub const MAX_LENGTH: usize = 256;
/// Longest wait for a turn to hash.
const WAIT: Duration = Duration::from_secs(5);

/// A password as somebody typed it. Never printed.
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
    /// What is wrong with it as a new password; `pointer` is where it stands in the request. Length is what counts
    /// (NIST SP 800-63B): no rules about kinds of characters.
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
        let same = self.0.eq_ignore_ascii_case(email);
        same.then(|| Violation::new(pointer, "too_simple", "must not be the e-mail address"))
    }
}

/// A password that nobody can guess, of 20 letters, digits, `-` and `_`.
pub fn generate() -> Result<String> {
    let mut bytes = [0_u8; 15];
    let failed = |error: rand::rngs::SysError| ServiceError::Internal(format!("no randomness: {error}"));
    rand::rngs::SysRng.try_fill_bytes(&mut bytes).map_err(failed)?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}

/// How many passwords are hashed at once: each takes 19 MiB and a core for some ten milliseconds.
static TURNS: LazyLock<Semaphore> =
    LazyLock::new(|| Semaphore::new(thread::available_parallelism().map_or(1, |cores| cores.get().div_ceil(2))));

/// What is compared with when there is no such account, so that it takes as long as when there is one.
static NOBODYS: LazyLock<Arc<str>> = LazyLock::new(|| {
    let hash = Argon2::default().hash_password(b"the password of nobody").map(|hash| hash.to_string());
    hash.unwrap_or_default().into()
});

async fn turn() -> Result<SemaphorePermit<'static>> {
    let turn = timeout(WAIT, TURNS.acquire()).await.ok().and_then(std::result::Result::ok);
    turn.ok_or(ServiceError::Busy("too many passwords are being checked"))
}

async fn on_a_thread<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let _turn = turn().await?;
    spawn_blocking(work).await.unwrap_or_else(|error| Err(ServiceError::Internal(error.to_string())))
}

/// Hashes a new password, with a salt of its own.
pub async fn hash(password: Password) -> Result<PasswordHash> {
    on_a_thread(move || {
        let failed = |error: argon2::password_hash::Error| ServiceError::Internal(format!("no hash: {error}"));
        let hash = Argon2::default().hash_password(password.0.as_bytes()).map_err(failed)?;
        Ok(PasswordHash(hash.to_string()))
    })
    .await
}

/// Whether this is the password. Without one to compare with it is not, after the same time.
pub async fn verify(password: Password, expected: Option<PasswordHash>) -> Result<bool> {
    on_a_thread(move || {
        let known = expected.is_some();
        let expected = expected.map_or_else(|| Arc::clone(&NOBODYS), |hash| hash.0.into());
        // One that nobody could have set is compared all the same.
        let text: String = password.0.chars().take(MAX_LENGTH + 1).collect();
        let hash = Phc::new(&expected)
            .map_err(|error| ServiceError::Internal(format!("a stored password cannot be read: {error}")))?;
        Ok(Argon2::default().verify_password(text.as_bytes(), &hash).is_ok() && known)
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
    async fn a_hash_is_argon2id_with_owasps_parameters_and_fits_its_password_alone() {
        let one = hash(password("correct horse battery")).await.unwrap();
        assert!(one.0.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{}", one.0);
        assert_ne!(hash(password("correct horse battery")).await.unwrap(), one, "salted");
        assert!(verify(password("correct horse battery"), Some(one.clone())).await.unwrap());
        assert!(!verify(password("Correct horse battery"), Some(one)).await.unwrap());
        assert!(!verify(password("the password of nobody"), None).await.unwrap(), "nobody cannot sign in");
    }

    #[test]
    fn what_is_too_short_too_long_or_too_simple_is_refused() {
        let code = |text: &str| password(text).violation("/password", "ann.long@example.com").map(|v| v.code);
        assert_eq!(code("elevenchars"), Some("too_short"));
        assert_eq!(code(&"x".repeat(257)), Some("too_long"));
        assert_eq!(code("with a\0 inside it"), Some("nul_character"));
        assert_eq!(code("Ann.Long@Example.com"), Some("too_simple"));
        assert_eq!(code("zwölf zeichen"), None);
        assert_eq!(code(&"x".repeat(256)), None);
    }

    #[test]
    fn a_password_does_not_print_itself() {
        assert!(!format!("{:?} {:?}", password("secret"), PasswordHash("hash".into())).contains("ecret"));
    }
}
