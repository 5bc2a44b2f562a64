//! JWTs of an external issuer as credentials: accepted tokens, permissions of their users, and expiry.

use flags_service::credentials::jwt::{JwtAlgorithm, JwtConfig, UserClaim};
use flags_store::users::Role;
use flags_tests::{
    app::TestApp,
    database::DatabaseKind,
    issuer::{KeyServer, KeyServerResponse, jwk, jwk_set, jwt_config, private_key, sign_jwt, write_key_file},
    on_both_databases,
};
use jsonwebtoken::Algorithm;
use reqwest::Method;
use serde_json::{Value, json};
use tempfile::NamedTempFile;

use super::jwt_forgeries::forged_tokens;
use crate::streams::{ADMIN_STREAM, OWN_FLAGS_STREAM};

on_both_databases! {
    jwts_signed_with_every_algorithm_authenticate_their_user,
    role_claim_can_lower_but_not_raise_the_users_role,
    email_claim_identifies_the_user,
    rejects_expired_jwts_and_jwts_of_inactive_deleted_or_unknown_users,
    streams_end_when_the_jwt_expires_or_the_user_loses_access,
    jwt_request_waits_for_the_minimum_revision_before_the_user_lookup,
    rejects_forged_jwts,
    rejects_jwts_when_no_issuer_is_configured,
    unavailable_jwt_issuer_yields_503_until_keys_are_fetched,
}

/// Start of the test clock, as Unix time in seconds.
pub(crate) const START_SECONDS: i64 = 1_893_456_000;

/// Starts a server that accepts JWTs signed with the test key `rsa`. The key file must outlive the server.
pub(crate) async fn start_app(
    kind: DatabaseKind,
    configure: impl FnOnce(JwtConfig) -> JwtConfig,
) -> (TestApp, NamedTempFile) {
    let (key_file, source) = write_key_file(&jwk_set(&[jwk(&private_key("rsa"), Algorithm::RS256, "k")]));
    (TestApp::start_with_jwt(kind, configure(jwt_config(source, &[JwtAlgorithm::Rs256]))).await, key_file)
}

/// Valid claims for this user; they expire 10 seconds after the start of the test clock.
pub(crate) fn claims(user_id: &str) -> Value {
    json!({"iss": "https://issuer.example", "aud": ["other", "flags"], "sub": user_id,
        "iat": START_SECONDS, "exp": START_SECONDS + 10})
}

/// Returns `base` with `changes` applied; a null value removes the claim.
pub(crate) fn with_changes(mut base: Value, changes: Value) -> Value {
    for (name, value) in changes.as_object().unwrap() {
        if value.is_null() {
            base.as_object_mut().unwrap().remove(name);
        } else {
            base[name] = value.clone();
        }
    }
    base
}

/// Signs claims with the trusted key.
pub(crate) fn sign_rs256(claims: &Value) -> String {
    sign_jwt(&private_key("rsa"), Algorithm::RS256, json!({"alg": "RS256", "kid": "k", "typ": "JWT"}), claims)
}

async fn jwts_signed_with_every_algorithm_authenticate_their_user(kind: DatabaseKind) {
    use Algorithm::{ES256, ES384, EdDSA, PS512, RS256};
    let signers = [("rsa", RS256), ("rsa-other", PS512), ("p256", ES256), ("p384", ES384), ("ed25519", EdDSA)];
    let keys: Vec<_> = signers.iter().map(|(name, algorithm)| jwk(&private_key(name), *algorithm, name)).collect();
    let (_key_file, source) = write_key_file(&jwk_set(&keys));
    let app = TestApp::start_with_jwt(kind, jwt_config(source, &JwtAlgorithm::ALL)).await;
    let (ann_id, _) = app.create_user_with("ann", "admin", json!({})).await;
    for (name, algorithm) in signers {
        let header = json!({"alg": algorithm, "kid": name, "typ": "at+jwt"});
        let caller = app.caller_with_bearer(&sign_jwt(&private_key(name), algorithm, header, claims(&ann_id)));
        caller.get("/api/flags/me").await.expect(200);
        let flag = format!("by_{}", name.replace('-', "_"));
        caller.post("/api/admin/feature-flags", &json!({"name": flag, "flag_type": "boolean"})).await.expect(201);
        let created = caller
            .put(&format!("/api/admin/users/{ann_id}/flag-overrides/{flag}"), &json!({"override_value": true}))
            .await
            .expect(201);
        assert_eq!(created.json()["created_by"], format!("user:{ann_id}"), "the recorded actor is the user");
    }
}

