//! The evaluation context (OpenFeature's term): who asks, and what is known about them.

use serde_json::{Map, Value};
use uuid::Uuid;

use crate::instant::Instant;

/// Attributes that the service itself knows; a user's own attributes cannot take these names.
pub const RESERVED_ATTRIBUTES: [&str; 4] = ["user_id", "email", "role", "created_at"];

/// Largest attributes of one context, in bytes of JSON text.
pub const MAX_ATTRIBUTES_BYTES: usize = 64 * 1024;
/// Deepest nesting of attributes.
pub const MAX_ATTRIBUTES_DEPTH: usize = 32;

/// Who a flag is evaluated for.
#[derive(Clone, Debug, PartialEq)]
pub struct EvaluationContext {
    targeting_key: Box<str>,
    user: Option<KnownUser>,
    attributes: Map<String, Value>,
}

#[derive(Clone, Debug, PartialEq)]
struct KnownUser {
    email: Option<Box<str>>,
    role: Option<Box<str>>,
    created_at: Option<(Instant, Box<str>)>,
}

impl EvaluationContext {
    /// The context of a known user, whose targeting key is the id in lower-case text form.
    pub fn user(id: Uuid, email: &str, role: &str, created_at: Instant, attributes: Map<String, Value>) -> Self {
        Self::new(&id.to_string(), Some(email), Some(role), Some(created_at), attributes)
    }

    /// A context of somebody of whom only a key is known.
    pub fn anonymous(targeting_key: &str, attributes: Map<String, Value>) -> Self {
        Self::new(targeting_key, None, None, None, attributes)
    }

    /// A context from its parts. A targeting key that is a UUID is brought into lower-case text form.
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
        let user = KnownUser {
            email: email.map(Into::into),
            role: role.map(Into::into),
            created_at: created_at.map(|at| (at, at.to_string().into())),
        };
        let known = user.email.is_some() || user.role.is_some() || user.created_at.is_some();
        Self { targeting_key, user: known.then_some(user), attributes }
    }

    /// The key whose value is hashed where nothing else is named: the user's id.
    pub fn targeting_key(&self) -> &str {
        &self.targeting_key
    }

    /// The same with these attributes beside its own, which stay what they are under every name that a condition can give.
    #[must_use]
    pub fn completed_by(&self, given: Map<String, Value>) -> Self {
        Self { attributes: laid_over(self.attributes.clone(), without_built_in(given)), ..self.clone() }
    }

    /// The same with these attributes, which win over its own under every name that a condition can give. The built-in ones
    /// are not theirs to set.
    #[must_use]
    pub fn overlaid_by(&self, given: Map<String, Value>) -> Self {
        Self { attributes: laid_over(without_built_in(given), self.attributes.clone()), ..self.clone() }
    }

    /// The attribute of this name, or `None` if it is missing or null: a built-in one, then the user's own under
    /// exactly this key, then dots walk into objects.
    pub(crate) fn attribute(&self, name: &str) -> Option<Attribute<'_>> {
        match name {
            "user_id" => Some(Attribute::Text(&self.targeting_key)),
            "email" => self.user.as_ref()?.email.as_deref().map(Attribute::Text),
            "role" => self.user.as_ref()?.role.as_deref().map(Attribute::Text),
            "created_at" => {
                self.user.as_ref()?.created_at.as_ref().map(|(at, text)| Attribute::Instant { at: *at, text })
            }
            _ => self.own_attribute(name).filter(|value| !value.is_null()).map(Attribute::from),
        }
    }

    fn own_attribute(&self, name: &str) -> Option<&Value> {
        look_up(&self.attributes, name)
    }
}

/// What stands under exactly this key, else what dots lead to.
fn look_up<'a>(attributes: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    if let Some(value) = attributes.get(name) {
        return Some(value);
    }
    let (first, rest) = name.split_once('.')?;
    rest.split('.').try_fold(attributes.get(first)?, |value, key| value.as_object()?.get(key))
}

/// Both together. What can be found in `upper` is found so in the whole: a key of `lower` with dots in it must not hide what
/// they lead to in `upper`.
fn laid_over(mut upper: Map<String, Value>, lower: Map<String, Value>) -> Map<String, Value> {
    let added: Vec<_> = lower.into_iter().filter(|(key, _)| look_up(&upper, key).is_none()).collect();
    upper.extend(added);
    upper
}

fn without_built_in(mut attributes: Map<String, Value>) -> Map<String, Value> {
    attributes.retain(|key, _| !RESERVED_ATTRIBUTES.contains(&key.as_str()));
    attributes
}

