//! One change to many overrides: one revision, each outcome told, nothing touched in a dry run.

use flags_domain::Instant;
use flags_tests::{
    app::{TestApp, author, overrides_of},
    database::{Kind, tamper},
    on_both_databases, seed,
};
use serde_json::{Value, json};
use uuid::Uuid;

on_both_databases! {
    ids_are_changed_in_one_revision_and_each_outcome_is_told,
    ends_are_set_and_taken_away,
    a_dry_run_says_what_would_be_and_does_nothing,
    a_filter_reaches_what_its_list_shows,
    more_than_a_thousand_go_in_several_revisions,
    bad_bulk_requests_are_refused,
    what_is_being_deleted_is_left_to_the_deletion,
}

const BULK: &str = "/api/admin/flag-overrides/bulk";

/// Three users with an override of `a` each; returns the overrides' ids.
async fn three(app: &TestApp) -> Vec<Value> {
    app.boolean_flag("a").await;
    let mut ids = Vec::new();
    for name in ["ann", "ben", "cleo"] {
        let (user, _) = app.user(name).await;
        let body = json!({"flag_name": "a", "override_value": true, "enabled": name != "ben"});
        ids.push(app.admin.post(&overrides_of(&user), &body).await.expect(201).json()["id"].clone());
    }
    ids
}

fn outcomes(body: &Value) -> Vec<&str> {
    body["results"].as_array().unwrap().iter().map(|result| result["outcome"].as_str().unwrap()).collect()
}

async fn listed(app: &TestApp, query: &str) -> Vec<Value> {
    let list = app.admin.get(&format!("/api/admin/flag-overrides?{query}")).await.expect(200).json();
    list["items"].as_array().unwrap().clone()
}

async fn ids_are_changed_in_one_revision_and_each_outcome_is_told(kind: Kind) {
    let app = TestApp::start(kind).await;
    let mut ids = three(&app).await;
    ids.push(json!(Uuid::from_u128(1)));
    let before = app.replica.revision().number;
    let reply = app.admin.post(BULK, &json!({"action": "disable", "ids": ids})).await.expect(200);
    let body = reply.json();
    assert_eq!((&body["changed"], outcomes(&body)), (&json!(2), vec!["changed", "unchanged", "changed", "not_found"]));
    assert_eq!(body["results"][0]["id"], ids[0]);
    assert_eq!(app.replica.revision().number, before + 1);
    assert_eq!(body["revisions"], json!([reply.header("flags-revision")]));
    assert_eq!(app.log().await.iter().filter(|(revision, ..)| *revision == before + 1).count(), 2);
    assert!(listed(&app, "").await.iter().all(|o| o["status"] == "disabled"));
    let body = app.admin.post(BULK, &json!({"action": "enable", "ids": ids})).await.expect(200).json();
    assert_eq!(body["changed"], 3);
    let body = app.admin.post(BULK, &json!({"action": "enable", "ids": ids})).await.expect(200).json();
    assert_eq!((&body["changed"], &body["revisions"]), (&json!(0), &json!([])));
    assert_eq!(app.replica.revision().number, before + 2, "nothing to change takes no revision");
    let body = app.admin.post(BULK, &json!({"action": "delete", "ids": ids})).await.expect(200).json();
    assert_eq!((&body["changed"], listed(&app, "").await.len()), (&json!(3), 0));
}

async fn ends_are_set_and_taken_away(kind: Kind) {
    let app = TestApp::start(kind).await;
    let ids = three(&app).await;
    let set = |end: Value| json!({"action": "set_expiry", "ids": ids, "expires_at": end});
    let body = app.admin.post(BULK, &set(json!("2030-01-01T00:00:05Z"))).await.expect(200).json();
    assert_eq!(body["changed"], 3);
    assert!(listed(&app, "").await.iter().all(|o| o["expires_at"] == "2030-01-01T00:00:05Z"));
    let body = app.admin.post(BULK, &set(json!("2030-01-01T00:00:05Z"))).await.expect(200).json();
    assert_eq!(outcomes(&body), ["unchanged", "unchanged", "unchanged"]);
    let body = app.admin.post(BULK, &set(json!(null))).await.expect(200).json();
    assert_eq!(body["changed"], 3);
    app.admin.post(BULK, &set(json!("2030-01-01T00:00:00Z"))).await.expect_violation("/expires_at", "not_in_future");
    app.admin.post(BULK, &set(json!("2030-01-01T00:00:05Z"))).await.expect(200);
    app.clock_to("01-01T00:00:05Z");
    // Expired ones are gone to everything but their removal.
    let body = app.admin.post(BULK, &json!({"action": "disable", "ids": ids})).await.expect(200).json();
    assert_eq!(outcomes(&body), ["not_found", "not_found", "not_found"]);
    let body = app.admin.post(BULK, &json!({"action": "delete", "filter": {"status": "expired"}})).await.expect(200);
    assert_eq!(body.json()["changed"], 3);
}

