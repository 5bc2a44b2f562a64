//! A server receives SIGTERM with 1,000 open streams and 50 concurrent writers.

use std::time::{Duration, Instant};

use flags_tests::{app::override_path, caller::Caller, database::DatabaseKind};
use reqwest::Method;
use serde_json::json;

use crate::{
    CaseOptions,
    environment::{TestEnvironment, format_seconds},
    report::CaseReport,
};

pub(crate) async fn run(case: &str, kind: DatabaseKind, options: CaseOptions, report: &mut CaseReport) {
    let writers = 50;
    let mut env = TestEnvironment::new(case, kind, writers, 2, options.seed).await;
    env.start_servers(1).await;
    let mut subscribers = Vec::new();
    for stream in 0..options.scaled(1_000) {
        subscribers.push(env.subscribe(stream % env.users.len(), &env.servers[0].base_url).await);
    }
    let server = env.servers.pop().expect("a server is running");
    let (base_url, token) = (server.base_url.clone(), env.admin_token.clone());
    // Created before the timed phase, because creating an HTTP client takes time.
    let admins: Vec<_> = (0..writers).map(|_| Caller::new(&base_url, Some(&token))).collect();
    let stop_at = Instant::now() + Duration::from_millis(500);
    let env_ref = &env;
    // Sets the override of one user until the server stops. Returns the last acknowledged value.
    let run_writer = |writer: usize| {
        let admin = &admins[writer];
        async move {
            let path = override_path(&env_ref.users[writer].id.to_string(), "flag0");
            let mut acknowledged = 0;
            while Instant::now() < stop_at + Duration::from_secs(15) {
                let value = env_ref.unique_value();
                let body = json!({"override_value": value});
                if env_ref.send_change(admin, Method::PUT, &path, Some(body)).await.is_none() {
                    break;
                }
                acknowledged = value;
            }
            acknowledged
        }
    };
    let writing = futures_util::future::join_all((0..writers).map(run_writer));
    let stopping = async {
        tokio::time::sleep_until(stop_at.into()).await;
        let started_at = Instant::now();
        let status = tokio::task::spawn_blocking(move || server.stop()).await.expect("task does not panic");
        (status.code(), started_at.elapsed())
    };
    let (acknowledged, (exit_code, elapsed)) = tokio::join!(writing, stopping);
    env.start_servers(1).await;
    let mut lost = 0;
    for (writer, value) in acknowledged.iter().enumerate() {
        let caller = env.user(writer, &env.servers[0].base_url);
        let result = caller.get("/api/flags/me/flag0").await.json();
        lost += usize::from(result["value"].as_i64().unwrap_or(0) < *value);
    }
    let informed = subscribers.iter().filter(|subscriber| subscriber.state().bye_reasons == ["shutdown"]).count();
    report.expect_eq("exit code", &0, &exit_code.unwrap_or(-1));
    report.info("seconds to exit", format_seconds(elapsed));
    report.expect_eq("streams that received a bye event", &subscribers.len(), &informed);
    report.expect_nonzero("writers with acknowledged changes", acknowledged.iter().filter(|value| **value > 0).count());
    report.expect_zero("acknowledged changes lost", lost);
}
