//! Evaluation contexts: a key and attributes, as in OpenFeature.

use serde_json::{Map, Value};
use uuid::Uuid;

use crate::{email::comparable_email, external_id::canonical_uuid, instant::Instant};

/// Names of the built-in attributes. Stored custom attributes cannot have these names.
pub const RESERVED_ATTRIBUTES: [&str; 5] = ["user_id", "external_id", "email", "role", "created_at"];

/// Built-in attributes that a request may supply for a context without a stored user.
const REQUESTABLE_ATTRIBUTES: [&str; 3] = ["email", "role", "created_at"];

/// Maximum size of the custom attributes of one context, in bytes of JSON text.
pub const MAX_ATTRIBUTES_BYTES: usize = 64 * 1024;
/// Maximum nesting depth of custom attributes, in levels. The attributes object itself is the first level.
pub const MAX_ATTRIBUTES_DEPTH: usize = 32;

/// Subject of an evaluation: an evaluation key, the built-in attributes of a stored user, and
/// custom attributes.
///
/// Conditions and `bucket_by` read attributes by name:
///
/// - `user_id` is the evaluation key. The operator `equals` also accepts the id of the user, as a UUID in any spelling.
/// - `external_id` is the stored user's id in another system. Without a stored user, it is the evaluation key.
/// - `email`, `role` and `created_at` come from the stored user. Without a stored user, the custom attributes of these
///   names apply. For a stored user without an e-mail address, the custom attribute `email` applies.
/// - Any other name is first looked up as a key of the custom attributes. If there is no such key, the name is a path
///   whose dots descend into objects.
///
/// Conditions on `email` ignore case and compare addresses in one Unicode form. An attribute that is null counts as
/// missing. The context does not enforce [`MAX_ATTRIBUTES_BYTES`] and
/// [`MAX_ATTRIBUTES_DEPTH`].
#[derive(Clone, Debug, PartialEq)]
pub struct EvaluationContext {
    key: Option<Box<str>>,
    /// Id of the user, stored or not. `None` if the id is unknown or the context has no key.
    user_id: Option<Uuid>,
    user: Option<UserAttributes>,
    attributes: Map<String, Value>,
    /// The attribute `email` with all texts in the form of [`comparable_email`]. `None` if the attribute already has
    /// this form.
    comparable_email: Option<Box<Value>>,
}

/// Built-in attributes of a stored user.
#[derive(Clone, Debug, PartialEq)]
struct UserAttributes {
    external_id: Option<Box<str>>,
    email: Option<Box<str>>,
    role: Box<str>,
    /// The instant and its RFC 3339 text.
    created_at: (Instant, Box<str>),
}

/// Stored user of an [`EvaluationContext`].
#[derive(Clone, Copy, Debug)]
pub struct StoredUser<'u> {
    /// Id of the user.
    pub id: Uuid,
    /// Value of the attribute `user_id`, and the text that percentage splits hash by default. It is the external id if
    /// the user was created with one, else the UUID in lower case with hyphens. It never changes.
    pub evaluation_key: &'u str,
    /// Id of the user in another system.
    pub external_id: Option<&'u str>,
    /// E-mail address.
    pub email: Option<&'u str>,
    /// Name of the role.
    pub role: &'u str,
    /// Creation time.
    pub created_at: Instant,
}

impl EvaluationContext {
    /// Creates the context of a stored user.
    pub fn user(user: StoredUser<'_>, attributes: Map<String, Value>) -> Self {
        let built_in = UserAttributes {
            external_id: user.external_id.map(Into::into),
            email: user.email.map(Into::into),
            role: user.role.into(),
            created_at: (user.created_at, user.created_at.to_string().into()),
        };
        Self {
            key: Some(user.evaluation_key.into()),
            user_id: Some(user.id),
            user: Some(built_in),
            attributes: Map::new(),
            comparable_email: None,
        }
        .replace_attributes(without(attributes, &RESERVED_ATTRIBUTES))
    }

    /// Creates an anonymous context: no stored user has this key. The attributes may contain `email`, `role` and
    /// `created_at`. If the key is a UUID in lower case with hyphens, it is also the id of the user.
    pub fn anonymous(key: &str, attributes: Map<String, Value>) -> Self {
        Self { key: Some(key.into()), user_id: canonical_uuid(key), ..Self::without_key(attributes) }
    }

    /// Like [`anonymous`](Self::anonymous), for a user whose id is [derived](crate::UserIdNamespace::user_id) from the
    /// key. Conditions and percentage splits on the key have the same result after the user is stored.
    pub fn anonymous_user(key: &str, user_id: Uuid, attributes: Map<String, Value>) -> Self {
        Self { user_id: Some(user_id), ..Self::anonymous(key, attributes) }
    }

