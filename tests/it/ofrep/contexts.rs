//! Evaluation contexts: attributes of requests, stored attributes and anonymous contexts.

use flags_tests::{
    app::{TestApp, override_path},
    database::DatabaseKind,
    on_both_databases,
};
use serde_json::json;

use super::{BULK_PATH, backend_caller, evaluate, evaluate_all, evaluate_one, expect_error};

on_both_databases! {
    backends_can_replace_stored_attributes_but_users_can_only_add_new_ones,
    unknown_and_inactive_users_are_evaluated_as_anonymous,
    keys_that_read_as_uuids_are_text_unless_a_user_has_the_id,
    conditions_on_email_ignore_case,
}

/// Creates the string flag `f`. It has one rule for each of the attributes `plan`, `company.plan`, `role`, `email` and
/// `page`, which serve the variants `pro`, `nested`, `admin`, `mail` and `home`.
async fn create_flag_with_rules(app: &TestApp) {
    let rule = |id: &str, attribute: &str, value: &str| {
        json!({"id": id, "serve": {"variant": id},
            "conditions": [{"attribute": attribute, "operator": "equals", "values": [value]}]})
    };
    let ids = ["none", "pro", "nested", "admin", "mail", "home"];
    let variants: Vec<_> = ids.iter().map(|id| json!({"id": id, "value": id})).collect();
    app.create_flag(json!({"name": "f", "flag_type": "string", "variants": variants, "default": {"variant": "none"},
        "off_variant": "none", "targeting_rules": [rule("pro", "plan", "pro"), rule("nested", "company.plan", "pro"),
            rule("admin", "role", "admin"), rule("mail", "email", "x@example.com"), rule("home", "page", "home")]}))
        .await;
}

async fn backends_can_replace_stored_attributes_but_users_can_only_add_new_ones(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    create_flag_with_rules(&app).await;
    let stored = json!({"plan": "free", "company": {"plan": "free"}});
    let (ann_id, ann) = app.create_user_with("ann", "user", stored).await;
    let backend = backend_caller(&app).await;
    for (attributes, for_backend, for_user) in [
        (json!({}), "none", "none"),
        (json!({"page": "home"}), "home", "home"),
        (json!({"plan": "pro"}), "pro", "none"),
        (json!({"company": {"plan": "pro"}}), "nested", "none"),
        (json!({"company.plan": "pro"}), "nested", "none"),
        // Callers cannot set built-in attributes.
        (json!({"role": "admin", "email": "x@example.com", "user_id": "x", "created_at": "x"}), "none", "none"),
    ] {
        let mut context = attributes.clone();
        context["targetingKey"] = json!(ann_id);
        for (caller, expected) in [(&backend, for_backend), (&ann, for_user)] {
            let result = evaluate(caller, "f", context.clone()).await.expect(200).json();
            assert_eq!(result["value"], expected, "{attributes}");
            let all = caller.post(BULK_PATH, &json!({"context": context})).await.expect(200).json();
            assert_eq!(all["flags"][0]["value"], expected);
            let is_ignored = attributes.get("role").is_some();
            let ignored = if is_ignored { json!("user_id,email,role,created_at") } else { json!(null) };
            assert_eq!(result["metadata"]["ignored_attributes"], ignored);
            assert_eq!(all["metadata"]["ignored_attributes"], ignored);
        }
    }
}

async fn unknown_and_inactive_users_are_evaluated_as_anonymous(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    create_flag_with_rules(&app).await;
    app.create_boolean_flag("b").await;
    let (ann_id, ann) = app.create_user_with("ann", "user", json!({"plan": "pro"})).await;
    app.create_user_with("ben", "admin", json!({})).await;
    app.admin.put(&override_path(&ann_id, "b"), &json!({"override_value": true})).await.expect(201);
    let backend = backend_caller(&app).await;
    assert_eq!(evaluate_one(&backend, "f", &ann_id).await["value"], "pro");
    let unknown_id = uuid::Uuid::now_v7().to_string();
    for key in ["anonymous-1", &unknown_id, "x\u{0}€", &"k".repeat(2_000)] {
        assert_eq!(evaluate_one(&backend, "f", key).await["value"], "none");
        for (attributes, expected) in [
            (json!({"page": "home"}), "home"),
            (json!({"role": "admin"}), "admin"),
            (json!({"email": "x@example.com"}), "mail"),
        ] {
            let mut context = attributes.clone();
            context["targetingKey"] = json!(key);
            let result = evaluate(&backend, "f", context).await.expect(200).json();
            assert_eq!(result["value"], expected, "{key} {attributes}");
            let result = evaluate(&backend, "f", attributes).await.expect(200).json();
            assert_eq!(result["value"], expected, "without a key");
        }
        assert_eq!(evaluate_one(&backend, "b", key).await["metadata"]["source"], "default");
    }
    app.admin.patch(&format!("/api/admin/users/{ann_id}"), &json!({"active": false})).await.expect(200);
    assert_eq!(
        evaluate_one(&backend, "f", &ann_id).await["value"],
        "none",
        "stored attributes of an inactive user are ignored"
    );
    assert_eq!(
        evaluate_one(&backend, "b", &ann_id).await["metadata"]["source"],
        "default",
        "overrides of an inactive user are ignored"
    );
    expect_error(evaluate(&ann, "f", json!({"targetingKey": ann_id})).await, 401, "GENERAL", Some("f"));
    app.admin.patch(&format!("/api/admin/users/{ann_id}"), &json!({"active": true})).await.expect(200);
    assert_eq!(evaluate_one(&backend, "b", &ann_id).await["value"], true);
}

