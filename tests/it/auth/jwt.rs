//! JWTs of an external issuer as credentials: which are accepted, what their bearers may do, and when they end.

use flags_service::credentials::jwt::{JwtAlgorithm, JwtConfig, UserClaim};
use flags_store::users::Role;
use flags_tests::{
    app::TestApp,
    database::Kind,
    issuer::{Answer, KeyServer, config, document, file, jwk, key, sign},
    on_both_databases,
};
use jsonwebtoken::Algorithm;
use reqwest::Method;
use serde_json::{Value, json};
use tempfile::NamedTempFile;

use crate::streams::events::{ALL, MINE};

on_both_databases! {
    tokens_of_each_algorithm_are_their_users,
    a_role_claim_lowers_and_never_raises,
    a_user_may_be_named_by_email,
    tokens_of_nobody_are_refused,
    streams_end_with_the_token_and_with_the_user,
    an_answer_waits_for_the_revision_before_the_user_is_looked_up,
    forged_tokens_are_refused,
    without_an_issuer_no_token_is_accepted,
    an_issuer_that_is_down_is_no_refusal,
}

/// When the clock of every test begins, in seconds.
pub(crate) const BEGIN: i64 = 1_893_456_000;

/// A server that trusts one RSA key, and its file.
pub(crate) async fn start(kind: Kind, change: impl FnOnce(JwtConfig) -> JwtConfig) -> (TestApp, NamedTempFile) {
    let (kept, source) = file(&document(&[jwk(&key("rsa"), Algorithm::RS256, "k")]));
    (TestApp::start_trusting(kind, change(config(source, &[JwtAlgorithm::Rs256]))).await, kept)
}

pub(crate) fn claims(user_id: &str) -> Value {
    json!({"iss": "https://issuer.example", "aud": ["other", "flags"], "sub": user_id, "iat": BEGIN, "exp": BEGIN + 10})
}

/// `base` with other values; null takes one away.
fn changed(mut base: Value, changes: Value) -> Value {
    for (name, value) in changes.as_object().unwrap() {
        if value.is_null() {
            base.as_object_mut().unwrap().remove(name);
        } else {
            base[name] = value.clone();
        }
    }
    base
}

/// A token of the trusted key.
pub(crate) fn rs256(claims: &Value) -> String {
    sign(&key("rsa"), Algorithm::RS256, json!({"alg": "RS256", "kid": "k", "typ": "JWT"}), claims)
}

async fn tokens_of_each_algorithm_are_their_users(kind: Kind) {
    use Algorithm::{ES256, ES384, EdDSA, PS512, RS256};
    let signers = [("rsa", RS256), ("rsa-other", PS512), ("p256", ES256), ("p384", ES384), ("ed25519", EdDSA)];
    let keys: Vec<_> = signers.iter().map(|(name, algorithm)| jwk(&key(name), *algorithm, name)).collect();
    let (_kept, source) = file(&document(&keys));
    let app = TestApp::start_trusting(kind, config(source, &JwtAlgorithm::ALL)).await;
    let (ann, _) = app.user_with("ann", "admin", json!({})).await;
    for (name, algorithm) in signers {
        let header = json!({"alg": algorithm, "kid": name, "typ": "at+jwt"});
        let caller = app.bearer(&sign(&key(name), algorithm, header, claims(&ann)));
        caller.get("/api/flags/me").await.expect(200);
        let flag = format!("by_{}", name.replace('-', "_"));
        caller.post("/api/admin/feature-flags", &json!({"name": flag, "flag_type": "boolean"})).await.expect(201);
        let put = caller
            .put(&format!("/api/admin/users/{ann}/flag-overrides/{flag}"), &json!({"override_value": true}))
            .await
            .expect(201);
        assert_eq!(put.json()["created_by"], format!("user:{ann}"), "who acts is the user");
    }
}

