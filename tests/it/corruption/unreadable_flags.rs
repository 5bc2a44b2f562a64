//! A flag that this version cannot read serves active overrides of its type only, is listed as unreadable, and can be
//! archived but not changed.

use flags_domain::EvaluationBudget;
use flags_service::Runtime;
use flags_tests::{
    app::{TestApp, override_path},
    database::{DatabaseKind, execute_raw, execute_raw_on_change_log, table_rows},
    eventually, on_both_databases,
};
use serde_json::{Value, json};

on_both_databases! {
    unreadable_flag_serves_overrides_only_and_can_be_archived_but_not_changed,
    unknown_operator_of_a_newer_server_makes_the_flag_unreadable_without_a_reload,
    unreadable_scheduled_change_makes_its_flag_unreadable,
    unreadable_change_log_row_causes_only_one_reload,
}

/// A rule with an operator that this version does not know.
const RULES: &str = r#"[{"id": "r", "conditions": [{"attribute": "plan", "operator": "resembles", "values": ["x"]}],
    "serve": {"variant": "on"}}]"#;

fn flag_path(name: &str) -> String {
    format!("/api/admin/feature-flags/{name}")
}

fn ids(values: &Value) -> Vec<&str> {
    values.as_object().map_or_else(Vec::new, |values| values.keys().map(String::as_str).collect())
}

async fn unreadable_flag_serves_overrides_only_and_can_be_archived_but_not_changed(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    app.create_boolean_flag("healthy").await;
    app.create_boolean_flag("newer").await;
    let (ann_id, ann) = app.create_user("ann").await;
    let (ben_id, ben) = app.create_user("ben").await;
    app.admin.put(&override_path(&ann_id, "newer"), &json!({"override_value": true})).await.expect(201);
    let sql = format!("UPDATE feature_flags SET targeting_rules = '{RULES}' WHERE name = 'newer'");
    execute_raw(&app.database.url, &sql).await;
    app.reload_replica().await;

    let own_flags = ann.get("/api/flags/me").await.expect(200).json();
    assert_eq!(own_flags["flags"]["newer"]["value"], true, "the override applies");
    let own_flags = ben.get("/api/flags/me").await.expect(200).json();
    assert_eq!(ids(&own_flags["flags"]), ["healthy"]);
    let context = json!({"context": {"targetingKey": ben_id}});
    let failure = ben.post("/ofrep/v1/evaluate/flags/newer", &context).await;
    assert_eq!(failure.json()["errorCode"], "PARSE_ERROR", "{}", failure.text);
    let bulk = ben.post("/ofrep/v1/evaluate/flags", &context).await.expect(200).json();
    assert_eq!((&bulk["flags"][1]["key"], &bulk["flags"][1]["errorCode"]), (&json!("newer"), &json!("PARSE_ERROR")));
    let explanation = app.admin.get(&format!("/api/admin/users/{ann_id}/flags/newer/explanation")).await.expect(200);
    assert_eq!(explanation.json()["layers"][1]["layer"], "invalid", "{}", explanation.text);

    let reason = "targeting_rules[0].conditions[0].operator: unknown variant `resembles`";
    let flag = app.admin.get(&flag_path("newer")).await.expect(200).json();
    assert!(flag["unreadable"].as_str().unwrap().starts_with(reason), "{flag}");
    assert_eq!((&flag["flag_type"], &flag["override_count"]), (&json!("boolean"), &json!(1)));
    let list = app.admin.get("/api/admin/feature-flags").await.expect(200).json();
    assert_eq!(list["items"][1], flag);
    assert!(list["items"][0].get("unreadable").is_none());

    for (response, operation) in [
        (app.admin.patch(&flag_path("newer"), &json!({"enabled": false})).await, "patch"),
        (app.admin.put(&override_path(&ann_id, "newer"), &json!({"override_value": false})).await, "override"),
        (
            app.admin
                .post(
                    &format!("{}/scheduled-changes", flag_path("newer")),
                    &json!({"scheduled_at": "2031-01-01T00:00:00Z", "enabled": true}),
                )
                .await,
            "schedule",
        ),
        (app.admin.delete(&flag_path("newer")).await, "delete"),
    ] {
        let body = response.expect_problem(409, "flag_unreadable");
        assert!(body["detail"].as_str().unwrap().contains("resembles"), "{operation}: {body}");
    }
    let before = table_rows(&app.database.url, "feature_flags").await;
    let archived = app.admin.post(&format!("{}/archive", flag_path("newer")), &json!({})).await.expect(200).json();
    assert!(archived["archived_at"].is_string() && archived["unreadable"].is_string(), "{archived}");
    let after = table_rows(&app.database.url, "feature_flags").await;
    assert_eq!(before[0], after[0]);
    assert!(after[1].contains("resembles"), "the definition is not rewritten: {}", after[1]);
    assert!(ids(&ann.get("/api/flags/me").await.expect(200).json()["flags"]) == ["healthy"], "archived");
    app.admin.post(&format!("{}/restore", flag_path("newer")), &json!({})).await.expect_problem(409, "flag_unreadable");
    let entry = app.admin.get("/api/admin/audit-log?flag_name=newer&action=archived").await.expect(200).json();
    let after = &entry["items"][0]["after"];
    assert_eq!(after["targeting_rules"][0]["conditions"][0]["operator"], "resembles");
    assert_eq!(after["archived_at"], archived["archived_at"]);
    // Replacing the unknown rules makes the flag readable, so it can be restored.
    let sql = "UPDATE feature_flags SET targeting_rules = '[]' WHERE name = 'newer'";
    execute_raw(&app.database.url, sql).await;
    app.admin.post(&format!("{}/restore", flag_path("newer")), &json!({})).await.expect(200);
    eventually("the flag is readable again", async || {
        let own_flags = ben.get("/api/flags/me").await.expect(200).json();
        (ids(&own_flags["flags"]) == ["healthy", "newer"]).then_some(())
    })
    .await;
}

