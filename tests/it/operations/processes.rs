//! The server as a process: its commands, several at once, ends of every kind.

use serde_json::{Value, json};

use flags_tests::{
    app::override_at,
    caller::Caller,
    database::{Database, Kind, execute},
    eventually, on_both_databases,
    process::{Running, admin_token, binary, fails_with, output_of, run, signal, user_token},
};

on_both_databases! {
    the_demo_is_what_its_guide_says,
    tokens_and_users_are_made_on_the_command_line,
    a_change_through_one_server_is_served_by_another,
    acknowledged_writes_survive_kill_nine,
    a_server_that_is_told_to_stop_ends_cleanly,
    changes_are_counted_as_the_specification_says,
    a_new_epoch_is_noticed_by_a_running_server,
}

async fn a_new_epoch_is_noticed_by_a_running_server(kind: Kind) {
    let database = Database::migrated(kind).await;
    let server = Running::server(&database.url);
    let admin = server.caller(&admin_token(&database.url));
    known(&admin).await;
    let old = admin.post("/api/admin/users", &json!({"email": "ann@example.com"})).await.expect(201);
    let path = old.header("location").to_owned();
    let revision = output_of("server", &["new-epoch", "--database-url", &database.url]);
    eventually("the server evaluates by the new epoch", async || {
        (admin.get("/readyz").await.json()["revision"] == revision.as_str()).then_some(())
    })
    .await;
    let body = json!({"display_name": "Ann"});
    let stale = admin.json(reqwest::Method::PATCH, &path, &[("if-match", old.header("etag"))], &body).await;
    stale.expect_problem(412, "precondition_failed");
    let fresh = admin.get(&path).await.expect(200);
    admin.json(reqwest::Method::PATCH, &path, &[("if-match", fresh.header("etag"))], &body).await.expect(200);
}

async fn known(caller: &Caller) {
    eventually("the token is known", async || (caller.get("/api/admin/users").await.status == 200).then_some(())).await;
}

async fn the_demo_is_what_its_guide_says(kind: Kind) {
    let database = Database::empty(kind).await;
    let guide = output_of("server", &["demo", "--database-url", &database.url, "--bind", "127.0.0.1:1"]);
    let word = |name: &str| {
        let line = guide.lines().find(|line| line.trim().starts_with(&format!("{name}="))).unwrap();
        line.trim()[name.len() + 1..].split(' ').next().unwrap().to_owned()
    };
    assert!(guide.contains("DEMO"), "{guide}");
    let server = Running::server(&database.url);
    let ann = server.caller(&word("ANN"));
    let mine = ann.get("/api/flags/me").await.expect(200).json();
    let sources = |mine: &Value| {
        let flags = mine["flags"].as_object().unwrap().clone();
        flags.into_iter().map(|(name, flag)| format!("{name} {}", flag["source"].as_str().unwrap())).collect::<Vec<_>>()
    };
    assert_eq!(
        sources(&mine),
        [
            "banner.content default",
            "checkout.flow targeting_rule",
            "search.max_results override",
            "ui.dark_mode default",
        ]
    );
    let ben = server.caller(&word("BEN")).get("/api/flags/me").await.expect(200).json();
    assert_eq!(ben["flags"]["checkout.flow"]["source"], "override");
    server.caller(&word("ADMIN")).get("/api/admin/scheduled-changes").await.expect(200);
    assert_eq!(server.caller(&word("VIEWER")).get("/api/admin/flag-overrides").await.expect(200).json()["total"], 2);
    fails_with("server", &["demo", "--database-url", &database.url], "not empty");
}