async fn a_role_claim_lowers_and_never_raises(kind: Kind) {
    let (app, _kept) = start(kind, |config| JwtConfig {
        role_claim: Some("realm_access.roles".to_owned()),
        allowed_roles: vec![("readers".to_owned(), Role::Viewer), ("owners".to_owned(), Role::Admin)],
        ..config
    })
    .await;
    let (ada, _) = app.user_with("ada", "admin", json!({})).await;
    let (vera, _) = app.user_with("vera", "viewer", json!({})).await;
    let (ann, _) = app.user("ann").await;
    // Whether the bearer reads and changes what admins do.
    for (user, roles, reads, changes) in [
        (&ada, json!(["owners"]), true, true),
        (&ada, json!(["readers", "x"]), true, false),
        (&ada, json!("owners"), true, true),
        (&ada, json!(["admin"]), false, false),
        (&ada, json!([]), false, false),
        (&vera, json!(["owners"]), true, false),
        (&vera, json!(["x"]), false, false),
        (&ann, json!(["owners", "readers"]), false, false),
    ] {
        let caller =
            app.bearer(&rs256(&changed(claims(user), json!({"realm_access": {"roles": roles}, "role": "admin"}))));
        caller.get("/api/flags/me").await.expect(200);
        let read = caller.get("/api/admin/feature-flags").await;
        assert_eq!(read.status.as_u16(), if reads { 200 } else { 403 }, "{roles}");
        let change = caller.patch(&format!("/api/admin/users/{ann}"), &json!({"display_name": "Ann"})).await;
        assert_eq!(change.status.as_u16(), if changes { 200 } else { 403 }, "{roles}");
    }
    // The user's own role is looked up live.
    let caller = app.bearer(&rs256(&changed(claims(&ann), json!({"realm_access": {"roles": ["owners"]}}))));
    app.admin.patch(&format!("/api/admin/users/{ann}"), &json!({"role": "admin"})).await.expect(200);
    caller.post("/api/admin/users", &json!({"email": "x@example.com"})).await.expect(201);
    app.admin.patch(&format!("/api/admin/users/{ann}"), &json!({"role": "user"})).await.expect(200);
    caller.get("/api/admin/feature-flags").await.expect_problem(403, "forbidden");
}

async fn a_user_may_be_named_by_email(kind: Kind) {
    let (app, _kept) =
        start(kind, |config| JwtConfig { user_claim: UserClaim::Named("email".to_owned()), ..config }).await;
    let (ann, _) = app.user("ann").await;
    let (ben, _) = app.user("ben").await;
    app.boolean_flag("f").await;
    app.admin.put(&format!("/api/admin/users/{ben}/flag-overrides/f"), &json!({"override_value": true})).await;
    let token = |more: Value| rs256(&changed(claims("somebody"), more));
    app.admin.post("/api/admin/users", &json!({"email": "kim@example.com"})).await.expect(201);
    app.bearer(&token(json!({"email": "KIM@example.com"}))).get("/api/flags/me").await.expect(200);
    let by_mail = app.bearer(&token(json!({"email": "ANN@Example.com"})));
    let value = async || by_mail.get("/api/flags/me/f").await.expect(200).json()["value"].clone();
    assert_eq!((value().await, value().await), (json!(false), json!(false)), "looked up, and from memory");
    app.bearer(&token(json!({"email": ann}))).get("/api/flags/me").await.expect(200);
    for wrong in [
        json!({}),
        json!({"email": "nobody@example.com"}),
        // The sign for kelvin, whose lower case is k.
        json!({"email": "\u{212a}im@example.com"}),
        json!({"email": "ann@example.com", "email_verified": false}),
    ] {
        app.bearer(&token(wrong)).get("/api/flags/me").await.expect_problem(401, "unauthorized");
    }
    // Who has the address is who is meant, from the moment it is theirs.
    app.admin.patch(&format!("/api/admin/users/{ann}"), &json!({"email": "anna@example.com"})).await.expect(200);
    by_mail.get("/api/flags/me").await.expect_problem(401, "unauthorized");
    app.admin.patch(&format!("/api/admin/users/{ben}"), &json!({"email": "Ann@example.com"})).await.expect(200);
    assert_eq!(value().await, true);
    app.admin.patch(&format!("/api/admin/users/{ben}"), &json!({"active": false})).await.expect(200);
    by_mail.get("/api/flags/me").await.expect_problem(401, "unauthorized");
    app.admin.delete(&format!("/api/admin/users/{ben}")).await.expect(204);
    by_mail.get("/api/flags/me").await.expect_problem(401, "unauthorized");
    app.admin.post("/api/admin/users", &json!({"email": "ann@example.com"})).await.expect(201);
    assert_eq!(value().await, false, "a new user, without the old one's override");
}

