//! Whole tokens, with keys made for tests.

use std::{io::Write as _, path::Path};

use jsonwebtoken::{Algorithm, EncodingKey, crypto, jwk::Jwk};
use serde_json::{Value, json};
use tempfile::NamedTempFile;

use super::{keys::KeySet, *};
use crate::ManualClock;

const NOW: i64 = 1_900_000_000;
const ANN: &str = "01890000-0000-7000-8000-000000000001";

fn key(name: &str) -> EncodingKey {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../../tests/keys/test-{name}.der"));
    let der = std::fs::read(path).unwrap();
    match name {
        "rsa" | "rsa-other" => EncodingKey::from_rsa_der(&der),
        "ed25519" => EncodingKey::from_ed_der(&der),
        _ => EncodingKey::from_ec_der(&der),
    }
}

/// The key that signs by this algorithm.
fn key_for(algorithm: JwtAlgorithm) -> EncodingKey {
    key(match algorithm {
        JwtAlgorithm::Es256 => "p256",
        JwtAlgorithm::Es384 => "p384",
        JwtAlgorithm::EdDsa => "ed25519",
        _ => "rsa",
    })
}

fn library(algorithm: JwtAlgorithm) -> Algorithm {
    algorithm.as_str().parse().unwrap()
}

/// The public half of a key, as issuers publish it.
fn jwk(key: &EncodingKey, algorithm: JwtAlgorithm, id: &str) -> Value {
    let mut jwk = serde_json::to_value(Jwk::from_encoding_key(key, library(algorithm)).unwrap()).unwrap();
    jwk["kid"] = json!(id);
    jwk
}

fn rsa() -> Value {
    jwk(&key("rsa"), JwtAlgorithm::Rs256, "k")
}

fn with(mut jwk: Value, name: &str, value: Value) -> Value {
    jwk[name] = value;
    jwk
}

fn without(mut jwk: Value, name: &str) -> Value {
    jwk.as_object_mut().unwrap().remove(name);
    jwk
}

fn claims() -> Value {
    json!({"iss": "https://issuer.example", "aud": "flags", "sub": ANN, "exp": NOW + 60})
}

fn sign(key: &EncodingKey, algorithm: JwtAlgorithm, header: &Value) -> String {
    let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let message = format!("{}.{}", encode(header), encode(&claims()));
    let signature = crypto::sign(message.as_bytes(), key, library(algorithm)).unwrap();
    format!("{message}.{signature}")
}

fn file(content: &[u8]) -> NamedTempFile {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(content).unwrap();
    file
}

fn document(keys: &[Value]) -> Vec<u8> {
    json!({ "keys": keys }).to_string().into_bytes()
}

fn config(keys: &NamedTempFile, algorithms: &[JwtAlgorithm]) -> JwtConfig {
    JwtConfig {
        issuer: "https://issuer.example".to_owned(),
        audience: "flags".to_owned(),
        keys: KeySource::File(keys.path().to_owned()),
        algorithms: algorithms.to_vec(),
        user_claim: UserClaim::Sub,
        role_claim: None,
        allowed_roles: Vec::new(),
    }
}

fn now() -> Instant {
    Instant::from_micros(NOW * 1_000_000)
}

fn clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::new(now()))
}

#[tokio::test]
async fn each_algorithm_verifies_what_its_key_signed() {
    for algorithm in JwtAlgorithm::ALL {
        let key = key_for(algorithm);
        let keys = file(&document(&[jwk(&key, algorithm, "k")]));
        let verifier = JwtVerifier::start(config(&keys, &[algorithm]), clock()).await.unwrap();
        let token = sign(&key, algorithm, &json!({"alg": algorithm.as_str(), "kid": "k"}));
        let verified = verifier.verify(&token, now()).await.unwrap();
        assert_eq!(verified.user, NamedUser::Id(ANN.parse().unwrap()), "{algorithm:?}");
        // Any other letter of the signature but the last, some of whose bits say nothing.
        let place = token.len() - 20;
        let other = if &token[place..=place] == "A" { "B" } else { "A" };
        let changed = format!("{}{other}{}", &token[..place], &token[place + 1..]);
        assert_eq!(verifier.verify(&changed, now()).await, Err(JwtRefused::Signature), "{algorithm:?}");
    }
}