async fn tokens_and_users_are_made_on_the_command_line(kind: Kind) {
    let database = Database::empty(kind).await;
    let url = ["--database-url", database.url.as_str()];
    let command = |words: &[&str]| output_of("server", &[words, &url].concat());
    assert!(command(&["migrate"]).starts_with("applied"));
    assert_eq!(command(&["migrate"]), "nothing to do");
    let id = command(&["user", "create", "--email", "ann@example.com", "--role", "user"]);
    let server = Running::start("server", &[&url[..], &["--no-migrate"]].concat());
    let token = command(&["token", "create", "--name", "n", "--role", "user", "--user", "ANN@example.com"]);
    let ann = server.caller(&token);
    let mine = eventually("the token is known", async || {
        let answer = ann.get("/api/flags/me").await;
        (answer.status == 200).then(|| answer.json())
    });
    assert_eq!(mine.await["user_id"], id);
    let evaluate = server.caller(&command(&["token", "create", "--name", "n", "--scope", "evaluate"]));
    eventually("the token is known", async || {
        (evaluate.get("/api/flags/me").await.json()["code"] == "no_user").then_some(())
    })
    .await;
    let fails = |words: &[&str], part: &str| fails_with("server", &[words, &url].concat(), part);
    fails(&["user", "create", "--email", "Ann@Example.com"], "has this e-mail already");
    fails(&["user", "create", "--email", "nonsense"], "e-mail address");
    fails(&["token", "create", "--name", "n", "--role", "user"], "must act as a user");
    fails(
        &["token", "create", "--name", "n", "--role", "viewer", "--user", "x@example.com"],
        "no user with the e-mail",
    );
    fails(&["token", "create", "--name", "", "--role", "viewer"], "must not be empty");
}

async fn a_change_through_one_server_is_served_by_another(kind: Kind) {
    let database = Database::migrated(kind).await;
    let (one, two) = (Running::server(&database.url), Running::server(&database.url));
    let admin = one.caller(&admin_token(&database.url));
    known(&admin).await;
    admin.post("/api/admin/feature-flags", &json!({"name": "f", "flag_type": "boolean"})).await.expect(201);
    let id =
        admin.post("/api/admin/users", &json!({"email": "ann@example.com"})).await.expect(201).json()["id"].clone();
    let id = id.as_str().unwrap();
    let ann = two.caller(&user_token(&database.url, "ann@example.com"));
    let is = async |value: bool| {
        eventually("the other server serves it", async || {
            (ann.get("/api/flags/me/f").await.json()["value"] == value).then_some(())
        })
        .await;
    };
    is(false).await;
    admin.put(&override_at(id, "f"), &json!({"override_value": true})).await.expect(201);
    is(true).await;
    let set = admin.put(&override_at(id, "f"), &json!({"override_value": false})).await.expect(200);
    // Asked for that revision, the other server waits for it instead of answering from before.
    let revision = [("flags-min-revision", set.header("flags-revision"))];
    let answer = ann.send(reqwest::Method::GET, "/api/flags/me/f", &revision, None).await.expect(200);
    assert_eq!(answer.json()["value"], false);
    // The same holds for what is known of the caller.
    let rules = json!({"targeting_rules": [{"id": "r", "serve": {"variant": "on"},
        "conditions": [{"attribute": "plan", "operator": "equals", "values": ["pro"]}]}]});
    admin.post("/api/admin/feature-flags", &json!({"name": "g", "flag_type": "boolean"})).await.expect(201);
    admin.put("/api/admin/feature-flags/g/targeting-rules", &rules).await.expect(200);
    for plan in ["pro", "free", "pro"] {
        let body = json!({"attributes": {"plan": plan}});
        let set = admin.patch(&format!("/api/admin/users/{id}"), &body).await.expect(200);
        let revision = [("flags-min-revision", set.header("flags-revision"))];
        let answer = ann.send(reqwest::Method::GET, "/api/flags/me/g", &revision, None).await.expect(200);
        assert_eq!(answer.json()["value"], plan == "pro");
    }
    admin.put(&override_at(id, "f"), &json!({"override_value": true})).await.expect(200);
    one.kill();
    is(true).await;
    let rest = admin.at(&two.base);
    rest.get("/api/admin/flag-overrides").await.expect(200);
    rest.delete(&override_at(id, "f")).await.expect(204);
    is(false).await;
}

