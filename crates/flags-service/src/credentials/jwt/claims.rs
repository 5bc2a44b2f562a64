//! What a JWT says: its header before the signature is verified, its claims after.

use flags_domain::Instant;
use flags_store::users::{MAX_EMAIL_LENGTH, Role};
use serde_json::{Map, Value};
use uuid::Uuid;

use super::{JwtConfig, JwtRefused, NamedUser, UserClaim, VerifiedJwt, strict_json};

/// How far an issuer's clock may be ahead of ours, in microseconds.
const LEEWAY: i64 = 30_000_000;
/// Latest second that counts as an instant: the last one of the year 9999.
const LAST_SECOND: f64 = 253_402_300_799.0;

/// What of a header counts. Keys and addresses that a header brings along are never looked at.
pub(super) struct Header {
    pub(super) algorithm: String,
    pub(super) key_id: Option<String>,
}

impl Header {
    pub(super) fn read(json: &[u8]) -> Result<Self, JwtRefused> {
        let mut fields = strict_json::object(json).ok_or(JwtRefused::Malformed)?;
        // Extensions that must be understood: none are.
        if fields.contains_key("crit") {
            return Err(JwtRefused::Header);
        }
        let kind = optional_text(&mut fields, "typ")?;
        if kind.is_some_and(|kind| !["jwt", "at+jwt"].iter().any(|known| kind.eq_ignore_ascii_case(known))) {
            return Err(JwtRefused::Header);
        }
        let key_id = optional_text(&mut fields, "kid")?;
        let algorithm = optional_text(&mut fields, "alg")?.ok_or(JwtRefused::Header)?;
        Ok(Self { algorithm, key_id })
    }
}

fn optional_text(fields: &mut Map<String, Value>, name: &str) -> Result<Option<String>, JwtRefused> {
    match fields.remove(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(JwtRefused::Header),
    }
}

/// Checks the claims of a token whose signature is good.
pub(super) fn check(json: &[u8], config: &JwtConfig, now: Instant) -> Result<VerifiedJwt, JwtRefused> {
    let claims = strict_json::object(json).ok_or(JwtRefused::Malformed)?;
    let expires_at = instant(&claims, "exp")?.ok_or(JwtRefused::Claims)?;
    if now >= expires_at {
        return Err(JwtRefused::Expired);
    }
    let soon = now.plus_micros(LEEWAY);
    for name in ["nbf", "iat"] {
        if instant(&claims, name)?.is_some_and(|begin| begin > soon) {
            return Err(JwtRefused::NotYetValid);
        }
    }
    if claims.get("iss").and_then(Value::as_str) != Some(&*config.issuer) {
        return Err(JwtRefused::Issuer);
    }
    if !is_for(claims.get("aud"), &config.audience) {
        return Err(JwtRefused::Audience);
    }
    let user = user(&claims, &config.user_claim).ok_or(JwtRefused::User)?;
    let role = config.role_claim.as_deref().map(|name| role(&claims, name, &config.allowed_roles));
    Ok(VerifiedJwt { user, role, expires_at })
}

/// The instant that a claim gives in seconds since 1970, whole or not; `None` if it is not there.
fn instant(claims: &Map<String, Value>, name: &str) -> Result<Option<Instant>, JwtRefused> {
    let Some(value) = claims.get(name) else { return Ok(None) };
    let seconds = value.as_f64().filter(|seconds| (0.0..=LAST_SECOND).contains(seconds)).ok_or(JwtRefused::Claims)?;
    let micros = match value.as_i64() {
        Some(whole) => whole * 1_000_000,
        // Far below 2^63. What is smaller than a microsecond is cut off.
        None => (seconds * 1e6) as i64,
    };
    Ok(Some(Instant::from_micros(micros)))
}

/// Whether the audience is among those that a claim names.
fn is_for(claim: Option<&Value>, audience: &str) -> bool {
    match claim {
        Some(Value::String(only)) => only == audience,
        Some(Value::Array(several)) => {
            several.iter().all(Value::is_string) && several.iter().any(|one| one == audience)
        }
        _ => false,
    }
}

fn user(claims: &Map<String, Value>, claim: &UserClaim) -> Option<NamedUser> {
    match claim {
        UserClaim::Sub => user_id(claims.get("sub")?.as_str()?),
        UserClaim::Named(name) => {
            let text = find(claims, name)?.as_str()?;
            user_id(text).or_else(|| email(claims, text))
        }
    }
}

