//! PostgreSQL paused: connections stay open and nothing comes.

use flags_tests::{cluster::Cluster, database::Kind, process::signal};

use crate::{Scale, verdict::Verdict};

fn send_all(cluster: &Cluster, name: &str) {
    // A process that has ended meanwhile needs no signal.
    cluster
        .pids()
        .into_iter()
        .filter(|pid| std::path::Path::new(&format!("/proc/{pid}")).exists())
        .for_each(|pid| signal(name, pid));
}

pub(crate) async fn run(case: &str, kind: Kind, scale: Scale, verdict: &mut Verdict) {
    super::outage::run(case, kind, scale, verdict, |c| send_all(c, "STOP"), |c| send_all(c, "CONT")).await;
}
