//! News of other processes: heard at once, and not missed when nobody hears them.

use std::time::Duration;

use flags_store::Store;
use flags_tests::{
    app::author,
    database::{Database, Kind, execute, query, tamper},
    eventually, on_both_databases, seed,
};
use tokio::time::timeout;

on_both_databases! {
    a_listener_hears_commits_of_others,
    a_log_that_goes_back_begins_a_new_epoch,
    of_several_servers_one_ends_an_epoch,
}

async fn commit(store: &Store, email: &str) {
    let mut tx = store.begin(flags_domain::Instant::from_micros(1)).await.unwrap();
    seed::insert_user(&mut tx, email).await;
    tx.commit(&author()).await.unwrap();
}

async fn a_listener_hears_commits_of_others(kind: Kind) {
    let database = Database::migrated(kind).await;
    let (one, two) = (database.store().await, database.store().await);
    let mut listener = one.listen().await.unwrap();
    assert!(timeout(Duration::from_millis(200), listener.heard()).await.is_err(), "nothing was committed");
    for number in 0..3 {
        commit(&two, &format!("u{number}@example.com")).await;
        timeout(Duration::from_secs(20), listener.heard()).await.expect("heard").unwrap();
    }
}

async fn a_log_that_goes_back_begins_a_new_epoch(kind: Kind) {
    let app = flags_tests::app::TestApp::start(kind).await;
    app.boolean_flag("a").await;
    app.boolean_flag("b").await;
    let before = app.replica.revision();
    // As after a backup of before the last change was restored.
    let url = &app.database.url;
    tamper(url, "DELETE FROM change_log WHERE revision = (SELECT max(revision) FROM change_log)").await;
    tamper(url, "DELETE FROM feature_flags WHERE name = 'b'").await;
    tamper(url, "UPDATE log_head SET revision = revision - 1").await;
    let after = eventually("a new epoch", async || {
        Some(app.replica.revision()).filter(|revision| revision.epoch != before.epoch)
    })
    .await;
    assert_eq!(after.number, before.number - 1);
    assert!(app.replica.read().flag("b").is_none() && app.replica.read().flag("a").is_some());
    let mut conn = app.core.store().conn().await.unwrap();
    assert_eq!(flags_store::log::head(&mut conn).await.unwrap(), after);
}

async fn of_several_servers_one_ends_an_epoch(kind: Kind) {
    let database = Database::migrated(kind).await;
    let store = database.store().await;
    let seen = flags_store::log::head(&mut store.conn().await.unwrap()).await.unwrap().epoch;
    assert!(store.begin_epoch_after(seen).await.unwrap());
    assert!(!store.begin_epoch_after(seen).await.unwrap(), "it has ended already");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_cluster_or_timeline_begins_a_new_epoch() {
    let database = Database::migrated(Kind::Postgres).await;
    let store = database.store().await;
    let epoch = async || flags_store::log::head(&mut store.conn().await.unwrap()).await.unwrap().epoch;
    let first = epoch().await;
    assert!(!store.adopt_lineage().await.unwrap(), "the first to write notes where it writes");
    let lineage = query(&database.url, "SELECT lineage FROM log_head").await;
    assert!(lineage[0].as_ref().is_some_and(|text| text.contains("/0000000")), "{lineage:?}");
    assert!(!store.adopt_lineage().await.unwrap());
    assert_eq!(epoch().await, first);
    execute(&database.url, "UPDATE log_head SET lineage = '1/00000001'").await;
    assert!(store.adopt_lineage().await.unwrap());
    assert!(!store.adopt_lineage().await.unwrap());
    assert_ne!(epoch().await, first);
}
