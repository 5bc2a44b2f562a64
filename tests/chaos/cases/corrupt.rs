//! Rows are corrupted at random under load. Healthy flags and credentials keep working on all servers, even on servers
//! that start after the corruption. No server crashes.

use std::time::{Duration, Instant};

use flags_tests::{
    database::{DatabaseKind, execute_raw},
    process::{RunningProcess, run as run_process},
};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};
use serde_json::json;

use crate::{CaseOptions, environment::TestEnvironment, report::CaseReport};

/// Number of flags, and of tokens, that may be corrupted.
const VICTIMS: usize = 20;

pub(crate) async fn run(case: &str, kind: DatabaseKind, options: CaseOptions, report: &mut CaseReport) {
    let mut env = TestEnvironment::new(case, kind, 5, 3, options.seed).await;
    env.start_servers(2).await;
    let admin = env.admin(0);
    for number in 0..VICTIMS {
        let flag = json!({"name": format!("victim{number}"), "flag_type": "boolean"});
        admin.post("/api/admin/feature-flags", &flag).await.expect(201);
        let change = json!({"scheduled_at": "2099-01-01T00:00:00Z", "enabled": false});
        let path = format!("/api/admin/feature-flags/victim{number}/scheduled-changes");
        admin.post(&path, &change).await.expect(201);
        admin.post("/api/admin/api-tokens", &json!({"name": "victim", "role": "viewer"})).await.expect(201);
    }
    let mut rng = StdRng::seed_from_u64(options.seed);
    let deadline = Instant::now() + options.duration;
    let (mut starts, mut corruptions) = (0, 0);
    let (mut failed_changes, mut wrong_values, mut failed_requests, mut failed_starts) = (0, 0, 0, 0);
    while Instant::now() < deadline {
        execute_raw(&env.database_url, &corruption(&mut rng)).await;
        corruptions += 1;
        if corruptions % 5 == 1 {
            // A new epoch makes the running servers reload their replicas. Then another server and a worker start.
            env.core.store().start_new_epoch().await.expect("a new epoch can be started");
            let started = RunningProcess::server(&env.database_url);
            let response = env.user(0, &started.base_url).get("/api/flags/me").await;
            failed_starts += usize::from(response.status != 200);
            let round = run_process("cleanup-worker", &["--once", "--database-url", &env.database_url]);
            failed_starts += usize::from(!round.status.success());
            starts += 1;
        }
        let flag = env.flags.choose(&mut rng).expect("flags exist").clone();
        let server = rng.random_range(0..2);
        match env.set_flag_default(&env.admin(server), &flag).await {
            None => failed_changes += 1,
            Some(_) => {
                let own_flags = env.user(0, &env.servers[server].base_url).get("/api/flags/me").await;
                let stored = env.admin(server).get(&format!("/api/admin/feature-flags/{flag}")).await.json();
                let is_current = own_flags.json()["flags"][&flag]["value"] == stored["variants"][0]["value"];
                wrong_values += usize::from(!is_current);
            }
        }
        for path in ["feature-flags", "api-tokens", "scheduled-changes", "users", "audit-log"] {
            let response = env.admin(server).get(&format!("/api/admin/{path}?limit=100")).await;
            failed_requests += usize::from(response.status != 200);
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    report.expect_nonzero("corruptions", corruptions);
    report.expect_nonzero("servers and workers started meanwhile", starts);
    report.expect_zero("rejected changes of healthy flags", failed_changes);
    report.expect_zero("healthy flags with another value than stored", wrong_values);
    report.expect_zero("lists that were not returned", failed_requests);
    report.expect_zero("servers and workers that did not start", failed_starts);
    let unreadable = env.admin(0).get("/api/admin/feature-flags?limit=100").await.json();
    let items = unreadable["items"]
        .as_array()
        .map_or(0, |items| items.iter().filter(|item| item.get("unreadable").is_some()).count());
    report.expect_nonzero("flags listed as unreadable", items);
}

/// Returns a statement that makes one row of a victim unreadable.
fn corruption(rng: &mut StdRng) -> String {
    let number = rng.random_range(0..VICTIMS);
    let json = ["7", "[7]", "{\"future\": 1}", "\"text\""].choose(rng).expect("not empty");
    let flag_column = ["variants", "default_serve", "targeting_rules"].choose(rng).expect("not empty");
    match rng.random_range(0..4) {
        0 => format!("UPDATE scheduled_changes SET serve = '{json}' WHERE flag_name = 'victim{number}'"),
        1 => format!(
            "UPDATE api_tokens SET role = 'unknown' WHERE id = (SELECT id FROM api_tokens WHERE name = 'victim' \
             ORDER BY id LIMIT 1 OFFSET {number})"
        ),
        _ => format!("UPDATE feature_flags SET {flag_column} = '{json}' WHERE name = 'victim{number}'"),
    }
}
