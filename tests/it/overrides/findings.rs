//! The `finding` filter of the override list.

use flags_domain::FindingCode;
use flags_service::findings::{self, FindingFilter, ScanBudget};
use serde_json::{Value, json};

use flags_tests::{
    app::{TestApp, override_path},
    database::DatabaseKind,
    on_both_databases,
};

use super::LIST_PATH;

on_both_databases! {
    paging_returns_each_redundant_override_once,
    findings_are_filtered_by_flag_user_status_and_expiry,
    findings_take_user_attributes_into_account,
    findings_filter_rejects_incompatible_parameters_and_cursors,
    findings_scan_with_a_small_budget_resumes_where_it_stopped,
}

/// Returns `(user_email, flag_name)` of each item.
fn email_flag_pairs(list: &Value) -> Vec<(String, String)> {
    let text = |item: &Value, field: &str| item[field].as_str().unwrap().to_owned();
    list["items"].as_array().unwrap().iter().map(|item| (text(item, "user_email"), text(item, "flag_name"))).collect()
}

async fn paging_returns_each_redundant_override_once(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    for flag in ["f", "g", "h"] {
        app.create_boolean_flag(flag).await;
    }
    let mut expected = Vec::new();
    for number in 0..30 {
        let (user_id, _) = app.create_user(&format!("user{number:02}")).await;
        for flag in ["f", "g", "h"] {
            let redundant = (number + flag.len() + usize::from(flag == "g")) % 2 == 0;
            app.admin.put(&override_path(&user_id, flag), &json!({"override_value": !redundant})).await.expect(201);
            if redundant {
                expected.push((format!("user{number:02}@example.com"), flag.to_owned()));
            }
        }
    }
    expected.sort();
    for limit in [1, 7, 200] {
        let mut found = Vec::new();
        let mut path = format!("{LIST_PATH}?finding=override_redundant&limit={limit}");
        loop {
            let list = app.admin.get(&path).await.expect(200).json();
            let page = email_flag_pairs(&list);
            assert!(page.len() <= limit && list["total"] == page.len(), "{list}");
            found.extend(page);
            let Some(cursor) = list["next_cursor"].as_str() else { break };
            path = format!("{LIST_PATH}?finding=override_redundant&limit={limit}&cursor={cursor}");
        }
        found.sort();
        assert_eq!(found, expected, "limit {limit}");
    }
}

async fn findings_are_filtered_by_flag_user_status_and_expiry(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    app.create_boolean_flag("f").await;
    app.create_boolean_flag("g").await;
    let (ann_id, _) = app.create_user("ann").await;
    let (ben_id, _) = app.create_user("ben").await;
    for (user_id, flag, expires_at) in [
        (&ann_id, "f", None),
        (&ann_id, "g", Some("2030-02-01T00:00:00Z")),
        (&ben_id, "f", Some("2031-01-01T00:00:00Z")),
    ] {
        app.admin
            .put(&override_path(user_id, flag), &json!({"override_value": false, "expires_at": expires_at}))
            .await
            .expect(201);
    }
    let find_redundant = async |query: &str| {
        let mut found = email_flag_pairs(
            &app.admin.get(&format!("{LIST_PATH}?finding=override_redundant{query}")).await.expect(200).json(),
        );
        found.sort();
        found.into_iter().map(|(email, flag)| format!("{} {flag}", &email[..3])).collect::<Vec<_>>()
    };
    assert_eq!(find_redundant("").await, ["ann f", "ann g", "ben f"]);
    assert_eq!(find_redundant("&flag_name=f").await, ["ann f", "ben f"]);
    assert_eq!(find_redundant(&format!("&user_id={ann_id}")).await, ["ann f", "ann g"]);
    assert_eq!(find_redundant("&expires_before=2030-03-01T00:00:00Z").await, ["ann g"]);
    assert_eq!(find_redundant("&status=active&flag_name=g").await, ["ann g"]);
    assert_eq!(find_redundant("&status=disabled").await, [""; 0]);
    app.admin.patch("/api/admin/feature-flags/f", &json!({"default": {"variant": "on"}})).await.expect(200);
    assert_eq!(find_redundant("").await, ["ann g"]);
    // A scheduled change before `expires_at` makes the override necessary; a change at `expires_at` does not.
    let schedule_change = async |at: &str| {
        let body = json!({"scheduled_at": at, "serve": {"variant": "on"}});
        app.admin.post("/api/admin/feature-flags/g/scheduled-changes", &body).await.expect(201);
    };
    schedule_change("2030-02-01T00:00:00Z").await;
    assert_eq!(find_redundant("").await, ["ann g"]);
    schedule_change("2030-01-15T00:00:00Z").await;
    assert_eq!(find_redundant("").await, [""; 0]);
}

async fn findings_take_user_attributes_into_account(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    let rules = json!([{"id": "pro", "conditions": [{"attribute": "plan", "operator": "equals", "values": ["pro"]}],
        "serve": {"variant": "on"}}]);
    app.create_flag(json!({"name": "f", "flag_type": "boolean", "targeting_rules": rules})).await;
    for (name, plan) in [("ann", "pro"), ("ben", "free")] {
        let (user_id, _) = app.create_user_with(name, "user", json!({"plan": plan})).await;
        app.admin.put(&override_path(&user_id, "f"), &json!({"override_value": true})).await.expect(201);
    }
    // No user is cached yet, so the server reads the attributes from the database.
    for (finding, email) in [("override_redundant", "ann@example.com"), ("override_shadows_rule", "ann@example.com")] {
        let list = app.admin.get(&format!("{LIST_PATH}?finding={finding}")).await.expect(200).json();
        assert_eq!(email_flag_pairs(&list), [(email.to_owned(), "f".to_owned())], "{finding}");
    }
}

