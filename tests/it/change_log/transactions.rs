//! Transactions: rollback, revisions and change-log entries.

use flags_domain::Instant;
use flags_service::credentials::tokens::{NewToken, TokenService};
use flags_store::{
    Author,
    api_tokens::TokenGrant,
    change_log::{self, Action, ResourceKind},
    users::{self, Role, TakenProperty, UserRecord},
};
use serde_json::json;

use flags_tests::{
    app::{TestApp, author, command_author, override_path},
    database::{self, Database, DatabaseKind},
    on_both_databases,
};

use super::new_user;

on_both_databases! {
    dropped_transaction_is_rolled_back,
    transaction_without_changes_takes_no_revision,
    reading_the_change_log_in_batches_never_splits_a_revision,
    change_log_contains_no_personal_data,
    duplicate_email_is_rejected_on_insert_and_update,
}

async fn dropped_transaction_is_rolled_back(kind: DatabaseKind) {
    let database = Database::migrated(kind).await;
    let store = database.store().await;
    let ann = new_user("ann@example.com");
    for _ in 0..40 {
        let mut tx = store.begin(ann.created_at).await.unwrap();
        assert_eq!(users::insert(&mut tx, &ann).await.unwrap(), None);
        drop(tx);
    }
    let mut tx = store.begin(ann.created_at).await.unwrap();
    assert_eq!(users::insert(&mut tx, &ann).await.unwrap(), None);
    tx.rollback().await.unwrap();
    let mut conn = store.conn().await.unwrap();
    assert!(users::find(&mut conn, ann.id).await.unwrap().is_none());
    assert_eq!(change_log::head(&mut conn).await.unwrap().number, 0);
}

async fn transaction_without_changes_takes_no_revision(kind: DatabaseKind) {
    let database = Database::migrated(kind).await;
    let store = database.store().await;
    let tx = store.begin(Instant::from_micros(1)).await.unwrap();
    let committed = tx.commit(&author()).await.unwrap();
    assert_eq!((committed.revision().number, committed.entries().len()), (0, 0));
}

async fn reading_the_change_log_in_batches_never_splits_a_revision(kind: DatabaseKind) {
    let database = Database::migrated(kind).await;
    let store = database.store().await;
    let revision_sizes = [3, 1, 5, 2];
    for (revision, size) in revision_sizes.into_iter().enumerate() {
        let mut tx = store.begin(Instant::from_micros(1)).await.unwrap();
        for number in 0..size {
            assert_eq!(
                users::insert(&mut tx, &new_user(&format!("u{revision}-{number}@example.com"))).await.unwrap(),
                None
            );
        }
        let author = Author { actor: "user:1".to_owned(), request_id: Some("r".to_owned()) };
        assert_eq!(tx.commit(&author).await.unwrap().revision().number, revision as i64 + 1);
    }
    let mut conn = store.conn().await.unwrap();
    for limit in 1..15 {
        let mut last_read = 0;
        let mut entry_counts = Vec::new();
        loop {
            let (_, rows) = change_log::read_after(&mut conn, last_read, limit).await.unwrap();
            let Some(last) = rows.last() else { break };
            last_read = last.summary.revision;
            for rows in rows.chunk_by(|a, b| a.summary.revision == b.summary.revision) {
                entry_counts.push(rows.len());
                assert!(rows.iter().enumerate().all(|(index, row)| row.summary.ord as usize == index));
            }
        }
        assert_eq!(entry_counts, revision_sizes, "limit {limit}");
    }
}

async fn change_log_contains_no_personal_data(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    let body = json!({"email": "canary@example.com", "display_name": "Canary", "attributes": {"secret": "canary"}});
    let id = app.admin.post("/api/admin/users", &body).await.expect(201).json()["id"].as_str().unwrap().to_owned();
    let path = format!("/api/admin/users/{id}");
    let patch =
        json!({"email": "canary2@example.com", "display_name": "Canary Two", "attributes": {"other": "canary"}});
    app.admin.patch(&path, &patch).await.expect(200);
    app.create_boolean_flag("f").await;
    app.admin.put(&override_path(&id, "f"), &json!({"override_value": true})).await.expect(201);
    let grant = TokenGrant::Role(Role::User);
    let input = NewToken { name: "Canary's laptop".to_owned(), grant, user_id: id.parse().ok(), expires_at: None };
    TokenService::new(app.core.clone()).create(command_author(), input).await.unwrap();
    app.admin.delete(&path).await.expect(204);
    let mut conn = app.core.store().conn().await.unwrap();
    let (_, rows) = change_log::read_after(&mut conn, 0, 1_000).await.unwrap();
    let raw_rows = database::table_rows(&app.database.url, "change_log").await;
    assert_eq!(raw_rows.len(), rows.len());
    let dump = raw_rows.join("\n").to_lowercase();
    assert_eq!(
        rows.iter().filter(|row| row.summary.resource_kind == ResourceKind::ApiToken).count(),
        3,
        "two tokens created, one deleted"
    );
    assert!(!dump.contains("canary"), "{dump}");
    let user_update = rows
        .iter()
        .find(|row| row.summary.resource_kind == ResourceKind::User && row.summary.action == Action::Updated)
        .unwrap();
    assert_eq!(user_update.after.as_ref().unwrap()["changed"], json!(["email", "display_name", "attributes"]));
}

async fn duplicate_email_is_rejected_on_insert_and_update(kind: DatabaseKind) {
    let database = Database::migrated(kind).await;
    let store = database.store().await;
    let (ann, ben) = (new_user("ann@example.com"), new_user("ben@example.com"));
    let mut tx = store.begin(ann.created_at).await.unwrap();
    assert_eq!(users::insert(&mut tx, &ann).await.unwrap(), None);
    let taken = users::insert(&mut tx, &new_user("ANN@EXAMPLE.COM")).await.unwrap();
    assert_eq!(taken, Some(TakenProperty::Email));
    assert_eq!(users::insert(&mut tx, &ben).await.unwrap(), None);
    let renamed = UserRecord { email: Some("Ann@example.com".to_owned()), ..ben.clone() };
    assert_eq!(users::update(&mut tx, &ben, &renamed).await.unwrap(), Some(TakenProperty::Email));
}
