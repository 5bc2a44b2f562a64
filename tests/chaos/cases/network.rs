//! The network between server and database: slow, late, half closed, dead.

use std::time::{Duration, Instant};

use flags_tests::{database::Kind, proxy::Fault};

use crate::{
    Scale,
    scene::{Scene, Style},
    verdict::Verdict,
};

pub(crate) async fn run(case: &str, kind: Kind, scale: Scale, verdict: &mut Verdict) {
    let mut scene = Scene::new(case, kind, 10, 6, scale.seed).await;
    let proxy = scene.serve_through_a_proxy().await;
    let mut followers = Vec::new();
    for user in 0..scene.users.len() {
        followers.push(scene.follow(user, &scene.servers[0].base_url).await);
    }
    let style = Style { writers: 4, time: scale.time / 5, pause: Duration::from_millis(20) };
    let mut writes = Vec::new();
    for fault in [Fault::Delay(Duration::from_millis(20)), Fault::Throttle(200_000), Fault::Pass, Fault::BlackHole] {
        proxy.set_fault(fault);
        writes.extend(scene.write(style).await);
        proxy.set_fault(Fault::Pass);
    }
    let half_closed = proxy.half_close_all();
    verdict.some("connections closed one way", half_closed);
    writes.extend(scene.write(style).await);
    proxy.close_all();
    let begun = Instant::now();
    scene.mark_end(0).await;
    verdict.tell("seconds to the first good write after", format!("{:.2}", begun.elapsed().as_secs_f64()));
    scene.converge(verdict, &followers, 0).await;
    scene.check(verdict, &writes, &followers);
    scene.check_log(verdict).await;
}
