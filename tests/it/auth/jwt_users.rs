//! JWTs of users by external id, of users that are not stored, and claims as attributes.

use flags_service::credentials::jwt::{ClaimAttribute, JwtConfig, JwtUsers, UserClaim};
use flags_store::users::Role;
use flags_tests::{
    app::{TestApp, override_path},
    caller::Caller,
    database::DatabaseKind,
    on_both_databases,
};
use serde_json::{Value, json};

use super::jwt::{START_SECONDS, claims, sign_rs256, start_app};
use crate::{
    ofrep::{BULK_PATH, evaluate, evaluate_one, expect_error, expect_refetch, fetch_stream_address},
    streams::{OWN_FLAGS_STREAM, changed_flags},
};

on_both_databases! {
    sub_names_users_by_id_or_external_id,
    unknown_users_read_their_own_flags_and_nothing_else,
    unknown_users_are_rejected_unless_any_user_is_accepted,
    own_flags_stream_of_a_jwt_user_survives_creation_and_deletion_and_ends_on_deactivation,
    evaluation_stream_of_a_jwt_user_survives_creation_and_ends_on_deactivation,
    mapped_claims_have_priority_over_stored_attributes,
    users_cannot_choose_their_built_in_attributes,
}

const USERS_PATH: &str = "/api/admin/users";

/// Makes the server accept any user and map the claims `/plan` and `/address/country` to attributes.
fn accept_any(config: JwtConfig) -> JwtConfig {
    let attributes = ["plan=/plan", "country=/address/country"];
    let attributes = attributes.map(|text| ClaimAttribute::parse(text).unwrap()).into();
    JwtConfig { users: JwtUsers::Any, attributes, ..config }
}

fn caller_with(app: &TestApp, subject: &str, extra: &Value) -> Caller {
    let mut all = claims(subject);
    all["exp"] = json!(START_SECONDS + 1_000);
    all.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    app.caller_with_bearer(&sign_rs256(&all))
}

fn caller(app: &TestApp, subject: &str) -> Caller {
    caller_with(app, subject, &json!({}))
}

async fn create_user_with_external_id(app: &TestApp, external_id: &str, attributes: Value) -> String {
    let body = json!({"external_id": external_id, "attributes": attributes});
    let user = app.admin.post(USERS_PATH, &body).await.expect(201).json();
    user["id"].as_str().unwrap().to_owned()
}

async fn set_active(app: &TestApp, id: &str, active: bool) {
    app.admin.patch(&format!("{USERS_PATH}/{id}"), &json!({"active": active})).await.expect(200);
}

/// Creates the string flag `f`, whose rules serve `pro` for the plan `pro`, `de` for the country `de`, `mail` for an
/// address at `example.com`, and `user` for the role `user`.
async fn create_flag_with_rules(app: &TestApp) {
    let rule = |id: &str, attribute: &str, operator: &str, value: &str| {
        json!({"id": id, "serve": {"variant": id},
            "conditions": [{"attribute": attribute, "operator": operator, "values": [value]}]})
    };
    let ids = ["none", "pro", "de", "mail", "user"];
    let variants: Vec<_> = ids.iter().map(|id| json!({"id": id, "value": id})).collect();
    let rules = [
        rule("pro", "plan", "equals", "pro"),
        rule("de", "country", "equals", "de"),
        rule("mail", "email", "ends_with", "@EXAMPLE.com"),
        rule("user", "role", "equals", "user"),
    ];
    app.create_flag(json!({"name": "f", "flag_type": "string", "variants": variants, "default": {"variant": "none"},
        "off_variant": "none", "targeting_rules": rules}))
        .await;
}

async fn own_value(caller: &Caller, flag: &str) -> Value {
    caller.get(&format!("/api/flags/me/{flag}")).await.expect(200).json()["value"].clone()
}

async fn sub_names_users_by_id_or_external_id(kind: DatabaseKind) {
    let (app, _key_file) = start_app(kind, |config| config).await;
    let id = create_user_with_external_id(&app, "crm/42", json!({})).await;
    let urn = format!("urn:uuid:{id}");
    for subject in ["crm/42", &id, &id.to_uppercase(), &id.replace('-', ""), &urn] {
        let own_flags = caller(&app, subject).get("/api/flags/me").await.expect(200).json();
        assert_eq!(own_flags["user_id"], id, "{subject}");
    }
    let (ben_id, _) = app.create_user("ben").await;
    app.admin.patch(&format!("{USERS_PATH}/{ben_id}"), &json!({"external_id": "ben"})).await.expect(200);
    for subject in ["ben", &ben_id] {
        let own_flags = caller(&app, subject).get("/api/flags/me").await.expect(200).json();
        assert_eq!(own_flags["user_id"], ben_id, "{subject}");
    }
    for subject in ["crm/43", "CRM/42", "ben@example.com", "5d41402a-bc4b-2a76-b971-9d911017c592"] {
        caller(&app, subject).get("/api/flags/me").await.expect_problem(401, "unauthorized");
    }
    set_active(&app, &id, false).await;
    caller(&app, "crm/42").get("/api/flags/me").await.expect_problem(401, "unauthorized");
}

