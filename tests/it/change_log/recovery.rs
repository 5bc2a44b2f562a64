//! Recovery from rows that the server cannot read or apply.

use flags_domain::Instant;
use flags_service::{change_feed, maintenance, replica::Replica};
use flags_tests::{
    app::{TestApp, override_path},
    database::{DatabaseKind, execute_raw, execute_raw_on_change_log},
    eventually, on_both_databases,
};
use serde_json::json;

on_both_databases! {
    incomplete_or_unreadable_change_log_triggers_a_reload,
    unreadable_override_does_not_affect_other_overrides,
}

async fn incomplete_or_unreadable_change_log_triggers_a_reload(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    app.create_boolean_flag("a").await;
    let url = &app.database.url;
    let wait_for_reload = async |number: i64| {
        eventually("the replica is reloaded", async || {
            (app.replica.revision().number == number && app.replica.snapshot(None).flag("b").is_some()).then_some(())
        })
        .await;
    };
    // Gap: the head is five revisions ahead of the rows.
    let number = app.replica.revision().number;
    let copy_flag = "INSERT INTO feature_flags SELECT 'b', flag_type, description, owner, tags, enabled, variants, default_serve, \
                off_variant, targeting_rules, salt, client_visible, archived_at, default_set_at, enabled_set_at, deleting, \
                search_text, tags_text, created_at, updated_at, revision FROM feature_flags WHERE name = 'a'";
    execute_raw(url, &format!("{copy_flag}; UPDATE log_head SET revision = revision + 5")).await;
    wait_for_reload(number + 5).await;
    // Unreadable row: its resource kind is unknown.
    let number = number + 6;
    let corrupt_row = format!("UPDATE change_log SET revision = {number}, entity = 'nonsense' WHERE revision = 1");
    execute_raw_on_change_log(url, &format!("{corrupt_row}; UPDATE log_head SET revision = {number}")).await;
    wait_for_reload(number).await;
    // The server continues normally.
    app.create_boolean_flag("c").await;
    assert_eq!(app.replica.revision().number, number + 1);
}

async fn unreadable_override_does_not_affect_other_overrides(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    app.set_clock_before_real_time();
    app.create_boolean_flag("a").await;
    let (ann_id, _) = app.create_user("ann").await;
    let (ben_id, _) = app.create_user("ben").await;
    let expiring = json!({"override_value": true, "expires_at": "2020-01-01T00:00:05Z"});
    for id in [&ann_id, &ben_id] {
        app.admin.put(&override_path(id, "a"), &expiring).await.expect(201);
    }
    // A number outside the range of a double, as another program might write it.
    let hex = ann_id.replace('-', "");
    let id_literal = if kind == DatabaseKind::Postgres { format!("'{hex}'") } else { format!("x'{hex}'") };
    let value = format!("UPDATE user_flag_overrides SET override_value = '1e999' WHERE user_id = {id_literal}");
    execute_raw(&app.database.url, &value).await;
    let reloaded = Replica::new(change_feed::load(app.core.store()).await.unwrap());
    let count = |id: &str| reloaded.snapshot(Some(id.parse().unwrap())).overrides().count();
    assert_eq!((count(&ann_id), count(&ben_id)), (0, 1));
    app.clock.set(Instant::parse("2020-01-01T00:00:06Z").unwrap());
    let report = maintenance::run_round(&app.core, Default::default()).await.unwrap();
    assert_eq!(report.overrides_expired, 1);
}
