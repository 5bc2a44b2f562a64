//! Attributes of the evaluation context that come from claims.

use std::fmt;

use flags_domain::{
    MAX_ATTRIBUTE_LENGTH, MAX_ATTRIBUTES_BYTES, MAX_ATTRIBUTES_DEPTH, RESERVED_ATTRIBUTES, check_attribute_counts,
    is_deeper_than,
};
use serde_json::{Map, Value};

use super::JwtRejection;

/// Mapping of a claim to an attribute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimAttribute {
    /// Name of the attribute, as in conditions.
    name: String,
    /// Location of the value in the claims: a JSON Pointer (RFC 6901), not empty.
    pointer: String,
}

/// Invalid mapping of a claim to an attribute.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClaimAttributeError {
    /// The text is not `NAME=POINTER`.
    #[error("must be NAME=POINTER, such as plan=/plan")]
    MissingPointer,
    /// The name is empty or too long, or contains a NUL character.
    #[error("the attribute name must have 1 to {MAX_ATTRIBUTE_LENGTH} characters, without NUL")]
    InvalidName,
    /// The name belongs to a built-in attribute.
    #[error("{0} is a built-in attribute; choose another name, such as jwt_{0}, and use that name in conditions")]
    BuiltIn(&'static str),
    /// The pointer does not start with a slash or has an invalid escape sequence.
    #[error(
        "{0:?} is not a JSON Pointer (RFC 6901): it must start with `/`; within a name, write `~` as ~0 and `/` \
         as ~1"
    )]
    InvalidPointer(String),
}

impl ClaimAttribute {
    /// Parses `NAME=POINTER`. The pointer may contain equals signs.
    pub fn parse(text: &str) -> Result<Self, ClaimAttributeError> {
        let (name, pointer) = text.split_once('=').ok_or(ClaimAttributeError::MissingPointer)?;
        if name.is_empty() || name.chars().count() > MAX_ATTRIBUTE_LENGTH || name.contains('\0') {
            return Err(ClaimAttributeError::InvalidName);
        }
        if let Some(built_in) = RESERVED_ATTRIBUTES.into_iter().find(|built_in| *built_in == name) {
            return Err(ClaimAttributeError::BuiltIn(built_in));
        }
        if !is_json_pointer(pointer) {
            return Err(ClaimAttributeError::InvalidPointer(pointer.to_owned()));
        }
        Ok(Self { name: name.to_owned(), pointer: pointer.to_owned() })
    }

    /// Name of the attribute.
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// Whether the text is a JSON Pointer other than the empty one, which refers to the whole document.
fn is_json_pointer(text: &str) -> bool {
    let mut after_tildes = text.split('~').skip(1);
    text.starts_with('/') && after_tildes.all(|rest| rest.starts_with(['0', '1']))
}

/// Attributes from the claims of one token. `Debug` does not print them.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct ClaimAttributes(pub Map<String, Value>);

impl fmt::Debug for ClaimAttributes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClaimAttributes(…)")
    }
}

impl ClaimAttributes {
    /// Reads the attributes from the claims. Omits missing claims. Fails if the attributes exceed the limits of one
    /// context.
    pub(super) fn read(claims: Map<String, Value>, mappings: &[ClaimAttribute]) -> Result<Self, JwtRejection> {
        if mappings.is_empty() {
            return Ok(Self::default());
        }
        let claims = Value::Object(claims);
        let mapped = mappings
            .iter()
            .filter_map(|mapping| Some((mapping.name.clone(), claims.pointer(&mapping.pointer)?.clone())));
        let attributes: Map<_, _> = mapped.collect();
        let has_valid_counts = check_attribute_counts("", &attributes, None).is_empty();
        let attributes = Value::Object(attributes);
        if !has_valid_counts
            || is_deeper_than(&attributes, MAX_ATTRIBUTES_DEPTH)
            || attributes.to_string().len() > MAX_ATTRIBUTES_BYTES
        {
            return Err(JwtRejection::TooManyAttributes);
        }
        let Value::Object(attributes) = attributes else { return Err(JwtRejection::Malformed) };
        Ok(Self(attributes))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn parses_names_and_json_pointers() {
        for (text, name, pointer) in [
            ("plan=/plan", "plan", "/plan"),
            ("address.country=/address/country", "address.country", "/address/country"),
            ("url=/https:~1~1x.example~1claims/a=b", "url", "/https:~1~1x.example~1claims/a=b"),
            ("empty=/", "empty", "/"),
        ] {
            let expected = ClaimAttribute { name: name.to_owned(), pointer: pointer.to_owned() };
            assert_eq!(ClaimAttribute::parse(text), Ok(expected), "{text}");
        }
        let error = |text: &str| ClaimAttribute::parse(text).unwrap_err().to_string();
        for text in ["plan", "", "/plan"] {
            assert!(error(text).contains("NAME=POINTER"), "{text}");
        }
        for text in ["plan=", "plan=plan", "plan=/a~", "plan=/a~2", "plan=/~/x", "plan=#/plan"] {
            assert!(error(text).contains("JSON Pointer (RFC 6901)"), "{text}");
        }
        for name in RESERVED_ATTRIBUTES {
            assert!(error(&format!("{name}=/x")).contains(&format!("such as jwt_{name}")), "{name}");
        }
        assert!(error("=/plan").contains("1 to 255 characters"));
        assert!(error(&format!("{}=/plan", "x".repeat(256))).contains("1 to 255 characters"));
    }

    fn read(claims: Value, mappings: &[&str]) -> Result<Value, JwtRejection> {
        let Value::Object(claims) = claims else { panic!("claims must be an object") };
        let mappings: Vec<_> = mappings.iter().map(|text| ClaimAttribute::parse(text).unwrap()).collect();
        ClaimAttributes::read(claims, &mappings).map(|attributes| Value::Object(attributes.0))
    }

    #[test]
    fn reads_claims_by_pointer() {
        let claims =
            json!({"plan": "pro", "address": {"country": "de"}, "a/b": {"m~n": [1, {"x": true}]}, "none": null});
        let mappings = ["plan=/plan", "country=/address/country", "x=/a~1b/m~0n/1/x", "none=/none", "missing=/x/y"];
        let expected = json!({"plan": "pro", "country": "de", "x": true, "none": null});
        assert_eq!(read(claims.clone(), &mappings), Ok(expected));
        assert_eq!(read(claims, &[]), Ok(json!({})));
    }

    #[test]
    fn rejects_claims_beyond_the_limits_of_attributes() {
        let too_many = Err(JwtRejection::TooManyAttributes);
        let nested = |levels: usize| (0..levels).fold(json!(1), |value, _| json!([value]));
        assert_eq!(read(json!({"a": nested(30)}), &["a=/a"]).map(|_| ()), Ok(()));
        assert_eq!(read(json!({"a": nested(31)}), &["a=/a"]), too_many);
        assert_eq!(read(json!({"a": "x".repeat(64 * 1024)}), &["a=/a"]), too_many);
        assert_eq!(read(json!({"a": vec![1; 5_000]}), &["a=/a"]).map(|_| ()), Ok(()));
        assert_eq!(read(json!({"a": vec![1; 5_000]}), &["a=/a", "b=/a/0", "c=/a"]), too_many);
        let members: Map<_, _> = (0..1_000).map(|n| (n.to_string(), json!(n))).collect();
        assert_eq!(read(json!({"a": members}), &["a=/a"]), too_many);
        assert_eq!(read(json!({"a": members}), &["b=/a/0"]), Ok(json!({"b": 0})));
    }
}
