//! Explanation of one flag for one user.

use serde_json::{Value, json};

use flags_tests::{
    app::{TestApp, override_path},
    database::{DatabaseKind, execute_raw},
    on_both_databases,
};

use super::{create_flag_with_rules, explain, explanation_path, finding_codes};

on_both_databases! {
    explanation_reports_every_layer,
    each_kind_of_conflict_is_reported_as_a_finding,
    at_parameter_accepts_future_and_rejects_past_instants,
    unknown_users_flags_and_findings_are_rejected,
}

async fn explanation_reports_every_layer(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    create_flag_with_rules(&app).await;
    let (ann_id, _) = app.create_user_with("ann", "user", json!({"plan": "pro", "seats": "many"})).await;
    let explanation = explain(&app, &ann_id, "checkout.flow").await;
    assert_eq!((&explanation["user_id"], &explanation["flag_name"]), (&json!(ann_id), &json!("checkout.flow")));
    assert_eq!((&explanation["evaluated_at"], &explanation["stale"]), (&json!("2030-01-01T00:00:00Z"), &json!(false)));
    let resolution = json!({"value": "classic", "variant": "old", "source": "default", "valid_until": null});
    assert_eq!(explanation["resolution"], resolution, "the first variant is served to users without the attribute");
    let layers = json!([
        {"layer": "override", "outcome": "not_matched", "would_match": false, "why_not": {"code": "no_override"}},
        {"layer": "disabled", "outcome": "not_matched", "would_match": false, "why_not": {"code": "flag_enabled"}},
        {"layer": "targeting_rule", "rule_id": "off", "outcome": "not_matched", "would_match": false,
         "why_not": {"code": "rule_disabled"}},
        {"layer": "targeting_rule", "rule_id": "pro", "outcome": "not_matched", "would_match": false,
         "why_not": {"code": "condition", "condition": 1, "attribute": "seats", "operator": "gte", "seen": "many",
                     "failure": "type_mismatch"}},
        {"layer": "scheduled_change", "outcome": "not_matched", "would_match": false, "why_not": {"code": "nothing_due"}},
        {"layer": "default", "outcome": "matched", "would_match": true, "value": "classic", "variant": "old",
         "split": {"bucket_by": "company", "bucket": null}},
    ]);
    assert_eq!(explanation["layers"], layers);
    assert_eq!(
        (&explanation["findings"], &explanation["override"], &explanation["next_change"]),
        (&json!([]), &Value::Null, &Value::Null)
    );
    let expires_at = "2030-01-01T00:01:00Z";
    let body = json!({"override_value": "b", "reason": "beta test", "expires_at": expires_at});
    app.admin.put(&override_path(&ann_id, "checkout.flow"), &body).await.expect(201);
    app.admin
        .patch(
            &format!("/api/admin/users/{ann_id}"),
            &json!({"attributes": {"plan": "pro", "seats": 12, "company": "acme"}}),
        )
        .await
        .expect(200);
    let explanation = explain(&app, &ann_id, "checkout.flow").await;
    let outcomes: Vec<_> = explanation["layers"].as_array().unwrap().iter().map(|layer| &layer["outcome"]).collect();
    assert_eq!(outcomes, ["matched", "not_reached", "not_reached", "not_reached", "not_reached", "not_reached"]);
    let shadowed = &explanation["layers"][3];
    assert_eq!((&shadowed["would_match"], &shadowed["value"]), (&json!(true), &json!("one-page")));
    assert!(explanation["layers"][5]["split"]["bucket"].is_u64(), "{explanation}");
    assert_eq!(finding_codes(&explanation), ["override_shadows_rule"]);
    let next_change =
        json!({"at": expires_at, "value": "one-page", "variant": "new", "source": "targeting_rule", "rule_id": "pro"});
    assert_eq!(explanation["next_change"], next_change);
    let override_info = &explanation["override"];
    assert_eq!((&override_info["reason"], &override_info["status"]), (&json!("beta test"), &json!("active")));
    assert!(override_info["created_by"].as_str().unwrap().starts_with("token:"), "{override_info}");
    app.admin.post("/api/admin/feature-flags/checkout.flow/archive", &Value::Null).await.expect(200);
    let explanation = explain(&app, &ann_id, "checkout.flow").await;
    assert_eq!(explanation["resolution"], Value::Null);
    assert_eq!(explanation["layers"], json!([{"layer": "archived", "outcome": "matched", "would_match": false}]));
}