/// Appends a copy of the newest change-log entry at the next revision. `edit` is the SQL expression for its `after`.
async fn repeat_newest_change(app: &TestApp, edit: &str) {
    let columns = "ord, at, actor, action, entity, entity_id, flag_name, user_id, before";
    let id = if app.database.url.starts_with("sqlite") { "randomblob(16)" } else { "gen_random_uuid()" };
    let sql = format!(
        "INSERT INTO change_log (revision, id, {columns}, after)
         SELECT revision + 1, {id}, {columns}, {edit} FROM change_log WHERE revision = (SELECT revision FROM log_head);
         UPDATE log_head SET revision = revision + 1"
    );
    execute_raw_on_change_log(&app.database.url, &sql).await;
}

/// Returns an SQL expression for the column `after` with `from` replaced by `to`.
fn replaced(app: &TestApp, from: &str, to: &str) -> String {
    if app.database.url.starts_with("sqlite") {
        format!("replace(after, '{from}', '{to}')")
    } else {
        // PostgreSQL prints `jsonb` with a space after each colon and comma.
        format!("replace(after::text, '{}', '{to}')::jsonb", from.replace(':', ": ").replace(',', ", "))
    }
}

async fn unknown_operator_of_a_newer_server_makes_the_flag_unreadable_without_a_reload(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    app.create_boolean_flag("newer").await;
    let (_, ann) = app.create_user("ann").await;
    let rules = json!({"targeting_rules": [{"id": "r", "serve": {"variant": "on"},
        "conditions": [{"attribute": "plan", "operator": "equals", "values": ["x"]}]}]});
    app.admin.patch(&flag_path("newer"), &rules).await.expect(200);
    let (generation, number) = (app.replica.read().generation(), app.replica.revision().number);
    let edit = replaced(&app, "\"equals\"", "\"resembles\"");
    repeat_newest_change(&app, &edit).await;
    let wait_for = async |number: i64| {
        let reached = async || (app.replica.revision().number == number).then_some(());
        eventually("the replica applies the change", reached).await;
    };
    wait_for(number + 1).await;
    assert_eq!(ids(&ann.get("/api/flags/me").await.expect(200).json()["flags"]), [""; 0]);
    assert!(app.replica.snapshot(None).flag("newer").unwrap().compiled().compile_error().is_some());
    // The next change has a readable definition, which makes the flag readable again.
    app.admin.patch(&flag_path("newer"), &json!({"description": "readable"})).await.expect(200);
    wait_for(number + 2).await;
    assert_eq!(ids(&ann.get("/api/flags/me").await.expect(200).json()["flags"]), ["newer"]);
    assert_eq!(app.replica.read().generation(), generation, "no reload");
}

