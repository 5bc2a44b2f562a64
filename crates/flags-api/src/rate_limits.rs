//! Rate limits per credential and, for requests without a valid credential, per address.

use std::{num::NonZeroU32, sync::Arc, time::Duration};

use governor::{
    DefaultKeyedRateLimiter, Quota,
    clock::{Clock as _, DefaultClock},
};

use crate::route_facts::RateClass;

/// Limits in requests per second. A burst of twice the limit is allowed; 0 disables a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimits {
    /// Limit per credential for requests that may query the database. Default 1,000.
    pub requests: u32,
    /// Limit per credential for evaluations, which the server computes in memory. Default 20,000.
    pub evaluations: u32,
    /// Limit per address for requests without a valid credential. Default 200.
    pub anonymous: u32,
}

impl Default for RateLimits {
    fn default() -> Self {
        Self { requests: 1_000, evaluations: 20_000, anonymous: 200 }
    }
}

type Limiter<K> = Option<Arc<DefaultKeyedRateLimiter<K>>>;

/// Rate limiters of this process. Clones share their state.
#[derive(Clone)]
pub(crate) struct RateLimiters {
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
    let rejection = limiter.as_ref()?.check_key(&key()).err()?;
    Some(rejection.wait_time_from(DefaultClock::default().now()))
}

impl RateLimiters {
    pub(crate) fn new(limits: RateLimits) -> Self {
        Self {
            requests: limiter(limits.requests),
            evaluations: limiter(limits.evaluations),
            anonymous: limiter(limits.anonymous),
        }
    }

    /// Counts a request against the limit of the credential with this fingerprint. Returns the time to wait if the
    /// limit is exceeded.
    pub(crate) fn check_credential(&self, rate_class: RateClass, fingerprint: u64) -> Option<Duration> {
        let limiter = match rate_class {
            RateClass::Requests => &self.requests,
            RateClass::Evaluations => &self.evaluations,
        };
        check(limiter, || fingerprint)
    }

    /// Counts a request against the limit of the address. Returns the time to wait if the limit is exceeded.
    pub(crate) fn check_address(&self, address: impl FnOnce() -> String) -> Option<Duration> {
        check(&self.anonymous, address)
    }

    /// Frees the state of credentials and addresses that sent no requests recently.
    pub(crate) fn drop_idle_keys(&self) {
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
    fn limits_are_separate_per_credential_and_kind_of_request() {
        let limits = RateLimiters::new(RateLimits { requests: 1, evaluations: 1, anonymous: 1 });
        let is_allowed = |fingerprint, rate_class| limits.check_credential(rate_class, fingerprint).is_none();
        assert!(is_allowed(1, RateClass::Requests) && is_allowed(1, RateClass::Requests), "a burst of twice the limit");
        let wait = limits.check_credential(RateClass::Requests, 1).unwrap();
        assert!(wait <= Duration::from_secs(1) && !wait.is_zero());
        assert!(is_allowed(2, RateClass::Requests));
        assert!(is_allowed(1, RateClass::Evaluations));
        let address_is_allowed = |address: &str| limits.check_address(|| address.to_owned()).is_none();
        assert!(address_is_allowed("1") && address_is_allowed("1"), "a burst of twice the limit");
        assert!(!address_is_allowed("1") && address_is_allowed("2"));
        limits.drop_idle_keys();
    }

    #[test]
    fn zero_disables_a_limit() {
        let limits = RateLimiters::new(RateLimits { requests: 0, evaluations: 0, anonymous: 0 });
        assert!((0..10_000).all(|_| limits.check_credential(RateClass::Requests, 1).is_none()));
    }

    #[test]
    fn default_limits_allow_a_burst_of_400_requests() {
        let limits = RateLimiters::new(RateLimits::default());
        assert!((0..400).all(|_| limits.check_credential(RateClass::Requests, 1).is_none()));
    }
}
