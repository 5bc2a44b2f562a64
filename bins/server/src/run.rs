//! Serving, from the first state to the last answer.

use std::{
    io::Write as _,
    net::{SocketAddr, TcpListener},
    num::NonZeroUsize,
    sync::Arc,
    thread,
    time::Duration,
};

use flags_api::{App, RateLimits, Settings, StreamLimits, install_metrics, serve, serve_metrics, stop};
use flags_service::{
    Clock, Core, SystemClock,
    credentials::{jwt::JwtVerifier, sessions::Lifetimes, signing::SigningKey, tokens},
    evaluation::Evaluation,
    feed::{self, Feed},
    replica::Replica,
};
use flags_store::Store;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::Notify,
    task::JoinHandle,
};

use crate::{args::RunArgs, failure::Failure};

/// How often gauges are set anew that only time changes.
const GAUGES_EVERY: Duration = Duration::from_secs(5);

/// How often it is written down which tokens were used.
const TOKEN_USES_EVERY: Duration = Duration::from_secs(15);

/// Serves until SIGTERM or SIGINT.
pub(crate) async fn run(args: RunArgs) -> Result<(), Failure> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut stopped = async || {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    raise_file_limit();
    // Loading may take a while, and nothing is lost if it is broken off.
    let prepared = tokio::select! {
        prepared = prepare(&args) => prepared?,
        () = stopped() => return Ok(()),
    };
    let Prepared { app, feed, listener, metrics_listener } = prepared;
    let address = listener.local_addr()?;
    let server = serve(&app, listener)?;
    let handle = server.handle();
    let server = tokio::spawn(server);
    let metrics_server = metrics_listener.map(|listener| serve_metrics(&app, listener)).transpose()?;
    let metrics_handle = metrics_server.as_ref().map(|server| server.handle());
    metrics_server.map(tokio::spawn);
    announce(address)?;
    stopped().await;
    app.begin_shutdown();
    tokio::join!(stop(&handle), async {
        if let Some(handle) = &metrics_handle {
            stop(handle).await;
        }
    });
    feed.abort();
    match server.await {
        Ok(outcome) => Ok(outcome?),
        Err(error) => Err(Failure::new(error.to_string())),
    }
}

/// Everything before the first request.
struct Prepared {
    app: App,
    feed: JoinHandle<()>,
    listener: TcpListener,
    metrics_listener: Option<TcpListener>,
}

async fn prepare(args: &RunArgs) -> Result<Prepared, Failure> {
    let store = Store::open(&args.database.url()?).await?;
    if args.no_migrate {
        if !store.is_migrated().await? {
            return Err(Failure::new("the database's schema is not this program's; run `server migrate`"));
        }
    } else {
        // By a role that may not, there is nothing to say as long as nothing is to be done.
        if !store.is_migrated().await? {
            store.migrate().await?;
        }
    }
    for gap in store.durability_gaps().await? {
        tracing::warn!("the database runs with {gap}: acknowledged writes may be lost in a crash");
    }
    let listener = listen(args.bind)?;
    let metrics_listener = args.metrics_bind.map(listen).transpose()?;
    let (app, feed) = build(store, args).await?;
    Ok(Prepared { app, feed, listener, metrics_listener })
}

/// Loads the replica, starts following the log, and puts the application together.
async fn build(store: Store, args: &RunArgs) -> Result<(App, JoinHandle<()>), Failure> {
    let metrics = install_metrics().map_err(|error| Failure::new(error.to_string()))?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
    let jwt = match args.jwt.config()? {
        None => None,
        Some(config) => Some(Arc::new(JwtVerifier::start(config, Arc::clone(&clock)).await?)),
    };
    let tickets = SigningKey::of_event_streams(&store).await?;
    feed::check_lineage(&store).await?;
    let replica = Arc::new(Replica::new(feed::load(&store).await?));
    let wakeup = Arc::new(Notify::new());
    let core = Core::new(store.clone(), Arc::clone(&clock)).with_replica(Arc::clone(&replica), Arc::clone(&wakeup));
    Evaluation::new(core.clone(), Arc::clone(&replica)).warm_up().await?;
    let feed = Feed::new(store, Arc::clone(&replica), wakeup, clock);
    let feed = tokio::spawn(feed.run());
    let settings = Settings {
        show_reasons_to_users: args.show_reasons_to_users,
        metrics_with_api: args.metrics_bind.is_none(),
        streams: StreamLimits { most: args.max_streams, ..StreamLimits::default() },
        sessions: Lifetimes { idle: args.access.session_idle, absolute: args.access.session_lifetime },
        limits: RateLimits {
            requests: args.access.rate_limit,
            evaluations: args.access.evaluation_rate_limit,
            anonymous: args.access.anonymous_rate_limit,
        },
        proxies: args.access.proxies,
        public_url: args.access.public_url.clone(),
        cors_origins: args.access.cors_origins.clone(),
        workers: args.workers.or_else(|| thread::available_parallelism().ok()).map_or(1, NonZeroUsize::get),
        jwt,
    };
    let app = App::new(&core, &replica, tickets, Some(metrics.clone()), settings);
    let shown = app.clone();
    tokio::spawn(note_token_uses(core, replica));
    tokio::spawn(async move {
        let mut tick = tokio::time::interval(GAUGES_EVERY);
        loop {
            tick.tick().await;
            shown.show_gauges();
            shown.forget_quiet_callers();
            metrics.run_upkeep();
        }
    });
    Ok((app, feed))
}

/// Writes down now and then which tokens were used.
async fn note_token_uses(core: Core, replica: Arc<Replica>) {
    let mut tick = tokio::time::interval(TOKEN_USES_EVERY);
    loop {
        tick.tick().await;
        if let Err(error) = tokens::note_uses(&core, &replica).await {
            tracing::debug!(%error, "when tokens were last used was not written down");
        }
    }
}

/// Every stream is an open file; most systems let a process have more of them than they give it at first.
fn raise_file_limit() {
    if let Err(error) = rlimit::increase_nofile_limit(u64::MAX) {
        tracing::warn!(%error, "cannot raise the limit of open files");
    }
}

fn listen(address: SocketAddr) -> Result<TcpListener, Failure> {
    TcpListener::bind(address).map_err(|error| Failure::new(format!("cannot listen on {address}: {error}")))
}

/// One line on standard output once requests are accepted, for people and for scripts.
fn announce(address: SocketAddr) -> Result<(), Failure> {
    Ok(writeln!(std::io::stdout(), "listening on http://{address}")?)
}
