//! Tokens that nobody may get in by.

use flags_tests::issuer::{encode, jwk, key, sign};
use jsonwebtoken::{Algorithm, EncodingKey, crypto};
use serde_json::{Value, json};

use super::jwt::{BEGIN, claims};

/// All of them, each with what is wrong with it. The issuer's only key is `rsa`, for RS256, named `k`; everything else
/// about them is good for the user of this id. `evil` serves a key of the attacker's.
pub(crate) fn all(user_id: &str, evil: &str) -> Vec<(&'static str, String)> {
    let mut all = unsigned(user_id);
    all.extend(with_secrets(user_id));
    all.extend(with_headers(user_id, evil));
    all.extend(with_claims(user_id));
    all.extend(with_texts(user_id));
    all
}

fn good_header() -> Value {
    json!({"alg": "RS256", "kid": "k"})
}

fn rs256(header: impl ToString, claims: impl ToString) -> String {
    sign(&key("rsa"), Algorithm::RS256, header, claims)
}

/// Without a signature, or with one that is none.
fn unsigned(user_id: &str) -> Vec<(&'static str, String)> {
    let part = |header: Value| format!("{}.{}", encode(header.to_string()), encode(claims(user_id).to_string()));
    let good = rs256(good_header(), claims(user_id));
    let (message, signature) = good.rsplit_once('.').unwrap();
    let (header, _) = message.split_once('.').unwrap();
    let other = rs256(good_header(), json!({"sub": user_id}));
    let mut flipped = good.clone().into_bytes();
    let place = flipped.len() - 100;
    flipped[place] = if flipped[place] == b'A' { b'B' } else { b'A' };
    let admin =
        encode(json!({"iss": "https://issuer.example", "aud": "flags", "sub": user_id, "exp": BEGIN + 99}).to_string());
    vec![
        ("alg none, no signature", format!("{}.", part(json!({"alg": "none", "kid": "k"})))),
        ("alg none, two parts", part(json!({"alg": "none", "kid": "k"}))),
        ("alg none, the signature of another", format!("{}.{signature}", part(json!({"alg": "none", "kid": "k"})))),
        ("alg None", format!("{}.{signature}", part(json!({"alg": "None", "kid": "k"})))),
        ("alg NONE", format!("{}.{signature}", part(json!({"alg": "NONE", "kid": "k"})))),
        ("alg null", format!("{}.{signature}", part(json!({"alg": null, "kid": "k"})))),
        ("no alg", format!("{}.{signature}", part(json!({"kid": "k"})))),
        ("empty alg", format!("{}.{signature}", part(json!({"alg": "", "kid": "k"})))),
        ("signature cut off", message.to_owned()),
        ("empty signature", format!("{message}.")),
        ("half a signature", good[..good.len() - 100].to_owned()),
        ("one letter of the signature changed", String::from_utf8(flipped).unwrap()),
        ("signature of another token", format!("{message}.{}", other.rsplit_once('.').unwrap().1)),
        ("other claims under the signature", format!("{header}.{admin}.{signature}")),
        ("signature of zeros", format!("{message}.{}", encode([0; 256]))),
        ("ES256 with zeros", format!("{}.{}", part(json!({"alg": "ES256", "kid": "k"})), encode([0; 64]))),
    ]
}

