//! Tests of complete tokens, signed with the test keys in `tests/keys`.

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

/// Loads the test key for an algorithm.
fn key_for(algorithm: JwtAlgorithm) -> EncodingKey {
    key(match algorithm {
        JwtAlgorithm::Es256 => "p256",
        JwtAlgorithm::Es384 => "p384",
        JwtAlgorithm::EdDsa => "ed25519",
        _ => "rsa",
    })
}

fn to_library(algorithm: JwtAlgorithm) -> Algorithm {
    algorithm.as_str().parse().unwrap()
}

/// Returns the public JWK of a key.
fn jwk(key: &EncodingKey, algorithm: JwtAlgorithm, id: &str) -> Value {
    let mut jwk = serde_json::to_value(Jwk::from_encoding_key(key, to_library(algorithm)).unwrap()).unwrap();
    jwk["kid"] = json!(id);
    jwk
}

fn rsa_jwk() -> Value {
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
    let signature = crypto::sign(message.as_bytes(), key, to_library(algorithm)).unwrap();
    format!("{message}.{signature}")
}

fn temporary_file(content: &[u8]) -> NamedTempFile {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(content).unwrap();
    file
}

fn jwk_set(keys: &[Value]) -> Vec<u8> {
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
        users: JwtUsers::Known,
        attributes: Vec::new(),
    }
}

fn now() -> Instant {
    Instant::from_micros(NOW * 1_000_000)
}

fn clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::new(now()))
}

#[tokio::test]
async fn verifies_signatures_of_each_algorithm() {
    for algorithm in JwtAlgorithm::ALL {
        let key = key_for(algorithm);
        let keys = temporary_file(&jwk_set(&[jwk(&key, algorithm, "k")]));
        let verifier = JwtVerifier::start(config(&keys, &[algorithm]), clock()).await.unwrap();
        let token = sign(&key, algorithm, &json!({"alg": algorithm.as_str(), "kid": "k"}));
        let verified = verifier.verify(&token, now()).await.unwrap();
        assert_eq!(verified.user, JwtUser::Key(ANN.to_owned()), "{algorithm:?}");
        // Changes a character inside the signature. The last character is unsuitable, because some of its bits are
        // unused.
        let index = token.len() - 20;
        let replacement = if &token[index..=index] == "A" { "B" } else { "A" };
        let forged = format!("{}{replacement}{}", &token[..index], &token[index + 1..]);
        assert_eq!(verifier.verify(&forged, now()).await, Err(JwtRejection::InvalidSignature), "{algorithm:?}");
    }
}

#[tokio::test]
async fn rejects_tokens_signed_with_another_algorithm_or_key() {
    let rsa_key = key("rsa");
    let keys = temporary_file(&jwk_set(&[rsa_jwk()]));
    let verifier = JwtVerifier::start(config(&keys, &JwtAlgorithm::ALL), clock()).await.unwrap();
    for algorithm in [JwtAlgorithm::Rs384, JwtAlgorithm::Rs512, JwtAlgorithm::Ps256] {
        let token = sign(&rsa_key, algorithm, &json!({"alg": algorithm.as_str(), "kid": "k"}));
        assert_eq!(verifier.verify(&token, now()).await, Err(JwtRejection::AlgorithmNotAllowed));
    }
    // Signed with RS512, but the header claims RS256, the algorithm of the key.
    let token = sign(&rsa_key, JwtAlgorithm::Rs512, &json!({"alg": "RS256", "kid": "k"}));
    assert_eq!(verifier.verify(&token, now()).await, Err(JwtRejection::InvalidSignature));
    let token = sign(&key("rsa-other"), JwtAlgorithm::Rs256, &json!({"alg": "RS256", "kid": "k"}));
    assert_eq!(verifier.verify(&token, now()).await, Err(JwtRejection::InvalidSignature));
    for name in ["none", "None", "HS256", "rs256", "RS256 ", "ES512", ""] {
        let token = sign(&rsa_key, JwtAlgorithm::Rs256, &json!({"alg": name, "kid": "k"}));
        assert_eq!(verifier.verify(&token, now()).await, Err(JwtRejection::AlgorithmNotAllowed), "{name}");
    }
}

