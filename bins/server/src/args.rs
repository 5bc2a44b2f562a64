//! The command line; every option can be given by environment as well.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum};
use flags_api::RateLimits;
use flags_domain::Instant;
use flags_service::{
    credentials::sessions::MAX_LIFETIME,
    startup::{self, LogFormat, SecretOption},
};
use flags_store::{DatabaseUrl, users::Role};

use crate::{failure::Failure, jwt_args::JwtArgs};

/// Feature flags with user overrides: the server and its commands.
#[derive(Debug, Parser)]
#[command(name = "server", version, args_conflicts_with_subcommands = true)]
pub(crate) struct Cli {
    /// How log lines are written to standard error: text or json. FLAGS_LOG says which, as in info,flags_api=debug.
    #[arg(long, env = "FLAGS_LOG_FORMAT", value_name = "FORMAT", default_value = "text", global = true)]
    pub(crate) log_format: LogFormat,
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    #[command(flatten)]
    pub(crate) run: RunArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Serve (also what happens without a command).
    Run(Box<RunArgs>),
    /// Apply the migrations that are missing.
    Migrate(Database),
    /// Fill an empty database with demo data and print demo tokens and curl lines.
    Demo {
        #[command(flatten)]
        database: Database,
        /// Address that the printed curl lines call.
        #[arg(long, env = "FLAGS_BIND", default_value = "127.0.0.1:8080")]
        bind: SocketAddr,
    },
    /// Begin a new epoch, after a backup was restored: revisions of before no longer count.
    NewEpoch(Database),
    /// API tokens.
    #[command(subcommand)]
    Token(TokenCommand),
    /// Users.
    #[command(subcommand)]
    User(UserCommand),
    /// Print the OpenAPI document.
    Openapi,
}

#[derive(Debug, Args)]
pub(crate) struct Database {
    /// postgres://…, or sqlite:// and a file [default: sqlite://flags.db].
    #[arg(long, env = "DATABASE_URL", hide_env_values = true)]
    database_url: Option<SecretOption>,
    /// A file that holds the URL, so that a password in it stands in no list of processes.
    #[arg(long, env = "DATABASE_URL_FILE", value_name = "FILE", conflicts_with = "database_url")]
    database_url_file: Option<PathBuf>,
}

impl Database {
    /// The URL, read. Not by the parser of arguments, whose errors take several lines.
    pub(crate) fn url(&self) -> Result<DatabaseUrl, Failure> {
        let url = startup::database_url(self.database_url.as_ref(), self.database_url_file.as_deref());
        url.map_err(|error| Failure::new(error.to_string()))
    }
}

#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub(crate) database: Database,
    /// Address to serve on; port 0 picks a free one.
    #[arg(long, env = "FLAGS_BIND", default_value = "127.0.0.1:8080")]
    pub(crate) bind: SocketAddr,
    /// Serve /metrics on an address of its own instead of beside the API.
    #[arg(long, env = "FLAGS_METRICS_BIND")]
    pub(crate) metrics_bind: Option<SocketAddr>,
    /// Do not apply missing migrations at start.
    #[arg(long, env = "FLAGS_NO_MIGRATE")]
    pub(crate) no_migrate: bool,
    /// Let users see the reason of their own overrides.
    #[arg(long, env = "FLAGS_SHOW_REASONS_TO_USERS")]
    pub(crate) show_reasons_to_users: bool,
    /// Threads that serve requests; as many as there are cores if left out.
    #[arg(long, env = "FLAGS_WORKERS")]
    pub(crate) workers: Option<std::num::NonZeroUsize>,
    /// Most streams at once; further ones get 503.
    #[arg(long, env = "FLAGS_MAX_STREAMS", default_value_t = 20_000)]
    pub(crate) max_streams: usize,
    #[command(flatten)]
    pub(crate) jwt: JwtArgs,
    #[command(flatten)]
    pub(crate) access: AccessArgs,
}

