//! Bulk changes: one outcome per override, batched revisions, dry runs.

use flags_domain::Instant;
use flags_tests::{
    app::{TestApp, author, user_overrides_path},
    database::{DatabaseKind, execute_raw},
    on_both_databases, seed,
};
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use super::LIST_PATH;

on_both_databases! {
    bulk_change_by_ids_takes_one_revision_and_reports_an_outcome_per_id,
    bulk_action_set_expiry_sets_and_clears_expires_at,
    bulk_dry_run_reports_outcomes_without_writing,
    bulk_filter_selects_the_same_overrides_as_the_list_filter,
    bulk_change_of_more_than_1000_overrides_takes_several_revisions,
    rejects_invalid_bulk_requests,
    bulk_change_does_not_find_overrides_of_a_flag_being_deleted,
}

const BULK_PATH: &str = "/api/admin/flag-overrides/bulk";

/// Creates flag `a` and an override of it for each of three users; only Ben's is disabled. Returns the override ids.
async fn create_three_overrides(app: &TestApp) -> Vec<Value> {
    app.create_boolean_flag("a").await;
    let mut ids = Vec::new();
    for name in ["ann", "ben", "cleo"] {
        let (user_id, _) = app.create_user(name).await;
        let body = json!({"flag_name": "a", "override_value": true, "enabled": name != "ben"});
        ids.push(app.admin.post(&user_overrides_path(&user_id), &body).await.expect(201).json()["id"].clone());
    }
    ids
}

fn outcomes(response: &Value) -> Vec<&str> {
    response["results"].as_array().unwrap().iter().map(|result| result["outcome"].as_str().unwrap()).collect()
}

async fn list_overrides(app: &TestApp, query: &str) -> Vec<Value> {
    let list = app.admin.get(&format!("{LIST_PATH}?{query}")).await.expect(200).json();
    list["items"].as_array().unwrap().clone()
}

async fn bulk_change_by_ids_takes_one_revision_and_reports_an_outcome_per_id(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    let mut ids = create_three_overrides(&app).await;
    ids.push(json!(Uuid::from_u128(1)));
    let revision_before = app.replica.revision().number;
    let response = app.admin.post(BULK_PATH, &json!({"action": "disable", "ids": ids})).await.expect(200);
    let body = response.json();
    assert_eq!((&body["changed"], outcomes(&body)), (&json!(2), vec!["changed", "unchanged", "changed", "not_found"]));
    assert_eq!(body["results"][0]["id"], ids[0]);
    assert_eq!(app.replica.revision().number, revision_before + 1);
    assert_eq!(body["revisions"], json!([response.header("flags-revision")]));
    assert_eq!(app.change_log().await.iter().filter(|(revision, ..)| *revision == revision_before + 1).count(), 2);
    assert!(list_overrides(&app, "").await.iter().all(|o| o["status"] == "disabled"));
    let body = app.admin.post(BULK_PATH, &json!({"action": "enable", "ids": ids})).await.expect(200).json();
    assert_eq!(body["changed"], 3);
    let body = app.admin.post(BULK_PATH, &json!({"action": "enable", "ids": ids})).await.expect(200).json();
    assert_eq!((&body["changed"], &body["revisions"]), (&json!(0), &json!([])));
    assert_eq!(app.replica.revision().number, revision_before + 2, "a request without effect takes no revision");
    let body = app.admin.post(BULK_PATH, &json!({"action": "delete", "ids": ids})).await.expect(200).json();
    assert_eq!((&body["changed"], list_overrides(&app, "").await.len()), (&json!(3), 0));
}