#[tokio::test]
async fn token_without_kid_uses_the_only_key() {
    let (p256, header) = (key("p256"), json!({"alg": "ES256"}));
    let ec = jwk(&p256, JwtAlgorithm::Es256, "e");
    let both = [JwtAlgorithm::Rs256, JwtAlgorithm::Es256];
    let token = sign(&p256, JwtAlgorithm::Es256, &header);
    for (keys, expected) in [
        (vec![ec.clone()], None),
        (vec![without(ec.clone(), "kid")], None),
        // The encryption key is ignored, so one key remains.
        (vec![with(rsa_jwk(), "use", json!("enc")), ec.clone()], None),
        (vec![rsa_jwk(), ec], Some(JwtRejection::AmbiguousKey)),
        (vec![rsa_jwk()], Some(JwtRejection::AlgorithmNotAllowed)),
    ] {
        let keys = temporary_file(&jwk_set(&keys));
        let verifier = JwtVerifier::start(config(&keys, &both), clock()).await.unwrap();
        assert_eq!(verifier.verify(&token, now()).await.err(), expected);
    }
}

#[test]
fn ignores_unusable_keys() {
    use JwtAlgorithm::{EdDsa, Es256, Ps256, Rs256};
    let ec = jwk(&key("p256"), Es256, "k");
    let short = with(rsa_jwk(), "n", json!(URL_SAFE_NO_PAD.encode([0xff; 255])));
    let padded = with(rsa_jwk(), "n", json!(URL_SAFE_NO_PAD.encode([[0_u8; 128], [0xff; 128]].concat())));
    for (jwk, allowed, reason) in [
        (rsa_jwk(), &[Rs256][..], None),
        (without(rsa_jwk(), "alg"), &[Ps256, Rs256], None),
        (with(rsa_jwk(), "use", json!("sig")), &[Rs256], None),
        (with(rsa_jwk(), "key_ops", json!(["verify"])), &[Rs256], None),
        (ec.clone(), &[Rs256, Es256], None),
        (with(rsa_jwk(), "use", json!("enc")), &[Rs256], Some("the key is not for verifying signatures")),
        (with(rsa_jwk(), "key_ops", json!(["encrypt"])), &[Rs256], Some("the key is not for verifying signatures")),
        (with(rsa_jwk(), "key_ops", json!([])), &[Rs256], Some("the key is not for verifying signatures")),
        (rsa_jwk(), &[Ps256], Some("the algorithm is not allowed")),
        (with(rsa_jwk(), "alg", json!("HS256")), &[Rs256], Some("the algorithm is not allowed")),
        (with(rsa_jwk(), "alg", json!("ES256")), &[Rs256, Es256], Some("the algorithm is not allowed")),
        (with(rsa_jwk(), "alg", json!("RSA-OAEP")), &[Rs256], Some("the algorithm is not allowed")),
        (with(rsa_jwk(), "alg", json!(1)), &[Rs256], Some("the key is malformed")),
        (ec, &[Rs256, EdDsa], Some("the algorithm is not allowed")),
        (short, &[Rs256], Some("the RSA key is shorter than 2048 bits")),
        (padded, &[Rs256], Some("the RSA key is shorter than 2048 bits")),
        (with(rsa_jwk(), "n", json!("?")), &[Rs256], Some("the key is malformed")),
        (with(rsa_jwk(), "d", json!("AQAB")), &[Rs256], Some("private keys are not accepted")),
        (json!({"kty": "oct", "k": "c2VjcmV0", "kid": "k"}), &[Rs256], Some("symmetric keys are not supported")),
        (json!({"kty": "new", "kid": "k"}), &[Rs256], Some("the key type is not supported")),
        (json!({"kid": "k"}), &[Rs256], Some("the key type is not supported")),
        (json!(7), &[Rs256], Some("the key is malformed")),
    ] {
        let description = jwk.to_string();
        let set = KeySet::parse(&jwk_set(&[jwk]), allowed).unwrap();
        assert_eq!(set.ignored.first().map(|ignored| ignored.reason), reason, "{description}");
        assert_eq!(set.is_empty(), reason.is_some());
    }
    let with_duplicate = KeySet::parse(&jwk_set(&[rsa_jwk(), rsa_jwk()]), &[Rs256]).unwrap();
    assert_eq!(with_duplicate.ignored.len(), 1);
    for invalid in ["", "[]", "{}", r#"{"keys": {}}"#, r#"{"keys": 7}"#, "-----BEGIN PUBLIC KEY-----"] {
        assert!(KeySet::parse(invalid.as_bytes(), &[Rs256]).is_err(), "{invalid}");
    }
    assert!(!KeySet::parse(rsa_jwk().to_string().as_bytes(), &[Rs256]).unwrap().is_empty(), "must accept a single JWK");
}

