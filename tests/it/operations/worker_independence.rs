//! Responses do not depend on whether the worker has run, except those that show expired overrides.

use flags_domain::Instant;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};
use reqwest::Method;
use serde_json::{Value, json};

use flags_tests::{
    app::{TestApp, override_path},
    caller::Caller,
    database::DatabaseKind,
    on_both_databases,
};

on_both_databases! {
    responses_do_not_depend_on_whether_the_worker_has_run,
}

const FLAGS: [&str; 5] = ["f0", "f1", "f2", "f3", "f4"];
const USER_COUNT: usize = 4;

/// One of two servers that execute the same requests.
struct ComparedServer {
    app: TestApp,
    users: Vec<(String, Caller)>,
    /// Paths of the scheduled changes, in the order of their creation.
    scheduled_changes: Vec<String>,
}

impl ComparedServer {
    async fn start(kind: DatabaseKind) -> Self {
        let app = TestApp::start(kind).await;
        // The worker acts only on instants that have passed on its own clock and on the database clock.
        app.set_clock_before_real_time();
        let mut users = Vec::new();
        for number in 0..USER_COUNT {
            users.push(app.create_user(&format!("user{number}")).await);
        }
        Self { app, users, scheduled_changes: Vec::new() }
    }

    fn set_second(&self, second: u32) {
        self.app.clock.set(Instant::parse(&format!("2020-01-01T00:00:{second:02}Z")).unwrap());
    }

    /// Sends a request. Returns the status and the body, without values that differ between servers, such as ids. The path
    /// may contain the placeholders `{user0}` for a user id and `{change0}` for the path of a scheduled change.
    async fn execute(&mut self, step: &Step) -> (u16, Value) {
        let mut path = step.path.clone();
        for (number, (id, _)) in self.users.iter().enumerate() {
            path = path.replace(&format!("{{user{number}}}"), id);
        }
        for (number, change_path) in self.scheduled_changes.iter().enumerate() {
            path = path.replace(&format!("{{change{number}}}"), change_path);
        }
        let response = self.app.admin.send_json(step.method.clone(), &path, &[], &step.body).await;
        if path.ends_with("/scheduled-changes") && response.status == 201 {
            self.scheduled_changes.push(response.header("location").to_owned());
        }
        (response.status.as_u16(), comparable(serde_json::from_str(&response.text).unwrap_or_default()))
    }

    async fn responses(&self) -> Vec<Value> {
        let mut responses = Vec::new();
        for (id, caller) in &self.users {
            responses.push(comparable(caller.get("/api/flags/me").await.expect(200).json()));
            responses
                .push(comparable(self.app.admin.get(&format!("/api/admin/users/{id}/flags")).await.expect(200).json()));
        }
        for flag in FLAGS {
            responses.push(comparable(self.app.admin.get(&format!("/api/admin/feature-flags/{flag}")).await.json()));
        }
        responses.push(comparable(self.app.admin.get("/api/admin/scheduled-changes").await.expect(200).json()));
        responses
    }
}

#[derive(Debug)]
struct Step {
    method: Method,
    path: String,
    body: Value,
}

/// Removes fields that differ between the two servers: ids, and revisions, because the worker creates revisions.
fn comparable(mut value: Value) -> Value {
    const SERVER_SPECIFIC: [&str; 9] = [
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
            fields.retain(|name, _| !SERVER_SPECIFIC.contains(&name.as_str()));
            fields.values_mut().for_each(|field| *field = comparable(field.take()));
        }
        Value::Array(items) => items.iter_mut().for_each(|item| *item = comparable(item.take())),
        _ => {}
    }
    value
}

fn random_override(rng: &mut StdRng, second: Option<u32>) -> Value {
    json!({"override_value": rng.random_bool(0.5), "enabled": rng.random_bool(0.8),
        "expires_at": second.map(|second| format!("2020-01-01T00:00:{second:02}Z"))})
}