/// Signed with what everybody knows, or by somebody else's key.
fn with_secrets(user_id: &str) -> Vec<(&'static str, String)> {
    let public = jwk(&key("rsa"), Algorithm::RS256, "k");
    let modulus = public["n"].as_str().unwrap().to_owned();
    let hs256 = |secret: &[u8], kid: &str| {
        let secret = EncodingKey::from_secret(secret);
        sign(&secret, Algorithm::HS256, json!({"alg": "HS256", "kid": kid}), claims(user_id))
    };
    let said_rs256 = {
        let message = format!("{}.{}", encode(good_header().to_string()), encode(claims(user_id).to_string()));
        let secret = EncodingKey::from_secret(public.to_string().as_bytes());
        let signature = crypto::sign(message.as_bytes(), &secret, Algorithm::HS256).unwrap();
        format!("{message}.{signature}")
    };
    let header = |alg: &str| json!({"alg": alg, "kid": "k"});
    vec![
        ("HS256 with the public key's JSON", hs256(public.to_string().as_bytes(), "k")),
        ("HS256 with the modulus", hs256(modulus.as_bytes(), "k")),
        ("HS256 with no secret", hs256(b"", "k")),
        ("HS256 with the key's id", hs256(b"k", "k")),
        ("HMAC that says RS256", said_rs256),
        ("key of another", sign(&key("rsa-other"), Algorithm::RS256, header("RS256"), claims(user_id))),
        (
            "key of another, without its id",
            sign(&key("rsa-other"), Algorithm::RS256, json!({"alg": "RS256"}), claims(user_id)),
        ),
        ("ES256 of another key", sign(&key("p256"), Algorithm::ES256, header("ES256"), claims(user_id))),
        ("EdDSA of another key", sign(&key("ed25519"), Algorithm::EdDSA, header("EdDSA"), claims(user_id))),
        ("right key, RS512", sign(&key("rsa"), Algorithm::RS512, header("RS512"), claims(user_id))),
        ("right key, PS256", sign(&key("rsa"), Algorithm::PS256, header("PS256"), claims(user_id))),
        ("right key, PS256 that says RS256", sign(&key("rsa"), Algorithm::PS256, header("RS256"), claims(user_id))),
        ("rs256 in small letters", rs256(header("rs256"), claims(user_id))),
    ]
}

