//! Permissions: every operation of the OpenAPI document, called with every kind of credential.

use flags_domain::Instant;
use flags_service::credentials::jwt::{JwtConfig, JwtUsers};
use flags_store::{api_tokens::TokenGrant, users::Role};
use reqwest::Method;
use serde_json::{Value, json};

use flags_tests::{
    app::{PASSWORD, TestApp},
    caller::Caller,
    database::DatabaseKind,
    on_both_databases,
    permissions::{ALLOWED, PermissionTable},
};

use super::jwt;

on_both_databases! {
    operations_permit_exactly_the_callers_in_the_permission_table,
    rejects_expired_unknown_and_malformed_credentials,
    callers_cannot_impersonate_other_users,
    role_of_a_token_is_capped_by_the_role_of_its_user,
    responses_carry_security_and_caching_headers,
}

/// An operation of the OpenAPI document. The user id in its path exists; all other names in the path do not.
struct Operation {
    name: String,
    method: Method,
    path: String,
}

fn operations(user_id: &str) -> Vec<Operation> {
    let document = serde_json::to_value(flags_api::openapi()).unwrap();
    let mut found = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        let path = path.replace("{user_id}", user_id).replace("{flag_name}", "nope");
        let path = path.replace("{id}", &uuid::Uuid::nil().to_string()).replace("{key}", "nope");
        for (method, operation) in methods.as_object().unwrap().iter().filter(|(key, _)| *key != "parameters") {
            // GET of a stream would never end. HEAD requires the same permission.
            let method = if path.ends_with("/stream") { "HEAD" } else { method.as_str() };
            let name = operation["operationId"].as_str().unwrap().to_owned();
            found.push(Operation { name, method: method.to_uppercase().parse().unwrap(), path: path.clone() });
        }
    }
    found
}

