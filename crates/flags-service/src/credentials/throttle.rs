//! How long one must wait between attempts to sign in: the longer, the more of them failed. Nobody is ever locked out.
//!
//! Failures count by account and address together, and more patiently by account and by address alone: who mistypes waits a
//! moment, who guesses from one place waits a minute. Where an account was signed in to lately only failures from there
//! count, so that its owner never waits for a stranger's guesses; elsewhere they wait for those some seconds at most.

use std::time::Duration;

use flags_domain::Instant;
use flags_store::{
    Tx,
    sign_in_attempts::{self as store, Attempts},
    users::email_key,
};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use crate::{
    clock::micros,
    core::UnloggedCommand,
    error::{Result, ServiceError},
};

/// Failures that cost no waiting, by account and address together.
const FREE_PAIR: i32 = 3;
/// The same, by account or address alone.
const FREE_ALONE: i32 = 30;
/// Longest wait.
const MAX_WAIT: Duration = Duration::from_secs(60);
/// The same for failures of an account from anywhere.
const MAX_WAIT_ACCOUNT: Duration = Duration::from_secs(5);
/// How long a place from which somebody signed in is known, in microseconds: 90 days.
pub const PLACE_KNOWN_FOR: i64 = 90 * 24 * 3_600 * 1_000_000;
/// Failures are forgotten after so long without another, in microseconds: 15 minutes.
pub const FORGOTTEN_AFTER: i64 = 15 * 60 * 1_000_000;

/// What failures count for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Subject {
    hash: [u8; 32],
    /// Failures that cost nothing.
    free: i32,
    /// The longest that it makes anybody wait.
    longest: Duration,
}

impl Subject {
    /// The wait after so many failures in a row: one second, and twice as long with each.
    fn wait(&self, failures: i32) -> Duration {
        match u32::try_from(failures - self.free) {
            Ok(over @ 1..) => Duration::from_secs(1 << (over - 1).min(6)).min(self.longest),
            _ => Duration::ZERO,
        }
    }

    /// How much of the wait is left, if any.
    fn left(&self, attempts: Attempts, now: Instant) -> Option<Duration> {
        if is_forgotten(attempts, now) {
            return None;
        }
        let left = attempts.last_at.plus_micros(micros(self.wait(attempts.failures))).as_micros() - now.as_micros();
        u64::try_from(left).ok().filter(|left| *left > 0).map(Duration::from_micros).map(|left| left.min(self.longest))
    }
}

/// An attempt to sign in.
#[derive(Clone, Debug)]
pub(super) struct Attempt {
    email_key: String,
    pair: Subject,
    account: Subject,
    address: Subject,
}

impl Attempt {
    /// On the account of this e-mail, from this address.
    pub(super) fn new(email: &str, address: &str) -> Self {
        let account = email_key(email);
        let subject = |kind: &str, parts: [&str; 2], free, longest| {
            let mut hash = Sha256::new();
            for part in [kind, parts[0], parts[1]] {
                hash.update(part.len().to_be_bytes());
                hash.update(part);
            }
            Subject { hash: hash.finalize().into(), free, longest }
        };
        Self {
            pair: subject("pair", [&account, address], FREE_PAIR, MAX_WAIT),
            account: subject("account", [&account, ""], FREE_ALONE, MAX_WAIT_ACCOUNT),
            address: subject("address", ["", address], FREE_ALONE, MAX_WAIT),
            email_key: account,
        }
    }

    /// In an order that is the same for everybody, so that two attempts do not wait for each other.
    fn subjects(&self) -> [Subject; 3] {
        let mut subjects = [self.pair, self.account, self.address];
        subjects.sort_by_key(|subject| subject.hash);
        subjects
    }
}

/// Counts an attempt as failed before it is looked at, so that many at once cannot all pass; refuses one that comes too
/// soon.
pub(super) struct ReserveAttempt(pub(super) Attempt);

impl UnloggedCommand for ReserveAttempt {
    type Output = ();

    async fn apply(&self, tx: &mut Tx) -> Result<()> {
        let mut known = Vec::with_capacity(3);
        for subject in self.0.subjects() {
            let attempts = store::claim(tx, &subject.hash).await?;
            known.push((subject, attempts));
        }
        let now = tx.now();
        let since = now.plus_micros(-PLACE_KNOWN_FOR);
        let at_home = store::is_known_place(tx, &self.0.email_key, &self.0.address.hash, since).await?;
        let counting = known.iter().filter(|(subject, _)| !at_home || *subject == self.0.pair);
        let too_soon = counting.filter_map(|(subject, attempts)| subject.left(*attempts, now)).max();
        if let Some(retry_after) = too_soon {
            return Err(ServiceError::TooSoon { retry_after });
        }
        for (subject, attempts) in known {
            let failures = if is_forgotten(attempts, now) { 1 } else { attempts.failures.saturating_add(1) };
            store::set(tx, &subject.hash, Attempts { failures, last_at: now }).await?;
        }
        Ok(())
    }
}

fn is_forgotten(attempts: Attempts, now: Instant) -> bool {
    attempts.last_at.plus_micros(FORGOTTEN_AFTER) <= now
}

/// Takes a reserved attempt back, as this user succeeded: the pair and the account are forgotten, the address has one failure
/// less, and is known as theirs.
pub(super) async fn succeeded(tx: &mut Tx, attempt: &Attempt, user_id: Uuid) -> Result<()> {
    store::note_place(tx, user_id, &attempt.address.hash).await?;
    for subject in attempt.subjects() {
        if subject == attempt.address {
            let attempts = store::claim(tx, &subject.hash).await?;
            let failures = (attempts.failures - 1).max(0);
            store::set(tx, &subject.hash, Attempts { failures, ..attempts }).await?;
        } else {
            store::forget(tx, &subject.hash).await?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAIR: Subject = Subject { hash: [0; 32], free: FREE_PAIR, longest: MAX_WAIT };

    #[test]
    fn the_wait_grows_up_to_a_limit() {
        let seconds: Vec<_> = (0..12).map(|failures| PAIR.wait(failures).as_secs()).collect();
        assert_eq!(seconds, [0, 0, 0, 0, 1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(PAIR.wait(i32::MAX), MAX_WAIT);
        assert_eq!(Attempt::new("a", "b").account.wait(i32::MAX), MAX_WAIT_ACCOUNT);
    }

    #[test]
    fn what_is_left_of_a_wait_ends_with_it_and_failures_are_forgotten() {
        let attempts = Attempts { failures: 6, last_at: Instant::from_micros(1_000_000) };
        let at = |micros| PAIR.left(attempts, Instant::from_micros(micros));
        assert_eq!(at(1_000_000), Some(Duration::from_secs(4)));
        assert_eq!(at(4_999_999), Some(Duration::from_micros(1)));
        assert_eq!(at(5_000_000), None);
        let many = Attempts { failures: 1_000, ..attempts };
        assert_eq!(PAIR.left(many, Instant::from_micros(1_000_000 + FORGOTTEN_AFTER)), None);
        // A clock that went back makes nobody wait for longer.
        assert_eq!(PAIR.left(many, Instant::from_micros(-9_000_000_000)), Some(MAX_WAIT));
    }

    #[test]
    fn case_makes_no_other_account_and_parts_cannot_be_shifted() {
        assert_eq!(Attempt::new("Ann@x", "1").pair, Attempt::new("ann@X", "1").pair);
        assert_ne!(Attempt::new("a", "b1").pair, Attempt::new("ab", "1").pair);
        assert_ne!(Attempt::new("a", "").account, Attempt::new("a", "").pair);
    }
}
