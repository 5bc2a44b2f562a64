//! What keeps the service standing and silent: limits, headers, other origins, and secrets that leave no trace.

use flags_api::{RateLimits, Settings};
use jsonwebtoken::Algorithm;
use reqwest::Method;
use serde_json::json;

use flags_tests::{
    app::{TestApp, override_at},
    caller::Caller,
    database::{Database, Kind},
    issuer, on_both_databases,
    process::{self, Running},
};

on_both_databases! {
    every_credential_has_its_own_limit,
    heads_that_are_too_large_are_refused,
    other_origins_read_nothing_unless_they_are_named,
    neither_log_nor_metrics_hold_a_secret_or_an_email,
}

async fn every_credential_has_its_own_limit(kind: Kind) {
    let limits = RateLimits { requests: 5, evaluations: 5, anonymous: 5 };
    let app = TestApp::start_set(kind, Settings { limits, ..Settings::default() }).await;
    let (_, ann) = app.user("ann").await;
    let mut refused = None;
    for _ in 0..40 {
        let answer = app.admin.get("/api/admin/users").await;
        if answer.status == 429 {
            refused = Some(answer);
            break;
        }
        answer.expect(200);
    }
    let refused = refused.expect("twice five requests a second are the most");
    assert_eq!(refused.header("retry-after"), "1");
    refused.expect_problem(429, "rate_limited");
    ann.get("/api/flags/me").await.expect(200);
    let refused = async |path: &str| {
        for _ in 0..40 {
            if app.nobody.get(path).await.status == 429 {
                return true;
            }
        }
        false
    };
    assert!(refused("/api/admin/users").await, "whoever shows no credential shares the limit of their address");
    assert!(!refused("/healthz").await && !refused("/readyz").await, "whoever watches is never refused");
    app.nobody
        .post("/api/auth/login", &json!({"email": "a", "password": "b"}))
        .await
        .expect_problem(429, "rate_limited");
}

/// Sends a canary through all endpoints, well and badly formed, and looks for it in all that an operator keeps.
async fn neither_log_nor_metrics_hold_a_secret_or_an_email(kind: Kind) {
    let database = Database::migrated(kind).await;
    let folder = tempfile::tempdir().unwrap();
    let (email, password) = ("canary.mail@example.com", "canary-password-0123456789");
    let words =
        ["user", "create", "--database-url", &database.url, "--email", email, "--role", "admin", "--password-stdin"];
    process::output_with_input("server", &words, password);
    let (keys, _) = issuer::file(&issuer::document(&[issuer::jwk(&issuer::key("rsa"), Algorithm::RS256, "k")]));
    let jwt = issuer::sign(&issuer::key("rsa-other"), Algorithm::RS256, r#"{"alg":"RS256","kid":"k"}"#, "{}");
    for format in ["text", "json"] {
        let log = folder.path().join(format);
        let server = Running::talkative_server(&database.url, format, &log, &issuer::arguments(&keys));
        let admin = server.caller(&process::admin_token(&database.url));
        let nobody = Caller::new(&server.base, None);
        nobody.post("/api/auth/login", &json!({"email": email, "password": "canary-wrong-password"})).await.expect(401);
        server.caller(&jwt).send(Method::GET, "/api/flags/me", &[("x-request-id", "by-jwt")], None).await.expect(401);
        let signed_in =
            nobody.post("/api/auth/login", &json!({"email": email, "password": password})).await.expect(200);
        let cookie = signed_in.cookie().to_owned();
        let browser = nobody.with_cookie(&cookie);
        let id = signed_in.json()["id"].as_str().unwrap().to_owned();
        let token = flags_tests::eventually("the server knows the admin's token", async || {
            let made = admin.post("/api/admin/api-tokens", &json!({"name": "canary-token", "role": "viewer"})).await;
            (made.status == 201).then(|| made.json()["token"].as_str().unwrap().to_owned())
        })
        .await;
        let wrong = format!("{}A", &token[..token.len() - 1]);
        let document = admin.get("/openapi.json").await.json();
        for (path, methods) in document["paths"].as_object().unwrap() {
            let path = path.replace("{user_id}", &id).replace("{flag_name}", "canary.flag").replace("{id}", &id);
            for method in methods.as_object().unwrap().keys().filter(|key| *key != "parameters") {
                let ends = ["/stream", "/logout", "/logout-all"].iter().any(|end| path.ends_with(end));
                if ends || (method == "delete" && path.ends_with(&id)) {
                    continue;
                }
                let method: Method = method.to_uppercase().parse().unwrap();
                let query = format!("{path}?search={email}&canary-parameter=canary-value");
                let body = json!({"email": email, "password": "canary", "reason": "canary-reason", "canary-field": 1});
                for caller in [
                    &admin,
                    &browser,
                    &Caller::new(&server.base, Some(&token)),
                    &Caller::new(&server.base, Some(&wrong)),
                ] {
                    for path in [&path, &query] {
                        let headers = [("x-canary", "canary-header"), ("idempotency-key", "canary-key")];
                        let answer = match method {
                            Method::GET => caller.send(Method::GET, path, &headers, None).await,
                            _ => caller.json(method.clone(), path, &headers, &body).await,
                        };
                        assert!(answer.status.as_u16() < 500, "{}", answer.text);
                    }
                }
            }
        }
        let other = json!({"email": format!("{format}.{email}"), "password": password, "attributes": {"a": "canary-attribute"}});
        let other =
            browser.post("/api/admin/users", &other).await.expect(201).json()["id"].as_str().unwrap().to_owned();
        browser
            .post("/api/admin/feature-flags", &json!({"name": format!("f.{format}"), "flag_type": "boolean"}))
            .await
            .expect(201);
        let why = json!({"override_value": true, "reason": "canary-reason"});
        browser.put(&override_at(&other, &format!("f.{format}")), &why).await.expect(201);
        browser.delete(&format!("/api/admin/users/{other}")).await.expect(204);
        let asked = json!({"context": {"targetingKey": id, "canary-attribute": "canary-value"}});
        let all = browser.post("/ofrep/v1/evaluate/flags", &asked).await.expect(200).json();
        let stream = all["eventStreams"][0]["endpoint"]["requestUri"].as_str().unwrap();
        assert_eq!(nobody.stream(stream, &[]).await.next().await.event, "message");
        let ticket = &stream[stream.len() - 40..];
        let metrics = nobody.get("/metrics").await.text;
        assert!(server.stop().success());
        let logged = std::fs::read_to_string(&log).unwrap();
        assert!(logged.contains("request_id") && logged.lines().count() > 100, "it did log");
        assert!(format != "json" || logged.lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()));
        let names_the_request = |line: &str| line.contains("a JWT is refused") && line.contains("by-jwt");
        assert!(logged.lines().any(names_the_request), "why a JWT is refused is said of a request");
        let end = |secret: &str| secret[secret.len() - 20..].to_owned();
        let secrets =
            [end(&cookie), end(&token), end(&jwt), wrong[4..24].to_owned(), "$argon2id$".to_owned(), ticket.to_owned()];
        for (name, text) in [("log", &logged), ("metrics", &metrics)] {
            for line in text.lines() {
                let leak = line.to_lowercase().replace("canary.flag", "").contains("canary");
                assert!(!leak && !secrets.iter().any(|secret| line.contains(secret)), "{name}: {line}");
            }
        }
    }
}

