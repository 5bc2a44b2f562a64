//! External ids of users (ids in another system): creation, URL paths, targeting keys and overrides.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use flags_tests::{
    app::{TestApp, override_path},
    caller::Caller,
    database::DatabaseKind,
    on_both_databases,
};
use serde_json::{Value, json};

use crate::ofrep::{backend_caller, evaluate};

const USERS_PATH: &str = "/api/admin/users";

on_both_databases! {
    external_ids_identify_users_in_paths_lists_and_responses,
    external_ids_are_unique_and_immutable,
    reloaded_replica_maps_external_ids_to_the_same_user_ids,
    overrides_apply_to_targeting_keys_that_are_external_ids,
    creating_a_user_does_not_change_evaluation_results_of_its_targeting_key,
    users_require_an_email_or_an_external_id,
    every_response_with_a_person_has_a_label,
}

async fn create(app: &TestApp, body: Value) -> Value {
    app.admin.post(USERS_PATH, &body).await.expect(201).json()
}

fn encoded(external_id: &str) -> [String; 2] {
    let percent: String = external_id.bytes().map(|byte| format!("%{byte:02X}")).collect();
    [format!("ext:{percent}"), format!("ext64:{}", URL_SAFE_NO_PAD.encode(external_id))]
}

async fn external_ids_identify_users_in_paths_lists_and_responses(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    for external_id in ["crm/42", "Kunde ä%", "+", "5d41402a-bc4b-2a76-b971-9d911017c592"] {
        let user = create(&app, json!({"external_id": external_id})).await;
        assert_eq!((&user["external_id"], &user["email"]), (&json!(external_id), &Value::Null));
        assert_eq!(user["user_label"], external_id);
        for segment in encoded(external_id) {
            let found = app.admin.get(&format!("{USERS_PATH}/{segment}")).await.expect(200).json();
            assert_eq!(found, user, "{segment}");
        }
        let listed = app.admin.get(&format!("{USERS_PATH}?search={}", &encoded(external_id)[0][4..])).await.expect(200);
        assert_eq!(listed.json()["items"], json!([user]), "{external_id}");
    }
    let uuid = "5d41402a-bc4b-2a76-b971-9d911017c592";
    assert_eq!(app.admin.get(&format!("{USERS_PATH}/{uuid}")).await.expect(200).json()["id"], uuid);
    let both = create(&app, json!({"external_id": "both", "email": "both@example.com"})).await;
    assert_eq!(both["user_label"], "both@example.com");
    let found = app.admin.get(&format!("{USERS_PATH}?search=both")).await.expect(200).json();
    assert_eq!(found["items"].as_array().unwrap().len(), 1);
    for segment in ["ext:unknown", "ext64:!", "ext:%FF", "ext:", "5D41402A-BC4B-2A76-B971-9D911017C592x"] {
        app.admin.get(&format!("{USERS_PATH}/{segment}")).await.expect_problem(404, "user_not_found");
    }
}

async fn external_ids_are_unique_and_immutable(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    let ann = create(&app, json!({"external_id": "ann"})).await;
    app.admin.post(USERS_PATH, &json!({"external_id": "ann"})).await.expect_problem(409, "external_id_taken");
    create(&app, json!({"external_id": "Ann"})).await;
    let path = |user: &Value| format!("{USERS_PATH}/{}", user["id"].as_str().unwrap());
    for new in [json!("other"), Value::Null] {
        let patched = app.admin.patch(&path(&ann), &json!({"external_id": new})).await;
        patched.expect_problem(409, "external_id_fixed");
    }
    app.admin.patch(&path(&ann), &json!({"external_id": "ann", "display_name": "Ann"})).await.expect(200);
    let ben = create(&app, json!({"email": "ben@example.com"})).await;
    app.admin.patch(&path(&ben), &json!({"external_id": "ann"})).await.expect_problem(409, "external_id_taken");
    app.admin.patch(&path(&ben), &json!({"external_id": ann["id"]})).await.expect_problem(409, "id_taken");
    app.admin.post(USERS_PATH, &json!({"external_id": ben["id"]})).await.expect_problem(409, "id_taken");
    let patched = app.admin.patch(&path(&ben), &json!({"external_id": "ben"})).await.expect(200).json();
    assert_eq!((&patched["id"], &patched["external_id"]), (&ben["id"], &json!("ben")));
    assert_eq!(app.admin.get(&format!("{USERS_PATH}/ext:ben")).await.expect(200).json()["id"], ben["id"]);
    app.admin.delete(&path(&ann)).await.expect(204);
    assert_eq!(create(&app, json!({"external_id": "ann"})).await["id"], ann["id"], "the external id is free again");
    app.admin.delete(&path(&ben)).await.expect(204);
    let new_ben = create(&app, json!({"external_id": "ben"})).await;
    assert_ne!(new_ben["id"], ben["id"]);
    assert_eq!(app.admin.get(&format!("{USERS_PATH}/ext:ben")).await.expect(200).json()["id"], new_ben["id"]);
}