#[test]
fn key_without_alg_is_pinned_to_the_first_fitting_algorithm() {
    let without_alg = without(rsa_jwk(), "alg");
    let allowed = [JwtAlgorithm::Es256, JwtAlgorithm::Ps256, JwtAlgorithm::Rs256];
    let set = KeySet::parse(&jwk_set(&[without_alg]), &allowed).unwrap();
    assert!(set.find(Some("k"), JwtAlgorithm::Ps256).is_ok());
    assert_eq!(set.find(Some("k"), JwtAlgorithm::Rs256).err(), Some(JwtRejection::AlgorithmNotAllowed));
    assert_eq!(set.find(Some("K"), JwtAlgorithm::Ps256).err(), Some(JwtRejection::UnknownKey));
    assert_eq!(set.find(Some("k "), JwtAlgorithm::Ps256).err(), Some(JwtRejection::UnknownKey));
}

#[tokio::test]
async fn unknown_kid_reloads_the_key_file_at_most_once_a_minute() {
    let (old, new) = (key("rsa"), key("rsa-other"));
    let keys = temporary_file(&jwk_set(&[jwk(&old, JwtAlgorithm::Rs256, "old")]));
    let clock = clock();
    let verifier = JwtVerifier::start(config(&keys, &[JwtAlgorithm::Rs256]), clock.clone()).await.unwrap();
    let signed_by_old = sign(&old, JwtAlgorithm::Rs256, &json!({"alg": "RS256", "kid": "old"}));
    let signed_by_new = sign(&new, JwtAlgorithm::Rs256, &json!({"alg": "RS256", "kid": "new"}));
    std::fs::write(keys.path(), jwk_set(&[jwk(&new, JwtAlgorithm::Rs256, "new")])).unwrap();
    let at = |seconds: i64| now().plus_micros(seconds * 1_000_000);
    // The file was loaded less than a minute ago.
    assert_eq!(verifier.verify(&signed_by_new, at(59)).await, Err(JwtRejection::UnknownKey));
    assert!(verifier.verify(&signed_by_old, at(59)).await.is_ok());
    clock.set(at(60));
    assert_eq!(
        verifier.verify(&signed_by_new, at(60)).await,
        Err(JwtRejection::Expired),
        "the signature must be valid and only the expiry must fail"
    );
    assert_eq!(
        verifier.verify(&signed_by_old, at(60)).await,
        Err(JwtRejection::UnknownKey),
        "the old key must be removed"
    );
    // An invalid file does not replace the loaded keys.
    std::fs::write(keys.path(), "not JSON").unwrap();
    assert_eq!(verifier.verify(&signed_by_old, at(120)).await, Err(JwtRejection::UnknownKey));
    assert_eq!(verifier.verify(&signed_by_new, now()).await.map(|verified| verified.expires_at), Ok(at(60)));
}

