//! Deletion with `erase=true`: labels and personal data are removed, change-log rows are not modified.

use reqwest::Method;
use serde_json::{Value, json};

use flags_service::credentials::tokens::{NewToken, TokenService};
use flags_store::{api_tokens::TokenGrant, users::Role};
use flags_tests::{
    app::{TestApp, author, command_author, user_overrides_path},
    database::{Database, DatabaseKind, table_names, table_rows},
    on_both_databases, seed,
};

use super::{AUDIT_LOG_PATH, USERS_PATH, list_entries};

on_both_databases! {
    audit_labels_survive_user_deletion_but_not_erasure,
    already_deleted_user_can_still_be_erased_once,
    erased_user_leaves_no_personal_data,
    user_with_many_overrides_is_erased_in_the_last_deletion_batch,
    audit_entries_of_an_erased_admin_are_kept,
    erasure_removes_the_external_id,
}

/// Returns the labels of the entries about a user, without consecutive duplicates.
async fn user_labels(app: &TestApp, user_id: &str) -> Vec<Value> {
    let mut labels: Vec<Value> = list_entries(app, &format!("user_id={user_id}"))
        .await
        .iter()
        .map(|entry| entry["user_label"].clone())
        .collect();
    assert!(!labels.is_empty());
    labels.dedup();
    labels
}

async fn audit_labels_survive_user_deletion_but_not_erasure(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    let (ann_id, _) = app.create_user("ann").await;
    let (ben_id, _) = app.create_user("ben").await;
    app.admin.patch(&format!("{USERS_PATH}/{ann_id}"), &json!({"email": "ann@new.example"})).await.expect(200);
    assert_eq!(user_labels(&app, &ann_id).await, [json!("ann@new.example")], "the label is the latest e-mail");
    app.admin.delete(&format!("{USERS_PATH}/{ann_id}")).await.expect(204);
    assert_eq!(user_labels(&app, &ann_id).await, [json!("ann@new.example")], "deletion keeps the label");
    let token_label = |entries: &[Value]| {
        entries.iter().find(|entry| entry["entity"] == "api_token").unwrap()["entity_label"].clone()
    };
    assert_eq!(token_label(&list_entries(&app, &format!("user_id={ann_id}")).await), "test");
    let rows_before = table_rows(&app.database.url, "change_log").await;
    let erased = app.admin.delete(&format!("{USERS_PATH}/{ben_id}?erase=true")).await.expect(204);
    assert!(erased.header("flags-revision").contains(':'));
    assert_eq!(user_labels(&app, &ben_id).await, [Value::Null]);
    let entries_of_ben = list_entries(&app, &format!("user_id={ben_id}")).await;
    assert_eq!(token_label(&entries_of_ben), Value::Null, "labels of the user's tokens are erased too");
    let actions: Vec<_> =
        entries_of_ben.iter().map(|entry| (entry["action"].as_str().unwrap(), &entry["entity"])).collect();
    assert_eq!(actions[..2], [("erased", &json!("user")), ("deleted", &json!("user"))]);
    assert_eq!((&entries_of_ben[0]["before"], &entries_of_ben[0]["after"]), (&Value::Null, &Value::Null));
    assert_eq!(user_labels(&app, &ann_id).await, [json!("ann@new.example")], "labels of other users are kept");
    let rows_after = table_rows(&app.database.url, "change_log").await;
    assert_eq!(
        rows_before.len(),
        rows_before.iter().filter(|row| rows_after.contains(row)).count(),
        "erasure must not modify change-log rows"
    );
    app.admin.delete(&format!("{USERS_PATH}/{ann_id}?erase=false")).await.expect_problem(404, "user_not_found");
    assert_eq!(user_labels(&app, &ann_id).await, [json!("ann@new.example")]);
}

async fn already_deleted_user_can_still_be_erased_once(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    let (ann_id, _) = app.create_user("ann").await;
    let path = format!("{USERS_PATH}/{ann_id}?erase=true");
    app.admin.delete(&format!("{USERS_PATH}/{ann_id}")).await.expect(204);
    let rows_before = table_rows(&app.database.url, "change_log").await;
    let if_exists = [("if-match", "*")];
    app.admin.send(Method::DELETE, &path, &if_exists, None).await.expect_problem(412, "precondition_failed");
    app.admin.send(Method::DELETE, &path, &[("x-request-id", "erasure")], None).await.expect(204);
    app.admin.delete(&path).await.expect_problem(404, "user_not_found");
    app.admin
        .delete(&format!("{USERS_PATH}/{}?erase=true", uuid::Uuid::nil()))
        .await
        .expect_problem(404, "user_not_found");
    let rows_after = table_rows(&app.database.url, "change_log").await;
    assert_eq!(rows_after.len(), rows_before.len() + 1, "erasure appends one entry");
    assert!(rows_before.iter().all(|row| rows_after.contains(row)));
    let entry = &list_entries(&app, "").await[0];
    assert_eq!(
        (&entry["action"], &entry["entity"], &entry["user_id"]),
        (&json!("erased"), &json!("user"), &json!(ann_id))
    );
    assert_eq!((&entry["request_id"], &entry["user_label"]), (&json!("erasure"), &Value::Null));
    assert_eq!(user_labels(&app, &ann_id).await, [Value::Null]);
}

/// Returns the content of all tables as lower-case text; binary values are hexadecimal.
async fn dump_database(database: &Database) -> String {
    let mut dump = String::new();
    for table in table_names(&database.url).await {
        dump += &table_rows(&database.url, &table).await.join("\n").to_lowercase();
    }
    dump
}

