//! Strict decoding of flag definitions, which a newer version of the service may have written.

use serde::{Deserialize as _, de::DeserializeOwned};
use serde_json::Value;
use uuid::Uuid;

use crate::{flag::Flag, instant::Instant, name::FlagName, schedule::ScheduledChange, value::FlagType};

/// Error for a part of a definition that this version cannot read, such as a condition with an unknown operator.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {detail}")]
pub struct UnreadableDefinition {
    /// Location in the definition, such as `targeting_rules[0].conditions[1].operator`; `.` for the definition itself.
    pub path: String,
    /// Description of the problem.
    pub detail: String,
}

/// A flag whose definition this version cannot read.
///
/// Skipping only the unreadable part, such as one rule, would serve wrong values. Therefore the whole flag is
/// unreadable: it serves active overrides of its type and nothing else.
#[derive(Clone, Debug, PartialEq)]
pub struct UnreadableFlag {
    /// Unique name.
    pub name: FlagName,
    /// Type of the flag; `None` if this version does not know it. Without a type, overrides do not apply either.
    pub flag_type: Option<FlagType>,
    /// Whether users may read their own value of the flag. `false` if the field cannot be read.
    pub client_visible: bool,
    /// Instant at which the flag was archived.
    pub archived_at: Option<Instant>,
    /// Description of the first problem.
    pub reason: String,
}

/// Definition of a flag as read from storage or from a server.
#[derive(Clone, Debug, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "nearly all flags are readable")]
pub enum FlagDefinition {
    /// Complete definition.
    Readable(Flag),
    /// Definition that this version cannot read.
    Unreadable(UnreadableFlag),
}

/// A scheduled change as read from storage or from a server.
#[derive(Clone, Debug, PartialEq)]
pub enum ScheduledChangeDefinition {
    /// Complete definition.
    Readable(ScheduledChange),
    /// Definition that this version cannot read. It makes its flag unreadable.
    Unreadable {
        /// Id of the scheduled change.
        id: Uuid,
        /// Description of the first problem.
        reason: String,
    },
}

/// Decodes one field of a definition. The path in the error starts with `field`.
///
/// Unknown variants and fields in rules, conditions, serves, variants and scheduled changes are
/// errors.
pub fn decode_field<T: DeserializeOwned>(field: &str, json: &Value) -> Result<T, UnreadableDefinition> {
    serde_path_to_error::deserialize(json).map_err(|error| {
        let path = match (field, error.path().to_string()) {
            ("", path) => path,
            (field, path) if path == "." => field.to_owned(),
            (field, path) if path.starts_with('[') => format!("{field}{path}"),
            (field, path) => format!("{field}.{path}"),
        };
        UnreadableDefinition { path, detail: error.into_inner().to_string() }
    })
}

impl FlagDefinition {
    /// Decodes a flag from the JSON of the server's API or of its change log. Returns
    /// [`Unreadable`](Self::Unreadable) if only some fields can be read.
    ///
    /// # Errors
    /// Returns an error if not even the name of the flag can be read.
    pub fn from_json(json: &Value) -> Result<Self, UnreadableDefinition> {
        let error = match decode_field("", json) {
            Ok(flag) => return Ok(Self::Readable(flag)),
            Err(error) => error,
        };
        let name = decode_field("name", &json["name"])?;
        // If the server itself cannot read the flag, its response contains the reason in the field `unreadable`.
        let reason = json["unreadable"].as_str().map_or_else(|| error.to_string(), ToOwned::to_owned);
        Ok(Self::Unreadable(UnreadableFlag {
            name,
            flag_type: json["flag_type"].as_str().and_then(FlagType::parse),
            client_visible: json["client_visible"].as_bool().unwrap_or(false),
            archived_at: Instant::deserialize(&json["archived_at"]).ok(),
            reason,
        }))
    }

    /// Name of the flag.
    pub const fn name(&self) -> &FlagName {
        match self {
            Self::Readable(flag) => &flag.name,
            Self::Unreadable(flag) => &flag.name,
        }
    }
}

impl From<Flag> for FlagDefinition {
    fn from(flag: Flag) -> Self {
        Self::Readable(flag)
    }
}

impl ScheduledChangeDefinition {
    /// Decodes a scheduled change from the JSON of the server's API or of its change log. Returns
    /// [`Unreadable`](Self::Unreadable) if only some fields can be read.
    ///
    /// # Errors
    /// Returns an error if not even the id can be read.
    pub fn from_json(json: &Value) -> Result<Self, UnreadableDefinition> {
        match decode_field("", json) {
            Ok(change) => Ok(Self::Readable(change)),
            Err(error) => Ok(Self::Unreadable { id: decode_field("id", &json["id"])?, reason: error.to_string() }),
        }
    }