async fn acknowledged_writes_survive_kill_nine(kind: Kind) {
    let database = Database::migrated(kind).await;
    let token = admin_token(&database.url);
    let setup = Running::server(&database.url);
    let admin = setup.caller(&token);
    known(&admin).await;
    let mut users = Vec::new();
    for number in 0..4 {
        let body = json!({"email": format!("u{number}@example.com")});
        users.push(admin.post("/api/admin/users", &body).await.expect(201).json()["id"].as_str().unwrap().to_owned());
    }
    admin.post("/api/admin/feature-flags", &json!({"name": "f", "flag_type": "boolean"})).await.expect(201);
    setup.stop();
    let mut acknowledged = vec![None; users.len()];
    let mut attempted = vec![0; users.len()];
    for _ in 0..3 {
        let server = Running::server(&database.url);
        // Each writer counts up in the reason of one override until the server is gone, 50 writes after it came.
        let (done, mut written) = tokio::sync::mpsc::channel::<()>(1_000);
        let writers: Vec<_> = users
            .iter()
            .enumerate()
            .map(|(index, user)| {
                let (admin, path, done, mut number) =
                    (server.caller(&token), override_at(user, "f"), done.clone(), attempted[index]);
                tokio::spawn(async move {
                    let mut last = None;
                    loop {
                        number += 1;
                        let body =
                            json!({"override_value": true, "reason": number.to_string()}).to_string().into_bytes();
                        let json = [("content-type", "application/json")];
                        match admin.try_send(reqwest::Method::PUT, &path, &json, Some(body)).await {
                            Ok(reply) if reply.status.is_success() => last = Some(number),
                            Ok(reply) => panic!("{}", reply.text),
                            Err(_) => return (last, number),
                        }
                        let _ = done.try_send(());
                    }
                })
            })
            .collect();
        for _ in 0..50 {
            written.recv().await.unwrap();
        }
        server.kill();
        for (index, writer) in writers.into_iter().enumerate() {
            let (last, number) = writer.await.unwrap();
            acknowledged[index] = last.or(acknowledged[index]);
            attempted[index] = number;
        }
    }
    let server = Running::server(&database.url);
    let admin = server.caller(&token);
    for ((user, acknowledged), attempted) in users.iter().zip(acknowledged).zip(attempted) {
        let stored = admin.get(&override_at(user, "f")).await.expect(200).json();
        let stored: i32 = stored["reason"].as_str().unwrap().parse().unwrap();
        let acknowledged = acknowledged.expect("every writer has written");
        assert!((acknowledged..=attempted).contains(&stored), "acknowledged {acknowledged}, stored {stored}");
    }
    let store = database.store().await;
    let mut conn = store.conn().await.unwrap();
    let mut revisions: Vec<_> = flags_store::change_log::read_on(&mut conn, 0, 1_000_000)
        .await
        .unwrap()
        .1
        .iter()
        .map(|row| row.summary.revision)
        .collect();
    revisions.dedup();
    assert!(revisions.len() > 150);
    assert_eq!(revisions, (1..=revisions.len() as i64).collect::<Vec<_>>(), "dense");
}

async fn a_server_that_is_told_to_stop_ends_cleanly(kind: Kind) {
    let database = Database::migrated(kind).await;
    let server = Running::server(&database.url);
    Caller::new(&server.base, None).get("/readyz").await.expect(200);
    assert_eq!(server.stop().code(), Some(0));
}

