//! SQLite triggers protect change-log rows.

use flags_domain::Instant;
use flags_store::Author;
use flags_tests::{
    database::{Database, DatabaseKind, table_rows, try_execute_raw},
    seed,
};

#[tokio::test(flavor = "multi_thread")]
async fn sqlite_rejects_changes_to_change_log_rows() {
    let database = Database::migrated(DatabaseKind::Sqlite).await;
    let store = database.store().await;
    for email in ["a@example.com", "b@example.com", "c@example.com"] {
        let mut tx = store.begin(Instant::from_micros(1)).await.unwrap();
        seed::insert_user(&mut tx, email).await;
        tx.commit(&Author { actor: "user:1".to_owned(), request_id: None }).await.unwrap();
    }
    let rows_before = table_rows(&database.url, "change_log").await;
    for statement in [
        "UPDATE change_log SET actor = 'x' WHERE revision = 2",
        "UPDATE change_log SET revision = 9 WHERE revision = 2",
        "UPDATE OR REPLACE change_log SET revision = 1 WHERE revision = 2",
        "DELETE FROM change_log WHERE revision = 2",
        "DELETE FROM change_log",
        "INSERT OR REPLACE INTO change_log SELECT revision, ord, randomblob(16), at, 'x', action, entity, entity_id, flag_name,
             user_id, before, after, reason, request_id FROM change_log WHERE revision = 2",
        "INSERT OR REPLACE INTO change_log SELECT 99, ord, id, at, 'x', action, entity, entity_id, flag_name,
             user_id, before, after, reason, request_id FROM change_log WHERE revision = 2",
        "DELETE FROM log_head; DELETE FROM change_log",
    ] {
        let statement = format!("BEGIN; {statement}; COMMIT");
        let error = try_execute_raw(&database.url, &statement).await.expect_err(&statement);
        assert!(error.contains("a row of change_log cannot be"), "{statement}: {error}");
        assert_eq!(table_rows(&database.url, "change_log").await, rows_before, "{statement}");
    }
    // The worker purges rows by raising the lowest revision in `log_head` before it deletes them.
    let purged = flags_store::change_log::purge(&store, Instant::from_micros(2), 2).await.unwrap();
    assert_eq!(purged, 2);
    assert_eq!(table_rows(&database.url, "change_log").await.len(), 1);
    try_execute_raw(&database.url, "DELETE FROM change_log WHERE revision = 3").await.unwrap_err();
}
