//! Evaluation contexts: a targeting key and attributes, as in OpenFeature.

use serde_json::{Map, Value};
use uuid::Uuid;

use crate::instant::Instant;

/// Names of the built-in attributes. A custom attribute with one of these names does not replace the built-in one.
pub const RESERVED_ATTRIBUTES: [&str; 4] = ["user_id", "email", "role", "created_at"];

/// Maximum size of the custom attributes of one context, in bytes of JSON text.
pub const MAX_ATTRIBUTES_BYTES: usize = 64 * 1024;
/// Maximum nesting depth of custom attributes, in levels. The attributes object itself is the first level.
pub const MAX_ATTRIBUTES_DEPTH: usize = 32;

/// Subject of an evaluation: a targeting key, optional built-in attributes of a user, and custom attributes.
///
/// Conditions and `bucket_by` read attributes by name. `user_id` is the targeting key; `email`, `role` and `created_at`
/// are built in. Any other name is looked up in the custom attributes: first as an exact key, then, if there is no such
/// key, as a path whose dots descend into objects. An attribute that is null counts as missing.
///
/// The context does not enforce [`MAX_ATTRIBUTES_BYTES`] and [`MAX_ATTRIBUTES_DEPTH`].
#[derive(Clone, Debug, PartialEq)]
pub struct EvaluationContext {
    targeting_key: Box<str>,
    built_in: Option<BuiltInAttributes>,
    attributes: Map<String, Value>,
}

#[derive(Clone, Debug, PartialEq)]
struct BuiltInAttributes {
    email: Option<Box<str>>,
    role: Option<Box<str>>,
    /// The instant and its RFC 3339 text.
    created_at: Option<(Instant, Box<str>)>,
}

impl EvaluationContext {
    /// Creates the context of a known user. The targeting key is `id` in lower case with hyphens.
    pub fn user(id: Uuid, email: &str, role: &str, created_at: Instant, attributes: Map<String, Value>) -> Self {
        Self::new(&id.to_string(), Some(email), Some(role), Some(created_at), attributes)
    }

    /// Creates an anonymous context: the targeting key is not the id of a known user, and `user_id` is the only built-in
    /// attribute.
    pub fn anonymous(targeting_key: &str, attributes: Map<String, Value>) -> Self {
        Self::new(targeting_key, None, None, None, attributes)
    }

    /// Creates a context. A targeting key that is a UUID is normalized to lower case with hyphens, so that the same
    /// user always falls into the same bucket.
    pub fn new(
        targeting_key: &str,
        email: Option<&str>,
        role: Option<&str>,
        created_at: Option<Instant>,
        attributes: Map<String, Value>,
    ) -> Self {
        let targeting_key = match Uuid::try_parse(targeting_key) {
            Ok(id) => id.to_string().into(),
            Err(_) => targeting_key.into(),
        };
        let built_in = BuiltInAttributes {
            email: email.map(Into::into),
            role: role.map(Into::into),
            created_at: created_at.map(|at| (at, at.to_string().into())),
        };
        let has_built_in = built_in.email.is_some() || built_in.role.is_some() || built_in.created_at.is_some();
        Self { targeting_key, built_in: has_built_in.then_some(built_in), attributes }
    }

    /// Text that a percentage split hashes unless it names another attribute. For a known user, the user's id.
    pub fn targeting_key(&self) -> &str {
        &self.targeting_key
    }

    /// Returns this context with `attributes` added. Existing attributes have priority: every name, including dotted
    /// paths, that resolves to an existing attribute keeps its value. Built-in names in `attributes` are ignored.
    #[must_use]
    pub fn with_fallback_attributes(&self, attributes: Map<String, Value>) -> Self {
        Self { attributes: merge(self.attributes.clone(), without_reserved(attributes)), ..self.clone() }
    }

    /// Returns this context with `attributes` added. The new attributes have priority: every name, including dotted
    /// paths, that resolves in `attributes` gets its value from there. Built-in names in `attributes` are ignored.
    #[must_use]
    pub fn with_attributes(&self, attributes: Map<String, Value>) -> Self {
        Self { attributes: merge(without_reserved(attributes), self.attributes.clone()), ..self.clone() }
    }

    /// Returns the attribute with this name, or `None` if it is missing or null. See [`EvaluationContext`] for the
    /// order of the lookup.
    pub(crate) fn attribute(&self, name: &str) -> Option<Attribute<'_>> {
        match name {
            "user_id" => Some(Attribute::Text(&self.targeting_key)),
            "email" => self.built_in.as_ref()?.email.as_deref().map(Attribute::Text),
            "role" => self.built_in.as_ref()?.role.as_deref().map(Attribute::Text),
            "created_at" => {
                self.built_in.as_ref()?.created_at.as_ref().map(|(at, text)| Attribute::Instant { at: *at, text })
            }
            _ => self.custom_attribute(name).filter(|value| !value.is_null()).map(Attribute::from),
        }
    }

    fn custom_attribute(&self, name: &str) -> Option<&Value> {
        look_up(&self.attributes, name)
    }
}