async fn reloaded_replica_maps_external_ids_to_the_same_user_ids(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    create(&app, json!({"external_id": "ann"})).await;
    let ben = create(&app, json!({"email": "ben@example.com"})).await;
    let path = format!("{USERS_PATH}/{}", ben["id"].as_str().unwrap());
    app.admin.patch(&path, &json!({"external_id": "ben"})).await.expect(200);
    let reloaded = flags_service::change_feed::load(app.core.store()).await.unwrap();
    let reloaded = flags_service::replica::Replica::new(reloaded);
    for key in ["ann", "ben", "unknown", "5d41402abc4b2a76b9719d911017c592"] {
        assert_eq!(reloaded.external_user_id(key), app.replica.external_user_id(key), "{key}");
    }
    assert_eq!(reloaded.external_user_id("ben").id.to_string(), ben["id"].as_str().unwrap());
}

async fn overrides_apply_to_targeting_keys_that_are_external_ids(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    app.create_boolean_flag("f").await;
    let backend = backend_caller(&app).await;
    let value = async |key: &str| {
        evaluate(&backend, "f", json!({"targetingKey": key})).await.expect(200).json()["value"].clone()
    };
    let ann = create(&app, json!({"external_id": "ann"})).await;
    let id = ann["id"].as_str().unwrap();
    app.admin.put(&override_path("ext:ann", "f"), &json!({"override_value": true})).await.expect(201);
    let item = app.admin.get(&override_path(id, "f")).await.expect(200).json();
    assert_eq!((&item["user_label"], &item["user_email"]), (&json!("ann"), &Value::Null));
    for key in ["ann", id, &id.to_uppercase(), &id.replace('-', ""), &format!("urn:uuid:{id}"), &format!("{{{id}}}")] {
        assert_eq!(value(key).await, true, "{key}");
    }
    for key in ["Ann", "ann ", "ben"] {
        assert_eq!(value(key).await, false, "{key}");
    }
    app.admin.patch(&format!("{USERS_PATH}/ext:ann"), &json!({"active": false})).await.expect(200);
    assert_eq!(value("ann").await, false, "overrides of an inactive user are ignored");
}

/// Returns the variants of two flags: one with a percentage split, one with rules on `user_id` and `external_id`.
async fn values(backend: &Caller, key: &str) -> [Value; 2] {
    let context = json!({"targetingKey": key});
    let split = evaluate(backend, "split", context.clone()).await.expect(200).json()["variant"].clone();
    [split, evaluate(backend, "rules", context).await.expect(200).json()["variant"].clone()]
}

async fn creating_a_user_does_not_change_evaluation_results_of_its_targeting_key(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    let variants: Vec<_> = (0..50).map(|n| json!({"id": format!("v{n}"), "value": n})).collect();
    let weights: serde_json::Map<_, _> = (0..50).map(|n| (format!("v{n}"), json!(2))).collect();
    app.create_flag(
        json!({"name": "split", "flag_type": "number", "variants": variants, "default": {"weights": weights},
        "off_variant": "v0"}),
    )
    .await;
    let keys = ["ann", "crm-7", "5d41402a-bc4b-2a76-b971-9d911017c592", "5D41402A-BC4B-2A76-B971-9D911017C593", "ä"];
    let rules = keys.iter().enumerate().map(|(index, key)| {
        let attribute = ["user_id", "external_id"][index % 2];
        json!({"id": format!("r{index}"), "serve": {"variant": format!("v{}", index + 1)},
            "conditions": [{"attribute": attribute, "operator": "equals", "values": [key]}]})
    });
    app.create_flag(json!({"name": "rules", "flag_type": "number", "variants": variants, "default": {"variant": "v0"},
        "off_variant": "v0", "targeting_rules": rules.collect::<Vec<_>>()}))
        .await;
    app.create_boolean_flag("other").await;
    let backend = backend_caller(&app).await;
    for (index, key) in keys.iter().enumerate() {
        let before = values(&backend, key).await;
        assert_eq!(before[1], format!("v{}", index + 1));
        create(&app, json!({"external_id": key})).await;
        assert_eq!(values(&backend, key).await, before, "{key}");
        let segment = &encoded(key)[0];
        app.admin.put(&override_path(segment, "other"), &json!({"override_value": true})).await.expect(201);
        assert_eq!(values(&backend, key).await, before, "{key}");
    }
    let ben = create(&app, json!({"email": "ben@example.com"})).await;
    let ben_id = ben["id"].as_str().unwrap();
    let before = values(&backend, ben_id).await;
    app.admin.patch(&format!("{USERS_PATH}/{ben_id}"), &json!({"external_id": "ben"})).await.expect(200);
    assert_eq!(values(&backend, ben_id).await, before);
    assert_eq!(values(&backend, "ben").await, before, "the key of a user never changes");
}