/// The value of an attribute as seen by a condition.
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
    /// The text, if it is one.
    pub(crate) fn text(self) -> Option<&'c str> {
        match self {
            Self::Text(text) | Self::Instant { text, .. } => Some(text),
            Self::Json(value) => value.as_str(),
        }
    }

    /// As JSON; of what is long, the beginning of its text.
    pub(crate) fn excerpt(self) -> Value {
        if let Some(text) = self.text() {
            return Value::from(beginning(text));
        }
        let Self::Json(value) = self else { return Value::Null };
        let mut text = Beginning(Vec::new());
        match serde_json::to_writer(&mut text, value) {
            Ok(()) => value.clone(),
            Err(_) => Value::from(beginning(&String::from_utf8_lossy(&text.0))),
        }
    }

    /// The number, if it is one.
    pub(crate) fn number(self) -> Option<f64> {
        match self {
            Self::Json(value) => value.as_f64(),
            Self::Text(_) | Self::Instant { .. } => None,
        }
    }

    /// The instant, if it is one or a text that writes one.
    pub(crate) fn instant(self) -> Option<Instant> {
        match self {
            Self::Instant { at, .. } => Some(at),
            other => other.text().and_then(|text| Instant::parse(text).ok()),
        }
    }

    /// The integer, if it is a number without a fraction (1.0 is 1).
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

/// Longest excerpt of an attribute, in characters.
const EXCERPT: usize = 200;

fn beginning(text: &str) -> String {
    match text.char_indices().nth(EXCERPT) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// Takes what surely holds an excerpt, and no more.
struct Beginning(Vec<u8>);

impl std::io::Write for Beginning {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.0.len() > 4 * EXCERPT {
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
    fn the_exact_key_comes_before_the_path() {
        let context = context(json!({"a.b": "exact", "a": {"b": "walked", "c": {"d": "deep"}}, "n": null}));
        let text = |name| context.attribute(name).and_then(Attribute::text);
        assert_eq!(text("a.b"), Some("exact"));
        assert_eq!(text("a.c.d"), Some("deep"));
        assert_eq!(text("a.x"), None);
        assert!(context.attribute("n").is_none());
    }

    #[test]
    fn built_in_attributes_cannot_be_shadowed() {
        let context = context(json!({"email": "other", "role": "admin"}));
        assert_eq!(context.attribute("email").and_then(Attribute::text), Some("a@b.c"));
        assert!(context.attribute("role").is_none());
        assert_eq!(context.targeting_key(), "6ba7b810-9dad-11d1-80b4-00c04fd430c8");
    }

    fn object(value: Value) -> Map<String, Value> {
        let Value::Object(object) = value else { panic!("must be an object") };
        object
    }

    /// The texts of these attributes, with `given` beside the context's own and over them.
    fn check_given(own: Value, given: Value, name: &str, completed: &str, overlaid: &str) {
        let (context, given) = (context(own), object(given));
        let text = |context: &EvaluationContext| {
            context.attribute(name).and_then(Attribute::text).unwrap_or_default().to_owned()
        };
        assert_eq!(text(&context.completed_by(given.clone())), completed, "completed: {name}");
        assert_eq!(text(&context.overlaid_by(given)), overlaid, "overlaid: {name}");
    }

    #[test]
    fn given_attributes_add_to_the_own_ones_or_win_over_them() {
        check_given(json!({"plan": "free"}), json!({"plan": "pro"}), "plan", "free", "pro");
        check_given(json!({"plan": "free"}), json!({"page": "home"}), "page", "home", "home");
        check_given(json!({"plan": "free"}), json!({"page": "home"}), "plan", "free", "free");
        check_given(json!({"plan": null}), json!({"plan": "pro"}), "plan", "", "pro");
        check_given(json!({"plan": "free"}), json!({"plan": null}), "plan", "free", "");
    }

    #[test]
    fn no_dot_lets_given_attributes_past_the_own_ones_or_the_own_ones_past_them() {
        check_given(json!({"a": {"b": "own"}}), json!({"a.b": "given"}), "a.b", "own", "given");
        check_given(json!({"a.b": "own"}), json!({"a": {"b": "given"}}), "a.b", "own", "given");
        check_given(json!({"a": {"b": "own"}}), json!({"a": {"c": "given"}}), "a.c", "", "given");
        check_given(json!({"a": {"b": "own"}}), json!({"a": {"c": "given"}}), "a.b", "own", "");
        check_given(json!({"a": {"b": {"c": "own"}}}), json!({"a.b.c": "given"}), "a.b.c", "own", "given");
    }

    #[test]
    fn the_built_in_attributes_cannot_be_given() {
        let given = json!({"user_id": "x", "email": "x", "role": "x", "created_at": "x", "email.x": "kept"});
        for (name, own) in [("user_id", "6ba7b810-9dad-11d1-80b4-00c04fd430c8"), ("email", "a@b.c"), ("role", "")] {
            check_given(json!({}), given.clone(), name, own, own);
        }
        check_given(json!({}), given, "email.x", "kept", "kept");
        check_given(json!({}), json!({"email": {"x": "hidden"}}), "email.x", "", "");
    }

    #[test]
    fn excerpts_of_long_attributes_are_short() {
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
    fn whole_numbers_are_integers() {
        let integer = |value: Value| Attribute::from(&value).integer();
        assert_eq!(integer(json!(7)), Some(7));
        assert_eq!(integer(json!(7.0)), Some(7));
        assert_eq!(integer(json!(-3)), Some(-3));
        assert_eq!(integer(json!(7.5)), None);
        assert_eq!(integer(json!(1e300)), None);
        assert_eq!(integer(json!("7")), None);
    }
}
