//! PostgreSQL stopped.

use flags_tests::{cluster::Cluster, database::Kind};

use crate::{Scale, verdict::Verdict};

pub(crate) async fn run(case: &str, kind: Kind, scale: Scale, verdict: &mut Verdict) {
    super::outage::run(case, kind, scale, verdict, Cluster::shut_down, |cluster| cluster.launch(&[])).await;
}
