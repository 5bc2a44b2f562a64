//! Flags over HTTP.

use reqwest::Method;
use serde_json::{Value, json};

use flags_tests::{
    app::{TestApp, override_at},
    database::Kind,
    on_both_databases, seed,
};

on_both_databases! {
    a_boolean_flag_needs_only_name_and_type,
    other_types_need_variants_and_what_to_serve,
    a_flag_comes_back_as_it_was_made,
    a_patch_replaces_the_fields_it_names,
    setting_by_hand_undoes_a_scheduled_change,
    a_flag_goes_by_archiving_and_deleting,
    deleting_a_flag_with_very_many_overrides_takes_several_revisions,
    variants_in_use_cannot_be_removed,
    flags_are_listed_filtered_and_paged,
    ten_thousand_values_in_a_rule_work,
    a_setting_by_hand_that_had_to_wait_counts_from_when_it_was_made,
}

const FLAGS: &str = "/api/admin/feature-flags";

async fn a_boolean_flag_needs_only_name_and_type(kind: Kind) {
    let app = TestApp::start(kind).await;
    let made = app.admin.post(FLAGS, &json!({"name": "ui.dark_mode", "flag_type": "boolean"})).await.expect(201);
    assert_eq!(made.header("location"), "/api/admin/feature-flags/ui.dark_mode");
    let flag = made.json();
    assert_eq!(flag["variants"], json!([{"id": "on", "value": true}, {"id": "off", "value": false}]));
    assert_eq!((&flag["default"], &flag["off_variant"]), (&json!({"variant": "off"}), &json!("off")));
    assert_eq!((&flag["enabled"], &flag["client_visible"]), (&json!(true), &json!(true)));
    assert_eq!(flag["salt"], "ui.dark_mode");
    assert_eq!(flag["effective"], json!({"enabled": true, "default": {"variant": "off"}, "scheduled_change_id": null}));
    assert_eq!(flag["default_set_at"], "2030-01-01T00:00:00Z");
    app.admin
        .post(FLAGS, &json!({"name": "ui.dark_mode", "flag_type": "json"}))
        .await
        .expect_problem(422, "validation_failed");
    app.admin
        .post(FLAGS, &json!({"name": "ui.dark_mode", "flag_type": "boolean"}))
        .await
        .expect_problem(409, "flag_exists");
    let only_default = json!({"name": "b", "flag_type": "boolean", "default": {"variant": "on"}});
    assert_eq!(app.flag(only_default).await["default"], json!({"variant": "on"}));
}

async fn other_types_need_variants_and_what_to_serve(kind: Kind) {
    let app = TestApp::start(kind).await;
    let answer = app.admin.post(FLAGS, &json!({"name": "s", "flag_type": "string"})).await.expect(422).json();
    let pointers: Vec<_> = answer["errors"].as_array().unwrap().iter().map(|e| e["pointer"].clone()).collect();
    assert_eq!(pointers, ["/variants", "/default", "/off_variant"]);
    app.admin.get(&format!("{FLAGS}/s")).await.expect_problem(404, "flag_not_found");
}

async fn a_flag_comes_back_as_it_was_made(kind: Kind) {
    let app = TestApp::start(kind).await;
    let definition = json!({
        "name": "checkout.flow", "description": "…", "flag_type": "string", "enabled": true,
        "variants": [{"id": "old", "value": "classic"}, {"id": "new", "name": "New", "value": "one-page", "description": "d"}],
        "default": {"weights": {"old": 90.5, "new": 9.5}, "bucket_by": "company"}, "off_variant": "old",
        "targeting_rules": [{"id": "pro", "name": "Paying users", "enabled": true,
            "conditions": [{"attribute": "plan", "operator": "equals", "values": ["pro", 1, true], "negate": false}],
            "serve": {"variant": "new"}}],
        "owner": null, "tags": ["a", "b"], "client_visible": false, "salt": "x",
    });
    let made = app.flag(definition.clone()).await;
    let read = app.admin.get(&format!("{FLAGS}/checkout.flow")).await.expect(200);
    assert_eq!(read.json(), made);
    for (field, value) in definition.as_object().unwrap() {
        assert_eq!(&made[field], value, "{field}");
    }
    let (_, ann_calls) = app.user("ann").await;
    ann_calls.get("/api/flags/me/checkout.flow").await.expect_problem(404, "flag_not_found");
    assert_eq!(ann_calls.get("/api/flags/me").await.json()["flags"], json!({}), "it is not visible to clients");
}

