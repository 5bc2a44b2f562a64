//! Metrics of the HTTP layer and the Prometheus recorder.

use std::time::Duration;

use flags_store::Store;
use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge};
use metrics_exporter_prometheus::{BuildError, PrometheusBuilder, PrometheusHandle};
use metrics_util::MetricKindMask;

pub(crate) const HTTP_REQUESTS: &str = flags_service::metric_name!("http_requests_total");
pub(crate) const HTTP_DURATION: &str = flags_service::metric_name!("http_request_duration_seconds");

pub(crate) const EVALUATIONS: &str = flags_service::metric_name!("evaluations_total");
pub(crate) const EVALUATIONS_TOO_EXPENSIVE: &str = flags_service::metric_name!("evaluations_too_expensive_total");
pub(crate) const STREAMS_OPEN: &str = flags_service::metric_name!("streams_open");
pub(crate) const STREAM_EVENTS: &str = flags_service::metric_name!("stream_events_total");
const POOL_CONNECTIONS: &str = flags_service::metric_name!("database_connections");

/// Time after which the exporter drops a gauge that is not updated. The server updates its gauges every few seconds.
const GAUGE_IDLE: Duration = Duration::from_secs(60);

/// Upper bounds of the histogram buckets for durations, in seconds.
const DURATION_BUCKETS: [f64; 12] = [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 2.5, 10.0];

/// Installs the process-wide metrics recorder and describes the metrics of this crate and of the service crate.
///
/// Fails if a recorder is already installed.
pub fn install() -> Result<PrometheusHandle, BuildError> {
    let handle = PrometheusBuilder::new()
        .idle_timeout(MetricKindMask::GAUGE, Some(GAUGE_IDLE))
        .set_buckets(&DURATION_BUCKETS)?
        .install_recorder()?;
    flags_service::metrics::describe();
    describe_counter!(HTTP_REQUESTS, "HTTP requests, by method, route template and status");
    describe_histogram!(
        HTTP_DURATION,
        Unit::Seconds,
        "Time from the head of a request to the head of its response, by method and route template"
    );
    describe_counter!(EVALUATIONS, "Flag evaluations for users, by the source of the value");
    describe_counter!(
        EVALUATIONS_TOO_EXPENSIVE,
        "Flag evaluations that exceeded the evaluation budget and served the off variant"
    );
    counter!(EVALUATIONS_TOO_EXPENSIVE).absolute(0);
    describe_gauge!(STREAMS_OPEN, "Open event streams, by kind");
    describe_counter!(STREAM_EVENTS, "Events written to event streams, by kind and event");
    describe_gauge!(POOL_CONNECTIONS, "Database connections, by pool and state");
    Ok(handle)
}

/// Sets the gauges of database connections.
#[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^53")]
pub(crate) fn record_pool_gauges(store: &Store) {
    for usage in store.pool_usage() {
        for (state, count) in [("idle", usage.idle), ("busy", usage.busy)] {
            gauge!(POOL_CONNECTIONS, "pool" => usage.pool, "state" => state).set(count as f64);
        }
    }
}
