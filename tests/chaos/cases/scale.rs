//! A million overrides or more: load time, memory, and request time compared with a server that has ten overrides.

use std::time::Instant;

use flags_tests::{
    caller::Caller,
    database::{DatabaseKind, execute_postgres},
    process::RunningProcess,
};

use crate::{CaseOptions, environment::TestEnvironment, report::CaseReport};

/// Number of timed requests per server.
const REQUESTS: usize = 2_000;

pub(crate) async fn run(case: &str, kind: DatabaseKind, options: CaseOptions, report: &mut CaseReport) {
    let mut env = TestEnvironment::new(case, kind, 1, 20, options.seed).await;
    env.start_servers(1).await;
    for flag in 0..10 {
        env.set_override(&env.admin(0), 0, &format!("flag{flag}")).await.expect("change is acknowledged");
    }
    // The rows inserted below are not in the change log, so this server keeps its ten overrides.
    let small_server = env.servers.remove(0);
    let small_kib = small_server.resident_kib();
    let (overrides, users) = (options.overrides, options.overrides / 2);
    let started_at = Instant::now();
    let insert = format!(
        "SET synchronous_commit = off;
         INSERT INTO users (id, handle, handle_key, role, attributes, active, search_text, created_at, updated_at)
         SELECT md5('u' || n)::uuid, 'u' || n || '@many.example.com', 'u' || n || '@many.example.com', 'user', '{{}}',
                true, 'u' || n, now(), now() FROM generate_series(1, {users}) AS n;
         INSERT INTO user_flag_overrides (user_id, flag_name, override_value, reason, created_by, expires_at)
         SELECT md5('u' || n)::uuid, 'flag' || (n + k) % 20, to_jsonb((n + k) % 100), 'reason ' || n % 1000,
                'system:scale', CASE WHEN k = 0 THEN now() + interval '1 day' + n * interval '1 ms' END
         FROM generate_series(1, {users}) AS n, generate_series(0, 1) AS k;
         ANALYZE"
    );
    execute_postgres(&env.database_url, &insert).await;
    report.info("overrides", overrides);
    report.info("users with overrides", users);
    report.info("seconds to insert them", format!("{:.0}", started_at.elapsed().as_secs_f64()));
    let url = env.database_url.clone();
    let started_at = Instant::now();
    let server = tokio::task::spawn_blocking(move || RunningProcess::server(&url)).await.expect("task does not panic");
    report.info("seconds to start a server", format!("{:.1}", started_at.elapsed().as_secs_f64()));
    // The server sets this metric some time after its start.
    let admin = server.caller(&env.admin_token);
    flags_tests::eventually("the metric counts all overrides", async || {
        let metrics = admin.get("/metrics").await.text;
        let counts = metrics.lines().filter(|line| line.starts_with("voiceassist_user_flag_overrides_active{"));
        let sum: f64 = counts.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum();
        (sum as usize == overrides + 10).then_some(())
    })
    .await;
    let kib = server.resident_kib();
    report.info("resident MiB: ten overrides, all overrides", format!("{}, {}", small_kib / 1024, kib / 1024));
    let bytes_per_override = (kib - small_kib) as f64 * 1024.0 / overrides as f64;
    report.info("resident bytes per override", format!("{bytes_per_override:.0}"));
    report.expect_eq("ten million overrides fit into 1 GiB", &true, &(bytes_per_override * 1e7 <= 1_073_741_824.0));
    let [small_micros, large_micros] = measure_own_flags(&env, [&small_server, &server]).await;
    let medians = format!("{small_micros:.0}, {large_micros:.0}");
    report.info("median us of /api/flags/me: ten overrides, all", medians);
    report.info("ratio", format!("{:.2}", large_micros / small_micros));
    list_redundant_overrides(&admin, report).await;
    env.servers.push(server);
    let write = env.set_override(&env.admin(0), 0, "flag0").await;
    report.expect_nonzero("changes acknowledged with all overrides", usize::from(write.is_some()));
}

/// Reads all pages of the list of redundant overrides and reports their number and the response times.
async fn list_redundant_overrides(admin: &Caller, report: &mut CaseReport) {
    let list_path = "/api/admin/flag-overrides?finding=override_redundant&limit=200";
    let (mut found, mut millis, mut path) = (0, Vec::new(), list_path.to_owned());
    loop {
        let started_at = Instant::now();
        let page = admin.get(&path).await.expect(200).json();
        millis.push(started_at.elapsed().as_secs_f64() * 1e3);
        found += page["items"].as_array().map_or(0, Vec::len);
        let Some(cursor) = page["next_cursor"].as_str() else { break };
        path = format!("{list_path}&cursor={cursor}");
    }
    let sum: f64 = millis.iter().sum();
    millis.sort_by(f64::total_cmp);
    report.expect_nonzero("redundant overrides found", found);
    let (median, max) = (millis[millis.len() / 2], millis[millis.len() - 1]);
    let text = format!("{} pages in {sum:.0} ms, median {median:.1}, max {max:.1}", millis.len());
    report.info("time to find them", text);
}

/// Returns the median time of `/api/flags/me` for a user with ten overrides at each server, in microseconds. Requests
/// alternate between the servers.
async fn measure_own_flags(env: &TestEnvironment, servers: [&RunningProcess; 2]) -> [f64; 2] {
    let callers = servers.map(|server| env.user(0, &server.base_url));
    let mut micros = [Vec::with_capacity(REQUESTS), Vec::with_capacity(REQUESTS)];
    for _ in 0..REQUESTS {
        for (caller, micros) in callers.iter().zip(&mut micros) {
            let started_at = Instant::now();
            caller.get("/api/flags/me").await.expect(200);
            micros.push(started_at.elapsed().as_secs_f64() * 1e6);
        }
    }
    micros.map(|mut micros| {
        micros.sort_by(f64::total_cmp);
        micros[REQUESTS / 2]
    })
}
