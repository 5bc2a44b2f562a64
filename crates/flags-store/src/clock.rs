//! Clock of the database server. Maintenance tasks act only on rows that are due by both this clock and the local
//! clock.

use flags_domain::Instant;

use crate::{
    backend,
    conn::{Backend, Conn},
    error::Result,
};

/// Returns the database server's current time. `None` on SQLite, which uses the clock of this host.
pub async fn database_time(conn: &mut Conn) -> Result<Option<Instant>> {
    match &mut conn.0 {
        Backend::Postgres(object) => Ok(Some(backend::postgres::current_time(object).await?.0)),
        Backend::Sqlite(_) => Ok(None),
    }
}