    /// Creates a context without a key. Conditions on `user_id` and `external_id` fail, and percentage splits that hash
    /// the key serve the off variant.
    pub fn without_key(attributes: Map<String, Value>) -> Self {
        Self { key: None, user_id: None, user: None, attributes: Map::new(), comparable_email: None }
            .replace_attributes(without(attributes, &["user_id", "external_id"]))
    }

    fn replace_attributes(mut self, attributes: Map<String, Value>) -> Self {
        self.attributes = attributes;
        self.comparable_email = match self.attribute("email") {
            Some(Attribute::Text(text)) => comparable_email(text).map(Value::from),
            Some(Attribute::Json(Value::String(text))) => comparable_email(text).map(Value::from),
            Some(Attribute::Json(Value::Array(items))) => Some(items.iter().map(comparable_item).collect()),
            _ => None,
        }
        .map(Box::new);
        self
    }

    /// Text that a percentage split without `bucket_by` hashes. `None` if the context has no key.
    pub fn evaluation_key(&self) -> Option<&str> {
        self.key.as_deref()
    }

    /// Returns the names in `attributes` that this context ignores. These are names of built-in
    /// attributes that only the key or the stored user can supply.
    pub fn ignored_attributes(&self, attributes: &Map<String, Value>) -> Vec<&'static str> {
        let names = RESERVED_ATTRIBUTES.into_iter();
        names.filter(|name| attributes.contains_key(*name) && !self.accepts(name)).collect()
    }

    /// Whether this context accepts a custom attribute of this name.
    fn accepts(&self, name: &str) -> bool {
        match &self.user {
            None => REQUESTABLE_ATTRIBUTES.contains(&name) || !RESERVED_ATTRIBUTES.contains(&name),
            Some(user) => (name == "email" && user.email.is_none()) || !RESERVED_ATTRIBUTES.contains(&name),
        }
    }

    /// Returns this context with `attributes` added as fallback. A name that already resolves to a value, as a key or
    /// as a dotted path, keeps its value. Omits [ignored](Self::ignored_attributes) names.
    #[must_use]
    pub fn with_fallback_attributes(&self, attributes: Map<String, Value>) -> Self {
        self.clone().replace_attributes(merge(self.attributes.clone(), self.accepted(attributes)))
    }

    /// Returns this context with `attributes` added. A name that resolves to a value in `attributes`, as a key or as a
    /// dotted path, gets that value. Omits [ignored](Self::ignored_attributes) names.
    #[must_use]
    pub fn with_attributes(&self, attributes: Map<String, Value>) -> Self {
        self.clone().replace_attributes(merge(self.accepted(attributes), self.attributes.clone()))
    }

    fn accepted(&self, mut attributes: Map<String, Value>) -> Map<String, Value> {
        attributes.retain(|name, _| self.accepts(name));
        attributes
    }

    /// Returns the attribute with this name, or `None` if it is missing or null. See [`EvaluationContext`] for the
    /// order of the lookup.
    pub(crate) fn attribute(&self, name: &str) -> Option<Attribute<'_>> {
        match (name, &self.user) {
            ("user_id", _) | ("external_id", None) => self.key.as_deref().map(Attribute::Text),
            ("external_id", Some(user)) => user.external_id.as_deref().map(Attribute::Text),
            ("email", Some(UserAttributes { email: Some(email), .. })) => Some(Attribute::Text(email)),
            ("role", Some(user)) => Some(Attribute::Text(&user.role)),
            ("created_at", Some(UserAttributes { created_at: (at, text), .. })) => {
                Some(Attribute::Instant { at: *at, text })
            }
            _ => self.custom_attribute(name).filter(|value| !value.is_null()).map(Attribute::from),
        }
    }

    /// Returns the attribute `email` as conditions compare it.
    pub(crate) fn comparable_email(&self) -> Option<Attribute<'_>> {
        match &self.comparable_email {
            Some(value) => Some(Attribute::Json(value)),
            None => self.attribute("email"),
        }
    }

    /// Id of the user that the key belongs to, stored or not. `None` if the id is unknown or the context has no key.
    pub(crate) const fn user_id(&self) -> Option<Uuid> {
        self.user_id
    }

    fn custom_attribute(&self, name: &str) -> Option<&Value> {
        look_up(&self.attributes, name)
    }
}

fn comparable_item(item: &Value) -> Value {
    let form = item.as_str().and_then(comparable_email);
    form.map_or_else(|| item.clone(), Value::from)
}

/// Returns the value of the exact key, or else the value at the dotted path.
fn look_up<'a>(attributes: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    if let Some(value) = attributes.get(name) {
        return Some(value);
    }
    let (first, rest) = name.split_once('.')?;
    rest.split('.').try_fold(attributes.get(first)?, |value, key| value.as_object()?.get(key))
}

