//! Server processes: several servers on one database, signals, crashes and database privileges.

use serde_json::json;

use flags_tests::{
    app::override_path,
    caller::Caller,
    database::{Database, DatabaseKind, execute_postgres},
    eventually, on_both_databases,
    process::{RunningProcess, binary_path, create_admin_token, create_user_token, send_signal, stdout_of},
};

use super::wait_until_token_is_known;

on_both_databases! {
    changes_reach_other_servers,
    running_server_adopts_a_new_epoch,
    acknowledged_writes_survive_sigkill,
    sigterm_stops_the_server_with_exit_code_0,
}

async fn changes_reach_other_servers(kind: DatabaseKind) {
    let database = Database::migrated(kind).await;
    let (first, second) = (RunningProcess::server(&database.url), RunningProcess::server(&database.url));
    let admin = first.caller(&create_admin_token(&database.url));
    wait_until_token_is_known(&admin).await;
    admin.post("/api/admin/feature-flags", &json!({"name": "f", "flag_type": "boolean"})).await.expect(201);
    let ann_id =
        admin.post("/api/admin/users", &json!({"email": "ann@example.com"})).await.expect(201).json()["id"].clone();
    let ann_id = ann_id.as_str().unwrap();
    let ann = second.caller(&create_user_token(&database.url, "ann@example.com"));
    let wait_until_second_serves = async |value: bool| {
        eventually("the second server serves the new value", async || {
            (ann.get("/api/flags/me/f").await.json()["value"] == value).then_some(())
        })
        .await;
    };
    wait_until_second_serves(false).await;
    admin.put(&override_path(ann_id, "f"), &json!({"override_value": true})).await.expect(201);
    wait_until_second_serves(true).await;
    let updated = admin.put(&override_path(ann_id, "f"), &json!({"override_value": false})).await.expect(200);
    // A request with a minimum revision waits until the second server has reached that revision.
    let revision = [("flags-min-revision", updated.header("flags-revision"))];
    let response = ann.send(reqwest::Method::GET, "/api/flags/me/f", &revision, None).await.expect(200);
    assert_eq!(response.json()["value"], false);
    // The minimum revision also covers the attributes of the caller.
    let rules = json!({"targeting_rules": [{"id": "r", "serve": {"variant": "on"},
        "conditions": [{"attribute": "plan", "operator": "equals", "values": ["pro"]}]}]});
    admin.post("/api/admin/feature-flags", &json!({"name": "g", "flag_type": "boolean"})).await.expect(201);
    admin.put("/api/admin/feature-flags/g/targeting-rules", &rules).await.expect(200);
    for plan in ["pro", "free", "pro"] {
        let body = json!({"attributes": {"plan": plan}});
        let updated = admin.patch(&format!("/api/admin/users/{ann_id}"), &body).await.expect(200);
        let revision = [("flags-min-revision", updated.header("flags-revision"))];
        let response = ann.send(reqwest::Method::GET, "/api/flags/me/g", &revision, None).await.expect(200);
        assert_eq!(response.json()["value"], plan == "pro");
    }
    admin.put(&override_path(ann_id, "f"), &json!({"override_value": true})).await.expect(200);
    first.kill();
    wait_until_second_serves(true).await;
    let admin_at_second = admin.at_server(&second.base_url);
    admin_at_second.get("/api/admin/flag-overrides").await.expect(200);
    admin_at_second.delete(&override_path(ann_id, "f")).await.expect(204);
    wait_until_second_serves(false).await;
}

async fn running_server_adopts_a_new_epoch(kind: DatabaseKind) {
    let database = Database::migrated(kind).await;
    let server = RunningProcess::server(&database.url);
    let admin = server.caller(&create_admin_token(&database.url));
    wait_until_token_is_known(&admin).await;
    let created = admin.post("/api/admin/users", &json!({"email": "ann@example.com"})).await.expect(201);
    let path = created.header("location").to_owned();
    let revision = stdout_of("server", &["new-epoch", "--database-url", &database.url]);
    eventually("the server has loaded the new epoch", async || {
        (admin.get("/readyz").await.json()["revision"] == revision.as_str()).then_some(())
    })
    .await;
    let body = json!({"display_name": "Ann"});
    let stale = admin.send_json(reqwest::Method::PATCH, &path, &[("if-match", created.header("etag"))], &body).await;
    stale.expect_problem(412, "precondition_failed");
    let current = admin.get(&path).await.expect(200);
    admin.send_json(reqwest::Method::PATCH, &path, &[("if-match", current.header("etag"))], &body).await.expect(200);
}

