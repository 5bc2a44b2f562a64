//! Throttling of sign-in attempts: each failure increases the delay before the next attempt.
//! Accounts are never locked.
//!
//! The server keeps three failure counters: for the account together with the network (IPv4 address
//! or IPv6 /64), for the account alone, and for the network alone. The counters for an account
//! alone and for a network alone tolerate more failures.
//!
//! A network is known for an account if the account signed in from it within
//! [`KNOWN_NETWORK_RETENTION_MICROS`]. On a known network, only the counter for account and network
//! together applies, so attackers elsewhere cannot delay the owner. On any other network, attackers
//! elsewhere can delay the owner by at most 5 seconds.

use std::time::Duration;

use flags_domain::{Instant, email_key};
use flags_store::{
    Tx,
    sign_in_attempts::{self as store, FailedAttempts},
};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use crate::{
    clock::micros,
    core::UnloggedCommand,
    error::{Result, ServiceError},
};

/// Number of failures for one account from one network before delays start.
const FREE_FAILURES_PAIR: i32 = 3;
/// Number of failures without delay, for an account alone or for a network alone.
const FREE_FAILURES_SINGLE: i32 = 30;
/// Maximum delay for an account together with a network, and for a network alone.
const MAX_DELAY: Duration = Duration::from_secs(60);
/// Maximum delay for an account alone.
const MAX_ACCOUNT_DELAY: Duration = Duration::from_secs(5);
/// Time after the last successful sign-in during which a network is known for an account: 90 days in microseconds.
pub const KNOWN_NETWORK_RETENTION_MICROS: i64 = 90 * 24 * 3_600 * 1_000_000;
/// Time after the last failure until the failure count resets: 15 minutes in microseconds.
pub const FAILURE_RETENTION_MICROS: i64 = 15 * 60 * 1_000_000;

/// Key of a failure counter, with the limits of the counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct ThrottleKey {
    hash: [u8; 32],
    /// Number of failures without delay.
    free_failures: i32,
    max_delay: Duration,
}

impl ThrottleKey {
    fn new(parts: [&str; 3], free_failures: i32, max_delay: Duration) -> Self {
        let mut hash = Sha256::new();
        for part in parts {
            // Without the length prefix, different parts could produce the same hash input.
            hash.update(part.len().to_be_bytes());
            hash.update(part);
        }
        Self { hash: hash.finalize().into(), free_failures, max_delay }
    }

    /// Delay after `failures` consecutive failures. The first failure beyond `free_failures` causes
    /// a delay of one second. Each further failure doubles the delay, up to `max_delay`.
    fn delay(&self, failures: i32) -> Duration {
        match u32::try_from(failures - self.free_failures) {
            Ok(excess @ 1..) => Duration::from_secs(1 << (excess - 1).min(6)).min(self.max_delay),
            _ => Duration::ZERO,
        }
    }

    /// Remaining delay at `now`; `None` if an attempt is allowed.
    fn remaining_delay(&self, attempts: FailedAttempts, now: Instant) -> Option<Duration> {
        if has_reset(attempts, now) {
            return None;
        }
        let allowed_at = attempts.last_at.plus_micros(micros(self.delay(attempts.failures)));
        let remaining = allowed_at.as_micros() - now.as_micros();
        let remaining = u64::try_from(remaining).ok().filter(|micros| *micros > 0).map(Duration::from_micros);
        remaining.map(|remaining| remaining.min(self.max_delay))
    }
}

/// Keys of the failure counters that apply to one sign-in attempt.
#[derive(Clone, Debug)]
pub(super) struct SignInAttempt {
    email: String,
    pair: ThrottleKey,
    account: ThrottleKey,
    network: ThrottleKey,
}

impl SignInAttempt {
    /// Builds the keys for an account and a network. `network` is an IPv4 address or an IPv6 /64 prefix.
    pub(super) fn new(email: &str, network: &str) -> Self {
        let account = email_key(email);
        Self {
            pair: ThrottleKey::new(["pair", &account, network], FREE_FAILURES_PAIR, MAX_DELAY),
            account: ThrottleKey::new(["account", &account, ""], FREE_FAILURES_SINGLE, MAX_ACCOUNT_DELAY),
            network: ThrottleKey::new(["address", "", network], FREE_FAILURES_SINGLE, MAX_DELAY),
            email: email.to_owned(),
        }
    }

    /// Returns the keys in lock order, which prevents deadlocks between concurrent attempts.
    fn throttle_keys(&self) -> [ThrottleKey; 3] {
        let mut keys = [self.pair, self.account, self.network];
        keys.sort_by_key(|key| key.hash);
        keys
    }
}

