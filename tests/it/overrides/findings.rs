//! Overrides that admins may want to look at, found among those of all users.

use flags_domain::FindingCode;
use flags_service::{
    evaluation::Evaluation,
    findings::{self, FindingFilter, ScanBudget},
};
use serde_json::{Value, json};

use flags_tests::{
    app::{TestApp, override_at},
    database::Kind,
    on_both_databases,
};

on_both_databases! {
    every_redundant_override_is_found_once_page_by_page,
    findings_can_be_narrowed_down,
    what_depends_on_attributes_is_found_by_them,
    what_does_not_go_together_is_refused,
    a_search_of_little_effort_goes_on_where_it_stopped,
}

const LIST: &str = "/api/admin/flag-overrides";

fn names(list: &Value) -> Vec<(String, String)> {
    let text = |item: &Value, field: &str| item[field].as_str().unwrap().to_owned();
    list["items"].as_array().unwrap().iter().map(|item| (text(item, "user_email"), text(item, "flag_name"))).collect()
}

async fn every_redundant_override_is_found_once_page_by_page(kind: Kind) {
    let app = TestApp::start(kind).await;
    for flag in ["f", "g", "h"] {
        app.boolean_flag(flag).await;
    }
    let mut expected = Vec::new();
    for number in 0..30 {
        let (user, _) = app.user(&format!("user{number:02}")).await;
        for flag in ["f", "g", "h"] {
            let redundant = (number + flag.len() + usize::from(flag == "g")) % 2 == 0;
            app.admin.put(&override_at(&user, flag), &json!({"override_value": !redundant})).await.expect(201);
            if redundant {
                expected.push((format!("user{number:02}@example.com"), flag.to_owned()));
            }
        }
    }
    expected.sort();
    for limit in [1, 7, 200] {
        let mut found = Vec::new();
        let mut path = format!("{LIST}?finding=override_redundant&limit={limit}");
        loop {
            let list = app.admin.get(&path).await.expect(200).json();
            let page = names(&list);
            assert!(page.len() <= limit && list["total"] == page.len(), "{list}");
            found.extend(page);
            let Some(cursor) = list["next_cursor"].as_str() else { break };
            path = format!("{LIST}?finding=override_redundant&limit={limit}&cursor={cursor}");
        }
        found.sort();
        assert_eq!(found, expected, "{limit} at a time");
    }
}

async fn findings_can_be_narrowed_down(kind: Kind) {
    let app = TestApp::start(kind).await;
    app.boolean_flag("f").await;
    app.boolean_flag("g").await;
    let (ann, _) = app.user("ann").await;
    let (ben, _) = app.user("ben").await;
    for (user, flag, end) in
        [(&ann, "f", None), (&ann, "g", Some("2030-02-01T00:00:00Z")), (&ben, "f", Some("2031-01-01T00:00:00Z"))]
    {
        app.admin.put(&override_at(user, flag), &json!({"override_value": false, "expires_at": end})).await.expect(201);
    }
    let find = async |more: &str| {
        let mut found =
            names(&app.admin.get(&format!("{LIST}?finding=override_redundant{more}")).await.expect(200).json());
        found.sort();
        found.into_iter().map(|(email, flag)| format!("{} {flag}", &email[..3])).collect::<Vec<_>>()
    };
    assert_eq!(find("").await, ["ann f", "ann g", "ben f"]);
    assert_eq!(find("&flag_name=f").await, ["ann f", "ben f"]);
    assert_eq!(find(&format!("&user_id={ann}")).await, ["ann f", "ann g"]);
    assert_eq!(find("&expires_before=2030-03-01T00:00:00Z").await, ["ann g"]);
    assert_eq!(find("&status=active&flag_name=g").await, ["ann g"]);
    assert_eq!(find("&status=disabled").await, [""; 0]);
    app.admin.patch("/api/admin/feature-flags/f", &json!({"default": {"variant": "on"}})).await.expect(200);
    assert_eq!(find("").await, ["ann g"]);
    // A change to come before the end makes a difference; one after it makes none.
    let plan = async |at: &str| {
        let body = json!({"scheduled_at": at, "serve": {"variant": "on"}});
        app.admin.post("/api/admin/feature-flags/g/scheduled-changes", &body).await.expect(201);
    };
    plan("2030-02-01T00:00:00Z").await;
    assert_eq!(find("").await, ["ann g"]);
    plan("2030-01-15T00:00:00Z").await;
    assert_eq!(find("").await, [""; 0]);
}

async fn what_depends_on_attributes_is_found_by_them(kind: Kind) {
    let app = TestApp::start(kind).await;
    let rules = json!([{"id": "pro", "conditions": [{"attribute": "plan", "operator": "equals", "values": ["pro"]}],
        "serve": {"variant": "on"}}]);
    app.flag(json!({"name": "f", "flag_type": "boolean", "targeting_rules": rules})).await;
    for (name, plan) in [("ann", "pro"), ("ben", "free")] {
        let (user, _) = app.user_with(name, "user", json!({"plan": plan})).await;
        app.admin.put(&override_at(&user, "f"), &json!({"override_value": true})).await.expect(201);
    }
    // Nobody was seen yet: their attributes come from the database.
    for (finding, who) in [("override_redundant", "ann@example.com"), ("override_shadows_rule", "ann@example.com")] {
        let list = app.admin.get(&format!("{LIST}?finding={finding}")).await.expect(200).json();
        assert_eq!(names(&list), [(who.to_owned(), "f".to_owned())], "{finding}");
    }
}

