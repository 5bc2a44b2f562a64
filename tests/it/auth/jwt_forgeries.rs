//! Forged and malformed JWTs that the server must reject.

use flags_tests::issuer::{base64url, jwk, private_key, sign_jwt};
use jsonwebtoken::{Algorithm, EncodingKey, crypto};
use serde_json::{Value, json};

use super::jwt::{START_SECONDS, claims};

/// Returns invalid tokens of this user, each with a description of its only defect.
///
/// The only key of the issuer is `rsa`, with algorithm RS256 and key id `k`. The server at `attacker_url` publishes
/// another key under that id.
pub(crate) fn forged_tokens(user_id: &str, attacker_url: &str) -> Vec<(&'static str, String)> {
    let mut tokens = tokens_without_valid_signature(user_id);
    tokens.extend(tokens_signed_with_other_keys(user_id));
    tokens.extend(tokens_with_malicious_headers(user_id, attacker_url));
    tokens.extend(tokens_with_invalid_claims(user_id));
    tokens.extend(malformed_tokens(user_id));
    tokens
}

fn valid_header() -> Value {
    json!({"alg": "RS256", "kid": "k"})
}

fn sign_rs256(header: impl ToString, claims: impl ToString) -> String {
    sign_jwt(&private_key("rsa"), Algorithm::RS256, header, claims)
}

/// Tokens without a signature or with an invalid one.
fn tokens_without_valid_signature(user_id: &str) -> Vec<(&'static str, String)> {
    let unsigned =
        |header: Value| format!("{}.{}", base64url(header.to_string()), base64url(claims(user_id).to_string()));
    let valid = sign_rs256(valid_header(), claims(user_id));
    let (message, signature) = valid.rsplit_once('.').unwrap();
    let (header, _) = message.split_once('.').unwrap();
    let other_token = sign_rs256(valid_header(), json!({"sub": user_id}));
    let mut flipped = valid.clone().into_bytes();
    let position = flipped.len() - 100;
    flipped[position] = if flipped[position] == b'A' { b'B' } else { b'A' };
    let other_claims = base64url(
        json!({"iss": "https://issuer.example", "aud": "flags", "sub": user_id, "exp": START_SECONDS + 99}).to_string(),
    );
    vec![
        ("alg none, no signature", format!("{}.", unsigned(json!({"alg": "none", "kid": "k"})))),
        ("alg none, two segments", unsigned(json!({"alg": "none", "kid": "k"}))),
        (
            "alg none, signature of another token",
            format!("{}.{signature}", unsigned(json!({"alg": "none", "kid": "k"}))),
        ),
        ("alg None", format!("{}.{signature}", unsigned(json!({"alg": "None", "kid": "k"})))),
        ("alg NONE", format!("{}.{signature}", unsigned(json!({"alg": "NONE", "kid": "k"})))),
        ("alg null", format!("{}.{signature}", unsigned(json!({"alg": null, "kid": "k"})))),
        ("no alg", format!("{}.{signature}", unsigned(json!({"kid": "k"})))),
        ("empty alg", format!("{}.{signature}", unsigned(json!({"alg": "", "kid": "k"})))),
        ("no signature segment", message.to_owned()),
        ("empty signature", format!("{message}.")),
        ("truncated signature", valid[..valid.len() - 100].to_owned()),
        ("one character of the signature changed", String::from_utf8(flipped).unwrap()),
        ("signature of another token", format!("{message}.{}", other_token.rsplit_once('.').unwrap().1)),
        ("other claims with the original signature", format!("{header}.{other_claims}.{signature}")),
        ("signature of zero bytes", format!("{message}.{}", base64url([0; 256]))),
        (
            "ES256 with a signature of zero bytes",
            format!("{}.{}", unsigned(json!({"alg": "ES256", "kid": "k"})), base64url([0; 64])),
        ),
    ]
}

