//! Parsing of the JWT header and validation of the claims.

use flags_domain::{Instant, MAX_TARGETING_KEY_BYTES};
use flags_store::users::{MAX_EMAIL_LENGTH, Role};
use serde_json::{Map, Value};

use super::{ClaimAttributes, JwtConfig, JwtRejection, JwtUser, UserClaim, VerifiedJwt, strict_json};

/// Maximum time by which the issuer's clock may be ahead of this server's clock, in microseconds. Applies to `nbf` and
/// `iat`, not to `exp`.
const LEEWAY_MICROS: i64 = 30_000_000;
/// Maximum value of a time claim in seconds since 1970: the last second of the year 9999.
const LAST_SECOND: f64 = 253_402_300_799.0;

/// Header parameters that the server evaluates. Parameters that supply keys or key URLs (`jwk`,
/// `jku`, `x5u`, …) are ignored.
pub(super) struct Header {
    pub(super) algorithm: String,
    pub(super) key_id: Option<String>,
}

impl Header {
    pub(super) fn parse(json: &[u8]) -> Result<Self, JwtRejection> {
        let mut fields = strict_json::parse_object(json).ok_or(JwtRejection::Malformed)?;
        // `crit` lists extensions that the verifier must support (RFC 7515, section 4.1.11). None is supported.
        if fields.contains_key("crit") {
            return Err(JwtRejection::UnsupportedHeader);
        }
        let token_type = optional_text(&mut fields, "typ")?;
        if token_type.is_some_and(|text| !is_supported_type(&text)) {
            return Err(JwtRejection::UnsupportedHeader);
        }
        let key_id = optional_text(&mut fields, "kid")?;
        let algorithm = optional_text(&mut fields, "alg")?.ok_or(JwtRejection::UnsupportedHeader)?;
        Ok(Self { algorithm, key_id })
    }
}

fn is_supported_type(text: &str) -> bool {
    ["jwt", "at+jwt"].iter().any(|supported| text.eq_ignore_ascii_case(supported))
}

fn optional_text(fields: &mut Map<String, Value>, name: &str) -> Result<Option<String>, JwtRejection> {
    match fields.remove(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(JwtRejection::UnsupportedHeader),
    }
}

/// Parses and checks the claims. The caller must have verified the signature first.
pub(super) fn parse_and_check(json: &[u8], config: &JwtConfig, now: Instant) -> Result<VerifiedJwt, JwtRejection> {
    let claims = strict_json::parse_object(json).ok_or(JwtRejection::Malformed)?;
    let expires_at = instant(&claims, "exp")?.ok_or(JwtRejection::InvalidClaims)?;
    if now >= expires_at {
        return Err(JwtRejection::Expired);
    }
    let latest_start = now.plus_micros(LEEWAY_MICROS);
    for name in ["nbf", "iat"] {
        if instant(&claims, name)?.is_some_and(|start| start > latest_start) {
            return Err(JwtRejection::NotYetValid);
        }
    }
    if claims.get("iss").and_then(Value::as_str) != Some(&*config.issuer) {
        return Err(JwtRejection::WrongIssuer);
    }
    if !contains_audience(claims.get("aud"), &config.audience) {
        return Err(JwtRejection::WrongAudience);
    }
    let user = user(&claims, &config.user_claim).ok_or(JwtRejection::UnidentifiedUser)?;
    let role = config.role_claim.as_deref().map(|name| role(&claims, name, &config.allowed_roles));
    let attributes = ClaimAttributes::read(claims, &config.attributes)?;
    Ok(VerifiedJwt { user, role, attributes, expires_at })
}

/// Parses a time claim in seconds since 1970, with or without a fraction. Returns `None` if the claim is missing.
fn instant(claims: &Map<String, Value>, name: &str) -> Result<Option<Instant>, JwtRejection> {
    let Some(value) = claims.get(name) else { return Ok(None) };
    let seconds =
        value.as_f64().filter(|seconds| (0.0..=LAST_SECOND).contains(seconds)).ok_or(JwtRejection::InvalidClaims)?;
    let micros = match value.as_i64() {
        Some(whole) => whole * 1_000_000,
        // Cannot overflow, because `seconds` is at most LAST_SECOND. Fractions of a microsecond are truncated.
        None => (seconds * 1e6) as i64,
    };
    Ok(Some(Instant::from_micros(micros)))
}