/// Rejects an attempt during the delay after earlier failures. Counts an allowed attempt as a
/// failure before the password is checked, so that concurrent attempts cannot bypass the limit;
/// [`record_success`] undoes this.
pub(super) struct ReserveSignInAttempt(pub(super) SignInAttempt);

impl UnloggedCommand for ReserveSignInAttempt {
    type Output = ();

    async fn apply(&self, tx: &mut Tx) -> Result<()> {
        let mut counts = Vec::with_capacity(3);
        for key in self.0.throttle_keys() {
            let attempts = store::lock(tx, &key.hash).await?;
            counts.push((key, attempts));
        }
        let now = tx.now();
        let since = now.plus_micros(-KNOWN_NETWORK_RETENTION_MICROS);
        let is_known_network = store::is_known_network(tx, &self.0.email, &self.0.network.hash, since).await?;
        let relevant = counts.iter().filter(|(key, _)| !is_known_network || *key == self.0.pair);
        let remaining_delay = relevant.filter_map(|(key, attempts)| key.remaining_delay(*attempts, now)).max();
        if let Some(retry_after) = remaining_delay {
            return Err(ServiceError::TooManyAttempts { retry_after });
        }
        for (key, attempts) in counts {
            let failures = if has_reset(attempts, now) { 1 } else { attempts.failures.saturating_add(1) };
            store::set(tx, &key.hash, FailedAttempts { failures, last_at: now }).await?;
        }
        Ok(())
    }
}

fn has_reset(attempts: FailedAttempts, now: Instant) -> bool {
    attempts.last_at.plus_micros(FAILURE_RETENTION_MICROS) <= now
}

/// Records a successful sign-in and marks the network as known for the user.
///
/// Resets the counters for the account alone and for account and network together. Subtracts from
/// the network's counter the failure that was counted before the password was checked.
pub(super) async fn record_success(tx: &mut Tx, attempt: &SignInAttempt, user_id: Uuid) -> Result<()> {
    store::record_network(tx, user_id, &attempt.network.hash).await?;
    for key in attempt.throttle_keys() {
        if key == attempt.network {
            let attempts = store::lock(tx, &key.hash).await?;
            let failures = (attempts.failures - 1).max(0);
            store::set(tx, &key.hash, FailedAttempts { failures, ..attempts }).await?;
        } else {
            store::delete(tx, &key.hash).await?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAIR: ThrottleKey = ThrottleKey { hash: [0; 32], free_failures: FREE_FAILURES_PAIR, max_delay: MAX_DELAY };

    #[test]
    fn delay_doubles_up_to_the_maximum() {
        let seconds: Vec<_> = (0..12).map(|failures| PAIR.delay(failures).as_secs()).collect();
        assert_eq!(seconds, [0, 0, 0, 0, 1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(PAIR.delay(i32::MAX), MAX_DELAY);
        assert_eq!(SignInAttempt::new("a", "b").account.delay(i32::MAX), MAX_ACCOUNT_DELAY);
    }

    #[test]
    fn remaining_delay_shrinks_over_time_and_is_none_after_the_failure_retention() {
        let attempts = FailedAttempts { failures: 6, last_at: Instant::from_micros(1_000_000) };
        let at = |micros| PAIR.remaining_delay(attempts, Instant::from_micros(micros));
        assert_eq!(at(1_000_000), Some(Duration::from_secs(4)));
        assert_eq!(at(4_999_999), Some(Duration::from_micros(1)));
        assert_eq!(at(5_000_000), None);
        let many = FailedAttempts { failures: 1_000, ..attempts };
        assert_eq!(PAIR.remaining_delay(many, Instant::from_micros(1_000_000 + FAILURE_RETENTION_MICROS)), None);
        // Even if the clock goes back, the delay does not exceed the maximum.
        assert_eq!(PAIR.remaining_delay(many, Instant::from_micros(-9_000_000_000)), Some(MAX_DELAY));
    }

    #[test]
    fn throttle_keys_ignore_email_case_and_do_not_collide() {
        assert_eq!(SignInAttempt::new("Ann@x", "1").pair, SignInAttempt::new("ann@X", "1").pair);
        assert_ne!(SignInAttempt::new("a", "b1").pair, SignInAttempt::new("ab", "1").pair);
        assert_ne!(SignInAttempt::new("a", "").account, SignInAttempt::new("a", "").pair);
    }
}