/// Result of a call in the notation of the permission table: `allowed`, `401`, or `403` and the problem code.
async fn permission_outcome(caller: &Caller, operation: &Operation) -> String {
    // The body and the entity tag are invalid, so that permitted calls fail without changing anything.
    let body = (![Method::GET, Method::HEAD].contains(&operation.method)).then(|| br#"{"unknown": 1}"#.to_vec());
    let headers = [("content-type", "application/json"), ("if-match", "\"unknown\"")];
    let mut response = caller.send(operation.method.clone(), &operation.path, &headers, body).await;
    let status = response.status.as_u16();
    assert!(status < 500 && status != 405, "{} {}: {}", operation.method, operation.path, response.text);
    if ![401, 403].contains(&status) {
        return ALLOWED.to_owned();
    }
    if operation.method == Method::HEAD {
        // A response to HEAD has no body; GET yields the problem code.
        response = caller.send(Method::GET, &operation.path, &headers, None).await;
    }
    let body = response.json();
    match body["code"].as_str().or(body["errorCode"].as_str()) {
        _ if status == 401 => "401".to_owned(),
        code => format!("403 {}", code.unwrap()),
    }
}

/// Starts a new session, because the previous call may have ended the session that it used.
async fn sign_in_again(app: &TestApp, email: &str) -> Caller {
    app.anonymous.sign_in(email, PASSWORD).await
}

async fn operations_permit_exactly_the_callers_in_the_permission_table(kind: DatabaseKind) {
    let (app, _key_file) = jwt::start_app(kind, |config| JwtConfig { users: JwtUsers::Any, ..config }).await;
    let jwt_of_unknown_user = app.caller_with_bearer(&jwt::sign_rs256(&jwt::claims("crm/42")));
    let (ada_id, admin) = app.create_user_with("ada", "admin", json!({})).await;
    let (vera_id, viewer) = app.create_user_with("vera", "viewer", json!({})).await;
    let (ann_id, user) = app.create_user("ann").await;
    let (_, ada_email) = app.create_account("ada2", "admin").await;
    let (_, ann_email) = app.create_account("ann2", "user").await;
    let (_, support) = app.create_user_with("sam", "support", json!({})).await;
    let (_, sam_email) = app.create_account("sam2", "support").await;
    let evaluate = app.caller_with_token(TokenGrant::Evaluate, None, None).await;
    let userless = app.caller_with_token(TokenGrant::Role(Role::Viewer), None, None).await;
    let expired = app.caller_with_token(TokenGrant::Role(Role::Admin), None, Some(app.core.now().plus_micros(1))).await;
    let (inactive_id, deactivated) = app.create_user_with("inactive", "admin", json!({})).await;
    app.admin.patch(&format!("/api/admin/users/{inactive_id}"), &json!({"active": false})).await.expect(200);
    let created =
        app.admin.post("/api/admin/api-tokens", &json!({"name": "t", "role": "admin"})).await.expect(201).json();
    app.admin.delete(&format!("/api/admin/api-tokens/{}", created["id"].as_str().unwrap())).await.expect(204);
    let revoked = Caller::new(app.base_url(), created["token"].as_str());
    app.set_clock("01-01T00:00:00.000001Z");
    let mut actual = PermissionTable::default();
    for (own_operation, other_operation) in operations(&ann_id).iter().zip(operations(&vera_id)) {
        let ada_operation = Operation {
            path: own_operation.path.replace(&ann_id, &ada_id),
            name: own_operation.name.clone(),
            method: own_operation.method.clone(),
        };
        for (column, caller, operation) in [
            ("anonymous", &app.anonymous, own_operation),
            ("user token (own data)", &user, own_operation),
            ("user token (data of another user)", &user, &other_operation),
            ("user session", &sign_in_again(&app, &ann_email).await, own_operation),
            ("viewer token", &viewer, own_operation),
            ("support token", &support, own_operation),
            ("support session", &sign_in_again(&app, &sam_email).await, own_operation),
            ("admin token", &admin, own_operation),
            ("admin session", &sign_in_again(&app, &ada_email).await, &ada_operation),
            ("viewer token without user", &userless, own_operation),
            ("evaluate token", &evaluate, own_operation),
            ("JWT of an unknown user", &jwt_of_unknown_user, own_operation),
            ("expired token", &expired, own_operation),
            ("revoked token", &revoked, own_operation),
            ("token of a deactivated user", &deactivated, own_operation),
        ] {
            actual.set(&own_operation.name, column, permission_outcome(caller, operation).await);
        }
    }
    let committed = PermissionTable::read();
    assert_eq!(
        actual,
        committed,
        "permissions differ from tests/permissions.json; review the change:\n{}",
        actual.to_text()
    );
}

#[test]
fn permissions_document_matches_the_permission_table() {
    let folder = format!("{}/../docs", env!("CARGO_MANIFEST_DIR"));
    let committed = std::fs::read_to_string(format!("{folder}/permissions.md")).unwrap_or_default();
    assert_eq!(
        committed,
        PermissionTable::read().to_markdown(),
        "docs/permissions.md is outdated; run `just permissions` and commit the result"
    );
}

async fn rejects_expired_unknown_and_malformed_credentials(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    let (ann_id, _) = app.create_user("ann").await;
    let expires_at = Instant::parse("2030-01-01T00:00:10Z").unwrap();
    let expiring =
        app.caller_with_token(TokenGrant::Role(Role::User), Some(ann_id.parse().unwrap()), Some(expires_at)).await;
    app.set_clock("01-01T00:00:09.999999Z");
    expiring.get("/api/flags/me").await.expect(200);
    app.set_clock("01-01T00:00:10Z");
    let refused = expiring.get("/api/flags/me").await;
    assert_eq!(refused.header("www-authenticate"), "Bearer");
    refused.expect_problem(401, "unauthorized");
    let unknown = format!("flg_{}", "A".repeat(48));
    for value in
        ["", "Bearer", "Bearer ", "Basic YTpi", "Bearer x", "Bearer flg_x", &format!("Bearer {unknown}"), "flg_x"]
    {
        let response = app.anonymous.send(Method::GET, "/api/flags/me", &[("authorization", value)], None).await;
        response.expect_problem(401, "unauthorized");
    }
}

async fn callers_cannot_impersonate_other_users(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    let (ann_id, ann) = app.create_user("ann").await;
    let (ben_id, _) = app.create_user("ben").await;
    app.create_boolean_flag("f").await;
    app.admin
        .put(&format!("/api/admin/users/{ben_id}/flag-overrides/f"), &json!({"override_value": true}))
        .await
        .expect(201);
    for header in ["x-user-id", "x-forwarded-user", "x-remote-user", "user-id", "targeting-key", "remote-user"] {
        let own_flags = ann.send(Method::GET, "/api/flags/me", &[(header, &ben_id)], None).await.expect(200).json();
        assert_eq!(
            (&own_flags["user_id"], &own_flags["flags"]["f"]["value"]),
            (&json!(ann_id), &json!(false)),
            "{header}"
        );
    }
    for parameter in ["user_id", "userId", "targetingKey", "as"] {
        let response = ann.get(&format!("/api/flags/me?{parameter}={ben_id}")).await;
        response.expect_violation(&format!("/{parameter}"), "unknown_parameter");
        let response = ann.get(&format!("/api/flags/stream?{parameter}={ben_id}")).await;
        response.expect_violation(&format!("/{parameter}"), "unknown_parameter");
    }
    for path in ["", "/flag-overrides", "/flag-overrides/f"] {
        ann.get(&format!("/api/admin/users/{ben_id}{path}")).await.expect_problem(403, "forbidden");
        ann.get(&format!("/api/admin/users/{ann_id}{path}")).await.expect_problem(403, "forbidden");
    }
    ann.get(&format!("/api/flags/me/{ben_id}")).await.expect_problem(404, "flag_not_found");
    // Requests cannot set fields that the server maintains.
    let user = json!({"email": "x@example.com"});
    for (field, value) in [
        ("id", json!(ben_id)),
        ("created_by", json!("x")),
        ("revision", json!(1)),
        ("created_at", json!("2030-01-01T00:00:00Z")),
    ] {
        let mut body = user.clone();
        body[field] = value.clone();
        app.admin.post("/api/admin/users", &body).await.expect_violation(&format!("/{field}"), "unknown_field");
        let patch = Value::Object([(field.to_owned(), value)].into_iter().collect());
        let response = app.admin.patch(&format!("/api/admin/users/{ann_id}"), &patch).await;
        response.expect_violation(&format!("/{field}"), "unknown_field");
    }
}

async fn role_of_a_token_is_capped_by_the_role_of_its_user(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    let (ann_id, _) = app.create_user_with("ann", "viewer", json!({})).await;
    let caller = app.caller_with_token(TokenGrant::Role(Role::Admin), Some(ann_id.parse().unwrap()), None).await;
    caller.get("/api/admin/users").await.expect(200);
    caller.post("/api/admin/users", &json!({"email": "x@example.com"})).await.expect_problem(403, "forbidden");
    app.admin.patch(&format!("/api/admin/users/{ann_id}"), &json!({"role": "admin"})).await.expect(200);
    let created = caller.post("/api/admin/users", &json!({"email": "x@example.com"})).await.expect(201).json();
    app.create_boolean_flag("f").await;
    let path = format!("/api/admin/users/{}/flag-overrides/f", created["id"].as_str().unwrap());
    let created_by = caller.put(&path, &json!({"override_value": true})).await.expect(201).json()["created_by"].clone();
    assert_eq!(created_by, format!("user:{ann_id}"), "the recorded actor is the user");
    app.admin.patch(&format!("/api/admin/users/{ann_id}"), &json!({"role": "user"})).await.expect(409);
    app.create_user_with("other", "admin", json!({})).await;
    app.admin.patch(&format!("/api/admin/users/{ann_id}"), &json!({"role": "user"})).await.expect(200);
    caller.get("/api/admin/users").await.expect_problem(403, "forbidden");
}

async fn responses_carry_security_and_caching_headers(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    let (_, ann) = app.create_user("ann").await;
    for (response, is_docs) in [
        (app.admin.get("/api/admin/users").await, false),
        (app.anonymous.get("/api/admin/users").await, false),
        (ann.get("/api/flags/me").await, false),
        (app.anonymous.get("/").await, false),
        (app.anonymous.get("/api/nope").await, false),
        (app.anonymous.get("/docs/").await, true),
    ] {
        assert_eq!(response.header("x-content-type-options"), "nosniff");
        let policy = response.header("content-security-policy");
        assert!(policy.contains("frame-ancestors 'none'"), "{policy}");
        assert!(is_docs || !policy.contains("unsafe"), "{policy}");
        assert!(!response.header("x-request-id").is_empty());
    }
    assert_eq!(app.admin.get("/api/admin/users").await.header("cache-control"), "no-store");
    let own_flags = ann.get("/api/flags/me").await;
    assert_eq!(
        (own_flags.header("cache-control"), own_flags.header("vary")),
        ("private, no-cache", "Authorization, Cookie")
    );
    let with_request_id = app.anonymous.send(Method::GET, "/healthz", &[("x-request-id", "my-id.1")], None).await;
    assert_eq!(with_request_id.header("x-request-id"), "my-id.1");
    for invalid_id in ["a b<c>", "flg_looks-like-a-token", "fls_x", "eyJhbGciOiJub25lIn0.e30."] {
        let response = app.anonymous.send(Method::GET, "/healthz", &[("x-request-id", invalid_id)], None).await;
        assert_ne!(response.header("x-request-id"), invalid_id);
    }
    let welcome_page = app.anonymous.get("/").await.expect(200);
    assert!(welcome_page.header("content-type").starts_with("text/html") && welcome_page.text.contains("/docs"));
    for path in ["/health", "/livez", "/.env", "/a/b.json", "/docs/none", "//", "/index.html"] {
        app.anonymous.get(path).await.expect_problem(404, "not_found");
    }
    assert_eq!(app.anonymous.get("/readyz").await.expect(200).json()["status"], "ready");
    assert_eq!(app.anonymous.get("/healthz").await.expect(200).json(), json!({"status": "ok"}));
    assert!(app.anonymous.get("/docs/").await.expect(200).text.contains("swagger-ui"));
    let document: Value = app.anonymous.get("/openapi.json").await.expect(200).json();
    assert!(document["openapi"].as_str().unwrap().starts_with("3."));
}
