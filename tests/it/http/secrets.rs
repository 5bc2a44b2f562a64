//! Secrets and personal data do not reach the application log or the metrics.

use jsonwebtoken::Algorithm;
use reqwest::Method;
use serde_json::{Value, json};

use flags_tests::{
    app::override_path,
    caller::Caller,
    database::{Database, DatabaseKind},
    eventually, issuer, on_both_databases,
    process::{self, RunningProcess},
};

on_both_databases! {
    application_log_and_metrics_contain_no_secret_or_email,
}

/// Sends canary values to all endpoints and searches the application log and the metrics for them.
async fn application_log_and_metrics_contain_no_secret_or_email(kind: DatabaseKind) {
    let database = Database::migrated(kind).await;
    let directory = tempfile::tempdir().unwrap();
    let (email, password) = ("canary.mail@example.com", "canary-password-0123456789");
    let arguments =
        ["user", "create", "--database-url", &database.url, "--email", email, "--role", "admin", "--password-stdin"];
    process::stdout_with_input("server", &arguments, password);
    let (keys, _) =
        issuer::write_key_file(&issuer::jwk_set(&[issuer::jwk(&issuer::private_key("rsa"), Algorithm::RS256, "k")]));
    let jwt =
        issuer::sign_jwt(&issuer::private_key("rsa-other"), Algorithm::RS256, r#"{"alg":"RS256","kid":"k"}"#, "{}");
    for format in ["text", "json"] {
        let log_path = directory.path().join(format);
        let server =
            RunningProcess::server_with_verbose_log(&database.url, format, &log_path, &issuer::jwt_arguments(&keys));
        let admin = server.caller(&process::create_admin_token(&database.url));
        let anonymous = Caller::new(&server.base_url, None);
        anonymous
            .post("/api/auth/login", &json!({"email": email, "password": "canary-wrong-password"}))
            .await
            .expect(401);
        server.caller(&jwt).send(Method::GET, "/api/flags/me", &[("x-request-id", "by-jwt")], None).await.expect(401);
        let signed_in =
            anonymous.post("/api/auth/login", &json!({"email": email, "password": password})).await.expect(200);
        let cookie = signed_in.cookie().to_owned();
        let browser = anonymous.with_cookie(&cookie);
        let id = signed_in.json()["id"].as_str().unwrap().to_owned();
        let token = eventually("the server accepts the admin's token", async || {
            let created = admin.post("/api/admin/api-tokens", &json!({"name": "canary-token", "role": "viewer"})).await;
            (created.status == 201).then(|| created.json()["token"].as_str().unwrap().to_owned())
        })
        .await;
        let wrong_token = format!("{}A", &token[..token.len() - 1]);
        let document = admin.get("/openapi.json").await.json();
        for (path, methods) in document["paths"].as_object().unwrap() {
            let path = path.replace("{user_id}", &id).replace("{flag_name}", "canary.flag").replace("{id}", &id);
            for method in methods.as_object().unwrap().keys().filter(|key| *key != "parameters") {
                let is_skipped = ["/stream", "/logout", "/logout-all"].iter().any(|suffix| path.ends_with(suffix));
                if is_skipped || (method == "delete" && path.ends_with(&id)) {
                    continue;
                }
                let method: Method = method.to_uppercase().parse().unwrap();
                let query = format!("{path}?search={email}&canary-parameter=canary-value");
                let body = json!({"email": email, "password": "canary", "reason": "canary-reason", "canary-field": 1});
                for caller in [
                    &admin,
                    &browser,
                    &Caller::new(&server.base_url, Some(&token)),
                    &Caller::new(&server.base_url, Some(&wrong_token)),
                ] {
                    for path in [&path, &query] {
                        let headers = [("x-canary", "canary-header"), ("idempotency-key", "canary-key")];
                        let response = match method {
                            Method::GET => caller.send(Method::GET, path, &headers, None).await,
                            _ => caller.send_json(method.clone(), path, &headers, &body).await,
                        };
                        assert!(response.status.as_u16() < 500, "{}", response.text);
                    }
                }
            }
        }
        let body = json!({"email": format!("{format}.{email}"), "password": password, "attributes": {"a": "canary-attribute"}});
        let second_user_id =
            browser.post("/api/admin/users", &body).await.expect(201).json()["id"].as_str().unwrap().to_owned();
        browser
            .post("/api/admin/feature-flags", &json!({"name": format!("f.{format}"), "flag_type": "boolean"}))
            .await
            .expect(201);
        let body = json!({"override_value": true, "reason": "canary-reason"});
        browser.put(&override_path(&second_user_id, &format!("f.{format}")), &body).await.expect(201);
        browser.delete(&format!("/api/admin/users/{second_user_id}")).await.expect(204);
        let evaluation_request = json!({"context": {"targetingKey": id, "canary-attribute": "canary-value"}});
        let evaluation = browser.post("/ofrep/v1/evaluate/flags", &evaluation_request).await.expect(200).json();
        let stream = evaluation["eventStreams"][0]["endpoint"]["requestUri"].as_str().unwrap();
        assert_eq!(anonymous.open_stream(stream, &[]).await.next().await.event, "message");
        let stream_token = &stream[stream.len() - 40..];
        let metrics = anonymous.get("/metrics").await.text;
        assert!(server.stop().success());
        let log_text = std::fs::read_to_string(&log_path).unwrap();
        assert!(log_text.contains("request_id") && log_text.lines().count() > 100, "the server must log requests");
        assert!(format != "json" || log_text.lines().all(|line| serde_json::from_str::<Value>(line).is_ok()));
        let is_rejection_of_request = |line: &str| line.contains("JWT rejected") && line.contains("by-jwt");
        assert!(
            log_text.lines().any(is_rejection_of_request),
            "the rejection of the JWT must be logged with the request id"
        );
        let last_characters = |secret: &str| secret[secret.len() - 20..].to_owned();
        let secrets = [
            last_characters(&cookie),
            last_characters(&token),
            last_characters(&jwt),
            wrong_token[4..24].to_owned(),
            "$argon2id$".to_owned(),
            stream_token.to_owned(),
        ];
        for (name, text) in [("application log", &log_text), ("metrics", &metrics)] {
            for line in text.lines() {
                let contains_canary = line.to_lowercase().replace("canary.flag", "").contains("canary");
                assert!(!contains_canary && !secrets.iter().any(|secret| line.contains(secret)), "{name}: {line}");
            }
        }
    }
}
