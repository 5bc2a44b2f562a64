//! API tokens over HTTP: shown once, void when revoked or expired, followed by others.

use flags_domain::Instant;
use reqwest::Method;
use serde_json::{Value, json};

use flags_tests::{app::TestApp, caller::Caller, database::Kind, on_both_databases};

on_both_databases! {
    a_token_is_shown_once_and_works,
    a_revoked_token_is_void_at_once_and_for_good,
    a_rotated_token_goes_on_for_a_while,
    tokens_are_listed_newest_first,
    the_last_use_is_written_down,
    bad_tokens_are_refused,
    a_token_rotated_again_gives_way_to_one_of_the_same_life,
    of_many_rotations_at_once_each_has_its_own_token,
}

const TOKENS: &str = "/api/admin/api-tokens";

async fn make(app: &TestApp, body: Value) -> (Value, Caller) {
    let made = app.admin.post(TOKENS, &body).await.expect(201).json();
    let caller = Caller::new(app.base(), made["token"].as_str());
    (made, caller)
}

fn at(made: &Value) -> String {
    format!("{TOKENS}/{}", made["id"].as_str().unwrap())
}

async fn a_token_is_shown_once_and_works(kind: Kind) {
    let app = TestApp::start(kind).await;
    let (ann, _) = app.user("ann").await;
    let body = json!({"name": "ci", "role": "viewer", "expires_at": "2030-01-02T00:00:00Z"});
    let answer = app.admin.post(TOKENS, &body).await.expect(201);
    let made = answer.json();
    assert_eq!(answer.header("location"), at(&made));
    assert!(!answer.header("flags-revision").is_empty() && !answer.header("etag").is_empty());
    assert_eq!(answer.header("cache-control"), "no-store");
    let secret = made["token"].as_str().unwrap();
    assert!(secret.starts_with("flg_") && secret.len() == 52);
    assert_eq!(made["last_four"], secret[48..]);
    let shown = app.admin.get(&at(&made)).await.expect(200);
    assert_eq!(shown.header("etag"), answer.header("etag"));
    let mut expected = made.clone();
    expected.as_object_mut().unwrap().remove("token");
    assert_eq!(shown.json(), expected);
    assert_eq!(
        (&expected["status"], &expected["role"], &expected["scope"]),
        (&json!("active"), &json!("viewer"), &Value::Null)
    );
    Caller::new(app.base(), Some(secret)).get("/api/admin/users").await.expect(200);
    let me = Caller::new(app.base(), Some(secret)).get("/api/auth/me").await.expect(200).json();
    assert_eq!(
        me,
        json!({"id": null, "email": null, "display_name": null, "role": "viewer", "scope": null,
        "credential": "api_token", "expires_at": "2030-01-02T00:00:00Z"})
    );
    let (_, evaluate) = make(&app, json!({"name": "app", "scope": "evaluate"})).await;
    assert_eq!(evaluate.get("/api/auth/me").await.expect(200).json()["scope"], "evaluate");
    let (_, as_ann) = make(&app, json!({"name": "ann", "role": "user", "user_id": ann})).await;
    assert_eq!(as_ann.get("/api/flags/me").await.expect(200).json()["user_id"], ann);
    // The secret is nowhere in the log, nor is a name.
    let mut conn = app.core.store().conn().await.unwrap();
    let (_, rows) = flags_store::change_log::read_on(&mut conn, 0, 1_000).await.unwrap();
    assert!(!format!("{rows:?}").contains(&secret[4..40]));
}

async fn a_revoked_token_is_void_at_once_and_for_good(kind: Kind) {
    let app = TestApp::start(kind).await;
    let (ann, _) = app.user("ann").await;
    let (made, caller) = make(&app, json!({"name": "t", "role": "user", "user_id": ann})).await;
    let mut events = caller.stream("/api/flags/stream", &[]).await;
    assert_eq!(events.next().await.event, "snapshot");
    let stale = [("if-match", "\"00000000000000000000000000000000:1\"")];
    app.admin.send(Method::DELETE, &at(&made), &stale, None).await.expect_problem(412, "precondition_failed");
    let gone = app.admin.delete(&at(&made)).await.expect(204);
    assert!(!gone.header("flags-revision").is_empty());
    caller.get("/api/flags/me").await.expect_problem(401, "unauthorized");
    assert_eq!(events.next().await.data["reason"], "revoked");
    app.admin.delete(&at(&made)).await.expect_problem(404, "token_not_found");
    app.admin.post(&format!("{}/rotate", at(&made)), &json!({})).await.expect_problem(404, "token_not_found");
    let shown = app.admin.get(&at(&made)).await.expect(200).json();
    assert_eq!((&shown["status"], &shown["revoked_at"]), (&json!("revoked"), &json!("2030-01-01T00:00:00Z")));
    // A server that loads everything anew does not know it either.
    let loaded = flags_service::replica::Replica::new(flags_service::feed::load(app.core.store()).await.unwrap());
    let hash = flags_service::credentials::secret::hash(made["token"].as_str().unwrap());
    assert!(loaded.read().token(&hash).is_none() && app.replica.read().token(&hash).is_none());
    let last = app.log().await.pop().unwrap();
    assert_eq!((last.1.as_str(), last.2.as_str()), ("revoked", "api_token"));
}

