//! Change-log rows whose position cannot be read do not hide other rows from the audit log.

use flags_tests::{
    app::TestApp,
    database::{DatabaseKind, execute_raw},
};

const AUDIT_LOG_PATH: &str = "/api/admin/audit-log";

/// Runs on SQLite only, because PostgreSQL accepts only integers as positions.
#[tokio::test(flavor = "multi_thread")]
async fn audit_log_lists_rows_that_follow_unreadable_positions() {
    let app = TestApp::start(DatabaseKind::Sqlite).await;
    for name in ["f1", "f2", "f3"] {
        app.create_boolean_flag(name).await;
    }
    let listed = async |query: &str| {
        let page = app.admin.get(&format!("{AUDIT_LOG_PATH}?{query}")).await.expect(200).json();
        let items = page["items"].as_array().unwrap().iter();
        items.filter_map(|entry| entry["flag_name"].as_str().map(ToOwned::to_owned)).collect::<Vec<_>>()
    };
    assert_eq!(listed("limit=2").await, ["f3", "f2"]);
    for position in ["'x', 0", "x'00', 0", "99.5, 0", "2, 'x'"] {
        let insert = format!(
            "INSERT INTO change_log SELECT {position}, randomblob(16), at, actor, action, entity, entity_id, flag_name,
                 user_id, before, after, reason, request_id FROM change_log WHERE flag_name = 'f1' AND action = 'created'
                 AND typeof(revision) = 'integer' AND typeof(ord) = 'integer'"
        );
        execute_raw(&app.database.url, &insert).await;
    }
    assert_eq!(listed("limit=1").await, ["f3"]);
    assert_eq!(listed("limit=2").await, ["f3", "f2"]);
    assert_eq!(listed("limit=100").await, ["f3", "f2", "f1"]);
    let exported = app.admin.get(&format!("{AUDIT_LOG_PATH}/export")).await.expect(200).text;
    for name in ["f1", "f2", "f3"] {
        assert!(exported.contains(&format!("\"{name}\"")), "{name} is missing: {exported}");
    }
}
