//! Test support: temporary databases, the application in the test process, the binaries as processes, and HTTP clients.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]
#![allow(missing_docs, clippy::missing_panics_doc, reason = "only the tests of this package use this library")]

pub mod app;
pub mod caller;
pub mod cluster;
pub mod database;
pub mod events;
pub mod issuer;
pub mod permissions;
pub mod process;
pub mod proxy;
pub mod seed;

use std::{future::Future, time::Duration};

use tokio::time::{Instant, interval};

/// Defines a test on SQLite and a test on PostgreSQL for each function, an `async fn(DatabaseKind)`.
#[macro_export]
macro_rules! on_both_databases {
    ($($case:ident),* $(,)?) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                super::$case($crate::database::DatabaseKind::Sqlite).await;
            })*
        }
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                super::$case($crate::database::DatabaseKind::Postgres).await;
            })*
        }
    };
}

/// Polls `condition` every 20 milliseconds until it returns a value. Panics with `description` after 30 seconds.
pub async fn eventually<T, F: Future<Output = Option<T>>>(description: &str, mut condition: impl FnMut() -> F) -> T {
    let deadline = Instant::now() + Duration::from_secs(30);
    let mut poll = interval(Duration::from_millis(20));
    while Instant::now() < deadline {
        poll.tick().await;
        if let Some(value) = condition().await {
            return value;
        }
    }
    panic!("timed out waiting for: {description}");
}