async fn unreadable_scheduled_change_makes_its_flag_unreadable(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    app.create_boolean_flag("newer").await;
    app.create_boolean_flag("healthy").await;
    let (_, ann) = app.create_user("ann").await;
    let path = format!("{}/scheduled-changes", flag_path("newer"));
    let change = json!({"scheduled_at": "2031-01-01T00:00:00Z", "serve": {"variant": "on"}});
    let change = app.admin.post(&path, &change).await.expect(201).json();
    execute_raw(&app.database.url, r#"UPDATE scheduled_changes SET serve = '{"variant": "on", "future": 1}'"#).await;
    app.reload_replica().await;
    assert_eq!(ids(&ann.get("/api/flags/me").await.expect(200).json()["flags"]), ["healthy"]);
    let flag = app.admin.get(&flag_path("newer")).await.expect(200).json();
    let reason = format!("scheduled change {}: ", change["id"].as_str().unwrap());
    assert!(flag["unreadable"].as_str().unwrap().starts_with(&reason), "{flag}");
    app.admin.patch(&flag_path("newer"), &json!({"enabled": false})).await.expect_problem(409, "flag_unreadable");
    let list = app.admin.get("/api/admin/scheduled-changes").await.expect(200).json();
    assert_eq!((&list["items"], &list["total"]), (&json!([]), &json!(1)), "omitted, but counted");
    app.admin.post(&format!("{}/archive", flag_path("newer")), &json!({})).await.expect(200);
    let rows = table_rows(&app.database.url, "scheduled_changes").await;
    assert!(rows[0].contains("future"), "{rows:?}");
}

async fn unreadable_change_log_row_causes_only_one_reload(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    app.create_boolean_flag("a").await;
    let (ann_id, ann) = app.create_user("ann").await;
    let generation = || app.replica.read().generation();
    let is_sqlite = kind == DatabaseKind::Sqlite;
    let mut corruptions =
        vec!["entity = 'nonsense'", "action = 'nonsense'", "flag_name = 'Not A Name', entity = 'flag'"];
    if is_sqlite {
        corruptions.extend([
            "at = 'text'",
            "actor = x'00'",
            "entity_id = 'text'",
            "after = 'not json', entity = 'flag'",
        ]);
    }
    for corruption in corruptions {
        app.create_boolean_flag(&format!("f{}", generation())).await;
        let (before, number) = (generation(), app.replica.revision().number + 1);
        let insert = if is_sqlite { "randomblob(16)" } else { "gen_random_uuid()" };
        let columns = "ord, at, actor, action, entity, entity_id, flag_name, user_id, before, after";
        let sql = format!(
            "BEGIN;
             INSERT INTO change_log (revision, id, {columns}) SELECT {number}, {insert}, {columns} FROM change_log
             WHERE revision = {number} - 1;
             UPDATE change_log SET {corruption} WHERE revision = {number};
             UPDATE log_head SET revision = {number};
             COMMIT"
        );
        execute_raw_on_change_log(&app.database.url, &sql).await;
        let reached = async || (app.replica.revision().number == number).then_some(());
        eventually("the replica is reloaded", reached).await;
        assert_eq!(generation(), before + 1, "{corruption}");
        app.admin.put(&override_path(&ann_id, "a"), &json!({"override_value": true})).await;
        app.admin.patch(&flag_path("a"), &json!({"description": corruption})).await.expect(200);
        assert_eq!(generation(), before + 1, "no further reload after {corruption}");
        assert_eq!(ann.get("/api/flags/me").await.expect(200).json()["flags"]["a"]["value"], true);
    }
    // An unreadable row beyond the head belongs to no commit, so it causes no reload.
    let (before, number) = (generation(), app.replica.revision().number);
    let mut beyond = vec![format!("{}", number + 500)];
    if is_sqlite {
        beyond.push(format!("{number}.5"));
    }
    let insert = if is_sqlite { "randomblob(16)" } else { "gen_random_uuid()" };
    for revision in &beyond {
        let sql = format!(
            "INSERT INTO change_log (revision, ord, id, at, actor, action, entity)
             SELECT {revision}, 0, {insert}, at, actor, action, 'nonsense' FROM change_log WHERE revision = 1 AND ord = 0"
        );
        execute_raw_on_change_log(&app.database.url, &sql).await;
    }
    for round in 0..3 {
        app.admin.patch(&flag_path("a"), &json!({"description": format!("beyond {round}")})).await.expect(200);
    }
    assert_eq!((generation(), app.replica.revision().number), (before, number + 3));
    // The unreadable rows do not prevent a server from starting and evaluating flags.
    let runtime = Runtime::start(app.core.store().clone(), app.clock.clone()).await.unwrap();
    let user = runtime.evaluation.user(ann_id.parse().unwrap()).await.unwrap().unwrap();
    let snapshot = runtime.replica.snapshot(Some(user.id));
    let budget = &mut EvaluationBudget::default();
    assert!(snapshot.evaluate("a", &user.context, runtime.core.now(), budget).is_some());
}
