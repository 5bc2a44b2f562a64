//! Properties of resolution, against a slow and obvious reference written apart from the evaluator.
#![allow(clippy::unwrap_used, reason = "tests")]

use flags_domain::{
    Condition, EvaluationContext, Explanation, FindingCode, Flag, FlagName, FlagType, Instant, LayerOutcome, Operator,
    OverrideView, PreparedValue, ScheduledChange, Serve, Snapshot, Source, TargetingRule, Variant, Weight,
    bucket::bucket, explain, resolve,
};
use proptest::prelude::*;
use serde_json::{Map, Value, json};
use uuid::Uuid;

/// Instants are drawn from a few microseconds, so that boundaries meet.
const SPAN: i64 = 12;
const IDS: [&str; 3] = ["a", "b", "c"];

fn at(micros: i64) -> Instant {
    Instant::from_micros(micros)
}

#[derive(Clone, Debug)]
struct Override {
    /// A number, or a text, which is not of the flag's type.
    value: Value,
    enabled: Option<bool>,
    expires_at: Option<i64>,
}

#[derive(Clone, Debug)]
struct World {
    flag: Flag,
    schedule: Vec<ScheduledChange>,
    user_override: Option<Override>,
    plan: Option<u8>,
    user: u128,
}

impl World {
    fn context(&self) -> EvaluationContext {
        let mut attributes = Map::new();
        if let Some(plan) = self.plan {
            attributes.insert("plan".to_owned(), json!(plan));
        }
        EvaluationContext::anonymous(&Uuid::from_u128(self.user).to_string(), attributes)
    }
}

/// A resolution by value, to compare.
#[derive(Clone, Debug, PartialEq)]
struct Answer {
    value: Value,
    source: &'static str,
    by: Option<String>,
}

impl Answer {
    fn of(resolution: &flags_domain::Resolution<'_>) -> Self {
        let by = match resolution.source {
            Source::TargetingRule { rule_id } => Some(rule_id.to_owned()),
            Source::ScheduledChange { id } => Some(id.to_string()),
            _ => None,
        };
        Self { value: resolution.value.value().clone(), source: resolution.source.as_str(), by }
    }
}