fn random_step(rng: &mut StdRng, change_count: usize) -> Step {
    let flag = FLAGS.choose(rng).unwrap();
    let user = format!("{{user{}}}", rng.random_range(0..USER_COUNT));
    let change_path = format!("{{change{}}}", rng.random_range(0..change_count));
    // The last worker round, at second 30, removes overrides that expire at second 25.
    let expiry = *[None, Some(25), Some(50)].choose(rng).unwrap();
    let (method, path, body) = match rng.random_range(0..10) {
        0 | 1 => {
            let mut body = random_override(rng, expiry);
            body["flag_name"] = json!(flag);
            (Method::POST, format!("/api/admin/users/{user}/flag-overrides"), body)
        }
        2 | 3 => (Method::PUT, override_path(&user, flag), random_override(rng, expiry)),
        4 | 5 => (Method::PATCH, override_path(&user, flag), json!({"override_value": rng.random_bool(0.5)})),
        6 => {
            let body = json!({"default": {"variant": (["on", "off"].choose(rng).unwrap())}});
            (Method::PATCH, format!("/api/admin/feature-flags/{flag}"), body)
        }
        7 => (Method::PATCH, format!("/api/admin/feature-flags/{flag}"), json!({"enabled": rng.random_bool(0.5)})),
        8 => (Method::PATCH, change_path, json!({"enabled": rng.random_bool(0.5)})),
        _ => (Method::POST, format!("{change_path}/cancel"), Value::Null),
    };
    Step { method, path, body }
}

/// POST, PUT and PATCH of an override that expired at second 10, each with the expected status.
fn requests_that_set_expired_overrides() -> [(Step, u16); 3] {
    let post = (Method::POST, "/api/admin/users/{user0}/flag-overrides".to_owned());
    let put = (Method::PUT, override_path("{user1}", FLAGS[0]));
    let patch = (Method::PATCH, override_path("{user2}", FLAGS[0]));
    let body_with_flag = json!({"flag_name": FLAGS[0], "override_value": true});
    let value = json!({"override_value": true});
    [(post, body_with_flag, 201), (put, value.clone(), 201), (patch, value, 404)]
        .map(|((method, path), body, status)| (Step { method, path, body }, status))
}

async fn responses_do_not_depend_on_whether_the_worker_has_run(kind: DatabaseKind) {
    let mut rng = StdRng::seed_from_u64(11);
    let (mut with_worker, mut without_worker) = (ComparedServer::start(kind).await, ComparedServer::start(kind).await);
    let mut history = Vec::new();
    for flag in FLAGS {
        let body = json!({"name": flag, "flag_type": "boolean"});
        history.push(Step { method: Method::POST, path: "/api/admin/feature-flags".to_owned(), body });
        for second in [5, 12, 40] {
            let body = json!({"scheduled_at": format!("2020-01-01T00:00:{second:02}Z"),
                "serve": {"variant": (["on", "off"].choose(&mut rng).unwrap())},
                "enabled": rng.random_bool(0.3).then(|| rng.random_bool(0.7))});
            let path = format!("/api/admin/feature-flags/{flag}/scheduled-changes");
            history.push(Step { method: Method::POST, path, body });
        }
        for user in 0..USER_COUNT {
            let random_expiry = [None, Some(10), Some(45)][rng.random_range(0..3)];
            let expiry = if flag == FLAGS[0] { Some(10) } else { random_expiry };
            let path = override_path(&format!("{{user{user}}}"), flag);
            history.push(Step { method: Method::PUT, path, body: random_override(&mut rng, expiry) });
        }
    }
    for step in &history {
        let (response_with, response_without) = (with_worker.execute(step).await, without_worker.execute(step).await);
        assert!(
            response_with == response_without && response_with.0 == 201,
            "{step:?}: {response_with:?} {response_without:?}"
        );
    }
    for second in [10, 20, 30] {
        with_worker.set_second(second);
        without_worker.set_second(second);
        let round = flags_service::maintenance::run_round(&with_worker.app.core, Default::default())
            .await
            .expect("the maintenance round succeeds");
        assert!(second > 10 || (round.overrides_expired > 0 && round.scheduled_changes_applied > 0), "{round:?}");
        assert_eq!(with_worker.responses().await, without_worker.responses().await, "second {second}");
        if second == 10 {
            for (step, status) in requests_that_set_expired_overrides() {
                let (response_with, response_without) =
                    (with_worker.execute(&step).await, without_worker.execute(&step).await);
                assert!(
                    response_with == response_without && response_with.0 == status,
                    "{step:?}: {response_with:?} {response_without:?}"
                );
            }
        }
        for _ in 0..25 {
            let step = random_step(&mut rng, with_worker.scheduled_changes.len());
            assert_eq!(
                with_worker.execute(&step).await,
                without_worker.execute(&step).await,
                "second {second}: {step:?}"
            );
            assert_eq!(
                with_worker.responses().await,
                without_worker.responses().await,
                "second {second}, after {step:?}"
            );
        }
    }
}