async fn role_claim_can_lower_but_not_raise_the_users_role(kind: DatabaseKind) {
    let (app, _key_file) = start_app(kind, |config| JwtConfig {
        role_claim: Some("realm_access.roles".to_owned()),
        allowed_roles: vec![("readers".to_owned(), Role::Viewer), ("owners".to_owned(), Role::Admin)],
        ..config
    })
    .await;
    let (ada_id, _) = app.create_user_with("ada", "admin", json!({})).await;
    let (vera_id, _) = app.create_user_with("vera", "viewer", json!({})).await;
    let (ann_id, _) = app.create_user("ann").await;
    // Columns: user, roles in the JWT, whether the user can read the admin API, whether the user can write to it.
    for (user, roles, can_read, can_write) in [
        (&ada_id, json!(["owners"]), true, true),
        (&ada_id, json!(["readers", "x"]), true, false),
        (&ada_id, json!("owners"), true, true),
        (&ada_id, json!(["admin"]), false, false),
        (&ada_id, json!([]), false, false),
        (&vera_id, json!(["owners"]), true, false),
        (&vera_id, json!(["x"]), false, false),
        (&ann_id, json!(["owners", "readers"]), false, false),
    ] {
        let caller = app.caller_with_bearer(&sign_rs256(&with_changes(
            claims(user),
            json!({"realm_access": {"roles": roles}, "role": "admin"}),
        )));
        caller.get("/api/flags/me").await.expect(200);
        let read = caller.get("/api/admin/feature-flags").await;
        assert_eq!(read.status.as_u16(), if can_read { 200 } else { 403 }, "{roles}");
        let write = caller.patch(&format!("/api/admin/users/{ann_id}"), &json!({"display_name": "Ann"})).await;
        assert_eq!(write.status.as_u16(), if can_write { 200 } else { 403 }, "{roles}");
    }
    // A change of the user's role applies to JWTs issued before it.
    let caller = app.caller_with_bearer(&sign_rs256(&with_changes(
        claims(&ann_id),
        json!({"realm_access": {"roles": ["owners"]}}),
    )));
    app.admin.patch(&format!("/api/admin/users/{ann_id}"), &json!({"role": "admin"})).await.expect(200);
    caller.post("/api/admin/users", &json!({"email": "x@example.com"})).await.expect(201);
    app.admin.patch(&format!("/api/admin/users/{ann_id}"), &json!({"role": "user"})).await.expect(200);
    caller.get("/api/admin/feature-flags").await.expect_problem(403, "forbidden");
}

async fn email_claim_identifies_the_user(kind: DatabaseKind) {
    let (app, _key_file) =
        start_app(kind, |config| JwtConfig { user_claim: UserClaim::Named("email".to_owned()), ..config }).await;
    let (ann_id, _) = app.create_user("ann").await;
    let (ben_id, _) = app.create_user("ben").await;
    app.create_boolean_flag("f").await;
    app.admin.put(&format!("/api/admin/users/{ben_id}/flag-overrides/f"), &json!({"override_value": true})).await;
    let token = |changes: Value| sign_rs256(&with_changes(claims("external-subject"), changes));
    app.admin.post("/api/admin/users", &json!({"email": "kim@example.com"})).await.expect(201);
    // U+212A (kelvin sign) has the lower case `k`.
    for email in ["KIM@example.com", "\u{212a}im@example.com"] {
        app.caller_with_bearer(&token(json!({"email": email}))).get("/api/flags/me").await.expect(200);
    }
    let by_email = app.caller_with_bearer(&token(json!({"email": "ANN@Example.com"})));
    let value = async || by_email.get("/api/flags/me/f").await.expect(200).json()["value"].clone();
    assert_eq!((value().await, value().await), (json!(false), json!(false)), "from the database, then from the cache");
    app.caller_with_bearer(&token(json!({"email": ann_id}))).get("/api/flags/me").await.expect(200);
    for wrong in [
        json!({}),
        json!({"email": "unknown@example.com"}),
        json!({"email": "ann@example.com", "email_verified": false}),
    ] {
        app.caller_with_bearer(&token(wrong)).get("/api/flags/me").await.expect_problem(401, "unauthorized");
    }
    // The claim identifies the user who has the address now, even if another user had the address before.
    app.admin.patch(&format!("/api/admin/users/{ann_id}"), &json!({"email": "anna@example.com"})).await.expect(200);
    by_email.get("/api/flags/me").await.expect_problem(401, "unauthorized");
    app.admin.patch(&format!("/api/admin/users/{ben_id}"), &json!({"email": "Ann@example.com"})).await.expect(200);
    assert_eq!(value().await, true);
    app.admin.patch(&format!("/api/admin/users/{ben_id}"), &json!({"active": false})).await.expect(200);
    by_email.get("/api/flags/me").await.expect_problem(401, "unauthorized");
    app.admin.delete(&format!("/api/admin/users/{ben_id}")).await.expect(204);
    by_email.get("/api/flags/me").await.expect_problem(401, "unauthorized");
    app.admin.post("/api/admin/users", &json!({"email": "ann@example.com"})).await.expect(201);
    assert_eq!(value().await, false, "the new user has no override of the deleted user");
}