async fn keys_that_read_as_uuids_are_text_unless_a_user_has_the_id(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    let backend = backend_caller(&app).await;
    let id = "5d41402a-bc4b-2a76-b971-9d911017c592";
    let spellings =
        [id.to_owned(), id.to_uppercase(), id.replace('-', ""), format!("{{{id}}}"), format!("urn:uuid:{id}")];
    // The flags `is0`, `is1`, … are on for one spelling, and `not0`, `not1`, … for all others.
    for (index, spelling) in spellings.iter().enumerate() {
        for (prefix, negate) in [("is", false), ("not", true)] {
            let condition =
                json!({"attribute": "user_id", "operator": "equals", "values": [spelling], "negate": negate});
            app.create_flag(json!({"name": format!("{prefix}{index}"), "flag_type": "boolean",
                "targeting_rules": [{"id": "r", "conditions": [condition], "serve": {"variant": "on"}}]}))
                .await;
        }
    }
    let expect = async |key: &str, is_match: &dyn Fn(usize) -> bool| {
        let results = evaluate_all(&backend, key).await;
        for index in 0..spellings.len() {
            assert_eq!(results[&format!("is{index}")]["value"], is_match(index), "{key} is {}", spellings[index]);
            assert_eq!(results[&format!("not{index}")]["value"], !is_match(index), "{key} is not {}", spellings[index]);
        }
    };
    // The canonical spelling is itself the id of a user, stored or not, so conditions accept the id in any spelling.
    expect(id, &|_| true).await;
    for (index, spelling) in spellings.iter().enumerate().skip(1) {
        expect(spelling, &|other| other == index).await;
    }
    app.admin.post("/api/admin/users", &json!({"external_id": id})).await.expect(201);
    for spelling in &spellings {
        expect(spelling, &|_| true).await;
    }
    expect("unknown", &|_| false).await;
    app.admin.delete(&format!("/api/admin/users/{id}")).await.expect(204);
    expect(&spellings[2], &|other| other == 2).await;
    // A user whose external id is another spelling of the UUID has a derived id.
    app.admin.post("/api/admin/users", &json!({"external_id": spellings[2]})).await.expect(201);
    expect(&spellings[2], &|other| other == 2).await;
    expect(id, &|_| true).await;
}

async fn conditions_on_email_ignore_case(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    let backend = backend_caller(&app).await;
    for (operator, value) in [
        ("equals", "ZOE\u{308}@xn--mnchen-3ya.example"),
        ("contains", "\u{cb}@M\u{dc}N"),
        ("starts_with", "ZO\u{cb}"),
        ("ends_with", "M\u{fc}nchen.EXAMPLE"),
        ("matches", "^ZO\u{cb}@.*\\.Example$"),
    ] {
        let condition = json!({"attribute": "email", "operator": operator, "values": [value]});
        app.create_flag(json!({"name": operator, "flag_type": "boolean",
            "targeting_rules": [{"id": "r", "conditions": [condition], "serve": {"variant": "on"}}]}))
            .await;
    }
    let email = "Zo\u{eb}@M\u{fc}nchen.Example";
    let stored = app.admin.post("/api/admin/users", &json!({"email": email})).await.expect(201).json();
    for context in [json!({"targetingKey": stored["id"]}), json!({"targetingKey": "k", "email": email})] {
        let results = backend.post(BULK_PATH, &json!({"context": context})).await.expect(200).json();
        for result in results["flags"].as_array().unwrap() {
            assert_eq!(result["value"], true, "{context}: {result}");
        }
        assert_eq!(results["flags"].as_array().unwrap().len(), 5);
    }
}
