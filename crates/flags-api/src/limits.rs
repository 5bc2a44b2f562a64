//! How much a caller may ask for: a rate limit for each credential, so that one that runs wild takes nothing from the others.

use std::{num::NonZeroU32, sync::Arc, time::Duration};

use governor::{
    DefaultKeyedRateLimiter, Quota,
    clock::{Clock as _, DefaultClock},
};

/// Requests a second; for a moment twice as many. 0 is no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimits {
    /// Of one credential, of what may ask the database.
    pub requests: u32,
    /// Of one credential, of evaluations, which are answered from memory.
    pub evaluations: u32,
    /// Without a valid credential, of one address.
    pub anonymous: u32,
}

impl Default for RateLimits {
    fn default() -> Self {
        Self { requests: 1_000, evaluations: 20_000, anonymous: 200 }
    }
}

type Limiter<K> = Option<Arc<DefaultKeyedRateLimiter<K>>>;

/// The rate limits of all callers of this process. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Limits {
    requests: Limiter<u64>,
    evaluations: Limiter<u64>,
    anonymous: Limiter<String>,
}

fn limiter<K: std::hash::Hash + Eq + Clone>(per_second: u32) -> Limiter<K> {
    let rate = NonZeroU32::new(per_second)?;
    let burst = rate.saturating_mul(NonZeroU32::MIN.saturating_add(1));
    Some(Arc::new(DefaultKeyedRateLimiter::keyed(Quota::per_second(rate).allow_burst(burst))))
}

fn check<K: std::hash::Hash + Eq + Clone>(limiter: &Limiter<K>, key: impl FnOnce() -> K) -> Option<Duration> {
    let refused = limiter.as_ref()?.check_key(&key()).err()?;
    Some(refused.wait_time_from(DefaultClock::default().now()))
}

impl Limits {
    pub(crate) fn new(limits: RateLimits) -> Self {
        Self {
            requests: limiter(limits.requests),
            evaluations: limiter(limits.evaluations),
            anonymous: limiter(limits.anonymous),
        }
    }

    /// How long a credential must wait before it may ask for this path, if it must.
    pub(crate) fn check_credential(&self, key: u64, path: &str) -> Option<Duration> {
        let evaluates = path.starts_with("/api/flags/") || path.starts_with("/ofrep/");
        check(if evaluates { &self.evaluations } else { &self.requests }, || key)
    }

    /// How long an address must wait, if it must.
    pub(crate) fn check_address(&self, address: impl FnOnce() -> String) -> Option<Duration> {
        check(&self.anonymous, address)
    }

    /// Forgets those who have asked for nothing lately. To be called every few seconds.
    pub(crate) fn forget_the_quiet(&self) {
        for limiter in [&self.requests, &self.evaluations].into_iter().flatten() {
            limiter.retain_recent();
        }
        if let Some(anonymous) = &self.anonymous {
            anonymous.retain_recent();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_credential_has_a_limit_of_its_own_and_each_kind_of_request() {
        let limits = Limits::new(RateLimits { requests: 1, evaluations: 1, anonymous: 1 });
        let ask = |key, path| limits.check_credential(key, path).is_none();
        assert!(ask(1, "/api/admin/users") && ask(1, "/api/admin/users"), "twice as many for a moment");
        let wait = limits.check_credential(1, "/api/admin/users").unwrap();
        assert!(wait <= Duration::from_secs(1) && !wait.is_zero());
        assert!(ask(2, "/api/admin/users"));
        assert!(ask(1, "/api/flags/me"));
        let anonymous = |address: &str| limits.check_address(|| address.to_owned()).is_none();
        assert!(anonymous("1") && anonymous("1") && !anonymous("1") && anonymous("2"));
        limits.forget_the_quiet();
    }

    #[test]
    fn zero_is_no_limit() {
        let limits = Limits::new(RateLimits { requests: 0, evaluations: 0, anonymous: 0 });
        assert!((0..10_000).all(|_| limits.check_credential(1, "/").is_none()));
    }

    #[test]
    fn the_defaults_never_refuse_a_hundred_at_once_or_two_hundred_a_second() {
        let limits = Limits::new(RateLimits::default());
        assert!((0..400).all(|_| limits.check_credential(1, "/api/admin/users").is_none()));
    }
}
