//! Database URLs. The scheme chooses the backend.

use std::{fmt, path::PathBuf};

/// Where the state is kept.
#[derive(Clone, PartialEq, Eq)]
pub enum DatabaseUrl {
    /// `postgres://` or `postgresql://`, as libpq understands it.
    Postgres(String),
    /// `sqlite://` and a path: `sqlite://flags.db` is relative, `sqlite:///var/lib/flags.db` absolute.
    Sqlite(PathBuf),
}

/// The text is no URL of a database the service knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidDatabaseUrl {
    /// Another scheme, or none.
    #[error("the database URL must start with postgres://, postgresql:// or sqlite://")]
    UnknownScheme,
    /// No file is named.
    #[error("the database URL must name a file, for example sqlite://flags.db (a database in memory cannot be shared)")]
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
    /// Without user name, password and parameters.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Postgres(url) => {
                let rest = url.split_once("://").map_or(url.as_str(), |(_, rest)| rest);
                let rest = rest.split('?').next().unwrap_or_default();
                let rest = rest.rsplit_once('@').map_or(rest, |(_, place)| place);
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
    fn the_scheme_chooses_the_backend() {
        let parse = |text: &str| text.parse::<DatabaseUrl>();
        assert_eq!(parse("sqlite://a/b.db"), Ok(DatabaseUrl::Sqlite("a/b.db".into())));
        assert_eq!(parse("sqlite:///a.db"), Ok(DatabaseUrl::Sqlite("/a.db".into())));
        assert!(matches!(parse("postgresql://host/db"), Ok(DatabaseUrl::Postgres(_))));
        assert_eq!(parse("sqlite://"), Err(InvalidDatabaseUrl::NoFile));
        assert_eq!(parse("sqlite://:memory:"), Err(InvalidDatabaseUrl::NoFile));
        for bad in ["mysql://x", "flags.db", "", "postgres:/x", "SQLITE://x"] {
            assert_eq!(parse(bad), Err(InvalidDatabaseUrl::UnknownScheme), "{bad}");
        }
    }

    #[test]
    fn no_secret_is_ever_printed() {
        let url: DatabaseUrl = "postgres://me:se@cret@host:5432/db?password=other".parse().unwrap();
        assert_eq!(format!("{url} {url:?}"), "postgres://host:5432/db postgres://host:5432/db");
    }
}