impl World {
    /// Gives `look` what resolution reads of this world.
    fn with<T>(&self, look: impl FnOnce(&Snapshot, &EvaluationContext, Option<OverrideView<'_>>) -> T) -> T {
        let snapshot = Snapshot::new([(self.flag.clone(), self.schedule.clone())]);
        let value = self.user_override.as_ref().map(|o| PreparedValue::new(o.value.clone()));
        let view = self.user_override.as_ref().zip(value.as_ref()).map(|(o, value)| OverrideView {
            value,
            enabled: o.enabled.unwrap_or(true),
            expires_at: o.expires_at.map(at),
        });
        look(&snapshot, &self.context(), view)
    }

    /// Whether the flag can be compiled.
    fn is_valid(&self) -> bool {
        self.flag.has_variant(&self.flag.off_variant)
    }

    fn without_override(&self) -> Self {
        Self { user_override: None, ..self.clone() }
    }
}

fn evaluate(world: &World, now: i64) -> Option<(Answer, Option<Instant>)> {
    world.with(|snapshot, context, view| {
        let got = resolve(snapshot.get("f").unwrap().compiled(), context, view, at(now))?;
        Some((Answer::of(&got), got.valid_until))
    })
}

/// What `look` sees of the explanation.
fn explained<T>(world: &World, now: i64, look: impl FnOnce(&Explanation<'_>) -> T) -> T {
    world.with(|snapshot, context, view| look(&explain(snapshot.get("f").unwrap(), context, view, at(now))))
}

/// Everything that can be found out of an override, by looking at every instant.
fn findings(world: &World, now: i64) -> Vec<FindingCode> {
    use FindingCode::*;
    let Some(found) = &world.user_override else { return vec![] };
    if found.expires_at.is_some_and(|end| end <= now) {
        return vec![OverrideExpired];
    }
    if found.enabled == Some(false) {
        return vec![OverrideDisabled];
    }
    let without = world.without_override();
    if world.flag.archived_at.is_some() {
        return vec![];
    }
    if !found.value.is_number() {
        return vec![OverrideTypeMismatch];
    }
    let Some(first) = reference(&without, now) else { return vec![] };
    let end = found.expires_at.unwrap_or(SPAN + 2);
    let later: Vec<_> = (now..end).map(|instant| reference(&without, instant).unwrap()).collect();
    let mut codes = Vec::new();
    if later.iter().all(|answer| answer.value == found.value) {
        codes.push(OverrideRedundant);
    }
    if first.source == "targeting_rule" {
        codes.push(OverrideShadowsRule);
    }
    if later.iter().any(|answer| answer.source == "scheduled_change" || *answer != first) {
        codes.push(OverrideShadowsSchedule);
    }
    if first.source == "disabled" {
        codes.push(OverrideOnDisabledFlag);
    }
    codes
}

/// The specification's order, step by step, with no thought for cost.
fn reference(world: &World, now: i64) -> Option<Answer> {
    let flag = &world.flag;
    let answer = |value: Value, source, by| Some(Answer { value, source, by });
    if flag.archived_at.is_some() {
        return None;
    }
    if let Some(o) = &world.user_override
        && o.enabled != Some(false)
        && o.expires_at.is_none_or(|end| now < end)
        && o.value.is_number()
    {
        return answer(o.value.clone(), "override", None);
    }
    if !world.is_valid() {
        return None;
    }
    let mut switch = (flag.enabled_set_at, flag.enabled);
    let mut default = (flag.default_set_at, &flag.default, None);
    let mut due: Vec<_> =
        world.schedule.iter().filter(|c| c.cancelled_at.is_none() && c.scheduled_at <= at(now)).collect();
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
        return answer(value_of(flag, &flag.off_variant), "disabled", None);
    }
    for rule in flag.targeting_rules.iter().filter(|rule| rule.enabled) {
        if rule.conditions.iter().all(|c| condition_holds(c, world.plan)) {
            return answer(serve(world, &rule.serve), "targeting_rule", Some(rule.id.clone()));
        }
    }
    match default.2 {
        Some(id) => answer(serve(world, default.1), "scheduled_change", Some(id)),
        None => answer(serve(world, default.1), "default", None),
    }
}

/// All generated conditions are `plan equals …`.
fn condition_holds(condition: &Condition, plan: Option<u8>) -> bool {
    plan.is_some_and(|plan| condition.values.contains(&json!(plan)) != condition.negate)
}

fn value_of(flag: &Flag, id: &str) -> Value {
    flag.variants.iter().find(|v| v.id == id).unwrap().value.clone()
}

fn serve(world: &World, serve: &Serve) -> Value {
    let id = match serve {
        Serve::Variant(id) => id.clone(),
        Serve::Split { weights, bucket_by } => {
            let hashed = match bucket_by {
                None => Some(Uuid::from_u128(world.user).to_string()),
                Some(_) => world.plan.map(|plan| plan.to_string()),
            };
            let Some(hashed) = hashed else {
                let has_weight = |v: &&Variant| weights.get(&v.id).is_some_and(|w| w.thousandths() > 0);
                return world.flag.variants.iter().find(has_weight).unwrap().value.clone();
            };
            let mut bucket = bucket(&world.flag.salt, &hashed);
            let mut variants = world.flag.variants.iter();
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
    value_of(&world.flag, &id)
}

fn any_serve() -> impl Strategy<Value = Serve> {
    let split = (0..=100_000_u32, 0..=100_000_u32, prop::bool::weighted(0.2)).prop_map(|(x, y, by_plan)| {
        let (low, high) = (x.min(y), x.max(y));
        let parts = [low, high - low, 100_000 - high];
        let weight = |n| Weight::from_thousandths(n).unwrap();
        let weights = IDS.iter().zip(parts).map(|(id, part)| ((*id).to_owned(), weight(part))).collect();
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

fn any_world() -> impl Strategy<Value = World> {
    let odd = (prop::bool::weighted(0.05), prop::bool::weighted(0.95));
    let flag = (any::<bool>(), any_serve(), any_rules(), odd, 0..SPAN, 0..SPAN).prop_map(
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
        .prop_map(|(value, enabled, expires_at)| Override { value, enabled, expires_at });
    let parts = (flag, any_schedule(), prop::option::of(user_override), prop::option::of(0..4_u8), any::<u128>());
    parts.prop_map(|(flag, schedule, user_override, plan, user)| World { flag, schedule, user_override, plan, user })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_order_is_that_of_the_reference(world in any_world(), now in 0..SPAN) {
        prop_assert_eq!(evaluate(&world, now).map(|(answer, _)| answer), reference(&world, now));
    }

    #[test]
    fn an_answer_holds_until_its_valid_until(world in any_world(), now in 0..SPAN) {
        let Some((answer, valid_until)) = evaluate(&world, now) else { return Ok(()) };
        let end = valid_until.map_or(SPAN + 2, Instant::as_micros);
        prop_assert!(end > now);
        for later in now..end {
            prop_assert_eq!(evaluate(&world, later).map(|(answer, _)| answer), Some(answer.clone()), "at {}", later);
        }
    }

    #[test]
    fn removing_what_has_expired_changes_nothing(world in any_world(), now in 0..SPAN, later in 0..SPAN) {
        let mut tidied = world.clone();
        tidied.user_override = tidied.user_override.filter(|o| o.expires_at.is_none_or(|end| end > now));
        let later = now.max(later);
        prop_assert_eq!(evaluate(&world, later), evaluate(&tidied, later));
    }

    #[test]
    fn an_explanation_never_disagrees_with_the_answer(world in any_world(), now in 0..SPAN) {
        let answer = reference(&world, now);
        explained(&world, now, |explanation| {
            prop_assert_eq!(explanation.resolution.as_ref().map(Answer::of), answer.clone());
            let matched: Vec<_> = explanation.layers.iter().filter(|l| l.outcome == LayerOutcome::Matched).collect();
            if answer.is_none() && world.flag.archived_at.is_none() {
                prop_assert_eq!(matched.len(), 0, "{:?}", explanation.layers);
                return Ok(());
            }
            prop_assert_eq!(matched.len(), 1, "{:?}", explanation.layers);
            let given = matched[0].gives.map(|given| (given.value.value().clone(), matched[0].layer.as_str()));
            prop_assert_eq!(given, answer.clone().map(|answer| (answer.value, answer.source)));
            // Above it nothing had anything to give, below it nothing was reached.
            let decided = explanation.layers.iter().position(|l| l.outcome == LayerOutcome::Matched).unwrap();
            for (place, layer) in explanation.layers.iter().enumerate() {
                let expected = match place.cmp(&decided) {
                    std::cmp::Ordering::Less => LayerOutcome::NotMatched,
                    std::cmp::Ordering::Equal => LayerOutcome::Matched,
                    std::cmp::Ordering::Greater => LayerOutcome::NotReached,
                };
                prop_assert_eq!(layer.outcome, expected);
                prop_assert!(place >= decided || layer.gives.is_none());
                prop_assert!(layer.gives.is_some() != layer.why_not.is_some() || layer.layer.as_str() == "archived");
            }
            Ok(())
        })?;
    }

    #[test]
    fn what_is_shadowed_is_what_comes_without_the_layers_above(world in any_world(), now in 0..SPAN) {
        let without = reference(&world.without_override(), now);
        explained(&world, now, |explanation| {
            let below = explanation.layers.iter().skip(1).find_map(|layer| Some((layer, layer.gives?)));
            let below = below.map(|(layer, given)| (given.value.value().clone(), layer.layer.as_str()));
            prop_assert_eq!(below, without.map(|answer| (answer.value, answer.source)));
            Ok(())
        })?;
    }

    #[test]
    fn the_next_change_is_the_first_instant_that_differs(world in any_world(), now in 0..SPAN) {
        let Some(present) = reference(&world, now) else { return Ok(()) };
        let expected = (now + 1..SPAN + 2).map(|later| (later, reference(&world, later)));
        // From the same layer by another cause is no difference to anybody.
        let differs = |answer: &Option<Answer>| {
            answer.as_ref().is_none_or(|answer| (&answer.value, answer.source) != (&present.value, present.source))
        };
        let expected = expected.into_iter().find(|(_, answer)| differs(answer));
        explained(&world, now, |explanation| {
            let next = explanation.next_change.map(|next| (next.at.as_micros(), next.resolution.as_ref().map(Answer::of)));
            prop_assert_eq!(next, expected);
            Ok(())
        })?;
    }

    #[test]
    fn findings_are_what_looking_at_every_instant_finds(world in any_world(), now in 0..SPAN) {
        explained(&world, now, |explanation| {
            prop_assert_eq!(&explanation.findings, &findings(&world, now));
            Ok(())
        })?;
    }

    #[test]
    fn without_attributes_nothing_depends_on_them(world in any_world(), now in 0..SPAN, plan in prop::option::of(0..4_u8)) {
        let reads = world.with(|snapshot, _, _| snapshot.get("f").unwrap().compiled().reads_attributes());
        if !reads {
            let other = World { plan, ..world.clone() };
            prop_assert_eq!(evaluate(&world, now), evaluate(&other, now));
        }
    }

    #[test]
    fn a_preview_is_what_most_get_on_both_sides_of_its_instant(world in any_world(), users in prop::collection::vec(any::<u128>(), 40)) {
        // Nobody is targeted, so that shares are all there is.
        let mut world = World { user_override: None, ..world };
        world.flag.targeting_rules.clear();
        world.flag.archived_at = None;
        world.flag.off_variant = "c".to_owned();
        for change in world.schedule.iter().filter(|change| change.cancelled_at.is_none()) {
            let preview = flags_domain::SchedulePreview::of(change, &world.flag, &world.schedule);
            for user in &users {
                let of_user = World { user: *user, ..world.clone() };
                for (instant, is_after) in [(change.scheduled_at.as_micros() - 1, false), (change.scheduled_at.as_micros(), true)] {
                    let got = reference(&of_user, instant).unwrap();
                    prop_assert_eq!(got.source == "disabled", !if is_after { preview.enabled_after } else { preview.enabled_before });
                    let id = &world.flag.variants.iter().find(|v| v.value == got.value).unwrap().id;
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
    fn raising_a_weight_keeps_everybody_who_has_the_variant(user in any::<u128>(), low in 0..=100_000_u32, more in 0..=100_000_u32) {
        let share = |thousandths: u32| {
            let weight = |n| Weight::from_thousandths(n).unwrap();
            let weights = [("a".to_owned(), weight(thousandths)), ("b".to_owned(), weight(100_000 - thousandths))].into();
            Serve::Split { weights, bucket_by: None }
        };
        let gets = |thousandths| {
            let flag = Flag { default: share(thousandths), ..two_variants() };
            let world = World { flag, schedule: vec![], user_override: None, plan: None, user };
            evaluate(&world, 1).unwrap().0.value
        };
        let high = low.saturating_add(more).min(100_000);
        if gets(low) == json!(0) {
            prop_assert_eq!(gets(high), json!(0));
        }
    }
}

fn two_variants() -> Flag {
    serde_json::from_value(json!({
        "name": "f", "flag_type": "number", "enabled": true,
        "variants": [{"id": "a", "value": 0}, {"id": "b", "value": 1}],
        "default": {"variant": "a"}, "off_variant": "a", "salt": "f", "client_visible": true,
        "default_set_at": "1970-01-01T00:00:00Z", "enabled_set_at": "1970-01-01T00:00:00Z",
    }))
    .unwrap()
}

#[test]
fn the_shares_of_a_split_lie_within_statistical_bounds() {
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
        // Five standard deviations of the binomial distribution: passed over by chance once in two million runs, and the
        // users are always the same.
        let bound = 5.0 * (expected * (1.0 - share)).sqrt();
        assert!((f64::from(count) - expected).abs() < bound, "{id}: {count} of {expected} ± {bound}");
    }
}
