//! Users over HTTP.

use serde_json::{Value, json};

use flags_tests::{
    app::{TestApp, override_at},
    database::Kind,
    on_both_databases, seed,
};

on_both_databases! {
    a_user_lives_from_creation_to_deletion,
    an_email_is_unique_without_regard_to_case,
    users_are_found_by_any_part_of_email_or_name,
    a_changed_attribute_changes_what_a_rule_gives,
    deactivating_a_user_ends_their_access_at_once,
    deleting_a_user_with_very_many_overrides_takes_several_revisions,
}

const USERS: &str = "/api/admin/users";

async fn a_user_lives_from_creation_to_deletion(kind: Kind) {
    let app = TestApp::start(kind).await;
    let made = app.admin.post(USERS, &json!({"email": "Ann@Example.com"})).await.expect(201);
    let user = made.json();
    let path = format!("{USERS}/{}", user["id"].as_str().unwrap());
    assert_eq!(made.header("location"), path);
    assert_eq!(
        (&user["email"], &user["role"], &user["active"]),
        (&json!("Ann@Example.com"), &json!("user"), &json!(true))
    );
    assert_eq!(
        (&user["display_name"], &user["attributes"], &user["override_count"]),
        (&Value::Null, &json!({}), &json!(0))
    );
    let patch =
        json!({"display_name": "Ann", "attributes": {"plan": "pro", "deep": {"er": [1, 2.5, null]}}, "role": "viewer"});
    let patched = app.admin.patch(&path, &patch).await.expect(200).json();
    for (field, value) in patch.as_object().unwrap() {
        assert_eq!(&patched[field], value);
    }
    assert_eq!(app.admin.get(&path).await.expect(200).json(), patched);
    let log = app.log().await;
    app.admin.patch(&path, &patch).await.expect(200);
    assert_eq!(app.log().await, log, "nothing changed");
    app.boolean_flag("f").await;
    app.admin.put(&override_at(user["id"].as_str().unwrap(), "f"), &json!({"override_value": true})).await.expect(201);
    assert_eq!(app.admin.get(&path).await.json()["override_count"], 1);
    let before = app.log().await.len();
    app.admin.delete(&path).await.expect(204);
    let kinds: Vec<_> = app.log().await.split_off(before).into_iter().map(|(_, a, e)| format!("{e} {a}")).collect();
    assert_eq!(kinds, ["override deleted", "user deleted"]);
    app.admin.delete(&path).await.expect_problem(404, "user_not_found");
    app.admin.get(&path).await.expect_problem(404, "user_not_found");
    app.admin.patch(&path, &json!({})).await.expect_problem(404, "user_not_found");
    app.admin.get(&format!("{USERS}/rubbish")).await.expect_problem(404, "user_not_found");
}

async fn an_email_is_unique_without_regard_to_case(kind: Kind) {
    let app = TestApp::start(kind).await;
    let (ann, _) = app.user("ann").await;
    let (ben, _) = app.user("ben").await;
    app.admin.post(USERS, &json!({"email": "ANN@example.com"})).await.expect_problem(409, "email_taken");
    let taken = app.admin.patch(&format!("{USERS}/{ben}"), &json!({"email": "Ann@Example.Com"})).await;
    taken.expect_problem(409, "email_taken");
    app.admin.patch(&format!("{USERS}/{ann}"), &json!({"email": "ANN@example.com"})).await.expect(200);
}

