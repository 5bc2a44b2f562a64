//! The audit trail over HTTP: what it says, how it is filtered, and what erasure leaves of it.

use reqwest::Method;
use serde_json::{Value, json};

use flags_domain::Instant;
use flags_service::credentials::tokens::{TokenInput, TokenService};
use flags_store::{Author, api_tokens::Grant, users::Role};
use flags_tests::{
    app::{TestApp, author, override_at, overrides_of},
    database::{Database, Kind, rows, tables, try_tamper},
    on_both_databases, seed,
};

on_both_databases! {
    an_entry_says_who_did_what_when_and_why,
    every_filter_lets_through_what_it_names_and_nothing_else,
    pages_joined_are_the_whole,
    what_cannot_be_meant_is_refused,
    labels_outlive_deletion_but_not_erasure,
    who_was_deleted_before_can_be_erased_once,
    nothing_is_left_of_an_erased_user,
    a_user_with_very_many_overrides_is_erased_with_the_last,
    an_admin_who_is_erased_keeps_what_they_did,
    rows_that_make_no_sense_are_shown_as_they_are,
}

const LOG: &str = "/api/admin/audit-log";
const USERS: &str = "/api/admin/users";

async fn items(app: &TestApp, query: &str) -> Vec<Value> {
    let list = app.admin.get(&format!("{LOG}?limit=200&{query}")).await.expect(200).json();
    assert_eq!((&list["next_cursor"], &list["total_is_exact"]), (&Value::Null, &json!(true)));
    assert_eq!(list["total"], list["items"].as_array().unwrap().len());
    list["items"].as_array().unwrap().clone()
}

async fn an_entry_says_who_did_what_when_and_why(kind: Kind) {
    let app = TestApp::start(kind).await;
    let (ada_id, ada) = app.user_with("ada", "admin", json!({})).await;
    let (ann, _) = app.user("ann").await;
    app.boolean_flag("f").await;
    app.clock_to("01-01T00:00:05.25Z");
    let made = json!({"override_value": true, "reason": "beta test"});
    let path = override_at(&ann, "f");
    let made = ada.json(Method::PUT, &path, &[("x-request-id", "request.1")], &made).await.expect(201).json();
    app.admin.patch(&path, &json!({"override_value": false, "reason": "no more"})).await.expect(200);
    let log = items(&app, "").await;
    let (patched, created) = (&log[0], &log[1]);
    let revision = made["revision"].as_i64().unwrap();
    assert_eq!(
        (&created["revision"], &created["at"], &created["action"], &created["entity"]),
        (&json!(revision), &json!("2030-01-01T00:00:05.25Z"), &json!("created"), &json!("override"))
    );
    assert_eq!(created["actor"], json!({"id": format!("user:{ada_id}"), "label": "ada@example.com"}));
    assert_eq!((&created["flag_name"], &created["entity_id"]), (&json!("f"), &made["id"]));
    assert_eq!((&created["user_id"], &created["user_label"]), (&json!(ann), &json!("ann@example.com")));
    assert_eq!((&created["reason"], &created["request_id"]), (&json!("beta test"), &json!("request.1")));
    assert_eq!((&created["before"], &created["after"]["override_value"]), (&Value::Null, &json!(true)));
    assert_eq!(patched["before"], created["after"]);
    assert_eq!((&patched["after"]["override_value"], &patched["reason"]), (&json!(false), &json!("no more")));
    assert_eq!((&patched["action"], &patched["revision"]), (&json!("updated"), &json!(revision + 1)));
    let actor = patched["actor"].as_object().unwrap();
    assert!(actor["id"].as_str().unwrap().starts_with("token:") && actor["label"] == "test", "{actor:?}");
    let token = items(&app, "action=created").await.into_iter().find(|entry| entry["entity"] == "api_token").unwrap();
    assert_eq!(token["entity_label"], "test");
    assert_eq!(token["actor"], json!({"id": "system:test", "label": null}));
    assert_eq!(token["after"].get("name"), None, "names stand in the labels alone");
}

