//! The log: the only way to change state, dense, and free of personal fields.

use flags_service::credentials::tokens::{TokenInput, TokenService};
use flags_store::{Author, StoreError, api_tokens::Grant, change_log, users};
use serde_json::json;

use flags_tests::{
    app::{TestApp, author, override_at},
    database::{self, Database, Kind},
    on_both_databases, seed,
};

on_both_databases! {
    a_transaction_that_is_dropped_leaves_nothing_behind,
    a_transaction_that_records_nothing_takes_no_revision,
    reading_on_never_cuts_a_revision_in_two,
    the_log_holds_no_email_and_no_name,
    a_duplicate_is_told_apart,
    a_replica_that_follows_equals_one_that_loads,
}

fn user(email: &str) -> users::UserRecord {
    seed::user(email, flags_domain::Instant::from_micros(1))
}

async fn a_transaction_that_is_dropped_leaves_nothing_behind(kind: Kind) {
    let database = Database::migrated(kind).await;
    let store = database.store().await;
    let ann = user("ann@example.com");
    for _ in 0..40 {
        let mut tx = store.begin(ann.created_at).await.unwrap();
        assert!(users::insert(&mut tx, &ann).await.unwrap());
        drop(tx);
    }
    let mut tx = store.begin(ann.created_at).await.unwrap();
    assert!(users::insert(&mut tx, &ann).await.unwrap());
    tx.rollback().await.unwrap();
    let mut conn = store.conn().await.unwrap();
    assert!(users::find(&mut conn, ann.id).await.unwrap().is_none());
    assert_eq!(change_log::head(&mut conn).await.unwrap().number, 0);
}

async fn a_transaction_that_records_nothing_takes_no_revision(kind: Kind) {
    let database = Database::migrated(kind).await;
    let store = database.store().await;
    let tx = store.begin(flags_domain::Instant::from_micros(1)).await.unwrap();
    let committed = tx.commit(&author()).await.unwrap();
    assert_eq!((committed.revision().number, committed.entries().len()), (0, 0));
}

async fn reading_on_never_cuts_a_revision_in_two(kind: Kind) {
    let database = Database::migrated(kind).await;
    let store = database.store().await;
    let sizes = [3, 1, 5, 2];
    for (revision, size) in sizes.into_iter().enumerate() {
        let mut tx = store.begin(flags_domain::Instant::from_micros(1)).await.unwrap();
        for number in 0..size {
            assert!(users::insert(&mut tx, &user(&format!("u{revision}-{number}@example.com"))).await.unwrap());
        }
        let author = Author { actor: "user:1".to_owned(), request_id: Some("r".to_owned()) };
        assert_eq!(tx.commit(&author).await.unwrap().revision().number, revision as i64 + 1);
    }
    let mut conn = store.conn().await.unwrap();
    for limit in 1..15 {
        let mut at = 0;
        let mut seen = Vec::new();
        loop {
            let (_, rows) = change_log::read_on(&mut conn, at, limit).await.unwrap();
            let Some(last) = rows.last() else { break };
            at = last.summary.revision;
            for rows in rows.chunk_by(|a, b| a.summary.revision == b.summary.revision) {
                seen.push(rows.len());
                assert!(rows.iter().enumerate().all(|(place, row)| row.summary.ord as usize == place));
            }
        }
        assert_eq!(seen, sizes, "limit {limit}");
    }
}

