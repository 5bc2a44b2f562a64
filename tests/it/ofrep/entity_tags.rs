//! Entity tags of bulk evaluation responses.

use flags_tests::{
    app::{TestApp, override_path},
    caller::Caller,
    database::DatabaseKind,
    on_both_databases,
};
use reqwest::Method;
use serde_json::{Value, json};

use super::{BULK_PATH, backend_caller, create_two_variant_flag, request_for};

on_both_databases! {
    entity_tag_depends_on_context_values_expiry_and_epoch,
}

async fn entity_tag_depends_on_context_values_expiry_and_epoch(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    let (ann_id, ann) = app.create_user("ann").await;
    let (ben_id, _) = app.create_user("ben").await;
    let backend = backend_caller(&app).await;
    app.create_boolean_flag("a").await;
    create_two_variant_flag(&app, "b", "string", json!("A"), json!("B")).await;
    let send = async |caller: &Caller, body: &Value, if_none_match: &str| {
        caller.send_json(Method::POST, BULK_PATH, &[("if-none-match", if_none_match)], body).await
    };
    let first = send(&ann, &request_for(&ann_id), "").await.expect(200);
    assert_eq!((first.header("cache-control"), first.header("vary")), ("private, no-cache", "Authorization, Cookie"));
    let body = first.json();
    let keys: Vec<_> = body["flags"].as_array().unwrap().iter().map(|flag| &flag["key"]).collect();
    assert_eq!(keys, ["a", "b"]);
    let metadata = body["metadata"].as_object().unwrap();
    assert_eq!(metadata["revision"], app.replica.revision().to_string());
    assert_eq!((&metadata["stale"], metadata.get("valid_until")), (&json!(false), None));
    let mut tags = vec![first.header("etag").to_owned()];
    // The tag stays the same while nothing changes for this context.
    app.admin.put(&override_path(&ben_id, "a"), &json!({"override_value": true})).await.expect(201);
    app.set_clock("01-01T00:00:01Z");
    for if_none_match in [tags[0].clone(), format!("W/{}", tags[0]), format!("\"x\", {}", tags[0])] {
        let not_modified = send(&ann, &request_for(&ann_id), &if_none_match).await.expect(304);
        assert_eq!((not_modified.header("etag"), &*not_modified.text), (&*tags[0], ""));
    }
    let mut expect_new_tag = async |caller: &Caller, body: Value, change: &str| {
        let response = send(caller, &body, &tags.join(", ")).await.expect(200);
        let tag = response.header("etag").to_owned();
        assert!(!tags.contains(&tag), "{change}");
        send(caller, &body, &tag).await.expect(304);
        tags.push(tag);
    };
    expect_new_tag(&backend, request_for("anonymous-1"), "another caller").await;
    expect_new_tag(&backend, request_for("anonymous-2"), "another context with the same values").await;
    let expiring = json!({"override_value": true, "expires_at": "2030-01-01T00:00:09Z"});
    app.admin.put(&override_path(&ann_id, "a"), &expiring).await.expect(201);
    expect_new_tag(&ann, request_for(&ann_id), "a changed value").await;
    let all = send(&ann, &request_for(&ann_id), "").await.json();
    assert_eq!(all["metadata"]["valid_until"], "2030-01-01T00:00:09Z");
    let later_expiry = json!({"expires_at": "2030-01-01T00:00:10Z"});
    app.admin.patch(&override_path(&ann_id, "a"), &later_expiry).await.expect(200);
    expect_new_tag(&ann, request_for(&ann_id), "a changed expiry").await;
    let rule = json!({"targeting_rules": [{"id": "r", "serve": {"variant": "b"},
        "conditions": [{"attribute": "page", "operator": "equals", "values": ["home"]}]}]});
    app.admin.patch("/api/admin/feature-flags/b", &rule).await.expect(200);
    expect_new_tag(&ann, json!({"context": {"targetingKey": ann_id, "page": "home"}}), "another attribute").await;
    app.set_clock("01-01T00:00:10Z");
    let after_expiry = send(&ann, &request_for(&ann_id), &tags[3]).await.expect(200).json();
    assert_eq!(
        (&after_expiry["flags"][0]["value"], after_expiry["metadata"].get("valid_until")),
        (&json!(false), None)
    );
    // A new epoch changes the tag although the values are the same.
    let before = send(&ann, &request_for(&ann_id), "").await.expect(200).header("etag").to_owned();
    app.reload_replica().await;
    assert_ne!(send(&ann, &request_for(&ann_id), &before).await.expect(200).header("etag"), before);
}
