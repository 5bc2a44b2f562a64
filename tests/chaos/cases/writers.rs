//! 16 writers change overrides and flags on three servers. Each stream delivers each change that affects its user once,
//! in order and with little delay.

use std::time::Duration;

use flags_tests::database::{DatabaseKind, query_postgres};

use crate::{
    CaseOptions,
    environment::{TestEnvironment, WriteLoad},
    report::CaseReport,
};

pub(crate) async fn run(case: &str, kind: DatabaseKind, options: CaseOptions, report: &mut CaseReport) {
    let mut env = TestEnvironment::new(case, kind, 24, 12, options.seed).await;
    env.start_servers(3).await;
    let mut subscribers = Vec::new();
    for user in 0..env.users.len() {
        subscribers.push(env.subscribe(user, &env.servers[user % 3].base_url).await);
    }
    let load = WriteLoad { writers: 16, duration: options.duration, pause: Duration::ZERO };
    let writes = env.run_writers(load).await;
    env.check_change_log(report).await;
    env.check_convergence(report, &subscribers, 0).await;
    env.check_delivery(report, &writes, &subscribers);
    report.info("acknowledged changes per second", writes.len() as u64 / options.duration.as_secs().max(1));
    if kind == DatabaseKind::Postgres {
        let rows = query_postgres(&env.database_url, "SELECT count(*) FROM change_log").await;
        report.info("rows in the change log", rows[0].clone().unwrap_or_default());
    }
}
