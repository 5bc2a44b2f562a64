//! How long one must wait between attempts to sign in: the longer, the more of them failed. Nobody is ever locked out.
//!
//! Failures count by account and address together, and more patiently by account and by address alone: who mistypes waits a
//! moment, who guesses from one place waits a minute, and a stranger's guesses hardly slow down the account's owner.

use std::time::Duration;

use flags_domain::Instant;
use flags_store::{
    Author, Tx,
    sign_in_attempts::{self as store, Attempts},
};
use sha2::{Digest as _, Sha256};

use crate::{
    core::Command,
    error::{Result, ServiceError},
};

/// Failures that cost no waiting, by account and address together.
const FREE_PAIR: i32 = 3;
/// The same, by account or address alone.
const FREE_ALONE: i32 = 30;
/// Longest wait.
const MAX_WAIT: Duration = Duration::from_secs(60);
/// Failures are forgotten after so long without another, in microseconds: 15 minutes.
pub const FORGOTTEN_AFTER: i64 = 15 * 60 * 1_000_000;

/// The wait after so many failures in a row, `free` of which cost nothing: one second, and twice as long with each.
fn wait(failures: i32, free: i32) -> Duration {
    match u32::try_from(failures - free) {
        Ok(over @ 1..) => Duration::from_secs(1 << (over - 1).min(6)).min(MAX_WAIT),
        _ => Duration::ZERO,
    }
}

/// What failures count for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Subject {
    hash: [u8; 32],
    free: i32,
}

/// An attempt to sign in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Attempt {
    pair: Subject,
    account: Subject,
    address: Subject,
}

impl Attempt {
    /// On the account of this e-mail, from this address.
    pub(super) fn new(email: &str, address: &str) -> Self {
        let account = email.to_lowercase();
        let subject = |kind: &str, parts: [&str; 2], free| {
            let mut hash = Sha256::new();
            for part in [kind, parts[0], parts[1]] {
                hash.update(part.len().to_be_bytes());
                hash.update(part);
            }
            Subject { hash: hash.finalize().into(), free }
        };
        Self {
            pair: subject("pair", [&account, address], FREE_PAIR),
            account: subject("account", [&account, ""], FREE_ALONE),
            address: subject("address", ["", address], FREE_ALONE),
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
#[derive(Clone)]
pub(super) struct Reserve(pub(super) Attempt);

impl Command for Reserve {
    type Output = ();
    const BOOK_KEEPING: bool = true;

    async fn apply(&self, tx: &mut Tx, _: &Author) -> Result<()> {
        let mut known = Vec::with_capacity(3);
        for subject in self.0.subjects() {
            let attempts = store::claim(tx, &subject.hash).await?;
            known.push((subject, attempts));
        }
        let now = tx.now();
        let too_soon = known.iter().filter_map(|(subject, attempts)| left(*attempts, subject.free, now)).max();
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

/// How much of the wait is left, if any.
fn left(attempts: Attempts, free: i32, now: Instant) -> Option<Duration> {
    if is_forgotten(attempts, now) {
        return None;
    }
    let wait = i64::try_from(wait(attempts.failures, free).as_micros()).unwrap_or(i64::MAX);
    let left = attempts.last_at.plus_micros(wait).as_micros() - now.as_micros();
    u64::try_from(left).ok().filter(|left| *left > 0).map(Duration::from_micros).map(|left| left.min(MAX_WAIT))
}

/// Takes a reserved attempt back, as it succeeded: the pair and the account are forgotten, and the address has one failure
/// less.
pub(super) async fn succeeded(tx: &mut Tx, attempt: &Attempt) -> Result<()> {
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

    #[test]
    fn the_wait_grows_and_never_exceeds_a_minute() {
        let seconds: Vec<_> = (0..12).map(|failures| wait(failures, 3).as_secs()).collect();
        assert_eq!(seconds, [0, 0, 0, 0, 1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(wait(i32::MAX, 3), MAX_WAIT);
    }

    #[test]
    fn what_is_left_of_a_wait_ends_with_it_and_failures_are_forgotten() {
        let attempts = Attempts { failures: 6, last_at: Instant::from_micros(1_000_000) };
        let at = |micros| left(attempts, 3, Instant::from_micros(micros));
        assert_eq!(at(1_000_000), Some(Duration::from_secs(4)));
        assert_eq!(at(4_999_999), Some(Duration::from_micros(1)));
        assert_eq!(at(5_000_000), None);
        let many = Attempts { failures: 1_000, ..attempts };
        assert_eq!(left(many, 3, Instant::from_micros(1_000_000 + FORGOTTEN_AFTER)), None);
        // A clock that went back makes nobody wait for longer.
        assert_eq!(left(many, 3, Instant::from_micros(-9_000_000_000)), Some(MAX_WAIT));
    }

    #[test]
    fn case_makes_no_other_account_and_parts_cannot_be_shifted() {
        assert_eq!(Attempt::new("Ann@x", "1").pair, Attempt::new("ann@X", "1").pair);
        assert_ne!(Attempt::new("a", "b1").pair, Attempt::new("ab", "1").pair);
        assert_ne!(Attempt::new("a", "").account, Attempt::new("a", "").pair);
    }
}
