//! The command line; every option can be given by environment as well.

use std::net::SocketAddr;

use clap::{Args, Parser, Subcommand, ValueEnum};
use flags_domain::Instant;
use flags_store::{DatabaseUrl, InvalidDatabaseUrl, users::Role};

use crate::{failure::Failure, jwt_args::JwtArgs};

/// Feature flags with user overrides: the server and its commands.
#[derive(Debug, Parser)]
#[command(name = "server", version, args_conflicts_with_subcommands = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    #[command(flatten)]
    pub(crate) run: RunArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Serve (also what happens without a command).
    Run(RunArgs),
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
    /// postgres://…, or sqlite:// and a file.
    #[arg(long, env = "DATABASE_URL", hide_env_values = true, default_value = "sqlite://flags.db")]
    database_url: String,
}

impl Database {
    /// The URL, read. Not by the parser of arguments, whose errors take several lines.
    pub(crate) fn url(&self) -> Result<DatabaseUrl, Failure> {
        self.database_url.parse().map_err(|error: InvalidDatabaseUrl| Failure::new(error.to_string()))
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
