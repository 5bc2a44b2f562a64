//! Role support: reads everything, and changes overrides of users with role `user`.

use flags_service::credentials::jwt::JwtConfig;
use flags_store::{
    api_tokens::TokenGrant,
    users::{self, Role, UserRecord},
};
use flags_tests::{
    app::{TestApp, author, override_path, user_overrides_path},
    caller::Caller,
    database::DatabaseKind,
    on_both_databases, seed,
};
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    jwt::{claims, sign_rs256, start_app, with_changes},
    revocation_races::wait_until_command_is_blocked,
};

on_both_databases! {
    support_may_change_only_overrides_of_users_with_role_user,
    bulk_changes_by_support_skip_users_with_other_roles,
    support_changes_at_most_1000_overrides_in_one_request,
    support_cannot_change_an_override_if_the_users_role_changes_concurrently,
    role_claim_support_limits_the_permissions_of_an_admin,
    support_demoted_during_a_change_is_rejected,
}

const BULK_PATH: &str = "/api/admin/flag-overrides/bulk";

async fn create_override(app: &TestApp, user_id: &str) -> Value {
    let body = json!({"flag_name": "f", "override_value": false});
    app.admin.post(&user_overrides_path(user_id), &body).await.expect(201).json()["id"].clone()
}

/// Sends every change of the override of `f`, in an order in which each succeeds if it is permitted. Returns status
/// and problem code.
async fn send_all_changes(caller: &Caller, user_id: &str) -> Vec<(u16, String)> {
    let path = override_path(user_id, "f");
    let create = json!({"flag_name": "f", "override_value": true});
    let mut outcomes = Vec::new();
    for (method, path, body) in [
        (Method::DELETE, &path, Value::Null),
        (Method::POST, &user_overrides_path(user_id), create),
        (Method::PUT, &path, json!({"override_value": false})),
        (Method::PATCH, &path, json!({"reason": "ticket 7"})),
    ] {
        let response = if method == Method::DELETE {
            caller.delete(path).await
        } else {
            caller.send_json(method, path, &[], &body).await
        };
        let code = if response.text.is_empty() { Value::Null } else { response.json()["code"].clone() };
        outcomes.push((response.status.as_u16(), code.as_str().unwrap_or_default().to_owned()));
    }
    outcomes
}

async fn support_may_change_only_overrides_of_users_with_role_user(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    app.create_boolean_flag("f").await;
    let (sam_id, support) = app.create_user_with("sam", "support", json!({})).await;
    let (ann_id, _) = app.create_user("ann").await;
    create_override(&app, &ann_id).await;
    let permitted = [(204, String::new()), (201, String::new()), (200, String::new()), (200, String::new())];
    assert_eq!(send_all_changes(&support, &ann_id).await, permitted);
    let changed = app.admin.get(&override_path(&ann_id, "f")).await.expect(200).json();
    assert_eq!((&changed["reason"], &changed["created_by"]), (&json!("ticket 7"), &json!(format!("user:{sam_id}"))));
    for role in ["viewer", "support", "admin"] {
        let (user_id, _) = app.create_user_with(&format!("other-{role}"), role, json!({})).await;
        create_override(&app, &user_id).await;
        let path = override_path(&user_id, "f");
        let before = app.admin.get(&path).await.expect(200).json();
        assert_eq!(
            send_all_changes(&support, &user_id).await,
            vec![(403, "user_not_permitted".to_owned()); 4],
            "{role}"
        );
        assert_eq!(support.get(&path).await.expect(200).json(), before, "{role}");
    }
    let problem = support.delete(&override_path(&sam_id, "f")).await.expect_problem(403, "user_not_permitted");
    assert!(problem["detail"].as_str().unwrap().contains("role user only"), "{problem}");
    let unknown = override_path(&Uuid::nil().to_string(), "f");
    support.put(&unknown, &json!({"override_value": true})).await.expect_problem(404, "user_not_found");
    support.delete(&unknown).await.expect_problem(404, "user_not_found");
    // A token with role admin that acts as a user with role support has role support.
    let limited = app.caller_with_token(TokenGrant::Role(Role::Admin), sam_id.parse().ok(), None).await;
    limited.patch("/api/admin/feature-flags/f", &json!({"enabled": false})).await.expect_problem(403, "forbidden");
    limited
        .put(&override_path(&sam_id, "f"), &json!({"override_value": true}))
        .await
        .expect_problem(403, "user_not_permitted");
    limited.patch(&override_path(&ann_id, "f"), &json!({"enabled": false})).await.expect(200);
}

