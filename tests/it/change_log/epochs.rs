//! The server starts a new epoch when the change log was replaced, for example by a restored backup.

use flags_store::change_log;
use flags_tests::{
    app::TestApp,
    database::{Database, DatabaseKind, execute_postgres, execute_raw, execute_raw_on_change_log, query_postgres},
    eventually, on_both_databases,
};
use uuid::Uuid;

on_both_databases! {
    restoring_an_older_change_log_starts_a_new_epoch,
    only_one_of_several_servers_starts_the_next_epoch,
    restoring_a_backup_of_an_earlier_epoch_starts_a_new_epoch,
}

async fn restoring_an_older_change_log_starts_a_new_epoch(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    app.create_boolean_flag("a").await;
    app.create_boolean_flag("b").await;
    let before = app.replica.revision();
    // Simulates the restore of a backup taken before the last change.
    let url = &app.database.url;
    execute_raw_on_change_log(url, "DELETE FROM change_log WHERE revision = (SELECT max(revision) FROM change_log)")
        .await;
    execute_raw(url, "DELETE FROM feature_flags WHERE name = 'b'").await;
    execute_raw(url, "UPDATE log_head SET revision = revision - 1").await;
    let after = eventually("a new epoch", async || {
        Some(app.replica.revision()).filter(|revision| revision.epoch != before.epoch)
    })
    .await;
    assert_eq!(after.number, before.number - 1);
    assert!(app.replica.snapshot(None).flag("b").is_none() && app.replica.snapshot(None).flag("a").is_some());
    let mut conn = app.core.store().conn().await.unwrap();
    assert_eq!(change_log::head(&mut conn).await.unwrap(), after);
}

async fn only_one_of_several_servers_starts_the_next_epoch(kind: DatabaseKind) {
    let database = Database::migrated(kind).await;
    let store = database.store().await;
    let current = change_log::head(&mut store.conn().await.unwrap()).await.unwrap().epoch;
    assert!(store.start_new_epoch_if_current(current).await.unwrap());
    assert!(!store.start_new_epoch_if_current(current).await.unwrap(), "another server has already ended this epoch");
}

async fn restoring_a_backup_of_an_earlier_epoch_starts_a_new_epoch(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    app.create_boolean_flag("a").await;
    let first = app.replica.revision().epoch;
    let second = app.core.store().start_new_epoch().await.unwrap().epoch;
    let wait_for_epoch = async |known: [Uuid; 2]| {
        eventually("a new epoch in the replica", async || {
            Some(app.replica.revision().epoch).filter(|current| !known.contains(current))
        })
        .await
    };
    assert_eq!(wait_for_epoch([first; 2]).await, second);
    // Simulates the restore of a backup from the first epoch; its revision is the same or higher.
    let hex = first.simple().to_string();
    let first_literal = if kind == DatabaseKind::Postgres { format!("'{hex}'") } else { format!("x'{hex}'") };
    execute_raw(&app.database.url, &format!("UPDATE log_head SET epoch = {first_literal}")).await;
    let third = wait_for_epoch([first, second]).await;
    let mut conn = app.core.store().conn().await.unwrap();
    assert_eq!(change_log::head(&mut conn).await.unwrap().epoch, third);
}

#[tokio::test(flavor = "multi_thread")]
async fn moving_to_another_postgres_cluster_or_timeline_starts_a_new_epoch() {
    let database = Database::migrated(DatabaseKind::Postgres).await;
    let store = database.store().await;
    let current_epoch = async || change_log::head(&mut store.conn().await.unwrap()).await.unwrap().epoch;
    let first = current_epoch().await;
    assert!(
        !store.record_database_identity().await.unwrap(),
        "the first call records the identity, which is not a change"
    );
    let lineage = query_postgres(&database.url, "SELECT lineage FROM log_head").await;
    assert!(lineage[0].as_ref().is_some_and(|text| text.contains("/0000000")), "{lineage:?}");
    assert!(!store.record_database_identity().await.unwrap());
    assert_eq!(current_epoch().await, first);
    execute_postgres(&database.url, "UPDATE log_head SET lineage = '1/00000001'").await;
    assert!(store.record_database_identity().await.unwrap());
    assert!(!store.record_database_identity().await.unwrap());
    assert_ne!(current_epoch().await, first);
}
