//! PostgreSQL becomes unavailable. Reads and streams continue, writes fail with 503 and `Retry-After`, and the servers
//! recover afterwards.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use flags_tests::{app::override_path, cluster::Cluster, database::DatabaseKind};
use serde_json::json;

use crate::{
    CaseOptions,
    environment::{TestEnvironment, format_seconds},
    report::CaseReport,
};

/// Runs the case. `make_unavailable` starts the outage, and `make_available` ends it.
pub(super) async fn run(
    case: &str,
    kind: DatabaseKind,
    options: CaseOptions,
    report: &mut CaseReport,
    make_unavailable: fn(&mut Cluster),
    make_available: fn(&mut Cluster),
) {
    let mut env = TestEnvironment::new(case, kind, 20, 6, options.seed).await;
    env.start_servers(2).await;
    let mut subscribers = Vec::new();
    for stream in 0..options.scaled(200) {
        subscribers.push(env.subscribe(stream % env.users.len(), &env.servers[stream % 2].base_url).await);
    }
    env.set_override(&env.admin(0), 0, "flag0").await.expect("change is acknowledged");
    let mut cluster = env.cluster.take().expect("the case runs on PostgreSQL");
    let apply = async |mut cluster: Cluster, change: fn(&mut Cluster)| {
        let task = tokio::task::spawn_blocking(move || {
            change(&mut cluster);
            cluster
        });
        task.await.expect("task does not panic")
    };
    cluster = apply(cluster, make_unavailable).await;
    let outage_started_at = Instant::now();
    let is_unavailable = AtomicBool::new(true);
    let (mut reads, mut failed_reads, mut stale_reads) = (0, 0, 0);
    let (mut writes, mut wrong_writes) = (0, 0);
    let read = async {
        while is_unavailable.load(Ordering::Relaxed) {
            let user = reads % env.users.len();
            let response = env.user(user, &env.servers[reads % 2].base_url).get("/api/flags/me").await;
            reads += 1;
            failed_reads += usize::from(response.status != 200);
            stale_reads += usize::from(response.json()["stale"] == true);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let write = async {
        let path = override_path(&env.users[0].id.to_string(), "flag1");
        while is_unavailable.load(Ordering::Relaxed) {
            let response = env.admin(0).put(&path, &json!({"override_value": env.unique_value()})).await;
            writes += 1;
            wrong_writes += usize::from(response.status != 503 || response.header("retry-after").is_empty());
        }
    };
    let end_outage = async {
        tokio::time::sleep(options.duration.saturating_sub(outage_started_at.elapsed())).await;
        is_unavailable.store(false, Ordering::Relaxed);
    };
    tokio::join!(read, write, end_outage);
    env.cluster = Some(apply(cluster, make_available).await);
    let available_at = Instant::now();
    env.write_marker(0).await;
    report.info("seconds to the first successful write", format_seconds(available_at.elapsed()));
    report.expect_nonzero("reads during the outage", reads);
    report.expect_zero("reads that failed", failed_reads);
    report.expect_nonzero("reads marked as stale", stale_reads);
    report.expect_nonzero("writes during the outage", writes);
    report.expect_zero("writes without status 503 and Retry-After", wrong_writes);
    let reconnects = subscribers.iter().map(|subscriber| subscriber.state().connections - 1).sum();
    report.expect_zero("streams dropped", reconnects);
    env.check_convergence(report, &subscribers, 0).await;
}
