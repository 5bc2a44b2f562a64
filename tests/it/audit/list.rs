//! List of audit-log entries.

use reqwest::Method;
use serde_json::{Value, json};

use flags_domain::Instant;
use flags_store::api_tokens::TokenGrant;
use flags_tests::{
    app::{TestApp, override_path},
    database::{DatabaseKind, execute_raw},
    on_both_databases,
};

use super::{AUDIT_LOG_PATH, EXPORT_PATH, USERS_PATH, list_entries};

on_both_databases! {
    audit_entry_records_actor_action_time_and_reason,
    each_audit_log_filter_selects_exactly_the_matching_entries,
    concatenated_audit_log_pages_equal_the_whole_list,
    audit_log_rejects_invalid_parameters_and_callers_without_permission,
    audit_log_returns_corrupt_rows_as_stored,
}

async fn audit_entry_records_actor_action_time_and_reason(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    let (ada_id, ada) = app.create_user_with("ada", "admin", json!({})).await;
    let (ann_id, _) = app.create_user("ann").await;
    app.create_boolean_flag("f").await;
    app.set_clock("01-01T00:00:05.25Z");
    let body = json!({"override_value": true, "reason": "beta test"});
    let path = override_path(&ann_id, "f");
    let created_override =
        ada.send_json(Method::PUT, &path, &[("x-request-id", "request.1")], &body).await.expect(201).json();
    app.admin.patch(&path, &json!({"override_value": false, "reason": "beta test ended"})).await.expect(200);
    let entries = list_entries(&app, "").await;
    let (updated_entry, created_entry) = (&entries[0], &entries[1]);
    let revision = created_override["revision"].as_i64().unwrap();
    assert_eq!(
        (&created_entry["revision"], &created_entry["at"], &created_entry["action"], &created_entry["entity"]),
        (&json!(revision), &json!("2030-01-01T00:00:05.25Z"), &json!("created"), &json!("override"))
    );
    assert_eq!(created_entry["actor"], json!({"id": format!("user:{ada_id}"), "label": "ada@example.com"}));
    assert_eq!((&created_entry["flag_name"], &created_entry["entity_id"]), (&json!("f"), &created_override["id"]));
    assert_eq!((&created_entry["user_id"], &created_entry["user_label"]), (&json!(ann_id), &json!("ann@example.com")));
    assert_eq!((&created_entry["reason"], &created_entry["request_id"]), (&json!("beta test"), &json!("request.1")));
    assert_eq!((&created_entry["before"], &created_entry["after"]["override_value"]), (&Value::Null, &json!(true)));
    assert_eq!(updated_entry["before"], created_entry["after"]);
    assert_eq!(
        (&updated_entry["after"]["override_value"], &updated_entry["reason"]),
        (&json!(false), &json!("beta test ended"))
    );
    assert_eq!((&updated_entry["action"], &updated_entry["revision"]), (&json!("updated"), &json!(revision + 1)));
    let actor = updated_entry["actor"].as_object().unwrap();
    assert!(actor["id"].as_str().unwrap().starts_with("token:") && actor["label"] == "test", "{actor:?}");
    let token_entry =
        list_entries(&app, "action=created").await.into_iter().find(|entry| entry["entity"] == "api_token").unwrap();
    assert_eq!(token_entry["entity_label"], "test");
    assert_eq!(token_entry["actor"], json!({"id": "system:test", "label": null}));
    assert_eq!(token_entry["after"].get("name"), None, "entries store no names; labels provide them");
}

/// Starts an application whose audit log contains most kinds of entries. Returns it and the id of the user "ann".
async fn app_with_history(kind: DatabaseKind) -> (TestApp, String) {
    let app = TestApp::start(kind).await;
    let (ann_id, _) = app.create_user("ann").await;
    let (ben_id, _) = app.create_user("ben").await;
    let (_, ada) = app.create_user_with("ada", "admin", json!({})).await;
    for (second, name) in ["a", "b", "c"].into_iter().enumerate() {
        app.set_clock(&format!("01-01T00:00:0{}Z", second + 1));
        app.create_boolean_flag(name).await;
        app.admin
            .put(&override_path(&ann_id, name), &json!({"override_value": true, "reason": name}))
            .await
            .expect(201);
        ada.put(&override_path(&ben_id, name), &json!({"override_value": true})).await.expect(201);
    }
    app.set_clock("01-01T00:00:04Z");
    let change = json!({"scheduled_at": "2030-01-01T00:00:09Z", "serve": {"variant": "on"}});
    app.admin.post("/api/admin/feature-flags/a/scheduled-changes", &change).await.expect(201);
    app.admin.patch(&override_path(&ann_id, "a"), &json!({"enabled": false})).await.expect(200);
    app.admin.post("/api/admin/feature-flags/c/archive", &json!({})).await.expect(200);
    app.set_clock("01-01T00:00:05Z");
    ada.delete(&format!("{USERS_PATH}/{ben_id}")).await.expect(204);
    (app, ann_id)
}

