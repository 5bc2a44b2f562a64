//! Streams that go on where they were: after a cut, on another server, in another epoch.

use flags_domain::Instant;
use flags_tests::{
    app::{TestApp, override_at},
    database::Kind,
    on_both_databases,
};
use serde_json::json;

use super::events::{ALL, MINE, lively, names, next_is_marker};

on_both_databases! {
    every_kind_of_cursor_gets_the_right_beginning,
    an_own_expiry_that_passed_while_away_is_told,
    a_cut_between_expiry_and_removal_loses_nothing,
    admins_resume_where_they_were,
    many_changes_reach_an_admin_in_portions,
    a_new_epoch_begins_every_stream_anew,
    a_server_that_restarts_can_still_resume,
    a_flag_that_came_and_went_meanwhile_is_not_named,
}

/// The position of a stream's first event, moved.
fn moved(id: &str, revisions: i64, micros: i64) -> String {
    let parts: Vec<_> = id.split(':').collect();
    let number: i64 = parts[1].parse().unwrap();
    let at: i64 = parts[2].parse().unwrap();
    format!("{}:{}:{}", parts[0], number + revisions, at + micros)
}

async fn every_kind_of_cursor_gets_the_right_beginning(kind: Kind) {
    let app = TestApp::start_limited(kind, false, lively()).await;
    app.boolean_flag("a").await;
    let (id, ann) = app.user("ann").await;
    let start = ann.stream(MINE, &[]).await.expect("snapshot").await;
    for value in [true, false, true] {
        assert!(app.admin.put(&override_at(&id, "a"), &json!({"override_value": value})).await.status.is_success());
    }
    let here = ann.stream(MINE, &[]).await.expect("snapshot").await.id.unwrap();
    let other_epoch = format!("{}:1:1", "0".repeat(32));
    let long = "9".repeat(15_000);
    let snapshots = [
        ("none", None),
        ("empty", Some(String::new())),
        ("0", Some("0".to_owned())),
        ("before everything", Some(moved(&here, -1_000, 0))),
        ("head + 1", Some(moved(&here, 1, 0))),
        ("an hour ahead", Some(moved(&here, 0, 3_600_000_000))),
        ("other epoch", Some(other_epoch)),
        ("rubbish", Some("a:b:c:d".to_owned())),
        ("huge numbers", Some(format!("{}:{}:{}", &here[..32], i64::MAX, i64::MAX))),
        ("negative", Some(format!("{}:-1:0", &here[..32]))),
        ("NUL", Some("%00".to_owned())),
        ("very long", Some(long)),
    ];
    for (what, cursor) in snapshots {
        let path = cursor.map_or(MINE.to_owned(), |cursor| format!("{MINE}?cursor={cursor}"));
        let first = ann.stream(&path, &[]).await.next().await;
        assert_eq!((&*first.event, &first.data["flags"]["a"]["value"]), ("snapshot", &json!(true)), "{what}");
    }
    // Between the first and the last revision held: what was touched since, as it is now.
    for cursor in [start.id.clone().unwrap(), moved(&here, -2, 0), moved(&here, -1, 0)] {
        for (path, headers) in [
            (format!("{MINE}?cursor={cursor}"), vec![]),
            (MINE.to_owned(), vec![("Last-Event-ID", &*cursor)]),
            (format!("{MINE}?cursor=rubbish"), vec![("Last-Event-ID", &*cursor)]),
        ] {
            let first = ann.stream(&path, &headers).await.next().await;
            assert_eq!((&*first.event, names(&first)), ("change", vec!["a"]), "{cursor}");
            assert_eq!(first.data["set"]["a"]["value"], true);
        }
    }
    // At the head: nothing to say; a heartbeat is the first event.
    let first = ann.stream(&format!("{MINE}?cursor={here}"), &[]).await.next().await;
    assert_eq!(first.event, "heartbeat");
    // From a server whose clock is a little ahead: time does not go back.
    let ahead = moved(&here, 0, 2_000_000);
    let first = ann.stream(&format!("{MINE}?cursor={ahead}"), &[]).await.next().await;
    assert_eq!((&*first.event, first.id.unwrap()), ("heartbeat", ahead));
}

