//! The application log on standard error.

use std::{io::IsTerminal as _, str::FromStr};

use tracing::Subscriber;
use tracing_subscriber::{
    EnvFilter, Layer as _,
    filter::{FilterExt as _, LevelFilter, Targets, filter_fn},
    fmt::MakeWriter,
    layer::SubscriberExt as _,
    util::SubscriberInitExt as _,
};

/// Format of the application log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// Human-readable lines.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// Unknown log format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be text or json")]
pub struct InvalidLogFormat;

impl FromStr for LogFormat {
    type Err = InvalidLogFormat;

    fn from_str(text: &str) -> Result<Self, InvalidLogFormat> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(InvalidLogFormat),
        }
    }
}

/// Maximum log levels of libraries that would otherwise log query parameters or request headers, which may contain
/// secrets.
const MAX_LIBRARY_LEVELS: [(&str, LevelFilter); 7] = [
    ("tokio_postgres", LevelFilter::WARN),
    ("postgres", LevelFilter::WARN),
    ("diesel", LevelFilter::WARN),
    ("actix_web", LevelFilter::WARN),
    ("hyper", LevelFilter::WARN),
    ("hyper_util", LevelFilter::WARN),
    // actix-http logs malformed requests as errors, so any client could flood the application log.
    ("actix_http", LevelFilter::OFF),
];

/// Prefix of the `tracing` targets of this project's crates.
const TARGET_PREFIX: &str = "flags_";

/// Starts logging to standard error. The filter comes from the environment variable `FLAGS_LOG`, or else from
/// `default`.
///
/// # Panics
///
/// Panics if called more than once per process.
pub fn init_logging(format: LogFormat, default: &str) {
    let directives = std::env::var("FLAGS_LOG").ok().filter(|text| !text.trim().is_empty());
    let parsed = directives.as_deref().map_or_else(|| Ok(EnvFilter::new(default)), EnvFilter::try_new);
    let (filter, parse_error) = match parsed {
        Ok(filter) => (filter, None),
        Err(error) => (EnvFilter::new(default), Some(error)),
    };
    subscriber(format, filter, std::io::stderr).init();
    if let Some(error) = parse_error {
        tracing::warn!(%error, "ignoring invalid FLAGS_LOG; use a filter such as info or flags_service=debug,info");
    }
}

/// Returns a subscriber that writes log lines together with the spans that contain them.
fn subscriber(
    format: LogFormat,
    filter: EnvFilter,
    writer: impl for<'w> MakeWriter<'w> + Send + Sync + 'static,
) -> impl Subscriber + Send + Sync {
    // Spans are never filtered: even with the filter `warn`, a warning needs the request id of its
    // span.
    let spans = filter_fn(|metadata| metadata.is_span() && metadata.target().starts_with(TARGET_PREFIX));
    let filter = filter.or(spans.with_max_level_hint(LevelFilter::INFO));
    // A separate filter, so that more specific directives in FLAGS_LOG cannot raise these levels.
    let library_filter = Targets::new().with_default(LevelFilter::TRACE).with_targets(MAX_LIBRARY_LEVELS);
    let layer = tracing_subscriber::fmt::layer().with_writer(writer);
    let layer = match format {
        LogFormat::Text => layer.with_ansi(std::io::stderr().is_terminal()).boxed(),
        LogFormat::Json => layer.json().flatten_event(true).boxed(),
    };
    tracing_subscriber::registry().with(layer.with_filter(library_filter.and(filter)))
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        sync::{Arc, Mutex},
    };

    use super::*;

    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Log {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Returns what `work` logs.
    fn log_of(format: LogFormat, filter: &str, work: impl FnOnce()) -> String {
        let log = Log::default();
        let writer = log.clone();
        let subscriber = subscriber(format, EnvFilter::new(filter), move || writer.clone());
        tracing::subscriber::with_default(subscriber, work);
        let bytes = log.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    fn warn_within_a_request() {
        tracing::info_span!("request", request_id = "r-1").in_scope(|| {
            tracing::info!("a message");
            tracing::warn!("a warning");
        });
    }

    #[test]
    fn every_log_line_contains_the_fields_of_its_spans() {
        for filter in ["info", "warn", "flags_startup=warn"] {
            let json = log_of(LogFormat::Json, filter, warn_within_a_request);
            let warning = json.lines().find(|line| line.contains("a warning")).unwrap();
            assert!(warning.contains(r#""request_id":"r-1""#), "{filter}: {json}");
            let text = log_of(LogFormat::Text, filter, warn_within_a_request);
            assert!(text.lines().all(|line| line.contains("r-1")), "{filter}: {text}");
        }
    }

    #[test]
    fn filter_selects_log_lines() {
        assert_eq!(log_of(LogFormat::Json, "info", warn_within_a_request).lines().count(), 2);
        assert_eq!(log_of(LogFormat::Json, "warn", warn_within_a_request).lines().count(), 1);
        assert_eq!(log_of(LogFormat::Json, "off", warn_within_a_request), "");
    }

    #[test]
    fn filter_directives_cannot_raise_the_log_level_of_libraries() {
        let work = || {
            tracing::debug!(target: "tokio_postgres", "parameters of a query");
            tracing::warn!(target: "tokio_postgres", "a warning");
        };
        let log = log_of(LogFormat::Text, "trace,tokio_postgres=trace", work);
        assert!(log.contains("a warning") && !log.contains("parameters"), "{log}");
    }
}
