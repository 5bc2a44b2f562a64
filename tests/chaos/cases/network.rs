//! Faults of the network between server and database: delays, low bandwidth, half-closed connections, lost packets.

use std::time::{Duration, Instant};

use flags_tests::{database::DatabaseKind, proxy::Fault};

use crate::{
    CaseOptions,
    environment::{TestEnvironment, WriteLoad, format_seconds},
    report::CaseReport,
};

pub(crate) async fn run(case: &str, kind: DatabaseKind, options: CaseOptions, report: &mut CaseReport) {
    let mut env = TestEnvironment::new(case, kind, 10, 6, options.seed).await;
    let proxy = env.start_server_behind_proxy().await;
    let mut subscribers = Vec::new();
    for user in 0..env.users.len() {
        subscribers.push(env.subscribe(user, &env.servers[0].base_url).await);
    }
    let load = WriteLoad { writers: 4, duration: options.duration / 5, pause: Duration::from_millis(20) };
    let mut writes = Vec::new();
    for fault in [Fault::Delay(Duration::from_millis(20)), Fault::Throttle(200_000), Fault::Pass, Fault::BlackHole] {
        proxy.set_fault(fault);
        writes.extend(env.run_writers(load).await);
        proxy.set_fault(Fault::Pass);
    }
    let half_closed = proxy.half_close_all();
    report.expect_nonzero("connections half-closed", half_closed);
    writes.extend(env.run_writers(load).await);
    proxy.close_all();
    let started_at = Instant::now();
    env.write_marker(0).await;
    report.info("seconds to the first successful write", format_seconds(started_at.elapsed()));
    env.check_convergence(report, &subscribers, 0).await;
    env.check_delivery(report, &writes, &subscribers);
    env.check_change_log(report).await;
}
