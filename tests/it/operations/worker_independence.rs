//! Whether and when the worker tidies up changes no answer, but for what shows an expired override itself.

use flags_domain::Instant;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};
use reqwest::Method;
use serde_json::{Value, json};

use flags_tests::{
    app::{TestApp, override_at},
    caller::Caller,
    database::Kind,
    on_both_databases,
};

on_both_databases! {
    nobody_can_tell_whether_the_worker_was_there,
}

const FLAGS: [&str; 5] = ["f0", "f1", "f2", "f3", "f4"];
const USERS: usize = 4;

/// One of two servers with the same history.
struct World {
    app: TestApp,
    users: Vec<(String, Caller)>,
    changes: Vec<String>,
}

impl World {
    async fn start(kind: Kind) -> Self {
        let app = TestApp::start(kind).await;
        // The worker minds the database's clock as well as its own.
        app.clock_to_the_past();
        let mut users = Vec::new();
        for number in 0..USERS {
            users.push(app.user(&format!("user{number}")).await);
        }
        Self { app, users, changes: Vec::new() }
    }

    fn second(&self, second: u32) {
        self.app.clock.set(Instant::parse(&format!("2020-01-01T00:00:{second:02}Z")).unwrap());
    }

    /// Asks for something, `{user0}` and `{change0}` in the path standing for what differs, and returns what does not.
    async fn ask(&mut self, step: &Step) -> (u16, Value) {
        let mut path = step.path.clone();
        for (number, (id, _)) in self.users.iter().enumerate() {
            path = path.replace(&format!("{{user{number}}}"), id);
        }
        for (number, at) in self.changes.iter().enumerate() {
            path = path.replace(&format!("{{change{number}}}"), at);
        }
        let answer = self.app.admin.json(step.method.clone(), &path, &[], &step.body).await;
        if path.ends_with("/scheduled-changes") && answer.status == 201 {
            self.changes.push(answer.header("location").to_owned());
        }
        (answer.status.as_u16(), plain(serde_json::from_str(&answer.text).unwrap_or_default()))
    }

    async fn values(&self) -> Vec<Value> {
        let mut found = Vec::new();
        for (id, caller) in &self.users {
            found.push(plain(caller.get("/api/flags/me").await.expect(200).json()));
            found.push(plain(self.app.admin.get(&format!("/api/admin/users/{id}/flags")).await.expect(200).json()));
        }
        for flag in FLAGS {
            found.push(plain(self.app.admin.get(&format!("/api/admin/feature-flags/{flag}")).await.json()));
        }
        found.push(plain(self.app.admin.get("/api/admin/scheduled-changes").await.expect(200).json()));
        found
    }
}

#[derive(Debug)]
struct Step {
    method: Method,
    path: String,
    body: Value,
}

/// An answer without what two servers cannot have in common: ids, and revisions, of which the worker takes some.
fn plain(mut value: Value) -> Value {
    const OWN: [&str; 9] = [
        "id",
        "user_id",
        "revision",
        "created_by",
        "instance",
        "scheduled_change_id",
        "next_cursor",
        "detail",
        "errors",
    ];
    match &mut value {
        Value::Object(fields) => {
            fields.retain(|name, _| !OWN.contains(&name.as_str()));
            fields.values_mut().for_each(|field| *field = plain(field.take()));
        }
        Value::Array(items) => items.iter_mut().for_each(|item| *item = plain(item.take())),
        _ => {}
    }
    value
}

fn setting(random: &mut StdRng, second: Option<u32>) -> Value {
    json!({"override_value": random.random_bool(0.5), "enabled": random.random_bool(0.8),
        "expires_at": second.map(|second| format!("2020-01-01T00:00:{second:02}Z"))})
}

