//! Limits of event streams, and the number of open streams.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use metrics::gauge;

use crate::metrics::STREAMS_OPEN;

/// Limits and timing of event streams.
#[derive(Clone, Debug)]
pub struct StreamLimits {
    /// Maximum number of open streams per server. Default 20,000.
    pub max_streams: usize,
    /// Interval between heartbeats. Default 15 s.
    pub heartbeat: Duration,
    /// Range of the random maximum age of a stream. Default 30 to 60 minutes. Clients reconnect at that age, so that
    /// they spread over all servers again.
    pub max_age: (Duration, Duration),
    /// Range of the random reconnection delay that the server sends to clients, in milliseconds. Default 500 to 3,000.
    pub retry_millis: (u64, u64),
}

impl Default for StreamLimits {
    fn default() -> Self {
        Self {
            max_streams: 20_000,
            heartbeat: Duration::from_secs(15),
            max_age: (Duration::from_secs(30 * 60), Duration::from_secs(60 * 60)),
            retry_millis: (500, 3_000),
        }
    }
}

/// Kind of event stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StreamKind {
    OwnFlags,
    Changes,
    Evaluations,
}

impl StreamKind {
    /// Returns the value of the label `kind` in metrics.
    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::OwnFlags => "user",
            Self::Changes => "admin",
            Self::Evaluations => "ofrep",
        }
    }
}

/// Numbers of open streams of this process. Clones share their state.
#[derive(Clone, Debug, Default)]
pub(crate) struct OpenStreams {
    own_flags: Arc<AtomicUsize>,
    changes: Arc<AtomicUsize>,
    evaluations: Arc<AtomicUsize>,
}

impl OpenStreams {
    pub(crate) const fn counter(&self, kind: StreamKind) -> &Arc<AtomicUsize> {
        match kind {
            StreamKind::OwnFlags => &self.own_flags,
            StreamKind::Changes => &self.changes,
            StreamKind::Evaluations => &self.evaluations,
        }
    }

    pub(crate) fn total(&self) -> usize {
        [&self.own_flags, &self.changes, &self.evaluations].map(|open| open.load(Ordering::Relaxed)).iter().sum()
    }

    /// Sets the gauges of open streams.
    #[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^53")]
    pub(crate) fn record_gauges(&self) {
        for kind in [StreamKind::OwnFlags, StreamKind::Changes, StreamKind::Evaluations] {
            gauge!(STREAMS_OPEN, "kind" => kind.label()).set(self.counter(kind).load(Ordering::Relaxed) as f64);
        }
    }
}
