//! A newer server runs beside the current one on one database. It writes flags with an operator and a field that the
//! current server does not know.
//!
//! Builds the newer server with the feature `future-format`, or takes its path from `FLAGS_NEWER_SERVER`.

use std::{path::PathBuf, process::Command, time::Instant};

use flags_store::WRITER_VERSION;
use flags_tests::{
    database::{DatabaseKind, execute_raw},
    process::{RunningProcess, run as run_process},
};
use serde_json::{Value, json};

use crate::{CaseOptions, environment::TestEnvironment, report::CaseReport};

/// Returns the path of a server that knows the format of a later version.
fn newer_server() -> PathBuf {
    if let Some(path) = std::env::var_os("FLAGS_NEWER_SERVER") {
        return path.into();
    }
    let root = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    let target = root.join("target/upgrade");
    let mut build = Command::new(env!("CARGO"));
    build.args(["build", "--release", "--bin", "server", "--features", "server/future-format", "--target-dir"]);
    let status = build.arg(&target).current_dir(&root).status().expect("cargo can be started");
    assert!(status.success(), "the newer server cannot be built");
    target.join("release/server")
}

pub(crate) async fn run(case: &str, kind: DatabaseKind, options: CaseOptions, report: &mut CaseReport) {
    let binary = newer_server();
    let mut env = TestEnvironment::new(case, kind, 2, 2, options.seed).await;
    env.start_servers(1).await;
    let newer = RunningProcess::server_at(&binary, &env.database_url);
    let (old_admin, newer_admin) = (env.admin(0), newer.caller(&env.admin_token));
    let flag = "/api/admin/feature-flags/newer";
    let rules = |rule: Value| json!({"targeting_rules": [rule]});
    let with_operator = rules(json!({"id": "r", "serve": {"variant": "on"},
        "conditions": [{"attribute": "email", "operator": "resembles", "values": ["user"]}]}));
    let with_field = rules(json!({"id": "r", "serve": {"variant": "on"}, "conditions": [], "note": "n"}));
    let plain = rules(json!({"id": "r", "serve": {"variant": "on"}, "conditions": []}));
    newer_admin.post("/api/admin/feature-flags", &json!({"name": "newer", "flag_type": "boolean"})).await.expect(201);
    let (mut rounds, mut wrong_on_newer, mut served_by_old, mut changed_by_old, mut delayed, mut not_restored) =
        (0, 0, 0, 0, 0, 0);
    let deadline = Instant::now() + options.duration;
    while Instant::now() < deadline {
        for definition in [&with_operator, &with_field] {
            newer_admin.patch(flag, definition).await.expect(200);
            let on_newer = env.user(0, &newer.base_url).get("/api/flags/me").await.json();
            wrong_on_newer += usize::from(on_newer["flags"]["newer"]["value"] != true);
            // The old server still applies changes of other flags, but neither serves nor changes the flag `newer`.
            let number = env.unique_value();
            let other = json!({"variants": [{"id": "v", "value": number}]});
            old_admin.patch("/api/admin/feature-flags/flag0", &other).await.expect(200);
            let on_old = env.user(0, &env.servers[0].base_url).get("/api/flags/me").await.json();
            served_by_old += usize::from(on_old["flags"].get("newer").is_some());
            delayed += usize::from(on_old["flags"]["flag0"]["value"] != number || on_old["stale"] != false);
            let change = old_admin.patch(flag, &json!({"enabled": false})).await;
            changed_by_old += usize::from(change.status != 409 || change.json()["code"] != "flag_unreadable");
        }
        newer_admin.patch(flag, &plain).await.expect(200);
        // The old server executes a change only after it has applied the previous change of the newer server.
        old_admin
            .patch("/api/admin/feature-flags/flag1", &json!({"description": rounds.to_string()}))
            .await
            .expect(200);
        let on_old = env.user(0, &env.servers[0].base_url).get("/api/flags/me").await.json();
        not_restored += usize::from(on_old["flags"]["newer"]["value"] != true);
        rounds += 1;
    }
    report.expect_nonzero("rounds", rounds);
    report.expect_zero("wrong values on the newer server", wrong_on_newer);
    report.expect_zero("values of unreadable flags on the old server", served_by_old);
    report.expect_zero("changes of unreadable flags by the old server", changed_by_old);
    report.expect_zero("other changes that the old server did not apply", delayed);
    report.expect_zero("readable definitions that the old server did not serve", not_restored);
    // The old server can archive a flag that it cannot read, and the newer server can restore the flag.
    newer_admin.patch(flag, &with_operator).await.expect(200);
    old_admin.patch("/api/admin/feature-flags/flag1", &json!({"description": "last"})).await.expect(200);
    old_admin.post(&format!("{flag}/archive"), &json!({})).await.expect(200);
    let restored = newer_admin.post(&format!("{flag}/restore"), &json!({})).await.expect(200).json();
    let operator = restored["targeting_rules"][0]["conditions"][0]["operator"].clone();
    report.expect_eq("operator after archiving on the old server", &json!("resembles"), &operator);
    // A migration of the newer version can exclude servers that write in the old format.
    let newer = format!("UPDATE log_head SET min_writer = {}", WRITER_VERSION + 1);
    execute_raw(&env.database_url, &newer).await;
    let change = old_admin.patch("/api/admin/feature-flags/flag0", &json!({"enabled": false})).await;
    report.expect_eq("code of a change by an old writer", &json!("server_outdated"), &change.json()["code"]);
    let arguments = ["run", "--bind", "127.0.0.1:0", "--database-url", &env.database_url];
    let start = run_process("server", &arguments);
    report.expect_eq("old writer starts", &false, &start.status.success());
    let current = format!("UPDATE log_head SET min_writer = {WRITER_VERSION}");
    execute_raw(&env.database_url, &current).await;
}
