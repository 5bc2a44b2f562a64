//! Notifications about commits to the change log by any process.
//!
//! A notification carries no data. The change feed reads the changes from the change log, and also
//! polls the change log regularly. A missed notification therefore delays changes but never loses
//! them.

use std::{pin::pin, time::Duration};

use diesel_async::AsyncPgConnection;
use futures_util::StreamExt as _;
use tokio::time::{Instant, interval, timeout};
use uuid::Uuid;

use crate::{
    backend::{self, sqlite::AsyncSqliteConnection},
    error::{Result, StoreError},
    store::Store,
    url::DatabaseUrl,
};

/// Channel that the trigger on `change_log` notifies.
const CHANGE_LOG_CHANNEL: &str = "flags_change_log";
/// Interval at which a PostgreSQL listener sends a notification to itself, to detect a dead connection.
const PROBE_INTERVAL: Duration = Duration::from_secs(3);
/// Timeout for opening the connection and for receiving a probe.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(2);
/// Interval at which a SQLite listener checks whether another connection has written.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// Dedicated connection that detects commits to the change log.
pub struct Listener(Source);

#[expect(clippy::large_enum_variant, reason = "each process has only one listener")]
enum Source {
    Postgres { conn: AsyncPgConnection, probe: String, probed_at: Instant },
    Sqlite { conn: AsyncSqliteConnection, version: i64 },
}

impl Store {
    /// Starts listening. The listener does not report earlier commits, so the caller must read the change log once
    /// after this function returns.
    pub async fn listen(&self) -> Result<Listener> {
        let open = async {
            Ok(Listener(match self.url() {
                DatabaseUrl::Postgres(url) => {
                    // Channel name that is unique to this listener.
                    let probe = format!("flags_probe_{}", Uuid::now_v7().simple());
                    let conn = backend::postgres::listen(url, &[CHANGE_LOG_CHANNEL, &probe]).await?;
                    Source::Postgres { conn, probe, probed_at: Instant::now() }
                }
                DatabaseUrl::Sqlite(path) => {
                    let mut conn = backend::sqlite::open(path).await?;
                    let version = backend::sqlite::data_version(&mut conn).await?;
                    Source::Sqlite { conn, version }
                }
            }))
        };
        timeout(RESPONSE_TIMEOUT, open).await.unwrap_or_else(|_| Err(unresponsive()))
    }
}

impl Listener {
    /// Waits for the next commit. After an error, this listener is unusable; call [`Store::listen`] again.
    pub async fn notified(&mut self) -> Result<()> {
        match &mut self.0 {
            Source::Postgres { conn, probe, probed_at } => loop {
                match timeout(PROBE_INTERVAL.saturating_sub(probed_at.elapsed()), next_channel(conn)).await {
                    Ok(channel) => {
                        if channel? == CHANGE_LOG_CHANNEL {
                            return Ok(());
                        }
                    }
                    Err(_) => {
                        *probed_at = Instant::now();
                        if timeout(RESPONSE_TIMEOUT, send_probe(conn, probe)).await.map_err(|_| unresponsive())?? {
                            return Ok(());
                        }
                    }
                }
            },
            Source::Sqlite { conn, version } => {
                let mut poll = interval(POLL_INTERVAL);
                poll.tick().await;
                loop {
                    poll.tick().await;
                    let current = backend::sqlite::data_version(conn).await?;
                    if std::mem::replace(version, current) != current {
                        return Ok(());
                    }
                }
            }
        }
    }
}

fn unresponsive() -> StoreError {
    StoreError::unavailable("the LISTEN connection does not respond")
}

/// Returns the channel of the next notification.
async fn next_channel(conn: &mut AsyncPgConnection) -> Result<String> {
    let next = pin!(conn.notifications_stream()).next().await;
    match next {
        Some(Ok(notification)) => Ok(notification.channel),
        Some(Err(_)) | None => Err(StoreError::unavailable("the LISTEN connection was lost")),
    }
}

/// Sends a probe notification and waits until it arrives. Returns whether a notification of a commit arrived before it.
async fn send_probe(conn: &mut AsyncPgConnection, probe: &str) -> Result<bool> {
    backend::postgres::notify(conn, probe).await?;
    let mut has_commits = false;
    loop {
        let channel = next_channel(conn).await?;
        if channel == probe {
            return Ok(has_commits);
        }
        has_commits |= channel == CHANGE_LOG_CHANNEL;
    }
}
