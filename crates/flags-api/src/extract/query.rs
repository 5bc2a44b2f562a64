//! Query strings, page limits and page cursors.

use std::future::{Ready, ready};

use actix_web::{FromRequest, HttpRequest, dev::Payload};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use flags_domain::Violation;
use serde::{Deserialize, Deserializer, Serialize, de::DeserializeOwned, de::Error as _};

use crate::{json::to_json, problem::Problem};

/// Extractor for the query string. Rejects unknown and repeated parameters with 422.
pub(crate) struct Query<T>(pub(crate) T);

impl<T: DeserializeOwned + 'static> FromRequest for Query<T> {
    type Error = Problem;
    type Future = Ready<Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(parse(request.query_string()).map(Self))
    }
}

fn parse<T: DeserializeOwned>(query: &str) -> Result<T, Problem> {
    let mut pairs = form_urlencoded::parse(query.as_bytes());
    if let Some((name, _)) = pairs.find(|(_, value)| value.contains('\0')) {
        return Err(Violation::new(format!("/{name}"), "nul_character", "must not contain the NUL character").into());
    }
    let deserializer = serde_urlencoded::Deserializer::new(form_urlencoded::parse(query.as_bytes()));
    serde_path_to_error::deserialize(deserializer).map_err(|error| {
        let path = error.path().to_string();
        let message = error.into_inner().to_string().replace("unknown variant", "unknown value");
        let is_unknown = message.starts_with("unknown field");
        let names_field = is_unknown || message.starts_with("duplicate field");
        let field = message.split('`').nth(1).filter(|_| names_field).unwrap_or(&path).to_owned();
        let code = if is_unknown { "unknown_parameter" } else { "invalid_parameter" };
        Violation::new(format!("/{field}"), code, message).into()
    })
}

/// Deserializes a search text of at most 255 characters.
pub(crate) fn deserialize_search_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let text = String::deserialize(deserializer)?;
    if text.chars().count() > 255 {
        return Err(D::Error::custom("must have at most 255 characters"));
    }
    Ok(Some(text))
}

/// Maximum number of items per page, 1 to 200. Default 50.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PageLimit(pub(crate) u32);

impl Default for PageLimit {
    fn default() -> Self {
        Self(50)
    }
}

impl<'de> Deserialize<'de> for PageLimit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let limit = u32::deserialize(deserializer).ok().filter(|limit| (1..=200).contains(limit));
        limit.map(Self).ok_or_else(|| D::Error::custom("must be an integer from 1 to 200"))
    }
}

const INVALID_CURSOR: &str = "cursor is not valid for this list and sort order; omit it to start from the first page";

/// Position after which a page begins: the sort key of the last item of the previous page. Opaque to clients.
#[derive(Clone, Debug)]
pub(crate) struct PageCursor<K>(pub(crate) K);

impl<K: Serialize> PageCursor<K> {
    /// Encodes the cursor for `next_cursor`: the sort key as JSON in unpadded base64url.
    pub(crate) fn encode(&self) -> String {
        URL_SAFE_NO_PAD.encode(to_json(&self.0))
    }
}

impl<'de, K: DeserializeOwned> Deserialize<'de> for PageCursor<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        // PostgreSQL cannot store NUL in text, so a key with NUL would fail in the database.
        let json =
            URL_SAFE_NO_PAD.decode(text).ok().filter(|bytes| !bytes.windows(6).any(|window| window == b"\\u0000"));
        let key = json.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        key.map(Self).ok_or_else(|| D::Error::custom(INVALID_CURSOR))
    }
}

/// Error 422 for a well-formed cursor that belongs to another sort order or filter of the list.
pub(crate) fn invalid_cursor() -> Problem {
    Violation::new("/cursor", "invalid_parameter", INVALID_CURSOR).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Sample {
        #[serde(default)]
        limit: PageLimit,
        cursor: Option<PageCursor<(String, i64)>>,
        #[expect(dead_code)]
        flag: Option<bool>,
    }

    fn violation(query: &str) -> String {
        let body = parse::<Sample>(query).unwrap_err().body("r");
        let body: serde_json::Value = serde_json::from_str(&body).unwrap();
        format!("{} {}", body["errors"][0]["pointer"].as_str().unwrap(), body["errors"][0]["code"].as_str().unwrap())
    }

    #[test]
    fn cursor_round_trips_through_its_encoding() {
        let cursor = PageCursor(("é\"".to_owned(), -5)).encode();
        let parsed = parse::<Sample>(&format!("limit=200&cursor={cursor}")).unwrap();
        assert_eq!(parsed.limit.0, 200);
        assert_eq!(parsed.cursor.unwrap().0, ("é\"".to_owned(), -5));
        assert_eq!(parse::<Sample>("").unwrap().limit.0, 50);
    }

    #[test]
    fn error_points_to_the_invalid_parameter() {
        assert_eq!(violation("limit=0"), "/limit invalid_parameter");
        assert_eq!(violation("limit=201"), "/limit invalid_parameter");
        assert_eq!(violation("limit=x"), "/limit invalid_parameter");
        assert_eq!(violation("flag=maybe"), "/flag invalid_parameter");
        assert_eq!(violation("unknown=1"), "/unknown unknown_parameter");
        assert_eq!(violation("limit=1&limit=2"), "/limit invalid_parameter");
        assert_eq!(violation("cursor=malformed"), "/cursor invalid_parameter");
        assert_eq!(violation("cursor=%00"), "/cursor nul_character");
        let nul = URL_SAFE_NO_PAD.encode(r#"["\u0000",1]"#);
        assert_eq!(violation(&format!("cursor={nul}")), "/cursor invalid_parameter");
    }
}
