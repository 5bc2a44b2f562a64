//! Settings of the server and the state that all request handlers share.

use std::sync::Arc;

use flags_service::{
    Core, Runtime,
    audit::AuditService,
    credentials::{
        confirmation::{CredentialConfirmation, MaxCredentialAge},
        jwt::JwtVerifier,
        sessions::{SessionLifetimes, SessionService},
        signing::SigningKey,
        tokens::TokenService,
    },
    evaluation::Evaluation,
    flags::FlagService,
    overrides::UserFlagOverrideService,
    schedules::ScheduleService,
    users::UserService,
};
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::sync::watch;

use crate::{
    metrics,
    open_streams::{OpenStreams, StreamLimits},
    rate_limits::{RateLimiters, RateLimits},
};

/// Settings of the HTTP server.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Whether users can read the reasons of their own overrides.
    pub show_reasons_to_users: bool,
    /// Whether `/metrics` is served on the address of the API. Otherwise [`serve_metrics`](crate::serve_metrics) serves
    /// it on its own address.
    pub metrics_with_api: bool,
    /// Number of threads that serve requests.
    pub workers: usize,
    /// Idle timeout and maximum lifetime of sessions.
    pub session_lifetimes: SessionLifetimes,
    /// Maximum age of the replica's tokens and users. If they are older, the server asks the database before it accepts
    /// a credential.
    pub max_credential_age: MaxCredentialAge,
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

/// Whether users can read the reasons of their own overrides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OverrideReasons {
    Shown,
    Hidden,
}

impl Settings {
    pub(crate) const fn override_reasons(&self) -> OverrideReasons {
        if self.show_reasons_to_users { OverrideReasons::Shown } else { OverrideReasons::Hidden }
    }
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
    pub(crate) credential_confirmation: CredentialConfirmation,
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
    /// Creates the state. `metrics` renders the response of `/metrics`.
    ///
    /// The state does not own `runtime`, which must be kept until the server has stopped.
    pub fn new(runtime: &Runtime, metrics: Option<PrometheusHandle>, settings: Settings) -> Self {
        let core = &runtime.core;
        Self {
            evaluation: runtime.evaluation.clone(),
            overrides: UserFlagOverrideService::new(core.clone(), runtime.evaluation.clone()),
            flags: FlagService::new(core.clone()),
            schedules: ScheduleService::new(core.clone()),
            users: UserService::new(core.clone()),
            tokens: TokenService::new(core.clone()),
            sessions: SessionService::new(core.clone(), settings.session_lifetimes),
            credential_confirmation: CredentialConfirmation::new(
                core.clone(),
                Arc::clone(&runtime.replica),
                settings.max_credential_age,
            ),
            rate_limiters: RateLimiters::new(settings.rate_limits),
            audit: AuditService::new(core.clone()),
            metrics,
            settings,
            open_streams: OpenStreams::default(),
            stream_token_key: runtime.stream_token_key.clone(),
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
