//! Commands of the server binary: demo, users, tokens, the OpenAPI document and start-up errors.

use serde_json::Value;

use flags_tests::{
    database::{Database, DatabaseKind},
    eventually, on_both_databases,
    process::{RunningProcess, assert_fails_with, run, stdout_of},
};

on_both_databases! {
    demo_data_matches_the_printed_guide,
    creates_users_and_tokens_on_the_command_line,
}

async fn demo_data_matches_the_printed_guide(kind: DatabaseKind) {
    let database = Database::empty(kind).await;
    let guide = stdout_of("server", &["demo", "--database-url", &database.url, "--bind", "127.0.0.1:1"]);
    let token = |name: &str| {
        let line = guide.lines().find(|line| line.trim().starts_with(&format!("{name}="))).unwrap();
        line.trim()[name.len() + 1..].split(' ').next().unwrap().to_owned()
    };
    assert!(guide.contains("demo data"), "{guide}");
    let server = RunningProcess::server(&database.url);
    let ann = server.caller(&token("ANN"));
    let own_flags = ann.get("/api/flags/me").await.expect(200).json();
    let sources = |own_flags: &Value| {
        let flags = own_flags["flags"].as_object().unwrap().clone();
        flags.into_iter().map(|(name, flag)| format!("{name} {}", flag["source"].as_str().unwrap())).collect::<Vec<_>>()
    };
    assert_eq!(
        sources(&own_flags),
        [
            "banner.content default",
            "checkout.flow targeting_rule",
            "search.max_results override",
            "ui.dark_mode default",
        ]
    );
    let ben_flags = server.caller(&token("BEN")).get("/api/flags/me").await.expect(200).json();
    assert_eq!(ben_flags["flags"]["checkout.flow"]["source"], "override");
    server.caller(&token("ADMIN")).get("/api/admin/scheduled-changes").await.expect(200);
    assert_eq!(server.caller(&token("VIEWER")).get("/api/admin/flag-overrides").await.expect(200).json()["total"], 3);
    let support = server.caller(&token("SUPPORT"));
    let external = |id: &str| format!("/api/admin/users/ext:{id}");
    let labels = async |id: &str| {
        let user = support.get(&external(id)).await.expect(200).json();
        [user["user_label"].clone(), user["email"].clone()]
    };
    assert_eq!(labels("crm-1001").await, [Value::from("Dora (demo)"), Value::Null]);
    assert_eq!(labels("crm-1002").await, ["Cara (demo)", "cara@example.com"]);
    assert_eq!(labels("crm-1003").await, [Value::from("crm-1003"), Value::Null]);
    let command = guide.lines().find(|line| line.contains("create_users=true")).unwrap();
    let (_, path) = command.trim_end_matches('\'').split_once("127.0.0.1:1").unwrap();
    support.put(path, &serde_json::json!({"override_value": true})).await.expect(201);
    assert_fails_with("server", &["demo", "--database-url", &database.url], "not empty");
}

async fn creates_users_and_tokens_on_the_command_line(kind: DatabaseKind) {
    let database = Database::empty(kind).await;
    let url = ["--database-url", database.url.as_str()];
    let command = |arguments: &[&str]| stdout_of("server", &[arguments, &url].concat());
    assert!(command(&["migrate"]).starts_with("applied"));
    assert_eq!(command(&["migrate"]), "no pending migrations");
    let ann_id = command(&["user", "create", "--email", "ann@example.com", "--role", "user"]);
    let server = RunningProcess::start("server", &[&url[..], &["--no-migrate"]].concat());
    let token = command(&["token", "create", "--name", "n", "--role", "user", "--user", "ANN@example.com"]);
    let ann = server.caller(&token);
    let own_flags = eventually("the server has read the token", async || {
        let response = ann.get("/api/flags/me").await;
        (response.status == 200).then(|| response.json())
    });
    assert_eq!(own_flags.await["user_id"], ann_id);
    let cara_id = command(&["user", "create", "--external-id", "crm-7", "--role", "support"]);
    for reference in ["crm-7", &cara_id, &cara_id.to_uppercase()] {
        let token = command(&["token", "create", "--name", "n", "--role", "support", "--user", reference]);
        let cara = server.caller(&token);
        let identity = eventually("the server has read the token", async || {
            let response = cara.get("/api/auth/me").await;
            (response.status == 200).then(|| response.json())
        })
        .await;
        assert_eq!((&identity["id"], &identity["role"]), (&Value::from(cara_id.as_str()), &Value::from("support")));
        assert_eq!((&identity["user_label"], &identity["email"]), (&Value::from("crm-7"), &Value::Null), "{reference}");
    }
    let evaluate = server.caller(&command(&["token", "create", "--name", "n", "--scope", "evaluate"]));
    eventually("the server has read the token", async || {
        (evaluate.get("/api/flags/me").await.json()["code"] == "no_user").then_some(())
    })
    .await;
    let expect_failure =
        |arguments: &[&str], message: &str| assert_fails_with("server", &[arguments, &url].concat(), message);
    expect_failure(&["user", "create", "--email", "Ann@Example.com"], "already has this e-mail address");
    expect_failure(&["user", "create", "--email", "nonsense"], "e-mail address");
    expect_failure(&["token", "create", "--name", "n", "--role", "user"], "is required for a token with role user");
    expect_failure(
        &["token", "create", "--name", "n", "--role", "viewer", "--user", "x@example.com"],
        "no user has the e-mail address",
    );
    expect_failure(&["token", "create", "--name", "", "--role", "viewer"], "must not be empty");
}

#[test]
fn start_up_errors_are_a_single_line_with_the_cause() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| format!("sqlite://{}", folder.path().join(name).display());
    let database_url = path("flags.db");
    assert_fails_with(
        "server",
        &["--database-url", "postgres://unknown@127.0.0.1:1/none"],
        "the database is not available",
    );
    assert_fails_with("server", &["--database-url", &path("missing/folder/flags.db")], "the database is not available");
    assert_fails_with("server", &["--database-url", &database_url, "--no-migrate"], "run `server migrate`");
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let used_address = listener.local_addr().unwrap().to_string();
    assert_fails_with("server", &["--database-url", &database_url, "--bind", &used_address], "cannot listen on");
    std::fs::write(folder.path().join("invalid.db"), "not a database, and longer than the header of one".repeat(20))
        .unwrap();
    assert_fails_with("server", &["--database-url", &path("invalid.db")], "not a database");
    assert_fails_with("server", &["--database-url", "sqlite:///proc/flags.db"], "the database is not available");
    for url in ["mysql://x", "flags.db", "sqlite://"] {
        let output = run("server", &["--database-url", url]);
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(text.lines().count() == 1 && text.contains("the database URL must"), "{text}");
    }
}

#[test]
fn openapi_command_prints_the_document() {
    let document: Value = serde_json::from_str(&stdout_of("server", &["openapi"])).unwrap();
    assert!(document["paths"]["/api/flags/me"].is_object());
}