#[tokio::test]
async fn start_reports_configuration_errors() {
    let rs256 = [JwtAlgorithm::Rs256];
    let start_error =
        async |config: JwtConfig| JwtVerifier::start(config, clock()).await.map(|_| ()).unwrap_err().to_string();
    let empty = temporary_file(&jwk_set(&[]));
    let unusable = temporary_file(&jwk_set(&[with(rsa_jwk(), "use", json!("enc"))]));
    let usable = temporary_file(&jwk_set(&[rsa_jwk()]));
    let missing = JwtConfig { keys: KeySource::File("/nowhere/keys.json".into()), ..config(&usable, &rs256) };
    assert!(start_error(missing).await.contains("/nowhere/keys.json: No such file"));
    assert!(start_error(config(&temporary_file(b"x"), &rs256)).await.contains("neither a JWK Set nor a JWK"));
    assert!(start_error(config(&empty, &rs256)).await.contains("no usable key"));
    assert!(
        start_error(config(&unusable, &rs256))
            .await
            .ends_with("no usable key: the key is not for verifying signatures")
    );
    assert!(
        start_error(JwtConfig { issuer: String::new(), ..config(&usable, &rs256) }).await.contains("must not be empty")
    );
    assert!(start_error(config(&usable, &[])).await.contains("at least one JWT algorithm"));
    assert!(
        start_error(JwtConfig { role_claim: Some("r".to_owned()), ..config(&usable, &rs256) })
            .await
            .contains("but no role mapping")
    );
    let roles = vec![("x".to_owned(), Role::Admin)];
    assert!(
        start_error(JwtConfig { allowed_roles: roles, ..config(&usable, &rs256) })
            .await
            .contains("but the role claim is not")
    );
}

#[test]
fn key_url_requires_https_or_loopback() {
    for allowed in [
        "https://issuer.example/jwks",
        "HTTPS://issuer.example",
        "http://127.0.0.1:8080/k",
        "http://[::1]/k",
        "http://localhost/k",
    ] {
        assert!(matches!(KeySource::parse(allowed), Ok(KeySource::Url(_))), "{allowed}");
    }
    for rejected in [
        "http://issuer.example/jwks",
        "http://10.0.0.1/",
        "http://localhost.evil.example/",
        "https://me:pass@issuer.example/",
        "https://",
        "http://127.0.0.1.evil.example/",
    ] {
        assert!(KeySource::parse(rejected).is_err(), "{rejected}");
    }
    assert!(matches!(KeySource::parse("keys.json"), Ok(KeySource::File(_))));
    let url = KeySource::parse("https://issuer.example/jwks?secret=1").unwrap();
    assert_eq!(format!("{url:?}"), "Url(issuer.example)");
}

#[test]
fn only_three_base64url_segments_count_as_a_jwt() {
    assert!(looks_like_jwt("eyJ.e30.c2ln"));
    for text in [
        "", ".", "..", "a.b", "a.b.", ".b.c", "a..c", "a.b.c.d", "a.b.c=", "a.b+.c", "a.b/.c", "a.b. c", "flg_abc",
        "a.é.c",
    ] {
        assert!(!looks_like_jwt(text), "{text}");
    }
}

#[tokio::test]
async fn rejects_too_long_and_malformed_tokens() {
    let keys = temporary_file(&jwk_set(&[rsa_jwk()]));
    let verifier = JwtVerifier::start(config(&keys, &[JwtAlgorithm::Rs256]), clock()).await.unwrap();
    let long = format!("{}.e30.c2ln", "A".repeat(MAX_LENGTH));
    assert_eq!(verifier.verify(&long, now()).await, Err(JwtRejection::TooLong));
    assert_eq!(verifier.verify("A.e30.c2ln", now()).await, Err(JwtRejection::Malformed));
    assert_eq!(verifier.verify("bm90IGpzb24.e30.c2ln", now()).await, Err(JwtRejection::Malformed));
    assert_eq!(format!("{verifier:?}"), "JwtVerifier(…)");
}