/// Returns the value of the exact key, or else the value at the dotted path.
fn look_up<'a>(attributes: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    if let Some(value) = attributes.get(name) {
        return Some(value);
    }
    let (first, rest) = name.split_once('.')?;
    rest.split('.').try_fold(attributes.get(first)?, |value, key| value.as_object()?.get(key))
}

/// Merges two objects. Every name that resolves in `primary` keeps its value: dotted keys of `secondary` are omitted if
/// they would hide a dotted path of `primary`.
fn merge(mut primary: Map<String, Value>, secondary: Map<String, Value>) -> Map<String, Value> {
    let added: Vec<_> = secondary.into_iter().filter(|(key, _)| look_up(&primary, key).is_none()).collect();
    primary.extend(added);
    primary
}

fn without_reserved(mut attributes: Map<String, Value>) -> Map<String, Value> {
    attributes.retain(|key, _| !RESERVED_ATTRIBUTES.contains(&key.as_str()));
    attributes
}

/// Value of an attribute.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Attribute<'c> {
    Text(&'c str),
    Instant { at: Instant, text: &'c str },
    Json(&'c Value),
}

impl<'c> From<&'c Value> for Attribute<'c> {
    fn from(value: &'c Value) -> Self {
        Self::Json(value)
    }
}

impl<'c> Attribute<'c> {
    /// Returns the attribute as text. An instant is its RFC 3339 text.
    pub(crate) fn text(self) -> Option<&'c str> {
        match self {
            Self::Text(text) | Self::Instant { text, .. } => Some(text),
            Self::Json(value) => value.as_str(),
        }
    }

    /// Returns the attribute as JSON. A long text, or the JSON text of any other long value, is truncated to
    /// [`MAX_EXCERPT_CHARS`] characters.
    pub(crate) fn excerpt(self) -> Value {
        if let Some(text) = self.text() {
            return Value::from(truncate(text));
        }
        let Self::Json(value) = self else { return Value::Null };
        let mut buffer = BoundedBuffer(Vec::new());
        match serde_json::to_writer(&mut buffer, value) {
            Ok(()) => value.clone(),
            Err(_) => Value::from(truncate(&String::from_utf8_lossy(&buffer.0))),
        }
    }

    /// Returns the attribute as a number, if it is a JSON number.
    pub(crate) fn number(self) -> Option<f64> {
        match self {
            Self::Json(value) => value.as_f64(),
            Self::Text(_) | Self::Instant { .. } => None,
        }
    }

    /// Returns the attribute as an instant, if it is an instant or RFC 3339 text.
    pub(crate) fn instant(self) -> Option<Instant> {
        match self {
            Self::Instant { at, .. } => Some(at),
            other => other.text().and_then(|text| Instant::parse(text).ok()),
        }
    }

    /// Returns the attribute as an integer, if it is a number without a fraction. `1.0` is 1.
    pub(crate) fn integer(self) -> Option<i64> {
        const LIMIT: f64 = (1_u64 << 53) as f64;
        match self {
            Self::Json(Value::Number(number)) => number
                .as_i64()
                .or_else(|| number.as_f64().filter(|n| n.fract() == 0.0 && n.abs() <= LIMIT).map(|n| n as i64)),
            _ => None,
        }
    }
}

/// Maximum length of an excerpt of an attribute, in characters, without the ellipsis.
const MAX_EXCERPT_CHARS: usize = 200;

