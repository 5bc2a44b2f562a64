//! Every byte that users' streams get, under random changes to others: nothing of anybody else.

use std::time::{Duration, Instant};

use flags_tests::{
    app::override_path,
    database::Kind,
    proxy::{Proxy, Target},
};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use reqwest::Method;
use serde_json::json;

use crate::{Scale, scene::Scene, verdict::Verdict};

pub(crate) async fn run(case: &str, kind: Kind, scale: Scale, verdict: &mut Verdict) {
    let mut scene = Scene::new(case, kind, 20, 2, scale.seed).await;
    scene.serve_directly(1).await;
    let admin = scene.admin(0);
    for number in 0..5 {
        let body = json!({"name": format!("text{number}"), "flag_type": "string", "variants": [{"id": "v", "value": "v"}],
            "default": {"variant": "v"}, "off_variant": "v"});
        admin.post("/api/admin/feature-flags", &body).await.expect(201);
        let body = json!({"name": format!("unseen_{number}"), "flag_type": "boolean", "client_visible": false});
        admin.post("/api/admin/feature-flags", &body).await.expect(201);
    }
    let address = scene.servers[0].base_url.trim_start_matches("http://").parse().expect("an address");
    let proxy = Proxy::start(Target::Tcp(address)).await;
    let mut followers = Vec::new();
    for user in 0..scene.users.len() {
        followers.push(scene.follow(user, &format!("http://{}", proxy.address)).await);
    }
    let mut rng = StdRng::seed_from_u64(scale.seed);
    let until = Instant::now() + scale.time;
    let mut changes = 0;
    while Instant::now() < until {
        let user = rng.random_range(0..scene.users.len());
        // Some begin again in the middle.
        if rng.random_ratio(1, 50) {
            proxy.close_some(2, &mut rng);
        }
        let secret = format!("secret-of-{user}-{changes}");
        let path = override_path(&scene.users[user].id.to_string(), &format!("text{}", rng.random_range(0..5)));
        let flag = format!("/api/admin/feature-flags/unseen_{}", rng.random_range(0..5));
        let done = match rng.random_range(0..10) {
            0 => scene.change(&admin, Method::DELETE, &path, None).await,
            1 => scene.change(&admin, Method::PATCH, &flag, Some(json!({"enabled": rng.random_bool(0.5)}))).await,
            2 => {
                let path =
                    override_path(&scene.users[user].id.to_string(), &format!("unseen_{}", rng.random_range(0..5)));
                let body = json!({"override_value": rng.random_bool(0.5), "reason": secret});
                scene.change(&admin, Method::PUT, &path, Some(body)).await
            }
            3 => {
                let path = format!("/api/admin/users/{}", scene.users[user].id);
                scene.change(&admin, Method::PATCH, &path, Some(json!({"display_name": secret}))).await
            }
            _ => {
                let end = flags_domain::Instant::from(time::OffsetDateTime::now_utc());
                let end = rng.random_bool(0.3).then(|| end.plus_micros(300_000));
                let body = json!({"override_value": secret, "reason": secret, "expires_at": end});
                scene.change(&admin, Method::PUT, &path, Some(body)).await
            }
        };
        changes += usize::from(done.is_some());
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    scene.converge(verdict, &followers, 0).await;
    let (mut bytes, mut own, mut foreign, mut unseen) = (0, 0, 0, 0);
    for follower in &followers {
        let followed = follower.look();
        let text = String::from_utf8_lossy(&followed.raw);
        bytes += text.len();
        own += text.matches(&format!("secret-of-{}-", follower.user)).count();
        unseen += text.matches("unseen_").count();
        for (other, user) in scene.users.iter().enumerate().filter(|(other, _)| *other != follower.user) {
            foreign += text.matches(&user.id.to_string()).count();
            foreign += text.matches(&format!("secret-of-{other}-")).count();
            foreign += text.matches(&format!("user{other}@")).count();
        }
    }
    verdict.some("changes", changes);
    verdict.some("bytes read", bytes);
    verdict.some("own values in them", own);
    verdict.never("foreign ids, values or e-mails in them", foreign);
    verdict.never("names of flags that users do not see", unseen);
}