async fn each_audit_log_filter_selects_exactly_the_matching_entries(kind: DatabaseKind) {
    let (app, ann_id) = app_with_history(kind).await;
    let all_entries = list_entries(&app, "").await;
    let ada_actor = all_entries[0]["actor"]["id"].as_str().unwrap().to_owned();
    let instant = |entry: &Value| Instant::parse(entry["at"].as_str().unwrap()).unwrap();
    let second = |seconds: i64| Instant::parse("2030-01-01T00:00:00Z").unwrap().plus_micros(seconds * 1_000_000);
    type Predicate<'a> = Box<dyn Fn(&Value) -> bool + 'a>;
    let cases: Vec<(String, Predicate<'_>)> = vec![
        (format!("actor={ada_actor}"), Box::new(|entry| entry["actor"]["id"] == ada_actor.as_str())),
        ("actor=system%3Atest".to_owned(), Box::new(|entry| entry["actor"]["id"] == "system:test")),
        ("flag_name=a".to_owned(), Box::new(|entry| entry["flag_name"] == "a")),
        (format!("user_id={ann_id}"), Box::new(|entry| entry["user_id"] == ann_id.as_str())),
        ("action=created".to_owned(), Box::new(|entry| entry["action"] == "created")),
        ("action=deleted".to_owned(), Box::new(|entry| entry["action"] == "deleted")),
        ("action=archived".to_owned(), Box::new(|entry| entry["action"] == "archived")),
        ("since=2030-01-01T00:00:02Z".to_owned(), Box::new(|entry| instant(entry) >= second(2))),
        ("until=2030-01-01T00:00:04Z".to_owned(), Box::new(|entry| instant(entry) < second(4))),
        (
            "since=2030-01-01T01:00:02%2B01:00&until=2030-01-01T00:00:03Z".to_owned(),
            Box::new(|entry| instant(entry) >= second(2) && instant(entry) < second(3)),
        ),
        (
            format!("flag_name=b&user_id={ann_id}&action=created"),
            Box::new(|entry| {
                entry["flag_name"] == "b" && entry["user_id"] == ann_id.as_str() && entry["action"] == "created"
            }),
        ),
    ];
    for (query, matches) in cases {
        let expected: Vec<_> = all_entries.iter().filter(|entry| matches(entry)).cloned().collect();
        assert!(
            !expected.is_empty() && expected.len() < all_entries.len(),
            "{query} must select some entries, but not all"
        );
        assert_eq!(list_entries(&app, &query).await, expected, "{query}");
    }
    for query in ["flag_name=nope", "actor=user:unknown", "action=expired", "since=2031-01-01T00:00:00Z"] {
        assert!(list_entries(&app, query).await.is_empty(), "{query}");
    }
    let ben_id = all_entries.iter().find(|entry| entry["user_label"] == "ben@example.com").unwrap()["user_id"].clone();
    let entries_of_ben = list_entries(&app, &format!("user_id={}", ben_id.as_str().unwrap())).await;
    assert!(entries_of_ben.iter().any(|entry| entry["entity"] == "user" && entry["action"] == "deleted"));
    assert!(entries_of_ben.iter().any(|entry| entry["entity"] == "override" && entry["action"] == "deleted"));
}

async fn concatenated_audit_log_pages_equal_the_whole_list(kind: DatabaseKind) {
    let (app, _) = app_with_history(kind).await;
    let all_entries = list_entries(&app, "").await;
    let revisions: Vec<_> = all_entries.iter().map(|entry| entry["revision"].as_i64().unwrap()).collect();
    assert!(revisions.is_sorted_by(|a, b| a >= b), "{revisions:?}");
    assert!(revisions.windows(2).any(|pair| pair[0] == pair[1]), "at least one revision has several entries");
    // Entries of one revision are also listed latest first: the user is deleted after the token.
    assert_eq!((&all_entries[0]["entity"], &all_entries[1]["entity"]), (&json!("user"), &json!("api_token")));
    for query in ["", "&action=created", "&actor=system%3Atest"] {
        let all_entries = list_entries(&app, query.trim_start_matches('&')).await;
        for limit in [1, 2, 3, 7] {
            let mut concatenated = Vec::new();
            let mut cursor = String::new();
            loop {
                let page =
                    app.admin.get(&format!("{AUDIT_LOG_PATH}?limit={limit}{query}{cursor}")).await.expect(200).json();
                assert_eq!(page["total"], all_entries.len());
                let page_items = page["items"].as_array().unwrap();
                assert!(page_items.len() <= limit);
                concatenated.extend(page_items.iter().cloned());
                let Some(next) = page["next_cursor"].as_str() else { break };
                cursor = format!("&cursor={next}");
            }
            assert_eq!(concatenated, all_entries, "limit {limit}, {query:?}");
        }
    }
    // Entries added between two page requests come before the cursor and do not shift the next page.
    let first_page = app.admin.get(&format!("{AUDIT_LOG_PATH}?limit=3")).await.expect(200).json();
    app.admin.post(USERS_PATH, &json!({"email": "late@example.com"})).await.expect(201);
    let cursor = first_page["next_cursor"].as_str().unwrap();
    let second_page = app.admin.get(&format!("{AUDIT_LOG_PATH}?limit=200&cursor={cursor}")).await.expect(200).json();
    assert_eq!(second_page["items"].as_array().unwrap()[..], all_entries[3..]);
}

