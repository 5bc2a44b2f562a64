//! Generated flags, overrides and contexts, for tests that compare hand-written JSON with its documented type.

use std::collections::BTreeMap;

use flags_domain::{
    CompiledFlag, Condition, EvaluationBudget, EvaluationContext, Flag, FlagName, FlagState, FlagType, Instant,
    Operator, PreparedValue, ScheduledChange, Serve, Snapshot, TargetingRule, Variant, Weight,
};
use flags_service::{
    evaluation::{EvaluatedFlag, evaluate},
    replica::OverrideRef,
};
use proptest::prelude::*;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::state::OverrideReasons;

/// Number of different instants. It is small, so that an expiry or a scheduled change often coincides with the
/// evaluation.
const INSTANTS: i64 = 8;

/// Flags, and the overrides and attributes of one user.
#[derive(Debug)]
pub(crate) struct Scenario {
    flags: Snapshot,
    overrides: BTreeMap<FlagName, GeneratedOverride>,
    context: EvaluationContext,
    pub(crate) now: Instant,
}

#[derive(Clone, Debug)]
struct GeneratedOverride {
    value: PreparedValue,
    enabled: bool,
    reason: Option<String>,
    created_at: Instant,
    expires_at: Option<Instant>,
}

impl Scenario {
    /// Evaluates all flags that are not archived. The result of a flag that does not compile is `None`.
    pub(crate) fn results(&self) -> Vec<(&CompiledFlag, Option<EvaluatedFlag<'_>>)> {
        let flags = self.flags.iter().map(|state| FlagState::compiled(state)).filter(|flag| !flag.is_archived());
        flags.map(|flag| (flag, self.evaluate(flag))).collect()
    }

    /// Returns the results of the flags that compile.
    pub(crate) fn evaluated(&self) -> Vec<EvaluatedFlag<'_>> {
        self.results().into_iter().filter_map(|(_, evaluated)| evaluated).collect()
    }

    fn evaluate<'s>(&'s self, flag: &'s CompiledFlag) -> Option<EvaluatedFlag<'s>> {
        let user_override = self.overrides.get(flag.name()).map(|o| OverrideRef {
            id: Uuid::nil(),
            flag_name: flag.name(),
            value: &o.value,
            enabled: o.enabled,
            reason: o.reason.as_deref(),
            created_by: "system:test",
            created_at: o.created_at,
            updated_at: o.created_at,
            expires_at: o.expires_at,
        });
        evaluate(flag, &self.context, user_override, self.now, &mut EvaluationBudget::default())
    }
}

/// Checks that the JSON text has exactly the members of `T`: none is missing, unknown or of another type.
pub(crate) fn check_type<T: Serialize + DeserializeOwned>(json: &str) -> Result<Value, TestCaseError> {
    let value: Value = serde_json::from_str(json).map_err(|error| TestCaseError::fail(format!("{error}: {json}")))?;
    let typed: T =
        serde_json::from_value(value.clone()).map_err(|error| TestCaseError::fail(format!("{error}: {json}")))?;
    prop_assert_eq!(&serde_json::to_value(typed).unwrap(), &value);
    Ok(value)
}

pub(crate) fn any_reasons() -> impl Strategy<Value = OverrideReasons> {
    prop_oneof![Just(OverrideReasons::Shown), Just(OverrideReasons::Hidden)]
}

pub(crate) fn any_scenario() -> impl Strategy<Value = Scenario> {
    let flag = any_flag_type().prop_flat_map(|flag_type| {
        (any_flag(flag_type), any_schedule(), prop::option::weighted(0.6, any_override(flag_type)))
    });
    let flags = prop::collection::btree_map("[a-z][a-z0-9_]{0,3}(\\.[a-z]{1,3})?", flag, 0..5);
    (flags, any::<Option<bool>>(), any_instant()).prop_map(|(flags, plan, now)| {
        let mut overrides = BTreeMap::new();
        let flags: Vec<_> = flags
            .into_iter()
            .map(|(name, (flag, schedule, user_override))| {
                let name = FlagName::new(&name).unwrap();
                overrides.extend(user_override.map(|user_override| (name.clone(), user_override)));
                (Flag { name, ..flag }, schedule)
            })
            .collect();
        let attributes: Map<_, _> = plan.into_iter().map(|plan| ("plan".to_owned(), json!(plan))).collect();
        let context = EvaluationContext::anonymous("key", attributes);
        Scenario { flags: Snapshot::new(flags), overrides, context, now }
    })
}

pub(crate) fn any_instant() -> impl Strategy<Value = Instant> {
    (0..INSTANTS).prop_map(|n| Instant::from_micros(1_700_000_000_000_000 + 250_003 * n))
}

