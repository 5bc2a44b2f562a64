//! Keys of a JWT issuer at a URL: fetching, caching and failures.

use std::{sync::Arc, time::Duration};

use flags_domain::Instant;
use flags_service::{
    ManualClock,
    credentials::jwt::{JwtAlgorithm, JwtRejection, JwtVerifier},
};
use flags_tests::{
    eventually,
    issuer::{KeyServer, KeyServerResponse, jwk, jwk_set, jwt_config, private_key, sign_jwt},
};
use futures_util::FutureExt as _;
use jsonwebtoken::Algorithm;
use serde_json::json;

use super::jwt::{START_SECONDS, claims};

/// One minute, in seconds.
const MINUTE: i64 = 60;

/// A key server and a verifier that fetches its keys.
struct VerifierEnv {
    server: KeyServer,
    clock: Arc<ManualClock>,
    verifier: Arc<JwtVerifier>,
}

impl VerifierEnv {
    async fn start(server: KeyServer, path: &str) -> Self {
        let clock = Arc::new(ManualClock::new(instant_at(0)));
        let config = jwt_config(server.source(path), &[JwtAlgorithm::Rs256]);
        let verifier = Arc::new(JwtVerifier::start(config, clock.clone()).await.unwrap());
        Self { server, clock, verifier }
    }

    async fn with_keys(keys: &[&str]) -> Self {
        Self::start(KeyServer::start(key_set_response(keys)), "/keys").await
    }

    /// Verifies a token with this key id, `seconds` after the start of the test clock.
    async fn verify(&self, key_id: &str, seconds: i64) -> Result<(), JwtRejection> {
        self.clock.set(instant_at(seconds));
        self.verifier.verify(&token_with_key_id(key_id), instant_at(seconds)).await.map(|_| ())
    }
}

fn instant_at(seconds: i64) -> Instant {
    Instant::from_micros((START_SECONDS + seconds) * 1_000_000)
}

/// A JWK Set with the public halves of these test keys.
fn key_set_response(keys: &[&str]) -> KeyServerResponse {
    let keys: Vec<_> = keys.iter().map(|name| jwk(&private_key(name), Algorithm::RS256, name)).collect();
    KeyServerResponse::Document(jwk_set(&keys))
}

/// A token with this key id that is valid for a day. It is signed with the RSA test key of that name, or with `rsa` if
/// the name is unknown.
fn token_with_key_id(key_id: &str) -> String {
    let mut claims = claims(&uuid::Uuid::nil().to_string());
    claims["exp"] = json!(START_SECONDS + 24 * 60 * MINUTE);
    let key = if key_id.starts_with("rsa") { private_key(key_id) } else { private_key("rsa") };
    sign_jwt(&key, Algorithm::RS256, json!({"alg": "RS256", "kid": key_id}), claims)
}

const UNKNOWN_KEY: Result<(), JwtRejection> = Err(JwtRejection::UnknownKey);