#[tokio::test]
async fn a_key_verifies_one_algorithm_only() {
    let rsa_key = key("rsa");
    let all = JwtAlgorithm::ALL;
    let keys = file(&document(&[rsa()]));
    let verifier = JwtVerifier::start(config(&keys, &all), clock()).await.unwrap();
    for algorithm in [JwtAlgorithm::Rs384, JwtAlgorithm::Rs512, JwtAlgorithm::Ps256] {
        let token = sign(&rsa_key, algorithm, &json!({"alg": algorithm.as_str(), "kid": "k"}));
        assert_eq!(verifier.verify(&token, now()).await, Err(JwtRefused::Algorithm));
    }
    // Signed in one way, said to be signed in the key's own.
    let token = sign(&rsa_key, JwtAlgorithm::Rs512, &json!({"alg": "RS256", "kid": "k"}));
    assert_eq!(verifier.verify(&token, now()).await, Err(JwtRefused::Signature));
    let token = sign(&key("rsa-other"), JwtAlgorithm::Rs256, &json!({"alg": "RS256", "kid": "k"}));
    assert_eq!(verifier.verify(&token, now()).await, Err(JwtRefused::Signature));
    for name in ["none", "None", "HS256", "rs256", "RS256 ", "ES512", ""] {
        let token = sign(&rsa_key, JwtAlgorithm::Rs256, &json!({"alg": name, "kid": "k"}));
        assert_eq!(verifier.verify(&token, now()).await, Err(JwtRefused::Algorithm), "{name}");
    }
}

#[tokio::test]
async fn a_token_that_names_no_key_means_the_only_one() {
    let (p256, header) = (key("p256"), json!({"alg": "ES256"}));
    let ec = jwk(&p256, JwtAlgorithm::Es256, "e");
    let both = [JwtAlgorithm::Rs256, JwtAlgorithm::Es256];
    let token = sign(&p256, JwtAlgorithm::Es256, &header);
    for (keys, expected) in [
        (vec![ec.clone()], None),
        (vec![without(ec.clone(), "kid")], None),
        // One that is left out does not count.
        (vec![with(rsa(), "use", json!("enc")), ec.clone()], None),
        (vec![rsa(), ec], Some(JwtRefused::NoKeyNamed)),
        (vec![rsa()], Some(JwtRefused::Algorithm)),
    ] {
        let keys = file(&document(&keys));
        let verifier = JwtVerifier::start(config(&keys, &both), clock()).await.unwrap();
        assert_eq!(verifier.verify(&token, now()).await.err(), expected);
    }
}