async fn changes_are_counted_as_the_specification_says(kind: Kind) {
    let database = Database::migrated(kind).await;
    let server = Running::server(&database.url);
    let (admin, nobody) = (server.caller(&admin_token(&database.url)), Caller::new(&server.base, None));
    known(&admin).await;
    admin.post("/api/admin/feature-flags", &json!({"name": "f", "flag_type": "boolean"})).await.expect(201);
    let mut users = Vec::new();
    for name in ["ann", "ben"] {
        let body = json!({"email": format!("{name}@example.com")});
        users.push(admin.post("/api/admin/users", &body).await.expect(201).json()["id"].as_str().unwrap().to_owned());
    }
    for user in &users {
        admin.put(&override_at(user, "f"), &json!({"override_value": true})).await.expect(201);
        admin.patch(&override_at(user, "f"), &json!({"reason": "x"})).await.expect(200);
        admin.patch(&override_at(user, "f"), &json!({"reason": "x"})).await.expect(200);
    }
    let shows = async |line: &str| {
        eventually(line, async || {
            nobody.get("/metrics").await.expect(200).text.lines().any(|l| l == line).then_some(())
        })
        .await;
    };
    shows(r#"voiceassist_user_flag_overrides_total{flag_name="f",action="created"} 2"#).await;
    shows(r#"voiceassist_user_flag_overrides_total{flag_name="f",action="updated"} 2"#).await;
    shows(r#"voiceassist_user_flag_overrides_active{flag_name="f"} 2"#).await;
    admin.delete(&override_at(&users[0], "f")).await.expect(204);
    // A cascade counts as well.
    admin.delete(&format!("/api/admin/users/{}", users[1])).await.expect(204);
    shows(r#"voiceassist_user_flag_overrides_total{flag_name="f",action="deleted"} 2"#).await;
    shows(r#"voiceassist_user_flag_overrides_active{flag_name="f"} 0"#).await;
    let odd = reqwest::Method::from_bytes(b"ODDITY").unwrap();
    nobody.send(odd, "/healthz", &[], None).await.expect_problem(405, "method_not_allowed");
    let metrics = nobody.get("/metrics").await.text;
    assert!(metrics.contains(r#"method="other""#) && !metrics.contains("ODDITY"), "{metrics}");
    let route = "/api/admin/users/{user_id}/flag-overrides/{flag_name}";
    assert!(
        metrics.contains(&format!(r#"voiceassist_http_requests_total{{method="PUT",route="{route}",status="201"}} 2"#)),
        "{metrics}"
    );
    assert!(!metrics.contains(&users[0]) && !metrics.contains("example.com"), "{metrics}");
}

#[test]
fn what_cannot_start_says_why_in_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| format!("sqlite://{}", folder.path().join(name).display());
    let sound = path("sound.db");
    fails_with("server", &["--database-url", "postgres://nobody@127.0.0.1:1/none"], "the database is not available");
    fails_with("server", &["--database-url", &path("no/such/folder/flags.db")], "the database is not available");
    fails_with("server", &["--database-url", &sound, "--no-migrate"], "run `server migrate`");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    fails_with("server", &["--database-url", &sound, "--bind", &taken], "cannot listen on");
    std::fs::write(folder.path().join("no.db"), "this is no database, and longer than the header of one".repeat(20))
        .unwrap();
    fails_with("server", &["--database-url", &path("no.db")], "not a database");
    fails_with("server", &["--database-url", "sqlite:///proc/flags.db"], "the database is not available");
    for url in ["mysql://x", "flags.db", "sqlite://"] {
        let output = run("server", &["--database-url", url]);
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(text.lines().count() == 1 && text.contains("the database URL must"), "{text}");
    }
}

#[test]
fn the_document_is_printed() {
    let document: Value = serde_json::from_str(&output_of("server", &["openapi"])).unwrap();
    assert!(document["paths"]["/api/flags/me"].is_object());
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_can_have_an_address_of_their_own() {
    let database = Database::migrated(Kind::Sqlite).await;
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let server = Running::start("server", &["--database-url", &database.url, "--metrics-bind", &port.to_string()]);
    Caller::new(&server.base, None).get("/metrics").await.expect_problem(404, "not_found");
    Caller::new(&format!("http://{port}"), None).get("/metrics").await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_still_loading_stops_when_it_is_told() {
    // A database that takes connections and never says a word.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("postgres://nobody@{}/none", silent.local_addr().unwrap());
    let mut server = std::process::Command::new(binary("server"));
    let mut server = server.args(["--database-url", &url, "--bind", "127.0.0.1:0"]).spawn().unwrap();
    let _connection = silent.accept().unwrap();
    signal("TERM", i32::try_from(server.id()).unwrap());
    assert_eq!(server.wait().unwrap().code(), Some(0), "neither killed nor failed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_may_create_nothing_is_enough() {
    let database = Database::migrated(Kind::Postgres).await;
    let role = format!("limited_{}", uuid::Uuid::now_v7().simple());
    let rights = format!(
        "CREATE ROLE {role} LOGIN; GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role};
         REVOKE CREATE ON SCHEMA public FROM PUBLIC"
    );
    execute(&database.url, &rights).await;
    let url = database.url.replace("postgres://postgres@", &format!("postgres://{role}@"));
    let server = Running::start("server", &["--database-url", &url, "--no-migrate"]);
    assert_eq!(output_of("cleanup-worker", &["--once", "--database-url", &url]).split(' ').next(), Some("removed"));
    assert_eq!(server.stop().code(), Some(0));
}
