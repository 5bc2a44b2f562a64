//! What the programs have in common when they start: where the database is, and how they log.

use std::{
    fmt, fs,
    io::IsTerminal as _,
    path::{Path, PathBuf},
    str::FromStr,
};

use flags_store::{DatabaseUrl, InvalidDatabaseUrl};
use tracing_subscriber::{
    EnvFilter, Layer as _,
    filter::{LevelFilter, Targets},
    layer::SubscriberExt as _,
    util::SubscriberInitExt as _,
};

/// Where the state is kept if nobody says otherwise.
pub const DEFAULT_DATABASE_URL: &str = "sqlite://flags.db";

/// An option's value that is not for printing, such as a URL with a password in it.
#[derive(Clone)]
pub struct SecretOption(String);

impl FromStr for SecretOption {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Debug for SecretOption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretOption(…)")
    }
}

/// No database is named, or not so that it can be read.
#[derive(Debug, thiserror::Error)]
pub enum NoDatabase {
    /// What is given is no URL of a database.
    #[error(transparent)]
    Invalid(#[from] InvalidDatabaseUrl),
    /// The file with the URL cannot be read.
    #[error("the database URL cannot be read from {}: {error}", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// Why not.
        error: std::io::Error,
    },
}

/// The database's URL: as given, out of a file, or the default.
pub fn database_url(given: Option<&SecretOption>, file: Option<&Path>) -> Result<DatabaseUrl, NoDatabase> {
    let text = match (given, file) {
        (Some(given), _) => given.0.clone(),
        (None, Some(path)) => {
            fs::read_to_string(path).map_err(|error| NoDatabase::File { path: path.to_owned(), error })?
        }
        (None, None) => DEFAULT_DATABASE_URL.to_owned(),
    };
    Ok(text.trim().parse()?)
}

/// Says so if a password can be read by everybody who may list this machine's processes.
pub fn warn_of_secrets_in_arguments() {
    if std::env::args().any(|argument| holds_password(&argument)) {
        tracing::warn!(
            "the password in --database-url can be seen by everybody on this machine; use DATABASE_URL or \
             --database-url-file"
        );
    }
}

fn holds_password(argument: &str) -> bool {
    let authority = argument.split_once("://").and_then(|(_, rest)| rest.split('/').next()).unwrap_or_default();
    let in_authority = authority.rsplit_once('@').is_some_and(|(user, _)| user.contains(':'));
    in_authority || (argument.contains("://") && argument.contains("password="))
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line, for programs.
    Json,
}

/// The text names no format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be text or json")]
pub struct InvalidLogFormat;

impl FromStr for LogFormat {
    type Err = InvalidLogFormat;

    fn from_str(text: &str) -> Result<Self, InvalidLogFormat> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(InvalidLogFormat),
        }
    }
}

/// What would log the parameters of queries, or requests with their headers, if it were asked for details.
const NEVER_IN_DETAIL: [(&str, LevelFilter); 7] = [
    ("tokio_postgres", LevelFilter::WARN),
    ("postgres", LevelFilter::WARN),
    ("diesel", LevelFilter::WARN),
    ("actix_web", LevelFilter::WARN),
    ("hyper", LevelFilter::WARN),
    ("hyper_util", LevelFilter::WARN),
    // It calls bytes that are no HTTP an error of the server's; anybody could fill the log with them.
    ("actix_http", LevelFilter::OFF),
];

/// Begins to log to standard error, what `FLAGS_LOG` asks for or else `default`. Once per process.
pub fn start_logging(format: LogFormat, default: &str) {
    let wanted = std::env::var("FLAGS_LOG").ok().filter(|wanted| !wanted.trim().is_empty());
    let asked_for = wanted.as_deref().map_or_else(|| Ok(EnvFilter::new(default)), EnvFilter::try_new);
    let (filter, unreadable) = match asked_for {
        Ok(filter) => (filter, None),
        Err(error) => (EnvFilter::new(default), Some(error)),
    };
    // A filter of its own, so that nothing that is asked for more specifically comes before it.
    let silenced = Targets::new().with_default(LevelFilter::TRACE).with_targets(NEVER_IN_DETAIL);
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let lines = match format {
        LogFormat::Text => lines.with_ansi(std::io::stderr().is_terminal()).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    tracing_subscriber::registry().with(lines.with_filter(silenced)).with(filter).init();
    if let Some(error) = unreadable {
        tracing::warn!(%error, "FLAGS_LOG cannot be read and is passed over; write info or flags_service=debug,info");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_comes_as_given_or_out_of_a_file_or_is_the_default() {
        let given: SecretOption = "postgres://u:secret@h/d".parse().unwrap();
        assert!(!format!("{given:?}").contains("secret"));
        assert_eq!(database_url(Some(&given), None).unwrap().to_string(), "postgres://h/d");
        assert_eq!(database_url(None, None).unwrap().to_string(), DEFAULT_DATABASE_URL);
        let missing = database_url(None, Some(Path::new("/nowhere/url"))).unwrap_err().to_string();
        assert!(missing.contains("/nowhere/url"), "{missing}");
    }

    #[test]
    fn a_password_is_seen_in_an_argument() {
        for argument in ["--database-url=postgres://u:p@h/d", "postgres://u:p@h/d", "postgres://h/d?password=p"] {
            assert!(holds_password(argument), "{argument}");
        }
        for argument in ["postgres://u@h/d", "sqlite://flags.db", "--bind", "127.0.0.1:80", "postgres://h/a:b@c"] {
            assert!(!holds_password(argument), "{argument}");
        }
    }
}
