//! API tokens: creation, listing, rotation, expiry and revocation.

use flags_domain::Instant;
use reqwest::Method;
use serde_json::{Value, json};

use flags_tests::{app::TestApp, caller::Caller, database::DatabaseKind, on_both_databases};

on_both_databases! {
    token_secret_is_returned_only_on_creation,
    token_revocation_is_immediate_and_permanent,
    rotated_token_stays_valid_during_the_overlap,
    lists_tokens_newest_first,
    last_use_of_a_token_is_recorded,
    rejects_invalid_token_requests,
    repeated_rotation_of_a_token_yields_tokens_with_the_same_lifetime,
    concurrent_token_rotations_each_yield_a_valid_token,
}

const TOKENS_PATH: &str = "/api/admin/api-tokens";

/// Creates a token; returns the response body and a caller that uses the token.
async fn create_token(app: &TestApp, body: Value) -> (Value, Caller) {
    let created = app.admin.post(TOKENS_PATH, &body).await.expect(201).json();
    let caller = Caller::new(app.base_url(), created["token"].as_str());
    (created, caller)
}

fn token_path(created: &Value) -> String {
    format!("{TOKENS_PATH}/{}", created["id"].as_str().unwrap())
}

async fn token_secret_is_returned_only_on_creation(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    let (ann_id, _) = app.create_user("ann").await;
    let body = json!({"name": "ci", "role": "viewer", "expires_at": "2030-01-02T00:00:00Z"});
    let response = app.admin.post(TOKENS_PATH, &body).await.expect(201);
    let created = response.json();
    assert_eq!(response.header("location"), token_path(&created));
    assert!(!response.header("flags-revision").is_empty() && !response.header("etag").is_empty());
    assert_eq!(response.header("cache-control"), "no-store");
    let secret = created["token"].as_str().unwrap();
    assert!(secret.starts_with("flg_") && secret.len() == 52);
    assert_eq!(created["last_four"], secret[48..]);
    let fetched = app.admin.get(&token_path(&created)).await.expect(200);
    assert_eq!(fetched.header("etag"), response.header("etag"));
    let mut expected = created.clone();
    expected.as_object_mut().unwrap().remove("token");
    assert_eq!(fetched.json(), expected);
    assert_eq!(
        (&expected["status"], &expected["role"], &expected["scope"]),
        (&json!("active"), &json!("viewer"), &Value::Null)
    );
    Caller::new(app.base_url(), Some(secret)).get("/api/admin/users").await.expect(200);
    let identity = Caller::new(app.base_url(), Some(secret)).get("/api/auth/me").await.expect(200).json();
    assert_eq!(
        identity,
        json!({"id": null, "user_label": null, "external_id": null, "email": null, "display_name": null,
        "role": "viewer", "scope": null,
        "credential": "api_token", "expires_at": "2030-01-02T00:00:00Z"})
    );
    let (_, evaluate) = create_token(&app, json!({"name": "app", "scope": "evaluate"})).await;
    assert_eq!(evaluate.get("/api/auth/me").await.expect(200).json()["scope"], "evaluate");
    let (_, as_ann) = create_token(&app, json!({"name": "ann", "role": "user", "user_id": ann_id})).await;
    assert_eq!(as_ann.get("/api/flags/me").await.expect(200).json()["user_id"], ann_id);
    // The change log does not contain the secret.
    let mut conn = app.core.store().conn().await.unwrap();
    let (_, rows) = flags_store::change_log::read_after(&mut conn, 0, 1_000).await.unwrap();
    assert!(!format!("{rows:?}").contains(&secret[4..40]));
}

async fn token_revocation_is_immediate_and_permanent(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    let (ann_id, _) = app.create_user("ann").await;
    let (created, caller) = create_token(&app, json!({"name": "t", "role": "user", "user_id": ann_id})).await;
    let mut events = caller.open_stream("/api/flags/stream", &[]).await;
    assert_eq!(events.next().await.event, "snapshot");
    let stale = [("if-match", "\"00000000000000000000000000000000:1\"")];
    app.admin
        .send(Method::DELETE, &token_path(&created), &stale, None)
        .await
        .expect_problem(412, "precondition_failed");
    let revoked = app.admin.delete(&token_path(&created)).await.expect(204);
    assert!(!revoked.header("flags-revision").is_empty());
    caller.get("/api/flags/me").await.expect_problem(401, "unauthorized");
    assert_eq!(events.next().await.data["reason"], "revoked");
    app.admin.delete(&token_path(&created)).await.expect_problem(404, "token_not_found");
    app.admin
        .post(&format!("{}/rotate", token_path(&created)), &json!({}))
        .await
        .expect_problem(404, "token_not_found");
    let fetched = app.admin.get(&token_path(&created)).await.expect(200).json();
    assert_eq!((&fetched["status"], &fetched["revoked_at"]), (&json!("revoked"), &json!("2030-01-01T00:00:00Z")));
    // A newly loaded replica does not contain the token either.
    let loaded =
        flags_service::replica::Replica::new(flags_service::change_feed::load(app.core.store()).await.unwrap());
    let hash = flags_service::credentials::secret::hash(created["token"].as_str().unwrap());
    assert!(loaded.read().token(&hash).is_none() && app.replica.read().token(&hash).is_none());
    let last = app.change_log().await.pop().unwrap();
    assert_eq!((last.1.as_str(), last.2.as_str()), ("revoked", "api_token"));
}