    /// Id of the scheduled change.
    pub const fn id(&self) -> Uuid {
        match self {
            Self::Readable(change) => change.id,
            Self::Unreadable { id, .. } => *id,
        }
    }
}

impl From<ScheduledChange> for ScheduledChangeDefinition {
    fn from(change: ScheduledChange) -> Self {
        Self::Readable(change)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn flag_with(field: &str, value: Value) -> Value {
        let mut flag = json!({
            "name": "f", "flag_type": "boolean", "enabled": true,
            "variants": [{"id": "on", "value": true}], "default": {"variant": "on"}, "off_variant": "on",
            "salt": "f", "client_visible": true,
            "default_set_at": "2026-01-01T00:00:00Z", "enabled_set_at": "2026-01-01T00:00:00Z",
        });
        flag[field] = value;
        flag
    }

    fn reason(field: &str, value: Value) -> Option<String> {
        match FlagDefinition::from_json(&flag_with(field, value)).unwrap() {
            FlagDefinition::Readable(_) => None,
            FlagDefinition::Unreadable(flag) => Some(flag.reason),
        }
    }

    #[test]
    fn unknown_variants_and_fields_make_the_flag_unreadable_with_their_location() {
        let rule = |condition: Value| json!([{"id": "r", "conditions": [condition], "serve": {"variant": "on"}}]);
        let starts_with = |reason: Option<String>, expected: &str| {
            let reason = reason.unwrap_or_default();
            assert!(reason.starts_with(expected), "{reason:?} does not start with {expected:?}");
        };
        let operator = json!({"attribute": "plan", "operator": "resembles", "values": ["x"]});
        starts_with(
            reason("targeting_rules", rule(operator)),
            "targeting_rules[0].conditions[0].operator: unknown variant `resembles`",
        );
        let field = json!({"attribute": "plan", "operator": "equals", "values": ["x"], "future": 1});
        starts_with(
            reason("targeting_rules", rule(field)),
            "targeting_rules[0].conditions[0].future: unknown field `future`",
        );
        starts_with(reason("default", json!({"variant": "on", "future": 1})), "default");
        starts_with(reason("variants", json!([{"id": "on", "value": true, "future": 1}])), "variants[0].future");
        starts_with(reason("flag_type", json!("date")), "flag_type: unknown variant `date`");
        assert_eq!(reason("future", json!(1)), None, "other fields of a flag are ignored");
    }

    #[test]
    fn unreadable_flag_keeps_its_readable_fields() {
        let mut json = flag_with("archived_at", json!("2026-01-02T00:00:00Z"));
        json["variants"] = json!("none");
        let FlagDefinition::Unreadable(flag) = FlagDefinition::from_json(&json).unwrap() else { panic!("readable") };
        assert_eq!((&*flag.name, flag.flag_type, flag.client_visible), ("f", Some(FlagType::Boolean), true));
        assert_eq!(flag.archived_at, Some(Instant::parse("2026-01-02T00:00:00Z").unwrap()));
        assert!(FlagDefinition::from_json(&json!({"name": "not a name"})).is_err());
    }

    #[test]
    fn unreadable_flag_from_the_api_keeps_the_reason_given_by_the_server() {
        let json = json!({"name": "f", "flag_type": "boolean", "unreadable": "default: unknown field `future`"});
        let FlagDefinition::Unreadable(flag) = FlagDefinition::from_json(&json).unwrap() else { panic!("readable") };
        assert_eq!(flag.reason, "default: unknown field `future`");
    }

    #[test]
    fn scheduled_change_accepts_api_fields_and_is_unreadable_with_unknown_fields() {
        let mut change = json!({"id": Uuid::nil(), "scheduled_at": "2026-01-01T00:00:00Z", "enabled": true});
        for field in ["flag_name", "status", "preview", "created_by", "created_at", "updated_at", "revision"] {
            change[field] = json!(null);
        }
        let read = |change: &Value| ScheduledChangeDefinition::from_json(change).unwrap();
        assert!(matches!(read(&change), ScheduledChangeDefinition::Readable(_)));
        change["future"] = json!(1);
        assert!(matches!(read(&change), ScheduledChangeDefinition::Unreadable { id, .. } if id.is_nil()));
    }
}
