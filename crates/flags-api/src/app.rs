//! Shared application state and HTTP server set-up.

use std::{net::TcpListener, sync::Arc, time::Duration};

use actix_web::{
    HttpServer,
    dev::{Server, ServerHandle},
    middleware::{Condition, from_fn},
    web::{self, Data},
};
use flags_service::{
    Core,
    audit::AuditService,
    credentials::{
        jwt::JwtVerifier,
        sessions::{SessionLifetimes, SessionService},
        signing::SigningKey,
        tokens::TokenService,
    },
    evaluation::Evaluation,
    flags::FlagService,
    overrides::UserFlagOverrideService,
    replica::Replica,
    schedules::ScheduleService,
    users::UserService,
};
use metrics_exporter_prometheus::PrometheusHandle;
use socket2::SockRef;
use tokio::sync::watch;

use crate::{
    auth, cors, metrics,
    openapi::openapi,
    rate_limits::{RateLimiters, RateLimits},
    request_middleware::request_middleware,
    routes,
    streams::{OpenStreams, StreamLimits},
};

/// Timeout for requests in progress when shutdown begins, in seconds. The whole shutdown must take less than 10 s.
const SHUTDOWN_TIMEOUT_SECONDS: u64 = 8;

/// Size of each connection's send buffer, in bytes. Linux doubles the value.
const SEND_BUFFER_BYTES: usize = 64 * 1024;
/// Timeout for unacknowledged data and for a closed receive window (`TCP_USER_TIMEOUT`).
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(30);

/// Limits the buffered bytes and the time that a client which does not read can occupy. Accepted connections inherit
/// the options of the listener.
fn set_socket_options(listener: &TcpListener) -> std::io::Result<()> {
    let socket = SockRef::from(listener);
    socket.set_send_buffer_size(SEND_BUFFER_BYTES)?;
    socket.set_tcp_user_timeout(Some(TCP_USER_TIMEOUT))
}

/// Settings of the HTTP server.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Whether users can read the reasons of their own overrides.
    pub show_reasons_to_users: bool,
    /// Whether `/metrics` is served on the address of the API. Otherwise [`serve_metrics`] serves it on its own
    /// address.
    pub metrics_with_api: bool,
    /// Number of threads that serve requests.
    pub workers: usize,
    /// Idle timeout and maximum lifetime of sessions.
    pub session_lifetimes: SessionLifetimes,
    /// Rate limits of credentials and addresses.
    pub rate_limits: RateLimits,
    /// Number of trusted reverse proxies in front of the server. The client's address is this many entries from the end
    /// of `X-Forwarded-For`; 0 ignores the header.
    pub trusted_proxies: usize,
    /// Public origin of the server, such as `https://flags.example.com`. Defaults to the `Host` header of the request.
    pub public_url: Option<String>,
    /// Origins whose pages may read responses (CORS). `*` allows all origins.
    pub cors_origins: Vec<String>,
    /// Limits of event streams.
    pub stream_limits: StreamLimits,
    /// Verifier for JWTs of an external issuer. `None` rejects all JWTs.
    pub jwt: Option<Arc<JwtVerifier>>,
}

/// State that all request handlers share. Cheap to clone.
#[derive(Clone)]
pub struct App {
    pub(crate) evaluation: Evaluation,
    pub(crate) overrides: UserFlagOverrideService,
    pub(crate) flags: FlagService,
    pub(crate) schedules: ScheduleService,
    pub(crate) users: UserService,
    pub(crate) tokens: TokenService,
    pub(crate) sessions: SessionService,
    pub(crate) rate_limiters: RateLimiters,
    pub(crate) audit: AuditService,
    pub(crate) metrics: Option<PrometheusHandle>,
    pub(crate) settings: Settings,
    pub(crate) open_streams: OpenStreams,
    /// Key that signs stream tokens.
    pub(crate) stream_token_key: SigningKey,
    core: Core,
    /// False once shutdown has begun.
    ready: watch::Sender<bool>,
}