async fn a_rotated_token_goes_on_for_a_while(kind: Kind) {
    let app = TestApp::start(kind).await;
    let (old, old_caller) =
        make(&app, json!({"name": "ci", "role": "viewer", "expires_at": "2030-01-11T00:00:00Z"})).await;
    app.clock_to("01-05T00:00:00Z");
    let answer = app.admin.post(&format!("{}/rotate", at(&old)), &json!({"overlap_seconds": 60})).await.expect(201);
    let new = answer.json();
    assert_eq!(answer.header("location"), at(&new));
    assert_ne!(new["id"], old["id"]);
    assert_eq!((&new["name"], &new["role"]), (&old["name"], &old["role"]));
    assert_eq!(new["expires_at"], "2030-01-15T00:00:00Z", "as long a life as the old one had");
    let new_caller = Caller::new(app.base(), new["token"].as_str());
    for caller in [&old_caller, &new_caller] {
        caller.get("/api/admin/users").await.expect(200);
    }
    app.clock_to("01-05T00:01:00Z");
    old_caller.get("/api/admin/users").await.expect_problem(401, "unauthorized");
    new_caller.get("/api/admin/users").await.expect(200);
    assert_eq!(app.admin.get(&at(&old)).await.json()["status"], "expired");
    app.admin.post(&format!("{}/rotate", at(&old)), &json!({})).await.expect_problem(409, "token_expired");
    let rotate = format!("{}/rotate", at(&new));
    let next = app.admin.post(&rotate, &json!({"overlap_seconds": 0, "expires_at": "2031-01-01T00:00:00Z"})).await;
    assert_eq!(next.expect(201).json()["expires_at"], "2031-01-01T00:00:00Z");
    new_caller.get("/api/admin/users").await.expect_problem(401, "unauthorized");
    // Rotating never makes an old one live longer.
    let (short, caller) =
        make(&app, json!({"name": "s", "role": "viewer", "expires_at": "2030-01-05T00:02:00Z"})).await;
    app.admin.post(&format!("{}/rotate", at(&short)), &json!({})).await.expect(201);
    app.clock_to("01-05T00:02:00Z");
    caller.get("/api/admin/users").await.expect_problem(401, "unauthorized");
    let (forever, _) = make(&app, json!({"name": "f", "scope": "evaluate"})).await;
    let next = app.admin.post(&format!("{}/rotate", at(&forever)), &json!({})).await.expect(201).json();
    assert_eq!((&next["expires_at"], &next["scope"]), (&Value::Null, &json!("evaluate")));
}

async fn tokens_are_listed_newest_first(kind: Kind) {
    let app = TestApp::start(kind).await;
    let (ann, _) = app.user("ann").await;
    for (day, name) in [(2, "a"), (3, "b"), (4, "c")] {
        app.clock_to(&format!("01-0{day}T00:00:00Z"));
        make(
            &app,
            json!({"name": name, "role": "user", "user_id": ann, "expires_at": format!("2030-02-0{day}T00:00:00Z")}),
        )
        .await;
    }
    let names = async |query: &str| {
        let page = app.admin.get(&format!("{TOKENS}?{query}")).await.expect(200).json();
        let names = page["items"].as_array().unwrap().iter().map(|token| token["name"].as_str().unwrap().to_owned());
        (names.collect::<Vec<_>>().join(" "), page["next_cursor"].as_str().map(ToOwned::to_owned))
    };
    let of_ann = format!("user_id={ann}");
    // `test` is how she was given a caller.
    assert_eq!(names(&of_ann).await.0, "c b a test");
    let (first, cursor) = names(&format!("{of_ann}&limit=2")).await;
    let (rest, end) = names(&format!("{of_ann}&limit=2&cursor={}", cursor.unwrap())).await;
    assert_eq!((first.as_str(), rest.as_str(), end), ("c b", "a test", None));
    app.clock_to("02-02T00:00:00Z");
    assert_eq!(names(&format!("{of_ann}&active_only=true")).await.0, "c b test");
    let all = app.admin.get(TOKENS).await.json();
    assert_eq!(all["total"], 5);
    assert!(!all.to_string().contains("flg_"), "no secrets");
    app.admin.get(&format!("{TOKENS}?nope=1")).await.expect_violation("/nope", "unknown_parameter");
    app.admin.get(&format!("{TOKENS}/rubbish")).await.expect_problem(404, "token_not_found");
}