#[test]
fn keys_that_cannot_be_used_are_left_out() {
    use JwtAlgorithm::{EdDsa, Es256, Ps256, Rs256};
    let ec = jwk(&key("p256"), Es256, "k");
    let short = with(rsa(), "n", json!(URL_SAFE_NO_PAD.encode([0xff; 255])));
    let padded = with(rsa(), "n", json!(URL_SAFE_NO_PAD.encode([[0_u8; 128], [0xff; 128]].concat())));
    for (jwk, allowed, why) in [
        (rsa(), &[Rs256][..], None),
        (without(rsa(), "alg"), &[Ps256, Rs256], None),
        (with(rsa(), "use", json!("sig")), &[Rs256], None),
        (with(rsa(), "key_ops", json!(["verify"])), &[Rs256], None),
        (ec.clone(), &[Rs256, Es256], None),
        (with(rsa(), "use", json!("enc")), &[Rs256], Some("it is not for verifying signatures")),
        (with(rsa(), "key_ops", json!(["encrypt"])), &[Rs256], Some("it is not for verifying signatures")),
        (with(rsa(), "key_ops", json!([])), &[Rs256], Some("it is not for verifying signatures")),
        (rsa(), &[Ps256], Some("its algorithm is none of the allowed ones")),
        (with(rsa(), "alg", json!("HS256")), &[Rs256], Some("its algorithm is none of the allowed ones")),
        (with(rsa(), "alg", json!("ES256")), &[Rs256, Es256], Some("its algorithm is none of the allowed ones")),
        (with(rsa(), "alg", json!("RSA-OAEP")), &[Rs256], Some("its algorithm is none of the allowed ones")),
        (with(rsa(), "alg", json!(1)), &[Rs256], Some("it cannot be read")),
        (ec, &[Rs256, EdDsa], Some("its algorithm is none of the allowed ones")),
        (short, &[Rs256], Some("it is shorter than 2048 bits")),
        (padded, &[Rs256], Some("it is shorter than 2048 bits")),
        (with(rsa(), "n", json!("?")), &[Rs256], Some("it cannot be read")),
        (with(rsa(), "d", json!("AQAB")), &[Rs256], Some("it is a private key, which nobody but the issuer may have")),
        (
            json!({"kty": "oct", "k": "c2VjcmV0", "kid": "k"}),
            &[Rs256],
            Some("it is symmetric: who can verify could sign"),
        ),
        (json!({"kty": "new", "kid": "k"}), &[Rs256], Some("its kind is not supported")),
        (json!({"kid": "k"}), &[Rs256], Some("its kind is not supported")),
        (json!(7), &[Rs256], Some("it cannot be read")),
    ] {
        let shown = jwk.to_string();
        let set = KeySet::read(&document(&[jwk]), allowed).unwrap();
        assert_eq!(set.ignored.first().map(|ignored| ignored.why), why, "{shown}");
        assert_eq!(set.is_empty(), why.is_some());
    }
    let twice = KeySet::read(&document(&[rsa(), rsa()]), &[Rs256]).unwrap();
    assert_eq!(twice.ignored.len(), 1);
    for no_document in ["", "[]", "{}", r#"{"keys": {}}"#, r#"{"keys": 7}"#, "-----BEGIN PUBLIC KEY-----"] {
        assert!(KeySet::read(no_document.as_bytes(), &[Rs256]).is_err(), "{no_document}");
    }
    assert!(!KeySet::read(rsa().to_string().as_bytes(), &[Rs256]).unwrap().is_empty(), "a bare JWK");
}

#[test]
fn a_key_that_does_not_say_is_pinned_to_the_first_algorithm_that_fits() {
    let open = without(rsa(), "alg");
    let allowed = [JwtAlgorithm::Es256, JwtAlgorithm::Ps256, JwtAlgorithm::Rs256];
    let set = KeySet::read(&document(&[open]), &allowed).unwrap();
    assert!(set.find(Some("k"), JwtAlgorithm::Ps256).is_ok());
    assert_eq!(set.find(Some("k"), JwtAlgorithm::Rs256).err(), Some(JwtRefused::Algorithm));
    assert_eq!(set.find(Some("K"), JwtAlgorithm::Ps256).err(), Some(JwtRefused::UnknownKey));
    assert_eq!(set.find(Some("k "), JwtAlgorithm::Ps256).err(), Some(JwtRefused::UnknownKey));
}

#[tokio::test]
async fn a_file_is_read_again_for_a_key_that_is_not_known_at_most_once_a_minute() {
    let (old, new) = (key("rsa"), key("rsa-other"));
    let keys = file(&document(&[jwk(&old, JwtAlgorithm::Rs256, "old")]));
    let clock = clock();
    let verifier = JwtVerifier::start(config(&keys, &[JwtAlgorithm::Rs256]), clock.clone()).await.unwrap();
    let by_old = sign(&old, JwtAlgorithm::Rs256, &json!({"alg": "RS256", "kid": "old"}));
    let by_new = sign(&new, JwtAlgorithm::Rs256, &json!({"alg": "RS256", "kid": "new"}));
    std::fs::write(keys.path(), document(&[jwk(&new, JwtAlgorithm::Rs256, "new")])).unwrap();
    let at = |seconds: i64| now().plus_micros(seconds * 1_000_000);
    // It was read less than a minute ago.
    assert_eq!(verifier.verify(&by_new, at(59)).await, Err(JwtRefused::UnknownKey));
    assert!(verifier.verify(&by_old, at(59)).await.is_ok());
    clock.set(at(60));
    assert_eq!(verifier.verify(&by_new, at(60)).await, Err(JwtRefused::Expired), "the signature is good");
    assert_eq!(verifier.verify(&by_old, at(60)).await, Err(JwtRefused::UnknownKey), "the old key is gone");
    // A file that cannot be read changes nothing.
    std::fs::write(keys.path(), "rubbish").unwrap();
    assert_eq!(verifier.verify(&by_old, at(120)).await, Err(JwtRefused::UnknownKey));
    assert_eq!(verifier.verify(&by_new, now()).await.map(|verified| verified.expires_at), Ok(at(60)));
}

