//! The listening connection cut again and again, then deaf: changes of other servers come later, never not.

use std::time::Duration;

use flags_tests::{database::Kind, proxy::Fault};

use crate::{
    Scale,
    scene::{Scene, Style, wait},
    verdict::Verdict,
};

pub(crate) async fn run(case: &str, kind: Kind, scale: Scale, verdict: &mut Verdict) {
    let mut scene = Scene::new(case, kind, 10, 6, scale.seed).await;
    scene.serve_directly(1).await;
    let proxy = scene.serve_through_a_proxy().await;
    let mut followers = Vec::new();
    for user in 0..scene.users.len() {
        followers.push(scene.follow(user, &scene.servers[1].base_url).await);
    }
    // All writes go to the other server.
    let behind = scene.servers.pop().expect("two servers");
    let style = Style { writers: 4, time: scale.time / 2, pause: Duration::from_millis(20) };
    let rounds = scale.many(50);
    let mut cut = 0;
    let cuts = async {
        for _ in 0..rounds {
            tokio::time::sleep(scale.time / 2 / u32::try_from(rounds).expect("few")).await;
            // It listens again after a moment.
            wait("a listening connection", || proxy.listening_connection_count() > 0).await;
            cut += proxy.close_listening();
        }
    };
    let (writes, ()) = tokio::join!(scene.write(style), cuts);
    verdict.must_be("times the listening connection was cut", &rounds, &cut);
    scene.converge(verdict, &followers, 0).await;
    scene.check(verdict, &writes, &followers);
    proxy.set_fault(Fault::DropNotifications);
    let swallowed = scene.write(style).await;
    proxy.set_fault(Fault::Pass);
    scene.converge(verdict, &followers, 0).await;
    verdict.tell("with all notifications swallowed", "");
    scene.check(verdict, &swallowed, &followers);
    scene.servers.push(behind);
}