#[tokio::test(flavor = "multi_thread")]
async fn unknown_key_id_triggers_at_most_one_key_fetch_per_minute() {
    let env = VerifierEnv::with_keys(&["rsa"]).await;
    assert_eq!(env.verify("rsa", 0).await, Ok(()));
    assert_eq!(env.verify("rsa", 61).await, Ok(()));
    assert_eq!(env.server.request_count(), 1, "a cached key causes no fetch");
    env.server.set_response(key_set_response(&["rsa", "rsa-other"]));
    assert_eq!(env.verify("rsa-other", 61).await, Ok(()));
    assert_eq!(env.server.request_count(), 2);
    for (seconds, request_count) in [(61, 2), (120, 2), (121, 3), (180, 3), (181, 4)] {
        assert_eq!(env.verify("unknown", seconds).await, UNKNOWN_KEY);
        assert_eq!(env.server.request_count(), request_count, "{seconds}");
    }
    // A token with a disallowed algorithm triggers no fetch.
    let header = json!({"alg": "ES256", "kid": "new"});
    let disallowed = sign_jwt(&private_key("p256"), Algorithm::ES256, header, claims(&uuid::Uuid::nil().to_string()));
    assert_eq!(
        env.verifier.verify(&disallowed, instant_at(1_000)).await.unwrap_err(),
        JwtRejection::AlgorithmNotAllowed
    );
    assert_eq!(env.server.request_count(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_verifications_share_one_key_fetch() {
    let env = VerifierEnv::with_keys(&["rsa"]).await;
    assert_eq!(env.verify("rsa", 0).await, Ok(()));
    env.server.set_response(key_set_response(&["rsa-other"]));
    env.clock.set(instant_at(MINUTE));
    let verifications: Vec<_> = (0..50)
        .map(|_| {
            let verifier = Arc::clone(&env.verifier);
            tokio::spawn(async move {
                verifier.verify(&token_with_key_id("rsa-other"), instant_at(MINUTE)).await.map(|_| ())
            })
        })
        .collect();
    for verification in verifications {
        assert_eq!(verification.await.unwrap(), Ok(()));
    }
    assert_eq!(env.server.request_count(), 2);
}

// Runs on one thread so that the fetch makes no progress while the verification is polled.
#[tokio::test]
async fn cancelled_verification_does_not_cancel_the_key_fetch() {
    let env = VerifierEnv::with_keys(&["rsa"]).await;
    assert_eq!(env.verify("rsa", 0).await, Ok(()));
    env.server.set_response(key_set_response(&["rsa-other"]));
    assert!(env.verify("rsa-other", MINUTE).now_or_never().is_none(), "the verification is polled once and dropped");
    assert_eq!(env.verify("rsa-other", MINUTE).await, Ok(()));
    assert_eq!(env.server.request_count(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn withdrawn_jwt_keys_are_rejected_after_the_ten_minute_refresh() {
    let env = VerifierEnv::with_keys(&["rsa", "rsa-other"]).await;
    assert_eq!(env.verify("rsa-other", 0).await, Ok(()));
    env.server.set_response(key_set_response(&["rsa"]));
    assert_eq!(env.verify("rsa-other", 10 * MINUTE - 1).await, Ok(()));
    assert_eq!(env.server.request_count(), 1);
    env.clock.set(instant_at(10 * MINUTE));
    let withdrawn = async || (env.verify("rsa-other", 10 * MINUTE).await == UNKNOWN_KEY).then_some(());
    eventually("the periodic refresh removes the withdrawn key", withdrawn).await;
    assert_eq!(env.server.request_count(), 2);
    assert_eq!(env.verify("rsa", 10 * MINUTE).await, Ok(()));
}

#[tokio::test(flavor = "multi_thread")]
async fn cached_jwt_keys_stay_valid_while_the_issuer_fails() {
    let env = VerifierEnv::with_keys(&["rsa"]).await;
    assert_eq!(env.verify("rsa", 0).await, Ok(()));
    let login_page = KeyServerResponse::Document("<html>sign in first</html>".to_owned());
    let mut now = 0;
    for failure in [
        KeyServerResponse::Status(500),
        KeyServerResponse::Status(404),
        login_page,
        KeyServerResponse::Large(1024 * 1024 + 1),
    ] {
        let request_count = env.server.request_count();
        env.server.set_response(failure);
        now += 60 * MINUTE;
        env.clock.set(instant_at(now));
        eventually("the verifier fetches keys", async || (env.server.request_count() > request_count).then_some(()))
            .await;
        assert_eq!(env.verify("unknown", now).await, UNKNOWN_KEY);
        assert_eq!(env.verify("rsa", now).await, Ok(()));
    }
    // After a failure, the verifier fetches the keys again within a minute.
    let request_count = env.server.request_count();
    env.server.set_response(key_set_response(&["rsa-other"]));
    env.clock.set(instant_at(now + MINUTE));
    eventually("the verifier fetches keys after a failure", async || {
        (env.server.request_count() > request_count).then_some(())
    })
    .await;
    assert_eq!(env.verify("rsa-other", now + MINUTE).await, Ok(()));
    assert_eq!(env.verify("rsa", now + MINUTE).await, UNKNOWN_KEY);
}

#[tokio::test(flavor = "multi_thread")]
async fn key_fetch_follows_three_redirects_but_none_to_an_insecure_url() {
    let start_with_redirects = |redirects: usize| {
        VerifierEnv::start(KeyServer::start(key_set_response(&["rsa"])), format!("/moved/{redirects}").leak())
    };
    assert_eq!(start_with_redirects(3).await.verify("rsa", 0).await, Ok(()));
    assert_eq!(start_with_redirects(4).await.verify("rsa", 0).await, Err(JwtRejection::KeysUnavailable));
    // 192.0.2.1 is reserved for documentation (RFC 5737): a connection attempt would time out.
    let env =
        VerifierEnv::start(KeyServer::start(KeyServerResponse::Redirect("http://192.0.2.1/keys".to_owned())), "/keys")
            .await;
    let started = std::time::Instant::now();
    assert_eq!(env.verify("rsa", 0).await, Err(JwtRejection::KeysUnavailable));
    assert!(
        started.elapsed() < Duration::from_secs(3),
        "the verifier does not follow a redirect to plain HTTP on another host"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn key_fetch_times_out_when_the_issuer_does_not_respond() {
    let env = VerifierEnv::start(KeyServer::start(KeyServerResponse::Silence), "/keys").await;
    let started = std::time::Instant::now();
    assert_eq!(env.verify("rsa", 0).await, Err(JwtRejection::KeysUnavailable));
    assert!(started.elapsed() < Duration::from_secs(15));
    // Without any keys, the verifier retries every five seconds.
    env.server.set_response(key_set_response(&["rsa"]));
    env.clock.set(instant_at(5));
    eventually("the verifier has keys", async || (env.verify("rsa", 5).await == Ok(())).then_some(())).await;
}