/// A log with a bit of everything.
async fn scene(kind: Kind) -> (TestApp, String) {
    let app = TestApp::start(kind).await;
    let (ann, _) = app.user("ann").await;
    let (ben, _) = app.user("ben").await;
    let (_, ada) = app.user_with("ada", "admin", json!({})).await;
    for (second, name) in ["a", "b", "c"].into_iter().enumerate() {
        app.clock_to(&format!("01-01T00:00:0{}Z", second + 1));
        app.boolean_flag(name).await;
        app.admin.put(&override_at(&ann, name), &json!({"override_value": true, "reason": name})).await.expect(201);
        ada.put(&override_at(&ben, name), &json!({"override_value": true})).await.expect(201);
    }
    app.clock_to("01-01T00:00:04Z");
    let change = json!({"scheduled_at": "2030-01-01T00:00:09Z", "serve": {"variant": "on"}});
    app.admin.post("/api/admin/feature-flags/a/scheduled-changes", &change).await.expect(201);
    app.admin.patch(&override_at(&ann, "a"), &json!({"enabled": false})).await.expect(200);
    app.admin.post("/api/admin/feature-flags/c/archive", &json!({})).await.expect(200);
    app.clock_to("01-01T00:00:05Z");
    ada.delete(&format!("{USERS}/{ben}")).await.expect(204);
    (app, ann)
}

async fn every_filter_lets_through_what_it_names_and_nothing_else(kind: Kind) {
    let (app, ann) = scene(kind).await;
    let whole = items(&app, "").await;
    let ada = whole[0]["actor"]["id"].as_str().unwrap().to_owned();
    let at = |entry: &Value| Instant::parse(entry["at"].as_str().unwrap()).unwrap();
    let second = |n: i64| Instant::parse("2030-01-01T00:00:00Z").unwrap().plus_micros(n * 1_000_000);
    type Test<'t> = Box<dyn Fn(&Value) -> bool + 't>;
    let cases: Vec<(String, Test<'_>)> = vec![
        (format!("actor={ada}"), Box::new(|entry| entry["actor"]["id"] == ada.as_str())),
        ("actor=system%3Atest".to_owned(), Box::new(|entry| entry["actor"]["id"] == "system:test")),
        ("flag_name=a".to_owned(), Box::new(|entry| entry["flag_name"] == "a")),
        (format!("user_id={ann}"), Box::new(|entry| entry["user_id"] == ann.as_str())),
        ("action=created".to_owned(), Box::new(|entry| entry["action"] == "created")),
        ("action=deleted".to_owned(), Box::new(|entry| entry["action"] == "deleted")),
        ("action=archived".to_owned(), Box::new(|entry| entry["action"] == "archived")),
        ("since=2030-01-01T00:00:02Z".to_owned(), Box::new(|entry| at(entry) >= second(2))),
        ("until=2030-01-01T00:00:04Z".to_owned(), Box::new(|entry| at(entry) < second(4))),
        (
            "since=2030-01-01T01:00:02%2B01:00&until=2030-01-01T00:00:03Z".to_owned(),
            Box::new(|entry| at(entry) >= second(2) && at(entry) < second(3)),
        ),
        (
            format!("flag_name=b&user_id={ann}&action=created"),
            Box::new(|entry| {
                entry["flag_name"] == "b" && entry["user_id"] == ann.as_str() && entry["action"] == "created"
            }),
        ),
    ];
    for (query, test) in cases {
        let expected: Vec<_> = whole.iter().filter(|entry| test(entry)).cloned().collect();
        assert!(!expected.is_empty() && expected.len() < whole.len(), "{query} tells nothing");
        assert_eq!(items(&app, &query).await, expected, "{query}");
    }
    for nothing in ["flag_name=nope", "actor=user:nobody", "action=expired", "since=2031-01-01T00:00:00Z"] {
        assert!(items(&app, nothing).await.is_empty(), "{nothing}");
    }
    let ben = whole.iter().find(|entry| entry["user_label"] == "ben@example.com").unwrap()["user_id"].clone();
    let of_ben = items(&app, &format!("user_id={}", ben.as_str().unwrap())).await;
    assert!(of_ben.iter().any(|entry| entry["entity"] == "user" && entry["action"] == "deleted"));
    assert!(of_ben.iter().any(|entry| entry["entity"] == "override" && entry["action"] == "deleted"));
}

