//! Resuming event streams: after a disconnect, on a restarted server and in a new epoch.

use flags_domain::Instant;
use flags_tests::{
    app::{TestApp, override_path},
    database::DatabaseKind,
    on_both_databases,
};
use serde_json::json;

use super::{ADMIN_STREAM, OWN_FLAGS_STREAM, changed_flags, expect_change_of, fast_heartbeats, moved_position};

on_both_databases! {
    stream_resumes_from_a_usable_position_and_otherwise_starts_with_a_snapshot,
    expiry_during_a_disconnect_is_sent_on_resume,
    stream_loses_no_change_if_it_disconnects_between_expiry_and_removal,
    new_epoch_sends_new_snapshots,
    streams_resume_on_a_restarted_server,
    flag_shown_and_hidden_again_during_a_disconnect_is_not_mentioned,
}

async fn stream_resumes_from_a_usable_position_and_otherwise_starts_with_a_snapshot(kind: DatabaseKind) {
    let app = TestApp::start_with_stream_limits(kind, fast_heartbeats()).await;
    app.create_boolean_flag("a").await;
    let (ann_id, ann) = app.create_user("ann").await;
    let first_snapshot = ann.open_stream(OWN_FLAGS_STREAM, &[]).await.expect("snapshot").await;
    for value in [true, false, true] {
        assert!(
            app.admin.put(&override_path(&ann_id, "a"), &json!({"override_value": value})).await.status.is_success()
        );
    }
    let current = ann.open_stream(OWN_FLAGS_STREAM, &[]).await.expect("snapshot").await.id.unwrap();
    let other_epoch = format!("{}:1:1", "0".repeat(32));
    let oversized = "9".repeat(15_000);
    let positions_without_resume = [
        ("none", None),
        ("empty", Some(String::new())),
        ("zero", Some("0".to_owned())),
        ("before the first revision", Some(moved_position(&current, -1_000, 0))),
        ("after the latest revision", Some(moved_position(&current, 1, 0))),
        ("an hour ahead", Some(moved_position(&current, 0, 3_600_000_000))),
        ("other epoch", Some(other_epoch)),
        ("malformed", Some("a:b:c:d".to_owned())),
        ("largest numbers", Some(format!("{}:{}:{}", &current[..32], i64::MAX, i64::MAX))),
        ("negative revision", Some(format!("{}:-1:0", &current[..32]))),
        ("NUL", Some("%00".to_owned())),
        ("very long", Some(oversized)),
    ];
    for (case, position) in positions_without_resume {
        let path =
            position.map_or(OWN_FLAGS_STREAM.to_owned(), |position| format!("{OWN_FLAGS_STREAM}?cursor={position}"));
        let first = ann.open_stream(&path, &[]).await.next().await;
        assert_eq!((&*first.event, &first.data["flags"]["a"]["value"]), ("snapshot", &json!(true)), "{case}");
    }
    // Within the recent changes buffer, the first event contains the current values of all changed flags.
    for position in
        [first_snapshot.id.clone().unwrap(), moved_position(&current, -2, 0), moved_position(&current, -1, 0)]
    {
        for (path, headers) in [
            (format!("{OWN_FLAGS_STREAM}?cursor={position}"), vec![]),
            (OWN_FLAGS_STREAM.to_owned(), vec![("Last-Event-ID", &*position)]),
            (format!("{OWN_FLAGS_STREAM}?cursor=malformed"), vec![("Last-Event-ID", &*position)]),
        ] {
            let first = ann.open_stream(&path, &headers).await.next().await;
            assert_eq!((&*first.event, changed_flags(&first)), ("change", vec!["a"]), "{position}");
            assert_eq!(first.data["set"]["a"]["value"], true);
        }
    }
    // At the latest revision, the first event is a heartbeat.
    let first = ann.open_stream(&format!("{OWN_FLAGS_STREAM}?cursor={current}"), &[]).await.next().await;
    assert_eq!(first.event, "heartbeat");
    // Even if another server's clock was ahead, the instant in the stream position does not move back.
    let ahead = moved_position(&current, 0, 2_000_000);
    let first = ann.open_stream(&format!("{OWN_FLAGS_STREAM}?cursor={ahead}"), &[]).await.next().await;
    assert_eq!((&*first.event, first.id.unwrap()), ("heartbeat", ahead));
}