fn outcomes(response: &Value) -> Vec<&str> {
    response["results"].as_array().unwrap().iter().map(|result| result["outcome"].as_str().unwrap()).collect()
}

async fn bulk_changes_by_support_skip_users_with_other_roles(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    app.create_boolean_flag("f").await;
    let (_, support) = app.create_user_with("sam", "support", json!({})).await;
    let mut ids = Vec::new();
    for (name, role) in [("ann", "user"), ("vera", "viewer"), ("ben", "user")] {
        ids.push(create_override(&app, &app.create_user_with(name, role, json!({})).await.0).await);
    }
    ids.push(json!(Uuid::from_u128(1)));
    let body = |dry_run: bool| json!({"action": "disable", "ids": ids, "dry_run": dry_run});
    let expected = vec!["changed", "forbidden", "changed", "not_found"];
    let dry_run = support.post(BULK_PATH, &body(true)).await.expect(200).json();
    assert_eq!((outcomes(&dry_run), &dry_run["changed"]), (expected.clone(), &json!(2)));
    let changed = support.post(BULK_PATH, &body(false)).await.expect(200).json();
    assert_eq!((outcomes(&changed), &changed["changed"]), (expected, &json!(2)));
    let active = app.admin.get("/api/admin/flag-overrides?status=active").await.expect(200).json();
    assert_eq!((&active["total"], &active["items"][0]["id"]), (&json!(1), &ids[1]));
    let delete = json!({"action": "delete", "filter": {"flag_name": "f"}});
    let deleted = support.post(BULK_PATH, &delete).await.expect(200).json();
    assert_eq!(deleted["changed"], 2);
    let left = app.admin.get("/api/admin/flag-overrides").await.expect(200).json();
    assert_eq!((&left["total"], &left["items"][0]["id"]), (&json!(1), &ids[1]));
}

async fn support_changes_at_most_1000_overrides_in_one_request(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    app.create_boolean_flag("f").await;
    let (_, support) = app.create_user_with("sam", "support", json!({})).await;
    let mut tx = app.core.store().begin(app.core.now()).await.unwrap();
    for number in 0..1_001 {
        let user_id = seed::insert_user(&mut tx, &format!("u{number}@example.com")).await;
        seed::insert_override(&mut tx, user_id, "f", None).await;
    }
    tx.commit(&author()).await.unwrap();
    for dry_run in [true, false] {
        let all = json!({"action": "disable", "filter": {"flag_name": "f"}, "dry_run": dry_run});
        support.post(BULK_PATH, &all).await.expect_violation("/filter", "too_many_matches");
    }
    let items = app.admin.get("/api/admin/flag-overrides?limit=1").await.expect(200).json()["items"].clone();
    app.admin.delete(&override_path(items[0]["user_id"].as_str().unwrap(), "f")).await.expect(204);
    let all = json!({"action": "disable", "filter": {"flag_name": "f"}});
    assert_eq!(support.post(BULK_PATH, &all).await.expect(200).json()["changed"], 1_000);
}

/// Changes the role of a user in an open transaction, sends a request, and commits when the request waits.
async fn send_during_promotion(
    app: &TestApp,
    user_id: &str,
    request: impl Future<Output = (u16, Value)> + Send + 'static,
) -> (u16, Value) {
    // Uses a separate store, because the request would otherwise wait for the write permit of the application's store.
    let mut tx = app.database.store().await.begin(app.core.now()).await.unwrap();
    let user = users::lock(&mut tx, user_id.parse().unwrap()).await.unwrap().unwrap();
    users::update(&mut tx, &user, &UserRecord { role: Role::Viewer, ..user.clone() }).await.unwrap();
    let request = tokio::spawn(request);
    wait_until_command_is_blocked(app).await;
    tx.commit(&author()).await.unwrap();
    request.await.unwrap()
}