async fn every_response_with_a_person_has_a_label(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    app.create_boolean_flag("f").await;
    for (body, label) in [
        (json!({"external_id": "x1"}), "x1"),
        (json!({"external_id": "x2", "email": "x2@example.com"}), "x2@example.com"),
        (json!({"external_id": "x3", "email": "x3@example.com", "display_name": "X 3"}), "X 3"),
        (json!({"external_id": "x4", "display_name": "X 4"}), "X 4"),
        (json!({"email": "x5@example.com"}), "x5@example.com"),
    ] {
        let user = create(&app, body).await;
        let id = user["id"].as_str().unwrap();
        let overrides =
            app.admin.put(&override_path(id, "f"), &json!({"override_value": true})).await.expect(201).json();
        let new_token = json!({"name": "t", "role": "viewer", "user_id": id});
        let token = app.admin.post("/api/admin/api-tokens", &new_token).await.expect(201).json();
        let token_path = format!("/api/admin/api-tokens/{}", token["id"].as_str().unwrap());
        let read = app.admin.get(&token_path).await.expect(200).json();
        let tokens = app.admin.get(&format!("/api/admin/api-tokens?user_id={id}")).await.expect(200).json();
        let rotated = app.admin.post(&format!("{token_path}/rotate"), &json!({})).await.expect(201).json();
        let me = app.caller_with_bearer(token["token"].as_str().unwrap()).get("/api/auth/me").await.expect(200).json();
        for response in [&user, &overrides, &token, &read, &tokens["items"][0], &rotated, &me] {
            assert_eq!(response["user_label"], label, "{response}");
        }
        assert_eq!((&me["email"], &me["external_id"]), (&user["email"], &user["external_id"]));
        let log = app.admin.get(&format!("/api/admin/audit-log?user_id={id}")).await.expect(200).json();
        let logged = user["email"].as_str().unwrap_or_else(|| user["external_id"].as_str().unwrap());
        assert_eq!(log["items"][0]["user_label"], logged);
    }
    let without_user = json!({"name": "t", "role": "viewer"});
    let token = app.admin.post("/api/admin/api-tokens", &without_user).await.expect(201).json();
    assert_eq!(token["user_label"], Value::Null);
}

async fn users_require_an_email_or_an_external_id(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    let post = async |body: Value| app.admin.post(USERS_PATH, &body).await;
    post(json!({})).await.expect_violation("/email", "email_or_external_id_required");
    post(json!({"external_id": "a@b"})).await.expect_violation("/external_id", "looks_like_email");
    post(json!({"external_id": ""})).await.expect_violation("/external_id", "empty");
    post(json!({"email": "ann"})).await.expect_violation("/email", "invalid_email");
    post(json!({"external_id": "ann", "password": "correct horse battery"}))
        .await
        .expect_violation("/email", "email_required");
    let user = create(&app, json!({"external_id": "ann", "email": "ann@example.com"})).await;
    let path = format!("{USERS_PATH}/{}", user["id"].as_str().unwrap());
    let password_path = format!("{path}/password");
    app.admin.put(&password_path, &json!({"password": "correct horse battery"})).await.expect(204);
    app.admin.patch(&path, &json!({"email": null})).await.expect_violation("/email", "email_required");
    let other = create(&app, json!({"external_id": "ben", "email": "ben@example.com"})).await;
    let path = format!("{USERS_PATH}/{}", other["id"].as_str().unwrap());
    let patched = app.admin.patch(&path, &json!({"email": null})).await.expect(200).json();
    assert_eq!(patched["user_label"], "ben");
    create(&app, json!({"email": "ben@example.com"})).await;
}
