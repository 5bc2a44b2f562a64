//! Concurrent writes to overrides: unique creation, no lost updates, gapless revisions.

use std::sync::Arc;

use reqwest::Method;
use serde_json::{Value, json};

use flags_tests::{
    app::{TestApp, override_path, user_overrides_path},
    database::DatabaseKind,
    on_both_databases,
};

on_both_databases! {
    concurrent_creates_yield_one_201_and_409s,
    concurrent_creates_over_expired_override_yield_one_201_and_409s,
    concurrent_patches_with_same_etag_yield_one_200_and_412s,
    concurrent_patches_of_different_fields_are_both_kept,
    creation_racing_with_deletion_leaves_no_orphan_override,
    revisions_are_gapless_under_concurrent_writes,
}

/// Sends `count` requests concurrently. Returns the number of responses per status, sorted by status.
async fn send_concurrently(count: usize, send: impl AsyncFn(usize) -> u16) -> Vec<(u16, usize)> {
    let statuses = futures_util::future::join_all((0..count).map(|number| send(number))).await;
    let mut counts: Vec<(u16, usize)> = Vec::new();
    for status in statuses {
        match counts.iter_mut().find(|(known, _)| *known == status) {
            Some((_, count)) => *count += 1,
            None => counts.push((status, 1)),
        }
    }
    counts.sort_unstable();
    counts
}

async fn concurrent_creates_yield_one_201_and_409s(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    let (ann_id, _) = app.create_user("ann").await;
    app.create_boolean_flag("f").await;
    let before = app.change_log().await.len();
    let body = json!({"flag_name": "f", "override_value": true});
    let path = user_overrides_path(&ann_id);
    let status_counts = send_concurrently(100, async |_| app.admin.post(&path, &body).await.status.as_u16()).await;
    assert_eq!(status_counts, [(201, 1), (409, 99)]);
    assert_eq!(app.admin.get(&path).await.json()["total"], 1);
    assert_eq!(app.change_log().await.len(), before + 1, "one change-log entry");
}

async fn concurrent_creates_over_expired_override_yield_one_201_and_409s(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    let (ann_id, _) = app.create_user("ann").await;
    app.create_boolean_flag("f").await;
    let expiring = json!({"flag_name": "f", "override_value": true, "expires_at": "2030-01-01T00:00:01Z"});
    app.admin.post(&user_overrides_path(&ann_id), &expiring).await.expect(201);
    app.set_clock("01-01T00:00:01Z");
    let before = app.change_log().await.len();
    let body = json!({"flag_name": "f", "override_value": true});
    let path = user_overrides_path(&ann_id);
    let status_counts = send_concurrently(100, async |_| app.admin.post(&path, &body).await.status.as_u16()).await;
    assert_eq!(status_counts, [(201, 1), (409, 99)]);
    assert_eq!(app.change_log().await.len(), before + 2, "one `expired` entry and one `created` entry");
}

async fn concurrent_patches_with_same_etag_yield_one_200_and_412s(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    let (ann_id, _) = app.create_user("ann").await;
    app.create_boolean_flag("f").await;
    let path = override_path(&ann_id, "f");
    let tag = app.admin.put(&path, &json!({"override_value": true})).await.expect(201).header("etag").to_owned();
    let status_counts = send_concurrently(50, async |number| {
        let body = json!({"reason": format!("writer {number}")});
        app.admin.send_json(Method::PATCH, &path, &[("if-match", &tag)], &body).await.status.as_u16()
    });
    assert_eq!(status_counts.await, [(200, 1), (412, 49)]);
}

