//! Four workers run at the same time, and one of them is killed every 300 ms. Each due row is processed exactly once.

use std::{
    collections::BTreeMap,
    process::Stdio,
    time::{Duration, Instant},
};

use flags_domain::{FlagName, ScheduledChange};
use flags_store::{
    change_log::{Action, read_after},
    schedules::{self, ScheduleRecord},
};
use flags_tests::{database::DatabaseKind, process::binary_path, seed};
use uuid::Uuid;

use crate::{
    CaseOptions,
    environment::{TestEnvironment, author},
    report::CaseReport,
};

pub(crate) async fn run(case: &str, kind: DatabaseKind, options: CaseOptions, report: &mut CaseReport) {
    let mut env = TestEnvironment::new(case, kind, 1, 50, options.seed).await;
    env.start_servers(1).await;
    let (overrides, changes) = (options.scaled(1_500), options.scaled(500));
    // The rows become due one after the other while the workers run. Otherwise, the first workers would process all
    // rows, and workers that start later would find none.
    let start = env.core.now();
    let step = options.duration.as_micros() as i64 / (overrides + changes) as i64;
    let mut tx = env.core.store().begin(start).await.expect("transaction can begin");
    for number in 0..overrides {
        let user = seed::insert_user(&mut tx, &format!("due{number}@example.com")).await;
        seed::insert_override(&mut tx, user, "flag0", Some(start.plus_micros(step * number as i64))).await;
    }
    for number in 0..changes {
        let change = ScheduledChange {
            id: Uuid::now_v7(),
            scheduled_at: start.plus_micros(options.duration.as_micros() as i64 * number as i64 / changes as i64),
            serve: None,
            enabled: Some(true),
            description: None,
            cancelled_at: None,
        };
        let record = ScheduleRecord {
            change,
            flag_name: FlagName::new(&env.flags[number % env.flags.len()]).expect("flag name is valid"),
            created_by: "system:chaos".to_owned(),
            created_at: start,
            updated_at: start,
            applied_at: None,
            revision: 0,
        };
        assert!(schedules::insert(&mut tx, &record).await.expect("scheduled change can be inserted"));
    }
    tx.commit(&author()).await.expect("transaction can be committed");
    let url = env.database_url.clone();
    let start_worker = || {
        let mut worker = std::process::Command::new(binary_path("cleanup-worker"));
        worker.args(["--interval", "20ms", "--database-url", &url]).stdout(Stdio::null()).stderr(Stdio::null());
        worker.spawn().expect("worker can be started")
    };
    let started_at = Instant::now();
    let mut workers: Vec<_> = (0..4).map(|_| start_worker()).collect();
    let mut killed = 0;
    loop {
        tokio::time::sleep(Duration::from_millis(300)).await;
        // An hour later, all rows are due.
        let all_due_at = start.plus_micros(3_600_000_000);
        let remaining = env.core.read(async |conn| {
            let expired = flags_store::overrides::count_expired(conn, all_due_at).await?;
            Ok(expired + schedules::count_due(conn, all_due_at).await?)
        });
        if remaining.await.expect("rows can be counted") == 0 {
            break;
        }
        assert!(started_at.elapsed() < Duration::from_secs(120), "the workers have not processed all rows in 120 s");
        let mut victim = workers.remove(0);
        victim.kill().expect("worker is running");
        victim.wait().expect("worker can be waited for");
        killed += 1;
        workers.push(start_worker());
    }
    for worker in &mut workers {
        worker.kill().expect("worker is running");
        worker.wait().expect("worker can be waited for");
    }
    let (_, rows) = env.core.read(async |conn| read_after(conn, 0, 1_000_000).await).await.expect("change log is read");
    let mut processed: BTreeMap<(&str, Uuid), usize> = BTreeMap::new();
    for row in rows.iter().filter(|row| [Action::Expired, Action::Applied].contains(&row.summary.action)) {
        let id = row.summary.resource_id.expect("row has a resource id");
        *processed.entry((row.summary.resource_kind.as_str(), id)).or_default() += 1;
    }
    report.info("due rows", overrides + changes);
    report.expect_nonzero("workers killed", killed);
    report.info("seconds", format!("{:.1}", started_at.elapsed().as_secs_f64()));
    report.expect_eq("rows processed", &(overrides + changes), &processed.len());
    report.expect_zero("rows processed twice", processed.values().filter(|count| **count > 1).count());
}
