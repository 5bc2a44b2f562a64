//! PostgreSQL is repeatedly killed with SIGKILL under 20 writers. Acknowledged changes survive, and no other values
//! appear.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use flags_tests::{
    app::override_path,
    database::{DatabaseKind, query_postgres},
};
use reqwest::Method;
use serde_json::json;

use crate::{
    CaseOptions,
    environment::{TestEnvironment, format_seconds},
    report::CaseReport,
};

const WRITERS: usize = 20;

pub(crate) async fn run(case: &str, kind: DatabaseKind, options: CaseOptions, report: &mut CaseReport) {
    let mut env = TestEnvironment::new(case, kind, WRITERS, 1, options.seed).await;
    env.start_servers(1).await;
    let rounds = if options.short { 2 } else { 10 };
    let (mut acknowledged, mut lost, mut unexpected) = (0_usize, 0, 0);
    let (mut registered, mut refused) = (0, 0);
    for _ in 0..rounds {
        let mut cluster = env.cluster.take().expect("the case runs on PostgreSQL");
        let deadline = Instant::now() + Duration::from_millis(1_500);
        let env_ref = &env;
        // Each writer sets its own override. Returns the last value sent, the last value acknowledged, and the number
        // of acknowledged changes.
        let run_writer = |writer: usize| async move {
            let admin = env_ref.admin(0);
            let path = override_path(&env_ref.users[writer].id.to_string(), "flag0");
            let (mut last_sent, mut last_acknowledged, mut count) = (0, 0, 0);
            while Instant::now() < deadline {
                last_sent = env_ref.unique_value();
                let body = json!({"override_value": last_sent});
                if env_ref.send_change(&admin, Method::PUT, &path, Some(body)).await.is_some() {
                    (last_acknowledged, count) = (last_sent, count + 1);
                }
            }
            (last_sent, last_acknowledged, count)
        };
        let writers = futures_util::future::join_all((0..WRITERS).map(run_writer));
        // Creates users with idempotency keys and retries each request until the server acknowledges it.
        let register_users = async {
            let admin = env_ref.admin(0);
            while Instant::now() < deadline {
                let number = env_ref.unique_value();
                let body = json!({"email": format!("registered{number}@example.com")});
                let key = format!("key{number}");
                let headers = [("Idempotency-Key", key.as_str()), ("content-type", "application/json")];
                loop {
                    let bytes = Some(body.to_string().into_bytes());
                    match admin.try_send(Method::POST, "/api/admin/users", &headers, bytes).await {
                        Ok(response) if response.status == 201 => break registered += 1,
                        Ok(response) if matches!(response.status.as_u16(), 429 | 503) => {}
                        Ok(_) => break refused += 1,
                        Err(_) => {}
                    }
                }
            }
        };
        let kill_postgres = async {
            tokio::time::sleep(Duration::from_millis(700)).await;
            tokio::task::spawn_blocking(move || {
                cluster.kill();
                cluster.launch(&[]);
                cluster
            })
            .await
            .expect("task does not panic")
        };
        let (outcomes, (), cluster) = tokio::join!(writers, register_users, kill_postgres);
        env.cluster = Some(cluster);
        let sql = "SELECT user_id || ' ' || override_value FROM user_flag_overrides";
        let rows = query_postgres(&env.database_url, sql).await;
        let stored_values: BTreeMap<_, _> = rows
            .into_iter()
            .flatten()
            .filter_map(|row| {
                row.split_once(' ').and_then(|(user, value)| Some((user.to_owned(), value.parse::<i64>().ok()?)))
            })
            .collect();
        for (writer, (last_sent, last_acknowledged, count)) in outcomes.into_iter().enumerate() {
            acknowledged += count;
            let stored = stored_values.get(&env.users[writer].id.to_string()).copied().unwrap_or(0);
            lost += usize::from(stored < last_acknowledged);
            unexpected += usize::from(stored > last_sent);
        }
    }
    env.check_change_log(report).await;
    let sql = "SELECT count(*) FROM users WHERE handle LIKE 'registered%'";
    let rows = query_postgres(&env.database_url, sql).await;
    report.info("rounds", rounds);
    report.expect_nonzero("users created with an idempotency key", registered);
    report.expect_eq("rows of these users", &registered.to_string(), &rows[0].clone().unwrap_or_default());
    report.expect_zero("retries refused", refused);
    report.expect_nonzero("acknowledged changes", acknowledged);
    report.expect_zero("acknowledged changes lost", lost);
    report.expect_zero("stored values that were never sent", unexpected);
    let started_at = Instant::now();
    env.write_marker(0).await;
    report.info("seconds to the first successful write", format_seconds(started_at.elapsed()));
}