async fn concurrent_patches_of_different_fields_are_both_kept(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    let (ann_id, _) = app.create_user("ann").await;
    app.create_boolean_flag("f").await;
    let path = override_path(&ann_id, "f");
    app.admin.put(&path, &json!({"override_value": true})).await.expect(201);
    for round in 0..20 {
        let reason = json!({"reason": format!("round {round}")});
        let expiry = json!({"expires_at": format!("2030-02-01T00:00:{round:02}Z")});
        let (first, second) = tokio::join!(app.admin.patch(&path, &reason), app.admin.patch(&path, &expiry));
        first.expect(200);
        second.expect(200);
        let current = app.admin.get(&path).await.expect(200).json();
        assert_eq!((&current["reason"], &current["expires_at"]), (&reason["reason"], &expiry["expires_at"]));
    }
    // Two fields of a flag behave the same way.
    let flag = "/api/admin/feature-flags/f";
    for round in 0..20 {
        let owner = json!({"owner": format!("owner {round}")});
        let tags = json!({"tags": [format!("tag {round}")]});
        let (first, second) = tokio::join!(app.admin.patch(flag, &owner), app.admin.patch(flag, &tags));
        first.expect(200);
        second.expect(200);
        let current = app.admin.get(flag).await.expect(200).json();
        assert_eq!((&current["owner"], &current["tags"]), (&owner["owner"], &tags["tags"]));
    }
}

async fn creation_racing_with_deletion_leaves_no_orphan_override(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    for round in 0..10 {
        let (user_id, _) = app.create_user(&format!("user{round}")).await;
        let flag = format!("f{round}");
        app.create_boolean_flag(&flag).await;
        let user_path = format!("/api/admin/users/{user_id}");
        let archive = format!("/api/admin/feature-flags/{flag}/archive");
        let path = override_path(&user_id, &flag);
        let body = json!({"override_value": true});
        let create = async {
            let response = app.admin.put(&path, &body).await;
            assert!([201, 404].contains(&response.status.as_u16()), "{}", response.text);
        };
        if round % 2 == 0 {
            let (_, deleted) = tokio::join!(create, app.admin.delete(&user_path));
            deleted.expect(204);
            assert_eq!(
                app.admin.get(&format!("/api/admin/feature-flags/{flag}/user-overrides")).await.json()["total"],
                0
            );
        } else {
            let (_, _) = tokio::join!(create, app.admin.post(&archive, &Value::Null));
            app.admin.post(&archive, &Value::Null).await.expect(200);
            app.admin.delete(&format!("/api/admin/feature-flags/{flag}")).await.expect(204);
            assert_eq!(app.admin.get(&user_overrides_path(&user_id)).await.json()["total"], 0);
        }
    }
}

async fn revisions_are_gapless_under_concurrent_writes(kind: DatabaseKind) {
    let app = Arc::new(TestApp::start(kind).await);
    let mut user_ids = Vec::new();
    for number in 0..8 {
        user_ids.push(app.create_user(&format!("user{number}")).await.0);
    }
    for number in 0..4 {
        app.create_boolean_flag(&format!("f{number}")).await;
    }
    let status_counts = send_concurrently(200, async |number| {
        let path = override_path(&user_ids[number % 8], &format!("f{}", number % 4));
        let body = json!({"override_value": number % 3 == 0, "reason": number.to_string()});
        if number % 5 == 4 { app.admin.delete(&path).await } else { app.admin.put(&path, &body).await }.status.as_u16()
    });
    let status_counts = status_counts.await;
    assert!(status_counts.iter().all(|(status, _)| [200, 201, 204, 404].contains(status)), "{status_counts:?}");
    let revisions: Vec<_> = app.change_log().await.into_iter().map(|(revision, ..)| revision).collect();
    let mut distinct = revisions.clone();
    distinct.dedup();
    assert_eq!(distinct, (1..=distinct.len() as i64).collect::<Vec<_>>());
    // The replica holds the same overrides as the database.
    for user_id in &user_ids {
        let stored = app.admin.get(&user_overrides_path(user_id)).await.expect(200).json();
        let snapshot = app.replica.snapshot(Some(user_id.parse().unwrap()));
        let served: Vec<_> = snapshot.overrides().map(|o| o.flag_name.to_string()).collect();
        let stored: Vec<_> =
            stored["items"].as_array().unwrap().iter().map(|o| o["flag_name"].as_str().unwrap().to_owned()).collect();
        assert_eq!(served, stored);
    }
}
