//! The database's clock, for the one duty that must agree with it: the worker touches only what is due by both clocks.

use flags_domain::Instant;

use crate::{
    backend,
    error::Result,
    store::{Backend, Conn},
};

/// What the database's clock says; `None` where the database has none of its own (SQLite runs on this host's).
pub async fn database_time(conn: &mut Conn) -> Result<Option<Instant>> {
    match &mut conn.0 {
        Backend::Postgres(object) => Ok(Some(backend::postgres::clock(object).await?.0)),
        Backend::Sqlite(_) => Ok(None),
    }
}
