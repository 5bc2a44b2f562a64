//! PostgreSQL away under reads and streams: they go on, writes say when to come again, and all is well afterwards.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use flags_tests::{app::override_path, cluster::Cluster, database::Kind};
use serde_json::json;

use crate::{Scale, scene::Scene, verdict::Verdict};

/// Takes the database away by `leave`, and brings it back by `come_back`.
pub(super) async fn run(
    case: &str,
    kind: Kind,
    scale: Scale,
    verdict: &mut Verdict,
    leave: fn(&mut Cluster),
    come_back: fn(&mut Cluster),
) {
    let mut scene = Scene::new(case, kind, 20, 6, scale.seed).await;
    scene.serve_directly(2).await;
    let mut followers = Vec::new();
    for stream in 0..scale.many(200) {
        followers.push(scene.follow(stream % scene.users.len(), &scene.servers[stream % 2].base_url).await);
    }
    scene.set(&scene.admin(0), 0, "flag0").await.expect("a change");
    let mut cluster = scene.cluster.take().expect("PostgreSQL");
    let outage = async |mut cluster: Cluster, change: fn(&mut Cluster)| {
        let done = tokio::task::spawn_blocking(move || {
            change(&mut cluster);
            cluster
        });
        done.await.expect("no panic")
    };
    cluster = outage(cluster, leave).await;
    let gone_at = Instant::now();
    let away = AtomicBool::new(true);
    let (mut reads, mut unread, mut stale) = (0, 0, 0);
    let (mut writes, mut wrong_writes) = (0, 0);
    let reading = async {
        while away.load(Ordering::Relaxed) {
            let user = reads % scene.users.len();
            let mine = scene.user(user, &scene.servers[reads % 2].base_url).get("/api/flags/me").await;
            reads += 1;
            unread += usize::from(mine.status != 200);
            stale += usize::from(mine.json()["stale"] == true);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let writing = async {
        let path = override_path(&scene.users[0].id.to_string(), "flag1");
        while away.load(Ordering::Relaxed) {
            let reply = scene.admin(0).put(&path, &json!({"override_value": scene.fresh_value()})).await;
            writes += 1;
            wrong_writes += usize::from(reply.status != 503 || reply.header("retry-after").is_empty());
        }
    };
    let time = async {
        tokio::time::sleep(scale.time.saturating_sub(gone_at.elapsed())).await;
        away.store(false, Ordering::Relaxed);
    };
    tokio::join!(reading, writing, time);
    scene.cluster = Some(outage(cluster, come_back).await);
    let back = Instant::now();
    scene.mark_end(0).await;
    verdict.tell("seconds to the first good write after", format!("{:.2}", back.elapsed().as_secs_f64()));
    verdict.some("reads during the outage", reads);
    verdict.never("reads not answered", unread);
    verdict.some("of them marked stale", stale);
    verdict.some("writes during the outage", writes);
    verdict.never("writes not answered by 503 with Retry-After", wrong_writes);
    verdict.never("streams dropped", followers.iter().map(|follower| follower.look().connects - 1).sum());
    scene.converge(verdict, &followers, 0).await;
}
