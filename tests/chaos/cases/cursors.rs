//! Every kind of cursor gets exactly the right beginning, also when the server has forgotten the oldest changes.

use std::{collections::BTreeSet, time::Duration};

use flags_tests::{app::override_path, database::Kind};
use reqwest::Method;
use serde_json::json;

use crate::{
    Scale,
    scene::{Scene, Style},
    verdict::Verdict,
};

/// As many commits as a server remembers.
const REMEMBERED: i64 = 10_000;

pub(crate) async fn run(case: &str, kind: Kind, scale: Scale, verdict: &mut Verdict) {
    let mut scene = Scene::new(case, kind, 2, 4, scale.seed).await;
    scene.serve_directly(1).await;
    let (admin, ann) = (scene.admin(0), scene.user(0, &scene.servers[0].base_url));
    let path = override_path(&scene.users[0].id.to_string(), "flag0");
    // More commits than are remembered; some concern the user.
    let mut writes = Vec::new();
    while writes.len() < REMEMBERED as usize + 100 {
        let style = Style { writers: 16, time: Duration::from_secs(2), pause: Duration::ZERO };
        writes.extend(scene.write(style).await);
    }
    let mut head = ann.open_stream("/api/flags/stream", &[]).await.next().await;
    let end = flags_domain::Instant::from(time::OffsetDateTime::now_utc()).plus_micros(1_500_000);
    let body = json!({"override_value": scene.fresh_value(), "expires_at": end});
    scene.change(&admin, Method::PUT, &path, Some(body)).await.expect("a change");
    let with_end = ann.open_stream("/api/flags/stream", &[]).await.next().await;
    tokio::time::sleep(Duration::from_millis(1_800)).await;
    let wrong = |what: &str, expected: &str, found: &str| {
        if expected != found {
            println!("{what}: expected {expected}, found {found}");
        }
        usize::from(expected != found)
    };
    let first = async |cursor: &str| {
        let event = ann.open_stream("/api/flags/stream", &[("Last-Event-ID", cursor)]).await.next().await;
        let names = event.data["set"].as_object().map(|set| set.keys().cloned().collect::<Vec<_>>().join(" "));
        names.map_or(event.event.clone(), |names| format!("{} {names}", event.event))
    };
    let mut failures =
        wrong("an own expiry while away", "change flag0", &first(with_end.id.as_deref().expect("an id")).await);
    head.id = ann.open_stream("/api/flags/stream", &[]).await.next().await.id;
    let id = head.id.clone().expect("an id");
    let parts: Vec<_> = id.split(':').collect();
    let (epoch, number, at) = (parts[0], head.revision(), parts[2]);
    let at_revision = |number: i64| format!("{epoch}:{number}:{at}");
    let tail = number - REMEMBERED;
    let rows: Vec<(&str, String, &str)> = vec![
        ("0", "0".to_owned(), "snapshot"),
        ("revision 0", at_revision(0), "snapshot"),
        ("tail - 1", at_revision(tail - 1), "snapshot"),
        ("head + 1", at_revision(number + 1), "snapshot"),
        ("another epoch", format!("{}:{number}:{at}", "0".repeat(32)), "snapshot"),
        ("rubbish", "rubbish".to_owned(), "snapshot"),
        ("60,000 bytes", "9".repeat(60_000), "snapshot"),
        ("head - 1", at_revision(number - 1), "change flag0"),
    ];
    let count = rows.len() + 6;
    for (what, cursor, expected) in rows {
        failures += wrong(what, expected, &first(&cursor).await);
    }
    // At the tail and in the middle: one change, of exactly the flags that were touched for this user since.
    let changes_since = |revision: i64| {
        let concerns =
            |write: &&crate::scene::Write| write.revision > revision && write.user.is_none_or(|user| user == 0);
        let names = writes.iter().filter(concerns).map(|write| write.flag.clone()).chain(["flag0".to_owned()]);
        format!("change {}", names.collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>().join(" "))
    };
    for (what, at) in [("tail", tail), ("middle", number - REMEMBERED / 2), ("head - 3", number - 3)] {
        failures += wrong(what, &changes_since(at), &first(&at_revision(at)).await);
    }
    failures += wrong("none", "snapshot", &ann.open_stream("/api/flags/stream", &[]).await.next().await.event);
    // At the head nothing is to be said: the next change is the first event.
    let mut quiet = ann.open_stream("/api/flags/stream", &[("Last-Event-ID", &id)]).await;
    let write = scene.set(&admin, 0, "flag1").await.expect("a change");
    let event = quiet.expect("change").await;
    failures += usize::from(event.revision() != write.revision || event.data["set"]["flag1"].is_null());
    verdict.some("cursors tried", count);
    verdict.never("wrong beginnings", failures);
    verdict.tell("commits before", writes.len());
}