async fn the_log_holds_no_email_and_no_name(kind: Kind) {
    let app = TestApp::start(kind).await;
    let body = json!({"email": "canary@example.com", "display_name": "Canary", "attributes": {"secret": "canary"}});
    let id = app.admin.post("/api/admin/users", &body).await.expect(201).json()["id"].as_str().unwrap().to_owned();
    let path = format!("/api/admin/users/{id}");
    let patch =
        json!({"email": "canary2@example.com", "display_name": "Canary Two", "attributes": {"other": "canary"}});
    app.admin.patch(&path, &patch).await.expect(200);
    app.boolean_flag("f").await;
    app.admin.put(&override_at(&id, "f"), &json!({"override_value": true})).await.expect(201);
    let grant = Grant::Role(users::Role::User);
    let input = TokenInput { name: "Canary's laptop".to_owned(), grant, user_id: id.parse().ok(), expires_at: None };
    TokenService::new(app.core.clone()).create(author(), input).await.unwrap();
    app.admin.delete(&path).await.expect(204);
    let mut conn = app.core.store().conn().await.unwrap();
    let (_, rows) = change_log::read_on(&mut conn, 0, 1_000).await.unwrap();
    let whole = database::rows(&app.database.url, "change_log").await;
    assert_eq!(whole.len(), rows.len());
    let text = whole.join("\n").to_lowercase();
    assert_eq!(
        rows.iter().filter(|row| row.summary.entity == change_log::ResourceKind::ApiToken).count(),
        3,
        "made, made and gone"
    );
    assert!(!text.contains("canary"), "{text}");
    let changed = rows
        .iter()
        .find(|row| {
            row.summary.entity == change_log::ResourceKind::User && row.summary.action == change_log::Action::Updated
        })
        .unwrap();
    assert_eq!(changed.after.as_ref().unwrap()["changed"], json!(["email", "display_name", "attributes"]));
}

async fn a_duplicate_is_told_apart(kind: Kind) {
    let database = Database::migrated(kind).await;
    let store = database.store().await;
    let (ann, ben) = (user("ann@example.com"), user("ben@example.com"));
    let mut tx = store.begin(ann.created_at).await.unwrap();
    assert!(users::insert(&mut tx, &ann).await.unwrap());
    assert!(!users::insert(&mut tx, &user("ANN@EXAMPLE.COM")).await.unwrap());
    assert!(users::insert(&mut tx, &ben).await.unwrap());
    let renamed = users::UserRecord { email: "Ann@example.com".to_owned(), ..ben.clone() };
    let error = users::update(&mut tx, &ben, &renamed).await.unwrap_err();
    assert!(matches!(error, StoreError::Duplicate(_)), "{error}");
}

async fn a_replica_that_follows_equals_one_that_loads(kind: Kind) {
    let app = TestApp::start(kind).await;
    let (ann, ann_calls) = app.user_with("ann", "user", json!({"plan": "pro"})).await;
    for name in ["a", "b", "c", "d"] {
        app.boolean_flag(name).await;
        app.admin.put(&override_at(&ann, name), &json!({"override_value": true, "reason": name})).await.expect(201);
    }
    let change = json!({"scheduled_at": "2030-01-01T00:00:01Z", "serve": {"variant": "on"}});
    app.admin.post("/api/admin/feature-flags/a/scheduled-changes", &change).await.expect(201);
    app.admin.delete(&override_at(&ann, "a")).await.expect(204);
    app.admin.patch(&override_at(&ann, "b"), &json!({"enabled": false})).await.expect(200);
    app.admin.post("/api/admin/feature-flags/c/archive", &json!({})).await.expect(200);
    app.admin.post("/api/admin/feature-flags/d/archive", &json!({})).await.expect(200);
    app.admin.delete("/api/admin/feature-flags/d").await.expect(204);
    let loaded = flags_service::replica::Replica::new(flags_service::feed::load(app.core.store()).await.unwrap());
    let show = |replica: &flags_service::replica::Replica| {
        let view = replica.read();
        let flags: Vec<_> = view.flags().map(|flag| format!("{:?} {:?}", flag.flag(), flag.schedule())).collect();
        let overrides: Vec<_> = view.overrides_of(ann.parse().unwrap()).map(|o| format!("{o:?}")).collect();
        (view.revision(), flags, overrides)
    };
    assert_eq!(show(&app.replica), show(&loaded));
    app.clock_to("01-01T00:00:01Z");
    assert_eq!(ann_calls.get("/api/flags/me/a").await.json()["source"], "scheduled_change");
}