async fn bulk_action_set_expiry_sets_and_clears_expires_at(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    let ids = create_three_overrides(&app).await;
    let set_expiry = |expires_at: Value| json!({"action": "set_expiry", "ids": ids, "expires_at": expires_at});
    let body = app.admin.post(BULK_PATH, &set_expiry(json!("2030-01-01T00:00:05Z"))).await.expect(200).json();
    assert_eq!(body["changed"], 3);
    assert!(list_overrides(&app, "").await.iter().all(|o| o["expires_at"] == "2030-01-01T00:00:05Z"));
    let body = app.admin.post(BULK_PATH, &set_expiry(json!("2030-01-01T00:00:05Z"))).await.expect(200).json();
    assert_eq!(outcomes(&body), ["unchanged", "unchanged", "unchanged"]);
    let body = app.admin.post(BULK_PATH, &set_expiry(json!(null))).await.expect(200).json();
    assert_eq!(body["changed"], 3);
    app.admin
        .post(BULK_PATH, &set_expiry(json!("2030-01-01T00:00:00Z")))
        .await
        .expect_violation("/expires_at", "not_in_future");
    app.admin.post(BULK_PATH, &set_expiry(json!("2030-01-01T00:00:05Z"))).await.expect(200);
    app.set_clock("01-01T00:00:05Z");
    // Only the action `delete` still finds expired overrides.
    let body = app.admin.post(BULK_PATH, &json!({"action": "disable", "ids": ids})).await.expect(200).json();
    assert_eq!(outcomes(&body), ["not_found", "not_found", "not_found"]);
    let body =
        app.admin.post(BULK_PATH, &json!({"action": "delete", "filter": {"status": "expired"}})).await.expect(200);
    assert_eq!(body.json()["changed"], 3);
}

async fn bulk_dry_run_reports_outcomes_without_writing(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    let ids = create_three_overrides(&app).await;
    let filter = json!({"flag_name": "a"});
    for (selector, selected) in [("ids", json!(ids)), ("filter", filter)] {
        for (action, expected_changes) in [("disable", 2), ("enable", 3), ("set_expiry", 3), ("delete", 3)] {
            let revision_before = app.replica.revision();
            let mut body = json!({"action": action, "dry_run": true});
            body[selector] = selected.clone();
            if action == "set_expiry" {
                body["expires_at"] = json!(format!("2030-01-02T00:00:0{}Z", selector.len()));
            }
            let dry = app.admin.post(BULK_PATH, &body).await.expect(200).json();
            assert_eq!((app.replica.revision(), &dry["revisions"]), (revision_before, &json!([])));
            if action == "delete" {
                assert_eq!((&dry["changed"], list_overrides(&app, "").await.len()), (&json!(3), 3));
                continue;
            }
            body["dry_run"] = json!(false);
            let real = app.admin.post(BULK_PATH, &body).await.expect(200).json();
            assert_eq!((&real["results"], &real["changed"]), (&dry["results"], &dry["changed"]));
            if selector == "ids" {
                assert_eq!(real["changed"], expected_changes, "{action}");
            }
        }
    }
}

async fn bulk_filter_selects_the_same_overrides_as_the_list_filter(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    create_three_overrides(&app).await;
    let request = |filter: Value| json!({"action": "disable", "filter": filter, "dry_run": true});
    let results =
        async |filter: Value| app.admin.post(BULK_PATH, &request(filter)).await.expect(200).json()["results"].clone();
    assert_eq!(results(json!({"search": "ANN@"})).await.as_array().unwrap().len(), 1);
    assert_eq!(results(json!({"flag_name": "a", "status": "active"})).await.as_array().unwrap().len(), 2);
    assert_eq!(results(json!({"flag_name": "b"})).await, json!([]));
    assert_eq!(results(json!({"expires_before": "2031-01-01T00:00:00Z"})).await, json!([]));
    let body = json!({"action": "delete", "filter": {"search": "ben"}});
    assert_eq!(app.admin.post(BULK_PATH, &body).await.expect(200).json()["changed"], 1);
    assert_eq!(list_overrides(&app, "search=ben").await.len(), 0);
}

