//! The keys of an issuer at a URL: when they are fetched, from where, and what happens when they cannot be.

use std::{sync::Arc, time::Duration};

use flags_domain::Instant;
use flags_service::{
    ManualClock,
    credentials::jwt::{JwtAlgorithm, JwtRefused, JwtVerifier},
};
use flags_tests::{
    eventually,
    issuer::{Answer, KeyServer, config, document, jwk, key, sign},
};
use futures_util::FutureExt as _;
use jsonwebtoken::Algorithm;
use serde_json::json;

use super::jwt::{BEGIN, claims};

const MINUTE: i64 = 60;

struct Scene {
    server: KeyServer,
    clock: Arc<ManualClock>,
    verifier: Arc<JwtVerifier>,
}

impl Scene {
    async fn start(server: KeyServer, path: &str) -> Self {
        let clock = Arc::new(ManualClock::new(at(0)));
        let config = config(server.source(path), &[JwtAlgorithm::Rs256]);
        let verifier = Arc::new(JwtVerifier::start(config, clock.clone()).await.unwrap());
        Self { server, clock, verifier }
    }

    async fn serving(keys: &[&str]) -> Self {
        Self::start(KeyServer::start(serving(keys)), "/keys").await
    }

    /// Asks for a token of this key at so many seconds after the beginning.
    async fn verify(&self, name: &str, seconds: i64) -> Result<(), JwtRefused> {
        self.clock.set(at(seconds));
        self.verifier.verify(&token(name), at(seconds)).await.map(|_| ())
    }
}

fn at(seconds: i64) -> Instant {
    Instant::from_micros((BEGIN + seconds) * 1_000_000)
}

fn serving(keys: &[&str]) -> Answer {
    let keys: Vec<_> = keys.iter().map(|name| jwk(&key(name), Algorithm::RS256, name)).collect();
    Answer::Document(document(&keys))
}

/// Signed by this key, or by none that anybody knows; good for a day.
fn token(name: &str) -> String {
    let mut claims = claims(&uuid::Uuid::nil().to_string());
    claims["exp"] = json!(BEGIN + 24 * 60 * MINUTE);
    let key = if name.starts_with("rsa") { key(name) } else { key("rsa") };
    sign(&key, Algorithm::RS256, json!({"alg": "RS256", "kid": name}), claims)
}

const UNKNOWN: Result<(), JwtRefused> = Err(JwtRefused::UnknownKey);

