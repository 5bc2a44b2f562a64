//! Conditional requests: `If-Match`, `If-None-Match` and entity tags (RFC 9110, section 13).

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

/// Returns the entity tag of a resource that was last changed at `revision`: `"<epoch>:<number>"`, including the
/// quotes.
pub(crate) fn entity_tag(revision: Revision) -> String {
    format!("\"{revision}\"")
}

/// Precondition of a change, from `If-Match` or, to create a resource by PUT, `If-None-Match: *`.
pub(crate) struct IfMatch(pub(crate) Precondition);

impl FromRequest for IfMatch {
    type Error = Problem;
    type Future = Ready<Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(parse_precondition(request).map(Self))
    }
}

fn parse_precondition(request: &HttpRequest) -> Result<Precondition, Problem> {
    match (list_members(request, header::IF_MATCH), list_members(request, header::IF_NONE_MATCH)) {
        (None, None) => Ok(Precondition::None),
        (Some(tags), None) if tags == ["*"] => Ok(Precondition::Exists),
        // A tag that the server cannot have issued matches no resource; neither does an empty list.
        (Some(tags), None) => Ok(Precondition::AnyOf(tags.iter().filter_map(|tag| parse_strong_tag(tag)).collect())),
        (None, Some(tags)) if tags == ["*"] => Ok(Precondition::Absent),
        (None, Some(_)) => Err(invalid_header("If-None-Match", "must be * on a request that changes a resource")),
        (Some(_), Some(_)) => {
            Err(invalid_header("If-Match", "must not be combined with If-None-Match; send one of them"))
        }
    }
}

fn invalid_header(name: &str, detail: &str) -> Problem {
    Violation::new(format!("/{name}"), "invalid_header", detail).into()
}

/// Returns the members of a comma-separated header; `None` if the header is missing.
fn list_members(request: &HttpRequest, name: HeaderName) -> Option<Vec<String>> {
    let mut values = request.headers().get_all(name).peekable();
    values.peek()?;
    let members = values.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
    Some(members.map(|tag| tag.trim().to_owned()).filter(|tag| !tag.is_empty()).collect())
}

/// Parses a strong entity tag. A weak one never matches `If-Match` (RFC 9110, section 13.1.1).
fn parse_strong_tag(tag: &str) -> Option<Revision> {
    tag.strip_prefix('"')?.strip_suffix('"')?.parse().ok()
}

/// Entity tags of the representations that the client has cached (`If-None-Match` on a GET).
pub(crate) struct IfNoneMatch(Vec<String>);

impl IfNoneMatch {
    /// Whether the client has cached the representation with this strong tag. The comparison is weak (RFC 9110, section
    /// 13.1.2).
    pub(crate) fn matches(&self, tag: &str) -> bool {
        self.0.iter().any(|cached| cached == "*" || cached.trim_start_matches("W/") == tag)
    }
}

impl FromRequest for IfNoneMatch {
    type Error = Problem;
    type Future = Ready<Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(Ok(Self(list_members(request, header::IF_NONE_MATCH).unwrap_or_default())))
    }
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use uuid::Uuid;

    use super::*;

    fn precondition(headers: &[(&'static str, &str)]) -> Result<Precondition, Problem> {
        let request = headers.iter().fold(TestRequest::default(), |r, header| r.append_header(*header));
        parse_precondition(&request.to_http_request())
    }

    #[test]
    fn parses_if_match_and_if_none_match() {
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
        assert_eq!(precondition(&[("If-Match", "\"not-a-revision\"")]).unwrap(), any_of(&[]));
        for empty in ["", ",", " , "] {
            assert_eq!(
                precondition(&[("If-Match", empty)]).unwrap(),
                any_of(&[]),
                "an empty If-Match is still a precondition"
            );
        }
        assert!(precondition(&[("If-None-Match", &tag(1))]).is_err());
        assert!(precondition(&[("If-None-Match", "")]).is_err());
        assert!(precondition(&[("If-Match", "*"), ("If-None-Match", "*")]).is_err());
    }
}
