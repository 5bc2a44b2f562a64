//! Names of the metrics of HTTP, and the page that shows them all.

use std::time::Duration;

use metrics::{Unit, describe_counter, describe_histogram};
use metrics_exporter_prometheus::{BuildError, PrometheusBuilder, PrometheusHandle};
use metrics_util::MetricKindMask;

pub(crate) const HTTP_REQUESTS: &str = "voiceassist_http_requests_total";
pub(crate) const HTTP_DURATION: &str = "voiceassist_http_request_duration_seconds";

/// A gauge goes once it has not been set for so long; those that live are set every second.
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
    Ok(handle)
}