async fn pages_joined_are_the_whole(kind: Kind) {
    let (app, _) = scene(kind).await;
    let whole = items(&app, "").await;
    let revisions: Vec<_> = whole.iter().map(|entry| entry["revision"].as_i64().unwrap()).collect();
    assert!(revisions.is_sorted_by(|a, b| a >= b), "{revisions:?}");
    assert!(revisions.windows(2).any(|pair| pair[0] == pair[1]), "some revision has several entries");
    // Within a revision as well the last comes first: the user went after what was theirs.
    assert_eq!((&whole[0]["entity"], &whole[1]["entity"]), (&json!("user"), &json!("api_token")));
    for query in ["", "&action=created", "&actor=system%3Atest"] {
        let whole = items(&app, query.trim_start_matches('&')).await;
        for limit in [1, 2, 3, 7] {
            let mut joined = Vec::new();
            let mut cursor = String::new();
            loop {
                let page = app.admin.get(&format!("{LOG}?limit={limit}{query}{cursor}")).await.expect(200).json();
                assert_eq!(page["total"], whole.len());
                let items = page["items"].as_array().unwrap();
                assert!(items.len() <= limit);
                joined.extend(items.iter().cloned());
                let Some(next) = page["next_cursor"].as_str() else { break };
                cursor = format!("&cursor={next}");
            }
            assert_eq!(joined, whole, "limit {limit}, {query:?}");
        }
    }
    // What is done between two pages stands above, and moves nothing.
    let first = app.admin.get(&format!("{LOG}?limit=3")).await.expect(200).json();
    app.admin.post(USERS, &json!({"email": "late@example.com"})).await.expect(201);
    let cursor = first["next_cursor"].as_str().unwrap();
    let rest = app.admin.get(&format!("{LOG}?limit=200&cursor={cursor}")).await.expect(200).json();
    assert_eq!(rest["items"].as_array().unwrap()[..], whole[3..]);
}

async fn what_cannot_be_meant_is_refused(kind: Kind) {
    let app = TestApp::start(kind).await;
    for (query, pointer, code) in [
        ("nope=1", "/nope", "unknown_parameter"),
        ("action=nope", "/action", "invalid_parameter"),
        ("user_id=nope", "/user_id", "invalid_parameter"),
        ("since=yesterday", "/since", "invalid_parameter"),
        ("until=", "/until", "invalid_parameter"),
        ("actor=%00", "/actor", "nul_character"),
    ] {
        app.admin.get(&format!("{LOG}?{query}")).await.expect_violation(pointer, code);
        app.admin.get(&format!("{LOG}/export?{query}")).await.expect_violation(pointer, code);
    }
    app.admin.get(&format!("{LOG}?cursor=nope")).await.expect_violation("/cursor", "invalid_parameter");
    app.admin.get(&format!("{LOG}?limit=0")).await.expect_violation("/limit", "invalid_parameter");
    app.admin.get(&format!("{LOG}?format=csv")).await.expect_violation("/format", "unknown_parameter");
    app.admin.get(&format!("{LOG}/export?format=xml")).await.expect_violation("/format", "invalid_parameter");
    app.admin.get(&format!("{LOG}/export?limit=1")).await.expect_violation("/limit", "unknown_parameter");
    app.admin.delete(LOG).await.expect_problem(405, "method_not_allowed");
    let (_, user) = app.user("ann").await;
    let (_, viewer) = app.user_with("vera", "viewer", json!({})).await;
    for path in [LOG, "/api/admin/audit-log/export"] {
        app.nobody.get(path).await.expect_problem(401, "unauthorized");
        user.get(path).await.expect_problem(403, "forbidden");
        app.caller(Grant::Evaluate, None, None).await.get(path).await.expect_problem(403, "forbidden");
        viewer.get(path).await.expect(200);
    }
}