/// Tokens signed with public information or with another key.
fn tokens_signed_with_other_keys(user_id: &str) -> Vec<(&'static str, String)> {
    let public = jwk(&private_key("rsa"), Algorithm::RS256, "k");
    let modulus = public["n"].as_str().unwrap().to_owned();
    let hs256 = |secret: &[u8], kid: &str| {
        let secret = EncodingKey::from_secret(secret);
        sign_jwt(&secret, Algorithm::HS256, json!({"alg": "HS256", "kid": kid}), claims(user_id))
    };
    let hmac_declared_as_rs256 = {
        let message = format!("{}.{}", base64url(valid_header().to_string()), base64url(claims(user_id).to_string()));
        let secret = EncodingKey::from_secret(public.to_string().as_bytes());
        let signature = crypto::sign(message.as_bytes(), &secret, Algorithm::HS256).unwrap();
        format!("{message}.{signature}")
    };
    let header_with_alg = |alg: &str| json!({"alg": alg, "kid": "k"});
    vec![
        ("HS256 with the public key's JSON", hs256(public.to_string().as_bytes(), "k")),
        ("HS256 with the modulus", hs256(modulus.as_bytes(), "k")),
        ("HS256 with an empty secret", hs256(b"", "k")),
        ("HS256 with the key's id", hs256(b"k", "k")),
        ("HMAC declared as RS256", hmac_declared_as_rs256),
        (
            "RS256 of another key",
            sign_jwt(&private_key("rsa-other"), Algorithm::RS256, header_with_alg("RS256"), claims(user_id)),
        ),
        (
            "RS256 of another key, no kid",
            sign_jwt(&private_key("rsa-other"), Algorithm::RS256, json!({"alg": "RS256"}), claims(user_id)),
        ),
        (
            "ES256 of another key",
            sign_jwt(&private_key("p256"), Algorithm::ES256, header_with_alg("ES256"), claims(user_id)),
        ),
        (
            "EdDSA of another key",
            sign_jwt(&private_key("ed25519"), Algorithm::EdDSA, header_with_alg("EdDSA"), claims(user_id)),
        ),
        (
            "trusted key, RS512",
            sign_jwt(&private_key("rsa"), Algorithm::RS512, header_with_alg("RS512"), claims(user_id)),
        ),
        (
            "trusted key, PS256",
            sign_jwt(&private_key("rsa"), Algorithm::PS256, header_with_alg("PS256"), claims(user_id)),
        ),
        (
            "trusted key, PS256 declared as RS256",
            sign_jwt(&private_key("rsa"), Algorithm::PS256, header_with_alg("RS256"), claims(user_id)),
        ),
        ("alg in lower case", sign_rs256(header_with_alg("rs256"), claims(user_id))),
    ]
}

