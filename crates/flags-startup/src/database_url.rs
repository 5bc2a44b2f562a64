//! Database URL from the command line, the environment or a file.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
    str::FromStr,
};

use flags_store::{DatabaseUrl, InvalidDatabaseUrl};

/// Default database URL: a SQLite file in the working directory.
pub const DEFAULT_DATABASE_URL: &str = "sqlite://flags.db";

/// Option value that may contain a secret, such as a URL with a password. `Debug` does not print it.
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

/// Error while reading or parsing the database URL.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseUrlError {
    /// Malformed URL.
    #[error(transparent)]
    Invalid(#[from] InvalidDatabaseUrl),
    /// The file that contains the URL cannot be read.
    #[error("cannot read the database URL from {}: {error}", path.display())]
    File {
        /// Path of the file.
        path: PathBuf,
        /// Cause.
        error: std::io::Error,
    },
}

/// Returns the database URL from the option, from the file, or else [`DEFAULT_DATABASE_URL`]. Surrounding whitespace is
/// removed.
pub fn database_url(option: Option<&SecretOption>, file: Option<&Path>) -> Result<DatabaseUrl, DatabaseUrlError> {
    let text = match (option, file) {
        (Some(option), _) => option.0.clone(),
        (None, Some(path)) => {
            fs::read_to_string(path).map_err(|error| DatabaseUrlError::File { path: path.to_owned(), error })?
        }
        (None, None) => DEFAULT_DATABASE_URL.to_owned(),
    };
    Ok(text.trim().parse()?)
}

/// Logs a warning if a command-line argument contains a password, because other users of the host can list the
/// arguments.
pub fn warn_about_passwords_in_arguments() {
    if std::env::args().any(|argument| contains_password(&argument)) {
        tracing::warn!(
            "other users of this host can read the password in --database-url; use DATABASE_URL or --database-url-file"
        );
    }
}

fn contains_password(argument: &str) -> bool {
    let authority = argument.split_once("://").and_then(|(_, rest)| rest.split('/').next()).unwrap_or_default();
    let in_authority = authority.rsplit_once('@').is_some_and(|(user, _)| user.contains(':'));
    in_authority || (argument.contains("://") && argument.contains("password="))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn database_url_option_takes_precedence_over_the_default() {
        let option: SecretOption = "postgres://u:secret@h/d".parse().unwrap();
        assert!(!format!("{option:?}").contains("secret"));
        assert_eq!(database_url(Some(&option), None).unwrap().to_string(), "postgres://h/d");
        assert_eq!(database_url(None, None).unwrap().to_string(), DEFAULT_DATABASE_URL);
        let error = database_url(None, Some(Path::new("/nowhere/url"))).unwrap_err().to_string();
        assert!(error.contains("/nowhere/url"), "{error}");
    }

    #[test]
    fn detects_passwords_in_arguments() {
        for argument in ["--database-url=postgres://u:p@h/d", "postgres://u:p@h/d", "postgres://h/d?password=p"] {
            assert!(contains_password(argument), "{argument}");
        }
        for argument in ["postgres://u@h/d", "sqlite://flags.db", "--bind", "127.0.0.1:80", "postgres://h/a:b@c"] {
            assert!(!contains_password(argument), "{argument}");
        }
    }
}