async fn each_kind_of_conflict_is_reported_as_a_finding(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    let (ann_id, _) = app.create_user_with("ann", "user", json!({"plan": "pro"})).await;
    let rules = json!([{"id": "pro", "conditions": [{"attribute": "plan", "operator": "equals", "values": ["pro"]}],
        "serve": {"variant": "on"}}]);
    for name in ["plain", "ruled", "scheduled", "flag_disabled", "expired", "disabled", "mistyped"] {
        app.create_boolean_flag(name).await;
    }
    app.admin
        .put("/api/admin/feature-flags/ruled/targeting-rules", &json!({"targeting_rules": rules}))
        .await
        .expect(200);
    let change = json!({"scheduled_at": "2030-01-02T00:00:00Z", "serve": {"variant": "on"}});
    app.admin.post("/api/admin/feature-flags/scheduled/scheduled-changes", &change).await.expect(201);
    app.admin.patch("/api/admin/feature-flags/flag_disabled", &json!({"enabled": false})).await.expect(200);
    let set = async |flag: &str, body: Value| {
        app.admin.put(&override_path(&ann_id, flag), &body).await.expect(201);
    };
    set("plain", json!({"override_value": false})).await;
    set("ruled", json!({"override_value": false})).await;
    set("scheduled", json!({"override_value": false})).await;
    set("flag_disabled", json!({"override_value": true})).await;
    set("expired", json!({"override_value": true, "expires_at": "2030-01-01T00:00:01Z"})).await;
    set("disabled", json!({"override_value": true, "enabled": false})).await;
    set("mistyped", json!({"override_value": true})).await;
    // The API rejects a value of the wrong type, but a restored backup may contain one.
    let corrupt = "UPDATE user_flag_overrides SET override_value = '\"text\"' WHERE flag_name = 'mistyped'";
    execute_raw(&app.database.url, corrupt).await;
    app.reload_replica().await;
    app.set_clock("01-01T00:00:01Z");
    for (flag, expected) in [
        ("plain", vec!["override_redundant"]),
        ("ruled", vec!["override_shadows_rule"]),
        ("scheduled", vec!["override_shadows_schedule"]),
        ("flag_disabled", vec!["override_on_disabled_flag"]),
        ("expired", vec!["override_expired"]),
        ("disabled", vec!["override_disabled"]),
        ("mistyped", vec!["override_type_mismatch"]),
    ] {
        let explanation = explain(&app, &ann_id, flag).await;
        assert_eq!(finding_codes(&explanation), expected, "{flag}: {explanation}");
        // Filtering the list by this finding returns only the override of this flag.
        let listed =
            app.admin.get(&format!("/api/admin/flag-overrides?finding={}", expected[0])).await.expect(200).json();
        let names: Vec<_> = listed["items"].as_array().unwrap().iter().map(|item| &item["flag_name"]).collect();
        assert_eq!(names, [flag], "{}", expected[0]);
        assert_eq!((&listed["total"], &listed["total_is_exact"]), (&json!(1), &json!(true)));
    }
}

async fn at_parameter_accepts_future_and_rejects_past_instants(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    let (ann_id, _) = app.create_user("ann").await;
    app.create_boolean_flag("f").await;
    let switch_on = json!({"scheduled_at": "2030-01-02T00:00:00Z", "serve": {"variant": "on"}});
    let switch_on = app.admin.post("/api/admin/feature-flags/f/scheduled-changes", &switch_on).await.expect(201).json();
    for (at, value, source) in [
        ("2030-01-01T00:00:00Z", false, "default"),
        ("2030-01-01T23:59:59.999999Z", false, "default"),
        ("2030-01-02T00:00:00Z", true, "scheduled_change"),
        ("2030-01-02T01:00:00%2B01:00", true, "scheduled_change"),
        ("9999-12-31T23:59:59Z", true, "scheduled_change"),
    ] {
        let explanation =
            app.admin.get(&format!("{}?at={at}", explanation_path(&ann_id, "f"))).await.expect(200).json();
        assert_eq!(
            (&explanation["resolution"]["value"], &explanation["resolution"]["source"]),
            (&json!(value), &json!(source)),
            "{at}"
        );
        let all = app.admin.get(&format!("/api/admin/users/{ann_id}/flags?at={at}")).await.expect(200).json();
        assert_eq!(all["flags"]["f"]["value"], value, "{at}");
        if source == "scheduled_change" {
            assert_eq!(all["flags"]["f"]["scheduled_change_id"], switch_on["id"]);
        }
    }
    let disable = json!({"scheduled_at": "2030-01-03T00:00:00Z", "enabled": false});
    let disable = app.admin.post("/api/admin/feature-flags/f/scheduled-changes", &disable).await.expect(201).json();
    let explanation =
        app.admin.get(&format!("{}?at=2030-01-03T00:00:00Z", explanation_path(&ann_id, "f"))).await.expect(200).json();
    assert_eq!(explanation["resolution"]["source"], "disabled");
    assert_eq!(explanation["layers"][1]["scheduled_change_id"], disable["id"], "{explanation}");
    for path in [explanation_path(&ann_id, "f"), format!("/api/admin/users/{ann_id}/flags")] {
        let response = app.admin.get(&format!("{path}?at=2029-12-31T23:59:59.999999Z")).await;
        response.expect_violation("/at", "in_the_past");
        for invalid in ["yesterday", "2030-01-01", "10000-01-01T00:00:00Z", ""] {
            app.admin.get(&format!("{path}?at={invalid}")).await.expect_violation("/at", "invalid_parameter");
        }
        app.admin.get(&format!("{path}?when=now")).await.expect_violation("/when", "unknown_parameter");
    }
}

async fn unknown_users_flags_and_findings_are_rejected(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    let (ann_id, _) = app.create_user("ann").await;
    app.create_boolean_flag("f").await;
    let unknown_id = uuid::Uuid::now_v7().to_string();
    app.admin.get(&explanation_path(&unknown_id, "f")).await.expect_problem(404, "user_not_found");
    app.admin.get(&explanation_path("rubbish", "f")).await.expect_problem(404, "user_not_found");
    app.admin.get(&explanation_path(&ann_id, "g")).await.expect_problem(404, "flag_not_found");
    app.admin.get(&format!("/api/admin/users/{unknown_id}/flags")).await.expect_problem(404, "user_not_found");
    for path in ["/api/admin/flag-overrides?finding=nonsense", "/api/admin/flag-overrides?finding="] {
        app.admin.get(path).await.expect_violation("/finding", "invalid_parameter");
    }
}