/// Who is let in, and how much they may ask for.
#[derive(Debug, Args)]
#[command(next_help_heading = "Access")]
pub(crate) struct AccessArgs {
    /// Sessions end when they were not used for so long, such as 8h; from 1m to 90d.
    #[arg(long, env = "FLAGS_SESSION_IDLE", default_value = "8h", value_parser = session_time)]
    pub(crate) session_idle: Duration,
    /// Sessions end after so long, however much they are used; from 1m to 90d.
    #[arg(long, env = "FLAGS_SESSION_LIFETIME", default_value = "7d", value_parser = session_time)]
    pub(crate) session_lifetime: Duration,
    /// Where browsers find this server, such as `https://flags.example.com`. Changes by cookie must come from there; if left
    /// out, from the host that a request names.
    #[arg(long, env = "FLAGS_PUBLIC_URL", value_name = "ORIGIN", value_parser = origin)]
    pub(crate) public_url: Option<String>,
    /// Origins whose pages may read answers (CORS), separated by commas; * stands for all.
    #[arg(long, env = "FLAGS_CORS_ORIGINS", value_name = "ORIGINS", value_delimiter = ',', value_parser = cors_origin)]
    pub(crate) cors_origins: Vec<String>,
    /// How many proxies stand in front: so many addresses at the end of X-Forwarded-For are believed.
    #[arg(long, env = "FLAGS_PROXIES", value_name = "COUNT", default_value_t = 0)]
    pub(crate) proxies: usize,
    /// Requests a second of one credential, without evaluations; for a moment twice as many; 0 is no limit.
    #[arg(long, env = "FLAGS_RATE_LIMIT", value_name = "COUNT", default_value_t = RateLimits::default().requests)]
    pub(crate) rate_limit: u32,
    /// Evaluations a second of one credential; for a moment twice as many; 0 is no limit.
    #[arg(long, env = "FLAGS_EVALUATION_RATE_LIMIT", value_name = "COUNT",
          default_value_t = RateLimits::default().evaluations)]
    pub(crate) evaluation_rate_limit: u32,
    /// Requests a second without a valid credential from one address; for a moment twice as many; 0 is no limit.
    #[arg(long, env = "FLAGS_ANONYMOUS_RATE_LIMIT", value_name = "COUNT",
          default_value_t = RateLimits::default().anonymous)]
    pub(crate) anonymous_rate_limit: u32,
}

fn session_time(text: &str) -> Result<Duration, String> {
    let time = humantime::parse_duration(text).map_err(|error| format!("{error}; write 8h or 7d"))?;
    let bounds = Duration::from_secs(60)..=MAX_LIFETIME;
    if bounds.contains(&time) { Ok(time) } else { Err("must be from 1m to 90d".to_owned()) }
}

/// Scheme, host and port, and nothing else.
fn origin(text: &str) -> Result<String, String> {
    let text = text.strip_suffix('/').unwrap_or(text);
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")).unwrap_or_default();
    let sound = !rest.is_empty() && !rest.contains(['/', '?', '#', '@', '*', ' ', ',']);
    if sound {
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
    /// Make an API token and print it, this once.
    Create {
        #[command(flatten)]
        database: Database,
        /// For people, to tell tokens apart.
        #[arg(long)]
        name: String,
        /// What it may do.
        #[arg(long, required_unless_present = "scope", conflicts_with = "scope")]
        role: Option<CliRole>,
        /// Instead of a role.
        #[arg(long)]
        scope: Option<CliScope>,
        /// The user it acts as, by e-mail; needed with `--role user`.
        #[arg(long, value_name = "E-MAIL")]
        user: Option<String>,
        /// When it becomes void (RFC 3339).
        #[arg(long, value_name = "INSTANT", value_parser = Instant::parse)]
        expires_at: Option<Instant>,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum UserCommand {
    /// Make a user known and print their id.
    Create {
        #[command(flatten)]
        database: Database,
        /// Unique without regard to case.
        #[arg(long)]
        email: String,
        /// What they may do.
        #[arg(long, default_value = "user")]
        role: CliRole,
        /// For people.
        #[arg(long)]
        display_name: Option<String>,
        /// Read a password to sign in with from standard input; its first line counts.
        #[arg(long)]
        password_stdin: bool,
    },
    /// Set a user's password, read from standard input; all their sessions end.
    SetPassword {
        #[command(flatten)]
        database: Database,
        /// Whose.
        #[arg(long)]
        email: String,
        /// Read the password from standard input; its first line counts. There is no other way.
        #[arg(long, required = true)]
        password_stdin: bool,
    },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum CliRole {
    Admin,
    Viewer,
    User,
}

impl From<CliRole> for Role {
    fn from(role: CliRole) -> Self {
        match role {
            CliRole::Admin => Self::Admin,
            CliRole::Viewer => Self::Viewer,
            CliRole::User => Self::User,
        }
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum CliScope {
    Evaluate,
}