async fn audit_log_rejects_invalid_parameters_and_callers_without_permission(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    for (query, pointer, code) in [
        ("nope=1", "/nope", "unknown_parameter"),
        ("action=nope", "/action", "invalid_parameter"),
        ("user_id=nope", "/user_id", "invalid_parameter"),
        ("since=yesterday", "/since", "invalid_parameter"),
        ("until=", "/until", "invalid_parameter"),
        ("actor=%00", "/actor", "nul_character"),
    ] {
        app.admin.get(&format!("{AUDIT_LOG_PATH}?{query}")).await.expect_violation(pointer, code);
        app.admin.get(&format!("{EXPORT_PATH}?{query}")).await.expect_violation(pointer, code);
    }
    app.admin.get(&format!("{AUDIT_LOG_PATH}?cursor=nope")).await.expect_violation("/cursor", "invalid_parameter");
    app.admin.get(&format!("{AUDIT_LOG_PATH}?limit=0")).await.expect_violation("/limit", "invalid_parameter");
    app.admin.get(&format!("{AUDIT_LOG_PATH}?format=csv")).await.expect_violation("/format", "unknown_parameter");
    app.admin.get(&format!("{EXPORT_PATH}?format=xml")).await.expect_violation("/format", "invalid_parameter");
    app.admin.get(&format!("{EXPORT_PATH}?limit=1")).await.expect_violation("/limit", "unknown_parameter");
    app.admin.delete(AUDIT_LOG_PATH).await.expect_problem(405, "method_not_allowed");
    let (_, user) = app.create_user("ann").await;
    let (_, viewer) = app.create_user_with("vera", "viewer", json!({})).await;
    for path in [AUDIT_LOG_PATH, EXPORT_PATH] {
        app.anonymous.get(path).await.expect_problem(401, "unauthorized");
        user.get(path).await.expect_problem(403, "forbidden");
        app.caller_with_token(TokenGrant::Evaluate, None, None).await.get(path).await.expect_problem(403, "forbidden");
        viewer.get(path).await.expect(200);
    }
}

async fn audit_log_returns_corrupt_rows_as_stored(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    app.create_boolean_flag("a").await;
    let (id, invalid_json) = match kind {
        DatabaseKind::Postgres => ("gen_random_uuid()", r#"'"text"'"#),
        DatabaseKind::Sqlite => ("randomblob(16)", "'{rubbish'"),
    };
    let insert = format!(
        "INSERT INTO change_log SELECT 1000000, 0, {id}, at, 'unknown actor', 'nonsense', 'thing', NULL, 'No Flag', NULL, {invalid_json},
             NULL, NULL, NULL FROM change_log WHERE flag_name = 'a'"
    );
    execute_raw(&app.database.url, &insert).await;
    let entries = list_entries(&app, "").await;
    let corrupt_entry = &entries[0];
    assert_eq!((&corrupt_entry["action"], &corrupt_entry["entity"]), (&json!("nonsense"), &json!("thing")));
    assert_eq!(
        (&corrupt_entry["flag_name"], &corrupt_entry["actor"]["id"]),
        (&json!("No Flag"), &json!("unknown actor"))
    );
    match kind {
        DatabaseKind::Postgres => assert_eq!(corrupt_entry["before"], "text"),
        DatabaseKind::Sqlite => assert!(corrupt_entry["before"]["unreadable"].is_string(), "{corrupt_entry}"),
    }
    assert_eq!(entries[1]["flag_name"], "a");
    let exported = app.admin.get(EXPORT_PATH).await.expect(200).text;
    assert_eq!(exported.lines().count(), entries.len());
}