fn step(random: &mut StdRng, changes: usize) -> Step {
    let flag = FLAGS.choose(random).unwrap();
    let user = format!("{{user{}}}", random.random_range(0..USERS));
    let change = format!("{{change{}}}", random.random_range(0..changes));
    // Those of second 25 have ended by the last round.
    let later = *[None, Some(25), Some(50)].choose(random).unwrap();
    let (method, path, body) = match random.random_range(0..10) {
        0 | 1 => {
            let mut body = setting(random, later);
            body["flag_name"] = json!(flag);
            (Method::POST, format!("/api/admin/users/{user}/flag-overrides"), body)
        }
        2 | 3 => (Method::PUT, override_at(&user, flag), setting(random, later)),
        4 | 5 => (Method::PATCH, override_at(&user, flag), json!({"override_value": random.random_bool(0.5)})),
        6 => {
            let body = json!({"default": {"variant": (["on", "off"].choose(random).unwrap())}});
            (Method::PATCH, format!("/api/admin/feature-flags/{flag}"), body)
        }
        7 => (Method::PATCH, format!("/api/admin/feature-flags/{flag}"), json!({"enabled": random.random_bool(0.5)})),
        8 => (Method::PATCH, change, json!({"enabled": random.random_bool(0.5)})),
        _ => (Method::POST, format!("{change}/cancel"), Value::Null),
    };
    Step { method, path, body }
}

/// Each way to set an override, at one that has ended at second 10, and what comes of it.
fn steps_at_ended_overrides() -> [(Step, u16); 3] {
    let post = (Method::POST, "/api/admin/users/{user0}/flag-overrides".to_owned());
    let put = (Method::PUT, override_at("{user1}", FLAGS[0]));
    let patch = (Method::PATCH, override_at("{user2}", FLAGS[0]));
    let posted = json!({"flag_name": FLAGS[0], "override_value": true});
    let value = json!({"override_value": true});
    [(post, posted, 201), (put, value.clone(), 201), (patch, value, 404)]
        .map(|((method, path), body, status)| (Step { method, path, body }, status))
}

async fn nobody_can_tell_whether_the_worker_was_there(kind: Kind) {
    let mut random = StdRng::seed_from_u64(11);
    let (mut tidied, mut untidied) = (World::start(kind).await, World::start(kind).await);
    let mut history = Vec::new();
    for flag in FLAGS {
        let body = json!({"name": flag, "flag_type": "boolean"});
        history.push(Step { method: Method::POST, path: "/api/admin/feature-flags".to_owned(), body });
        for second in [5, 12, 40] {
            let body = json!({"scheduled_at": format!("2020-01-01T00:00:{second:02}Z"),
                "serve": {"variant": (["on", "off"].choose(&mut random).unwrap())},
                "enabled": random.random_bool(0.3).then(|| random.random_bool(0.7))});
            let path = format!("/api/admin/feature-flags/{flag}/scheduled-changes");
            history.push(Step { method: Method::POST, path, body });
        }
        for user in 0..USERS {
            let by_chance = [None, Some(10), Some(45)][random.random_range(0..3)];
            let end = if flag == FLAGS[0] { Some(10) } else { by_chance };
            let path = override_at(&format!("{{user{user}}}"), flag);
            history.push(Step { method: Method::PUT, path, body: setting(&mut random, end) });
        }
    }
    for step in &history {
        let (one, other) = (tidied.ask(step).await, untidied.ask(step).await);
        assert!(one == other && one.0 == 201, "{step:?}: {one:?} {other:?}");
    }
    for second in [10, 20, 30] {
        tidied.second(second);
        untidied.second(second);
        let round = flags_service::maintenance::run_round(&tidied.app.core, Default::default()).await.expect("a round");
        assert!(second > 10 || (round.overrides_expired > 0 && round.changes_marked > 0), "{round:?}");
        assert_eq!(tidied.values().await, untidied.values().await, "second {second}");
        if second == 10 {
            for (step, status) in steps_at_ended_overrides() {
                let (one, other) = (tidied.ask(&step).await, untidied.ask(&step).await);
                assert!(one == other && one.0 == status, "{step:?}: {one:?} {other:?}");
            }
        }
        for _ in 0..25 {
            let step = step(&mut random, tidied.changes.len());
            assert_eq!(tidied.ask(&step).await, untidied.ask(&step).await, "second {second}: {step:?}");
            assert_eq!(tidied.values().await, untidied.values().await, "second {second}, after {step:?}");
        }
    }
}
