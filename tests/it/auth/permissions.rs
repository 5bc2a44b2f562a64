//! Who may do what: every operation of the OpenAPI document, called by everybody.

use flags_domain::Instant;
use flags_store::{api_tokens::Grant, users::Role};
use reqwest::Method;
use serde_json::{Value, json};

use flags_tests::{
    app::{PASSWORD, TestApp},
    caller::Caller,
    database::Kind,
    on_both_databases,
    permissions::Table,
};

on_both_databases! {
    every_operation_lets_through_whom_the_table_says,
    credentials_that_are_not_valid_are_nobodys,
    nobody_becomes_somebody_else_by_naming_them,
    a_token_is_never_more_than_its_user,
    every_answer_carries_its_headers,
}

/// An operation of the document, with a path that names nothing but, where it can, this user.
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
            // A stream has no end; HEAD is let through like GET.
            let method = if path.ends_with("/stream") { "HEAD" } else { method.as_str() };
            let name = operation["operationId"].as_str().unwrap().to_owned();
            found.push(Operation { name, method: method.to_uppercase().parse().unwrap(), path: path.clone() });
        }
    }
    found
}

/// What comes of a call: refused, and why, or let through to whatever the operation makes of it.
async fn outcome(caller: &Caller, operation: &Operation) -> String {
    // A body of the wrong shape and a tag of nothing: whoever is let through is told so, and nothing changes.
    let body = (![Method::GET, Method::HEAD].contains(&operation.method)).then(|| br#"{"rubbish": 1}"#.to_vec());
    let headers = [("content-type", "application/json"), ("if-match", "\"nothing\"")];
    let mut answer = caller.send(operation.method.clone(), &operation.path, &headers, body).await;
    let status = answer.status.as_u16();
    assert!(status < 500 && status != 405, "{} {}: {}", operation.method, operation.path, answer.text);
    if ![401, 403].contains(&status) {
        return "yes".to_owned();
    }
    if operation.method == Method::HEAD {
        // The reason stands in the body of a GET, which for a stream is a refusal as well.
        answer = caller.send(Method::GET, &operation.path, &headers, None).await;
    }
    let body = answer.json();
    match body["code"].as_str().or(body["errorCode"].as_str()) {
        _ if status == 401 => "401".to_owned(),
        code => format!("403 {}", code.unwrap()),
    }
}

/// Signs somebody in who signs out again: an operation may end the session that it is called with.
async fn signed_in(app: &TestApp, email: &str) -> Caller {
    app.nobody.sign_in(email, PASSWORD).await
}

async fn every_operation_lets_through_whom_the_table_says(kind: Kind) {
    let app = TestApp::start(kind).await;
    let (ada, admin) = app.user_with("ada", "admin", json!({})).await;
    let (vera, viewer) = app.user_with("vera", "viewer", json!({})).await;
    let (ann, user) = app.user("ann").await;
    let (_, ada_email) = app.account("ada2", "admin").await;
    let (_, ann_email) = app.account("ann2", "user").await;
    let evaluate = app.caller(Grant::Evaluate, None, None).await;
    let userless = app.caller(Grant::Role(Role::Viewer), None, None).await;
    let expired = app.caller(Grant::Role(Role::Admin), None, Some(app.core.now().plus_micros(1))).await;
    let (gone, deactivated) = app.user_with("gone", "admin", json!({})).await;
    app.admin.patch(&format!("/api/admin/users/{gone}"), &json!({"active": false})).await.expect(200);
    let made = app.admin.post("/api/admin/api-tokens", &json!({"name": "t", "role": "admin"})).await.expect(201).json();
    app.admin.delete(&format!("/api/admin/api-tokens/{}", made["id"].as_str().unwrap())).await.expect(204);
    let revoked = Caller::new(app.base(), made["token"].as_str());
    app.clock_to("01-01T00:00:00.000001Z");
    let mut found = Table::default();
    for (own, others) in operations(&ann).iter().zip(operations(&vera)) {
        let of_ada =
            Operation { path: own.path.replace(&ann, &ada), name: own.name.clone(), method: own.method.clone() };
        for (column, caller, operation) in [
            ("nobody", &app.nobody, own),
            ("user, own", &user, own),
            ("user, other's", &user, &others),
            ("user, signed in", &signed_in(&app, &ann_email).await, own),
            ("viewer", &viewer, own),
            ("admin", &admin, own),
            ("admin, signed in", &signed_in(&app, &ada_email).await, &of_ada),
            ("viewer's token without a user", &userless, own),
            ("scope evaluate", &evaluate, own),
            ("expired", &expired, own),
            ("revoked", &revoked, own),
            ("deactivated", &deactivated, own),
        ] {
            found.set(&own.name, column, outcome(caller, operation).await);
        }
    }
    let committed = Table::read();
    assert_eq!(found, committed, "who may do what has changed; review it:\n{}", found.to_text());
}

#[test]
fn the_document_of_permissions_is_made_of_the_table() {
    let folder = format!("{}/../docs", env!("CARGO_MANIFEST_DIR"));
    let committed = std::fs::read_to_string(format!("{folder}/permissions.md")).unwrap_or_default();
    assert_eq!(committed, Table::read().to_markdown(), "run `just permissions` and commit what it writes");
}

async fn credentials_that_are_not_valid_are_nobodys(kind: Kind) {
    let app = TestApp::start(kind).await;
    let (ann, _) = app.user("ann").await;
    let end = Instant::parse("2030-01-01T00:00:10Z").unwrap();
    let expiring = app.caller(Grant::Role(Role::User), Some(ann.parse().unwrap()), Some(end)).await;
    app.clock_to("01-01T00:00:09.999999Z");
    expiring.get("/api/flags/me").await.expect(200);
    app.clock_to("01-01T00:00:10Z");
    let refused = expiring.get("/api/flags/me").await;
    assert_eq!(refused.header("www-authenticate"), "Bearer");
    refused.expect_problem(401, "unauthorized");
    let unknown = format!("flg_{}", "A".repeat(48));
    for value in
        ["", "Bearer", "Bearer ", "Basic YTpi", "Bearer x", "Bearer flg_x", &format!("Bearer {unknown}"), "flg_x"]
    {
        let answer = app.nobody.send(Method::GET, "/api/flags/me", &[("authorization", value)], None).await;
        answer.expect_problem(401, "unauthorized");
    }
}

async fn nobody_becomes_somebody_else_by_naming_them(kind: Kind) {
    let app = TestApp::start(kind).await;
    let (ann, ann_calls) = app.user("ann").await;
    let (ben, _) = app.user("ben").await;
    app.boolean_flag("f").await;
    app.admin
        .put(&format!("/api/admin/users/{ben}/flag-overrides/f"), &json!({"override_value": true}))
        .await
        .expect(201);
    for header in ["x-user-id", "x-forwarded-user", "x-remote-user", "user-id", "targeting-key", "remote-user"] {
        let mine = ann_calls.send(Method::GET, "/api/flags/me", &[(header, &ben)], None).await.expect(200).json();
        assert_eq!((&mine["user_id"], &mine["flags"]["f"]["value"]), (&json!(ann), &json!(false)), "{header}");
    }
    for parameter in ["user_id", "userId", "targetingKey", "as"] {
        let answer = ann_calls.get(&format!("/api/flags/me?{parameter}={ben}")).await;
        answer.expect_violation(&format!("/{parameter}"), "unknown_parameter");
        let answer = ann_calls.get(&format!("/api/flags/stream?{parameter}={ben}")).await;
        answer.expect_violation(&format!("/{parameter}"), "unknown_parameter");
    }
    for path in ["", "/flag-overrides", "/flag-overrides/f"] {
        ann_calls.get(&format!("/api/admin/users/{ben}{path}")).await.expect_problem(403, "forbidden");
        ann_calls.get(&format!("/api/admin/users/{ann}{path}")).await.expect_problem(403, "forbidden");
    }
    ann_calls.get(&format!("/api/flags/me/{ben}")).await.expect_problem(404, "flag_not_found");
    // Fields that are the service's own cannot be given.
    let user = json!({"email": "x@example.com"});
    for (field, value) in [
        ("id", json!(ben)),
        ("created_by", json!("x")),
        ("revision", json!(1)),
        ("created_at", json!("2030-01-01T00:00:00Z")),
    ] {
        let mut body = user.clone();
        body[field] = value.clone();
        app.admin.post("/api/admin/users", &body).await.expect_violation(&format!("/{field}"), "unknown_field");
        let patch = Value::Object([(field.to_owned(), value)].into_iter().collect());
        let answer = app.admin.patch(&format!("/api/admin/users/{ann}"), &patch).await;
        answer.expect_violation(&format!("/{field}"), "unknown_field");
    }
}

async fn a_token_is_never_more_than_its_user(kind: Kind) {
    let app = TestApp::start(kind).await;
    let (ann, _) = app.user_with("ann", "viewer", json!({})).await;
    let generous = app.caller(Grant::Role(Role::Admin), Some(ann.parse().unwrap()), None).await;
    generous.get("/api/admin/users").await.expect(200);
    generous.post("/api/admin/users", &json!({"email": "x@example.com"})).await.expect_problem(403, "forbidden");
    app.admin.patch(&format!("/api/admin/users/{ann}"), &json!({"role": "admin"})).await.expect(200);
    let made = generous.post("/api/admin/users", &json!({"email": "x@example.com"})).await.expect(201).json();
    app.boolean_flag("f").await;
    let path = format!("/api/admin/users/{}/flag-overrides/f", made["id"].as_str().unwrap());
    let by = generous.put(&path, &json!({"override_value": true})).await.expect(201).json()["created_by"].clone();
    assert_eq!(by, format!("user:{ann}"), "who acts is the user");
    app.admin.patch(&format!("/api/admin/users/{ann}"), &json!({"role": "user"})).await.expect(409);
    app.user_with("other", "admin", json!({})).await;
    app.admin.patch(&format!("/api/admin/users/{ann}"), &json!({"role": "user"})).await.expect(200);
    generous.get("/api/admin/users").await.expect_problem(403, "forbidden");
}

async fn every_answer_carries_its_headers(kind: Kind) {
    let app = TestApp::start(kind).await;
    let (_, ann) = app.user("ann").await;
    for (answer, is_docs) in [
        (app.admin.get("/api/admin/users").await, false),
        (app.nobody.get("/api/admin/users").await, false),
        (ann.get("/api/flags/me").await, false),
        (app.nobody.get("/").await, false),
        (app.nobody.get("/api/nope").await, false),
        (app.nobody.get("/docs/").await, true),
    ] {
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
        let policy = answer.header("content-security-policy");
        assert!(policy.contains("frame-ancestors 'none'"), "{policy}");
        assert!(is_docs || !policy.contains("unsafe"), "{policy}");
        assert!(!answer.header("x-request-id").is_empty());
    }
    assert_eq!(app.admin.get("/api/admin/users").await.header("cache-control"), "no-store");
    let mine = ann.get("/api/flags/me").await;
    assert_eq!((mine.header("cache-control"), mine.header("vary")), ("private, no-cache", "Authorization, Cookie"));
    let named = app.nobody.send(Method::GET, "/healthz", &[("x-request-id", "my-id.1")], None).await;
    assert_eq!(named.header("x-request-id"), "my-id.1");
    for unsound in ["a b<c>", "flg_looks-like-a-token", "fls_x", "eyJhbGciOiJub25lIn0.e30."] {
        let answer = app.nobody.send(Method::GET, "/healthz", &[("x-request-id", unsound)], None).await;
        assert_ne!(answer.header("x-request-id"), unsound);
    }
    let welcome = app.nobody.get("/anything").await.expect(200);
    assert!(welcome.header("content-type").starts_with("text/html") && welcome.text.contains("/docs"));
    assert_eq!(app.nobody.get("/readyz").await.expect(200).json()["status"], "ready");
    assert_eq!(app.nobody.get("/healthz").await.expect(200).json(), json!({"status": "ok"}));
    assert!(app.nobody.get("/docs/").await.expect(200).text.contains("swagger-ui"));
    let document: Value = app.nobody.get("/openapi.json").await.expect(200).json();
    assert!(document["openapi"].as_str().unwrap().starts_with("3."));
}