#[tokio::test(flavor = "multi_thread")]
async fn a_new_key_is_fetched_at_once_but_not_twice_within_a_minute() {
    let scene = Scene::serving(&["rsa"]).await;
    assert_eq!(scene.verify("rsa", 0).await, Ok(()));
    assert_eq!(scene.verify("rsa", 61).await, Ok(()));
    assert_eq!(scene.server.hits(), 1, "a known key is not asked for");
    scene.server.set(serving(&["rsa", "rsa-other"]));
    assert_eq!(scene.verify("rsa-other", 61).await, Ok(()));
    assert_eq!(scene.server.hits(), 2);
    for (seconds, hits) in [(61, 2), (120, 2), (121, 3), (180, 3), (181, 4)] {
        assert_eq!(scene.verify("nobody's", seconds).await, UNKNOWN);
        assert_eq!(scene.server.hits(), hits, "{seconds}");
    }
    // What is not even signed in an allowed way asks for nothing.
    let header = json!({"alg": "ES256", "kid": "new"});
    let other = sign(&key("p256"), Algorithm::ES256, header, claims(&uuid::Uuid::nil().to_string()));
    assert_eq!(scene.verifier.verify(&other, at(1_000)).await.unwrap_err(), JwtRefused::Algorithm);
    assert_eq!(scene.server.hits(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_who_ask_at_once_share_one_answer() {
    let scene = Scene::serving(&["rsa"]).await;
    assert_eq!(scene.verify("rsa", 0).await, Ok(()));
    scene.server.set(serving(&["rsa-other"]));
    scene.clock.set(at(MINUTE));
    let asking: Vec<_> = (0..50)
        .map(|_| {
            let verifier = Arc::clone(&scene.verifier);
            tokio::spawn(async move { verifier.verify(&token("rsa-other"), at(MINUTE)).await.map(|_| ()) })
        })
        .collect();
    for asked in asking {
        assert_eq!(asked.await.unwrap(), Ok(()));
    }
    assert_eq!(scene.server.hits(), 2);
}

// On one thread, so that nothing is fetched while the asker is polled.
#[tokio::test]
async fn whoever_asks_and_goes_away_keeps_nobody_from_the_answer() {
    let scene = Scene::serving(&["rsa"]).await;
    assert_eq!(scene.verify("rsa", 0).await, Ok(()));
    scene.server.set(serving(&["rsa-other"]));
    assert!(scene.verify("rsa-other", MINUTE).now_or_never().is_none(), "polled once, and dropped");
    assert_eq!(scene.verify("rsa-other", MINUTE).await, Ok(()));
    assert_eq!(scene.server.hits(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_read_every_ten_minutes_and_withdrawn_ones_are_gone() {
    let scene = Scene::serving(&["rsa", "rsa-other"]).await;
    assert_eq!(scene.verify("rsa-other", 0).await, Ok(()));
    scene.server.set(serving(&["rsa"]));
    assert_eq!(scene.verify("rsa-other", 10 * MINUTE - 1).await, Ok(()));
    assert_eq!(scene.server.hits(), 1);
    scene.clock.set(at(10 * MINUTE));
    let gone = async || (scene.verify("rsa-other", 10 * MINUTE).await == UNKNOWN).then_some(());
    eventually("the withdrawn key is gone, without anybody asking", gone).await;
    assert_eq!(scene.server.hits(), 2);
    assert_eq!(scene.verify("rsa", 10 * MINUTE).await, Ok(()));
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_issuer_is_down_the_old_keys_stay() {
    let scene = Scene::serving(&["rsa"]).await;
    assert_eq!(scene.verify("rsa", 0).await, Ok(()));
    let rubbish = Answer::Document("<html>sign in first</html>".to_owned());
    let mut now = 0;
    for answer in [Answer::Status(500), Answer::Status(404), rubbish, Answer::Large(1024 * 1024 + 1)] {
        let hits = scene.server.hits();
        scene.server.set(answer);
        now += 60 * MINUTE;
        scene.clock.set(at(now));
        eventually("keys are asked for", async || (scene.server.hits() > hits).then_some(())).await;
        assert_eq!(scene.verify("nobody's", now).await, UNKNOWN);
        assert_eq!(scene.verify("rsa", now).await, Ok(()));
    }
    // After a failure they are read again within a minute.
    let hits = scene.server.hits();
    scene.server.set(serving(&["rsa-other"]));
    scene.clock.set(at(now + MINUTE));
    eventually("keys are asked for again", async || (scene.server.hits() > hits).then_some(())).await;
    assert_eq!(scene.verify("rsa-other", now + MINUTE).await, Ok(()));
    assert_eq!(scene.verify("rsa", now + MINUTE).await, UNKNOWN);
}

#[tokio::test(flavor = "multi_thread")]
async fn redirects_are_followed_three_times_and_never_to_where_others_listen() {
    let moved = |times: usize| Scene::start(KeyServer::start(serving(&["rsa"])), format!("/moved/{times}").leak());
    assert_eq!(moved(3).await.verify("rsa", 0).await, Ok(()));
    assert_eq!(moved(4).await.verify("rsa", 0).await, Err(JwtRefused::KeysUnavailable));
    // An address for documentation (RFC 5737): whoever went there would wait in vain.
    let scene = Scene::start(KeyServer::start(Answer::Redirect("http://192.0.2.1/keys".to_owned())), "/keys").await;
    let begun = std::time::Instant::now();
    assert_eq!(scene.verify("rsa", 0).await, Err(JwtRefused::KeysUnavailable));
    assert!(begun.elapsed() < Duration::from_secs(3), "nobody is asked there");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_issuer_that_is_silent_is_given_up_on() {
    let scene = Scene::start(KeyServer::start(Answer::Silence), "/keys").await;
    let begun = std::time::Instant::now();
    assert_eq!(scene.verify("rsa", 0).await, Err(JwtRefused::KeysUnavailable));
    assert!(begun.elapsed() < Duration::from_secs(15));
    // Without keys at all it is tried again every five seconds.
    scene.server.set(serving(&["rsa"]));
    scene.clock.set(at(5));
    eventually("keys are there", async || (scene.verify("rsa", 5).await == Ok(())).then_some(())).await;
}
