//! PostgreSQL is paused with SIGSTOP: connections stay open, but the database does not respond.

use flags_tests::{cluster::Cluster, database::DatabaseKind, process::send_signal};

use crate::{CaseOptions, report::CaseReport};

fn signal_all_processes(cluster: &Cluster, signal: &str) {
    // Skips processes that have exited since their ids were listed.
    cluster
        .pids()
        .into_iter()
        .filter(|pid| std::path::Path::new(&format!("/proc/{pid}")).exists())
        .for_each(|pid| send_signal(signal, pid));
}

pub(crate) async fn run(case: &str, kind: DatabaseKind, options: CaseOptions, report: &mut CaseReport) {
    let pause: fn(&mut Cluster) = |cluster| signal_all_processes(cluster, "STOP");
    let resume: fn(&mut Cluster) = |cluster| signal_all_processes(cluster, "CONT");
    super::outage::run(case, kind, options, report, pause, resume).await;
}