async fn unknown_users_read_their_own_flags_and_nothing_else(kind: DatabaseKind) {
    let (app, _key_file) = start_app(kind, |config| JwtConfig {
        role_claim: Some("roles".to_owned()),
        allowed_roles: vec![("owners".to_owned(), Role::Admin)],
        ..accept_any(config)
    })
    .await;
    create_flag_with_rules(&app).await;
    app.create_flag(json!({"name": "hidden", "flag_type": "boolean", "client_visible": false})).await;
    let log = app.change_log().await;
    for subject in ["crm/42", "5d41402a-bc4b-2a76-b971-9d911017c592", "5D41402ABC4B2A76B9719D911017C592", "a@b.c"] {
        let extra = json!({"roles": ["owners"], "role": "admin", "address": {"country": "de"}});
        let unknown = caller_with(&app, subject, &extra);
        assert_eq!(own_value(&unknown, "f").await, "de", "{subject}");
        let own_flags = unknown.get("/api/flags/me").await.expect(200).json();
        assert_eq!(own_flags["flags"].as_object().unwrap().len(), 1);
        assert_eq!(own_flags["user_id"], app.replica.external_user_id(subject).id.to_string());
        let own_overrides = unknown.get("/api/flags/me/overrides").await.expect(200).json();
        assert_eq!(own_overrides["overrides"], json!([]));
        assert_eq!(evaluate_one(&unknown, "f", subject).await["value"], "de");
        assert_eq!(evaluate(&unknown, "f", json!({})).await.expect(200).json()["value"], "de", "without a key");
        // Claims take precedence over attributes of the request.
        assert_eq!(evaluate(&unknown, "f", json!({"country": "at"})).await.expect(200).json()["value"], "de");
        expect_error(evaluate(&unknown, "f", json!({"targetingKey": "other"})).await, 403, "GENERAL", Some("f"));
        expect_error(evaluate(&unknown, "hidden", json!({})).await, 404, "FLAG_NOT_FOUND", Some("hidden"));
        unknown.get(USERS_PATH).await.expect_problem(403, "forbidden");
        unknown.get("/api/auth/me").await.expect_problem(403, "no_user");
        unknown.post(USERS_PATH, &json!({"email": "x@example.com"})).await.expect_problem(403, "forbidden");
        // Without the claims, only the role of a new user is known.
        assert_eq!(own_value(&caller(&app, subject), "f").await, "user");
    }
    assert_eq!(app.change_log().await, log, "nothing is written");
}

async fn unknown_users_are_rejected_unless_any_user_is_accepted(kind: DatabaseKind) {
    let (app, _key_file) = start_app(kind, |config| JwtConfig { users: JwtUsers::Known, ..accept_any(config) }).await;
    caller(&app, "crm/42").get("/api/flags/me").await.expect_problem(401, "unauthorized");
    expect_error(evaluate(&caller(&app, "crm/42"), "f", json!({})).await, 401, "GENERAL", Some("f"));
    let user_claim = UserClaim::Named("email".to_owned());
    let (app, _key_file) = start_app(kind, |config| JwtConfig { user_claim, ..accept_any(config) }).await;
    let by_email = |email: &str| caller_with(&app, "x", &json!({"email": email}));
    // An e-mail address is not an evaluation key.
    by_email("ann@example.com").get("/api/flags/me").await.expect_problem(401, "unauthorized");
    by_email("crm/42").get("/api/flags/me").await.expect(200);
    let (ann_id, _) = app.create_user("ann").await;
    let own_flags = by_email("Ann@EXAMPLE.com").get("/api/flags/me").await.expect(200).json();
    assert_eq!(own_flags["user_id"], ann_id);
    app.admin.delete(&format!("{USERS_PATH}/{ann_id}")).await.expect(204);
    by_email("ann@example.com").get("/api/flags/me").await.expect_problem(401, "unauthorized");
}