async fn tokens_of_nobody_are_refused(kind: Kind) {
    let (app, _kept) = start(kind, |config| config).await;
    let (ann, _) = app.user("ann").await;
    let caller = app.bearer(&rs256(&claims(&ann)));
    caller.get("/api/flags/me").await.expect(200);
    let path = format!("/api/admin/users/{ann}");
    app.admin.patch(&path, &json!({"active": false})).await.expect(200);
    let refused = caller.get("/api/flags/me").await;
    assert_eq!(refused.header("www-authenticate"), "Bearer");
    refused.expect_problem(401, "unauthorized");
    app.admin.patch(&path, &json!({"active": true})).await.expect(200);
    caller.get("/api/flags/me").await.expect(200);
    app.clock_to("01-01T00:00:09.999999Z");
    caller.get("/api/flags/me").await.expect(200);
    app.clock_to("01-01T00:00:10Z");
    caller.get("/api/flags/me").await.expect_problem(401, "unauthorized");
    app.clock_to("01-01T00:00:09Z");
    app.admin.delete(&path).await.expect(204);
    caller.get("/api/flags/me").await.expect_problem(401, "unauthorized");
    let unknown = app.bearer(&rs256(&claims(&uuid::Uuid::now_v7().to_string())));
    unknown.get("/api/flags/me").await.expect_problem(401, "unauthorized");
    unknown.get("/api/admin/users").await.expect_problem(401, "unauthorized");
}

async fn streams_end_with_the_token_and_with_the_user(kind: Kind) {
    let (app, _kept) = start(kind, |config| config).await;
    let (ann, _) = app.user("ann").await;
    let (ben, _) = app.user("ben").await;
    let (vera, _) = app.user_with("vera", "viewer", json!({})).await;
    let later = |user: &str| rs256(&changed(claims(user), json!({"exp": BEGIN + 1_000})));
    let mut expired = app.bearer(&rs256(&claims(&ann))).stream(MINE, &[]).await;
    let mut all_expired = app.bearer(&rs256(&claims(&vera))).stream(ALL, &[]).await;
    let mut lives = app.bearer(&later(&ann)).stream(MINE, &[]).await;
    let mut deactivated = app.bearer(&later(&ben)).stream(MINE, &[]).await;
    let mut demoted = app.bearer(&later(&vera)).stream(ALL, &[]).await;
    for events in [&mut expired, &mut all_expired, &mut lives, &mut deactivated, &mut demoted] {
        events.expect("snapshot").await;
    }
    app.clock_to("01-01T00:00:10Z");
    for events in [&mut expired, &mut all_expired] {
        assert_eq!(events.expect("bye").await.data, json!({"reason": "revoked"}));
        events.expect_end().await;
    }
    app.admin.patch(&format!("/api/admin/users/{ben}"), &json!({"active": false})).await.expect(200);
    assert_eq!(deactivated.expect("bye").await.data, json!({"reason": "revoked"}));
    app.admin.patch(&format!("/api/admin/users/{vera}"), &json!({"role": "user"})).await.expect(200);
    loop {
        // What was changed before, it may see.
        let event = demoted.next().await;
        assert!(["change", "bye"].contains(&&*event.event), "{event:?}");
        assert!(!event.data.to_string().contains(&vera), "{event:?}");
        if event.event == "bye" {
            break;
        }
    }
    app.boolean_flag("f").await;
    assert_eq!(lives.expect("change").await.data["set"]["f"]["value"], false);
}

