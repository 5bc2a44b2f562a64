//! Command-line options. Each option can also be set with an environment variable.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum};
use flags_api::{RateLimits, has_admin_ui};
use flags_domain::Instant;
use flags_service::credentials::sessions::MAX_LIFETIME;
use flags_startup::{LogFormat, SecretOption};
use flags_store::{DatabaseUrl, users::Role};

use crate::{cli_error::CliError, jwt_args::JwtArgs};

/// Returns the version and states whether the binary includes the admin UI.
fn version() -> &'static str {
    if has_admin_ui() {
        concat!(env!("CARGO_PKG_VERSION"), " (with the admin UI)")
    } else {
        concat!(env!("CARGO_PKG_VERSION"), " (without the admin UI)")
    }
}

/// Feature-flag server with per-user overrides.
#[derive(Debug, Parser)]
#[command(name = "server", version = version(), args_conflicts_with_subcommands = true)]
pub(crate) struct Cli {
    /// Format of the application log on standard error: text or json. The environment variable FLAGS_LOG filters the
    /// log, for example `info,flags_api=debug`.
    #[arg(long, env = "FLAGS_LOG_FORMAT", value_name = "FORMAT", default_value = "text", global = true)]
    pub(crate) log_format: LogFormat,
    #[command(subcommand)]
    pub(crate) command: Option<CliCommand>,
    #[command(flatten)]
    pub(crate) run: RunArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum CliCommand {
    /// Start the server. This is the default command.
    Run(Box<RunArgs>),
    /// Apply pending database migrations.
    Migrate(DatabaseArgs),
    /// Fill an empty database with demo data and print example requests with API tokens.
    Demo {
        #[command(flatten)]
        database: DatabaseArgs,
        /// Address of the server in the printed example requests.
        #[arg(long, env = "FLAGS_BIND", value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
        bind: SocketAddr,
    },
    /// Invalidate all revisions from before a database restore (start a new epoch), and print the new revision. Run this
    /// after restoring a backup.
    ///
    /// Revisions and event stream positions from before the restore become invalid, and clients
    /// reload all flags.
    NewEpoch(DatabaseArgs),
    /// Manage API tokens.
    #[command(subcommand)]
    Token(TokenCommand),
    /// Manage users.
    #[command(subcommand)]
    User(UserCommand),
    /// Print the OpenAPI document as JSON.
    Openapi,
}

#[derive(Debug, Args)]
pub(crate) struct DatabaseArgs {
    /// Database URL, such as postgres://USER@HOST/DATABASE or sqlite://FILE [default: sqlite://flags.db].
    #[arg(long, env = "DATABASE_URL", value_name = "URL", hide_env_values = true)]
    database_url: Option<SecretOption>,
    /// File that contains the database URL. Unlike --database-url, it keeps the password out of the process list.
    #[arg(long, env = "DATABASE_URL_FILE", value_name = "FILE", conflicts_with = "database_url")]
    database_url_file: Option<PathBuf>,
}

impl DatabaseArgs {
    /// Parses the URL here and not in clap, because clap's error messages span several lines.
    pub(crate) fn url(&self) -> Result<DatabaseUrl, CliError> {
        let url = flags_startup::database_url(self.database_url.as_ref(), self.database_url_file.as_deref());
        url.map_err(|error| CliError::new(error.to_string()))
    }
}

#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub(crate) database: DatabaseArgs,
    /// Address to listen on. Port 0 selects a free port.
    #[arg(long, env = "FLAGS_BIND", value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    pub(crate) bind: SocketAddr,
    /// Separate address for /metrics [default: the address of the API].
    #[arg(long, env = "FLAGS_METRICS_BIND", value_name = "ADDRESS")]
    pub(crate) metrics_bind: Option<SocketAddr>,
    /// Do not apply pending migrations at startup. The server exits with an error if migrations are pending.
    #[arg(long, env = "FLAGS_NO_MIGRATE")]
    pub(crate) no_migrate: bool,
    /// Allow users to read the reasons for their own overrides.
    #[arg(long, env = "FLAGS_SHOW_REASONS_TO_USERS")]
    pub(crate) show_reasons_to_users: bool,
    /// Number of threads that serve requests [default: number of CPU cores].
    #[arg(long, env = "FLAGS_WORKERS", value_name = "COUNT")]
    pub(crate) workers: Option<std::num::NonZeroUsize>,
    /// Maximum number of concurrent event streams. The server rejects further streams with status 503.
    #[arg(long, env = "FLAGS_MAX_STREAMS", value_name = "COUNT", default_value_t = 20_000)]
    pub(crate) max_streams: usize,
    #[command(flatten)]
    pub(crate) jwt: JwtArgs,
    #[command(flatten)]
    pub(crate) access: AccessArgs,
}