async fn an_own_expiry_that_passed_while_away_is_told(kind: Kind) {
    let app = TestApp::start(kind).await;
    app.boolean_flag("a").await;
    app.boolean_flag("b").await;
    let (id, ann) = app.user("ann").await;
    let (other, _) = app.user("other").await;
    let ends = json!({"override_value": true, "expires_at": "2030-01-01T00:00:05Z"});
    app.admin.put(&override_at(&id, "a"), &ends).await.expect(201);
    app.admin.put(&override_at(&other, "b"), &ends).await.expect(201);
    let seen = ann.stream(MINE, &[]).await.expect("snapshot").await;
    assert_eq!(seen.data["flags"]["a"]["value"], true);
    app.clock_to("01-01T00:00:06Z");
    let first = ann.stream(MINE, &[("Last-Event-ID", seen.id.as_deref().unwrap())]).await.next().await;
    assert_eq!((&*first.event, names(&first)), ("change", vec!["a"]));
    assert_eq!((&first.data["set"]["a"]["value"], first.revision()), (&json!(false), seen.revision()));
}

async fn a_cut_between_expiry_and_removal_loses_nothing(kind: Kind) {
    let app = TestApp::start(kind).await;
    app.clock_to_the_past();
    app.boolean_flag("a").await;
    let (id, ann) = app.user("ann").await;
    let ends = json!({"override_value": true, "expires_at": "2020-01-01T00:00:05Z"});
    app.admin.put(&override_at(&id, "a"), &ends).await.expect(201);
    let before = ann.stream(MINE, &[]).await.expect("snapshot").await;
    app.clock.set(Instant::parse("2020-01-01T00:00:06Z").unwrap());
    let between = ann.stream(MINE, &[]).await.expect("snapshot").await;
    let round = flags_service::maintenance::run_round(&app.core, Default::default()).await.unwrap();
    assert_eq!(round.overrides_expired, 1);
    let first = ann.stream(MINE, &[("Last-Event-ID", before.id.as_deref().unwrap())]).await.next().await;
    assert_eq!((&*first.event, &first.data["set"]["a"]["value"]), ("change", &json!(false)));
    // Whoever saw it ended already is told nothing: the marker comes first.
    let mut events = ann.stream(MINE, &[("Last-Event-ID", between.id.as_deref().unwrap())]).await;
    app.boolean_flag("marker").await;
    next_is_marker(&mut events, "marker").await;
}

async fn admins_resume_where_they_were(kind: Kind) {
    let app = TestApp::start(kind).await;
    let mut events = app.admin.stream(ALL, &[]).await;
    let start = events.expect("snapshot").await;
    for name in ["a", "b", "c"] {
        app.boolean_flag(name).await;
    }
    let mut seen = Vec::new();
    let mut resumed = app.admin.stream(ALL, &[("Last-Event-ID", start.id.as_deref().unwrap())]).await;
    for _ in 0..3 {
        let change = resumed.expect("change").await;
        assert_eq!(change, events.expect("change").await);
        seen.push((change.revision() - start.revision(), change.data["changes"][0]["flag_name"].clone()));
    }
    assert_eq!(seen, [(1, json!("a")), (2, json!("b")), (3, json!("c"))]);
    for cursor in ["rubbish", &moved(start.id.as_deref().unwrap(), 4, 0), &moved(start.id.as_deref().unwrap(), -100, 0)]
    {
        let mut again = app.admin.stream(&format!("{ALL}?cursor={cursor}"), &[]).await;
        assert_eq!(again.next().await.event, "snapshot", "{cursor}");
    }
}

async fn many_changes_reach_an_admin_in_portions(kind: Kind) {
    let app = TestApp::start(kind).await;
    let start = app.admin.stream(ALL, &[]).await.expect("snapshot").await;
    for number in 0..3 {
        let mut tx = app.core.store().begin(Instant::from_micros(1)).await.unwrap();
        for user in 0..400 {
            flags_tests::seed::insert_user(&mut tx, &format!("u{number}-{user}@example.com")).await;
        }
        tx.commit(&flags_tests::app::author()).await.unwrap();
    }
    let mut resumed = app.admin.stream(ALL, &[("Last-Event-ID", start.id.as_deref().unwrap())]).await;
    for number in 1..=3 {
        let change = resumed.next().await;
        assert_eq!((&*change.event, change.revision()), ("change", start.revision() + number));
        assert_eq!(change.data["changes"].as_array().unwrap().len(), 400);
    }
}