async fn what_does_not_go_together_is_refused(kind: Kind) {
    let app = TestApp::start(kind).await;
    let refused = async |query: &str, pointer: &str, code: &str| {
        app.admin.get(&format!("{LIST}?{query}")).await.expect_violation(pointer, code);
    };
    refused("finding=override_redundant&search=ann", "/search", "not_with_finding").await;
    refused("finding=override_redundant&sort=expires_at", "/sort", "not_with_finding").await;
    refused("finding=rule_redundant", "/finding", "invalid_parameter").await;
    let cursor = {
        let (ann, _) = app.user("ann").await;
        for flag in ["f", "g"] {
            app.boolean_flag(flag).await;
            app.admin.put(&override_at(&ann, flag), &json!({"override_value": true})).await.expect(201);
        }
        app.admin.get(&format!("{LIST}?limit=1")).await.json()["next_cursor"].as_str().unwrap().to_owned()
    };
    refused(&format!("finding=override_redundant&cursor={cursor}"), "/cursor", "invalid_parameter").await;
    let path = format!("{LIST}?finding=override_shadows_rule&limit=1");
    assert_eq!(app.admin.get(&path).await.expect(200).json()["next_cursor"], Value::Null);
    for value in [true, false] {
        app.admin
            .put(&override_at(&app.user(&format!("u{value}")).await.0, "f"), &json!({"override_value": false}))
            .await
            .expect(201);
    }
    let part = app.admin.get(&format!("{LIST}?finding=override_redundant&limit=1")).await.expect(200).json();
    let cursor = part["next_cursor"].as_str().unwrap();
    refused(&format!("finding=override_disabled&cursor={cursor}"), "/cursor", "invalid_parameter").await;
}

async fn a_search_of_little_effort_goes_on_where_it_stopped(kind: Kind) {
    let app = TestApp::start(kind).await;
    let rules = json!([{"id": "pro", "conditions": [{"attribute": "plan", "operator": "equals", "values": ["pro"]}],
        "serve": {"variant": "on"}}]);
    app.flag(json!({"name": "f", "flag_type": "boolean", "targeting_rules": rules})).await;
    app.boolean_flag("g").await;
    let mut users = Vec::new();
    for number in 0..12 {
        let plan = if number % 2 == 0 { "pro" } else { "free" };
        let (user, _) = app.user_with(&format!("user{number:02}"), "user", json!({"plan": plan})).await;
        for flag in ["f", "g"] {
            app.admin.put(&override_at(&user, flag), &json!({"override_value": true})).await.expect(201);
        }
        users.push(user);
    }
    let evaluation = Evaluation::new(app.core.clone(), std::sync::Arc::clone(&app.replica));
    let filter = FindingFilter {
        finding: FindingCode::OverrideRedundant,
        flag_name: None,
        user_id: None,
        status: None,
        expires_before: None,
    };
    for effort in [
        ScanBudget { overrides: 1, users: 1_000 },
        ScanBudget { overrides: 5, users: 1_000 },
        ScanBudget { overrides: 1_000, users: 1 },
    ] {
        let (mut found, mut after, mut parts) = (Vec::new(), None, 0);
        loop {
            let part = findings::find(&evaluation, &filter, after.take(), 200, effort).await.unwrap();
            found.extend(part.found.into_iter().map(|o| (o.user_id.to_string(), o.flag_name)));
            parts += 1;
            match part.next {
                Some(next) => after = Some(next),
                None => break,
            }
        }
        found.sort();
        let mut expected: Vec<_> = users.iter().step_by(2).map(|user| (user.clone(), "f".to_owned())).collect();
        expected.sort();
        assert_eq!(found, expected, "{effort:?}");
        assert!(parts > 1, "{effort:?}");
    }
    // Whoever goes between two parts is neither found nor in the way.
    let first = findings::find(&evaluation, &filter, None, 1, ScanBudget::default()).await.unwrap();
    let (at, _) = first.next.clone().unwrap();
    for user in users.iter().filter(|user| **user == at.to_string()).chain([&users[0], &users[2]]) {
        app.admin.delete(&format!("/api/admin/users/{user}")).await;
    }
    let rest = findings::find(&evaluation, &filter, first.next, 200, ScanBudget::default()).await.unwrap();
    let list = app.admin.get(&format!("{LIST}?finding=override_redundant")).await.expect(200).json();
    let left = names(&list).len();
    let before = first
        .found
        .iter()
        .filter(|o| o.user_id != at && ![&users[0], &users[2]].contains(&&o.user_id.to_string()))
        .count();
    assert_eq!(rest.found.len() + before, left);
}
