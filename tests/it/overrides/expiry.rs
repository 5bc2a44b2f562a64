//! Overrides with an `expires_at`.

use reqwest::Method;
use serde_json::json;

use flags_tests::{
    app::{TestApp, override_path, user_overrides_path},
    database::DatabaseKind,
    on_both_databases,
};

on_both_databases! {
    override_expires_exactly_at_expires_at,
    expired_override_is_treated_as_absent,
    replacing_expired_override_takes_one_revision,
}

async fn override_expires_exactly_at_expires_at(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    let (ann_id, ann) = app.create_user("ann").await;
    app.create_boolean_flag("f").await;
    let body = json!({"flag_name": "f", "override_value": true, "expires_at": "2030-01-01T00:00:10.000005Z"});
    app.admin.post(&user_overrides_path(&ann_id), &body).await.expect(201);
    let path = override_path(&ann_id, "f");
    for (instant, value, status) in [
        ("01-01T00:00:10.000004Z", true, "active"),
        ("01-01T00:00:10.000005Z", false, "expired"),
        ("01-01T00:00:10.000006Z", false, "expired"),
    ] {
        app.set_clock(instant);
        let flag = ann.get("/api/flags/me").await.expect(200).json()["flags"]["f"].clone();
        assert_eq!(flag["value"], value, "{instant}");
        assert_eq!(flag["source"], if value { "override" } else { "default" });
        assert_eq!(
            app.admin.get(&path).await.expect(200).json()["status"],
            status,
            "an expired override stays readable until cleanup"
        );
        let count = app.admin.get("/api/admin/feature-flags/f").await.json()["override_count"].clone();
        assert_eq!(count, i64::from(value), "expired overrides do not count");
    }
    app.set_clock("01-01T00:00:10.000004Z");
    let evaluation = ann.get("/api/flags/me").await.json();
    assert_eq!(evaluation["valid_until"], "2030-01-01T00:00:10.000005Z");
    assert_eq!(evaluation["flags"]["f"]["then"], json!({"value": false, "variant": "off", "source": "default"}));
}

async fn expired_override_is_treated_as_absent(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    let (ann_id, _) = app.create_user("ann").await;
    app.create_boolean_flag("f").await;
    let body = json!({"flag_name": "f", "override_value": true, "expires_at": "2030-01-01T00:00:10Z"});
    let first = app.admin.post(&user_overrides_path(&ann_id), &body).await.expect(201);
    app.set_clock("01-01T00:00:10Z");
    let path = override_path(&ann_id, "f");
    app.admin.patch(&path, &json!({"enabled": false})).await.expect_problem(404, "override_not_found");
    let stale_tag = [("if-match", first.header("etag"))];
    let response = app.admin.send_json(Method::PUT, &path, &stale_tag, &json!({"override_value": false})).await;
    response.expect_problem(412, "precondition_failed");
    let second = app
        .admin
        .post(&user_overrides_path(&ann_id), &json!({"flag_name": "f", "override_value": false}))
        .await
        .expect(201);
    assert_ne!(second.json()["id"], first.json()["id"]);
    assert_eq!(second.json()["created_at"], "2030-01-01T00:00:10Z");
    app.admin.post(&user_overrides_path(&ann_id), &body).await.expect_violation("/expires_at", "not_in_future");
}

async fn replacing_expired_override_takes_one_revision(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    let (ann_id, _) = app.create_user("ann").await;
    app.create_boolean_flag("f").await;
    let body = json!({"override_value": true, "expires_at": "2030-01-01T00:00:10Z"});
    app.admin.put(&override_path(&ann_id, "f"), &body).await.expect(201);
    app.set_clock("01-01T00:00:10Z");
    app.admin.put(&override_path(&ann_id, "f"), &json!({"override_value": true})).await.expect(201);
    let change_log = app.change_log().await;
    let [.., expired, created] = change_log.as_slice() else { panic!("{change_log:?}") };
    assert_eq!((expired.1.as_str(), created.1.as_str()), ("expired", "created"));
    assert_eq!(expired.0, created.0, "both entries belong to one revision");
}
