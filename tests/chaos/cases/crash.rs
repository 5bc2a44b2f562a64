//! PostgreSQL killed by SIGKILL under 20 writers, again and again: what was acknowledged is there, what was not sent is not.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use flags_tests::{
    app::override_path,
    database::{Kind, query_postgres},
};
use reqwest::Method;
use serde_json::json;

use crate::{Scale, scene::Scene, verdict::Verdict};

const WRITERS: usize = 20;

pub(crate) async fn run(case: &str, kind: Kind, scale: Scale, verdict: &mut Verdict) {
    let mut scene = Scene::new(case, kind, WRITERS, 1, scale.seed).await;
    scene.serve_directly(1).await;
    let rounds = if scale.short { 2 } else { 10 };
    let (mut acknowledged, mut lost, mut invented) = (0_usize, 0, 0);
    let (mut registered, mut refused) = (0, 0);
    for _ in 0..rounds {
        let mut cluster = scene.cluster.take().expect("PostgreSQL");
        let until = Instant::now() + Duration::from_millis(1_500);
        let scene_now = &scene;
        let write = |writer: usize| async move {
            let admin = scene_now.admin(0);
            let path = override_path(&scene_now.users[writer].id.to_string(), "flag0");
            let (mut sent, mut acked, mut count) = (0, 0, 0);
            while Instant::now() < until {
                sent = scene_now.fresh_value();
                let body = json!({"override_value": sent});
                if scene_now.change(&admin, Method::PUT, &path, Some(body)).await.is_some() {
                    (acked, count) = (sent, count + 1);
                }
            }
            (sent, acked, count)
        };
        let writers = futures_util::future::join_all((0..WRITERS).map(write));
        // Users made under a key, each request sent again until it is answered: never a second time, never refused.
        let register = async {
            let admin = scene_now.admin(0);
            while Instant::now() < until {
                let number = scene_now.fresh_value();
                let body = json!({"email": format!("registered{number}@example.com")});
                let key = format!("key{number}");
                let headers = [("Idempotency-Key", key.as_str()), ("content-type", "application/json")];
                loop {
                    let bytes = Some(body.to_string().into_bytes());
                    match admin.try_send(Method::POST, "/api/admin/users", &headers, bytes).await {
                        Ok(reply) if reply.status == 201 => break registered += 1,
                        // Whoever tries again without a pause meets the limit of their credential as well.
                        Ok(reply) if matches!(reply.status.as_u16(), 429 | 503) => {}
                        Ok(_) => break refused += 1,
                        Err(_) => {}
                    }
                }
            }
        };
        let kill = async {
            tokio::time::sleep(Duration::from_millis(700)).await;
            tokio::task::spawn_blocking(move || {
                cluster.kill();
                cluster.launch(&[]);
                cluster
            })
            .await
            .expect("no panic")
        };
        let (outcomes, (), cluster) = tokio::join!(writers, register, kill);
        scene.cluster = Some(cluster);
        let rows = query_postgres(&scene.url, "SELECT user_id || ' ' || override_value FROM user_flag_overrides").await;
        let present: BTreeMap<_, _> = rows
            .into_iter()
            .flatten()
            .filter_map(|row| {
                row.split_once(' ').and_then(|(user, value)| Some((user.to_owned(), value.parse::<i64>().ok()?)))
            })
            .collect();
        for (writer, (sent, acked, count)) in outcomes.into_iter().enumerate() {
            acknowledged += count;
            let value = present.get(&scene.users[writer].id.to_string()).copied().unwrap_or(0);
            lost += usize::from(value < acked);
            invented += usize::from(value > sent);
        }
    }
    scene.check_log(verdict).await;
    let rows = query_postgres(&scene.url, "SELECT count(*) FROM users WHERE email LIKE 'registered%'").await;
    verdict.tell("rounds", rounds);
    verdict.some("users made under a key, each answered in the end", registered);
    verdict.must_be("rows of them", &registered.to_string(), &rows[0].clone().unwrap_or_default());
    verdict.never("retries refused", refused);
    verdict.some("changes acknowledged", acknowledged);
    verdict.never("acknowledged and lost", lost);
    verdict.never("never sent and there", invented);
    let begun = Instant::now();
    scene.mark_end(0).await;
    verdict.tell("seconds to the first good write after the last", format!("{:.2}", begun.elapsed().as_secs_f64()));
}