impl App {
    /// Creates the state.
    ///
    /// All servers on one database must use the same `stream_token_key`. `metrics` renders the response of `/metrics`.
    pub fn new(
        core: &Core,
        replica: &Arc<Replica>,
        stream_token_key: SigningKey,
        metrics: Option<PrometheusHandle>,
        settings: Settings,
    ) -> Self {
        let evaluation = Evaluation::new(core.clone(), Arc::clone(replica));
        Self {
            overrides: UserFlagOverrideService::new(core.clone(), evaluation.clone()),
            evaluation,
            flags: FlagService::new(core.clone()),
            schedules: ScheduleService::new(core.clone()),
            users: UserService::new(core.clone()),
            tokens: TokenService::new(core.clone()),
            sessions: SessionService::new(core.clone(), settings.session_lifetimes),
            rate_limiters: RateLimiters::new(settings.rate_limits),
            audit: AuditService::new(core.clone()),
            metrics,
            settings,
            open_streams: OpenStreams::default(),
            stream_token_key,
            core: core.clone(),
            ready: watch::Sender::new(true),
        }
    }

    pub(crate) fn is_ready(&self) -> bool {
        *self.ready.borrow()
    }

    /// Returns a receiver whose value becomes false when shutdown begins.
    pub(crate) fn readiness(&self) -> watch::Receiver<bool> {
        self.ready.subscribe()
    }

    /// Sets the gauges of open streams and database connections. Must be called every few seconds, because the exporter
    /// drops gauges that are not updated.
    pub fn update_gauges(&self) {
        self.open_streams.record_gauges();
        metrics::record_pool_gauges(self.core.store());
    }

    /// Frees the rate-limiter state of idle callers. Should be called every few seconds.
    pub fn drop_idle_rate_limiters(&self) {
        self.rate_limiters.drop_idle_keys();
    }

    /// Makes `/readyz` return 503, so that load balancers send no more requests, and ends all event streams.
    pub fn begin_shutdown(&self) {
        self.ready.send_replace(false);
    }
}

/// Serves the API on `listener` until the server is stopped through its handle. Does not install signal handlers.
pub fn serve(app: &App, listener: TcpListener) -> std::io::Result<Server> {
    set_socket_options(&listener)?;
    let workers = app.settings.workers;
    let data = Data::new(app.clone());
    let document = openapi();
    let server = HttpServer::new(move || {
        let metrics_with_api = data.settings.metrics_with_api;
        actix_web::App::new()
            .app_data(data.clone())
            .wrap(from_fn(auth::authenticate))
            .wrap(Condition::new(!data.settings.cors_origins.is_empty(), cors::cors(&data.settings.cors_origins)))
            .wrap(from_fn(request_middleware))
            .configure(|config| routes::configure(config, document.clone(), metrics_with_api))
            .default_service(web::to(routes::system::unmatched))
    });
    Ok(server.workers(workers).shutdown_timeout(SHUTDOWN_TIMEOUT_SECONDS).disable_signals().listen(listener)?.run())
}

/// Serves `/metrics` only, on a separate address.
pub fn serve_metrics(app: &App, listener: TcpListener) -> std::io::Result<Server> {
    let data = Data::new(app.clone());
    let server = HttpServer::new(move || {
        actix_web::App::new()
            .app_data(data.clone())
            .wrap(from_fn(request_middleware))
            .configure(routes::configure_metrics)
            .default_service(web::to(routes::system::unmatched))
    });
    Ok(server.workers(1).shutdown_timeout(SHUTDOWN_TIMEOUT_SECONDS).disable_signals().listen(listener)?.run())
}

/// Stops a server gracefully: it accepts no new connections and finishes the requests in progress.
pub async fn stop(handle: &ServerHandle) {
    handle.stop(true).await;
}