/// The labels that entries about this user show, each once.
async fn labels_of(app: &TestApp, id: &str) -> Vec<Value> {
    let mut labels: Vec<Value> =
        items(app, &format!("user_id={id}")).await.iter().map(|entry| entry["user_label"].clone()).collect();
    assert!(!labels.is_empty());
    labels.dedup();
    labels
}

async fn labels_outlive_deletion_but_not_erasure(kind: Kind) {
    let app = TestApp::start(kind).await;
    let (ann, _) = app.user("ann").await;
    let (ben, _) = app.user("ben").await;
    app.admin.patch(&format!("{USERS}/{ann}"), &json!({"email": "ann@new.example"})).await.expect(200);
    assert_eq!(labels_of(&app, &ann).await, [json!("ann@new.example")], "the latest");
    app.admin.delete(&format!("{USERS}/{ann}")).await.expect(204);
    assert_eq!(labels_of(&app, &ann).await, [json!("ann@new.example")], "kept");
    let token =
        |log: &[Value]| log.iter().find(|entry| entry["entity"] == "api_token").unwrap()["entity_label"].clone();
    assert_eq!(token(&items(&app, &format!("user_id={ann}")).await), "test");
    let before = rows(&app.database.url, "change_log").await;
    let erased = app.admin.delete(&format!("{USERS}/{ben}?erase=true")).await.expect(204);
    assert!(erased.header("flags-revision").contains(':'));
    assert_eq!(labels_of(&app, &ben).await, [Value::Null]);
    let of_ben = items(&app, &format!("user_id={ben}")).await;
    assert_eq!(token(&of_ben), Value::Null, "the names of a user's tokens are the user's");
    let kinds: Vec<_> = of_ben.iter().map(|entry| (entry["action"].as_str().unwrap(), &entry["entity"])).collect();
    assert_eq!(kinds[..2], [("erased", &json!("user")), ("deleted", &json!("user"))]);
    assert_eq!((&of_ben[0]["before"], &of_ben[0]["after"]), (&Value::Null, &Value::Null));
    assert_eq!(labels_of(&app, &ann).await, [json!("ann@new.example")], "nobody else's");
    let after = rows(&app.database.url, "change_log").await;
    assert_eq!(
        before.len(),
        before.iter().filter(|row| after.contains(row)).count(),
        "not a byte of a row is different"
    );
    app.admin.delete(&format!("{USERS}/{ann}?erase=false")).await.expect_problem(404, "user_not_found");
    assert_eq!(labels_of(&app, &ann).await, [json!("ann@new.example")]);
}

async fn who_was_deleted_before_can_be_erased_once(kind: Kind) {
    let app = TestApp::start(kind).await;
    let (ann, _) = app.user("ann").await;
    let path = format!("{USERS}/{ann}?erase=true");
    app.admin.delete(&format!("{USERS}/{ann}")).await.expect(204);
    let before = rows(&app.database.url, "change_log").await;
    let expected = [("if-match", "*")];
    app.admin.send(Method::DELETE, &path, &expected, None).await.expect_problem(412, "precondition_failed");
    app.admin.send(Method::DELETE, &path, &[("x-request-id", "erasure")], None).await.expect(204);
    app.admin.delete(&path).await.expect_problem(404, "user_not_found");
    app.admin.delete(&format!("{USERS}/{}?erase=true", uuid::Uuid::nil())).await.expect_problem(404, "user_not_found");
    let after = rows(&app.database.url, "change_log").await;
    assert_eq!(after.len(), before.len() + 1, "one entry");
    assert!(before.iter().all(|row| after.contains(row)));
    let entry = &items(&app, "").await[0];
    assert_eq!(
        (&entry["action"], &entry["entity"], &entry["user_id"]),
        (&json!("erased"), &json!("user"), &json!(ann))
    );
    assert_eq!((&entry["request_id"], &entry["user_label"]), (&json!("erasure"), &Value::Null));
    assert_eq!(labels_of(&app, &ann).await, [Value::Null]);
}

