//! `If-Match` and `If-None-Match` (RFC 9110, section 13), and the entity tags they speak of.

use std::future::{Ready, ready};

use actix_web::{
    FromRequest, HttpRequest,
    dev::Payload,
    http::header::{self, HeaderName},
};
use flags_domain::Violation;
use flags_service::Precondition;
use flags_store::log::Revision;
use uuid::Uuid;

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
    let if_match = texts(request, header::IF_MATCH);
    let if_none_match = texts(request, header::IF_NONE_MATCH);
    match (if_match.as_slice(), if_none_match.as_slice()) {
        ([], []) => Ok(Precondition::None),
        ([], [any]) if any == "*" => Ok(Precondition::Absent),
        ([], _) => {
            let detail = "on a change If-None-Match can only be *";
            Err(Violation::new("/If-None-Match", "invalid_header", detail).into())
        }
        ([any], []) if any == "*" => Ok(Precondition::Exists),
        // A tag that none of ours can equal matches nothing.
        (tags, []) => Ok(Precondition::AnyOf(tags.iter().filter_map(|tag| read_tag(tag)).collect())),
        _ => {
            let detail = "send either If-Match or If-None-Match";
            Err(Violation::new("/If-Match", "invalid_header", detail).into())
        }
    }
}

fn texts(request: &HttpRequest, name: HeaderName) -> Vec<String> {
    let values = request.headers().get_all(name).filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(|tag| tag.trim().to_owned()).filter(|tag| !tag.is_empty()).collect()
}

/// Strong tags only: a weak one never matches a precondition.
fn read_tag(tag: &str) -> Option<Revision> {
    let inner = tag.strip_prefix('"')?.strip_suffix('"')?;
    let (epoch, number) = inner.split_once(':')?;
    Some(Revision { epoch: Uuid::try_parse(epoch).ok()?, number: number.parse().ok()? })
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
        ready(Ok(Self(texts(request, header::IF_NONE_MATCH))))
    }
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

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
        assert!(precondition(&[("If-None-Match", &tag(1))]).is_err());
        assert!(precondition(&[("If-Match", "*"), ("If-None-Match", "*")]).is_err());
    }
}
