//! Puts everything together: services, middleware, routes.

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
        sessions::{Lifetimes, SessionService},
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
    auth, cors,
    limits::{Limits, RateLimits},
    metrics,
    openapi::openapi,
    request_middleware::request_middleware,
    routes,
    streams::{OpenStreams, StreamLimits},
};

/// Longest that requests under way may take once shutdown has begun: with all else it is to be over within 10 s.
const SHUTDOWN_SECONDS: u64 = 8;

/// Bytes that the kernel holds for a client that does not read, before it ends the connection. (It doubles them.)
const SEND_BUFFER: usize = 64 * 1024;
/// Longest that sent bytes may stay unacknowledged, or a client's window closed.
const UNREAD_FOR: Duration = Duration::from_secs(30);

/// Sets what ends connections whose clients do not read. Those that are accepted have it from the listener.
fn limit_sockets(listener: &TcpListener) -> std::io::Result<()> {
    let socket = SockRef::from(listener);
    socket.set_send_buffer_size(SEND_BUFFER)?;
    socket.set_tcp_user_timeout(Some(UNREAD_FOR))
}

/// What an operator can choose.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Whether users see the reason of their own overrides.
    pub show_reasons_to_users: bool,
    /// Whether `/metrics` is served beside the API (otherwise on an address of its own).
    pub metrics_with_api: bool,
    /// Threads that serve requests.
    pub workers: usize,
    /// How long sessions live.
    pub sessions: Lifetimes,
    /// How much callers may ask for.
    pub limits: RateLimits,
    /// How many proxies stand between callers and this server: so many addresses of `X-Forwarded-For` are believed.
    pub proxies: usize,
    /// Where browsers find this server, such as `https://flags.example.com`; what requests say is taken if left out.
    pub public_url: Option<String>,
    /// The origins whose pages may read answers (CORS).
    pub cors_origins: Vec<String>,
    /// How streams are bounded.
    pub streams: StreamLimits,
    /// Verifies JWTs, if those of an issuer are accepted beside API tokens.
    pub jwt: Option<Arc<JwtVerifier>>,
}

/// What handlers use.
#[derive(Clone)]
pub struct App {
    pub(crate) evaluation: Evaluation,
    pub(crate) overrides: UserFlagOverrideService,
    pub(crate) flags: FlagService,
    pub(crate) schedules: ScheduleService,
    pub(crate) users: UserService,
    pub(crate) tokens: TokenService,
    pub(crate) sessions: SessionService,
    pub(crate) limits: Limits,
    pub(crate) audit: AuditService,
    pub(crate) metrics: Option<PrometheusHandle>,
    pub(crate) settings: Settings,
    pub(crate) streams: OpenStreams,
    /// Signs the tickets of event streams.
    pub(crate) stream_token_key: SigningKey,
    core: Core,
    /// Turns false when shutdown begins.
    ready: watch::Sender<bool>,
}

impl App {
    /// On this core and replica. All servers on one database need the same key for `stream_token_key`. `metrics` is shown at
    /// `/metrics`.
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
            sessions: SessionService::new(core.clone(), settings.sessions),
            limits: Limits::new(settings.limits),
            audit: AuditService::new(core.clone()),
            metrics,
            settings,
            streams: OpenStreams::default(),
            stream_token_key,
            core: core.clone(),
            ready: watch::Sender::new(true),
        }
    }

    pub(crate) fn is_ready(&self) -> bool {
        *self.ready.borrow()
    }

    /// Turns false when shutdown begins.
    pub(crate) fn readiness(&self) -> watch::Receiver<bool> {
        self.ready.subscribe()
    }

    /// Sets the gauges that only time changes, as the exporter drops what is not set anew. To be called every few seconds.
    pub fn show_gauges(&self) {
        self.streams.show();
        metrics::show_pools(self.core.store());
    }

    /// Forgets the rate limits of whoever has asked for nothing lately. To be called every few seconds.
    pub fn forget_quiet_callers(&self) {
        self.limits.forget_the_quiet();
    }

    /// Takes this server out of the balancer: `/readyz` answers 503 from now on, and streams end.
    pub fn begin_shutdown(&self) {
        self.ready.send_replace(false);
    }
}

/// Serves the API on `listener` until the server's handle stops it. Signals are the caller's business.
pub fn serve(app: &App, listener: TcpListener) -> std::io::Result<Server> {
    limit_sockets(&listener)?;
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
    Ok(server.workers(workers).shutdown_timeout(SHUTDOWN_SECONDS).disable_signals().listen(listener)?.run())
}

/// Serves `/metrics` alone, on an address of its own.
pub fn serve_metrics(app: &App, listener: TcpListener) -> std::io::Result<Server> {
    let data = Data::new(app.clone());
    let server = HttpServer::new(move || {
        actix_web::App::new()
            .app_data(data.clone())
            .wrap(from_fn(request_middleware))
            .configure(routes::configure_metrics)
            .default_service(web::to(routes::system::unmatched))
    });
    Ok(server.workers(1).shutdown_timeout(SHUTDOWN_SECONDS).disable_signals().listen(listener)?.run())
}

/// Stops a server: no new connections, requests under way are finished.
pub async fn stop(handle: &ServerHandle) {
    handle.stop(true).await;
}
