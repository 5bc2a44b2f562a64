//! The maintenance worker: reads its command line, opens the database, and does its rounds.

mod health;

use std::{io::Write as _, net::SocketAddr, path::PathBuf, process::ExitCode, sync::Arc, time::Duration};

use clap::Parser;
use flags_service::{
    Core, SystemClock,
    maintenance::{Policy, Round, run_round},
    metrics,
    startup::{self, LogFormat, SecretOption},
};
use flags_store::{DatabaseUrl, Store};
use metrics_exporter_prometheus::PrometheusBuilder;
use tokio::{
    signal::unix::{SignalKind, signal},
    time::{MissedTickBehavior, interval},
};

/// Removes what has expired and marks what has fallen due. Any number of workers may run beside any number of servers.
#[derive(Debug, Parser)]
#[command(name = "cleanup-worker", version)]
struct Args {
    /// postgres://…, or sqlite:// and a file [default: sqlite://flags.db]. The server must have applied its migrations.
    #[arg(long, env = "DATABASE_URL", hide_env_values = true)]
    database_url: Option<SecretOption>,
    /// A file that holds the URL, so that a password in it stands in no list of processes.
    #[arg(long, env = "DATABASE_URL_FILE", value_name = "FILE", conflicts_with = "database_url")]
    database_url_file: Option<PathBuf>,
    /// How log lines are written to standard error: text or json. FLAGS_LOG says which, as in info,flags_store=debug.
    #[arg(long, env = "FLAGS_LOG_FORMAT", value_name = "FORMAT", default_value = "text")]
    log_format: LogFormat,
    /// Do one round, print what it did, and end (exit code 0 if it succeeded, 1 if not).
    #[arg(long, env = "FLAGS_WORKER_ONCE")]
    once: bool,
    /// Time between rounds, such as 30s or 5m; at least 10ms.
    #[arg(long, env = "FLAGS_WORKER_INTERVAL", default_value = "30s", value_parser = at_least_ten_milliseconds)]
    interval: Duration,
    /// Remove rows of the log that are older than this, such as 90d; at least a day. They are kept for ever if left out.
    #[arg(long, env = "FLAGS_WORKER_KEEP_LOG", value_parser = at_least_a_day)]
    keep_log: Option<Duration>,
    /// Serve /healthz and /metrics here; port 0 picks a free one.
    #[arg(long, env = "FLAGS_WORKER_BIND")]
    bind: Option<SocketAddr>,
}

fn at_least_ten_milliseconds(text: &str) -> Result<Duration, String> {
    let interval = humantime::parse_duration(text).map_err(|error| format!("{error}; write 30s or 5m"))?;
    if interval < Duration::from_millis(10) { Err("must be at least 10ms".to_owned()) } else { Ok(interval) }
}

fn at_least_a_day(text: &str) -> Result<Duration, String> {
    let keep = humantime::parse_duration(text).map_err(|error| format!("{error}; write 90d"))?;
    if keep < Duration::from_secs(24 * 60 * 60) { Err("must be at least 1d".to_owned()) } else { Ok(keep) }
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Longest that what still runs on threads for blocking work may hold up the end: a lock of SQLite's file, say.
const LAST_WAIT: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let args = Args::parse();
    startup::start_logging(args.log_format, "info");
    startup::warn_of_secrets_in_arguments();
    let outcome = tokio::runtime::Runtime::new().map_err(Failure::from).and_then(|runtime| {
        let outcome = runtime.block_on(work(args));
        runtime.shutdown_timeout(LAST_WAIT);
        outcome
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            // If standard error is gone there is nobody left to tell.
            let _ = writeln!(
                std::io::stderr(),
                "cleanup-worker: {}",
                failure.to_string().split_whitespace().collect::<Vec<_>>().join(" ")
            );
            ExitCode::FAILURE
        }
    }
}

async fn work(args: Args) -> Result<(), Failure> {
    let url = startup::database_url(args.database_url.as_ref(), args.database_url_file.as_deref())?;
    if let DatabaseUrl::Sqlite(path) = &url
        && !path.exists()
    {
        let advice = "is not there; check the path, or run `server migrate` to make it";
        return Err(format!("the database file {} {advice}", path.display()).into());
    }
    let store = Store::open(&url).await?;
    if !store.is_migrated().await? {
        return Err("the database's schema is not this program's; run `server migrate`".into());
    }
    let core = Core::new(store, Arc::new(SystemClock::default()));
    let policy = Policy { keep_log: args.keep_log };
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

/// Round after round until SIGTERM or SIGINT. A transaction under way is finished or rolled back as a whole, so nothing is
/// left half done.
async fn run_until_stopped(core: &Core, policy: Policy, period: Duration) -> Result<(), Failure> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tracing::info!(?period, "doing rounds");
    tokio::select! {
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
        () = run_rounds(core, policy, period) => Ok(()),
    }
}

async fn run_rounds(core: &Core, policy: Policy, period: Duration) {
    let mut tick = interval(period);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let outcome = run_round(core, policy).await;
        metrics::count_round(outcome.is_ok());
        match outcome {
            Ok(round) if round == Round::default() => {}
            Ok(round) => tracing::info!("{round}"),
            Err(error) => tracing::error!(%error, "a round failed; the next one tries again"),
        }
    }
}
