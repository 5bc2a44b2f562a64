//! The command `run`: startup, serving and graceful shutdown.

use std::{
    io::Write as _,
    net::{SocketAddr, TcpListener},
    num::NonZeroUsize,
    sync::Arc,
    thread,
    time::Duration,
};

use flags_api::{App, RateLimits, Settings, StreamLimits, has_admin_ui, install_metrics, serve, serve_metrics, stop};
use flags_service::{
    Clock, Core, Runtime, SystemClock,
    credentials::{confirmation::MaxCredentialAge, jwt::JwtVerifier, sessions::SessionLifetimes, tokens},
    replica::Replica,
};
use flags_store::Store;
use tokio::signal::unix::{SignalKind, signal};

use crate::{args::RunArgs, cli_error::CliError};

/// Interval for updating the gauges. The Prometheus exporter drops gauges that are not updated.
const GAUGE_UPDATE_INTERVAL: Duration = Duration::from_secs(5);

/// Interval for storing the last-use times of API tokens.
const TOKEN_USE_WRITE_INTERVAL: Duration = Duration::from_secs(15);

/// Serves until SIGTERM or SIGINT.
pub(crate) async fn run(args: RunArgs) -> Result<(), CliError> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut stop_signal = async || {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    raise_file_limit();
    // Loading the replica can take long, so a signal may abort it. This is safe, because each
    // database write is a complete transaction.
    let prepared = tokio::select! {
        prepared = prepare(&args) => prepared?,
        () = stop_signal() => return Ok(()),
    };
    let Prepared { app, runtime, listener, metrics_listener } = prepared;
    let address = listener.local_addr()?;
    let server = serve(&app, listener)?;
    let handle = server.handle();
    let server = tokio::spawn(server);
    let metrics_server = metrics_listener.map(|listener| serve_metrics(&app, listener)).transpose()?;
    let metrics_handle = metrics_server.as_ref().map(|server| server.handle());
    metrics_server.map(tokio::spawn);
    print_address(address)?;
    stop_signal().await;
    app.begin_shutdown();
    tokio::join!(stop(&handle), async {
        if let Some(handle) = &metrics_handle {
            stop(handle).await;
        }
    });
    drop(runtime);
    match server.await {
        Ok(outcome) => Ok(outcome?),
        Err(error) => Err(CliError::new(error.to_string())),
    }
}

/// Loaded application and bound listeners.
struct Prepared {
    app: App,
    /// Must outlive the server, because dropping the runtime stops the change feed.
    runtime: Runtime,
    listener: TcpListener,
    metrics_listener: Option<TcpListener>,
}

async fn prepare(args: &RunArgs) -> Result<Prepared, CliError> {
    let store = Store::open(&args.database.url()?).await?;
    if args.no_migrate {
        if !store.is_migrated().await? {
            return Err(CliError::new("the database schema does not match this version; run `server migrate`"));
        }
    } else {
        // If no migrations are pending, the database role needs no DDL privileges.
        if !store.is_migrated().await? {
            store.migrate().await?;
        }
    }
    for setting in store.unsafe_durability_settings().await? {
        tracing::warn!(setting, "a database setting reduces durability; a crash may lose acknowledged writes");
    }
    let listener = listen(args.bind)?;
    let metrics_listener = args.metrics_bind.map(listen).transpose()?;
    let (app, runtime) = build(store, args).await?;
    Ok(Prepared { app, runtime, listener, metrics_listener })
}

/// Starts the service and the periodic tasks, and builds the application.
async fn build(store: Store, args: &RunArgs) -> Result<(App, Runtime), CliError> {
    let metrics = install_metrics().map_err(|error| CliError::new(error.to_string()))?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
    let jwt = match args.jwt.config()? {
        None => None,
        Some(config) => Some(Arc::new(JwtVerifier::start(config, Arc::clone(&clock)).await?)),
    };
    let runtime = Runtime::start(store, clock).await?;
    let settings = Settings {
        show_reasons_to_users: args.show_reasons_to_users,
        metrics_with_api: args.metrics_bind.is_none(),
        stream_limits: StreamLimits { max_streams: args.max_streams, ..StreamLimits::default() },
        session_lifetimes: SessionLifetimes { idle: args.access.session_idle, absolute: args.access.session_lifetime },
        max_credential_age: MaxCredentialAge::default(),
        rate_limits: RateLimits {
            requests: args.access.rate_limit,
            evaluations: args.access.evaluation_rate_limit,
            anonymous: args.access.anonymous_rate_limit,
        },
        trusted_proxies: args.access.trusted_proxies,
        public_url: args.access.public_url.clone(),
        cors_origins: args.access.cors_origins.clone(),
        workers: args.workers.or_else(|| thread::available_parallelism().ok()).map_or(1, NonZeroUsize::get),
        jwt,
    };
    let app = App::new(&runtime, Some(metrics.clone()), settings);
    tokio::spawn(store_token_uses(runtime.core.clone(), Arc::clone(&runtime.replica)));
    let app_for_upkeep = app.clone();
    tokio::spawn(async move {
        let mut tick = tokio::time::interval(GAUGE_UPDATE_INTERVAL);
        loop {
            tick.tick().await;
            app_for_upkeep.update_gauges();
            app_for_upkeep.drop_idle_rate_limiters();
            metrics.run_upkeep();
        }
    });
    Ok((app, runtime))
}

/// Periodically writes the last-use times of API tokens from the replica to the database.
async fn store_token_uses(core: Core, replica: Arc<Replica>) {
    let mut tick = tokio::time::interval(TOKEN_USE_WRITE_INTERVAL);
    loop {
        tick.tick().await;
        if let Err(error) = tokens::record_token_uses(&core, &replica).await {
            tracing::debug!(%error, "failed to store the last-use times of API tokens");
        }
    }
}

/// Raises the soft limit of open files to the hard limit, because each event stream needs a file descriptor.
fn raise_file_limit() {
    if let Err(error) = rlimit::increase_nofile_limit(u64::MAX) {
        tracing::warn!(%error, "failed to raise the limit of open files");
    }
}

fn listen(address: SocketAddr) -> Result<TcpListener, CliError> {
    TcpListener::bind(address).map_err(|error| CliError::new(format!("cannot listen on {address}: {error}")))
}

/// Prints the address, and whether the admin UI is included, to standard output.
///
/// Call this once the server accepts requests, because scripts wait for the line.
fn print_address(address: SocketAddr) -> Result<(), CliError> {
    let ui = if has_admin_ui() { "with the admin UI" } else { "without the admin UI; `just build` includes it" };
    Ok(writeln!(std::io::stdout(), "listening on http://{address} ({ui})")?)
}