async fn a_dry_run_says_what_would_be_and_does_nothing(kind: Kind) {
    let app = TestApp::start(kind).await;
    let ids = three(&app).await;
    let filter = json!({"flag_name": "a"});
    for target in [("ids", json!(ids)), ("filter", filter)] {
        for (action, expected) in [("disable", 2), ("enable", 3), ("set_expiry", 3), ("delete", 3)] {
            let head = app.replica.revision();
            let mut body = json!({"action": action, "dry_run": true});
            body[target.0] = target.1.clone();
            if action == "set_expiry" {
                body["expires_at"] = json!(format!("2030-01-02T00:00:0{}Z", target.0.len()));
            }
            let dry = app.admin.post(BULK, &body).await.expect(200).json();
            assert_eq!((app.replica.revision(), &dry["revisions"]), (head, &json!([])));
            if action == "delete" {
                assert_eq!((&dry["changed"], listed(&app, "").await.len()), (&json!(3), 3));
                continue;
            }
            body["dry_run"] = json!(false);
            let real = app.admin.post(BULK, &body).await.expect(200).json();
            assert_eq!((&real["results"], &real["changed"]), (&dry["results"], &dry["changed"]));
            if target.0 == "ids" {
                assert_eq!(real["changed"], expected, "{action}");
            }
        }
    }
}

async fn a_filter_reaches_what_its_list_shows(kind: Kind) {
    let app = TestApp::start(kind).await;
    three(&app).await;
    let filtered = |filter: Value| json!({"action": "disable", "filter": filter, "dry_run": true});
    let count =
        async |filter: Value| app.admin.post(BULK, &filtered(filter)).await.expect(200).json()["results"].clone();
    assert_eq!(count(json!({"search": "ANN@"})).await.as_array().unwrap().len(), 1);
    assert_eq!(count(json!({"flag_name": "a", "status": "active"})).await.as_array().unwrap().len(), 2);
    assert_eq!(count(json!({"flag_name": "b"})).await, json!([]));
    assert_eq!(count(json!({"expires_before": "2031-01-01T00:00:00Z"})).await, json!([]));
    let body = json!({"action": "delete", "filter": {"search": "ben"}});
    assert_eq!(app.admin.post(BULK, &body).await.expect(200).json()["changed"], 1);
    assert_eq!(listed(&app, "search=ben").await.len(), 0);
}

async fn more_than_a_thousand_go_in_several_revisions(kind: Kind) {
    let app = TestApp::start(kind).await;
    app.boolean_flag("f").await;
    let mut tx = app.core.store().begin(Instant::parse("2029-01-01T00:00:00Z").unwrap()).await.unwrap();
    for number in 0..2_100 {
        let user_id = seed::insert_user(&mut tx, &format!("u{number}@example.com")).await;
        seed::insert_override(&mut tx, user_id, "f", None).await;
    }
    tx.commit(&author()).await.unwrap();
    let body = json!({"action": "disable", "filter": {"flag_name": "f"}});
    let reply = app.admin.json(reqwest::Method::POST, BULK, &[("Idempotency-Key", "k")], &body).await.expect(200);
    let answer = reply.json();
    assert_eq!((&answer["changed"], answer["results"].as_array().unwrap().len()), (&json!(2_100), 2_100));
    assert_eq!(answer["revisions"].as_array().unwrap().len(), 3);
    assert_eq!(answer["revisions"][2], reply.header("flags-revision"));
    let disabled = app.admin.get("/api/admin/flag-overrides?status=disabled").await.json();
    assert_eq!(disabled["total"], 2_100);
    let head = app.replica.revision();
    let again = app.admin.json(reqwest::Method::POST, BULK, &[("Idempotency-Key", "k")], &body).await.expect(200);
    assert_eq!((again.text, app.replica.revision()), (reply.text, head));
    let too_many: Vec<_> = (0..1_001).map(Uuid::from_u128).collect();
    let refused = app.admin.post(BULK, &json!({"action": "enable", "ids": too_many})).await;
    refused.expect_violation("/ids", "too_many");
}

async fn bad_bulk_requests_are_refused(kind: Kind) {
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
        app.admin.post(BULK, &body).await.expect_violation(pointer, code);
    }
    // A request that was refused leaves its key free, also one by filter.
    let late = json!({"action": "set_expiry", "filter": {"flag_name": "a"}, "expires_at": "2029-01-01T00:00:00Z"});
    let keyed =
        async |body: &Value| app.admin.json(reqwest::Method::POST, BULK, &[("Idempotency-Key", "k")], body).await;
    keyed(&late).await.expect_violation("/expires_at", "not_in_future");
    keyed(&json!({"action": "enable", "filter": {"flag_name": "a"}})).await.expect(200);
    assert_eq!(app.admin.post(BULK, &json!({"action": "enable", "ids": []})).await.expect(200).json()["changed"], 0);
}

async fn what_is_being_deleted_is_left_to_the_deletion(kind: Kind) {
    let app = TestApp::start(kind).await;
    let ids = three(&app).await;
    tamper(&app.database.url, "UPDATE feature_flags SET deleting = true").await;
    let body = app.admin.post(BULK, &json!({"action": "disable", "ids": ids})).await.expect(200).json();
    assert_eq!(outcomes(&body), ["not_found", "not_found", "not_found"]);
}