async fn expiry_during_a_disconnect_is_sent_on_resume(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    app.create_boolean_flag("a").await;
    app.create_boolean_flag("b").await;
    let (ann_id, ann) = app.create_user("ann").await;
    let (other_id, _) = app.create_user("other").await;
    let expiring = json!({"override_value": true, "expires_at": "2030-01-01T00:00:05Z"});
    app.admin.put(&override_path(&ann_id, "a"), &expiring).await.expect(201);
    app.admin.put(&override_path(&other_id, "b"), &expiring).await.expect(201);
    let snapshot = ann.open_stream(OWN_FLAGS_STREAM, &[]).await.expect("snapshot").await;
    assert_eq!(snapshot.data["flags"]["a"]["value"], true);
    app.set_clock("01-01T00:00:06Z");
    let first =
        ann.open_stream(OWN_FLAGS_STREAM, &[("Last-Event-ID", snapshot.id.as_deref().unwrap())]).await.next().await;
    assert_eq!((&*first.event, changed_flags(&first)), ("change", vec!["a"]));
    assert_eq!((&first.data["set"]["a"]["value"], first.revision()), (&json!(false), snapshot.revision()));
}

async fn stream_loses_no_change_if_it_disconnects_between_expiry_and_removal(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    app.set_clock_before_real_time();
    app.create_boolean_flag("a").await;
    let (ann_id, ann) = app.create_user("ann").await;
    let expiring = json!({"override_value": true, "expires_at": "2020-01-01T00:00:05Z"});
    app.admin.put(&override_path(&ann_id, "a"), &expiring).await.expect(201);
    let before_expiry = ann.open_stream(OWN_FLAGS_STREAM, &[]).await.expect("snapshot").await;
    app.clock.set(Instant::parse("2020-01-01T00:00:06Z").unwrap());
    let after_expiry = ann.open_stream(OWN_FLAGS_STREAM, &[]).await.expect("snapshot").await;
    let round = flags_service::maintenance::run_round(&app.core, Default::default()).await.unwrap();
    assert_eq!(round.overrides_expired, 1);
    let first = ann
        .open_stream(OWN_FLAGS_STREAM, &[("Last-Event-ID", before_expiry.id.as_deref().unwrap())])
        .await
        .next()
        .await;
    assert_eq!((&*first.event, &first.data["set"]["a"]["value"]), ("change", &json!(false)));
    // A client that has received the expiry receives no event for the removal; the next change is that of `marker`.
    let mut events = ann.open_stream(OWN_FLAGS_STREAM, &[("Last-Event-ID", after_expiry.id.as_deref().unwrap())]).await;
    app.create_boolean_flag("marker").await;
    expect_change_of(&mut events, "marker").await;
}

async fn new_epoch_sends_new_snapshots(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    app.create_boolean_flag("a").await;
    let (_, ann) = app.create_user("ann").await;
    let (mut own, mut admin) =
        (ann.open_stream(OWN_FLAGS_STREAM, &[]).await, app.admin.open_stream(ADMIN_STREAM, &[]).await);
    let before = own.expect("snapshot").await;
    admin.expect("snapshot").await;
    let epoch = app.core.store().start_new_epoch().await.unwrap().epoch.simple().to_string();
    for events in [&mut own, &mut admin] {
        let snapshot = events.expect("snapshot").await;
        assert!(snapshot.data["revision"].as_str().unwrap().starts_with(&epoch));
    }
    let mut resumed = ann.open_stream(OWN_FLAGS_STREAM, &[("Last-Event-ID", before.id.as_deref().unwrap())]).await;
    assert_eq!(resumed.next().await.event, "snapshot");
}