async fn heads_that_are_too_large_are_refused(kind: Kind) {
    let app = TestApp::start(kind).await;
    let long = format!("/api/admin/users?search={}", "a".repeat(16 * 1024));
    app.admin.get(&long).await.expect_problem(414, "uri_too_long");
    let header = "a".repeat(33 * 1024);
    let answer = app.admin.send(Method::GET, "/api/admin/users", &[("x-large", &header)], None).await;
    answer.expect_problem(431, "headers_too_large");
    let many: Vec<_> = (0..60).map(|_| ("x-many", "a")).collect();
    app.admin.send(Method::GET, "/api/admin/users", &many, None).await.expect(200);
}

async fn other_origins_read_nothing_unless_they_are_named(kind: Kind) {
    let origin = ("origin", "https://app.example.com");
    let asks = [origin, ("access-control-request-method", "GET"), ("access-control-request-headers", "authorization")];
    let app = TestApp::start(kind).await;
    let answer = app.admin.send(Method::GET, "/api/admin/users", &[origin], None).await.expect(200);
    assert_eq!(answer.header("access-control-allow-origin"), "");
    app.nobody.send(Method::OPTIONS, "/api/flags/me", &asks, None).await.expect_problem(405, "method_not_allowed");

    let cors_origins = vec!["https://app.example.com".to_owned()];
    let app = TestApp::start_set(kind, Settings { cors_origins, ..Settings::default() }).await;
    let (_, ann) = app.user("ann").await;
    let preflight = app.nobody.send(Method::OPTIONS, "/api/flags/me", &asks, None).await.expect(200);
    assert_eq!(preflight.header("access-control-allow-origin"), "https://app.example.com");
    assert!(preflight.header("access-control-allow-headers").to_lowercase().contains("authorization"));
    assert_eq!(preflight.header("access-control-allow-credentials"), "", "cookies stay at home");
    let answer = ann.send(Method::GET, "/api/flags/me", &[origin], None).await.expect(200);
    assert_eq!(answer.header("access-control-allow-origin"), "https://app.example.com");
    let exposed = answer.header("access-control-expose-headers").to_lowercase();
    assert!(exposed.contains("etag") && exposed.contains("retry-after"), "{exposed}");
    assert!(answer.header("vary").to_lowercase().contains("origin"));
    let evil = ("origin", "https://evil.com");
    let answer = ann.send(Method::GET, "/api/flags/me", &[evil], None).await.expect(200);
    assert_eq!(answer.header("access-control-allow-origin"), "");
    let asks = [evil, ("access-control-request-method", "GET")];
    let refused = app.nobody.send(Method::OPTIONS, "/api/flags/me", &asks, None).await;
    assert_eq!(refused.header("access-control-allow-origin"), "");
    // Without a credential the problem can be read as well.
    let answer = app.nobody.send(Method::GET, "/api/flags/me", &[origin], None).await.expect(401);
    assert_eq!(answer.header("access-control-allow-origin"), "https://app.example.com");
}