async fn support_cannot_change_an_override_if_the_users_role_changes_concurrently(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    app.create_boolean_flag("f").await;
    let (_, support) = app.create_user_with("sam", "support", json!({})).await;
    for (number, method) in [Method::PUT, Method::PATCH, Method::DELETE, Method::POST].into_iter().enumerate() {
        let (user_id, _) = app.create_user(&format!("u{number}")).await;
        let override_id = create_override(&app, &user_id).await;
        let (path, body) = match method {
            Method::POST => (BULK_PATH.to_owned(), json!({"action": "disable", "ids": [override_id]})),
            Method::PUT => (override_path(&user_id, "f"), json!({"override_value": true})),
            _ => (override_path(&user_id, "f"), json!({"enabled": false})),
        };
        let (caller, sent) = (support.clone(), method.clone());
        let request = async move {
            let response = match sent {
                Method::DELETE => caller.delete(&path).await,
                _ => caller.send_json(sent, &path, &[], &body).await,
            };
            (response.status.as_u16(), response.json())
        };
        let (status, response) = send_during_promotion(&app, &user_id, request).await;
        if method == Method::POST {
            assert_eq!((status, outcomes(&response)), (200, vec!["forbidden"]));
        } else {
            assert_eq!((status, &response["code"]), (403, &json!("user_not_permitted")), "{method}");
        }
        let unchanged = app.admin.get(&override_path(&user_id, "f")).await.expect(200).json();
        assert_eq!((&unchanged["override_value"], &unchanged["enabled"]), (&json!(false), &json!(true)), "{method}");
    }
}

async fn role_claim_support_limits_the_permissions_of_an_admin(kind: DatabaseKind) {
    let (app, _key_file) = start_app(kind, |config| JwtConfig {
        role_claim: Some("groups".to_owned()),
        allowed_roles: vec![("helpdesk".to_owned(), Role::Support)],
        ..config
    })
    .await;
    app.create_boolean_flag("f").await;
    let (ada_id, _) = app.create_user_with("ada", "admin", json!({})).await;
    let (vera_id, _) = app.create_user_with("vera", "viewer", json!({})).await;
    let (ann_id, _) = app.create_user("ann").await;
    let caller =
        |id: &str| app.caller_with_bearer(&sign_rs256(&with_changes(claims(id), json!({"groups": ["helpdesk"]}))));
    let value = json!({"override_value": true});
    caller(&ada_id).put(&override_path(&ann_id, "f"), &value).await.expect(201);
    // The stored user is an admin, but the role claim permits less.
    caller(&ada_id).put(&override_path(&vera_id, "f"), &value).await.expect_problem(403, "user_not_permitted");
    caller(&ada_id)
        .patch("/api/admin/feature-flags/f", &json!({"enabled": false}))
        .await
        .expect_problem(403, "forbidden");
    caller(&vera_id).put(&override_path(&ann_id, "f"), &value).await.expect_problem(403, "forbidden");
}

async fn support_demoted_during_a_change_is_rejected(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    app.create_boolean_flag("f").await;
    let (sam_id, support) = app.create_user_with("sam", "support", json!({})).await;
    let (ann_id, _) = app.create_user("ann").await;
    let path = override_path(&ann_id, "f");
    let mut tx = app.database.store().await.begin(app.core.now()).await.unwrap();
    let sam = users::lock(&mut tx, sam_id.parse().unwrap()).await.unwrap().unwrap();
    users::update(&mut tx, &sam, &UserRecord { role: Role::Viewer, ..sam.clone() }).await.unwrap();
    tx.take_revision().await.unwrap();
    let request = tokio::spawn(async move { support.put(&path, &json!({"override_value": true})).await });
    wait_until_command_is_blocked(&app).await;
    tx.commit(&author()).await.unwrap();
    let problem = request.await.unwrap().expect_problem(403, "forbidden");
    assert_eq!(problem["detail"], "requires role admin or support");
    app.admin.get(&override_path(&ann_id, "f")).await.expect_problem(404, "override_not_found");
}