async fn bulk_change_of_more_than_1000_overrides_takes_several_revisions(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    app.create_boolean_flag("f").await;
    let mut tx = app.core.store().begin(Instant::parse("2029-01-01T00:00:00Z").unwrap()).await.unwrap();
    for number in 0..2_100 {
        let user_id = seed::insert_user(&mut tx, &format!("u{number}@example.com")).await;
        seed::insert_override(&mut tx, user_id, "f", None).await;
    }
    tx.commit(&author()).await.unwrap();
    let request = json!({"action": "disable", "filter": {"flag_name": "f"}});
    let response =
        app.admin.send_json(Method::POST, BULK_PATH, &[("Idempotency-Key", "k")], &request).await.expect(200);
    let body = response.json();
    assert_eq!((&body["changed"], body["results"].as_array().unwrap().len()), (&json!(2_100), 2_100));
    assert_eq!(body["revisions"].as_array().unwrap().len(), 3);
    assert_eq!(body["revisions"][2], response.header("flags-revision"));
    let disabled = app.admin.get(&format!("{LIST_PATH}?status=disabled")).await.json();
    assert_eq!(disabled["total"], 2_100);
    let revision_before = app.replica.revision();
    let replayed =
        app.admin.send_json(Method::POST, BULK_PATH, &[("Idempotency-Key", "k")], &request).await.expect(200);
    assert_eq!((replayed.text, app.replica.revision()), (response.text, revision_before));
    let too_many: Vec<_> = (0..1_001).map(Uuid::from_u128).collect();
    let rejected = app.admin.post(BULK_PATH, &json!({"action": "enable", "ids": too_many})).await;
    rejected.expect_violation("/ids", "too_many");
}

async fn rejects_invalid_bulk_requests(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    let id = Uuid::from_u128(1);
    for (body, pointer, code) in [
        (json!({"action": "enable"}), "", "ids_or_filter"),
        (json!({"action": "enable", "ids": [], "filter": {"flag_name": "a"}}), "", "ids_or_filter"),
        (json!({"action": "enable", "filter": {}}), "/filter", "empty_filter"),
        (json!({"action": "enable", "filter": {"search": ""}}), "/filter", "empty_filter"),
        (json!({"action": "enable", "filter": {"nope": 1}}), "/filter/nope", "unknown_field"),
        (json!({"action": "enable", "filter": {"search": "\u{0}"}}), "/filter/search", "nul_character"),
        (json!({"action": "enable", "filter": {"status": "x"}}), "/filter/status", "invalid_type"),
        (json!({"action": "nope", "ids": []}), "/action", "invalid_type"),
        (json!({"ids": []}), "/action", "required"),
        (json!({"action": "enable", "ids": ["x"]}), "/ids/0", "invalid_type"),
        (json!({"action": "enable", "ids": null}), "/ids", "invalid_type"),
        (json!({"action": "enable", "ids": [id, id]}), "/ids/1", "duplicate"),
        (json!({"action": "set_expiry", "ids": []}), "/expires_at", "required"),
        (json!({"action": "enable", "ids": [], "expires_at": null}), "/expires_at", "not_allowed"),
        (json!({"action": "set_expiry", "ids": [], "expires_at": "soon"}), "/expires_at", "invalid_type"),
    ] {
        app.admin.post(BULK_PATH, &body).await.expect_violation(pointer, code);
    }
    // A rejected request does not consume its idempotency key, even if it selects by filter.
    let past_expiry =
        json!({"action": "set_expiry", "filter": {"flag_name": "a"}, "expires_at": "2029-01-01T00:00:00Z"});
    let send_with_key =
        async |body: &Value| app.admin.send_json(Method::POST, BULK_PATH, &[("Idempotency-Key", "k")], body).await;
    send_with_key(&past_expiry).await.expect_violation("/expires_at", "not_in_future");
    send_with_key(&json!({"action": "enable", "filter": {"flag_name": "a"}})).await.expect(200);
    assert_eq!(
        app.admin.post(BULK_PATH, &json!({"action": "enable", "ids": []})).await.expect(200).json()["changed"],
        0
    );
}

async fn bulk_change_does_not_find_overrides_of_a_flag_being_deleted(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    let ids = create_three_overrides(&app).await;
    execute_raw(&app.database.url, "UPDATE feature_flags SET deleting = true").await;
    let body = app.admin.post(BULK_PATH, &json!({"action": "disable", "ids": ids})).await.expect(200).json();
    assert_eq!(outcomes(&body), ["not_found", "not_found", "not_found"]);
}