/// Options for sessions, browser access and rate limits.
#[derive(Debug, Args)]
#[command(next_help_heading = "Sessions, CORS and rate limits")]
pub(crate) struct AccessArgs {
    /// Session idle timeout, for example 30m or 8h. From 1m to 90d.
    #[arg(long, env = "FLAGS_SESSION_IDLE", value_name = "DURATION", default_value = "8h",
          value_parser = session_time)]
    pub(crate) session_idle: Duration,
    /// Maximum session lifetime, regardless of use, for example 12h or 7d. From 1m to 90d.
    #[arg(long, env = "FLAGS_SESSION_LIFETIME", value_name = "DURATION", default_value = "7d",
          value_parser = session_time)]
    pub(crate) session_lifetime: Duration,
    /// Public URL of this server without a path, such as `https://flags.example.com` [default: derived from the Host
    /// header of each request]. State-changing requests with a session cookie must come from this origin.
    #[arg(long, env = "FLAGS_PUBLIC_URL", value_name = "URL", value_parser = origin)]
    pub(crate) public_url: Option<String>,
    /// Comma-separated list of origins whose web pages may call the API (CORS), or * for all origins [default: only the
    /// server's own origin].
    #[arg(long, env = "FLAGS_CORS_ORIGINS", value_name = "ORIGINS", value_delimiter = ',', value_parser = cors_origin)]
    pub(crate) cors_origins: Vec<String>,
    /// Number of trusted reverse proxies in front of the server. With N proxies, the client address is the Nth entry
    /// from the end of X-Forwarded-For. With 0, the server ignores the header.
    #[arg(long, env = "FLAGS_TRUSTED_PROXIES", value_name = "COUNT", default_value_t = 0, value_parser = proxy_count)]
    pub(crate) trusted_proxies: usize,
    /// Maximum number of requests per second for each credential, not counting evaluations. Short bursts may reach
    /// twice this rate. 0 disables the limit.
    #[arg(long, env = "FLAGS_RATE_LIMIT", value_name = "COUNT", default_value_t = RateLimits::default().requests)]
    pub(crate) rate_limit: u32,
    /// Maximum number of evaluations per second for each credential. Short bursts may reach twice this rate. 0 disables
    /// the limit.
    #[arg(long, env = "FLAGS_EVALUATION_RATE_LIMIT", value_name = "COUNT",
          default_value_t = RateLimits::default().evaluations)]
    pub(crate) evaluation_rate_limit: u32,
    /// Maximum number of requests per second without a valid credential, for each client address.
    /// Short bursts may reach twice this rate. 0 disables the limit.
    #[arg(long, env = "FLAGS_ANONYMOUS_RATE_LIMIT", value_name = "COUNT",
          default_value_t = RateLimits::default().anonymous)]
    pub(crate) anonymous_rate_limit: u32,
}

fn session_time(text: &str) -> Result<Duration, String> {
    let time = humantime::parse_duration(text).map_err(|error| format!("{error}; use a duration such as 8h or 7d"))?;
    let bounds = Duration::from_secs(60)..=MAX_LIFETIME;
    if bounds.contains(&time) { Ok(time) } else { Err("must be from 1m to 90d".to_owned()) }
}