/// Everything that the database holds, as text. Bytes are hexadecimal numbers.
async fn everything(database: &Database) -> String {
    let mut all = String::new();
    for table in tables(&database.url).await {
        all += &rows(&database.url, &table).await.join("\n").to_lowercase();
    }
    all
}

async fn nothing_is_left_of_an_erased_user(kind: Kind) {
    let app = TestApp::start(kind).await;
    app.boolean_flag("f").await;
    let post = async |path: &str, key: &str, body: Value| {
        app.admin.json(Method::POST, path, &[("Idempotency-Key", key)], &body).await
    };
    let new = json!({"email": "canary@example.com", "display_name": "Canary", "attributes": {"pet": "canary"}});
    let made = post(USERS, "k1", new.clone()).await.expect(201).json();
    let other = post(USERS, "k2", json!({"email": "ben@example.com"})).await.expect(201).json();
    let ann = made["id"].as_str().unwrap();
    post(&overrides_of(ann), "k3", json!({"flag_name": "f", "override_value": true})).await.expect(201);
    let input = TokenInput {
        name: "Canary's laptop".to_owned(),
        grant: Grant::Role(Role::User),
        user_id: ann.parse().ok(),
        expires_at: None,
    };
    TokenService::new(app.core.clone()).create(author(), input).await.unwrap();
    app.admin.patch(&format!("{USERS}/{ann}"), &json!({"display_name": "The Canary"})).await.expect(200);
    let hex = "canary".bytes().map(|byte| format!("{byte:02x}")).collect::<String>();
    let before = everything(&app.database).await;
    assert!(before.contains("canary") && before.contains(&hex), "the kept answers among them");
    app.admin.delete(&format!("{USERS}/{ann}?erase=true")).await.expect(204);
    let after = everything(&app.database).await;
    assert!(!after.contains("canary") && !after.contains(&hex), "{after}");
    // Answers that speak of others are still kept.
    let again = post(USERS, "k2", json!({"email": "ben@example.com"})).await.expect(201).json();
    assert_eq!(again, other);
    // The erased user's are not: the request is a new one.
    let anew = post(USERS, "k1", new).await.expect(201).json();
    assert_ne!(anew["id"], made["id"]);
}

async fn a_user_with_very_many_overrides_is_erased_with_the_last(kind: Kind) {
    let app = TestApp::start(kind).await;
    let (ann, _) = app.user("ann").await;
    let mut tx = app.core.store().begin(app.core.now()).await.unwrap();
    for number in 0..1_001 {
        seed::insert_override(&mut tx, ann.parse().unwrap(), &format!("f{number}"), None).await;
    }
    tx.commit(&author()).await.unwrap();
    app.admin.delete(&format!("{USERS}/{ann}?erase=true")).await.expect(204);
    let last = app.replica.revision().number;
    let log = app.log().await;
    let erased: Vec<_> =
        log.iter().filter(|(_, action, _)| action == "erased").map(|(revision, ..)| *revision).collect();
    assert_eq!(erased, [last]);
    let page = app.admin.get(&format!("{LOG}?user_id={ann}&limit=3")).await.expect(200).json();
    assert_eq!(page["items"][0]["user_label"], Value::Null);
    assert_eq!(page["total"], 2 * 1_001 + 6);
}

async fn an_admin_who_is_erased_keeps_what_they_did(kind: Kind) {
    let app = TestApp::start(kind).await;
    let (ada, ada_calls) = app.user_with("ada", "admin", json!({})).await;
    app.user_with("eve", "admin", json!({})).await;
    ada_calls.post(USERS, &json!({"email": "ann@example.com"})).await.expect(201);
    // Themselves, even.
    ada_calls.delete(&format!("{USERS}/{ada}?erase=true")).await.expect(204);
    let done = items(&app, &format!("actor=user:{ada}")).await;
    assert_eq!(done.len(), 4, "a user made; a token and a user deleted, and erased");
    assert!(done.iter().all(|entry| entry["actor"] == json!({"id": format!("user:{ada}"), "label": null})));
    assert_eq!(done[3]["user_label"], "ann@example.com");
}