async fn rotated_token_stays_valid_during_the_overlap(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    let (old, old_caller) =
        create_token(&app, json!({"name": "ci", "role": "viewer", "expires_at": "2030-01-11T00:00:00Z"})).await;
    app.set_clock("01-05T00:00:00Z");
    let response =
        app.admin.post(&format!("{}/rotate", token_path(&old)), &json!({"overlap_seconds": 60})).await.expect(201);
    let new = response.json();
    assert_eq!(response.header("location"), token_path(&new));
    assert_ne!(new["id"], old["id"]);
    assert_eq!((&new["name"], &new["role"]), (&old["name"], &old["role"]));
    assert_eq!(new["expires_at"], "2030-01-15T00:00:00Z", "the new token has the lifetime of the old one");
    let new_caller = Caller::new(app.base_url(), new["token"].as_str());
    for caller in [&old_caller, &new_caller] {
        caller.get("/api/admin/users").await.expect(200);
    }
    app.set_clock("01-05T00:01:00Z");
    old_caller.get("/api/admin/users").await.expect_problem(401, "unauthorized");
    new_caller.get("/api/admin/users").await.expect(200);
    assert_eq!(app.admin.get(&token_path(&old)).await.json()["status"], "expired");
    app.admin.post(&format!("{}/rotate", token_path(&old)), &json!({})).await.expect_problem(409, "token_expired");
    let rotate = format!("{}/rotate", token_path(&new));
    let next = app.admin.post(&rotate, &json!({"overlap_seconds": 0, "expires_at": "2031-01-01T00:00:00Z"})).await;
    assert_eq!(next.expect(201).json()["expires_at"], "2031-01-01T00:00:00Z");
    new_caller.get("/api/admin/users").await.expect_problem(401, "unauthorized");
    // Rotation never extends the expiry of the old token.
    let (short, caller) =
        create_token(&app, json!({"name": "s", "role": "viewer", "expires_at": "2030-01-05T00:02:00Z"})).await;
    app.admin.post(&format!("{}/rotate", token_path(&short)), &json!({})).await.expect(201);
    app.set_clock("01-05T00:02:00Z");
    caller.get("/api/admin/users").await.expect_problem(401, "unauthorized");
    let (unlimited, _) = create_token(&app, json!({"name": "f", "scope": "evaluate"})).await;
    let next = app.admin.post(&format!("{}/rotate", token_path(&unlimited)), &json!({})).await.expect(201).json();
    assert_eq!((&next["expires_at"], &next["scope"]), (&Value::Null, &json!("evaluate")));
}

async fn lists_tokens_newest_first(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    let (ann_id, _) = app.create_user("ann").await;
    for (day, name) in [(2, "a"), (3, "b"), (4, "c")] {
        app.set_clock(&format!("01-0{day}T00:00:00Z"));
        create_token(
            &app,
            json!({"name": name, "role": "user", "user_id": ann_id, "expires_at": format!("2030-02-0{day}T00:00:00Z")}),
        )
        .await;
    }
    let names = async |query: &str| {
        let page = app.admin.get(&format!("{TOKENS_PATH}?{query}")).await.expect(200).json();
        let names = page["items"].as_array().unwrap().iter().map(|token| token["name"].as_str().unwrap().to_owned());
        (names.collect::<Vec<_>>().join(" "), page["next_cursor"].as_str().map(ToOwned::to_owned))
    };
    let ann_filter = format!("user_id={ann_id}");
    // `test` is the token that `TestApp::create_user` created for the user.
    assert_eq!(names(&ann_filter).await.0, "c b a test");
    let (first, cursor) = names(&format!("{ann_filter}&limit=2")).await;
    let (rest, end_cursor) = names(&format!("{ann_filter}&limit=2&cursor={}", cursor.unwrap())).await;
    assert_eq!((first.as_str(), rest.as_str(), end_cursor), ("c b", "a test", None));
    app.set_clock("02-02T00:00:00Z");
    assert_eq!(names(&format!("{ann_filter}&active_only=true")).await.0, "c b test");
    let all = app.admin.get(TOKENS_PATH).await.json();
    assert_eq!(all["total"], 5);
    assert!(!all.to_string().contains("flg_"), "the list contains no secrets");
    app.admin.get(&format!("{TOKENS_PATH}?nope=1")).await.expect_violation("/nope", "unknown_parameter");
    app.admin.get(&format!("{TOKENS_PATH}/malformed")).await.expect_problem(404, "token_not_found");
}