async fn rejects_expired_jwts_and_jwts_of_inactive_deleted_or_unknown_users(kind: DatabaseKind) {
    let (app, _key_file) = start_app(kind, |config| config).await;
    let (ann_id, _) = app.create_user("ann").await;
    let caller = app.caller_with_bearer(&sign_rs256(&claims(&ann_id)));
    caller.get("/api/flags/me").await.expect(200);
    let path = format!("/api/admin/users/{ann_id}");
    app.admin.patch(&path, &json!({"active": false})).await.expect(200);
    let refused = caller.get("/api/flags/me").await;
    assert_eq!(refused.header("www-authenticate"), "Bearer");
    refused.expect_problem(401, "unauthorized");
    app.admin.patch(&path, &json!({"active": true})).await.expect(200);
    caller.get("/api/flags/me").await.expect(200);
    app.set_clock("01-01T00:00:09.999999Z");
    caller.get("/api/flags/me").await.expect(200);
    app.set_clock("01-01T00:00:10Z");
    caller.get("/api/flags/me").await.expect_problem(401, "unauthorized");
    app.set_clock("01-01T00:00:09Z");
    app.admin.delete(&path).await.expect(204);
    caller.get("/api/flags/me").await.expect_problem(401, "unauthorized");
    let unknown = app.caller_with_bearer(&sign_rs256(&claims(&uuid::Uuid::now_v7().to_string())));
    unknown.get("/api/flags/me").await.expect_problem(401, "unauthorized");
    unknown.get("/api/admin/users").await.expect_problem(401, "unauthorized");
}

async fn streams_end_when_the_jwt_expires_or_the_user_loses_access(kind: DatabaseKind) {
    let (app, _key_file) = start_app(kind, |config| config).await;
    let (ann_id, _) = app.create_user("ann").await;
    let (ben_id, _) = app.create_user("ben").await;
    let (vera_id, _) = app.create_user_with("vera", "viewer", json!({})).await;
    let sign_long_lived =
        |user_id: &str| sign_rs256(&with_changes(claims(user_id), json!({"exp": START_SECONDS + 1_000})));
    let mut expired_own =
        app.caller_with_bearer(&sign_rs256(&claims(&ann_id))).open_stream(OWN_FLAGS_STREAM, &[]).await;
    let mut expired_admin = app.caller_with_bearer(&sign_rs256(&claims(&vera_id))).open_stream(ADMIN_STREAM, &[]).await;
    let mut unexpired = app.caller_with_bearer(&sign_long_lived(&ann_id)).open_stream(OWN_FLAGS_STREAM, &[]).await;
    let mut deactivated = app.caller_with_bearer(&sign_long_lived(&ben_id)).open_stream(OWN_FLAGS_STREAM, &[]).await;
    let mut demoted = app.caller_with_bearer(&sign_long_lived(&vera_id)).open_stream(ADMIN_STREAM, &[]).await;
    for events in [&mut expired_own, &mut expired_admin, &mut unexpired, &mut deactivated, &mut demoted] {
        events.expect("snapshot").await;
    }
    app.set_clock("01-01T00:00:10Z");
    for events in [&mut expired_own, &mut expired_admin] {
        assert_eq!(events.expect("bye").await.data, json!({"reason": "revoked"}));
        events.expect_end().await;
    }
    app.admin.patch(&format!("/api/admin/users/{ben_id}"), &json!({"active": false})).await.expect(200);
    assert_eq!(deactivated.expect("bye").await.data, json!({"reason": "revoked"}));
    app.admin.patch(&format!("/api/admin/users/{vera_id}"), &json!({"role": "user"})).await.expect(200);
    loop {
        // Changes committed before the demotion may still arrive.
        let event = demoted.next().await;
        assert!(["change", "bye"].contains(&&*event.event), "{event:?}");
        assert!(!event.data.to_string().contains(&vera_id), "{event:?}");
        if event.event == "bye" {
            break;
        }
    }
    app.create_boolean_flag("f").await;
    assert_eq!(unexpired.expect("change").await.data["set"]["f"]["value"], false);
}

