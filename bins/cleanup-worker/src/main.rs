//! The cleanup worker: runs maintenance rounds periodically or once.

mod health;

use std::{io::Write as _, net::SocketAddr, path::PathBuf, process::ExitCode, sync::Arc, time::Duration};

use clap::Parser;
use flags_service::{
    Core, SystemClock,
    maintenance::{MaintenanceReport, RetentionPolicy, run_round},
    metrics,
};
use flags_startup::{LogFormat, SecretOption};
use flags_store::{DatabaseUrl, Store};
use metrics_exporter_prometheus::PrometheusBuilder;
use tokio::{
    signal::unix::{SignalKind, signal},
    time::{MissedTickBehavior, interval},
};

/// Maintenance worker for the feature-flag service. Removes expired overrides, records due
/// scheduled changes as applied, and purges old data. Several workers can run at the same time.
#[derive(Debug, Parser)]
#[command(name = "cleanup-worker", version)]
struct Args {
    /// Database URL, such as postgres://USER@HOST/DATABASE or sqlite://FILE [default: sqlite://flags.db]. The schema
    /// must be up to date; `server migrate` updates it.
    #[arg(long, env = "DATABASE_URL", value_name = "URL", hide_env_values = true)]
    database_url: Option<SecretOption>,
    /// File that contains the database URL. Unlike --database-url, it keeps the password out of the process list.
    #[arg(long, env = "DATABASE_URL_FILE", value_name = "FILE", conflicts_with = "database_url")]
    database_url_file: Option<PathBuf>,
    /// Format of the application log on standard error: text or json. The environment variable FLAGS_LOG filters the
    /// log, for example `info,flags_store=debug`.
    #[arg(long, env = "FLAGS_LOG_FORMAT", value_name = "FORMAT", default_value = "text")]
    log_format: LogFormat,
    /// Run one maintenance round, print a report and exit. The exit code is 0 on success and 1 on failure.
    #[arg(long, env = "FLAGS_WORKER_ONCE")]
    once: bool,
    /// Time between maintenance rounds, for example 30s or 5m. At least 10ms.
    #[arg(long, env = "FLAGS_WORKER_INTERVAL", value_name = "DURATION", default_value = "30s",
          value_parser = at_least_ten_milliseconds)]
    interval: Duration,
    /// Retention of the change log, for example 90d [default: keep all entries]. At least 1d. Each round deletes older
    /// entries.
    #[arg(long, env = "FLAGS_CHANGE_LOG_RETENTION", value_name = "DURATION", value_parser = at_least_one_day)]
    change_log_retention: Option<Duration>,
    /// Address for /healthz and /metrics [default: neither is served]. Port 0 selects a free port.
    #[arg(long, env = "FLAGS_WORKER_BIND", value_name = "ADDRESS")]
    bind: Option<SocketAddr>,
}

fn at_least_ten_milliseconds(text: &str) -> Result<Duration, String> {
    let interval =
        humantime::parse_duration(text).map_err(|error| format!("{error}; use a duration such as 30s or 5m"))?;
    if interval < Duration::from_millis(10) { Err("must be at least 10ms".to_owned()) } else { Ok(interval) }
}

fn at_least_one_day(text: &str) -> Result<Duration, String> {
    let retention = humantime::parse_duration(text).map_err(|error| format!("{error}; use a duration such as 90d"))?;
    if retention < Duration::from_secs(24 * 60 * 60) { Err("must be at least 1d".to_owned()) } else { Ok(retention) }
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Maximum time to wait at exit for blocking tasks, such as a task that waits for a SQLite lock.
const BLOCKING_TASKS_TIMEOUT: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let args = Args::parse();
    flags_startup::init_logging(args.log_format, "info");
    flags_startup::warn_about_passwords_in_arguments();
    let outcome = tokio::runtime::Runtime::new().map_err(BoxError::from).and_then(|runtime| {
        let outcome = runtime.block_on(execute(args));
        runtime.shutdown_timeout(BLOCKING_TASKS_TIMEOUT);
        outcome
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // If standard error is closed, the message cannot be reported elsewhere.
            let _ = writeln!(
                std::io::stderr(),
                "cleanup-worker: {}",
                error.to_string().split_whitespace().collect::<Vec<_>>().join(" ")
            );
            ExitCode::FAILURE
        }
    }
}

async fn execute(args: Args) -> Result<(), BoxError> {
    let url = flags_startup::database_url(args.database_url.as_ref(), args.database_url_file.as_deref())?;
    if let DatabaseUrl::Sqlite(path) = &url
        && !path.exists()
    {
        let advice = "check the path, or run `server migrate` to create it";
        return Err(format!("the database file {} does not exist; {advice}", path.display()).into());
    }
    let store = Store::open(&url).await?;
    if !store.is_migrated().await? {
        return Err("the database schema does not match this version; run `server migrate`".into());
    }
    let core = Core::new(store, Arc::new(SystemClock::default()));
    let policy = RetentionPolicy { change_log_retention: args.change_log_retention };
    if args.once {
        writeln!(std::io::stdout(), "{}", run_round(&core, policy).await?)?;
        return Ok(());
    }
    let recorder = PrometheusBuilder::new().install_recorder()?;
    metrics::describe();
    if let Some(address) = args.bind {
        let address = health::serve(address, recorder).await?;
        writeln!(std::io::stdout(), "listening on http://{address}")?;
    }
    run_until_stopped(&core, policy, args.interval).await
}

/// Runs maintenance rounds until SIGTERM or SIGINT. A signal may interrupt a round, because each
/// step is one transaction.
async fn run_until_stopped(core: &Core, policy: RetentionPolicy, period: Duration) -> Result<(), BoxError> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tracing::info!(interval = ?period, "worker started");
    tokio::select! {
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
        () = run_rounds(core, policy, period) => Ok(()),
    }
}

async fn run_rounds(core: &Core, policy: RetentionPolicy, period: Duration) {
    let mut tick = interval(period);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let outcome = run_round(core, policy).await;
        metrics::record_worker_round(outcome.is_ok());
        match outcome {
            Ok(report) if report == MaintenanceReport::default() => {}
            Ok(report) => tracing::info!(
                overrides_expired = report.overrides_expired,
                scheduled_changes_applied = report.scheduled_changes_applied,
                idempotency_keys_purged = report.idempotency_keys_purged,
                sessions_purged = report.sessions_purged,
                sign_in_attempts_purged = report.sign_in_attempts_purged,
                revisions_purged = report.revisions_purged,
                "maintenance round completed"
            ),
            Err(error) => tracing::error!(%error, "maintenance round failed; the next round retries"),
        }
    }
}
