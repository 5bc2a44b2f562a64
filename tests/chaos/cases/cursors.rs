//! Streams resume correctly from every kind of stream position, even after the recent-changes buffer has dropped the
//! oldest changes.

use std::{collections::BTreeSet, time::Duration};

use flags_tests::{app::override_path, database::DatabaseKind};
use reqwest::Method;
use serde_json::json;

use crate::{
    CaseOptions,
    environment::{AcknowledgedWrite, TestEnvironment, WriteLoad},
    report::CaseReport,
};

/// Capacity of the recent changes buffer of a server, in commits.
const BUFFER_CAPACITY: i64 = 10_000;

pub(crate) async fn run(case: &str, kind: DatabaseKind, options: CaseOptions, report: &mut CaseReport) {
    let mut env = TestEnvironment::new(case, kind, 2, 4, options.seed).await;
    env.start_servers(1).await;
    let (admin, ann) = (env.admin(0), env.user(0, &env.servers[0].base_url));
    let path = override_path(&env.users[0].id.to_string(), "flag0");
    // Commit more changes than the buffer can hold, so that it drops the oldest ones.
    let mut writes = Vec::new();
    while writes.len() < BUFFER_CAPACITY as usize + 100 {
        let load = WriteLoad { writers: 16, duration: Duration::from_secs(2), pause: Duration::ZERO };
        writes.extend(env.run_writers(load).await);
    }
    let mut head = ann.open_stream("/api/flags/stream", &[]).await.next().await;
    let expires_at = flags_domain::Instant::from(time::OffsetDateTime::now_utc()).plus_micros(1_500_000);
    let body = json!({"override_value": env.unique_value(), "expires_at": expires_at});
    env.send_change(&admin, Method::PUT, &path, Some(body)).await.expect("change is acknowledged");
    let before_expiry = ann.open_stream("/api/flags/stream", &[]).await.next().await;
    tokio::time::sleep(Duration::from_millis(1_800)).await;
    // Returns 1 if the first event is not as expected.
    let count_failure = |description: &str, expected: &str, actual: &str| {
        if expected != actual {
            println!("{description}: expected {expected}, got {actual}");
        }
        usize::from(expected != actual)
    };
    // Resumes a stream and describes the first event by its name and the flags that it sets.
    let first_event = async |position: &str| {
        let event = ann.open_stream("/api/flags/stream", &[("Last-Event-ID", position)]).await.next().await;
        let names = event.data["set"].as_object().map(|set| set.keys().cloned().collect::<Vec<_>>().join(" "));
        names.map_or(event.event.clone(), |names| format!("{} {names}", event.event))
    };
    let position = before_expiry.id.as_deref().expect("event has an id");
    let mut failures =
        count_failure("override expired while disconnected", "change flag0", &first_event(position).await);
    head.id = ann.open_stream("/api/flags/stream", &[]).await.next().await.id;
    let head_position = head.id.clone().expect("event has an id");
    let parts: Vec<_> = head_position.split(':').collect();
    let (epoch, number, instant) = (parts[0], head.revision(), parts[2]);
    let at_revision = |number: i64| format!("{epoch}:{number}:{instant}");
    let tail = number - BUFFER_CAPACITY;
    let positions: Vec<(&str, String, &str)> = vec![
        ("0", "0".to_owned(), "snapshot"),
        ("revision 0", at_revision(0), "snapshot"),
        ("tail - 1", at_revision(tail - 1), "snapshot"),
        ("head + 1", at_revision(number + 1), "snapshot"),
        ("another epoch", format!("{}:{number}:{instant}", "0".repeat(32)), "snapshot"),
        ("malformed", "malformed".to_owned(), "snapshot"),
        ("60,000 bytes", "9".repeat(60_000), "snapshot"),
        ("head - 1", at_revision(number - 1), "change flag0"),
    ];
    let count = positions.len() + 6;
    for (description, position, expected) in positions {
        failures += count_failure(description, expected, &first_event(&position).await);
    }
    // A stream that resumes at a position inside the buffer starts with one `change` event. The event contains exactly
    // the flags that have changed for this user.
    let changes_since = |revision: i64| {
        let affects_user =
            |write: &&AcknowledgedWrite| write.revision > revision && write.user.is_none_or(|user| user == 0);
        let names = writes.iter().filter(affects_user).map(|write| write.flag.clone()).chain(["flag0".to_owned()]);
        format!("change {}", names.collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>().join(" "))
    };
    for (description, revision) in [("tail", tail), ("middle", number - BUFFER_CAPACITY / 2), ("head - 3", number - 3)]
    {
        let event = first_event(&at_revision(revision)).await;
        failures += count_failure(description, &changes_since(revision), &event);
    }
    let without_position = ann.open_stream("/api/flags/stream", &[]).await.next().await;
    failures += count_failure("no position", "snapshot", &without_position.event);
    // A stream that resumes at the latest revision receives the next change first, apart from heartbeats.
    let mut stream = ann.open_stream("/api/flags/stream", &[("Last-Event-ID", &head_position)]).await;
    let write = env.set_override(&admin, 0, "flag1").await.expect("change is acknowledged");
    let event = stream.expect("change").await;
    failures += usize::from(event.revision() != write.revision || event.data["set"]["flag1"].is_null());
    report.expect_nonzero("stream positions tested", count);
    report.expect_zero("streams with a wrong first event", failures);
    report.info("commits before", writes.len());
}
