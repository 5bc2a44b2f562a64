//! Query parameters, page sizes and cursors.

use std::future::{Ready, ready};

use actix_web::{FromRequest, HttpRequest, dev::Payload};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use flags_domain::Violation;
use serde::{Deserialize, Deserializer, Serialize, de::DeserializeOwned, de::Error as _};

use crate::problem::Problem;

/// The query parameters as `T`; unknown ones are refused.
pub(crate) struct Query<T>(pub(crate) T);

impl<T: DeserializeOwned + 'static> FromRequest for Query<T> {
    type Error = Problem;
    type Future = Ready<Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(parse(request.query_string()).map(Self))
    }
}

fn parse<T: DeserializeOwned>(query: &str) -> Result<T, Problem> {
    let pairs = || serde_urlencoded::from_str::<Vec<(String, String)>>(query).unwrap_or_default();
    if let Some((name, _)) = pairs().into_iter().find(|(_, value)| value.contains('\0')) {
        return Err(Violation::new(format!("/{name}"), "nul_character", "must not contain the NUL character").into());
    }
    let reader = serde_urlencoded::Deserializer::new(form_urlencoded::parse(query.as_bytes()));
    serde_path_to_error::deserialize(reader).map_err(|error| {
        let path = error.path().to_string();
        let message = error.into_inner().to_string().replace("unknown variant", "unknown value");
        let unknown = message.starts_with("unknown field");
        let names_field = unknown || message.starts_with("duplicate field");
        let field = message.split('`').nth(1).filter(|_| names_field).unwrap_or(&path).to_owned();
        let code = if unknown { "unknown_parameter" } else { "invalid_parameter" };
        Violation::new(format!("/{field}"), code, message).into()
    })
}

/// For texts to search by: at most 255 characters.
pub(crate) fn short_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let text = String::deserialize(deserializer)?;
    if text.chars().count() > 255 {
        return Err(D::Error::custom("must have at most 255 characters"));
    }
    Ok(Some(text))
}

/// Size of a page, 1 to 200.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limit(pub(crate) u32);

impl Default for Limit {
    fn default() -> Self {
        Self(50)
    }
}

impl<'de> Deserialize<'de> for Limit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let limit = u32::deserialize(deserializer).ok().filter(|limit| (1..=200).contains(limit));
        limit.map(Self).ok_or_else(|| D::Error::custom("must be a whole number from 1 to 200"))
    }
}

/// Where a page goes on: the sort key of the last item, opaque to clients.
#[derive(Clone, Debug)]
pub(crate) struct Cursor<K>(pub(crate) K);

impl<K: Serialize> Cursor<K> {
    /// The text for `next_cursor`.
    pub(crate) fn encode(&self) -> String {
        URL_SAFE_NO_PAD.encode(serde_json::to_vec(&self.0).unwrap_or_default())
    }
}

impl<'de, K: DeserializeOwned> Deserialize<'de> for Cursor<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let key = URL_SAFE_NO_PAD.decode(text).ok().filter(|bytes| !bytes.windows(6).any(|part| part == b"\\u0000"));
        let key = key.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        key.map(Self).ok_or_else(|| D::Error::custom("is no cursor of this list in this order; start without one"))
    }
}

/// A cursor of the same list in another order.
pub(crate) fn foreign_cursor() -> Problem {
    Violation::new("/cursor", "invalid_parameter", "is no cursor of this list in this order; start without one").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Sample {
        #[serde(default)]
        limit: Limit,
        cursor: Option<Cursor<(String, i64)>>,
        #[expect(dead_code)]
        flag: Option<bool>,
    }

    fn refused(query: &str) -> String {
        let body = parse::<Sample>(query).unwrap_err().body("r");
        let body: serde_json::Value = serde_json::from_str(&body).unwrap();
        format!("{} {}", body["errors"][0]["pointer"].as_str().unwrap(), body["errors"][0]["code"].as_str().unwrap())
    }

    #[test]
    fn a_cursor_comes_back_as_it_was_given() {
        let cursor = Cursor(("é\"".to_owned(), -5)).encode();
        let read = parse::<Sample>(&format!("limit=200&cursor={cursor}")).unwrap();
        assert_eq!(read.limit.0, 200);
        assert_eq!(read.cursor.unwrap().0, ("é\"".to_owned(), -5));
        assert_eq!(parse::<Sample>("").unwrap().limit.0, 50);
    }

    #[test]
    fn bad_parameters_are_named() {
        assert_eq!(refused("limit=0"), "/limit invalid_parameter");
        assert_eq!(refused("limit=201"), "/limit invalid_parameter");
        assert_eq!(refused("limit=x"), "/limit invalid_parameter");
        assert_eq!(refused("flag=maybe"), "/flag invalid_parameter");
        assert_eq!(refused("nope=1"), "/nope unknown_parameter");
        assert_eq!(refused("limit=1&limit=2"), "/limit invalid_parameter");
        assert_eq!(refused("cursor=rubbish"), "/cursor invalid_parameter");
        assert_eq!(refused("cursor=%00"), "/cursor nul_character");
        let nul = URL_SAFE_NO_PAD.encode(r#"["\u0000",1]"#);
        assert_eq!(refused(&format!("cursor={nul}")), "/cursor invalid_parameter");
    }
}