async fn own_flags_stream_of_a_jwt_user_survives_creation_and_deletion_and_ends_on_deactivation(kind: DatabaseKind) {
    let (app, _key_file) = start_app(kind, accept_any).await;
    create_flag_with_rules(&app).await;
    app.create_boolean_flag("b").await;
    for subject in ["crm/42", "5d41402a-bc4b-2a76-b971-9d911017c592"] {
        let unknown = caller_with(&app, subject, &json!({"plan": "pro"}));
        let mut events = unknown.open_stream(OWN_FLAGS_STREAM, &[]).await;
        let id = app.replica.external_user_id(subject).id.to_string();
        assert_eq!(events.headers["flags-user"], *id);
        assert_eq!(events.expect("snapshot").await.data["flags"]["f"]["value"], "pro");
        app.admin.patch("/api/admin/feature-flags/b", &json!({"default": {"variant": "on"}})).await.expect(200);
        assert_eq!(events.expect("change").await.data["set"]["b"]["value"], true);
        assert_eq!(create_user_with_external_id(&app, subject, json!({"plan": "free"})).await, id);
        let snapshot = events.expect("snapshot").await;
        assert_eq!(snapshot.data["flags"]["f"]["value"], "pro", "the claim wins over the stored attribute");
        app.admin.put(&override_path(&id, "b"), &json!({"override_value": false})).await.expect(201);
        let change = events.expect("change").await;
        assert_eq!((changed_flags(&change), &change.data["set"]["b"]["value"]), (vec!["b"], &json!(false)));
        app.admin.delete(&format!("{USERS_PATH}/{id}")).await.expect(204);
        let snapshot = events.expect("snapshot").await;
        assert_eq!(snapshot.data["flags"]["b"]["value"], true, "unknown again, without the override");
        create_user_with_external_id(&app, subject, json!({})).await;
        events.expect("snapshot").await;
        set_active(&app, &id, false).await;
        assert_eq!(events.expect("bye").await.data, json!({"reason": "revoked"}));
        events.expect_end().await;
        unknown.get("/api/flags/me").await.expect_problem(401, "unauthorized");
        unknown.get(OWN_FLAGS_STREAM).await.expect_problem(401, "unauthorized");
        set_active(&app, &id, true).await;
        unknown.get("/api/flags/me").await.expect(200);
        app.admin.patch("/api/admin/feature-flags/b", &json!({"default": {"variant": "off"}})).await.expect(200);
    }
}

async fn evaluation_stream_of_a_jwt_user_survives_creation_and_ends_on_deactivation(kind: DatabaseKind) {
    let (app, _key_file) = start_app(kind, accept_any).await;
    app.create_boolean_flag("b").await;
    let unknown = caller(&app, "crm/42");
    let uri = fetch_stream_address(&unknown, "crm/42").await;
    let mut events = app.anonymous.open_stream(&uri, &[]).await;
    expect_refetch(&mut events).await;
    app.admin.patch("/api/admin/feature-flags/b", &json!({"default": {"variant": "on"}})).await.expect(200);
    expect_refetch(&mut events).await;
    let id = create_user_with_external_id(&app, "crm/42", json!({})).await;
    expect_refetch(&mut events).await;
    app.admin.put(&override_path(&id, "b"), &json!({"override_value": false})).await.expect(201);
    expect_refetch(&mut events).await;
    assert_eq!(evaluate_one(&unknown, "b", "crm/42").await["value"], false);
    set_active(&app, &id, false).await;
    assert_eq!(events.expect("bye").await.data, json!({"reason": "revoked"}));
    expect_error(app.anonymous.get(&uri).await, 401, "GENERAL", None);
    expect_error(unknown.post(BULK_PATH, &json!({})).await, 401, "GENERAL", None);
}

async fn mapped_claims_have_priority_over_stored_attributes(kind: DatabaseKind) {
    let (app, _key_file) = start_app(kind, accept_any).await;
    create_flag_with_rules(&app).await;
    let (pro, free, none) = (json!({"plan": "pro"}), json!({"plan": "free"}), json!({}));
    let values = async |extra: &Value| {
        let caller = caller_with(&app, "crm/42", extra);
        let evaluated = evaluate(&caller, "f", json!({"plan": "pro", "country": "at"})).await.expect(200).json();
        [own_value(&caller, "f").await, evaluated["value"].clone()]
    };
    assert_eq!(values(&pro).await, ["pro", "pro"]);
    assert_eq!(values(&free).await, ["user", "user"], "the request cannot replace a claim");
    assert_eq!(values(&none).await, ["user", "pro"]);
    let id = create_user_with_external_id(&app, "crm/42", json!({"plan": "free", "country": "de"})).await;
    assert_eq!(values(&pro).await, ["pro", "pro"]);
    assert_eq!(values(&none).await, ["de", "de"], "without the claim, the stored attribute applies");
    app.admin.patch(&format!("{USERS_PATH}/{id}"), &json!({"attributes": {"plan": "pro"}})).await.expect(200);
    assert_eq!(values(&free).await, ["user", "user"]);
    assert_eq!(values(&json!({"plan": null})).await, ["user", "user"], "a null claim means that there is no plan");
    let too_many = json!({"plan": vec![1; 5_001]});
    caller_with(&app, "crm/42", &too_many).get("/api/flags/me").await.expect_problem(401, "unauthorized");
}

async fn users_cannot_choose_their_built_in_attributes(kind: DatabaseKind) {
    let (app, _key_file) = start_app(kind, accept_any).await;
    create_flag_with_rules(&app).await;
    let chosen = json!({"email": "x@example.com", "role": "admin", "created_at": "2020-01-01T00:00:00Z"});
    create_user_with_external_id(&app, "stored", json!({})).await;
    for subject in ["stored", "unknown"] {
        let result = evaluate(&caller(&app, subject), "f", chosen.clone()).await.expect(200).json();
        assert_eq!(result["value"], "user", "{subject}");
        assert_eq!(result["metadata"]["ignored_attributes"], "email,role,created_at", "{subject}");
    }
    let backend = crate::ofrep::backend_caller(&app).await;
    let mut context = chosen.clone();
    context["targetingKey"] = json!("unknown");
    assert_eq!(evaluate(&backend, "f", context).await.expect(200).json()["value"], "mail");
}
