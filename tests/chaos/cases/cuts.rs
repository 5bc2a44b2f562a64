//! 200 streams run through a proxy that closes random connections.

use std::time::{Duration, Instant};

use flags_tests::{
    database::DatabaseKind,
    proxy::{Proxy, Target},
};
use rand::{SeedableRng as _, rngs::StdRng};

use crate::{
    CaseOptions,
    environment::{TestEnvironment, WriteLoad},
    report::CaseReport,
};

pub(crate) async fn run(case: &str, kind: DatabaseKind, options: CaseOptions, report: &mut CaseReport) {
    let mut env = TestEnvironment::new(case, kind, 40, 8, options.seed).await;
    env.start_servers(1).await;
    let server_address = env.servers[0].base_url.trim_start_matches("http://").parse().expect("address is valid");
    let proxy = Proxy::start(Target::Tcp(server_address)).await;
    let proxy_url = format!("http://{}", proxy.address);
    let mut subscribers = Vec::new();
    for stream in 0..options.scaled(200) {
        subscribers.push(env.subscribe(stream % env.users.len(), &proxy_url).await);
    }
    let load = WriteLoad { writers: 4, duration: options.duration, pause: Duration::from_millis(5) };
    let planned = options.scaled(1_000);
    let mut closed = 0;
    let close_connections = async {
        let mut rng = StdRng::seed_from_u64(options.seed);
        let deadline = Instant::now() + options.duration;
        let pause = options.duration.mul_f64(10.0 / planned as f64);
        while closed < planned || Instant::now() < deadline {
            if closed < planned {
                closed += proxy.close_some(10.min(planned - closed), &mut rng);
            }
            tokio::time::sleep(pause).await;
        }
    };
    let (writes, ()) = tokio::join!(env.run_writers(load), close_connections);
    env.check_convergence(report, &subscribers, 0).await;
    env.check_delivery(report, &writes, &subscribers);
    let (snapshots, others) = subscribers.iter().fold((0, 0), |sum, subscriber| {
        let state = subscriber.state();
        (sum.0 + state.snapshot_resumes, sum.1 + state.incremental_resumes)
    });
    report.expect_eq("connections closed", &planned, &closed);
    // All changes of this case fit into the recent changes buffer, so no stream needs a snapshot to resume.
    report.expect_zero("streams resumed with a snapshot", snapshots);
    let share = snapshots as f64 * 100.0 / (snapshots + others).max(1) as f64;
    report.info("share of resumes with a snapshot", format!("{share:.1} % of {}", snapshots + others));
}
