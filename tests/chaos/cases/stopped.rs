//! PostgreSQL is stopped and started again.

use flags_tests::{cluster::Cluster, database::DatabaseKind};

use crate::{CaseOptions, report::CaseReport};

pub(crate) async fn run(case: &str, kind: DatabaseKind, options: CaseOptions, report: &mut CaseReport) {
    super::outage::run(case, kind, options, report, Cluster::shut_down, |cluster| cluster.launch(&[])).await;
}
