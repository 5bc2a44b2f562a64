//! Four workers, one of which is killed every 300 ms: each due row is done once.

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
use flags_tests::{database::Kind, process::binary, seed};
use uuid::Uuid;

use crate::{
    Scale,
    scene::{Scene, author},
    verdict::Verdict,
};

pub(crate) async fn run(case: &str, kind: Kind, scale: Scale, verdict: &mut Verdict) {
    let mut scene = Scene::new(case, kind, 1, 50, scale.seed).await;
    scene.serve_directly(1).await;
    let (overrides, changes) = (scale.many(1_500), scale.many(500));
    // They fall due while the workers work, or each would find everything done.
    let (begins, step) = (scene.core.now(), scale.time.as_micros() as i64 / (overrides + changes) as i64);
    let mut tx = scene.core.store().begin(begins).await.expect("a transaction");
    for number in 0..overrides {
        let user = seed::insert_user(&mut tx, &format!("due{number}@example.com")).await;
        seed::insert_override(&mut tx, user, "flag0", Some(begins.plus_micros(step * number as i64))).await;
    }
    for number in 0..changes {
        let change = ScheduledChange {
            id: Uuid::now_v7(),
            scheduled_at: begins.plus_micros(scale.time.as_micros() as i64 * number as i64 / changes as i64),
            serve: None,
            enabled: Some(true),
            description: None,
            cancelled_at: None,
        };
        let record = ScheduleRecord {
            change,
            flag_name: FlagName::new(&scene.flags[number % scene.flags.len()]).expect("a name"),
            created_by: "system:chaos".to_owned(),
            created_at: begins,
            updated_at: begins,
            applied_at: None,
            revision: 0,
        };
        assert!(schedules::insert(&mut tx, &record).await.expect("inserted"));
    }
    tx.commit(&author()).await.expect("committed");
    let url = scene.url.clone();
    let start = || {
        let mut worker = std::process::Command::new(binary("cleanup-worker"));
        worker.args(["--interval", "20ms", "--database-url", &url]).stdout(Stdio::null()).stderr(Stdio::null());
        worker.spawn().expect("a worker")
    };
    let begun = Instant::now();
    let mut workers: Vec<_> = (0..4).map(|_| start()).collect();
    let mut killed = 0;
    loop {
        tokio::time::sleep(Duration::from_millis(300)).await;
        // All that will ever be due.
        let now = begins.plus_micros(3_600_000_000);
        let left = scene.core.read(async |conn| {
            Ok(flags_store::overrides::count_expired(conn, now).await? + schedules::count_due(conn, now).await?)
        });
        if left.await.expect("a count") == 0 {
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(120), "the workers do not come to an end");
        let mut victim = workers.remove(0);
        victim.kill().expect("it runs");
        victim.wait().expect("it ends");
        killed += 1;
        workers.push(start());
    }
    for worker in &mut workers {
        worker.kill().expect("it runs");
        worker.wait().expect("it ends");
    }
    let rows = scene.core.read(async |conn| Ok(read_after(conn, 0, 1_000_000).await?.1)).await.expect("the log");
    let mut done: BTreeMap<(&str, Uuid), usize> = BTreeMap::new();
    for row in rows.iter().filter(|row| [Action::Expired, Action::Applied].contains(&row.summary.action)) {
        *done.entry((row.summary.resource_kind.as_str(), row.summary.resource_id.expect("an id"))).or_default() += 1;
    }
    verdict.tell("due rows", overrides + changes);
    verdict.some("workers killed", killed);
    verdict.tell("seconds", format!("{:.1}", begun.elapsed().as_secs_f64()));
    verdict.must_be("done", &(overrides + changes), &done.len());
    verdict.never("done twice", done.values().filter(|count| **count > 1).count());
}
