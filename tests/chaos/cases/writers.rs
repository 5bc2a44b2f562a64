//! 16 writers on three servers: every stream is told of everything that concerns it, once, in order, soon.

use std::time::Duration;

use flags_tests::database::{Kind, query_postgres};

use crate::{
    Scale,
    scene::{Scene, Style},
    verdict::Verdict,
};

pub(crate) async fn run(case: &str, kind: Kind, scale: Scale, verdict: &mut Verdict) {
    let mut scene = Scene::new(case, kind, 24, 12, scale.seed).await;
    scene.serve_directly(3).await;
    let mut followers = Vec::new();
    for user in 0..scene.users.len() {
        followers.push(scene.follow(user, &scene.servers[user % 3].base_url).await);
    }
    let style = Style { writers: 16, time: scale.time, pause: Duration::ZERO };
    let writes = scene.write(style).await;
    scene.check_log(verdict).await;
    scene.converge(verdict, &followers, 0).await;
    scene.check(verdict, &writes, &followers);
    verdict.tell("acknowledged changes a second", writes.len() as u64 / scale.time.as_secs().max(1));
    if kind == Kind::Postgres {
        let rows = query_postgres(&scene.url, "SELECT count(*) FROM change_log").await;
        verdict.tell("rows committed to the log", rows[0].clone().unwrap_or_default());
    }
}
