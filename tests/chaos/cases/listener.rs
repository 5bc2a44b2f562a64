//! The connection that receives PostgreSQL notifications is closed repeatedly; then all notifications are dropped.
//! Streams still deliver all changes of another server, with a delay.

use std::time::Duration;

use flags_tests::{database::DatabaseKind, proxy::Fault};

use crate::{
    CaseOptions,
    environment::{TestEnvironment, WriteLoad, wait_until},
    report::CaseReport,
};

pub(crate) async fn run(case: &str, kind: DatabaseKind, options: CaseOptions, report: &mut CaseReport) {
    let mut env = TestEnvironment::new(case, kind, 10, 6, options.seed).await;
    env.start_servers(1).await;
    let proxy = env.start_server_behind_proxy().await;
    let mut subscribers = Vec::new();
    for user in 0..env.users.len() {
        subscribers.push(env.subscribe(user, &env.servers[1].base_url).await);
    }
    // Subscribers connect to the server behind the proxy. All writes go to the other server.
    let server_behind_proxy = env.servers.pop().expect("two servers are running");
    let load = WriteLoad { writers: 4, duration: options.duration / 2, pause: Duration::from_millis(20) };
    let rounds = options.scaled(50);
    let mut closed = 0;
    let close_connections = async {
        for _ in 0..rounds {
            tokio::time::sleep(options.duration / 2 / u32::try_from(rounds).expect("number of rounds fits into u32"))
                .await;
            // The server reconnects and listens again after a short delay.
            wait_until("a connection listens for notifications", || proxy.listening_connection_count() > 0).await;
            closed += proxy.close_listening();
        }
    };
    let (writes, ()) = tokio::join!(env.run_writers(load), close_connections);
    report.expect_eq("listening connections closed", &rounds, &closed);
    env.check_convergence(report, &subscribers, 0).await;
    env.check_delivery(report, &writes, &subscribers);
    proxy.set_fault(Fault::DropNotifications);
    let writes_without_notifications = env.run_writers(load).await;
    proxy.set_fault(Fault::Pass);
    env.check_convergence(report, &subscribers, 0).await;
    report.info("with all notifications dropped:", "");
    env.check_delivery(report, &writes_without_notifications, &subscribers);
    env.servers.push(server_behind_proxy);
}
