//! Streams contain no data of other users and no hidden flags, under random changes to all users.

use std::time::{Duration, Instant};

use flags_tests::{
    app::override_path,
    database::DatabaseKind,
    proxy::{Proxy, Target},
};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use reqwest::Method;
use serde_json::json;

use crate::{CaseOptions, environment::TestEnvironment, report::CaseReport};

pub(crate) async fn run(case: &str, kind: DatabaseKind, options: CaseOptions, report: &mut CaseReport) {
    let mut env = TestEnvironment::new(case, kind, 20, 2, options.seed).await;
    env.start_servers(1).await;
    let admin = env.admin(0);
    for number in 0..5 {
        let body = json!({"name": format!("text{number}"), "flag_type": "string",
            "variants": [{"id": "v", "value": "v"}], "default": {"variant": "v"}, "off_variant": "v"});
        admin.post("/api/admin/feature-flags", &body).await.expect(201);
        let body = json!({"name": format!("hidden_{number}"), "flag_type": "boolean", "client_visible": false});
        admin.post("/api/admin/feature-flags", &body).await.expect(201);
    }
    let address = env.servers[0].base_url.trim_start_matches("http://").parse().expect("address is valid");
    let proxy = Proxy::start(Target::Tcp(address)).await;
    let mut subscribers = Vec::new();
    for user in 0..env.users.len() {
        subscribers.push(env.subscribe(user, &format!("http://{}", proxy.address)).await);
    }
    let mut rng = StdRng::seed_from_u64(options.seed);
    let deadline = Instant::now() + options.duration;
    let mut changes = 0;
    while Instant::now() < deadline {
        let user = rng.random_range(0..env.users.len());
        // Occasionally close two connections, so that streams also reconnect and resume.
        if rng.random_ratio(1, 50) {
            proxy.close_some(2, &mut rng);
        }
        let user_id = env.users[user].id.to_string();
        let secret = format!("secret-of-{user}-{changes}");
        let path = override_path(&user_id, &format!("text{}", rng.random_range(0..5)));
        let flag_path = format!("/api/admin/feature-flags/hidden_{}", rng.random_range(0..5));
        let revision = match rng.random_range(0..10) {
            0 => env.send_change(&admin, Method::DELETE, &path, None).await,
            1 => {
                let body = json!({"enabled": rng.random_bool(0.5)});
                env.send_change(&admin, Method::PATCH, &flag_path, Some(body)).await
            }
            2 => {
                let path = override_path(&user_id, &format!("hidden_{}", rng.random_range(0..5)));
                let body = json!({"override_value": rng.random_bool(0.5), "reason": secret});
                env.send_change(&admin, Method::PUT, &path, Some(body)).await
            }
            3 => {
                let path = format!("/api/admin/users/{user_id}");
                env.send_change(&admin, Method::PATCH, &path, Some(json!({"display_name": secret}))).await
            }
            _ => {
                let now = flags_domain::Instant::from(time::OffsetDateTime::now_utc());
                let expires_at = rng.random_bool(0.3).then(|| now.plus_micros(300_000));
                let body = json!({"override_value": secret, "reason": secret, "expires_at": expires_at});
                env.send_change(&admin, Method::PUT, &path, Some(body)).await
            }
        };
        changes += usize::from(revision.is_some());
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    env.check_convergence(report, &subscribers, 0).await;
    let (mut bytes, mut own, mut foreign, mut hidden) = (0, 0, 0, 0);
    for subscriber in &subscribers {
        let state = subscriber.state();
        let text = String::from_utf8_lossy(&state.raw);
        bytes += text.len();
        own += text.matches(&format!("secret-of-{}-", subscriber.user)).count();
        hidden += text.matches("hidden_").count();
        for (other, user) in env.users.iter().enumerate().filter(|(other, _)| *other != subscriber.user) {
            foreign += text.matches(&user.id.to_string()).count();
            foreign += text.matches(&format!("secret-of-{other}-")).count();
            foreign += text.matches(&format!("user{other}@")).count();
        }
    }
    report.expect_nonzero("changes", changes);
    report.expect_nonzero("bytes in the streams", bytes);
    report.expect_nonzero("values of the user in them", own);
    report.expect_zero("ids, values or e-mails of other users in them", foreign);
    report.expect_zero("names of hidden flags in them", hidden);
}
