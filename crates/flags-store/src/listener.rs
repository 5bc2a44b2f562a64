//! Hears that something was committed, by this process or another.
//!
//! Only a hint: whoever listens reads the log itself, and at times without any hint, so that a listener that hears nothing
//! costs time and never a change.

use std::{pin::pin, time::Duration};

use diesel_async::AsyncPgConnection;
use futures_util::StreamExt as _;
use tokio::time::{Instant, interval, timeout};
use uuid::Uuid;

use crate::{
    backend,
    error::{Result, StoreError},
    store::{AsyncSqliteConnection, Store},
    url::DatabaseUrl,
};

/// The channel that the trigger on `change_log` rings.
pub(crate) const CHANNEL: &str = "flags_change_log";
/// How often a listener asks to be rung itself, so that a connection that is silently dead is noticed.
const PROBE_EVERY: Duration = Duration::from_secs(3);
/// Longest that a connection may take to open, and a probe to come back.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// How often SQLite is asked whether another connection has written.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// A connection of its own on which news arrive.
pub struct Listener(Source);

#[expect(clippy::large_enum_variant, reason = "there is one a process")]
enum Source {
    Postgres { conn: AsyncPgConnection, probe: String, probed_at: Instant },
    Sqlite { conn: AsyncSqliteConnection, version: i64 },
}

impl Store {
    /// Begins to listen. What was committed before must be read by whoever calls, after this.
    pub async fn listen(&self) -> Result<Listener> {
        let open = async {
            Ok(Listener(match self.url() {
                DatabaseUrl::Postgres(url) => {
                    // A channel that nobody else rings.
                    let probe = format!("flags_probe_{}", Uuid::now_v7().simple());
                    let conn = backend::postgres::listen(url, &[CHANNEL, &probe]).await?;
                    Source::Postgres { conn, probe, probed_at: Instant::now() }
                }
                DatabaseUrl::Sqlite(path) => {
                    let mut conn = backend::sqlite::open(path).await?;
                    let version = backend::sqlite::data_version(&mut conn).await?;
                    Source::Sqlite { conn, version }
                }
            }))
        };
        timeout(ANSWER_WITHIN, open).await.unwrap_or_else(|_| Err(silent()))
    }
}

impl Listener {
    /// Waits until something was committed. An error means that this listener is deaf: open another.
    pub async fn heard(&mut self) -> Result<()> {
        match &mut self.0 {
            Source::Postgres { conn, probe, probed_at } => loop {
                match timeout(PROBE_EVERY.saturating_sub(probed_at.elapsed()), next(conn)).await {
                    Ok(channel) => {
                        if channel? == CHANNEL {
                            return Ok(());
                        }
                    }
                    Err(_) => {
                        *probed_at = Instant::now();
                        if timeout(ANSWER_WITHIN, echo(conn, probe)).await.map_err(|_| silent())?? {
                            return Ok(());
                        }
                    }
                }
            },
            Source::Sqlite { conn, version } => {
                let mut look = interval(LOOK_EVERY);
                look.tick().await;
                loop {
                    look.tick().await;
                    let present = backend::sqlite::data_version(conn).await?;
                    if std::mem::replace(version, present) != present {
                        return Ok(());
                    }
                }
            }
        }
    }
}

fn silent() -> StoreError {
    StoreError::Unavailable("the listening connection does not answer".to_owned())
}

/// The channel of the next notification.
async fn next(conn: &mut AsyncPgConnection) -> Result<String> {
    let next = pin!(conn.notifications_stream()).next().await;
    let lost = || StoreError::Unavailable("the listening connection was lost".to_owned());
    Ok(next.ok_or_else(lost)?.map_err(|_| lost())?.channel)
}

/// Rings the own channel and waits for the ring to come back; whether news came meanwhile.
async fn echo(conn: &mut AsyncPgConnection, probe: &str) -> Result<bool> {
    backend::postgres::notify(conn, probe).await?;
    let mut news = false;
    loop {
        let channel = next(conn).await?;
        if channel == probe {
            return Ok(news);
        }
        news |= channel == CHANNEL;
    }
}