async fn an_answer_waits_for_the_revision_before_the_user_is_looked_up(kind: Kind) {
    let (app, _kept) = start(kind, |config| config).await;
    let (ann, _) = app.user("ann").await;
    let revision = app.replica.revision();
    let at = |number: i64| format!("{}:{number}", revision.epoch);
    let get = async |token: &str, revision: String| {
        let headers = [("flags-min-revision", revision.as_str())];
        app.bearer(token).send(Method::GET, "/api/flags/me", &headers, None).await
    };
    let good = rs256(&claims(&ann));
    get(&good, at(revision.number)).await.expect(200);
    get(&good, at(revision.number + 1)).await.expect_problem(503, "revision_not_reached");
    let nobody = rs256(&claims(&uuid::Uuid::now_v7().to_string()));
    get(&nobody, at(revision.number + 1)).await.expect_problem(503, "revision_not_reached");
    // Whoever cannot prove anything is not waited for.
    let forged = rs256(&changed(claims(&ann), json!({"aud": "x"})));
    get(&forged, at(revision.number + 1)).await.expect_problem(401, "unauthorized");
}

async fn forged_tokens_are_refused(kind: Kind) {
    let (app, _kept) = start(kind, |config| config).await;
    let (ann, _) = app.user_with("ann", "admin", json!({})).await;
    let evil = KeyServer::start(Answer::Document(document(&[jwk(&key("rsa-other"), Algorithm::RS256, "k")])));
    app.bearer(&rs256(&claims(&ann))).get("/api/admin/users").await.expect(200);
    let forged = super::jwt_forgeries::all(&ann, &evil.base);
    assert!(forged.len() >= 60, "{}", forged.len());
    for (what, token) in forged {
        for path in ["/api/flags/me", "/api/admin/users"] {
            let answer = app.bearer(&token).get(path).await;
            assert_eq!(answer.status.as_u16(), 401, "{what}: {token}: {}", answer.text);
            answer.expect_problem(401, "unauthorized");
        }
    }
    assert_eq!(evil.hits(), 0, "nothing that a header names is fetched");
    app.bearer(&rs256(&claims(&ann))).get("/api/admin/users").await.expect(200);
}

async fn without_an_issuer_no_token_is_accepted(kind: Kind) {
    let app = TestApp::start(kind).await;
    let (ann, _) = app.user("ann").await;
    app.bearer(&rs256(&claims(&ann))).get("/api/flags/me").await.expect_problem(401, "unauthorized");
}

async fn an_issuer_that_is_down_is_no_refusal(kind: Kind) {
    let server = KeyServer::start(Answer::Status(500));
    let app = TestApp::start_trusting(kind, config(server.source("/keys"), &[JwtAlgorithm::Rs256])).await;
    let (ann, api_token) = app.user("ann").await;
    let caller = app.bearer(&rs256(&claims(&ann)));
    let refused = caller.get("/api/flags/me").await;
    assert_eq!(refused.header("retry-after"), "5");
    refused.expect_problem(503, "issuer_unavailable");
    api_token.get("/api/flags/me").await.expect(200);
    server.set(Answer::Document(document(&[jwk(&key("rsa"), Algorithm::RS256, "k")])));
    app.clock_to("01-01T00:00:05Z");
    flags_tests::eventually("keys are fetched again after five seconds", async || {
        (caller.get("/api/flags/me").await.status == 200).then_some(())
    })
    .await;
}