async fn acknowledged_writes_survive_sigkill(kind: DatabaseKind) {
    let database = Database::migrated(kind).await;
    let token = create_admin_token(&database.url);
    let setup = RunningProcess::server(&database.url);
    let admin = setup.caller(&token);
    wait_until_token_is_known(&admin).await;
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
        let server = RunningProcess::server(&database.url);
        // Each writer increments a number in the reason of one override until the server is killed after 50 writes.
        let (write_done, mut writes_done) = tokio::sync::mpsc::channel::<()>(1_000);
        let writers: Vec<_> = users
            .iter()
            .enumerate()
            .map(|(index, user)| {
                let (admin, path, write_done, mut number) =
                    (server.caller(&token), override_path(user, "f"), write_done.clone(), attempted[index]);
                tokio::spawn(async move {
                    let mut last = None;
                    loop {
                        number += 1;
                        let body =
                            json!({"override_value": true, "reason": number.to_string()}).to_string().into_bytes();
                        let json = [("content-type", "application/json")];
                        match admin.try_send(reqwest::Method::PUT, &path, &json, Some(body)).await {
                            Ok(response) if response.status.is_success() => last = Some(number),
                            Ok(response) => panic!("{}", response.text),
                            Err(_) => return (last, number),
                        }
                        let _ = write_done.try_send(());
                    }
                })
            })
            .collect();
        for _ in 0..50 {
            writes_done.recv().await.unwrap();
        }
        server.kill();
        for (index, writer) in writers.into_iter().enumerate() {
            let (last, number) = writer.await.unwrap();
            acknowledged[index] = last.or(acknowledged[index]);
            attempted[index] = number;
        }
    }
    let server = RunningProcess::server(&database.url);
    let admin = server.caller(&token);
    for ((user, acknowledged), attempted) in users.iter().zip(acknowledged).zip(attempted) {
        let stored = admin.get(&override_path(user, "f")).await.expect(200).json();
        let stored: i32 = stored["reason"].as_str().unwrap().parse().unwrap();
        let acknowledged = acknowledged.expect("every writer has an acknowledged write");
        assert!((acknowledged..=attempted).contains(&stored), "acknowledged {acknowledged}, stored {stored}");
    }
    let store = database.store().await;
    let mut conn = store.conn().await.unwrap();
    let mut revisions: Vec<_> = flags_store::change_log::read_after(&mut conn, 0, 1_000_000)
        .await
        .unwrap()
        .1
        .iter()
        .map(|row| row.summary.revision)
        .collect();
    revisions.dedup();
    assert!(revisions.len() > 150);
    assert_eq!(revisions, (1..=revisions.len() as i64).collect::<Vec<_>>(), "revisions are contiguous");
}

async fn sigterm_stops_the_server_with_exit_code_0(kind: DatabaseKind) {
    let database = Database::migrated(kind).await;
    let server = RunningProcess::server(&database.url);
    Caller::new(&server.base_url, None).get("/readyz").await.expect(200);
    assert_eq!(server.stop().code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_stops_a_server_that_is_still_loading() {
    // A database that accepts connections and never responds.
    let unresponsive = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("postgres://unknown@{}/none", unresponsive.local_addr().unwrap());
    let mut server = std::process::Command::new(binary_path("server"));
    let mut server = server.args(["--database-url", &url, "--bind", "127.0.0.1:0"]).spawn().unwrap();
    let _connection = unresponsive.accept().unwrap();
    send_signal("TERM", i32::try_from(server.id()).unwrap());
    assert_eq!(server.wait().unwrap().code(), Some(0), "the server exits without an error");
}

#[tokio::test(flavor = "multi_thread")]
async fn server_runs_with_a_database_role_without_create_privilege() {
    let database = Database::migrated(DatabaseKind::Postgres).await;
    let role = format!("limited_{}", uuid::Uuid::now_v7().simple());
    let sql = format!(
        "CREATE ROLE {role} LOGIN; GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role};
         REVOKE CREATE ON SCHEMA public FROM PUBLIC"
    );
    execute_postgres(&database.url, &sql).await;
    let url = database.url.replace("postgres://postgres@", &format!("postgres://{role}@"));
    let server = RunningProcess::start("server", &["--database-url", &url, "--no-migrate"]);
    assert_eq!(stdout_of("cleanup-worker", &["--once", "--database-url", &url]).split(' ').next(), Some("removed"));
    assert_eq!(server.stop().code(), Some(0));
}
