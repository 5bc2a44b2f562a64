//! Database URLs. The scheme selects the database.

use std::{fmt, path::PathBuf};

/// Location of the database. `Display` and `Debug` omit credentials and parameters.
#[derive(Clone, PartialEq, Eq)]
pub enum DatabaseUrl {
    /// `postgres://` or `postgresql://` URL in the format of libpq.
    Postgres(String),
    /// Path from a `sqlite://` URL. `sqlite://flags.db` is relative, `sqlite:///var/lib/flags.db` is absolute.
    Sqlite(PathBuf),
}

/// Error for a text that is not a supported database URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidDatabaseUrl {
    /// The scheme is missing or unsupported.
    #[error("the database URL must start with postgres://, postgresql:// or sqlite://")]
    UnknownScheme,
    /// A SQLite URL does not name a file. In-memory databases are not supported.
    #[error("the database URL must name a file, for example sqlite://flags.db (in-memory databases are not supported)")]
    NoFile,
}

impl std::str::FromStr for DatabaseUrl {
    type Err = InvalidDatabaseUrl;

    fn from_str(text: &str) -> Result<Self, InvalidDatabaseUrl> {
        if text.starts_with("postgres://") || text.starts_with("postgresql://") {
            return Ok(Self::Postgres(text.to_owned()));
        }
        match text.strip_prefix("sqlite://") {
            Some("" | ":memory:") => Err(InvalidDatabaseUrl::NoFile),
            Some(path) => Ok(Self::Sqlite(PathBuf::from(path))),
            None => Err(InvalidDatabaseUrl::UnknownScheme),
        }
    }
}

impl fmt::Display for DatabaseUrl {
    /// Formats the URL without user name, password and parameters.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Postgres(url) => {
                let rest = url.split_once("://").map_or(url.as_str(), |(_, rest)| rest);
                let rest = rest.split('?').next().unwrap_or_default();
                let rest = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
                write!(f, "postgres://{rest}")
            }
            Self::Sqlite(path) => write!(f, "sqlite://{}", path.display()),
        }
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scheme_selects_the_database() {
        let parse = |text: &str| text.parse::<DatabaseUrl>();
        assert_eq!(parse("sqlite://a/b.db"), Ok(DatabaseUrl::Sqlite("a/b.db".into())));
        assert_eq!(parse("sqlite:///a.db"), Ok(DatabaseUrl::Sqlite("/a.db".into())));
        assert!(matches!(parse("postgresql://host/db"), Ok(DatabaseUrl::Postgres(_))));
        assert_eq!(parse("sqlite://"), Err(InvalidDatabaseUrl::NoFile));
        assert_eq!(parse("sqlite://:memory:"), Err(InvalidDatabaseUrl::NoFile));
        for invalid in ["mysql://x", "flags.db", "", "postgres:/x", "SQLITE://x"] {
            assert_eq!(parse(invalid), Err(InvalidDatabaseUrl::UnknownScheme), "{invalid}");
        }
    }

    #[test]
    fn formatting_omits_credentials_and_parameters() {
        let url: DatabaseUrl = "postgres://me:se@cret@host:5432/db?password=other".parse().unwrap();
        assert_eq!(format!("{url} {url:?}"), "postgres://host:5432/db postgres://host:5432/db");
    }
}