async fn the_last_use_is_written_down(kind: Kind) {
    let app = TestApp::start(kind).await;
    let (made, caller) = make(&app, json!({"name": "t", "role": "viewer"})).await;
    let used = async || {
        flags_service::credentials::tokens::note_uses(&app.core, &app.replica).await.unwrap();
        app.admin.get(&at(&made)).await.json()["last_used_at"].clone()
    };
    let before = app.log().await.len();
    assert_eq!(used().await, Value::Null);
    app.clock_to("01-01T00:00:07Z");
    caller.get("/api/admin/users").await.expect(200);
    assert_eq!(used().await, "2030-01-01T00:00:07Z");
    app.clock.set(Instant::parse("2030-01-01T00:00:03Z").unwrap());
    caller.get("/api/admin/users").await.expect(200);
    assert_eq!(used().await, "2030-01-01T00:00:07Z", "a clock that went back changes nothing");
    assert_eq!(app.log().await.len(), before, "no change of state");
}

async fn bad_tokens_are_refused(kind: Kind) {
    let app = TestApp::start(kind).await;
    let nowhere = "00000000-0000-0000-0000-000000000001";
    for (body, pointer, code) in [
        (json!({"name": "t"}), "/role", "required"),
        (json!({"name": "t", "role": "viewer", "scope": "evaluate"}), "/scope", "not_allowed"),
        (json!({"name": "t", "role": "user"}), "/user_id", "required"),
        (json!({"name": "t", "scope": "evaluate", "user_id": nowhere}), "/user_id", "not_allowed"),
        (json!({"name": "t", "role": "root"}), "/role", "invalid_type"),
        (json!({"name": "t", "scope": "all"}), "/scope", "invalid_type"),
        (json!({"name": "", "role": "viewer"}), "/name", "empty"),
        (json!({"name": "a\0b", "role": "viewer"}), "/name", "nul_character"),
        (json!({"name": "t", "role": "viewer", "expires_at": "2030-01-01T00:00:00Z"}), "/expires_at", "not_in_future"),
        (json!({"name": "t", "role": "viewer", "expires_at": "tomorrow"}), "/expires_at", "invalid_type"),
        (json!({"name": "t", "role": "viewer", "id": nowhere}), "/id", "unknown_field"),
        (json!({"name": "t", "role": "viewer", "created_by": "me"}), "/created_by", "unknown_field"),
        (json!({"name": "t", "role": "viewer", "token": "flg_mine"}), "/token", "unknown_field"),
        (json!({"name": "t", "role": "viewer", "revision": 1}), "/revision", "unknown_field"),
    ] {
        let body_text = body.to_string();
        let answer = app.admin.post(TOKENS, &body).await;
        assert_eq!(answer.status, 422, "{body_text}: {}", answer.text);
        let found = answer.json()["errors"][0].clone();
        assert_eq!((&found["pointer"], &found["code"]), (&json!(pointer), &json!(code)), "{body_text}");
    }
    let of_nobody = json!({"name": "t", "role": "viewer", "user_id": nowhere});
    app.admin.post(TOKENS, &of_nobody).await.expect_problem(404, "user_not_found");
    let (made, _) = make(&app, json!({"name": "t", "role": "viewer"})).await;
    let rotate = format!("{}/rotate", at(&made));
    app.admin
        .post(&rotate, &json!({"overlap_seconds": 604_801}))
        .await
        .expect_violation("/overlap_seconds", "out_of_range");
    app.admin.post(&rotate, &json!({"overlap_seconds": -1})).await.expect_violation("/overlap_seconds", "invalid_type");
    let past = json!({"expires_at": "2029-01-01T00:00:00Z"});
    app.admin.post(&rotate, &past).await.expect_violation("/expires_at", "not_in_future");
}

async fn a_token_rotated_again_gives_way_to_one_of_the_same_life(kind: Kind) {
    let app = TestApp::start(kind).await;
    for (end, after) in [(None, None), (Some("2030-01-31T00:00:00Z"), Some("2030-02-01T00:00:00Z"))] {
        app.clock_to("01-01T00:00:00Z");
        let (made, _) = make(&app, json!({"name": "t", "role": "viewer", "expires_at": end})).await;
        app.clock_to("01-02T00:00:00Z");
        let rotate = format!("{}/rotate", at(&made));
        // As somebody does to whom the first answer was lost.
        for _ in 0..2 {
            let new = app.admin.post(&rotate, &json!({"overlap_seconds": 60})).await.expect(201).json();
            assert_eq!(new["expires_at"], json!(after));
        }
        let old = app.admin.get(&at(&made)).await.expect(200).json();
        assert_eq!(old["expires_at"], "2030-01-02T00:01:00Z");
    }
}

async fn of_many_rotations_at_once_each_has_its_own_token(kind: Kind) {
    let app = TestApp::start(kind).await;
    let (made, _) = make(&app, json!({"name": "t", "role": "viewer"})).await;
    let rotate = format!("{}/rotate", at(&made));
    let tasks: Vec<_> = (0..10)
        .map(|_| {
            let (admin, rotate) = (app.admin.clone(), rotate.clone());
            tokio::spawn(async move { admin.post(&rotate, &json!({})).await })
        })
        .collect();
    for task in tasks {
        let new = task.await.unwrap().expect(201).json();
        Caller::new(app.base(), new["token"].as_str()).get("/api/admin/users").await.expect(200);
    }
}
