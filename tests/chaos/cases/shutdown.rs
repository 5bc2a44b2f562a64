//! SIGTERM with 1,000 streams open and 50 writes under way.

use std::time::{Duration, Instant};

use flags_tests::{app::override_path, database::Kind};
use reqwest::Method;
use serde_json::json;

use crate::{Scale, scene::Scene, verdict::Verdict};

pub(crate) async fn run(case: &str, kind: Kind, scale: Scale, verdict: &mut Verdict) {
    let writers = 50;
    let mut scene = Scene::new(case, kind, writers, 2, scale.seed).await;
    scene.serve_directly(1).await;
    let mut followers = Vec::new();
    for stream in 0..scale.many(1_000) {
        followers.push(scene.follow(stream % scene.users.len(), &scene.servers[0].base_url).await);
    }
    let server = scene.servers.pop().expect("a server");
    let (base, token) = (server.base_url.clone(), scene.admin_token.clone());
    // Made before the time counts: each takes its own.
    let admins: Vec<_> = (0..writers).map(|_| flags_tests::caller::Caller::new(&base, Some(&token))).collect();
    let stopped = Instant::now() + Duration::from_millis(500);
    let scene_now = &scene;
    let write = |writer: usize| {
        let admin = &admins[writer];
        async move {
            let path = override_path(&scene_now.users[writer].id.to_string(), "flag0");
            let mut acknowledged = 0;
            // Until the server takes no more.
            while Instant::now() < stopped + Duration::from_secs(15) {
                let value = scene_now.fresh_value();
                let body = json!({"override_value": value});
                if scene_now.change(admin, Method::PUT, &path, Some(body)).await.is_none() {
                    break;
                }
                acknowledged = value;
            }
            acknowledged
        }
    };
    let writing = futures_util::future::join_all((0..writers).map(write));
    let stopping = async {
        tokio::time::sleep_until(stopped.into()).await;
        let begun = Instant::now();
        let status = tokio::task::spawn_blocking(move || server.stop()).await.expect("no panic");
        (status.code(), begun.elapsed())
    };
    let (acknowledged, (code, took)) = tokio::join!(writing, stopping);
    scene.serve_directly(1).await;
    let mut lost = 0;
    for (writer, value) in acknowledged.iter().enumerate() {
        let mine = scene.user(writer, &scene.servers[0].base_url).get("/api/flags/me/flag0").await.json();
        lost += usize::from(mine["value"].as_i64().unwrap_or(0) < *value);
    }
    let byes = followers.iter().filter(|follower| follower.look().byes == ["shutdown"]).count();
    verdict.must_be("exit code", &0, &code.unwrap_or(-1));
    verdict.tell("seconds to exit", format!("{:.2}", took.as_secs_f64()));
    verdict.must_be("streams that were told", &followers.len(), &byes);
    verdict.some("writers with acknowledged changes", acknowledged.iter().filter(|value| **value > 0).count());
    verdict.never("acknowledged changes lost", lost);
}