/// Tokens whose header names other keys or is invalid.
fn tokens_with_malicious_headers(user_id: &str, attacker_url: &str) -> Vec<(&'static str, String)> {
    let sign_by_attacker =
        |header: Value| sign_jwt(&private_key("rsa-other"), Algorithm::RS256, header, claims(user_id));
    let attacker_keys_url = format!("{attacker_url}/keys");
    let attacker_key = jwk(&private_key("rsa-other"), Algorithm::RS256, "k");
    let with_kid = |kid: &str| sign_by_attacker(json!({"alg": "RS256", "kid": kid}));
    vec![
        ("kid with a path", with_kid("../../../../../../dev/null")),
        ("kid with an absolute path", with_kid("/proc/sys/kernel/randomize_va_space")),
        ("kid with SQL", with_kid("k' UNION SELECT 'key' --")),
        ("kid with SQL that is always true", with_kid("' OR '1'='1")),
        ("kid with a command", with_kid("k|/usr/bin/id;`id`")),
        ("kid with a URL", with_kid(&attacker_keys_url)),
        ("kid with a NUL", with_kid("k\0")),
        ("kid in upper case", sign_rs256(json!({"alg": "RS256", "kid": "K"}), claims(user_id))),
        ("kid with a leading space", sign_rs256(json!({"alg": "RS256", "kid": " k"}), claims(user_id))),
        ("kid is an array", sign_rs256(json!({"alg": "RS256", "kid": ["k"]}), claims(user_id))),
        ("kid is null", sign_rs256(json!({"alg": "RS256", "kid": null}), claims(user_id))),
        ("kid of 8,000 characters", with_kid(&"k".repeat(8_000))),
        ("jku of the attacker", sign_by_attacker(json!({"alg": "RS256", "kid": "k", "jku": attacker_keys_url}))),
        ("jku with an unknown kid", sign_by_attacker(json!({"alg": "RS256", "kid": "new", "jku": attacker_keys_url}))),
        ("x5u of the attacker", sign_by_attacker(json!({"alg": "RS256", "kid": "k", "x5u": attacker_keys_url}))),
        ("jwk in the header", sign_by_attacker(json!({"alg": "RS256", "kid": "k", "jwk": attacker_key}))),
        ("jwk in the header, no kid", sign_by_attacker(json!({"alg": "RS256", "jwk": attacker_key}))),
        ("x5c in the header", sign_by_attacker(json!({"alg": "RS256", "kid": "k", "x5c": ["MIIB"]}))),
        ("crit", sign_rs256(json!({"alg": "RS256", "kid": "k", "crit": ["exp"]}), claims(user_id))),
        ("crit b64", sign_rs256(json!({"alg": "RS256", "kid": "k", "crit": ["b64"], "b64": false}), claims(user_id))),
        ("unsupported typ", sign_rs256(json!({"alg": "RS256", "kid": "k", "typ": "dpop+jwt"}), claims(user_id))),
        ("duplicate alg", sign_rs256(r#"{"alg": "RS256", "alg": "none", "kid": "k"}"#, claims(user_id))),
        ("duplicate kid", sign_rs256(r#"{"alg": "RS256", "kid": "x", "kid": "k"}"#, claims(user_id))),
        ("header is an array", sign_rs256(r#"["RS256", "JWT", "k"]"#, claims(user_id))),
    ]
}

/// Tokens that are signed by the issuer but have invalid claims.
fn tokens_with_invalid_claims(user_id: &str) -> Vec<(&'static str, String)> {
    let valid = claims(user_id);
    let with = |name: &str, value: Value| {
        let mut claims = valid.clone();
        claims[name] = value;
        sign_rs256(valid_header(), claims)
    };
    let without = |name: &str| {
        let mut claims = valid.clone();
        claims.as_object_mut().unwrap().remove(name);
        sign_rs256(valid_header(), claims)
    };
    let text = valid.to_string();
    let with_extra_member = |member: &str| sign_rs256(valid_header(), text.replacen('{', &format!("{{{member},"), 1));
    vec![
        ("no exp", without("exp")),
        ("exp is a string", with("exp", json!((START_SECONDS + 10).to_string()))),
        ("exp is null", with("exp", json!(null))),
        ("exp is a boolean", with("exp", json!(true))),
        ("exp out of range", with("exp", json!(1e300))),
        ("exp in milliseconds", with("exp", json!((START_SECONDS + 10) * 1_000))),
        ("negative exp", with("exp", json!(-1))),
        ("expired long ago", with("exp", json!(START_SECONDS - 86_400))),
        ("expires at the current instant", with("exp", json!(START_SECONDS))),
        ("expired a millisecond ago", with("exp", json!(START_SECONDS as f64 - 0.001))),
        ("nbf in the future", with("nbf", json!(START_SECONDS + 31))),
        ("nbf is a string", with("nbf", json!("0"))),
        ("nbf is null", with("nbf", json!(null))),
        ("iat in the future", with("iat", json!(START_SECONDS + 3_600))),
        ("no iss", without("iss")),
        ("other iss", with("iss", json!("https://evil.example"))),
        ("iss with a trailing slash", with("iss", json!("https://issuer.example/"))),
        ("iss is an array", with("iss", json!(["https://issuer.example"]))),
        ("no aud", without("aud")),
        ("other aud", with("aud", json!("other"))),
        ("aud is a prefix of the expected audience", with("aud", json!("flag"))),
        ("aud is an empty array", with("aud", json!([]))),
        ("aud is an array of other audiences", with("aud", json!(["other", "flags2"]))),
        ("aud is an object", with("aud", json!({"flags": true}))),
        ("no sub", without("sub")),
        ("sub is an email address", with("sub", json!("ann@example.com"))),
        ("sub with SQL", with("sub", json!("' OR 1=1 --"))),
        ("sub is an array", with("sub", json!([user_id]))),
        ("sub is empty", with("sub", json!(""))),
        ("sub is an unknown external id", with("sub", json!("crm/42"))),
        ("duplicate exp", with_extra_member(r#""exp": 1"#)),
        ("duplicate sub", with_extra_member(&format!(r#""sub": "{user_id}""#))),
        ("nested duplicate member", with_extra_member(r#""x": {"y": 1, "y": 2}"#)),
        ("claims are an array", sign_rs256(valid_header(), json!([valid]))),
        ("claims are a string", sign_rs256(valid_header(), json!(text))),
        ("no claims", sign_rs256(valid_header(), json!({}))),
        ("claims are not JSON", sign_rs256(valid_header(), "{")),
        ("trailing data after the claims", sign_rs256(valid_header(), format!("{text}{{}}"))),
    ]
}

/// Tokens that are valid except for their encoding.
fn malformed_tokens(user_id: &str) -> Vec<(&'static str, String)> {
    let valid = sign_rs256(valid_header(), claims(user_id));
    let [header, payload, signature] = valid.split('.').collect::<Vec<_>>().try_into().unwrap();
    let mut long_claims = claims(user_id);
    long_claims["x"] = json!("x".repeat(16 * 1024));
    vec![
        ("four segments", format!("{valid}.{signature}")),
        ("five segments, as in JWE", format!("{valid}.{payload}.{signature}")),
        ("padding", format!("{header}.{payload}.{signature}==")),
        ("leading dot", format!(".{valid}")),
        ("prefix of an API token", format!("flg_{valid}")),
        ("percent-encoded line feed", format!("{header}.{payload}.%0A{signature}")),
        ("leading character", format!("A{valid}")),
        ("too long", sign_rs256(valid_header(), long_claims)),
        ("repeated signature", format!("{valid}{signature}")),
    ]
}
