//! Properties of evaluation, checked against a simple reference implementation that does not share code with the
//! evaluator.
#![allow(clippy::unwrap_used, reason = "tests")]

use flags_domain::{
    Condition, EvaluationContext, Explanation, FindingCode, Flag, FlagName, FlagType, Instant, LayerOutcome, Operator,
    OverrideView, PreparedValue, Resolution, ScheduledChange, Serve, Snapshot, Source, TargetingRule, Variant, Weight,
    bucket::bucket, explain, resolve,
};
use proptest::prelude::*;
use serde_json::{Map, Value, json};
use uuid::Uuid;

/// Generated instants are in `0..SPAN` microseconds. The range is small, so that boundaries often
/// coincide.
const SPAN: i64 = 12;
const IDS: [&str; 3] = ["a", "b", "c"];

fn at(micros: i64) -> Instant {
    Instant::from_micros(micros)
}

#[derive(Clone, Debug)]
struct GeneratedOverride {
    /// A number or, to test type mismatches, a string.
    value: Value,
    enabled: Option<bool>,
    expires_at: Option<i64>,
}

/// Generated input of one evaluation.
#[derive(Clone, Debug)]
struct Scenario {
    flag: Flag,
    schedule: Vec<ScheduledChange>,
    user_override: Option<GeneratedOverride>,
    plan: Option<u8>,
    user: u128,
}

impl Scenario {
    fn context(&self) -> EvaluationContext {
        let mut attributes = Map::new();
        if let Some(plan) = self.plan {
            attributes.insert("plan".to_owned(), json!(plan));
        }
        EvaluationContext::anonymous(&Uuid::from_u128(self.user).to_string(), attributes)
    }
}

/// Owned evaluation result, for comparisons.
#[derive(Clone, Debug, PartialEq)]
struct Outcome {
    value: Value,
    source: &'static str,
    /// Id of the rule or the scheduled change that decided.
    source_id: Option<String>,
}

impl From<&Resolution<'_>> for Outcome {
    fn from(resolution: &Resolution<'_>) -> Self {
        let source_id = match resolution.source {
            Source::TargetingRule { rule_id } => Some(rule_id.to_owned()),
            Source::ScheduledChange { id } => Some(id.to_string()),
            _ => None,
        };
        Self { value: resolution.value.value().clone(), source: resolution.source.as_str(), source_id }
    }
}