async fn last_use_of_a_token_is_recorded(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    let (created, caller) = create_token(&app, json!({"name": "t", "role": "viewer"})).await;
    let last_used_at = async || {
        flags_service::credentials::tokens::record_token_uses(&app.core, &app.replica).await.unwrap();
        app.admin.get(&token_path(&created)).await.json()["last_used_at"].clone()
    };
    let before = app.change_log().await.len();
    assert_eq!(last_used_at().await, Value::Null);
    app.set_clock("01-01T00:00:07Z");
    caller.get("/api/admin/users").await.expect(200);
    assert_eq!(last_used_at().await, "2030-01-01T00:00:07Z");
    app.clock.set(Instant::parse("2030-01-01T00:00:03Z").unwrap());
    caller.get("/api/admin/users").await.expect(200);
    assert_eq!(last_used_at().await, "2030-01-01T00:00:07Z", "the recorded instant never decreases");
    assert_eq!(app.change_log().await.len(), before, "recording the use adds no change log entry");
}

async fn rejects_invalid_token_requests(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    let unknown_id = "00000000-0000-0000-0000-000000000001";
    for (body, pointer, code) in [
        (json!({"name": "t"}), "/role", "required"),
        (json!({"name": "t", "role": "viewer", "scope": "evaluate"}), "/scope", "not_allowed"),
        (json!({"name": "t", "role": "user"}), "/user_id", "required"),
        (json!({"name": "t", "scope": "evaluate", "user_id": unknown_id}), "/user_id", "not_allowed"),
        (json!({"name": "t", "role": "root"}), "/role", "invalid_type"),
        (json!({"name": "t", "scope": "all"}), "/scope", "invalid_type"),
        (json!({"name": "", "role": "viewer"}), "/name", "empty"),
        (json!({"name": "a\0b", "role": "viewer"}), "/name", "nul_character"),
        (json!({"name": "t", "role": "viewer", "expires_at": "2030-01-01T00:00:00Z"}), "/expires_at", "not_in_future"),
        (json!({"name": "t", "role": "viewer", "expires_at": "tomorrow"}), "/expires_at", "invalid_type"),
        (json!({"name": "t", "role": "viewer", "id": unknown_id}), "/id", "unknown_field"),
        (json!({"name": "t", "role": "viewer", "created_by": "me"}), "/created_by", "unknown_field"),
        (json!({"name": "t", "role": "viewer", "token": "flg_mine"}), "/token", "unknown_field"),
        (json!({"name": "t", "role": "viewer", "revision": 1}), "/revision", "unknown_field"),
    ] {
        let body_text = body.to_string();
        let response = app.admin.post(TOKENS_PATH, &body).await;
        assert_eq!(response.status, 422, "{body_text}: {}", response.text);
        let violation = response.json()["errors"][0].clone();
        assert_eq!((&violation["pointer"], &violation["code"]), (&json!(pointer), &json!(code)), "{body_text}");
    }
    let for_unknown_user = json!({"name": "t", "role": "viewer", "user_id": unknown_id});
    app.admin.post(TOKENS_PATH, &for_unknown_user).await.expect_problem(404, "user_not_found");
    let (created, _) = create_token(&app, json!({"name": "t", "role": "viewer"})).await;
    let rotate = format!("{}/rotate", token_path(&created));
    app.admin
        .post(&rotate, &json!({"overlap_seconds": 604_801}))
        .await
        .expect_violation("/overlap_seconds", "out_of_range");
    app.admin.post(&rotate, &json!({"overlap_seconds": -1})).await.expect_violation("/overlap_seconds", "invalid_type");
    let past = json!({"expires_at": "2029-01-01T00:00:00Z"});
    app.admin.post(&rotate, &past).await.expect_violation("/expires_at", "not_in_future");
}

async fn repeated_rotation_of_a_token_yields_tokens_with_the_same_lifetime(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    for (expires_at, new_expires_at) in [(None, None), (Some("2030-01-31T00:00:00Z"), Some("2030-02-01T00:00:00Z"))] {
        app.set_clock("01-01T00:00:00Z");
        let (created, _) = create_token(&app, json!({"name": "t", "role": "viewer", "expires_at": expires_at})).await;
        app.set_clock("01-02T00:00:00Z");
        let rotate = format!("{}/rotate", token_path(&created));
        // A client rotates twice when the first response is lost.
        for _ in 0..2 {
            let new = app.admin.post(&rotate, &json!({"overlap_seconds": 60})).await.expect(201).json();
            assert_eq!(new["expires_at"], json!(new_expires_at));
        }
        let old = app.admin.get(&token_path(&created)).await.expect(200).json();
        assert_eq!(old["expires_at"], "2030-01-02T00:01:00Z");
    }
}

async fn concurrent_token_rotations_each_yield_a_valid_token(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    let (created, _) = create_token(&app, json!({"name": "t", "role": "viewer"})).await;
    let rotate = format!("{}/rotate", token_path(&created));
    let tasks: Vec<_> = (0..10)
        .map(|_| {
            let (admin, rotate) = (app.admin.clone(), rotate.clone());
            tokio::spawn(async move { admin.post(&rotate, &json!({})).await })
        })
        .collect();
    for task in tasks {
        let new = task.await.unwrap().expect(201).json();
        Caller::new(app.base_url(), new["token"].as_str()).get("/api/admin/users").await.expect(200);
    }
}