/// Merges two objects. Every name that resolves in `primary` keeps its value: a key of `secondary`
/// is omitted if it would hide a key or dotted path of `primary`.
fn merge(mut primary: Map<String, Value>, secondary: Map<String, Value>) -> Map<String, Value> {
    let added: Vec<_> = secondary.into_iter().filter(|(key, _)| look_up(&primary, key).is_none()).collect();
    primary.extend(added);
    primary
}

fn without(mut attributes: Map<String, Value>, names: &[&str]) -> Map<String, Value> {
    attributes.retain(|key, _| !names.contains(&key.as_str()));
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
    /// Returns the attribute as text. An instant becomes its RFC 3339 text.
    pub(crate) fn text(self) -> Option<&'c str> {
        match self {
            Self::Text(text) | Self::Instant { text, .. } => Some(text),
            Self::Json(value) => value.as_str(),
        }
    }

    /// Returns the attribute as JSON for display. Truncates a text to [`MAX_EXCERPT_CHARS`]
    /// characters. Replaces any other large value with its JSON text, truncated in the same way.
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
        let user = StoredUser {
            id: Uuid::nil(),
            evaluation_key: "ext-1",
            external_id: Some("ext-1"),
            email: Some("a@b.c"),
            role: "user",
            created_at: Instant::from_micros(0),
        };
        EvaluationContext::user(user, attributes)
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
        let context = context(json!({"email": "other", "role": "admin", "user_id": "x", "external_id": "x"}));
        let text = |name| context.attribute(name).and_then(Attribute::text);
        assert_eq!((text("email"), text("role")), (Some("a@b.c"), Some("user")));
        assert_eq!((text("user_id"), text("external_id")), (Some("ext-1"), Some("ext-1")));
        assert_eq!(text("created_at"), Some("1970-01-01T00:00:00Z"));
    }

    fn object(value: Value) -> Map<String, Value> {
        let Value::Object(object) = value else { panic!("must be an object") };
        object
    }

    /// Merges `added` into `existing`, once as fallback and once with priority, and checks the text of the attribute
    /// `name` in both results. An empty text means that the attribute is missing.
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
        for (name, built_in) in [("user_id", "ext-1"), ("email", "a@b.c"), ("role", "user")] {
            check_merge(json!({}), added.clone(), name, built_in, built_in);
        }
        let ignored = context(json!({})).ignored_attributes(&object(added.clone()));
        assert_eq!(ignored, ["user_id", "email", "role", "created_at"]);
        check_merge(json!({}), added, "email.x", "custom", "custom");
        check_merge(json!({}), json!({"email": {"x": "hidden"}}), "email.x", "", "");
    }

    #[test]
    fn anonymous_contexts_take_built_in_attributes_from_the_request() {
        let requested = json!({"user_id": "x", "external_id": "x", "email": "a@b.c", "role": "admin",
            "created_at": "2026-01-01T00:00:00Z", "plan": "pro"});
        let context = EvaluationContext::anonymous("key", object(requested.clone()));
        let text = |context: &EvaluationContext, name| {
            context.attribute(name).and_then(Attribute::text).unwrap_or_default().to_owned()
        };
        for (name, expected) in [("user_id", "key"), ("external_id", "key"), ("email", "a@b.c"), ("role", "admin")] {
            assert_eq!(text(&context, name), expected, "{name}");
        }
        assert_eq!(
            context.attribute("created_at").and_then(Attribute::instant),
            Instant::parse("2026-01-01T00:00:00Z").ok()
        );
        assert_eq!(context.ignored_attributes(&object(requested.clone())), ["user_id", "external_id"]);
        let without_key = EvaluationContext::without_key(object(requested));
        assert_eq!((without_key.evaluation_key(), text(&without_key, "email")), (None, "a@b.c".to_owned()));
        assert!(without_key.attribute("user_id").is_none() && without_key.attribute("external_id").is_none());
    }

    #[test]
    fn users_without_email_take_it_from_the_request() {
        let user = StoredUser {
            id: Uuid::nil(),
            evaluation_key: "k",
            external_id: None,
            email: None,
            role: "user",
            created_at: Instant::from_micros(0),
        };
        let context = EvaluationContext::user(user, Map::new());
        let requested = object(json!({"email": "a@b.c", "external_id": "x"}));
        assert_eq!(context.ignored_attributes(&requested), ["external_id"]);
        let context = context.with_attributes(requested);
        assert_eq!(context.attribute("email").and_then(Attribute::text), Some("a@b.c"));
        assert!(context.attribute("external_id").is_none());
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
