//! Rejection of unknown paths, methods and parameters.

use reqwest::Method;
use serde_json::Value;

use flags_tests::{
    app::{TestApp, override_path, user_overrides_path},
    database::DatabaseKind,
    on_both_databases,
};

on_both_databases! {
    rejects_unknown_paths_methods_and_parameters,
}

async fn rejects_unknown_paths_methods_and_parameters(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    let (ann_id, _) = app.create_user("ann").await;
    for path in ["/api", "/api/nope", "/api/admin", "/api/flags", "/metrics/x", "/api/flags/stream/x"] {
        app.admin.get(path).await.expect_problem(404, "not_found");
    }
    app.admin.post("/nowhere", &Value::Null).await.expect_problem(404, "not_found");
    for flag in ["Bad", "%00", "a%2Fb", "%ff", "a..b", &"a".repeat(300)] {
        app.admin.get(&format!("/api/admin/feature-flags/{flag}")).await.expect_problem(404, "flag_not_found");
        app.admin.get(&override_path(&ann_id, flag)).await.expect_problem(404, "flag_not_found");
    }
    app.admin.get(&override_path(&ann_id, "nope")).await.expect_problem(404, "override_not_found");
    for user in ["rubbish", "%00", "00000000000000000000000000000000", "{00000000-0000-0000-0000-000000000000}"] {
        app.admin.get(&user_overrides_path(user)).await.expect_problem(404, "user_not_found");
        app.admin.get(&override_path(user, "f")).await.expect_problem(404, "user_not_found");
        app.admin.delete(&format!("/api/admin/users/{user}")).await.expect_problem(404, "user_not_found");
    }
    let method_not_allowed = app.admin.send(Method::DELETE, "/api/admin/users", &[], None).await;
    assert_eq!(method_not_allowed.header("allow"), "GET, HEAD, POST");
    let response = app.admin.delete(&format!("/api/admin/users/{ann_id}?erase=perhaps")).await;
    response.expect_violation("/erase", "invalid_parameter");
    let response = app.admin.delete(&format!("/api/admin/users/{ann_id}?purge=true")).await;
    response.expect_violation("/purge", "unknown_parameter");
    app.admin.get(&format!("/api/admin/users/{ann_id}?x")).await.expect_violation("/x", "unknown_parameter");
    app.anonymous.get("/api/flags/me?x=1").await.expect_problem(401, "unauthorized");
    let head = app.admin.send(Method::HEAD, "/api/admin/users", &[], None).await.expect(200);
    assert!(head.text.is_empty());
    method_not_allowed.expect_problem(405, "method_not_allowed");
    app.admin.send(Method::POST, "/healthz", &[], None).await.expect_problem(405, "method_not_allowed");
}