async fn users_are_found_by_any_part_of_email_or_name(kind: Kind) {
    let app = TestApp::start(kind).await;
    for (email, name) in [("zoe@example.com", "Ärger Müller"), ("ann_x@example.com", "Zed"), ("annyx@test.org", "Bob")]
    {
        app.admin.post(USERS, &json!({"email": email, "display_name": name})).await.expect(201);
    }
    let found = async |query: &str| {
        let page = app.admin.get(&format!("{USERS}?{query}")).await.expect(200).json();
        page["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|user| user["email"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(found("").await, ["ann_x@example.com", "annyx@test.org", "zoe@example.com"]);
    assert_eq!(found("search=EXAMPLE").await, ["ann_x@example.com", "zoe@example.com"]);
    assert_eq!(found("search=m%C3%9CLL").await, ["zoe@example.com"], "case is ignored beyond ASCII");
    assert_eq!(found("search=nn_x").await, ["ann_x@example.com"], "no wildcard");
    assert_eq!(found("search=z").await, ["ann_x@example.com", "zoe@example.com"], "beginnings of e-mail and name");
    assert_eq!(found("search=x").await, [""; 0]);
    assert_eq!(found("search=om%0Az").await, [""; 0], "nothing reaches from e-mail to name");
    app.boolean_flag("f").await;
    let id =
        app.admin.get(&format!("{USERS}?search=annyx")).await.json()["items"][0]["id"].as_str().unwrap().to_owned();
    app.admin
        .put(&override_at(&id, "f"), &json!({"override_value": true, "expires_at": "2030-01-01T00:00:01Z"}))
        .await
        .expect(201);
    assert_eq!(found("has_overrides=true").await, ["annyx@test.org"]);
    assert_eq!(found("has_overrides=false").await.len(), 2);
    app.admin.post("/api/admin/feature-flags/f/archive", &Value::Null).await.expect(200);
    assert_eq!(found("has_overrides=true").await, [""; 0], "dormant ones do not count");
    app.admin.post("/api/admin/feature-flags/f/restore", &Value::Null).await.expect(200);
    assert_eq!(found("has_overrides=true").await.len(), 1);
    app.clock_to("01-01T00:00:01Z");
    assert_eq!(found("has_overrides=true").await, [""; 0]);
    for sort in ["email", "-created_at"] {
        let whole = found(&format!("sort={sort}")).await;
        let first = app.admin.get(&format!("{USERS}?sort={sort}&limit=2")).await.json();
        let cursor = first["next_cursor"].as_str().unwrap();
        assert_eq!(found(&format!("sort={sort}&limit=2&cursor={cursor}")).await, whole[2..]);
    }
}

async fn a_changed_attribute_changes_what_a_rule_gives(kind: Kind) {
    let app = TestApp::start(kind).await;
    let (ann, ann_calls) = app.user_with("ann", "user", json!({"plan": "free"})).await;
    app.boolean_flag("f").await;
    let rules = json!({"targeting_rules": [{"id": "pro", "serve": {"variant": "on"},
        "conditions": [{"attribute": "plan", "operator": "equals", "values": ["pro"]}]}]});
    app.admin.put("/api/admin/feature-flags/f/targeting-rules", &rules).await.expect(200);
    for plan in ["pro", "free", "pro"] {
        app.admin.patch(&format!("{USERS}/{ann}"), &json!({"attributes": {"plan": plan}})).await.expect(200);
        assert_eq!(ann_calls.get("/api/flags/me/f").await.json()["value"], plan == "pro");
    }
}

async fn deactivating_a_user_ends_their_access_at_once(kind: Kind) {
    let app = TestApp::start(kind).await;
    let (ann, ann_calls) = app.user("ann").await;
    ann_calls.get("/api/flags/me").await.expect(200);
    let path = format!("{USERS}/{ann}");
    app.admin.patch(&path, &json!({"active": false})).await.expect(200);
    ann_calls.get("/api/flags/me").await.expect_problem(401, "unauthorized");
    app.admin.patch(&path, &json!({"active": true})).await.expect(200);
    ann_calls.get("/api/flags/me").await.expect(200);
    app.admin.delete(&path).await.expect(204);
    ann_calls.get("/api/flags/me").await.expect_problem(401, "unauthorized");
}

async fn deleting_a_user_with_very_many_overrides_takes_several_revisions(kind: Kind) {
    let app = TestApp::start(kind).await;
    let (ann, _) = app.user("ann").await;
    let mut tx = app.core.store().begin(app.core.now()).await.unwrap();
    for number in 0..1_001 {
        seed::insert_override(&mut tx, ann.parse().unwrap(), &format!("f{number}"), None).await;
    }
    tx.commit(&flags_tests::app::author()).await.unwrap();
    let before = app.log().await;
    app.admin.delete(&format!("{USERS}/{ann}")).await.expect(204);
    let log = app.log().await.split_off(before.len());
    let revisions: std::collections::BTreeSet<_> = log.iter().map(|(revision, ..)| revision).collect();
    assert_eq!(revisions.len(), 2);
    assert_eq!(log.iter().filter(|(_, action, entity)| action == "deleted" && entity == "override").count(), 1_001);
    app.admin.get(&format!("{USERS}/{ann}")).await.expect_problem(404, "user_not_found");
}
