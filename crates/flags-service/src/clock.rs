//! Where the instant of a request comes from.

use std::sync::atomic::{AtomicI64, Ordering};

use flags_domain::Instant;
use time::OffsetDateTime;

/// Tells the time. Each evaluation and each change takes one instant and hands it down.
pub trait Clock: Send + Sync + 'static {
    /// The present instant; never earlier than one told before.
    fn now(&self) -> Instant;
}

/// The host's clock, which this process never sees going back.
#[derive(Debug, Default)]
pub struct SystemClock {
    latest: AtomicI64,
}

impl Clock for SystemClock {
    fn now(&self) -> Instant {
        let micros = Instant::from(OffsetDateTime::now_utc()).as_micros();
        Instant::from_micros(self.latest.fetch_max(micros, Ordering::Relaxed).max(micros))
    }
}

/// A clock that stands where it is put: for tests of what happens at an instant.
#[derive(Debug)]
pub struct ManualClock {
    micros: AtomicI64,
}

impl ManualClock {
    /// A clock that stands at `now`.
    pub const fn new(now: Instant) -> Self {
        Self { micros: AtomicI64::new(now.as_micros()) }
    }

    /// Puts the clock to `now`.
    pub fn set(&self, now: Instant) {
        self.micros.store(now.as_micros(), Ordering::Relaxed);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Instant {
        Instant::from_micros(self.micros.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_clock_never_goes_back() {
        let clock = SystemClock::default();
        let future = clock.now().plus_micros(60_000_000);
        clock.latest.store(future.as_micros(), Ordering::Relaxed);
        assert_eq!(clock.now(), future);
    }
}