async fn streams_resume_on_a_restarted_server(kind: DatabaseKind) {
    use flags_tests::{
        database::Database,
        process::{RunningProcess, create_admin_token, create_user_with_token},
    };
    let database = Database::migrated(kind).await;
    let token = create_admin_token(&database.url);
    let (ann_id, ann_token) = create_user_with_token(&database.url, "ann@example.com");
    let server = RunningProcess::server(&database.url);
    let admin = server.caller(&token);
    admin.post("/api/admin/feature-flags", &json!({"name": "a", "flag_type": "boolean"})).await.expect(201);
    let hidden = json!({"name": "hidden", "flag_type": "boolean", "client_visible": false});
    admin.post("/api/admin/feature-flags", &hidden).await.expect(201);
    let snapshot = server.caller(&ann_token).open_stream(OWN_FLAGS_STREAM, &[]).await.expect("snapshot").await;
    let position = snapshot.id.clone().unwrap();
    admin.put(&override_path(&ann_id, "a"), &json!({"override_value": true})).await.expect(201);
    assert_eq!(server.stop().code(), Some(0));
    let server = RunningProcess::server(&database.url);
    let first =
        server.caller(&ann_token).open_stream(OWN_FLAGS_STREAM, &[("Last-Event-ID", &position)]).await.next().await;
    assert_eq!((&*first.event, changed_flags(&first)), ("change", vec!["a"]));
    // The restarted server must not mistake the creation of the scheduled change for the creation of flag `a`. The
    // client knows the flag, so hiding the flag must still unset it.
    let second_position =
        server.caller(&ann_token).open_stream(OWN_FLAGS_STREAM, &[]).await.expect("snapshot").await.id.unwrap();
    let body = json!({"scheduled_at": "2090-01-01T00:00:00Z", "enabled": false});
    let admin = server.caller(&token);
    admin.post("/api/admin/feature-flags/a/scheduled-changes", &body).await.expect(201);
    assert_eq!(server.stop().code(), Some(0));
    let server = RunningProcess::server(&database.url);
    let admin = server.caller(&token);
    admin.patch("/api/admin/feature-flags/a", &json!({"client_visible": false})).await.expect(200);
    let first = server
        .caller(&ann_token)
        .open_stream(OWN_FLAGS_STREAM, &[("Last-Event-ID", &second_position)])
        .await
        .next()
        .await;
    assert_eq!((&*first.event, &first.data["unset"]), ("change", &json!(["a"])));
    // After the restart the server does not know whether the hidden flag was visible before the change. It sends a
    // snapshot instead of an event that would name the flag.
    let admin = server.caller(&token);
    admin.patch("/api/admin/feature-flags/hidden", &json!({"enabled": false})).await.expect(200);
    assert_eq!(server.stop().code(), Some(0));
    let server = RunningProcess::server(&database.url);
    let first =
        server.caller(&ann_token).open_stream(OWN_FLAGS_STREAM, &[("Last-Event-ID", &position)]).await.next().await;
    assert_eq!(first.event, "snapshot");
    assert!(!first.data.to_string().contains("hidden"));
}

async fn flag_shown_and_hidden_again_during_a_disconnect_is_not_mentioned(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    app.create_boolean_flag("marker").await;
    app.create_flag(json!({"name": "secret", "flag_type": "boolean", "client_visible": false})).await;
    let (ann_id, ann) = app.create_user("ann").await;
    let snapshot = ann.open_stream(OWN_FLAGS_STREAM, &[]).await.expect("snapshot").await;
    for visible in [true, false] {
        let body = json!({"client_visible": visible});
        app.admin.patch("/api/admin/feature-flags/secret", &body).await.expect(200);
    }
    app.admin.put(&override_path(&ann_id, "marker"), &json!({"override_value": true})).await.expect(201);
    let first =
        ann.open_stream(OWN_FLAGS_STREAM, &[("Last-Event-ID", snapshot.id.as_deref().unwrap())]).await.next().await;
    assert_eq!((changed_flags(&first), &first.data["unset"]), (vec!["marker"], &json!([])));
}
