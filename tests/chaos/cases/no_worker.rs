//! Without a worker, overrides still expire and scheduled changes still take effect on time, in responses and streams.

use std::time::Instant;

use flags_domain::Instant as WallInstant;
use flags_tests::{app::override_path, database::DatabaseKind};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    CaseOptions,
    environment::TestEnvironment,
    report::CaseReport,
    subscriber::{ReceivedEvent, Subscriber},
};

/// A value that changes at a certain instant.
struct TimedChange {
    /// Index of the user whose override expires. `None` for a scheduled change, which affects all users.
    user: Option<usize>,
    flag: String,
    due_at: WallInstant,
    value_after: Value,
}

impl TimedChange {
    fn affects(&self, user: usize) -> bool {
        self.user.is_none_or(|affected| affected == user)
    }
}

fn now() -> WallInstant {
    WallInstant::from(time::OffsetDateTime::now_utc())
}

pub(crate) async fn run(case: &str, kind: DatabaseKind, options: CaseOptions, report: &mut CaseReport) {
    let (users, override_flags) = (options.scaled(100), 10);
    let flags = override_flags + options.scaled(100);
    let mut env = TestEnvironment::new(case, kind, users, flags, options.seed).await;
    env.start_servers(2).await;
    let mut rng = StdRng::seed_from_u64(options.seed);
    let admin = env.admin(0);
    // All changes are due between the end of the setup and the end of the case.
    let first_due_at = now().plus_micros(if options.short { 3_000_000 } else { 12_000_000 });
    let span = options.duration.as_micros() as i64;
    let mut changes = Vec::new();
    for user in 0..users {
        for flag in 0..override_flags {
            let due_at = first_due_at.plus_micros(rng.random_range(0..span));
            let path = override_path(&env.users[user].id.to_string(), &env.flags[flag]);
            let body = json!({"override_value": env.unique_value(), "expires_at": due_at});
            env.send_change(&admin, Method::PUT, &path, Some(body)).await.expect("change is acknowledged");
            let flag = env.flags[flag].clone();
            changes.push(TimedChange { user: Some(user), flag, due_at, value_after: json!(0) });
        }
    }
    for flag in &env.flags[override_flags..] {
        let due_at = first_due_at.plus_micros(rng.random_range(0..span));
        let variants = json!({"variants": [{"id": "v", "value": 0}, {"id": "late", "value": 1}]});
        admin.patch(&format!("/api/admin/feature-flags/{flag}"), &variants).await.expect(200);
        let body = json!({"scheduled_at": due_at, "serve": {"variant": "late"}});
        admin.post(&format!("/api/admin/feature-flags/{flag}/scheduled-changes"), &body).await.expect(201);
        changes.push(TimedChange { user: None, flag: flag.clone(), due_at, value_after: json!(1) });
    }
    let is_setup_in_time = now() < first_due_at;
    let mut subscribers = Vec::new();
    for user in 0..users {
        subscribers.push(env.subscribe(user, &env.servers[user % 2].base_url).await);
    }
    // Reads must return the value before each instant, and the value after it from that instant on.
    let read_until = first_due_at.plus_micros(span + 1_000_000);
    let (mut wrong, mut compared) = (0, 0);
    while now() < read_until {
        let user = rng.random_range(0..users);
        let server = rng.random_range(0..2);
        let caller = env.user(user, &env.servers[server].base_url);
        let own_flags = caller.get("/api/flags/me").await.expect(200).json();
        let evaluated_at = own_flags["evaluated_at"].as_str().expect("evaluated_at is a string");
        let evaluated_at = WallInstant::parse(evaluated_at).expect("evaluated_at is a valid instant");
        for change in changes.iter().filter(|change| change.affects(user)) {
            compared += 1;
            let has_changed = own_flags["flags"][&change.flag]["value"] == change.value_after;
            wrong += usize::from(has_changed != (evaluated_at >= change.due_at));
        }
    }
    // Converts monotonic times of events to wall-clock times.
    let (monotonic_now, wall_now) = (Instant::now(), now());
    let (mut missed, mut early, mut delays) = (0, 0, Vec::new());
    for change in &changes {
        for subscriber in subscribers.iter().filter(|subscriber| change.affects(subscriber.user)) {
            match delivery_time(subscriber, change) {
                Some(received_at) => {
                    let age = monotonic_now.saturating_duration_since(received_at).as_micros() as i64;
                    let delay = wall_now.as_micros() - age - change.due_at.as_micros();
                    early += usize::from(delay < -1_000);
                    delays.push(delay as f64 / 1e3);
                }
                None => missed += 1,
            }
        }
    }
    report.info("overrides and scheduled changes", changes.len());
    report.expect_eq("setup finished before the first instant", &true, &is_setup_in_time);
    report.expect_nonzero("values compared", compared);
    report.expect_zero("wrong values", wrong);
    report.expect_zero("changes that a stream did not deliver", missed);
    report.expect_zero("changes that a stream delivered too early", early);
    report.print_percentiles("delay from the instant to the event", delays);
    env.check_convergence(report, &subscribers, 0).await;
}

/// Returns when the subscriber received the first event that names the flag and was evaluated at or after the instant.
fn delivery_time(subscriber: &Subscriber, change: &TimedChange) -> Option<Instant> {
    let state = subscriber.state();
    let delivers_change = |event: &&ReceivedEvent| {
        event.evaluated_at >= change.due_at.as_micros() && event.flag_names.contains(&change.flag)
    };
    state.events.iter().find(delivers_change).map(|event| event.received_at)
}
