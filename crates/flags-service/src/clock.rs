//! Where the instant of a request comes from.

use std::{
    pin::Pin,
    sync::atomic::{AtomicI64, Ordering},
    time::Duration,
};

use flags_domain::Instant;
use time::OffsetDateTime;
use tokio::{sync::watch, time::sleep};

/// Tells the time. Each evaluation and each change takes one instant and hands it down.
pub trait Clock: Send + Sync + 'static {
    /// The present instant; never earlier than one told before.
    fn now(&self) -> Instant;

    /// Waits until this clock says `at` or later.
    fn wait_until(&self, at: Instant) -> Pin<Box<dyn Future<Output = ()> + Send + '_>>;
}

/// Longest sleep of the host's clock, after which it is looked at again: it may have been set.
const LOOK_AGAIN: Duration = Duration::from_secs(10);

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

    fn wait_until(&self, at: Instant) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async move {
            while let left @ 1.. = at.as_micros().saturating_sub(self.now().as_micros()) {
                sleep(Duration::from_micros(left.unsigned_abs()).min(LOOK_AGAIN)).await;
            }
        })
    }
}

/// A clock that stands where it is put: for tests of what happens at an instant.
#[derive(Debug)]
pub struct ManualClock {
    now: watch::Sender<Instant>,
}

impl ManualClock {
    /// A clock that stands at `now`.
    pub fn new(now: Instant) -> Self {
        Self { now: watch::Sender::new(now) }
    }

    /// Puts the clock to `now`.
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
            // The sender is this clock.
            let _ = self.now.subscribe().wait_for(|now| *now >= at).await;
        })
    }
}

/// A duration in microseconds, held within what fits.
pub(crate) fn micros(duration: std::time::Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
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