impl Scenario {
    /// Calls `evaluate` with the snapshot, the context and the override of this scenario.
    fn evaluate_with<T>(
        &self,
        evaluate: impl FnOnce(&Snapshot, &EvaluationContext, Option<OverrideView<'_>>) -> T,
    ) -> T {
        let snapshot = Snapshot::new([(self.flag.clone(), self.schedule.clone())]);
        let value = self.user_override.as_ref().map(|o| PreparedValue::new(o.value.clone()));
        let view = self.user_override.as_ref().zip(value.as_ref()).map(|(o, value)| OverrideView {
            value,
            enabled: o.enabled.unwrap_or(true),
            expires_at: o.expires_at.map(at),
        });
        evaluate(&snapshot, &self.context(), view)
    }

    /// Returns whether the flag compiles.
    fn is_valid(&self) -> bool {
        self.flag.has_variant(&self.flag.off_variant)
    }

    fn without_override(&self) -> Self {
        Self { user_override: None, ..self.clone() }
    }
}

fn evaluate(scenario: &Scenario, now: i64) -> Option<(Outcome, Option<Instant>)> {
    scenario.evaluate_with(|snapshot, context, view| {
        let resolution = resolve(snapshot.get("f").unwrap().compiled(), context, view, at(now))?;
        Some((Outcome::from(&resolution), resolution.valid_until))
    })
}

/// Calls `check` with the explanation of the scenario at `now`.
fn with_explanation<T>(scenario: &Scenario, now: i64, check: impl FnOnce(&Explanation<'_>) -> T) -> T {
    scenario
        .evaluate_with(|snapshot, context, view| check(&explain(snapshot.get("f").unwrap(), context, view, at(now))))
}

/// Computes the findings about the override by evaluating every instant until it expires.
fn reference_findings(scenario: &Scenario, now: i64) -> Vec<FindingCode> {
    use FindingCode::*;
    let Some(user_override) = &scenario.user_override else { return vec![] };
    if user_override.expires_at.is_some_and(|expires_at| expires_at <= now) {
        return vec![OverrideExpired];
    }
    if user_override.enabled == Some(false) {
        return vec![OverrideDisabled];
    }
    let without = scenario.without_override();
    if scenario.flag.archived_at.is_some() {
        return vec![];
    }
    if !user_override.value.is_number() {
        return vec![OverrideTypeMismatch];
    }
    let Some(first) = reference_outcome(&without, now) else { return vec![] };
    let end = user_override.expires_at.unwrap_or(SPAN + 2);
    let outcomes: Vec<_> = (now..end).map(|instant| reference_outcome(&without, instant).unwrap()).collect();
    let mut codes = Vec::new();
    if outcomes.iter().all(|outcome| outcome.value == user_override.value) {
        codes.push(OverrideRedundant);
    }
    if first.source == "targeting_rule" {
        codes.push(OverrideShadowsRule);
    }
    if outcomes.iter().any(|outcome| outcome.source == "scheduled_change" || *outcome != first) {
        codes.push(OverrideShadowsSchedule);
    }
    if first.source == "disabled" {
        codes.push(OverrideOnDisabledFlag);
    }
    codes
}

/// Evaluates the layers one by one in the documented order, without any optimization.
fn reference_outcome(scenario: &Scenario, now: i64) -> Option<Outcome> {
    let flag = &scenario.flag;
    let outcome = |value: Value, source, source_id| Some(Outcome { value, source, source_id });
    if flag.archived_at.is_some() {
        return None;
    }
    if let Some(o) = &scenario.user_override
        && o.enabled != Some(false)
        && o.expires_at.is_none_or(|end| now < end)
        && o.value.is_number()
    {
        return outcome(o.value.clone(), "override", None);
    }
    if !scenario.is_valid() {
        return None;
    }
    let mut switch = (flag.enabled_set_at, flag.enabled);
    let mut default = (flag.default_set_at, &flag.default, None);
    let mut due: Vec<_> =
        scenario.schedule.iter().filter(|c| c.cancelled_at.is_none() && c.scheduled_at <= at(now)).collect();
    due.sort_by_key(|c| c.scheduled_at);
    for change in due {
        if let Some(enabled) = change.enabled
            && change.scheduled_at > switch.0
        {
            switch = (change.scheduled_at, enabled);
        }
        if let Some(serve) = &change.serve
            && change.scheduled_at > default.0
        {
            default = (change.scheduled_at, serve, Some(change.id.to_string()));
        }
    }
    if !switch.1 {
        return outcome(variant_value(flag, &flag.off_variant), "disabled", None);
    }
    for rule in flag.targeting_rules.iter().filter(|rule| rule.enabled) {
        if rule.conditions.iter().all(|c| condition_holds(c, scenario.plan)) {
            return outcome(served_value(scenario, &rule.serve), "targeting_rule", Some(rule.id.clone()));
        }
    }
    match default.2 {
        Some(id) => outcome(served_value(scenario, default.1), "scheduled_change", Some(id)),
        None => outcome(served_value(scenario, default.1), "default", None),
    }
}

/// Evaluates a condition. All generated conditions compare `plan` with `equals`.
fn condition_holds(condition: &Condition, plan: Option<u8>) -> bool {
    plan.is_some_and(|plan| condition.values.contains(&json!(plan)) != condition.negate)
}

fn variant_value(flag: &Flag, id: &str) -> Value {
    flag.variants.iter().find(|v| v.id == id).unwrap().value.clone()
}

fn served_value(scenario: &Scenario, serve: &Serve) -> Value {
    let id = match serve {
        Serve::Variant(id) => id.clone(),
        Serve::Split { weights, bucket_by } => {
            let hashed = match bucket_by {
                None => Some(Uuid::from_u128(scenario.user).to_string()),
                Some(_) => scenario.plan.map(|plan| plan.to_string()),
            };
            let Some(hashed) = hashed else {
                let has_weight = |v: &&Variant| weights.get(&v.id).is_some_and(|w| w.thousandths() > 0);
                return scenario.flag.variants.iter().find(has_weight).unwrap().value.clone();
            };
            let mut bucket = bucket(&scenario.flag.salt, &hashed);
            let mut variants = scenario.flag.variants.iter();
            loop {
                let id = &variants.next().unwrap().id;
                let weight = weights.get(id).map_or(0, |w| w.thousandths());
                match bucket.checked_sub(weight) {
                    Some(rest) => bucket = rest,
                    None => break id.clone(),
                }
            }
        }
    };
    variant_value(&scenario.flag, &id)
}

fn any_serve() -> impl Strategy<Value = Serve> {
    let split = (0..=100_000_u32, 0..=100_000_u32, prop::bool::weighted(0.2)).prop_map(|(x, y, by_plan)| {
        let (low, high) = (x.min(y), x.max(y));
        let weights = [low, high - low, 100_000 - high];
        let weight = |n| Weight::from_thousandths(n).unwrap();
        let weights = IDS.iter().zip(weights).map(|(id, n)| ((*id).to_owned(), weight(n))).collect();
        Serve::Split { weights, bucket_by: by_plan.then(|| "plan".to_owned()) }
    });
    prop_oneof![prop::sample::select(&IDS[..]).prop_map(|id| Serve::Variant(id.to_owned())), split]
}

fn any_rules() -> impl Strategy<Value = Vec<TargetingRule>> {
    let condition = (prop::collection::vec(0..3_u8, 1..3), any::<bool>()).prop_map(|(plans, negate)| Condition {
        attribute: "plan".to_owned(),
        operator: Operator::Equals,
        values: plans.into_iter().map(|plan| json!(plan)).collect(),
        negate,
    });
    let rule = (any::<bool>(), prop::collection::vec(condition, 0..3), any_serve());
    prop::collection::vec(rule, 0..3).prop_map(|rules| {
        let rule = |(index, (enabled, conditions, serve)): (usize, (bool, Vec<Condition>, Serve))| TargetingRule {
            id: format!("rule-{index}"),
            name: None,
            enabled,
            conditions,
            serve,
        };
        rules.into_iter().enumerate().map(rule).collect()
    })
}

fn any_schedule() -> impl Strategy<Value = Vec<ScheduledChange>> {
    let change = (prop::option::of(any_serve()), prop::option::of(any::<bool>()), prop::bool::weighted(0.2));
    prop::collection::btree_map(0..SPAN, change, 0..4).prop_map(|changes| {
        let change =
            |(instant, (serve, enabled, cancelled)): (i64, (Option<Serve>, Option<bool>, bool))| ScheduledChange {
                id: Uuid::from_u128(instant.unsigned_abs().into()),
                scheduled_at: at(instant),
                serve,
                enabled,
                description: None,
                cancelled_at: cancelled.then(|| at(0)),
            };
        changes.into_iter().map(change).collect()
    })
}

fn any_scenario() -> impl Strategy<Value = Scenario> {
    let rare = (prop::bool::weighted(0.05), prop::bool::weighted(0.95));
    let flag = (any::<bool>(), any_serve(), any_rules(), rare, 0..SPAN, 0..SPAN).prop_map(
        |(enabled, default, targeting_rules, (archived, valid), default_set, enabled_set)| Flag {
            name: FlagName::new("f").unwrap(),
            flag_type: FlagType::Number,
            description: None,
            owner: None,
            tags: Vec::new(),
            enabled,
            variants: IDS
                .iter()
                .enumerate()
                .map(|(n, id)| Variant { id: (*id).to_owned(), name: None, value: json!(n), description: None })
                .collect(),
            default,
            off_variant: if valid { "c" } else { "none" }.to_owned(),
            targeting_rules,
            salt: "f".to_owned(),
            client_visible: true,
            archived_at: archived.then(|| at(0)),
            default_set_at: at(default_set),
            enabled_set_at: at(enabled_set),
        },
    );
    let value = prop_oneof![9 => (0..5_i64).prop_map(|value| json!(value)), 1 => Just(json!("text"))];
    let user_override = (value, prop::option::of(any::<bool>()), prop::option::of(0..SPAN))
        .prop_map(|(value, enabled, expires_at)| GeneratedOverride { value, enabled, expires_at });
    let fields = (flag, any_schedule(), prop::option::of(user_override), prop::option::of(0..4_u8), any::<u128>());
    fields.prop_map(|(flag, schedule, user_override, plan, user)| Scenario {
        flag,
        schedule,
        user_override,
        plan,
        user,
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn evaluation_equals_reference_implementation(scenario in any_scenario(), now in 0..SPAN) {
        prop_assert_eq!(evaluate(&scenario, now).map(|(outcome, _)| outcome), reference_outcome(&scenario, now));
    }

    #[test]
    fn result_does_not_change_before_valid_until(scenario in any_scenario(), now in 0..SPAN) {
        let Some((outcome, valid_until)) = evaluate(&scenario, now) else { return Ok(()) };
        let end = valid_until.map_or(SPAN + 2, Instant::as_micros);
        prop_assert!(end > now);
        for later in now..end {
            prop_assert_eq!(evaluate(&scenario, later).map(|(outcome, _)| outcome), Some(outcome.clone()), "at {}", later);
        }
    }

    #[test]
    fn removing_expired_override_does_not_change_results(scenario in any_scenario(), now in 0..SPAN, later in 0..SPAN) {
        let mut cleaned_up = scenario.clone();
        cleaned_up.user_override = cleaned_up.user_override.filter(|o| o.expires_at.is_none_or(|end| end > now));
        let later = now.max(later);
        prop_assert_eq!(evaluate(&scenario, later), evaluate(&cleaned_up, later));
    }

    #[test]
    fn explanation_agrees_with_evaluation(scenario in any_scenario(), now in 0..SPAN) {
        let outcome = reference_outcome(&scenario, now);
        with_explanation(&scenario, now, |explanation| {
            prop_assert_eq!(explanation.resolution.as_ref().map(Outcome::from), outcome.clone());
            let matched: Vec<_> = explanation.layers.iter().filter(|l| l.outcome == LayerOutcome::Matched).collect();
            if outcome.is_none() && scenario.flag.archived_at.is_none() {
                prop_assert_eq!(matched.len(), 0, "{:?}", explanation.layers);
                return Ok(());
            }
            prop_assert_eq!(matched.len(), 1, "{:?}", explanation.layers);
            let supplied = matched[0].result.map(|result| (result.value.value().clone(), matched[0].layer.as_str()));
            prop_assert_eq!(supplied, outcome.clone().map(|outcome| (outcome.value, outcome.source)));
            // No layer above the deciding one supplies a result, and no layer below it is reached.
            let deciding = explanation.layers.iter().position(|l| l.outcome == LayerOutcome::Matched).unwrap();
            for (index, layer) in explanation.layers.iter().enumerate() {
                let expected = match index.cmp(&deciding) {
                    std::cmp::Ordering::Less => LayerOutcome::NotMatched,
                    std::cmp::Ordering::Equal => LayerOutcome::Matched,
                    std::cmp::Ordering::Greater => LayerOutcome::NotReached,
                };
                prop_assert_eq!(layer.outcome, expected);
                prop_assert!(index >= deciding || layer.result.is_none());
                prop_assert!(layer.result.is_some() != layer.skip_reason.is_some() || layer.layer.as_str() == "archived");
            }
            Ok(())
        })?;
    }

    #[test]
    fn first_result_below_override_equals_result_without_override(scenario in any_scenario(), now in 0..SPAN) {
        let without = reference_outcome(&scenario.without_override(), now);
        with_explanation(&scenario, now, |explanation| {
            let below = explanation.layers.iter().skip(1).find_map(|layer| Some((layer, layer.result?)));
            let below = below.map(|(layer, result)| (result.value.value().clone(), layer.layer.as_str()));
            prop_assert_eq!(below, without.map(|outcome| (outcome.value, outcome.source)));
            Ok(())
        })?;
    }

    #[test]
    fn next_change_is_first_instant_with_different_value_or_source(scenario in any_scenario(), now in 0..SPAN) {
        let Some(current) = reference_outcome(&scenario, now) else { return Ok(()) };
        let expected = (now + 1..SPAN + 2).map(|later| (later, reference_outcome(&scenario, later)));
        // A different rule or scheduled change with the same value and the same kind of source does not count as a
        // change.
        let differs = |outcome: &Option<Outcome>| {
            outcome.as_ref().is_none_or(|outcome| (&outcome.value, outcome.source) != (&current.value, current.source))
        };
        let expected = expected.into_iter().find(|(_, outcome)| differs(outcome));
        with_explanation(&scenario, now, |explanation| {
            let next = explanation.next_change.map(|next| (next.at.as_micros(), next.resolution.as_ref().map(Outcome::from)));
            prop_assert_eq!(next, expected);
            Ok(())
        })?;
    }

    #[test]
    fn findings_equal_reference_findings(scenario in any_scenario(), now in 0..SPAN) {
        with_explanation(&scenario, now, |explanation| {
            prop_assert_eq!(&explanation.findings, &reference_findings(&scenario, now));
            Ok(())
        })?;
    }

    #[test]
    fn result_is_independent_of_attributes_unless_flag_reads_them(scenario in any_scenario(), now in 0..SPAN, plan in prop::option::of(0..4_u8)) {
        let reads = scenario.evaluate_with(|snapshot, _, _| snapshot.get("f").unwrap().compiled().reads_attributes());
        if !reads {
            let other = Scenario { plan, ..scenario.clone() };
            prop_assert_eq!(evaluate(&scenario, now), evaluate(&other, now));
        }
    }

    #[test]
    fn preview_agrees_with_evaluation_before_and_after_the_change(scenario in any_scenario(), users in prop::collection::vec(any::<u128>(), 40)) {
        // Without rules and overrides, the shares determine all results.
        let mut scenario = Scenario { user_override: None, ..scenario };
        scenario.flag.targeting_rules.clear();
        scenario.flag.archived_at = None;
        scenario.flag.off_variant = "c".to_owned();
        for change in scenario.schedule.iter().filter(|change| change.cancelled_at.is_none()) {
            let preview = flags_domain::SchedulePreview::new(change, &scenario.flag, &scenario.schedule);
            for user in &users {
                let user_scenario = Scenario { user: *user, ..scenario.clone() };
                for (instant, is_after) in [(change.scheduled_at.as_micros() - 1, false), (change.scheduled_at.as_micros(), true)] {
                    let outcome = reference_outcome(&user_scenario, instant).unwrap();
                    prop_assert_eq!(outcome.source == "disabled", !if is_after { preview.enabled_after } else { preview.enabled_before });
                    let id = &scenario.flag.variants.iter().find(|v| v.value == outcome.value).unwrap().id;
                    let share = preview.shares.iter().find(|(variant, ..)| variant == id).unwrap();
                    let share = if is_after { share.2 } else { share.1 };
                    prop_assert!(share.thousandths() > 0, "{} has no share", id);
                }
            }
            for total in [preview.shares.iter().map(|s| s.1.thousandths()).sum::<u32>(), preview.shares.iter().map(|s| s.2.thousandths()).sum()] {
                prop_assert_eq!(total, 100_000);
            }
        }
    }

    #[test]
    fn raising_a_weight_moves_no_context_out_of_the_variant(user in any::<u128>(), low in 0..=100_000_u32, increase in 0..=100_000_u32) {
        let split = |thousandths: u32| {
            let weight = |n| Weight::from_thousandths(n).unwrap();
            let weights = [("a".to_owned(), weight(thousandths)), ("b".to_owned(), weight(100_000 - thousandths))].into();
            Serve::Split { weights, bucket_by: None }
        };
        let value_at = |thousandths| {
            let flag = Flag { default: split(thousandths), ..flag_with_two_variants() };
            let scenario = Scenario { flag, schedule: vec![], user_override: None, plan: None, user };
            evaluate(&scenario, 1).unwrap().0.value
        };
        let high = low.saturating_add(increase).min(100_000);
        if value_at(low) == json!(0) {
            prop_assert_eq!(value_at(high), json!(0));
        }
    }
}

fn flag_with_two_variants() -> Flag {
    serde_json::from_value(json!({
        "name": "f", "flag_type": "number", "enabled": true,
        "variants": [{"id": "a", "value": 0}, {"id": "b", "value": 1}],
        "default": {"variant": "a"}, "off_variant": "a", "salt": "f", "client_visible": true,
        "default_set_at": "1970-01-01T00:00:00Z", "enabled_set_at": "1970-01-01T00:00:00Z",
    }))
    .unwrap()
}

#[test]
fn split_shares_are_within_statistical_bounds() {
    const USERS: u32 = 100_000;
    let shares = [("a", 0.9_f64), ("b", 0.09), ("c", 0.01)];
    let flag: Flag = serde_json::from_value(json!({
        "name": "f", "flag_type": "string", "enabled": true,
        "variants": [{"id": "a", "value": "a"}, {"id": "b", "value": "b"}, {"id": "c", "value": "c"}],
        "default": {"weights": {"a": 90, "b": 9, "c": 1}}, "off_variant": "a", "salt": "checkout.flow",
        "client_visible": true, "default_set_at": "1970-01-01T00:00:00Z", "enabled_set_at": "1970-01-01T00:00:00Z",
    }))
    .unwrap();
    let snapshot = Snapshot::new([(flag, vec![])]);
    let flag = snapshot.get("f").unwrap().compiled();
    let mut counts = [0_u32; 3];
    for user in 0..USERS {
        let id = Uuid::from_u128(u128::from(user) * 0x9E37_79B9_7F4A_7C15).to_string();
        let context = EvaluationContext::anonymous(&id, Map::new());
        let variant = resolve(flag, &context, None, at(0)).unwrap().variant.unwrap().id();
        counts[shares.iter().position(|(id, _)| *id == variant).unwrap()] += 1;
    }
    for ((id, share), count) in shares.into_iter().zip(counts) {
        let expected = share * f64::from(USERS);
        // Five standard deviations of the binomial distribution. A correct split exceeds them with
        // a probability of about one in two million. The users are fixed, so the test is
        // deterministic.
        let bound = 5.0 * (expected * (1.0 - share)).sqrt();
        assert!((f64::from(count) - expected).abs() < bound, "{id}: {count} of {expected} ± {bound}");
    }
}
