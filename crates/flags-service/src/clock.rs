//! Clocks that provide the current instant.

use std::{
    pin::Pin,
    sync::atomic::{AtomicI64, Ordering},
    time::Duration,
};

use flags_domain::Instant;
use time::OffsetDateTime;
use tokio::{sync::watch, time::sleep};

/// Source of the current instant.
///
/// Each evaluation and each change reads the clock once and passes the instant on.
pub trait Clock: Send + Sync + 'static {
    /// Returns the current instant. Must be monotonic: never earlier than a previous return value.
    fn now(&self) -> Instant;

    /// Waits until [`now`](Self::now) returns `at` or later.
    fn wait_until(&self, at: Instant) -> Pin<Box<dyn Future<Output = ()> + Send + '_>>;
}

/// Maximum time between two readings of the system clock while waiting. The system clock may be
/// adjusted during the wait.
const MAX_SLEEP: Duration = Duration::from_secs(10);

/// The system clock, made monotonic within this process.
#[derive(Debug, Default)]
pub struct SystemClock {
    latest: AtomicI64,
}

impl Clock for SystemClock {
    fn now(&self) -> Instant {
        let micros = Instant::from(OffsetDateTime::now_utc()).as_micros();
        Instant::from_micros(self.latest.fetch_max(micros, Ordering::Relaxed).max(micros))
    }

    fn wait_until(&self, at: Instant) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async move {
            while let remaining @ 1.. = at.as_micros().saturating_sub(self.now().as_micros()) {
                sleep(Duration::from_micros(remaining.unsigned_abs()).min(MAX_SLEEP)).await;
            }
        })
    }
}

/// A clock for tests that changes only when it is set.
#[derive(Debug)]
pub struct ManualClock {
    now: watch::Sender<Instant>,
}

impl ManualClock {
    /// Creates a clock that is set to `now`.
    pub fn new(now: Instant) -> Self {
        Self { now: watch::Sender::new(now) }
    }

    /// Sets the clock to `now` and wakes tasks that wait for this instant.
    pub fn set(&self, now: Instant) {
        self.now.send_replace(now);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Instant {
        *self.now.borrow()
    }

    fn wait_until(&self, at: Instant) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async move {
            // Cannot fail: `self` owns the sender.
            let _ = self.now.subscribe().wait_for(|now| *now >= at).await;
        })
    }
}

/// Converts a duration to microseconds, saturating at `i64::MAX`.
pub(crate) fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn system_clock_never_goes_backwards() {
        let clock = SystemClock::default();
        let future = clock.now().plus_micros(60_000_000);
        clock.latest.store(future.as_micros(), Ordering::Relaxed);
        assert_eq!(clock.now(), future);
    }
}
