//! Names of the metrics of HTTP, and the page that shows them all.

use std::time::Duration;

use flags_store::Store;
use metrics::{Unit, describe_counter, describe_gauge, describe_histogram, gauge};
use metrics_exporter_prometheus::{BuildError, PrometheusBuilder, PrometheusHandle};
use metrics_util::MetricKindMask;

pub(crate) const HTTP_REQUESTS: &str = "voiceassist_http_requests_total";
pub(crate) const HTTP_DURATION: &str = "voiceassist_http_request_duration_seconds";

pub(crate) const EVALUATIONS: &str = "voiceassist_evaluations_total";
pub(crate) const STREAMS_OPEN: &str = "voiceassist_streams_open";
pub(crate) const STREAM_EVENTS: &str = "voiceassist_stream_events_total";
const POOL_CONNECTIONS: &str = "voiceassist_database_connections";

/// A gauge goes once it has not been set for so long; those that live are set every few seconds.
const GAUGE_IDLE: Duration = Duration::from_secs(60);

/// Upper bounds of the buckets of durations, in seconds.
const BUCKETS: [f64; 12] = [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 2.5, 10.0];

/// Installs the process's recorder of metrics and describes what this crate and the service count. Once per process.
pub fn install() -> Result<PrometheusHandle, BuildError> {
    let handle = PrometheusBuilder::new()
        .idle_timeout(MetricKindMask::GAUGE, Some(GAUGE_IDLE))
        .set_buckets(&BUCKETS)?
        .install_recorder()?;
    flags_service::metrics::describe();
    describe_counter!(HTTP_REQUESTS, "HTTP requests by method, route template and status");
    describe_histogram!(HTTP_DURATION, Unit::Seconds, "Time from a request's head to its answer's head");
    describe_counter!(EVALUATIONS, "Flags evaluated for users, by the layer that decided");
    describe_gauge!(STREAMS_OPEN, "Open streams, by kind");
    describe_counter!(STREAM_EVENTS, "Events written to streams, by kind and event");
    describe_gauge!(POOL_CONNECTIONS, "Connections to the database, by pool and state");
    Ok(handle)
}

/// Sets the gauges of connections.
#[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^53")]
pub(crate) fn show_pools(store: &Store) {
    for use_ in store.pool_use() {
        for (state, count) in [("idle", use_.idle), ("busy", use_.busy)] {
            gauge!(POOL_CONNECTIONS, "pool" => use_.pool, "state" => state).set(count as f64);
        }
    }
}
