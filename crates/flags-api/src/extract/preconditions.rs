//! `If-Match` and `If-None-Match` (RFC 9110, section 13), and the entity tags they speak of.

use std::future::{Ready, ready};

use actix_web::{
    FromRequest, HttpRequest,
    dev::Payload,
    http::header::{self, HeaderName},
};
use flags_domain::Violation;
use flags_service::Precondition;
use flags_store::change_log::Revision;

use crate::problem::Problem;

/// The entity tag of a resource last changed at `revision`: `"<epoch>:<number>"`.
pub(crate) fn entity_tag(revision: Revision) -> String {
    format!("\"{revision}\"")
}

/// The precondition of a change. On a PUT `If-None-Match: *` counts as well.
pub(crate) struct IfMatch(pub(crate) Precondition);

impl FromRequest for IfMatch {
    type Error = Problem;
    type Future = Ready<Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(read(request).map(Self))
    }
}

fn read(request: &HttpRequest) -> Result<Precondition, Problem> {
    let invalid = |header: &str, detail: &str| Violation::new(format!("/{header}"), "invalid_header", detail).into();
    match (texts(request, header::IF_MATCH), texts(request, header::IF_NONE_MATCH)) {
        (None, None) => Ok(Precondition::None),
        (Some(tags), None) if tags == ["*"] => Ok(Precondition::Exists),
        // A tag that none of ours can equal matches nothing; nor does a header without any.
        (Some(tags), None) => Ok(Precondition::AnyOf(tags.iter().filter_map(|tag| read_tag(tag)).collect())),
        (None, Some(tags)) if tags == ["*"] => Ok(Precondition::Absent),
        (None, Some(_)) => Err(invalid("If-None-Match", "on a change If-None-Match can only be *")),
        (Some(_), Some(_)) => Err(invalid("If-Match", "send either If-Match or If-None-Match")),
    }
}

/// What stands between the commas of a header; `None` if the header is not there at all.
fn texts(request: &HttpRequest, name: HeaderName) -> Option<Vec<String>> {
    let mut values = request.headers().get_all(name).peekable();
    values.peek()?;
    let texts = values.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
    Some(texts.map(|tag| tag.trim().to_owned()).filter(|tag| !tag.is_empty()).collect())
}

/// Strong tags only: a weak one never matches a precondition.
fn read_tag(tag: &str) -> Option<Revision> {
    tag.strip_prefix('"')?.strip_suffix('"')?.parse().ok()
}

/// The entity tags a reader has already (`If-None-Match` on a GET).
pub(crate) struct IfNoneMatch(Vec<String>);

impl IfNoneMatch {
    /// Whether the reader has what `tag` stands for; weakness does not matter to a reader.
    pub(crate) fn has(&self, tag: &str) -> bool {
        self.0.iter().any(|known| known == "*" || known.trim_start_matches("W/") == tag)
    }
}

impl FromRequest for IfNoneMatch {
    type Error = Problem;
    type Future = Ready<Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(Ok(Self(texts(request, header::IF_NONE_MATCH).unwrap_or_default())))
    }
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use uuid::Uuid;

    use super::*;

    fn precondition(headers: &[(&'static str, &str)]) -> Result<Precondition, Problem> {
        let request = headers.iter().fold(TestRequest::default(), |r, header| r.append_header(*header));
        read(&request.to_http_request())
    }

    #[test]
    fn headers_become_preconditions() {
        let epoch = Uuid::from_u128(7);
        let tag = |number| entity_tag(Revision { epoch, number });
        let any_of = |numbers: &[i64]| {
            Precondition::AnyOf(numbers.iter().map(|number| Revision { epoch, number: *number }).collect())
        };
        assert_eq!(precondition(&[]).unwrap(), Precondition::None);
        assert_eq!(precondition(&[("If-Match", "*")]).unwrap(), Precondition::Exists);
        assert_eq!(precondition(&[("If-None-Match", "*")]).unwrap(), Precondition::Absent);
        assert_eq!(precondition(&[("If-Match", &format!("{}, {}", tag(1), tag(2)))]).unwrap(), any_of(&[1, 2]));
        assert_eq!(precondition(&[("If-Match", &format!("W/{}", tag(1)))]).unwrap(), any_of(&[]));
        assert_eq!(precondition(&[("If-Match", "\"rubbish\"")]).unwrap(), any_of(&[]));
        for empty in ["", ",", " , "] {
            assert_eq!(precondition(&[("If-Match", empty)]).unwrap(), any_of(&[]), "never without a condition");
        }
        assert!(precondition(&[("If-None-Match", &tag(1))]).is_err());
        assert!(precondition(&[("If-None-Match", "")]).is_err());
        assert!(precondition(&[("If-Match", "*"), ("If-None-Match", "*")]).is_err());
    }
}