async fn rows_that_make_no_sense_are_shown_as_they_are(kind: Kind) {
    let app = TestApp::start(kind).await;
    app.boolean_flag("a").await;
    let (id, rubbish) = match kind {
        Kind::Postgres => ("gen_random_uuid()", r#"'"text"'"#),
        Kind::Sqlite => ("randomblob(16)", "'{rubbish'"),
    };
    let insert = format!(
        "INSERT INTO change_log SELECT 1000000, 0, {id}, at, 'somebody', 'nonsense', 'thing', NULL, 'No Flag', NULL, {rubbish},
             NULL, NULL, NULL FROM change_log WHERE flag_name = 'a'"
    );
    flags_tests::database::tamper(&app.database.url, &insert).await;
    let log = items(&app, "").await;
    let strange = &log[0];
    assert_eq!((&strange["action"], &strange["entity"]), (&json!("nonsense"), &json!("thing")));
    assert_eq!((&strange["flag_name"], &strange["actor"]["id"]), (&json!("No Flag"), &json!("somebody")));
    match kind {
        Kind::Postgres => assert_eq!(strange["before"], "text"),
        Kind::Sqlite => assert!(strange["before"]["unreadable"].is_string(), "{strange}"),
    }
    assert_eq!(log[1]["flag_name"], "a");
    let lines = app.admin.get(&format!("{LOG}/export")).await.expect(200).text;
    assert_eq!(lines.lines().count(), log.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlite_refuses_to_change_or_remove_what_was_logged() {
    let database = Database::migrated(Kind::Sqlite).await;
    let store = database.store().await;
    for email in ["a@example.com", "b@example.com", "c@example.com"] {
        let mut tx = store.begin(Instant::from_micros(1)).await.unwrap();
        seed::insert_user(&mut tx, email).await;
        tx.commit(&Author { actor: "user:1".to_owned(), request_id: None }).await.unwrap();
    }
    let before = rows(&database.url, "change_log").await;
    for attempt in [
        "UPDATE change_log SET actor = 'x' WHERE revision = 2",
        "UPDATE change_log SET revision = 9 WHERE revision = 2",
        "UPDATE OR REPLACE change_log SET revision = 1 WHERE revision = 2",
        "DELETE FROM change_log WHERE revision = 2",
        "DELETE FROM change_log",
        "INSERT OR REPLACE INTO change_log SELECT revision, ord, randomblob(16), at, 'x', action, entity, entity_id, flag_name,
             user_id, before, after, reason, request_id FROM change_log WHERE revision = 2",
        "INSERT OR REPLACE INTO change_log SELECT 99, ord, id, at, 'x', action, entity, entity_id, flag_name,
             user_id, before, after, reason, request_id FROM change_log WHERE revision = 2",
        "DELETE FROM log_head; DELETE FROM change_log",
    ] {
        let attempt = format!("BEGIN; {attempt}; COMMIT");
        let refused = try_tamper(&database.url, &attempt).await.expect_err(&attempt);
        assert!(refused.contains("a row of change_log cannot be"), "{attempt}: {refused}");
        assert_eq!(rows(&database.url, "change_log").await, before, "{attempt}");
    }
    // The worker's way: first the head says that the log begins later, then the rows go.
    let purged = flags_store::change_log::purge(&store, Instant::from_micros(2), 2).await.unwrap();
    assert_eq!(purged, 2);
    assert_eq!(rows(&database.url, "change_log").await.len(), 1);
    try_tamper(&database.url, "DELETE FROM change_log WHERE revision = 3").await.unwrap_err();
}