async fn findings_filter_rejects_incompatible_parameters_and_cursors(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    let assert_rejected = async |query: &str, pointer: &str, code: &str| {
        app.admin.get(&format!("{LIST_PATH}?{query}")).await.expect_violation(pointer, code);
    };
    assert_rejected("finding=override_redundant&search=ann", "/search", "not_with_finding").await;
    assert_rejected("finding=override_redundant&sort=expires_at", "/sort", "not_with_finding").await;
    assert_rejected("finding=rule_redundant", "/finding", "invalid_parameter").await;
    let cursor = {
        let (ann_id, _) = app.create_user("ann").await;
        for flag in ["f", "g"] {
            app.create_boolean_flag(flag).await;
            app.admin.put(&override_path(&ann_id, flag), &json!({"override_value": true})).await.expect(201);
        }
        app.admin.get(&format!("{LIST_PATH}?limit=1")).await.json()["next_cursor"].as_str().unwrap().to_owned()
    };
    assert_rejected(&format!("finding=override_redundant&cursor={cursor}"), "/cursor", "invalid_parameter").await;
    let path = format!("{LIST_PATH}?finding=override_shadows_rule&limit=1");
    assert_eq!(app.admin.get(&path).await.expect(200).json()["next_cursor"], Value::Null);
    for value in [true, false] {
        app.admin
            .put(&override_path(&app.create_user(&format!("u{value}")).await.0, "f"), &json!({"override_value": false}))
            .await
            .expect(201);
    }
    let page = app.admin.get(&format!("{LIST_PATH}?finding=override_redundant&limit=1")).await.expect(200).json();
    let cursor = page["next_cursor"].as_str().unwrap();
    assert_rejected(&format!("finding=override_disabled&cursor={cursor}"), "/cursor", "invalid_parameter").await;
}

async fn findings_scan_with_a_small_budget_resumes_where_it_stopped(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    let rules = json!([{"id": "pro", "conditions": [{"attribute": "plan", "operator": "equals", "values": ["pro"]}],
        "serve": {"variant": "on"}}]);
    app.create_flag(json!({"name": "f", "flag_type": "boolean", "targeting_rules": rules})).await;
    app.create_boolean_flag("g").await;
    let mut user_ids = Vec::new();
    for number in 0..12 {
        let plan = if number % 2 == 0 { "pro" } else { "free" };
        let (user_id, _) = app.create_user_with(&format!("user{number:02}"), "user", json!({"plan": plan})).await;
        for flag in ["f", "g"] {
            app.admin.put(&override_path(&user_id, flag), &json!({"override_value": true})).await.expect(201);
        }
        user_ids.push(user_id);
    }
    let evaluation = app.core.evaluation(&app.replica);
    let filter = FindingFilter {
        finding: FindingCode::OverrideRedundant,
        flag_name: None,
        user_id: None,
        status: None,
        expires_before: None,
    };
    for budget in [
        ScanBudget { max_overrides: 1, ..ScanBudget::default() },
        ScanBudget { max_overrides: 5, ..ScanBudget::default() },
        ScanBudget { max_users: 1, ..ScanBudget::default() },
        ScanBudget { max_units: 1, ..ScanBudget::default() },
    ] {
        let (mut found, mut after, mut page_count) = (Vec::new(), None, 0);
        loop {
            let page = findings::find(&evaluation, &filter, after.take(), 200, budget).await.unwrap();
            found.extend(page.matches.into_iter().map(|o| (o.user_id.to_string(), o.flag_name)));
            page_count += 1;
            match page.next {
                Some(next) => after = Some(next),
                None => break,
            }
        }
        found.sort();
        let mut expected: Vec<_> =
            user_ids.iter().step_by(2).map(|user_id| (user_id.clone(), "f".to_owned())).collect();
        expected.sort();
        assert_eq!(found, expected, "{budget:?}");
        assert!(page_count > 1, "{budget:?}");
    }
    // Users deleted between two pages are skipped and do not stop the scan.
    let first = findings::find(&evaluation, &filter, None, 1, ScanBudget::default()).await.unwrap();
    let (next_user_id, _) = first.next.clone().unwrap();
    for user_id in
        user_ids.iter().filter(|user_id| **user_id == next_user_id.to_string()).chain([&user_ids[0], &user_ids[2]])
    {
        app.admin.delete(&format!("/api/admin/users/{user_id}")).await;
    }
    let rest = findings::find(&evaluation, &filter, first.next, 200, ScanBudget::default()).await.unwrap();
    let list = app.admin.get(&format!("{LIST_PATH}?finding=override_redundant")).await.expect(200).json();
    let remaining = email_flag_pairs(&list).len();
    let found_before = first
        .matches
        .iter()
        .filter(|o| o.user_id != next_user_id && ![&user_ids[0], &user_ids[2]].contains(&&o.user_id.to_string()))
        .count();
    assert_eq!(rest.matches.len() + found_before, remaining);
}