async fn a_new_epoch_begins_every_stream_anew(kind: Kind) {
    let app = TestApp::start(kind).await;
    app.boolean_flag("a").await;
    let (_, ann) = app.user("ann").await;
    let (mut mine, mut all) = (ann.stream(MINE, &[]).await, app.admin.stream(ALL, &[]).await);
    let before = mine.expect("snapshot").await;
    all.expect("snapshot").await;
    let epoch = app.core.store().new_epoch().await.unwrap().epoch.simple().to_string();
    for events in [&mut mine, &mut all] {
        let snapshot = events.expect("snapshot").await;
        assert!(snapshot.data["revision"].as_str().unwrap().starts_with(&epoch));
    }
    let mut resumed = ann.stream(MINE, &[("Last-Event-ID", before.id.as_deref().unwrap())]).await;
    assert_eq!(resumed.next().await.event, "snapshot");
}

async fn a_server_that_restarts_can_still_resume(kind: Kind) {
    use flags_tests::{
        database::Database,
        process::{Running, admin_token, user_with_token},
    };
    let database = Database::migrated(kind).await;
    let token = admin_token(&database.url);
    let (id, ann_token) = user_with_token(&database.url, "ann@example.com");
    let server = Running::server(&database.url);
    let admin = server.caller(&token);
    admin.post("/api/admin/feature-flags", &json!({"name": "a", "flag_type": "boolean"})).await.expect(201);
    let hidden = json!({"name": "hidden", "flag_type": "boolean", "client_visible": false});
    admin.post("/api/admin/feature-flags", &hidden).await.expect(201);
    let seen = server.caller(&ann_token).stream(MINE, &[]).await.expect("snapshot").await;
    let cursor = seen.id.clone().unwrap();
    admin.put(&override_at(&id, "a"), &json!({"override_value": true})).await.expect(201);
    assert_eq!(server.stop().code(), Some(0));
    let server = Running::server(&database.url);
    let first = server.caller(&ann_token).stream(MINE, &[("Last-Event-ID", &cursor)]).await.next().await;
    assert_eq!((&*first.event, names(&first)), ("change", vec!["a"]));
    // A change planned for a flag says nothing of whether the flag is new: hidden after that, it is taken back.
    let seen = server.caller(&ann_token).stream(MINE, &[]).await.expect("snapshot").await.id.unwrap();
    let body = json!({"scheduled_at": "2090-01-01T00:00:00Z", "enabled": false});
    let admin = server.caller(&token);
    admin.post("/api/admin/feature-flags/a/scheduled-changes", &body).await.expect(201);
    assert_eq!(server.stop().code(), Some(0));
    let server = Running::server(&database.url);
    let admin = server.caller(&token);
    admin.patch("/api/admin/feature-flags/a", &json!({"client_visible": false})).await.expect(200);
    let first = server.caller(&ann_token).stream(MINE, &[("Last-Event-ID", &seen)]).await.next().await;
    assert_eq!((&*first.event, &first.data["unset"]), ("change", &json!(["a"])));
    // What a hidden flag was before cannot be told: everything anew rather than its name.
    let admin = server.caller(&token);
    admin.patch("/api/admin/feature-flags/hidden", &json!({"enabled": false})).await.expect(200);
    assert_eq!(server.stop().code(), Some(0));
    let server = Running::server(&database.url);
    let first = server.caller(&ann_token).stream(MINE, &[("Last-Event-ID", &cursor)]).await.next().await;
    assert_eq!(first.event, "snapshot");
    assert!(!first.data.to_string().contains("hidden"));
}

async fn a_flag_that_came_and_went_meanwhile_is_not_named(kind: Kind) {
    let app = TestApp::start(kind).await;
    app.boolean_flag("marker").await;
    app.flag(json!({"name": "secret", "flag_type": "boolean", "client_visible": false})).await;
    let (id, ann) = app.user("ann").await;
    let seen = ann.stream(MINE, &[]).await.expect("snapshot").await;
    for visible in [true, false] {
        let body = json!({"client_visible": visible});
        app.admin.patch("/api/admin/feature-flags/secret", &body).await.expect(200);
    }
    app.admin.put(&override_at(&id, "marker"), &json!({"override_value": true})).await.expect(201);
    let first = ann.stream(MINE, &[("Last-Event-ID", seen.id.as_deref().unwrap())]).await.next().await;
    assert_eq!((names(&first), &first.data["unset"]), (vec!["marker"], &json!([])));
}