fn contains_audience(claim: Option<&Value>, audience: &str) -> bool {
    match claim {
        Some(Value::String(single)) => single == audience,
        Some(Value::Array(several)) => {
            several.iter().all(Value::is_string) && several.iter().any(|element| element == audience)
        }
        _ => false,
    }
}

fn user(claims: &Map<String, Value>, claim: &UserClaim) -> Option<JwtUser> {
    match claim {
        UserClaim::Sub => parse_key(claims.get("sub")?.as_str()?),
        UserClaim::Named(name) => {
            let text = find_claim(claims, name)?.as_str()?;
            // External ids contain no `@`.
            if text.contains('@') { parse_email(claims, text) } else { parse_key(text) }
        }
    }
}

fn parse_key(text: &str) -> Option<JwtUser> {
    (1..=MAX_TARGETING_KEY_BYTES).contains(&text.len()).then(|| JwtUser::Key(text.to_owned()))
}

/// Accepts an e-mail address unless the claim `email_verified` is present and not true.
fn parse_email(claims: &Map<String, Value>, text: &str) -> Option<JwtUser> {
    let is_verified = claims.get("email_verified").is_none_or(|verified| *verified == true || *verified == "true");
    (text.chars().count() <= MAX_EMAIL_LENGTH && is_verified).then(|| JwtUser::Email(text.to_owned()))
}

/// Returns the highest role that the mapping assigns to a value of the claim, or [`Role::User`] if
/// no value is mapped.
fn role(claims: &Map<String, Value>, name: &str, allowed: &[(String, Role)]) -> Role {
    let values = match find_claim(claims, name) {
        Some(Value::Array(several)) => several.as_slice(),
        Some(single) => std::slice::from_ref(single),
        None => &[],
    };
    let matching = allowed.iter().filter(|(mapped, _)| values.iter().any(|value| value == mapped.as_str()));
    matching.map(|(_, role)| *role).fold(Role::User, Role::higher)
}

