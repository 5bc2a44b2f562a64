//! Notifications of commits made by other processes.

use std::time::Duration;

use flags_domain::Instant;
use flags_store::Store;
use flags_tests::{
    app::author,
    cluster,
    database::{Database, DatabaseKind},
    on_both_databases,
    proxy::{Fault, Proxy, Target},
    seed,
};
use tokio::time::timeout;

on_both_databases! {
    listener_is_notified_of_commits_by_other_stores,
}

async fn commit_user(store: &Store, email: &str) {
    let mut tx = store.begin(Instant::from_micros(1)).await.unwrap();
    seed::insert_user(&mut tx, email).await;
    tx.commit(&author()).await.unwrap();
}

async fn listener_is_notified_of_commits_by_other_stores(kind: DatabaseKind) {
    let database = Database::migrated(kind).await;
    let (listening, writing) = (database.store().await, database.store().await);
    let mut listener = listening.listen().await.unwrap();
    assert!(timeout(Duration::from_millis(200), listener.notified()).await.is_err(), "nothing was committed");
    for number in 0..3 {
        commit_user(&writing, &format!("u{number}@example.com")).await;
        timeout(Duration::from_secs(20), listener.notified())
            .await
            .expect("timed out waiting for a notification")
            .unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn silently_dead_listen_connection_is_detected() {
    let database = Database::migrated(DatabaseKind::Postgres).await;
    let proxy = Proxy::start(Target::Unix(cluster::shared().socket())).await;
    let database_name = database.url.rsplit('/').next().unwrap();
    let url = format!("postgres://postgres@{}/{database_name}", proxy.address).parse().unwrap();
    let (proxied, direct) = (Store::open(&url).await.unwrap(), database.store().await);
    let mut listener = proxied.listen().await.unwrap();
    commit_user(&direct, "a@example.com").await;
    listener.notified().await.unwrap();
    proxy.set_fault(Fault::BlackHole);
    let result = timeout(Duration::from_secs(60), listener.notified())
        .await
        .expect("timed out waiting for the dead connection to be detected");
    assert!(result.is_err());
    proxy.set_fault(Fault::Pass);
    proxy.close_all();
    let mut listener = proxied.listen().await.unwrap();
    commit_user(&direct, "b@example.com").await;
    timeout(Duration::from_secs(60), listener.notified()).await.expect("timed out waiting for a notification").unwrap();
}