async fn jwt_request_waits_for_the_minimum_revision_before_the_user_lookup(kind: DatabaseKind) {
    let (app, _key_file) = start_app(kind, |config| config).await;
    let (ann_id, _) = app.create_user("ann").await;
    let revision = app.replica.revision();
    let revision_text = |number: i64| format!("{}:{number}", revision.epoch);
    let get = async |token: &str, revision: String| {
        let headers = [("flags-min-revision", revision.as_str())];
        app.caller_with_bearer(token).send(Method::GET, "/api/flags/me", &headers, None).await
    };
    let valid = sign_rs256(&claims(&ann_id));
    get(&valid, revision_text(revision.number)).await.expect(200);
    get(&valid, revision_text(revision.number + 1)).await.expect_problem(503, "revision_not_reached");
    let unknown_user = sign_rs256(&claims(&uuid::Uuid::now_v7().to_string()));
    get(&unknown_user, revision_text(revision.number + 1)).await.expect_problem(503, "revision_not_reached");
    // An invalid JWT is rejected without waiting for the revision.
    let forged = sign_rs256(&with_changes(claims(&ann_id), json!({"aud": "x"})));
    get(&forged, revision_text(revision.number + 1)).await.expect_problem(401, "unauthorized");
}

async fn rejects_forged_jwts(kind: DatabaseKind) {
    let (app, _key_file) = start_app(kind, |config| config).await;
    let (ann_id, _) = app.create_user_with("ann", "admin", json!({})).await;
    let attacker_server = KeyServer::start(KeyServerResponse::Document(jwk_set(&[jwk(
        &private_key("rsa-other"),
        Algorithm::RS256,
        "k",
    )])));
    app.caller_with_bearer(&sign_rs256(&claims(&ann_id))).get("/api/admin/users").await.expect(200);
    let tokens = forged_tokens(&ann_id, &attacker_server.base_url);
    assert!(tokens.len() >= 60, "{}", tokens.len());
    for (case, token) in tokens {
        for path in ["/api/flags/me", "/api/admin/users"] {
            let response = app.caller_with_bearer(&token).get(path).await;
            assert_eq!(response.status.as_u16(), 401, "{case}: {token}: {}", response.text);
            response.expect_problem(401, "unauthorized");
        }
    }
    assert_eq!(attacker_server.request_count(), 0, "the server fetches no URL named in a token header");
    app.caller_with_bearer(&sign_rs256(&claims(&ann_id))).get("/api/admin/users").await.expect(200);
}

async fn rejects_jwts_when_no_issuer_is_configured(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    let (ann_id, _) = app.create_user("ann").await;
    app.caller_with_bearer(&sign_rs256(&claims(&ann_id)))
        .get("/api/flags/me")
        .await
        .expect_problem(401, "unauthorized");
}

async fn unavailable_jwt_issuer_yields_503_until_keys_are_fetched(kind: DatabaseKind) {
    let server = KeyServer::start(KeyServerResponse::Status(500));
    let app = TestApp::start_with_jwt(kind, jwt_config(server.source("/keys"), &[JwtAlgorithm::Rs256])).await;
    let (ann_id, api_token) = app.create_user("ann").await;
    let caller = app.caller_with_bearer(&sign_rs256(&claims(&ann_id)));
    let refused = caller.get("/api/flags/me").await;
    assert_eq!(refused.header("retry-after"), "5");
    refused.expect_problem(503, "issuer_unavailable");
    api_token.get("/api/flags/me").await.expect(200);
    server.set_response(KeyServerResponse::Document(jwk_set(&[jwk(&private_key("rsa"), Algorithm::RS256, "k")])));
    app.set_clock("01-01T00:00:05Z");
    flags_tests::eventually("keys are fetched again after five seconds", async || {
        (caller.get("/api/flags/me").await.status == 200).then_some(())
    })
    .await;
}
