//! What the tests share: databases that are thrown away, the application in this process, the real binaries, and callers.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]
#![allow(missing_docs, clippy::missing_panics_doc, reason = "for the tests beside it alone")]

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

/// Runs each case, an `async fn(Kind)`, on both databases.
#[macro_export]
macro_rules! on_both_databases {
    ($($case:ident),* $(,)?) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                super::$case($crate::database::Kind::Sqlite).await;
            })*
        }
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                super::$case($crate::database::Kind::Postgres).await;
            })*
        }
    };
}

/// Waits until `condition` gives something; panics with `what` if it does not within half a minute.
pub async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, mut condition: impl FnMut() -> F) -> T {
    let deadline = Instant::now() + Duration::from_secs(30);
    let mut look_again = interval(Duration::from_millis(20));
    while Instant::now() < deadline {
        look_again.tick().await;
        if let Some(outcome) = condition().await {
            return outcome;
        }
    }
    panic!("waited in vain: {what}");
}
