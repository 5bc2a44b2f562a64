//! Many at once: one override, no lost update, dense revisions.

use std::sync::Arc;

use reqwest::Method;
use serde_json::{Value, json};

use flags_tests::{
    app::{TestApp, override_at, overrides_of},
    database::Kind,
    on_both_databases,
};

on_both_databases! {
    of_a_hundred_concurrent_creations_one_succeeds,
    of_a_hundred_concurrent_creations_over_an_expired_one_one_succeeds,
    of_fifty_concurrent_patches_with_one_tag_one_succeeds,
    concurrent_patches_of_different_fields_both_stay,
    no_override_is_born_under_a_flag_or_user_that_goes,
    two_admins_cannot_demote_each_other,
    revisions_are_dense_under_concurrent_writers,
}

/// Sends `count` requests at once and counts the answers by status.
async fn storm(count: usize, send: impl AsyncFn(usize) -> u16) -> Vec<(u16, usize)> {
    let statuses = futures_util::future::join_all((0..count).map(|number| send(number))).await;
    let mut counted: Vec<(u16, usize)> = Vec::new();
    for status in statuses {
        match counted.iter_mut().find(|(known, _)| *known == status) {
            Some((_, count)) => *count += 1,
            None => counted.push((status, 1)),
        }
    }
    counted.sort_unstable();
    counted
}

async fn of_a_hundred_concurrent_creations_one_succeeds(kind: Kind) {
    let app = TestApp::start(kind).await;
    let (ann, _) = app.user("ann").await;
    app.boolean_flag("f").await;
    let before = app.log().await.len();
    let body = json!({"flag_name": "f", "override_value": true});
    let path = overrides_of(&ann);
    let answers = storm(100, async |_| app.admin.post(&path, &body).await.status.as_u16()).await;
    assert_eq!(answers, [(201, 1), (409, 99)]);
    assert_eq!(app.admin.get(&path).await.json()["total"], 1);
    assert_eq!(app.log().await.len(), before + 1, "one log entry");
}

async fn of_a_hundred_concurrent_creations_over_an_expired_one_one_succeeds(kind: Kind) {
    let app = TestApp::start(kind).await;
    let (ann, _) = app.user("ann").await;
    app.boolean_flag("f").await;
    let expiring = json!({"flag_name": "f", "override_value": true, "expires_at": "2030-01-01T00:00:01Z"});
    app.admin.post(&overrides_of(&ann), &expiring).await.expect(201);
    app.clock_to("01-01T00:00:01Z");
    let before = app.log().await.len();
    let body = json!({"flag_name": "f", "override_value": true});
    let path = overrides_of(&ann);
    let answers = storm(100, async |_| app.admin.post(&path, &body).await.status.as_u16()).await;
    assert_eq!(answers, [(201, 1), (409, 99)]);
    assert_eq!(app.log().await.len(), before + 2, "expired and created");
}

async fn of_fifty_concurrent_patches_with_one_tag_one_succeeds(kind: Kind) {
    let app = TestApp::start(kind).await;
    let (ann, _) = app.user("ann").await;
    app.boolean_flag("f").await;
    let path = override_at(&ann, "f");
    let tag = app.admin.put(&path, &json!({"override_value": true})).await.expect(201).header("etag").to_owned();
    let answers = storm(50, async |number| {
        let body = json!({"reason": format!("writer {number}")});
        app.admin.json(Method::PATCH, &path, &[("if-match", &tag)], &body).await.status.as_u16()
    });
    assert_eq!(answers.await, [(200, 1), (412, 49)]);
}

async fn concurrent_patches_of_different_fields_both_stay(kind: Kind) {
    let app = TestApp::start(kind).await;
    let (ann, _) = app.user("ann").await;
    app.boolean_flag("f").await;
    let path = override_at(&ann, "f");
    app.admin.put(&path, &json!({"override_value": true})).await.expect(201);
    for round in 0..20 {
        let reason = json!({"reason": format!("round {round}")});
        let end = json!({"expires_at": format!("2030-02-01T00:00:{round:02}Z")});
        let (one, two) = tokio::join!(app.admin.patch(&path, &reason), app.admin.patch(&path, &end));
        one.expect(200);
        two.expect(200);
        let now = app.admin.get(&path).await.expect(200).json();
        assert_eq!((&now["reason"], &now["expires_at"]), (&reason["reason"], &end["expires_at"]));
    }
    // The same for two fields of a flag.
    let flag = "/api/admin/feature-flags/f";
    for round in 0..20 {
        let owner = json!({"owner": format!("owner {round}")});
        let tags = json!({"tags": [format!("tag {round}")]});
        let (one, two) = tokio::join!(app.admin.patch(flag, &owner), app.admin.patch(flag, &tags));
        one.expect(200);
        two.expect(200);
        let now = app.admin.get(flag).await.expect(200).json();
        assert_eq!((&now["owner"], &now["tags"]), (&owner["owner"], &tags["tags"]));
    }
}