/// Finds a claim by its exact name. If there is no such claim, dots in the name select members of
/// nested objects.
fn find_claim<'c>(claims: &'c Map<String, Value>, name: &str) -> Option<&'c Value> {
    if let Some(value) = claims.get(name) {
        return Some(value);
    }
    let (first, rest) = name.split_once('.')?;
    rest.split('.').try_fold(claims.get(first)?, |value, key| value.as_object()?.get(key))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::{ClaimAttribute, JwtAlgorithm, JwtUsers, KeySource};
    use super::*;

    const ANN: &str = "01890000-0000-7000-8000-000000000001";
    const NOW: i64 = 1_900_000_000;

    fn config() -> JwtConfig {
        JwtConfig {
            issuer: "https://issuer.example".to_owned(),
            audience: "flags".to_owned(),
            keys: KeySource::File("none".into()),
            algorithms: vec![JwtAlgorithm::Rs256],
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

    /// Returns valid claims with `changes` applied; a null value removes a claim.
    fn claims(changes: Value) -> Value {
        let mut claims = json!({"iss": "https://issuer.example", "aud": "flags", "sub": ANN, "exp": NOW + 60});
        let Value::Object(changes) = changes else { panic!("changes must be an object") };
        for (name, value) in changes {
            if value.is_null() {
                claims.as_object_mut().unwrap().remove(&name);
            } else {
                claims[name] = value;
            }
        }
        claims
    }

    fn check(config: &JwtConfig, changes: Value) -> Result<VerifiedJwt, JwtRejection> {
        parse_and_check(claims(changes).to_string().as_bytes(), config, now())
    }

    fn expiry(changes: Value) -> Result<String, JwtRejection> {
        check(&config(), changes).map(|verified| verified.expires_at.to_string())
    }

    #[test]
    fn rejects_expired_tokens_and_malformed_expiries() {
        assert_eq!(expiry(json!({"exp": NOW + 1})), Ok("2030-03-17T17:46:41Z".to_owned()));
        assert_eq!(expiry(json!({"exp": NOW as f64 + 0.5})), Ok("2030-03-17T17:46:40.5Z".to_owned()));
        assert_eq!(expiry(json!({"exp": 253_402_300_799_i64})), Ok("9999-12-31T23:59:59Z".to_owned()));
        for exp in [json!(NOW), json!(NOW - 1), json!(0), json!(NOW as f64)] {
            assert_eq!(expiry(json!({"exp": exp})), Err(JwtRejection::Expired), "{exp}");
        }
        for exp in [
            json!("1900000060"),
            json!(-1),
            json!(-0.5),
            json!(1e300),
            json!(u64::MAX),
            json!(i64::MAX),
            json!(253_402_300_800_i64),
            json!(true),
            json!([NOW + 60]),
            json!({}),
        ] {
            assert_eq!(expiry(json!({"exp": exp})), Err(JwtRejection::InvalidClaims), "{exp}");
        }
        assert_eq!(expiry(json!({"exp": null})), Err(JwtRejection::InvalidClaims));
        let null = claims(json!({})).to_string().replace(&(NOW + 60).to_string(), "null");
        assert_eq!(parse_and_check(null.as_bytes(), &config(), now()), Err(JwtRejection::InvalidClaims));
    }

    #[test]
    fn tolerates_an_issuer_clock_30_seconds_ahead() {
        for name in ["nbf", "iat"] {
            assert!(expiry(json!({name: NOW + 30})).is_ok());
            assert!(expiry(json!({name: NOW - 1_000_000})).is_ok());
            assert_eq!(expiry(json!({name: NOW + 31})), Err(JwtRejection::NotYetValid));
            assert_eq!(expiry(json!({name: "1900000000"})), Err(JwtRejection::InvalidClaims));
        }
    }

    #[test]
    fn issuer_and_audience_must_match_exactly() {
        for iss in [
            json!("https://issuer.example/"),
            json!("HTTPS://issuer.example"),
            json!(["https://issuer.example"]),
            json!(null),
        ] {
            assert_eq!(expiry(json!({"iss": iss})), Err(JwtRejection::WrongIssuer), "{iss}");
        }
        for aud in [json!("flags"), json!(["flags"]), json!(["other", "flags"])] {
            assert!(expiry(json!({"aud": aud})).is_ok(), "{aud}");
        }
        for aud in [
            json!("Flags"),
            json!("flags "),
            json!([]),
            json!(["other"]),
            json!(["flags", 1]),
            json!([["flags"]]),
            json!({"flags": true}),
            json!(null),
        ] {
            assert_eq!(expiry(json!({"aud": aud})), Err(JwtRejection::WrongAudience), "{aud}");
        }
    }

    fn key(text: &str) -> Result<JwtUser, JwtRejection> {
        Ok(JwtUser::Key(text.to_owned()))
    }

    #[test]
    fn sub_claim_is_an_evaluation_key() {
        let user = |changes| check(&config(), changes).map(|verified| verified.user);
        let longest = "k".repeat(4 * 1024);
        for text in [ANN, &ANN.to_uppercase(), &format!("urn:uuid:{ANN}"), "crm/42", "ann@example.com", &longest] {
            assert_eq!(user(json!({"sub": text})), key(text));
        }
        for sub in [json!(""), json!(format!("{longest}k")), json!(7), json!([ANN]), json!(null)] {
            assert_eq!(user(json!({"sub": sub})), Err(JwtRejection::UnidentifiedUser), "{sub}");
        }
        assert!(!format!("{:?}", check(&config(), json!({"sub": "ann@example.com"}))).contains("nn@"));
    }

    #[test]
    fn custom_claim_is_a_verified_email_or_an_evaluation_key() {
        let config = JwtConfig { user_claim: UserClaim::Named("email".to_owned()), ..config() };
        let user = |changes| check(&config, changes).map(|verified| verified.user);
        let by_email = Ok(JwtUser::Email("Ann@example.com".to_owned()));
        assert_eq!(user(json!({"email": "Ann@example.com"})), by_email);
        assert_eq!(user(json!({"email": "Ann@example.com", "email_verified": true})), by_email);
        assert_eq!(user(json!({"email": ANN})), key(ANN));
        assert_eq!(user(json!({"email": "ann"})), key("ann"));
        assert!(!format!("{:?}", check(&config, json!({"email": "Ann@example.com"}))).contains("nn@"));
        for changes in [
            json!({}),
            json!({"email": ""}),
            json!({"email": ["Ann@example.com"]}),
            json!({"email": "Ann@example.com", "email_verified": false}),
            json!({"email": "Ann@example.com", "email_verified": "false"}),
            json!({"email": format!("a@{}", "b".repeat(300))}),
        ] {
            assert_eq!(user(changes.clone()), Err(JwtRejection::UnidentifiedUser), "{changes}");
        }
    }

    #[test]
    fn mapped_claims_are_attributes() {
        let attributes = vec![ClaimAttribute::parse("country=/address/country").unwrap()];
        let config = JwtConfig { attributes, ..config() };
        let verified = check(&config, json!({"address": {"country": "de"}, "plan": "pro"})).unwrap();
        assert_eq!(Value::Object(verified.attributes.0.clone()), json!({"country": "de"}));
        assert!(!format!("{verified:?}").contains("de\""));
        let too_many = json!({"address": {"country": vec![1; 5_001]}});
        assert_eq!(check(&config, too_many), Err(JwtRejection::TooManyAttributes));
    }

    #[test]
    fn role_claim_grants_only_mapped_roles() {
        let allowed_roles = vec![("readers".to_owned(), Role::Viewer), ("owners".to_owned(), Role::Admin)];
        let config_with_role_claim = |name: &str| {
            let allowed_roles = allowed_roles.clone();
            JwtConfig { role_claim: Some(name.to_owned()), allowed_roles, ..config() }
        };
        let role = |name: &str, changes| check(&config_with_role_claim(name), changes).unwrap().role;
        assert_eq!(check(&config(), json!({"roles": "owners", "role": "admin"})).unwrap().role, None);
        for (value, expected) in [
            (json!("readers"), Role::Viewer),
            (json!("owners"), Role::Admin),
            (json!(["x", "readers"]), Role::Viewer),
            (json!(["owners", "readers"]), Role::Admin),
            (json!("admin"), Role::User),
            (json!("Owners"), Role::User),
            (json!("owners readers"), Role::User),
            (json!([["owners"]]), Role::User),
            (json!({"owners": true}), Role::User),
            (json!([]), Role::User),
            (json!(1), Role::User),
            (json!(null), Role::User),
        ] {
            assert_eq!(role("roles", json!({"roles": value})), Some(expected), "{value}");
        }
        let nested = json!({"realm_access": {"roles": ["owners"]}});
        assert_eq!(role("realm_access.roles", nested.clone()), Some(Role::Admin));
        assert_eq!(role("realm_access.other", nested), Some(Role::User));
        assert_eq!(role("https://x.example/r", json!({"https://x.example/r": "owners"})), Some(Role::Admin));
    }

    #[test]
    fn rejects_unsupported_and_malformed_headers() {
        let parse = |json: &str| Header::parse(json.as_bytes()).map(|header| (header.algorithm, header.key_id));
        let expected = Ok(("RS256".to_owned(), Some("k".to_owned())));
        for parameters in [
            "",
            r#", "typ": "JWT""#,
            r#", "typ": "jwt""#,
            r#", "typ": "at+JWT""#,
            r#", "jku": "https://evil.example", "jwk": {}"#,
        ] {
            assert_eq!(parse(&format!(r#"{{"alg": "RS256", "kid": "k"{parameters}}}"#)), expected, "{parameters}");
        }
        for bad in [
            r#"{}"#,
            r#"{"alg": null}"#,
            r#"{"alg": ["RS256"]}"#,
            r#"{"alg": "RS256", "kid": 1}"#,
            r#"{"alg": "RS256", "kid": null}"#,
            r#"{"alg": "RS256", "typ": "JWE"}"#,
            r#"{"alg": "RS256", "typ": null}"#,
            r#"{"alg": "RS256", "crit": []}"#,
            r#"{"alg": "RS256", "crit": null}"#,
            r#"{"alg": "RS256", "crit": ["b64"], "b64": false}"#,
        ] {
            assert_eq!(parse(bad), Err(JwtRejection::UnsupportedHeader), "{bad}");
        }
        for bad in [r#"["RS256"]"#, r#"{"alg": "RS256", "alg": "none"}"#, "x", r#""RS256""#] {
            assert_eq!(parse(bad), Err(JwtRejection::Malformed), "{bad}");
        }
    }

    #[test]
    fn rejects_duplicate_claims() {
        let text = claims(json!({})).to_string();
        for duplicate in ["\"exp\": 1,", "\"sub\": \"x\",", "\"iss\": \"x\",", "\"a\": {\"b\": 1, \"b\": 1},"] {
            let text = text.replacen('{', &format!("{{{duplicate}"), 1);
            assert_eq!(parse_and_check(text.as_bytes(), &config(), now()), Err(JwtRejection::Malformed), "{duplicate}");
        }
        assert_eq!(parse_and_check(b"[]", &config(), now()), Err(JwtRejection::Malformed));
    }
}