async fn erasure_removes_the_external_id(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    app.create_boolean_flag("f").await;
    let body = json!({"flag_name": "f", "override_value": true});
    let path = format!("{}?create_users=true", user_overrides_path("ext:canary-7"));
    let created = app.admin.send_json(Method::POST, &path, &[("Idempotency-Key", "k")], &body).await.expect(201).json();
    let user_id = created["user_id"].as_str().unwrap();
    assert_eq!(user_labels(&app, user_id).await, [json!("canary-7")]);
    assert!(dump_database(&app.database).await.contains("canary"));
    let log = table_rows(&app.database.url, "change_log").await.join("\n");
    assert!(!log.contains("canary"), "the change log holds the id alone: {log}");
    app.admin.delete(&format!("{USERS_PATH}/ext:canary-7")).await.expect(204);
    assert_eq!(user_labels(&app, user_id).await, [json!("canary-7")], "deletion keeps the label");
    // The id is derived, so the deleted user can still be named by its external id.
    app.admin.delete(&format!("{USERS_PATH}/ext:canary-7?erase=true")).await.expect(204);
    assert_eq!(user_labels(&app, user_id).await, [Value::Null]);
    let hex = "canary".bytes().map(|byte| format!("{byte:02x}")).collect::<String>();
    let dump = dump_database(&app.database).await;
    assert!(!dump.contains("canary") && !dump.contains(&hex), "{dump}");
}

async fn erased_user_leaves_no_personal_data(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    app.create_boolean_flag("f").await;
    let post_with_key = async |path: &str, key: &str, body: Value| {
        app.admin.send_json(Method::POST, path, &[("Idempotency-Key", key)], &body).await
    };
    let canary = json!({"email": "canary@example.com", "display_name": "Canary", "attributes": {"pet": "canary"}});
    let created = post_with_key(USERS_PATH, "k1", canary.clone()).await.expect(201).json();
    let ben = post_with_key(USERS_PATH, "k2", json!({"email": "ben@example.com"})).await.expect(201).json();
    let user_id = created["id"].as_str().unwrap();
    post_with_key(&user_overrides_path(user_id), "k3", json!({"flag_name": "f", "override_value": true}))
        .await
        .expect(201);
    let input = NewToken {
        name: "Canary's laptop".to_owned(),
        grant: TokenGrant::Role(Role::User),
        user_id: user_id.parse().ok(),
        expires_at: None,
    };
    TokenService::new(app.core.clone()).create(command_author(), input).await.unwrap();
    app.admin.patch(&format!("{USERS_PATH}/{user_id}"), &json!({"display_name": "The Canary"})).await.expect(200);
    let hex = "canary".bytes().map(|byte| format!("{byte:02x}")).collect::<String>();
    let dump_before = dump_database(&app.database).await;
    assert!(
        dump_before.contains("canary") && dump_before.contains(&hex),
        "stored idempotent responses contain the canary as well"
    );
    app.admin.delete(&format!("{USERS_PATH}/{user_id}?erase=true")).await.expect(204);
    let dump_after = dump_database(&app.database).await;
    assert!(!dump_after.contains("canary") && !dump_after.contains(&hex), "{dump_after}");
    // Stored responses about other users are kept.
    let replayed = post_with_key(USERS_PATH, "k2", json!({"email": "ben@example.com"})).await.expect(201).json();
    assert_eq!(replayed, ben);
    // The stored response about the erased user is removed, so the same key executes a new request.
    let created_again = post_with_key(USERS_PATH, "k1", canary).await.expect(201).json();
    assert_ne!(created_again["id"], created["id"]);
}

async fn user_with_many_overrides_is_erased_in_the_last_deletion_batch(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    let (ann_id, _) = app.create_user("ann").await;
    let mut tx = app.core.store().begin(app.core.now()).await.unwrap();
    for number in 0..1_001 {
        seed::insert_override(&mut tx, ann_id.parse().unwrap(), &format!("f{number}"), None).await;
    }
    tx.commit(&author()).await.unwrap();
    app.admin.delete(&format!("{USERS_PATH}/{ann_id}?erase=true")).await.expect(204);
    let last_revision = app.replica.revision().number;
    let change_log = app.change_log().await;
    let erasure_revisions: Vec<_> =
        change_log.iter().filter(|(_, action, _)| action == "erased").map(|(revision, ..)| *revision).collect();
    assert_eq!(erasure_revisions, [last_revision]);
    let page = app.admin.get(&format!("{AUDIT_LOG_PATH}?user_id={ann_id}&limit=3")).await.expect(200).json();
    assert_eq!(page["items"][0]["user_label"], Value::Null);
    assert_eq!(page["total"], 2 * 1_001 + 6);
}

async fn audit_entries_of_an_erased_admin_are_kept(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    let (ada_id, ada) = app.create_user_with("ada", "admin", json!({})).await;
    app.create_user_with("eve", "admin", json!({})).await;
    ada.post(USERS_PATH, &json!({"email": "ann@example.com"})).await.expect(201);
    // An admin may erase their own account.
    ada.delete(&format!("{USERS_PATH}/{ada_id}?erase=true")).await.expect(204);
    let entries = list_entries(&app, &format!("actor=user:{ada_id}")).await;
    assert_eq!(entries.len(), 4, "user created, token deleted, user deleted, user erased");
    assert!(entries.iter().all(|entry| entry["actor"] == json!({"id": format!("user:{ada_id}"), "label": null})));
    assert_eq!(entries[3]["user_label"], "ann@example.com");
}
