//! No worker at all: overrides end and scheduled changes begin at their instants all the same, and streams say so.

use std::time::Instant;

use flags_domain::Instant as At;
use flags_tests::{app::override_path, database::Kind};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use reqwest::Method;
use serde_json::json;

use crate::{Scale, follower::Follower, scene::Scene, verdict::Verdict};

fn now() -> At {
    At::from(time::OffsetDateTime::now_utc())
}

pub(crate) async fn run(case: &str, kind: Kind, scale: Scale, verdict: &mut Verdict) {
    let (users, flags) = (scale.many(100), 10);
    let mut scene = Scene::new(case, kind, users, flags + scale.many(100), scale.seed).await;
    scene.serve_directly(2).await;
    let mut rng = StdRng::seed_from_u64(scale.seed);
    let admin = scene.admin(0);
    // Everything falls due between the end of the preparations and the end of the case.
    let begins = now().plus_micros(if scale.short { 3_000_000 } else { 12_000_000 });
    let span = scale.time.as_micros() as i64;
    let mut due = Vec::new();
    for user in 0..users {
        for flag in 0..flags {
            let at = begins.plus_micros(rng.random_range(0..span));
            let path = override_path(&scene.users[user].id.to_string(), &scene.flags[flag]);
            let body = json!({"override_value": scene.fresh_value(), "expires_at": at});
            scene.change(&admin, Method::PUT, &path, Some(body)).await.expect("a change");
            due.push((Some(user), scene.flags[flag].clone(), at, json!(0)));
        }
    }
    for flag in &scene.flags[flags..] {
        let at = begins.plus_micros(rng.random_range(0..span));
        let variants = json!({"variants": [{"id": "v", "value": 0}, {"id": "late", "value": 1}]});
        admin.patch(&format!("/api/admin/feature-flags/{flag}"), &variants).await.expect(200);
        let body = json!({"scheduled_at": at, "serve": {"variant": "late"}});
        admin.post(&format!("/api/admin/feature-flags/{flag}/scheduled-changes"), &body).await.expect(201);
        due.push((None, flag.clone(), at, json!(1)));
    }
    let in_time = now() < begins;
    let mut followers = Vec::new();
    for user in 0..users {
        followers.push(scene.follow(user, &scene.servers[user % 2].base_url).await);
    }
    // Meanwhile requests must never show a value past its instant.
    let end = begins.plus_micros(span + 1_000_000);
    let (mut wrong, mut asked) = (0, 0);
    while now() < end {
        let user = rng.random_range(0..users);
        let server = rng.random_range(0..2);
        let mine = scene.user(user, &scene.servers[server].base_url).get("/api/flags/me").await.expect(200).json();
        let at = At::parse(mine["evaluated_at"].as_str().expect("an instant")).expect("an instant");
        for (whose, flag, due_at, after) in &due {
            if whose.is_none_or(|whose| whose == user) {
                asked += 1;
                let is_after = mine["flags"][flag]["value"] == *after;
                wrong += usize::from(is_after != (at >= *due_at));
            }
        }
    }
    let begun = Instant::now();
    let (mut never, mut early, mut delays) = (0, 0, Vec::new());
    let clock = now();
    for (whose, flag, due_at, _) in &due {
        for follower in followers.iter().filter(|follower| whose.is_none_or(|user| user == follower.user)) {
            match told(follower, flag, *due_at) {
                Some(at) => {
                    let ago = begun.saturating_duration_since(at).as_micros() as i64;
                    let late = clock.as_micros() - ago - due_at.as_micros();
                    early += usize::from(late < -1_000);
                    delays.push(late as f64 / 1e3);
                }
                None => never += 1,
            }
        }
    }
    verdict.tell("overrides and scheduled changes that fell due", due.len());
    verdict.must_be("streams were open before the first instant", &true, &in_time);
    verdict.some("values asked for", asked);
    verdict.never("wrong values", wrong);
    verdict.never("instants a stream was not told of", never);
    verdict.never("instants told too early", early);
    verdict.spread("from the instant to the event", delays);
    scene.converge(verdict, &followers, 0).await;
}

/// When a follower was told of a flag at or after an instant.
fn told(follower: &Follower, flag: &str, due_at: At) -> Option<Instant> {
    let followed = follower.look();
    let names = |seen: &&crate::follower::Seen| {
        seen.evaluated_at >= due_at.as_micros() && seen.names.iter().any(|name| name == flag)
    };
    followed.seen.iter().find(names).map(|seen| seen.at)
}
