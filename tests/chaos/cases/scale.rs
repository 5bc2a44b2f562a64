//! Very many overrides: how long they take to load, what they take of memory, and what a request costs beside them.

use std::time::Instant;

use flags_tests::{
    caller::Caller,
    database::{Kind, execute_postgres},
    process::RunningProcess,
};

use crate::{Scale, scene::Scene, verdict::Verdict};

/// Requests that are timed.
const REQUESTS: usize = 2_000;

pub(crate) async fn run(case: &str, kind: Kind, scale: Scale, verdict: &mut Verdict) {
    let mut scene = Scene::new(case, kind, 1, 20, scale.seed).await;
    scene.serve_directly(1).await;
    for flag in 0..10 {
        scene.set(&scene.admin(0), 0, &format!("flag{flag}")).await.expect("a change");
    }
    // What is put into the tables below is not in the log: this server goes on with ten.
    let small = scene.servers.remove(0);
    let small_kib = small.resident_kib();
    let (overrides, users) = (scale.overrides, scale.overrides / 2);
    let begun = Instant::now();
    let seed = format!(
        "SET synchronous_commit = off;
         INSERT INTO users (id, email, email_key, role, attributes, active, search_text, created_at, updated_at)
         SELECT md5('u' || n)::uuid, 'u' || n || '@many.example.com', 'u' || n || '@many.example.com', 'user', '{{}}', true,
                'u' || n, now(), now() FROM generate_series(1, {users}) AS n;
         INSERT INTO user_flag_overrides (user_id, flag_name, override_value, reason, created_by, expires_at)
         SELECT md5('u' || n)::uuid, 'flag' || (n + k) % 20, to_jsonb((n + k) % 100), 'reason ' || n % 1000, 'system:scale',
                CASE WHEN k = 0 THEN now() + interval '1 day' + n * interval '1 ms' END
         FROM generate_series(1, {users}) AS n, generate_series(0, 1) AS k;
         ANALYZE"
    );
    execute_postgres(&scene.url, &seed).await;
    verdict.tell("overrides", overrides);
    verdict.tell("of users", users);
    verdict.tell("seconds to put them in", format!("{:.0}", begun.elapsed().as_secs_f64()));
    let url = scene.url.clone();
    let begun = Instant::now();
    let server = tokio::task::spawn_blocking(move || RunningProcess::server(&url)).await.expect("no panic");
    verdict.tell("seconds to start with them", format!("{:.1}", begun.elapsed().as_secs_f64()));
    // The first tick counts what is active.
    let admin = server.caller(&scene.admin_token);
    flags_tests::eventually("the gauge counts them all", async || {
        let metrics = admin.get("/metrics").await.text;
        let counts = metrics.lines().filter(|line| line.starts_with("voiceassist_user_flag_overrides_active{"));
        let sum: f64 = counts.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum();
        (sum as usize == overrides + 10).then_some(())
    })
    .await;
    let kib = server.resident_kib();
    verdict.tell("resident MiB, with few and with all", format!("{} and {}", small_kib / 1024, kib / 1024));
    let each = (kib - small_kib) as f64 * 1024.0 / overrides as f64;
    verdict.tell("bytes an override, everything included", format!("{each:.0}"));
    verdict.must_be("ten million would fit into 1 GiB", &true, &(each * 1e7 <= 1_073_741_824.0));
    let [few, many] = measure(&scene, [&small, &server]).await;
    verdict.tell("/api/flags/me, median us, beside 10 and beside all", format!("{few:.0} and {many:.0}"));
    verdict.tell("ratio", format!("{:.2}", many / few));
    look_for_findings(&admin, verdict).await;
    scene.servers.push(server);
    let write = scene.set(&scene.admin(0), 0, "flag0").await;
    verdict.some("changes acknowledged beside all", usize::from(write.is_some()));
}

/// Walks all overrides for those that do nothing.
async fn look_for_findings(admin: &Caller, verdict: &mut Verdict) {
    let list = "/api/admin/flag-overrides?finding=override_redundant&limit=200";
    let (mut found, mut parts, mut path) = (0, Vec::new(), list.to_owned());
    loop {
        let begun = Instant::now();
        let part = admin.get(&path).await.expect(200).json();
        parts.push(begun.elapsed().as_secs_f64() * 1e3);
        found += part["items"].as_array().map_or(0, Vec::len);
        let Some(cursor) = part["next_cursor"].as_str() else { break };
        path = format!("{list}&cursor={cursor}");
    }
    let sum: f64 = parts.iter().sum();
    parts.sort_by(f64::total_cmp);
    verdict.some("overrides that do nothing, found", found);
    let (median, slowest) = (parts[parts.len() / 2], parts[parts.len() - 1]);
    let text = format!("{} parts in {sum:.0} ms, median {median:.1}, slowest {slowest:.1}", parts.len());
    verdict.tell("to find them", text);
}

/// Median time of `/api/flags/me` for a user with ten overrides at each server, asked in turns, in microseconds.
async fn measure(scene: &Scene, servers: [&RunningProcess; 2]) -> [f64; 2] {
    let callers = servers.map(|server| scene.user(0, &server.base_url));
    let mut micros = [Vec::with_capacity(REQUESTS), Vec::with_capacity(REQUESTS)];
    for _ in 0..REQUESTS {
        for (caller, micros) in callers.iter().zip(&mut micros) {
            let begun = Instant::now();
            caller.get("/api/flags/me").await.expect(200);
            micros.push(begun.elapsed().as_secs_f64() * 1e6);
        }
    }
    micros.map(|mut micros| {
        micros.sort_by(f64::total_cmp);
        micros[REQUESTS / 2]
    })
}
