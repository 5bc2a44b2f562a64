//! Request bodies: syntax, size and media type.

use reqwest::Method;

use flags_tests::{
    app::{TestApp, user_overrides_path},
    database::DatabaseKind,
    on_both_databases,
};

on_both_databases! {
    rejects_invalid_json_oversized_bodies_and_other_media_types,
}

async fn rejects_invalid_json_oversized_bodies_and_other_media_types(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    let (ann_id, _) = app.create_user("ann").await;
    app.create_boolean_flag("f").await;
    let json_type = [("content-type", "application/json")];
    let path = user_overrides_path(&ann_id);
    let send = async |body: Vec<u8>| app.admin.send(Method::POST, &path, &json_type, Some(body)).await;
    for body in ["", "{", "nope", "{\"flag_name\": \"f\",}", "\u{feff}{}", "{} {}"] {
        send(body.as_bytes().to_vec()).await.expect_problem(400, "invalid_json");
    }
    send(vec![0xff, 0xfe]).await.expect_problem(400, "invalid_json");
    for body in ["[]", "null", "1", "\"x\"", "{}"] {
        send(body.as_bytes().to_vec()).await.expect_problem(422, "validation_failed");
    }
    let deep = format!(r#"{{"flag_name": "f", "override_value": {}{}}}"#, "[".repeat(5_000), "]".repeat(5_000));
    send(deep.into_bytes()).await.expect_problem(422, "validation_failed");
    let large = format!(r#"{{"flag_name": "f", "override_value": true, "reason": "{}"}}"#, "a".repeat(256 * 1024));
    send(large.into_bytes()).await.expect_problem(413, "body_too_large");
    for content_type in
        ["text/plain", "application/x-www-form-urlencoded", "application/merge-patch+json", "application/jsonp", ""]
    {
        let headers = [("content-type", content_type)];
        let response = app.admin.send(Method::POST, &path, &headers, Some(b"{}".to_vec())).await;
        response.expect_problem(415, "unsupported_media_type");
    }
    let charset = [("content-type", "Application/JSON; charset=utf-8")];
    app.admin.send(Method::POST, &path, &charset, Some(b"{}".to_vec())).await.expect(422);
    let rules = format!(r#"{{"targeting_rules": [], "x": "{}"}}"#, "a".repeat(1_000_000));
    let response = app
        .admin
        .send(Method::PUT, "/api/admin/feature-flags/f/targeting-rules", &json_type, Some(rules.into_bytes()))
        .await;
    response.expect_violation("/x", "unknown_field");
    let rules = "a".repeat(2 * 1024 * 1024 + 1).into_bytes();
    let response =
        app.admin.send(Method::PUT, "/api/admin/feature-flags/f/targeting-rules", &json_type, Some(rules)).await;
    response.expect_problem(413, "body_too_large");
}