/// A UUID in its usual form and no other.
fn user_id(text: &str) -> Option<NamedUser> {
    (text.len() == 36).then(|| Uuid::try_parse(text).ok())?.map(NamedUser::Id)
}

/// An e-mail address, unless the issuer itself says that it is not sure whose it is.
fn email(claims: &Map<String, Value>, text: &str) -> Option<NamedUser> {
    let is_verified = claims.get("email_verified").is_none_or(|verified| *verified == true || *verified == "true");
    let is_email = text.contains('@') && text.chars().count() <= MAX_EMAIL_LENGTH;
    (is_email && is_verified).then(|| NamedUser::Email(text.to_owned()))
}

/// The highest role that the allow-list gives for anything that the claim holds.
fn role(claims: &Map<String, Value>, name: &str, allowed: &[(String, Role)]) -> Role {
    let held = match find(claims, name) {
        Some(Value::Array(several)) => several.as_slice(),
        Some(one) => std::slice::from_ref(one),
        None => &[],
    };
    let given = allowed.iter().filter(|(value, _)| held.iter().any(|one| one == value.as_str()));
    given.map(|(_, role)| *role).fold(Role::User, Role::higher)
}

/// The claim of exactly this name, or else the one that its dots lead to.
fn find<'c>(claims: &'c Map<String, Value>, name: &str) -> Option<&'c Value> {
    if let Some(value) = claims.get(name) {
        return Some(value);
    }
    let (first, rest) = name.split_once('.')?;
    rest.split('.').try_fold(claims.get(first)?, |value, key| value.as_object()?.get(key))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::{JwtAlgorithm, KeySource};
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
        }
    }

    fn now() -> Instant {
        Instant::from_micros(NOW * 1_000_000)
    }

    /// Good claims with `changes` on top; null takes a claim away.
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

    fn outcome(config: &JwtConfig, changes: Value) -> Result<VerifiedJwt, JwtRefused> {
        check(claims(changes).to_string().as_bytes(), config, now())
    }

    fn end(changes: Value) -> Result<String, JwtRefused> {
        outcome(&config(), changes).map(|verified| verified.expires_at.to_string())
    }

    #[test]
    fn a_token_is_void_from_its_end_on() {
        assert_eq!(end(json!({"exp": NOW + 1})), Ok("2030-03-17T17:46:41Z".to_owned()));
        assert_eq!(end(json!({"exp": NOW as f64 + 0.5})), Ok("2030-03-17T17:46:40.5Z".to_owned()));
        assert_eq!(end(json!({"exp": 253_402_300_799_i64})), Ok("9999-12-31T23:59:59Z".to_owned()));
        for exp in [json!(NOW), json!(NOW - 1), json!(0), json!(NOW as f64)] {
            assert_eq!(end(json!({"exp": exp})), Err(JwtRefused::Expired), "{exp}");
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
            assert_eq!(end(json!({"exp": exp})), Err(JwtRefused::Claims), "{exp}");
        }
        assert_eq!(end(json!({"exp": null})), Err(JwtRefused::Claims));
        let null = claims(json!({})).to_string().replace(&(NOW + 60).to_string(), "null");
        assert_eq!(check(null.as_bytes(), &config(), now()), Err(JwtRefused::Claims));
    }

    #[test]
    fn an_issuers_clock_may_be_half_a_minute_ahead() {
        for name in ["nbf", "iat"] {
            assert!(end(json!({name: NOW + 30})).is_ok());
            assert!(end(json!({name: NOW - 1_000_000})).is_ok());
            assert_eq!(end(json!({name: NOW + 31})), Err(JwtRefused::NotYetValid));
            assert_eq!(end(json!({name: "1900000000"})), Err(JwtRefused::Claims));
        }
    }

    #[test]
    fn issuer_and_audience_are_exactly_the_configured_ones() {
        for iss in [
            json!("https://issuer.example/"),
            json!("HTTPS://issuer.example"),
            json!(["https://issuer.example"]),
            json!(null),
        ] {
            assert_eq!(end(json!({"iss": iss})), Err(JwtRefused::Issuer), "{iss}");
        }
        for aud in [json!("flags"), json!(["flags"]), json!(["other", "flags"])] {
            assert!(end(json!({"aud": aud})).is_ok(), "{aud}");
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
            assert_eq!(end(json!({"aud": aud})), Err(JwtRefused::Audience), "{aud}");
        }
    }

    #[test]
    fn the_subject_is_a_users_id() {
        let user = |changes| outcome(&config(), changes).map(|verified| verified.user);
        let ann = Ok(NamedUser::Id(ANN.parse().unwrap()));
        assert_eq!(user(json!({})), ann);
        assert_eq!(user(json!({"sub": ANN.to_uppercase()})), ann);
        for sub in [
            json!("ann@example.com"),
            json!(format!("urn:uuid:{ANN}")),
            json!(ANN.replace('-', "")),
            json!(""),
            json!(7),
            json!([ANN]),
            json!(null),
        ] {
            assert_eq!(user(json!({"sub": sub})), Err(JwtRefused::User), "{sub}");
        }
    }

    #[test]
    fn another_claim_may_hold_an_email_that_the_issuer_is_sure_of() {
        let config = JwtConfig { user_claim: UserClaim::Named("email".to_owned()), ..config() };
        let user = |changes| outcome(&config, changes).map(|verified| verified.user);
        let mail = Ok(NamedUser::Email("Ann@example.com".to_owned()));
        assert_eq!(user(json!({"email": "Ann@example.com"})), mail);
        assert_eq!(user(json!({"email": "Ann@example.com", "email_verified": true})), mail);
        assert_eq!(user(json!({"email": ANN})), Ok(NamedUser::Id(ANN.parse().unwrap())));
        assert!(!format!("{:?}", outcome(&config, json!({"email": "Ann@example.com"}))).contains("nn@"));
        for changes in [
            json!({}),
            json!({"email": "ann"}),
            json!({"email": ["Ann@example.com"]}),
            json!({"email": "Ann@example.com", "email_verified": false}),
            json!({"email": "Ann@example.com", "email_verified": "false"}),
            json!({"email": format!("a@{}", "b".repeat(300))}),
        ] {
            assert_eq!(user(changes.clone()), Err(JwtRefused::User), "{changes}");
        }
    }

    #[test]
    fn a_role_counts_only_where_it_is_allowed() {
        let allowed_roles = vec![("readers".to_owned(), Role::Viewer), ("owners".to_owned(), Role::Admin)];
        let named = |name: &str| {
            let allowed_roles = allowed_roles.clone();
            JwtConfig { role_claim: Some(name.to_owned()), allowed_roles, ..config() }
        };
        let role = |name: &str, changes| outcome(&named(name), changes).unwrap().role;
        assert_eq!(outcome(&config(), json!({"roles": "owners", "role": "admin"})).unwrap().role, None);
        for (held, expected) in [
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
            assert_eq!(role("roles", json!({"roles": held})), Some(expected), "{held}");
        }
        let nested = json!({"realm_access": {"roles": ["owners"]}});
        assert_eq!(role("realm_access.roles", nested.clone()), Some(Role::Admin));
        assert_eq!(role("realm_access.other", nested), Some(Role::User));
        assert_eq!(role("https://x.example/r", json!({"https://x.example/r": "owners"})), Some(Role::Admin));
    }

    #[test]
    fn a_header_is_taken_only_as_far_as_it_is_understood() {
        let read = |json: &str| Header::read(json.as_bytes()).map(|header| (header.algorithm, header.key_id));
        let good = Ok(("RS256".to_owned(), Some("k".to_owned())));
        for typ in [
            "",
            r#", "typ": "JWT""#,
            r#", "typ": "jwt""#,
            r#", "typ": "at+JWT""#,
            r#", "jku": "https://evil.example", "jwk": {}"#,
        ] {
            assert_eq!(read(&format!(r#"{{"alg": "RS256", "kid": "k"{typ}}}"#)), good, "{typ}");
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
            assert_eq!(read(bad), Err(JwtRefused::Header), "{bad}");
        }
        for bad in [r#"["RS256"]"#, r#"{"alg": "RS256", "alg": "none"}"#, "x", r#""RS256""#] {
            assert_eq!(read(bad), Err(JwtRefused::Malformed), "{bad}");
        }
    }

    #[test]
    fn a_claim_that_stands_twice_is_refused() {
        let text = claims(json!({})).to_string();
        for twice in ["\"exp\": 1,", "\"sub\": \"x\",", "\"iss\": \"x\",", "\"a\": {\"b\": 1, \"b\": 1},"] {
            let text = text.replacen('{', &format!("{{{twice}"), 1);
            assert_eq!(check(text.as_bytes(), &config(), now()), Err(JwtRefused::Malformed), "{twice}");
        }
        assert_eq!(check(b"[]", &config(), now()), Err(JwtRefused::Malformed));
    }
}