fn proxy_count(text: &str) -> Result<usize, String> {
    text.parse().map_err(|_| {
        "must be the number of reverse proxies, not their addresses; for one proxy, use --trusted-proxies 1".to_owned()
    })
}

/// Parses an origin: scheme, host and optional port. Removes a trailing slash and converts the text
/// to lower case.
fn origin(text: &str) -> Result<String, String> {
    let text = text.strip_suffix('/').unwrap_or(text);
    let authority = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")).unwrap_or_default();
    let is_valid = !authority.is_empty() && !authority.contains(['/', '?', '#', '@', '*', ' ', ',']);
    if is_valid {
        Ok(text.to_ascii_lowercase())
    } else {
        Err("must be an origin such as https://flags.example.com".to_owned())
    }
}

fn cors_origin(text: &str) -> Result<String, String> {
    if text == "*" { Ok(text.to_owned()) } else { origin(text) }
}

#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Create an API token and print it. The token cannot be displayed again later.
    Create {
        #[command(flatten)]
        database: DatabaseArgs,
        /// Name of the token in lists and in the audit log.
        #[arg(long)]
        name: String,
        /// Role of the token. Either --role or --scope is required.
        #[arg(long, required_unless_present = "scope", conflicts_with = "scope")]
        role: Option<CliRole>,
        /// Scope of the token. The scope `evaluate` permits only flag evaluation, for any user.
        #[arg(long)]
        scope: Option<CliScope>,
        /// User that the token acts as: e-mail address, external id or user id. Required with `--role user`.
        #[arg(long, value_name = "USER")]
        user: Option<String>,
        /// Expiry in RFC 3339 format, such as 2030-01-31T00:00:00Z [default: no expiry].
        #[arg(long, value_name = "TIMESTAMP", value_parser = Instant::parse)]
        expires_at: Option<Instant>,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum UserCommand {
    /// Create a user and print the user id.
    Create {
        #[command(flatten)]
        database: DatabaseArgs,
        /// E-mail address, unique regardless of case. Required with --password-stdin or without
        /// --external-id.
        #[arg(long, required_unless_present = "external_id")]
        email: Option<String>,
        /// Id of the user in another system: 1 to 255 characters without @.
        #[arg(long, value_name = "ID")]
        external_id: Option<String>,
        /// Role of the user.
        #[arg(long, default_value = "user")]
        role: CliRole,
        /// Display name of the user.
        #[arg(long, value_name = "NAME")]
        display_name: Option<String>,
        /// Read the user's password from the first line of standard input. A user without a password cannot sign in.
        #[arg(long)]
        password_stdin: bool,
    },
    /// Set the password of a user and end all of the user's sessions.
    SetPassword {
        #[command(flatten)]
        database: DatabaseArgs,
        /// E-mail address of the user.
        #[arg(long)]
        email: String,
        /// Read the password from the first line of standard input. Required.
        #[arg(long, required = true)]
        password_stdin: bool,
    },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum CliRole {
    Admin,
    Support,
    Viewer,
    User,
}

impl From<CliRole> for Role {
    fn from(role: CliRole) -> Self {
        match role {
            CliRole::Admin => Self::Admin,
            CliRole::Support => Self::Support,
            CliRole::Viewer => Self::Viewer,
            CliRole::User => Self::User,
        }
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum CliScope {
    Evaluate,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trusted_proxies_must_be_a_count() {
        let parse = |value: &str| Cli::try_parse_from(["server", "--trusted-proxies", value]);
        assert_eq!(parse("2").unwrap().run.access.trusted_proxies, 2);
        for address in ["10.0.0.1", "10.0.0.0/8", "::1", "proxy.example"] {
            let error = parse(address).unwrap_err().to_string();
            assert!(error.contains("number of reverse proxies, not their addresses"), "{address}: {error}");
            assert!(error.contains("--trusted-proxies 1"), "{address}: {error}");
        }
    }
}