fn any_flag_type() -> impl Strategy<Value = FlagType> {
    prop_oneof![Just(FlagType::Boolean), Just(FlagType::String), Just(FlagType::Number), Just(FlagType::Json)]
}

/// Generates text that often contains characters that JSON must escape.
fn any_text() -> impl Strategy<Value = String> {
    let character = prop_oneof![prop::sample::select(vec!['"', '\\', '\n', '\0', '\u{7f}', '\u{2028}']), any::<char>()];
    prop::collection::vec(character, 0..6).prop_map(String::from_iter)
}

fn any_value(flag_type: FlagType) -> BoxedStrategy<Value> {
    match flag_type {
        FlagType::Boolean => any::<bool>().prop_map(Value::from).boxed(),
        FlagType::String => any_text().prop_map(Value::from).boxed(),
        FlagType::Number => prop_oneof![
            (-(1_i64 << 53)..=1 << 53).prop_map(Value::from),
            (-1_000..1_000_i64).prop_map(Value::from),
            prop::num::f64::NORMAL.prop_map(Value::from),
        ]
        .boxed(),
        FlagType::Json => {
            let scalar = prop_oneof![Just(Value::Null), any_value(FlagType::Number), any_value(FlagType::String)];
            let map = prop::collection::btree_map(any_text(), scalar.clone(), 0..3);
            let list = prop::collection::vec(scalar.clone(), 0..3);
            prop_oneof![scalar, map.prop_map(|map| json!(map)), list.prop_map(Value::from)].boxed()
        }
    }
}

/// Generates a [`Serve`] that refers to the two variants of every generated flag.
fn any_serve() -> impl Strategy<Value = Serve> {
    let split = (0..=100_000_u32).prop_map(|share| {
        let weight = |thousandths| Weight::from_thousandths(thousandths).unwrap();
        let weights = [("a\"".to_owned(), weight(share)), ("b".to_owned(), weight(100_000 - share))];
        Serve::Split { weights: weights.into(), bucket_by: None }
    });
    prop_oneof![prop::sample::select(vec!["a\"", "b"]).prop_map(|id| Serve::Variant(id.to_owned())), split]
}

fn any_rules() -> impl Strategy<Value = Vec<TargetingRule>> {
    let rule = (any::<bool>(), any_serve()).prop_map(|(plan, serve)| TargetingRule {
        id: "rule".to_owned(),
        name: None,
        enabled: true,
        conditions: vec![Condition {
            attribute: "plan".to_owned(),
            operator: Operator::Equals,
            values: vec![json!(plan)],
            negate: false,
        }],
        serve,
    });
    prop::collection::vec(rule, 0..2)
}

fn any_schedule() -> impl Strategy<Value = Vec<ScheduledChange>> {
    let change = (any_instant(), prop::option::of(any_serve()), any::<Option<bool>>());
    let change = change.prop_map(|(scheduled_at, serve, enabled)| ScheduledChange {
        id: Uuid::nil(),
        scheduled_at,
        serve,
        enabled,
        description: None,
        cancelled_at: None,
    });
    prop::collection::vec(change, 0..2)
}

fn any_flag(flag_type: FlagType) -> impl Strategy<Value = Flag> {
    let variants = (any_value(flag_type), any_value(flag_type)).prop_map(|(a, b)| {
        [("a\"", a), ("b", b)].map(|(id, value)| Variant { id: id.to_owned(), name: None, value, description: None })
    });
    let is_valid = prop::bool::weighted(0.9);
    (variants, any::<bool>(), any_serve(), any_rules(), is_valid, any_instant()).prop_map(
        move |(variants, enabled, default, targeting_rules, is_valid, set_at)| Flag {
            name: FlagName::new("replaced").unwrap(),
            flag_type,
            description: None,
            owner: None,
            tags: Vec::new(),
            enabled,
            variants: variants.into(),
            default,
            off_variant: if is_valid { "b" } else { "missing" }.to_owned(),
            targeting_rules,
            salt: "salt".to_owned(),
            client_visible: true,
            archived_at: None,
            default_set_at: set_at,
            enabled_set_at: set_at,
        },
    )
}

fn any_override(flag_type: FlagType) -> impl Strategy<Value = GeneratedOverride> {
    let enabled = prop::bool::weighted(0.8);
    let fields =
        (any_value(flag_type), enabled, prop::option::of(any_text()), any_instant(), prop::option::of(any_instant()));
    fields.prop_map(|(value, enabled, reason, created_at, expires_at)| GeneratedOverride {
        value: PreparedValue::new(value),
        enabled,
        reason,
        created_at,
        expires_at,
    })
}