#[tokio::test]
async fn a_start_without_a_good_key_says_why() {
    let rs256 = [JwtAlgorithm::Rs256];
    let failure =
        async |config: JwtConfig| JwtVerifier::start(config, clock()).await.map(|_| ()).unwrap_err().to_string();
    let empty = file(&document(&[]));
    let unusable = file(&document(&[with(rsa(), "use", json!("enc"))]));
    let good = file(&document(&[rsa()]));
    let missing = JwtConfig { keys: KeySource::File("/nowhere/keys.json".into()), ..config(&good, &rs256) };
    assert!(failure(missing).await.contains("/nowhere/keys.json: No such file"));
    assert!(failure(config(&file(b"x"), &rs256)).await.contains("neither a JWK Set nor a JWK"));
    assert!(failure(config(&empty, &rs256)).await.contains("no key that can be used"));
    assert!(failure(config(&unusable, &rs256)).await.ends_with("used: it is not for verifying signatures"));
    assert!(failure(JwtConfig { issuer: String::new(), ..config(&good, &rs256) }).await.contains("must not be empty"));
    assert!(failure(config(&good, &[])).await.contains("at least one algorithm"));
    assert!(failure(JwtConfig { role_claim: Some("r".to_owned()), ..config(&good, &rs256) }).await.contains("none is"));
    let roles = vec![("x".to_owned(), Role::Admin)];
    assert!(failure(JwtConfig { allowed_roles: roles, ..config(&good, &rs256) }).await.contains("is not named"));
}

#[test]
fn keys_are_fetched_only_where_nobody_can_put_in_others() {
    for good in [
        "https://issuer.example/jwks",
        "HTTPS://issuer.example",
        "http://127.0.0.1:8080/k",
        "http://[::1]/k",
        "http://localhost/k",
    ] {
        assert!(matches!(KeySource::parse(good), Ok(KeySource::Url(_))), "{good}");
    }
    for bad in [
        "http://issuer.example/jwks",
        "http://10.0.0.1/",
        "http://localhost.evil.example/",
        "https://me:pass@issuer.example/",
        "https://",
        "http://127.0.0.1.evil.example/",
    ] {
        assert!(KeySource::parse(bad).is_err(), "{bad}");
    }
    assert!(matches!(KeySource::parse("keys.json"), Ok(KeySource::File(_))));
    let url = KeySource::parse("https://issuer.example/jwks?secret=1").unwrap();
    assert_eq!(format!("{url:?}"), "Url(issuer.example)");
}

#[test]
fn a_jwt_has_three_parts() {
    assert!(looks_like_jwt("eyJ.e30.c2ln"));
    for text in [
        "", ".", "..", "a.b", "a.b.", ".b.c", "a..c", "a.b.c.d", "a.b.c=", "a.b+.c", "a.b/.c", "a.b. c", "flg_abc",
        "a.é.c",
    ] {
        assert!(!looks_like_jwt(text), "{text}");
    }
}

#[tokio::test]
async fn what_is_too_long_or_no_base64_is_refused_and_nothing_prints_itself() {
    let keys = file(&document(&[rsa()]));
    let verifier = JwtVerifier::start(config(&keys, &[JwtAlgorithm::Rs256]), clock()).await.unwrap();
    let long = format!("{}.e30.c2ln", "A".repeat(MAX_LENGTH));
    assert_eq!(verifier.verify(&long, now()).await, Err(JwtRefused::TooLong));
    assert_eq!(verifier.verify("A.e30.c2ln", now()).await, Err(JwtRefused::Malformed));
    assert_eq!(verifier.verify("bm90IGpzb24.e30.c2ln", now()).await, Err(JwtRefused::Malformed));
    assert_eq!(format!("{verifier:?}"), "JwtVerifier(…)");
}