async fn no_override_is_born_under_a_flag_or_user_that_goes(kind: Kind) {
    let app = TestApp::start(kind).await;
    for round in 0..10 {
        let (user, _) = app.user(&format!("user{round}")).await;
        let flag = format!("f{round}");
        app.boolean_flag(&flag).await;
        let user_path = format!("/api/admin/users/{user}");
        let archive = format!("/api/admin/feature-flags/{flag}/archive");
        let path = override_at(&user, &flag);
        let body = json!({"override_value": true});
        let create = async {
            let made = app.admin.put(&path, &body).await;
            assert!([201, 404].contains(&made.status.as_u16()), "{}", made.text);
        };
        if round % 2 == 0 {
            let (_, gone) = tokio::join!(create, app.admin.delete(&user_path));
            gone.expect(204);
            assert_eq!(
                app.admin.get(&format!("/api/admin/feature-flags/{flag}/user-overrides")).await.json()["total"],
                0
            );
        } else {
            let (_, _) = tokio::join!(create, app.admin.post(&archive, &Value::Null));
            app.admin.post(&archive, &Value::Null).await.expect(200);
            app.admin.delete(&format!("/api/admin/feature-flags/{flag}")).await.expect(204);
            assert_eq!(app.admin.get(&overrides_of(&user)).await.json()["total"], 0);
        }
    }
}

async fn two_admins_cannot_demote_each_other(kind: Kind) {
    let app = TestApp::start(kind).await;
    let ((one, _), (two, _)) =
        (app.user_with("one", "admin", json!({})).await, app.user_with("two", "admin", json!({})).await);
    let demote = json!({"role": "viewer"});
    let (first, second) = (format!("/api/admin/users/{one}"), format!("/api/admin/users/{two}"));
    let (a, b) = tokio::join!(app.admin.patch(&first, &demote), app.admin.patch(&second, &demote));
    let mut statuses = [a.status.as_u16(), b.status.as_u16()];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 409]);
    let left = if a.status.as_u16() == 409 { &first } else { &second };
    app.admin.patch(left, &json!({"active": false})).await.expect_problem(409, "last_admin");
    app.admin.delete(left).await.expect_problem(409, "last_admin");
}

async fn revisions_are_dense_under_concurrent_writers(kind: Kind) {
    let app = Arc::new(TestApp::start(kind).await);
    let mut users = Vec::new();
    for number in 0..8 {
        users.push(app.user(&format!("user{number}")).await.0);
    }
    for number in 0..4 {
        app.boolean_flag(&format!("f{number}")).await;
    }
    let answers = storm(200, async |number| {
        let path = override_at(&users[number % 8], &format!("f{}", number % 4));
        let body = json!({"override_value": number % 3 == 0, "reason": number.to_string()});
        if number % 5 == 4 { app.admin.delete(&path).await } else { app.admin.put(&path, &body).await }.status.as_u16()
    });
    let answers = answers.await;
    assert!(answers.iter().all(|(status, _)| [200, 201, 204, 404].contains(status)), "{answers:?}");
    let revisions: Vec<_> = app.log().await.into_iter().map(|(revision, ..)| revision).collect();
    let mut seen = revisions.clone();
    seen.dedup();
    assert_eq!(seen, (1..=seen.len() as i64).collect::<Vec<_>>());
    // What is served is what is stored.
    for user in &users {
        let stored = app.admin.get(&overrides_of(user)).await.expect(200).json();
        let id = user.parse().unwrap();
        let served: Vec<_> = app.replica.read().overrides_of(id).map(|o| o.flag_name.to_string()).collect();
        let stored: Vec<_> =
            stored["items"].as_array().unwrap().iter().map(|o| o["flag_name"].as_str().unwrap().to_owned()).collect();
        assert_eq!(served, stored);
    }
}