/// With a header that wants to lead elsewhere.
fn with_headers(user_id: &str, evil: &str) -> Vec<(&'static str, String)> {
    let by_evil = |header: Value| sign(&key("rsa-other"), Algorithm::RS256, header, claims(user_id));
    let evil_keys = format!("{evil}/keys");
    let evil_key = jwk(&key("rsa-other"), Algorithm::RS256, "k");
    let kid = |kid: &str| by_evil(json!({"alg": "RS256", "kid": kid}));
    vec![
        ("kid with a path", kid("../../../../../../dev/null")),
        ("kid with a path of the host", kid("/proc/sys/kernel/randomize_va_space")),
        ("kid with SQL", kid("k' UNION SELECT 'key' --")),
        ("kid with SQL that is always true", kid("' OR '1'='1")),
        ("kid with a command", kid("k|/usr/bin/id;`id`")),
        ("kid with a URL", kid(&evil_keys)),
        ("kid with a NUL", kid("k\0")),
        ("kid in capitals", rs256(json!({"alg": "RS256", "kid": "K"}), claims(user_id))),
        ("kid with a blank", rs256(json!({"alg": "RS256", "kid": " k"}), claims(user_id))),
        ("kid that is no text", rs256(json!({"alg": "RS256", "kid": ["k"]}), claims(user_id))),
        ("kid null", rs256(json!({"alg": "RS256", "kid": null}), claims(user_id))),
        ("kid very long", kid(&"k".repeat(8_000))),
        ("jku of the attacker's", by_evil(json!({"alg": "RS256", "kid": "k", "jku": evil_keys}))),
        ("jku, and a key that is not known", by_evil(json!({"alg": "RS256", "kid": "new", "jku": evil_keys}))),
        ("x5u of the attacker's", by_evil(json!({"alg": "RS256", "kid": "k", "x5u": evil_keys}))),
        ("jwk in the header", by_evil(json!({"alg": "RS256", "kid": "k", "jwk": evil_key}))),
        ("jwk in the header, no kid", by_evil(json!({"alg": "RS256", "jwk": evil_key}))),
        ("x5c in the header", by_evil(json!({"alg": "RS256", "kid": "k", "x5c": ["MIIB"]}))),
        ("crit", rs256(json!({"alg": "RS256", "kid": "k", "crit": ["exp"]}), claims(user_id))),
        ("crit b64", rs256(json!({"alg": "RS256", "kid": "k", "crit": ["b64"], "b64": false}), claims(user_id))),
        ("another typ", rs256(json!({"alg": "RS256", "kid": "k", "typ": "dpop+jwt"}), claims(user_id))),
        ("alg twice", rs256(r#"{"alg": "RS256", "alg": "none", "kid": "k"}"#, claims(user_id))),
        ("kid twice", rs256(r#"{"alg": "RS256", "kid": "x", "kid": "k"}"#, claims(user_id))),
        ("header no object", rs256(r#"["RS256", "JWT", "k"]"#, claims(user_id))),
    ]
}

/// Signed by the issuer, but not good here and now.
fn with_claims(user_id: &str) -> Vec<(&'static str, String)> {
    let good = claims(user_id);
    let with = |name: &str, value: Value| {
        let mut claims = good.clone();
        claims[name] = value;
        rs256(good_header(), claims)
    };
    let without = |name: &str| {
        let mut claims = good.clone();
        claims.as_object_mut().unwrap().remove(name);
        rs256(good_header(), claims)
    };
    let text = good.to_string();
    let twice = |claim: &str| rs256(good_header(), text.replacen('{', &format!("{{{claim},"), 1));
    vec![
        ("no exp", without("exp")),
        ("exp as text", with("exp", json!((BEGIN + 10).to_string()))),
        ("exp null", with("exp", json!(null))),
        ("exp true", with("exp", json!(true))),
        ("exp huge", with("exp", json!(1e300))),
        ("exp of milliseconds", with("exp", json!((BEGIN + 10) * 1_000))),
        ("exp negative", with("exp", json!(-1))),
        ("expired long ago", with("exp", json!(BEGIN - 86_400))),
        ("expired now", with("exp", json!(BEGIN))),
        ("expired by a fraction", with("exp", json!(BEGIN as f64 - 0.001))),
        ("nbf later", with("nbf", json!(BEGIN + 31))),
        ("nbf as text", with("nbf", json!("0"))),
        ("nbf null", with("nbf", json!(null))),
        ("iat later", with("iat", json!(BEGIN + 3_600))),
        ("no iss", without("iss")),
        ("another iss", with("iss", json!("https://evil.example"))),
        ("iss with a slash more", with("iss", json!("https://issuer.example/"))),
        ("iss in a list", with("iss", json!(["https://issuer.example"]))),
        ("no aud", without("aud")),
        ("another aud", with("aud", json!("other"))),
        ("aud a part of the right one", with("aud", json!("flag"))),
        ("aud an empty list", with("aud", json!([]))),
        ("aud a list of others", with("aud", json!(["other", "flags2"]))),
        ("aud an object", with("aud", json!({"flags": true}))),
        ("no sub", without("sub")),
        ("sub an e-mail", with("sub", json!("ann@example.com"))),
        ("sub with SQL", with("sub", json!("' OR 1=1 --"))),
        ("sub a list", with("sub", json!([user_id]))),
        ("sub of another form", with("sub", json!(format!("urn:uuid:{user_id}")))),
        ("exp twice", twice(r#""exp": 1"#)),
        ("sub twice", twice(&format!(r#""sub": "{user_id}""#))),
        ("a claim twice further down", twice(r#""x": {"y": 1, "y": 2}"#)),
        ("claims in a list", rs256(good_header(), json!([good]))),
        ("claims as text", rs256(good_header(), json!(text))),
        ("no claims", rs256(good_header(), json!({}))),
        ("claims that are no JSON", rs256(good_header(), "{")),
        ("something after the claims", rs256(good_header(), format!("{text}{{}}"))),
    ]
}

/// Good, but for how they are written.
fn with_texts(user_id: &str) -> Vec<(&'static str, String)> {
    let good = rs256(good_header(), claims(user_id));
    let [header, payload, signature] = good.split('.').collect::<Vec<_>>().try_into().unwrap();
    let mut long = claims(user_id);
    long["x"] = json!("x".repeat(16 * 1024));
    vec![
        ("four parts", format!("{good}.{signature}")),
        ("five parts, as if encrypted", format!("{good}.{payload}.{signature}")),
        ("padding", format!("{header}.{payload}.{signature}==")),
        ("a dot in front", format!(".{good}")),
        ("a token's beginning", format!("flg_{good}")),
        ("a line of its own within", format!("{header}.{payload}.%0A{signature}")),
        ("a letter in front", format!("A{good}")),
        ("too long", rs256(good_header(), long)),
        ("signature twice", format!("{good}{signature}")),
    ]
}
