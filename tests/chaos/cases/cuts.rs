//! 200 streams through a proxy that cuts them at random.

use std::time::{Duration, Instant};

use flags_tests::{
    database::Kind,
    proxy::{Proxy, Target},
};
use rand::{SeedableRng as _, rngs::StdRng};

use crate::{
    Scale,
    scene::{Scene, Style},
    verdict::Verdict,
};

pub(crate) async fn run(case: &str, kind: Kind, scale: Scale, verdict: &mut Verdict) {
    let mut scene = Scene::new(case, kind, 40, 8, scale.seed).await;
    scene.serve_directly(1).await;
    let address = scene.servers[0].base_url.trim_start_matches("http://").parse().expect("an address");
    let proxy = Proxy::start(Target::Tcp(address)).await;
    let base = format!("http://{}", proxy.address);
    let mut followers = Vec::new();
    for stream in 0..scale.many(200) {
        followers.push(scene.follow(stream % scene.users.len(), &base).await);
    }
    let style = Style { writers: 4, time: scale.time, pause: Duration::from_millis(5) };
    let wanted = scale.many(1_000);
    let mut cut = 0;
    let cuts = async {
        let mut rng = StdRng::seed_from_u64(scale.seed);
        let until = Instant::now() + scale.time;
        let pause = scale.time.mul_f64(10.0 / wanted as f64);
        while cut < wanted || Instant::now() < until {
            if cut < wanted {
                cut += proxy.close_some(10.min(wanted - cut), &mut rng);
            }
            tokio::time::sleep(pause).await;
        }
    };
    let (writes, ()) = tokio::join!(scene.write(style), cuts);
    scene.converge(verdict, &followers, 0).await;
    scene.check(verdict, &writes, &followers);
    let (snapshots, others) = followers.iter().fold((0, 0), |sum, follower| {
        let resumed = follower.look().resumed;
        (sum.0 + resumed.0, sum.1 + resumed.1)
    });
    verdict.must_be("cuts", &wanted, &cut);
    // The server remembers all that was written: nobody needs to begin anew.
    verdict.never("snapshots where a change would do", snapshots);
    let share = snapshots as f64 * 100.0 / (snapshots + others).max(1) as f64;
    verdict.tell("share of snapshots after a cut", format!("{share:.1} % of {}", snapshots + others));
}