async fn a_patch_replaces_the_fields_it_names(kind: Kind) {
    let app = TestApp::start(kind).await;
    app.boolean_flag("f").await;
    let path = format!("{FLAGS}/f");
    let body = json!({"description": "d", "owner": "o", "tags": ["t"], "client_visible": false, "salt": "s"});
    let tag = app.admin.patch(&path, &body).await.expect(200).header("etag").to_owned();
    let merge = [("content-type", "application/merge-patch+json"), ("if-match", tag.as_str())];
    let cleared =
        app.admin.send(Method::PATCH, &path, &merge, Some(br#"{"description": null}"#.to_vec())).await.expect(200);
    assert_eq!((&cleared.json()["description"], &cleared.json()["owner"]), (&Value::Null, &json!("o")));
    app.admin.send(Method::PATCH, &path, &merge, Some(b"{}".to_vec())).await.expect_problem(412, "precondition_failed");
    let before = app.log().await;
    let unchanged = app.admin.patch(&path, &json!({"owner": "o", "enabled": true})).await.expect(200);
    assert_eq!(app.log().await, before);
    assert_eq!(unchanged.json(), cleared.json());
    app.admin.patch(&path, &json!({"name": "g"})).await.expect_violation("/name", "unknown_field");
    app.admin.patch(&path, &json!({"flag_type": "json"})).await.expect_violation("/flag_type", "unknown_field");
    app.admin.patch(&path, &json!({"enabled": null})).await.expect_violation("/enabled", "invalid_type");
    app.admin.patch(&format!("{FLAGS}/nope"), &json!({})).await.expect_problem(404, "flag_not_found");
}

async fn setting_by_hand_undoes_a_scheduled_change(kind: Kind) {
    let app = TestApp::start(kind).await;
    let (_, ann_calls) = app.user("ann").await;
    app.boolean_flag("f").await;
    let path = format!("{FLAGS}/f");
    let change = json!({"scheduled_at": "2030-01-01T00:00:01Z", "serve": {"variant": "on"}, "enabled": true});
    app.admin.post(&format!("{path}/scheduled-changes"), &change).await.expect(201);
    app.clock_to("01-01T00:00:02Z");
    let mine = ann_calls.get("/api/flags/me/f").await.json();
    assert_eq!((&mine["value"], &mine["source"]), (&json!(true), &json!("scheduled_change")));
    let flag = app.admin.get(&path).await.json();
    assert_eq!(
        (&flag["default"], &flag["effective"]["default"]),
        (&json!({"variant": "off"}), &json!({"variant": "on"}))
    );
    // The stored default is `off` already; naming it is a change all the same, as the effective one is `on`.
    let undone = app.admin.patch(&path, &json!({"default": {"variant": "off"}})).await.expect(200).json();
    assert_eq!(undone["default_set_at"], "2030-01-01T00:00:02Z");
    assert_eq!(undone["effective"]["default"], json!({"variant": "off"}));
    assert_eq!(ann_calls.get("/api/flags/me/f").await.json()["source"], "default");
    let log = app.log().await;
    app.admin.patch(&path, &json!({"default": {"variant": "off"}})).await.expect(200);
    assert_eq!(app.log().await, log);
}

async fn a_flag_goes_by_archiving_and_deleting(kind: Kind) {
    let app = TestApp::start(kind).await;
    let (ann, ann_calls) = app.user("ann").await;
    app.boolean_flag("f").await;
    let path = format!("{FLAGS}/f");
    app.admin.put(&override_at(&ann, "f"), &json!({"override_value": true})).await.expect(201);
    let change = json!({"scheduled_at": "2030-02-01T00:00:00Z", "enabled": false});
    let id = app.admin.post(&format!("{path}/scheduled-changes"), &change).await.expect(201).json()["id"].clone();
    assert_eq!(app.admin.get(&path).await.json()["pending_change_count"], 1);
    app.admin.delete(&path).await.expect_problem(409, "flag_not_archived");
    let archived = app.admin.post(&format!("{path}/archive"), &Value::Null).await.expect(200);
    assert_eq!(archived.json()["archived_at"], "2030-01-01T00:00:00Z");
    assert_eq!(archived.json()["pending_change_count"], 0);
    let cancelled =
        app.admin.get(&format!("{path}/scheduled-changes/{}", id.as_str().unwrap())).await.expect(200).json();
    assert_eq!(cancelled["status"], "cancelled");
    let again = app.admin.post(&format!("{path}/archive"), &Value::Null).await.expect(200);
    assert_eq!(again.header("etag"), archived.header("etag"), "nothing changed");
    app.admin.post(&format!("{path}/scheduled-changes"), &change).await.expect_problem(409, "flag_archived");
    let log_before = app.log().await.len();
    app.admin.delete(&path).await.expect(204);
    let log = app.log().await.split_off(log_before);
    let kinds: Vec<_> = log.iter().map(|(_, action, entity)| format!("{entity} {action}")).collect();
    assert_eq!(kinds, ["override deleted", "scheduled_change deleted", "flag deleted"], "each is recorded");
    assert_eq!(log[0].0, log[2].0, "in one revision");
    app.admin.delete(&path).await.expect_problem(404, "flag_not_found");
    app.admin.get(&path).await.expect_problem(404, "flag_not_found");
    assert_eq!(ann_calls.get("/api/flags/me/overrides").await.json()["overrides"], json!([]));
    app.boolean_flag("f").await;
    assert_eq!(ann_calls.get("/api/flags/me/f").await.json()["source"], "default", "nothing of the old flag is left");
}

async fn deleting_a_flag_with_very_many_overrides_takes_several_revisions(kind: Kind) {
    let app = TestApp::start(kind).await;
    app.boolean_flag("f").await;
    let mut tx = app.core.store().begin(app.core.now()).await.unwrap();
    for number in 0..2_500 {
        let user_id = seed::insert_user(&mut tx, &format!("u{number}@example.com")).await;
        seed::insert_override(&mut tx, user_id, "f", None).await;
    }
    let seeded = tx.commit(&flags_tests::app::author()).await.unwrap().revision().number;
    let path = format!("{FLAGS}/f");
    assert_eq!(app.admin.get(&path).await.json()["override_count"], 2_500);
    app.admin.post(&format!("{path}/archive"), &Value::Null).await.expect(200);
    let gone = app.admin.delete(&path).await.expect(204);
    let last: i64 = gone.header("flags-revision").split(':').nth(1).unwrap().parse().unwrap();
    assert_eq!(last, seeded + 4, "archived; 1,000; 1,000; 500 and the flag");
    let log = app.log().await;
    assert_eq!(log.iter().filter(|(_, action, entity)| action == "deleted" && entity == "override").count(), 2_500);
    app.admin.get(&path).await.expect_problem(404, "flag_not_found");
}

async fn variants_in_use_cannot_be_removed(kind: Kind) {
    let app = TestApp::start(kind).await;
    let variants = |ids: &[&str]| ids.iter().map(|id| json!({"id": id, "value": id})).collect::<Vec<_>>();
    app.flag(json!({"name": "f", "flag_type": "string", "variants": variants(&["a", "b", "c", "d", "e"]),
        "default": {"variant": "a"}, "off_variant": "b",
        "targeting_rules": [{"id": "r", "conditions": [], "serve": {"weights": {"c": 100}}}]}))
        .await;
    let path = format!("{FLAGS}/f");
    let change = json!({"scheduled_at": "2030-01-01T00:00:01Z", "serve": {"variant": "d"}});
    app.admin.post(&format!("{path}/scheduled-changes"), &change).await.expect(201);
    let removal = json!({"variants": variants(&["e"])});
    let refused = app.admin.patch(&path, &removal).await.expect_problem(409, "variant_in_use");
    let detail = refused["detail"].as_str().unwrap();
    for part in ["default", "off_variant", "targeting rule \"r\"", "scheduled change "] {
        assert!(detail.contains(part), "{detail}");
    }
    app.clock_to("01-01T00:00:02Z");
    let still = json!({"variants": variants(&["a", "b", "c", "e"])});
    app.admin.patch(&path, &still).await.expect_problem(409, "variant_in_use");
    // The same request may change the flag's own uses; the due change yields to a default set now.
    let all =
        json!({"variants": variants(&["e"]), "default": {"variant": "e"}, "off_variant": "e", "targeting_rules": []});
    app.admin.patch(&path, &all).await.expect(200);
    let (_, ann_calls) = app.user("ann").await;
    assert_eq!(ann_calls.get("/api/flags/me/f").await.json()["value"], "e");
}

async fn flags_are_listed_filtered_and_paged(kind: Kind) {
    let app = TestApp::start(kind).await;
    for (name, description, tags) in [
        ("b_x", "Second", json!(["red", "blue"])),
        ("a.z", "first ÉCLAIR", json!(["red"])),
        ("a", "Third", json!([])),
        ("bax", "", json!(["re"])),
    ] {
        app.flag(json!({"name": name, "flag_type": "boolean", "description": description, "tags": tags})).await;
    }
    app.admin.post(&format!("{FLAGS}/a/archive"), &Value::Null).await.expect(200);
    let names = async |query: &str| {
        let page = app.admin.get(&format!("{FLAGS}?{query}")).await.expect(200).json();
        page["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|flag| flag["name"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(names("").await, ["a", "a.z", "b_x", "bax"]);
    assert_eq!(names("sort=-updated_at").await, ["a", "bax", "a.z", "b_x"]);
    assert_eq!(names("archived=true").await, ["a"]);
    assert_eq!(names("archived=false").await, ["a.z", "b_x", "bax"]);
    assert_eq!(names("tag=red").await, ["a.z", "b_x"]);
    assert_eq!(names("tag=re").await, ["bax"], "a tag is whole");
    assert_eq!(names("tag=RED").await, [""; 0], "and minds case");
    assert_eq!(names("search=B_").await, ["b_x"]);
    assert_eq!(names("search=%C3%A9clair").await, ["a.z"]);
    for sort in ["name", "-updated_at"] {
        let whole = names(&format!("sort={sort}")).await;
        let first = app.admin.get(&format!("{FLAGS}?sort={sort}&limit=3")).await.json();
        assert_eq!((&first["total"], &first["total_is_exact"]), (&json!(4), &json!(true)));
        let cursor = first["next_cursor"].as_str().unwrap();
        assert_eq!(names(&format!("sort={sort}&limit=3&cursor={cursor}")).await, whole[3..]);
    }
}

async fn a_setting_by_hand_that_had_to_wait_counts_from_when_it_was_made(kind: Kind) {
    let app = TestApp::start(kind).await;
    app.boolean_flag("f").await;
    let path = format!("{FLAGS}/f");
    let change = json!({"scheduled_at": "2030-01-01T00:00:05Z", "serve": {"variant": "on"}});
    app.admin.post(&format!("{path}/scheduled-changes"), &change).await.expect(201);
    let mut holder = app.core.store().begin(app.core.now()).await.unwrap();
    holder.lock_flag("f").await.unwrap();
    let (admin, target) = (app.admin.clone(), path.clone());
    let patch = tokio::spawn(async move { admin.patch(&target, &json!({"default": {"variant": "off"}})).await });
    // The scheduled change falls due while the hand waits (or before it comes at all: the same must come of it).
    app.clock_to("01-01T00:00:06Z");
    holder.rollback().await.unwrap();
    let answer = patch.await.unwrap().expect(200).json();
    assert_eq!(answer["default_set_at"], "2030-01-01T00:00:06Z");
    assert_eq!(
        answer["effective"],
        json!({"enabled": true, "default": {"variant": "off"}, "scheduled_change_id": null})
    );
    assert_eq!(app.admin.get(&path).await.json()["effective"], answer["effective"]);
}

async fn ten_thousand_values_in_a_rule_work(kind: Kind) {
    let app = TestApp::start(kind).await;
    let (ann, ann_calls) = app.user("ann").await;
    app.boolean_flag("f").await;
    let mut values: Vec<_> = (0..9_999).map(|number| json!(format!("nobody-{number}"))).collect();
    values.push(json!(ann));
    let rules = json!({"targeting_rules": [{"id": "r", "serve": {"variant": "on"},
        "conditions": [{"attribute": "user_id", "operator": "equals", "values": values}]}]});
    app.admin.put(&format!("{FLAGS}/f/targeting-rules"), &rules).await.expect(200);
    assert_eq!(ann_calls.get("/api/flags/me/f").await.json()["source"], "targeting_rule");
}