fn truncate(text: &str) -> String {
    match text.char_indices().nth(MAX_EXCERPT_CHARS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// A writer that fails once it holds enough bytes for an excerpt. It bounds the cost of serializing large attributes.
struct BoundedBuffer(Vec<u8>);

impl std::io::Write for BoundedBuffer {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.0.len() > 4 * MAX_EXCERPT_CHARS {
            return Err(std::io::ErrorKind::FileTooLarge.into());
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn context(attributes: Value) -> EvaluationContext {
        let Value::Object(attributes) = attributes else { panic!("attributes must be an object") };
        EvaluationContext::new("6BA7B810-9DAD-11D1-80B4-00C04FD430C8", Some("a@b.c"), None, None, attributes)
    }

    #[test]
    fn exact_key_has_priority_over_dotted_path() {
        let context = context(json!({"a.b": "exact", "a": {"b": "nested", "c": {"d": "deep"}}, "n": null}));
        let text = |name| context.attribute(name).and_then(Attribute::text);
        assert_eq!(text("a.b"), Some("exact"));
        assert_eq!(text("a.c.d"), Some("deep"));
        assert_eq!(text("a.x"), None);
        assert!(context.attribute("n").is_none());
    }

    #[test]
    fn custom_attributes_do_not_replace_built_in_attributes() {
        let context = context(json!({"email": "other", "role": "admin"}));
        assert_eq!(context.attribute("email").and_then(Attribute::text), Some("a@b.c"));
        assert!(context.attribute("role").is_none());
        assert_eq!(context.targeting_key(), "6ba7b810-9dad-11d1-80b4-00c04fd430c8");
    }

    fn object(value: Value) -> Map<String, Value> {
        let Value::Object(object) = value else { panic!("must be an object") };
        object
    }

    /// Checks the text of the attribute `name` after `added` was added to `existing`, first as fallback, then with
    /// priority. An empty text means that the attribute is missing.
    fn check_merge(existing: Value, added: Value, name: &str, as_fallback: &str, with_priority: &str) {
        let (context, added) = (context(existing), object(added));
        let text = |context: &EvaluationContext| {
            context.attribute(name).and_then(Attribute::text).unwrap_or_default().to_owned()
        };
        assert_eq!(text(&context.with_fallback_attributes(added.clone())), as_fallback, "as fallback: {name}");
        assert_eq!(text(&context.with_attributes(added)), with_priority, "with priority: {name}");
    }

    #[test]
    fn added_attributes_are_fallbacks_or_have_priority() {
        check_merge(json!({"plan": "free"}), json!({"plan": "pro"}), "plan", "free", "pro");
        check_merge(json!({"plan": "free"}), json!({"page": "home"}), "page", "home", "home");
        check_merge(json!({"plan": "free"}), json!({"page": "home"}), "plan", "free", "free");
        check_merge(json!({"plan": null}), json!({"plan": "pro"}), "plan", "", "pro");
        check_merge(json!({"plan": "free"}), json!({"plan": null}), "plan", "free", "");
    }

    #[test]
    fn dotted_keys_do_not_bypass_the_priority_of_merged_attributes() {
        check_merge(json!({"a": {"b": "existing"}}), json!({"a.b": "added"}), "a.b", "existing", "added");
        check_merge(json!({"a.b": "existing"}), json!({"a": {"b": "added"}}), "a.b", "existing", "added");
        check_merge(json!({"a": {"b": "existing"}}), json!({"a": {"c": "added"}}), "a.c", "", "added");
        check_merge(json!({"a": {"b": "existing"}}), json!({"a": {"c": "added"}}), "a.b", "existing", "");
        check_merge(json!({"a": {"b": {"c": "existing"}}}), json!({"a.b.c": "added"}), "a.b.c", "existing", "added");
    }

    #[test]
    fn added_attributes_do_not_replace_built_in_attributes() {
        let added = json!({"user_id": "x", "email": "x", "role": "x", "created_at": "x", "email.x": "custom"});
        for (name, built_in) in [("user_id", "6ba7b810-9dad-11d1-80b4-00c04fd430c8"), ("email", "a@b.c"), ("role", "")]
        {
            check_merge(json!({}), added.clone(), name, built_in, built_in);
        }
        check_merge(json!({}), added, "email.x", "custom", "custom");
        check_merge(json!({}), json!({"email": {"x": "hidden"}}), "email.x", "", "");
    }

    #[test]
    fn excerpts_are_truncated_to_200_characters() {
        let excerpt = |value: Value| Attribute::from(&value).excerpt();
        assert_eq!(excerpt(json!({"a": [1, "x"]})), json!({"a": [1, "x"]}));
        assert_eq!(excerpt(json!("ä".repeat(200))), json!("ä".repeat(200)));
        assert_eq!(excerpt(json!("ä".repeat(201))), json!(format!("{}…", "ä".repeat(200))));
        let long = excerpt(json!(vec!["abc"; 10_000]));
        assert!(
            long.as_str().is_some_and(|text| text.starts_with("[\"abc\",") && text.chars().count() == 201),
            "{long}"
        );
        assert!(excerpt(json!([["x".repeat(60_000)]])).as_str().is_some_and(|text| text.len() < 300));
    }

    #[test]
    fn numbers_without_fraction_are_integers() {
        let integer = |value: Value| Attribute::from(&value).integer();
        assert_eq!(integer(json!(7)), Some(7));
        assert_eq!(integer(json!(7.0)), Some(7));
        assert_eq!(integer(json!(-3)), Some(-3));
        assert_eq!(integer(json!(7.5)), None);
        assert_eq!(integer(json!(1e300)), None);
        assert_eq!(integer(json!("7")), None);
    }
}
