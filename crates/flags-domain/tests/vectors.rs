//! Runs the language-neutral test vectors in `tests/vectors` of the repository. Their format is documented in
//! `tests/vectors/README.md`.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::{
    collections::{BTreeSet, HashSet},
    fs,
    path::PathBuf,
};

use flags_domain::{
    ConditionFailure, EvaluationContext, Flag, FlagState, FlagType, Instant, Operator, OverrideOutcome, OverrideView,
    PreparedValue, ScheduledChange, SkipReason, Snapshot, Source, StoredUser, bucket::bucket, explain, resolve,
    same_value,
};
use serde::Deserialize;
use serde_json::{Map, Value};
use uuid::Uuid;

/// Files of evaluation cases.
const EVALUATION_FILES: [&str; 6] =
    ["bucketing.json", "operators.json", "order.json", "override.json", "schedule.json", "types.json"];
/// File of hash cases.
const HASH_FILE: &str = "hashes.json";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct VectorFile<C> {
    #[serde(rename = "description")]
    _description: String,
    cases: Vec<C>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EvaluationCase {
    name: String,
    flag: Flag,
    scheduled_changes: Vec<ScheduledChange>,
    context: CaseContext,
    #[serde(rename = "override")]
    user_override: Option<CaseOverride>,
    now: Instant,
    expect: Option<ExpectedResult>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CaseContext {
    targeting_key: String,
    /// Absent if it equals the targeting key, or if the case does not depend on it.
    #[serde(default)]
    user_id: Option<Uuid>,
    email: Option<String>,
    role: Option<String>,
    created_at: Option<Instant>,
    attributes: Map<String, Value>,
}

impl CaseContext {
    /// Returns the context of a stored user if the case has a role and a creation time, else an anonymous context.
    fn evaluation_context(&self) -> EvaluationContext {
        if let (Some(role), Some(created_at)) = (self.role.as_deref(), self.created_at) {
            let user = StoredUser {
                id: self.user_id.or_else(|| self.targeting_key.parse().ok()).unwrap_or_default(),
                evaluation_key: &self.targeting_key,
                external_id: None,
                email: self.email.as_deref(),
                role,
                created_at,
            };
            return EvaluationContext::user(user, self.attributes.clone());
        }
        let built_in = [
            ("email", self.email.clone()),
            ("role", self.role.clone()),
            ("created_at", self.created_at.map(|at| at.to_string())),
        ];
        let mut attributes = self.attributes.clone();
        for (name, value) in built_in {
            match value {
                Some(value) => attributes.insert(name.to_owned(), value.into()),
                None => attributes.remove(name),
            };
        }
        match self.user_id {
            Some(id) => EvaluationContext::anonymous_user(&self.targeting_key, id, attributes),
            None => EvaluationContext::anonymous(&self.targeting_key, attributes),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CaseOverride {
    override_value: Value,
    enabled: Option<bool>,
    expires_at: Option<Instant>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ExpectedResult {
    value: Value,
    variant: Option<String>,
    source: String,
    rule_id: Option<String>,
    scheduled_change_id: Option<Uuid>,
    valid_until: Option<Instant>,
}

impl EvaluationCase {
    /// Calls `evaluate` with the flag, the context and the override of this case.
    fn evaluate_with<T>(
        &self,
        evaluate: impl FnOnce(&FlagState, &EvaluationContext, Option<OverrideView<'_>>) -> T,
    ) -> T {
        let snapshot = Snapshot::new([(self.flag.clone(), self.scheduled_changes.clone())]);
        let value = self.user_override.as_ref().map(|o| PreparedValue::new(o.override_value.clone()));
        let view = self.user_override.as_ref().zip(value.as_ref()).map(|(o, value)| OverrideView {
            value,
            enabled: o.enabled.unwrap_or(true),
            expires_at: o.expires_at,
        });
        evaluate(snapshot.get(&self.flag.name).unwrap(), &self.context.evaluation_context(), view)
    }

    /// Returns a description of the difference between the expected and the actual result; `None` if they are equal.
    fn difference(&self) -> Option<String> {
        self.evaluate_with(|flag, context, view| {
            let actual = resolve(flag.compiled(), context, view, self.now);
            let is_equal = match (&actual, &self.expect) {
                (None, None) => true,
                (Some(actual), Some(expected)) => {
                    let (rule_id, change_id) = match actual.source {
                        Source::TargetingRule { rule_id } => (Some(rule_id), None),
                        Source::ScheduledChange { id } => (None, Some(id)),
                        _ => (None, None),
                    };
                    same_value(actual.value.value(), &expected.value)
                        && actual.variant.map(|v| v.id()) == expected.variant.as_deref()
                        && actual.source.as_str() == expected.source
                        && rule_id == expected.rule_id.as_deref()
                        && change_id == expected.scheduled_change_id
                        && actual.valid_until == expected.valid_until
                }
                _ => false,
            };
            (!is_equal).then(|| format!("{}: expected {:?}, got {actual:?}", self.name, self.expect))
        })
    }
}

fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/vectors")
}

fn read_text(file: &str) -> String {
    let path = directory().join(file);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn read_cases<C: for<'de> Deserialize<'de>>(file: &str) -> Vec<C> {
    serde_json::from_str::<VectorFile<C>>(&read_text(file)).unwrap_or_else(|error| panic!("{file}: {error}")).cases
}

fn read_evaluation_cases() -> Vec<EvaluationCase> {
    EVALUATION_FILES.iter().flat_map(|file| read_cases(file)).collect()
}

#[test]
fn every_evaluation_case_has_the_expected_result() {
    let cases = read_evaluation_cases();
    let names: HashSet<_> = cases.iter().map(|case| case.name.as_str()).collect();
    assert_eq!(names.len(), cases.len(), "case names must be unique");
    let differences: Vec<_> = cases.iter().filter_map(EvaluationCase::difference).collect();
    assert!(differences.is_empty(), "{} cases differ:\n{}", differences.len(), differences.join("\n"));
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct HashCase {
    text: String,
    hash: u32,
    bucket: u32,
}

#[test]
fn every_hash_case_has_the_expected_bucket() {
    for case in read_cases::<HashCase>(HASH_FILE) {
        let (salt, value) = case.text.split_once(':').unwrap();
        assert_eq!(bucket(salt, value), case.bucket, "{}", case.text);
        assert_eq!((u64::from(case.hash) * 100_000) >> 32, u64::from(case.bucket), "{}", case.text);
    }
}

#[test]
fn every_vector_file_is_run_and_has_one_case_per_line() {
    let entries = fs::read_dir(directory()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let present: BTreeSet<_> = entries.filter(|name| name.ends_with(".json")).collect();
    let run: BTreeSet<_> = EVALUATION_FILES.into_iter().chain([HASH_FILE]).map(str::to_owned).collect();
    assert_eq!(present, run);
    for file in run {
        let text = read_text(&file);
        let lines: Vec<_> = text.lines().collect();
        let [first, description, start, cases @ .., end, last] = &*lines else { panic!("{file} is too short") };
        assert_eq!([*first, *start, *end, *last], ["{", r#""cases": ["#, "]", "}"], "{file}");
        assert!(description.starts_with(r#""description": "#), "{file}");
        for (index, line) in cases.iter().enumerate() {
            let separator = if index + 1 == cases.len() { "" } else { "," };
            let case = line.strip_suffix(separator).unwrap_or_else(|| panic!("{file}, case {index}: {line}"));
            let case = serde_json::from_str::<Map<String, Value>>(case);
            assert!(case.is_ok(), "{file}, case {index} is not one JSON object on one line: {case:?}");
        }
    }
}

/// Defines a constant with the names of all variants of an enum, and a function that returns the
/// name of a value. The match has no wildcard, so the compiler requires an entry for each new
/// variant.
macro_rules! variant_names {
    ($names:ident, $name_of:ident($type:ty): $($pattern:pat => $name:literal,)+) => {
        const $names: &[&str] = &[$($name),+];

        fn $name_of(value: $type) -> &'static str {
            match value {
                $($pattern => $name,)+
            }
        }
    };
}

variant_names! { OPERATORS, operator_name(Operator):
    Operator::Equals => "equals",
    Operator::Contains => "contains",
    Operator::StartsWith => "starts_with",
    Operator::EndsWith => "ends_with",
    Operator::Matches => "matches",
    Operator::Lt => "lt",
    Operator::Lte => "lte",
    Operator::Gt => "gt",
    Operator::Gte => "gte",
    Operator::Before => "before",
    Operator::After => "after",
    Operator::SemverEq => "semver_eq",
    Operator::SemverLt => "semver_lt",
    Operator::SemverLte => "semver_lte",
    Operator::SemverGt => "semver_gt",
    Operator::SemverGte => "semver_gte",
    Operator::Exists => "exists",
}

variant_names! { SOURCES, source_name(Source<'_>):
    Source::Override => "override",
    Source::Disabled => "disabled",
    Source::TargetingRule { .. } => "targeting_rule",
    Source::ScheduledChange { .. } => "scheduled_change",
    Source::Default => "default",
    Source::EvaluationTooExpensive => "evaluation_too_expensive",
}

variant_names! { OVERRIDE_OUTCOMES, override_outcome_name(OverrideOutcome):
    OverrideOutcome::Absent => "absent",
    OverrideOutcome::Applied => "applied",
    OverrideOutcome::Disabled => "disabled",
    OverrideOutcome::Expired => "expired",
    OverrideOutcome::TypeMismatch => "type_mismatch",
}

variant_names! { SKIP_REASONS, skip_reason_name(&SkipReason<'_>):
    SkipReason::NoOverride => "no_override",
    SkipReason::OverrideDisabled => "override_disabled",
    SkipReason::OverrideExpired => "override_expired",
    SkipReason::OverrideTypeMismatch => "override_type_mismatch",
    SkipReason::FlagEnabled => "flag_enabled",
    SkipReason::RuleDisabled => "rule_disabled",
    SkipReason::EvaluationTooExpensive => "evaluation_too_expensive",
    SkipReason::Condition { .. } => "condition",
    SkipReason::NoScheduledChangeDue => "no_scheduled_change_due",
    SkipReason::Invalid { .. } => "invalid",
}

variant_names! { CONDITION_FAILURES, condition_failure_name(ConditionFailure):
    ConditionFailure::Missing => "missing",
    ConditionFailure::TypeMismatch => "type_mismatch",
    ConditionFailure::NoMatch => "no_match",
    ConditionFailure::Excluded => "excluded",
    ConditionFailure::TooLong => "too_long",
}

variant_names! { FLAG_TYPES, flag_type_name(FlagType):
    FlagType::Boolean => "boolean",
    FlagType::String => "string",
    FlagType::Number => "number",
    FlagType::Json => "json",
}

/// Kinds of problems for which a flag does not compile.
const COMPILE_ERRORS: &[&str] = &[
    "unknown variant in /default",
    "unknown variant in /off_variant",
    "unknown variant in /targeting_rules",
    "unknown variant in /scheduled_changes",
    "no weight above 0 in /default",
    "invalid condition in /targeting_rules",
];

fn compile_error_kind(pointer: &str, detail: &str) -> String {
    let field = pointer.split('/').nth(1).unwrap();
    let problem = match detail {
        "all weights are 0" => "no weight above 0",
        detail if detail.starts_with("the flag has no variant") => "unknown variant",
        _ => "invalid condition",
    };
    format!("{problem} in /{field}")
}

/// Fails unless `covered` contains all of `required`.
fn assert_covers(what: &str, required: impl IntoIterator<Item = impl Into<String>>, covered: &BTreeSet<String>) {
    let required: BTreeSet<String> = required.into_iter().map(Into::into).collect();
    let missing: Vec<_> = required.difference(covered).collect();
    assert!(missing.is_empty(), "no case covers {what} {missing:?}");
}

#[test]
fn every_operator_has_plain_and_negated_cases_that_hold_and_fail() {
    let mut covered = BTreeSet::new();
    for case in read_evaluation_cases() {
        let holds = case.expect.as_ref().is_some_and(|expected| expected.source == "targeting_rule");
        // With exactly one rule and one condition, the expected source tells whether the condition holds.
        let [rule] = &*case.flag.targeting_rules else { continue };
        let ([condition], true) = (&*rule.conditions, rule.enabled && case.expect.is_some()) else { continue };
        let negation = if condition.negate { "negated" } else { "plain" };
        covered.insert(format!("{} {negation} {holds}", operator_name(condition.operator)));
    }
    let required = OPERATORS.iter().flat_map(|operator| {
        ["plain true", "plain false", "negated true", "negated false"].map(|result| format!("{operator} {result}"))
    });
    assert_covers("operator, negation and result", required, &covered);
}

#[test]
fn every_source_flag_type_and_cause_of_a_missing_result_has_a_case() {
    let cases = read_evaluation_cases();
    let expected = cases.iter().filter_map(|case| case.expect.as_ref());
    assert_covers("source", SOURCES.iter().copied(), &expected.map(|expected| expected.source.clone()).collect());
    let flag_types = cases.iter().map(|case| flag_type_name(case.flag.flag_type).to_owned()).collect();
    assert_covers("flag type", FLAG_TYPES.iter().copied(), &flag_types);
    let without_result = cases.iter().filter(|case| case.expect.is_none());
    let causes = without_result.map(|case| {
        let cause = if case.flag.archived_at.is_some() { "archived" } else { "invalid" };
        let user_override = if case.user_override.is_some() { "with" } else { "without" };
        format!("{cause} flag {user_override} override")
    });
    let required = ["archived", "invalid"]
        .into_iter()
        .flat_map(|cause| ["with", "without"].map(|word| format!("{cause} flag {word} override")));
    assert_covers("flag without result", required, &causes.collect());
}

#[test]
fn every_override_outcome_and_skip_reason_has_a_case() {
    let (mut sources, mut override_outcomes) = (BTreeSet::new(), BTreeSet::new());
    let (mut skip_reasons, mut condition_failures) = (BTreeSet::new(), BTreeSet::new());
    let mut compile_errors = BTreeSet::new();
    for case in read_evaluation_cases() {
        case.evaluate_with(|flag, context, view| {
            let explanation = explain(flag, context, view, case.now);
            if let Some(resolution) = explanation.resolution {
                sources.insert(source_name(resolution.source).to_owned());
                override_outcomes.insert(override_outcome_name(resolution.override_outcome).to_owned());
            }
            for reason in explanation.layers.iter().filter_map(|layer| layer.skip_reason.as_ref()) {
                skip_reasons.insert(skip_reason_name(reason).to_owned());
                if let SkipReason::Condition { failure, .. } = reason {
                    condition_failures.insert(condition_failure_name(*failure).to_owned());
                }
            }
            if let Some(error) = flag.compiled().compile_error() {
                compile_errors.insert(compile_error_kind(&error.pointer, &error.detail));
            }
        });
    }
    assert_covers("source", SOURCES.iter().copied(), &sources);
    assert_covers("override outcome", OVERRIDE_OUTCOMES.iter().copied(), &override_outcomes);
    assert_covers("skip reason", SKIP_REASONS.iter().copied(), &skip_reasons);
    assert_covers("condition failure", CONDITION_FAILURES.iter().copied(), &condition_failures);
    assert_covers("compile error", COMPILE_ERRORS.iter().copied(), &compile_errors);
}
