//! The one function that decides what somebody gets of a flag.

use uuid::Uuid;

use crate::{
    compiled::{CompiledFlag, CompiledServe, CompiledVariant, Layers},
    context::EvaluationContext,
    instant::Instant,
    user_override::OverrideView,
    value::{PreparedValue, same_value},
};

/// What somebody gets of a flag, and why.
#[derive(Clone, Copy, Debug)]
pub struct Resolution<'r> {
    /// What they get.
    pub value: &'r PreparedValue,
    /// The variant that has this value; `None` for an override's value that no variant has.
    pub variant: Option<&'r CompiledVariant>,
    /// The layer that decided.
    pub source: Source<'r>,
    /// The next instant at which time alone may change this answer.
    pub valid_until: Option<Instant>,
    /// What became of the user's override, if there is one.
    pub override_outcome: OverrideOutcome,
}

impl Resolution<'_> {
    /// Whether both give the same value, from the same layer.
    pub(crate) fn gives_like(&self, other: &Resolution<'_>) -> bool {
        self.source.as_str() == other.source.as_str() && same_value(self.value.value(), other.value.value())
    }
}

/// The layer that decided, highest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source<'r> {
    /// An active override.
    Override,
    /// The flag is off.
    Disabled,
    /// A targeting rule.
    TargetingRule {
        /// The rule's id.
        rule_id: &'r str,
    },
    /// A scheduled change of the default.
    ScheduledChange {
        /// The change's id.
        id: Uuid,
    },
    /// The default, as set by hand.
    Default,
}

impl Source<'_> {
    /// The layer's name on the wire.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Override => "override",
            Self::Disabled => "disabled",
            Self::TargetingRule { .. } => "targeting_rule",
            Self::ScheduledChange { .. } => "scheduled_change",
            Self::Default => "default",
        }
    }
}

/// What became of the user's override.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OverrideOutcome {
    /// There is none.
    Absent,
    /// It decided.
    Decided,
    /// It is switched off.
    Disabled,
    /// Its end has passed.
    Expired,
    /// Its value is not of the flag's type, so it was passed over.
    TypeMismatch,
}

impl CompiledFlag {
    /// Whether the layer that decided shares its variants out by weight. Asked after the fact, so that resolving need not
    /// note it.
    pub fn splits(&self, source: Source<'_>) -> bool {
        let Some(layers) = self.layers() else { return false };
        let serve = match source {
            Source::Override | Source::Disabled => None,
            Source::TargetingRule { rule_id } => {
                layers.rules.iter().find(|rule| *rule.id == *rule_id).map(|rule| &rule.serve)
            }
            Source::ScheduledChange { id } => {
                layers.serve_steps.iter().find(|step| step.change_id == id).map(|step| &step.serve)
            }
            Source::Default => Some(&layers.default),
        };
        serve.is_some_and(CompiledServe::is_split)
    }
}

/// What `context` gets of `flag` at `now`. `None`: the flag is archived, or could not be compiled and no override
/// stands in.
///
/// The order: an active override, the switch, the first matching targeting rule, the last due scheduled change, the
/// default. An override wins over a flag that is off.
pub fn resolve<'r>(
    flag: &'r CompiledFlag,
    context: &EvaluationContext,
    user_override: Option<OverrideView<'r>>,
    now: Instant,
) -> Option<Resolution<'r>> {
    if flag.is_archived() {
        return None;
    }
    let override_outcome = user_override.map_or(OverrideOutcome::Absent, |found| flag.override_outcome(found, now));
    if let (OverrideOutcome::Decided, Some(found)) = (override_outcome, user_override) {
        return Some(Resolution {
            value: found.value,
            variant: flag.variant_with(found.value),
            source: Source::Override,
            valid_until: found.expires_at,
            override_outcome,
        });
    }
    let layers = flag.layers()?;
    let (variant, source, valid_until) = resolve_layers(layers, context, now);
    Some(Resolution { value: variant.value(), variant: Some(variant), source, valid_until, override_outcome })
}

/// Everything below the override.
fn resolve_layers<'r>(
    layers: &'r Layers,
    context: &EvaluationContext,
    now: Instant,
) -> (&'r CompiledVariant, Source<'r>, Option<Instant>) {
    let (is_on, next_switch) = layers.switch_at(now);
    if !is_on {
        return (&layers.variants[layers.off_variant], Source::Disabled, next_switch);
    }
    if let Some(rule) = layers.rules.iter().find(|rule| rule.matches(context)) {
        return (layers.pick(&rule.serve, context), Source::TargetingRule { rule_id: &rule.id }, next_switch);
    }
    let (step, next_serve) = layers.serve_at(now);
    let valid_until = [next_switch, next_serve].into_iter().flatten().min();
    match step {
        Some(step) => (layers.pick(&step.serve, context), Source::ScheduledChange { id: step.change_id }, valid_until),
        None => (layers.pick(&layers.default, context), Source::Default, valid_until),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Map, json};

    use super::*;
    use crate::{flag::tests::boolean_flag, schedule::ScheduledChange, serve::Serve};

    fn serve(value: serde_json::Value) -> Serve {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn a_result_is_split_if_the_layer_that_gave_it_is() {
        let (fixed, split) = (json!({"variant": "on"}), json!({"weights": {"on": 100}}));
        let rule = |id: &str, plan: &str, serve| {
            let condition = json!({"attribute": "plan", "operator": "equals", "values": [plan]});
            serde_json::from_value(json!({"id": id, "conditions": [condition], "serve": serve})).unwrap()
        };
        let mut flag = boolean_flag();
        flag.targeting_rules = vec![rule("a", "a", &fixed), rule("b", "b", &split)];
        flag.default = serve(split.clone());
        let change = |id: u128, at, serve: &serde_json::Value| -> ScheduledChange {
            let id = Uuid::from_u128(id);
            serde_json::from_value(json!({"id": id, "scheduled_at": at, "serve": serve})).unwrap()
        };
        let schedule = [change(1, "2030-01-01T00:00:00Z", &fixed), change(2, "2031-01-01T00:00:00Z", &split)];
        let splits = |flag: &crate::Flag, plan: &str, at: &str| {
            let compiled = CompiledFlag::compile(flag, &schedule);
            let attributes = Map::from_iter([("plan".to_owned(), json!(plan))]);
            let context = EvaluationContext::anonymous("somebody", attributes);
            let found = resolve(&compiled, &context, None, Instant::parse(at).unwrap()).unwrap();
            (found.source.as_str(), compiled.splits(found.source))
        };
        let early = "2029-01-01T00:00:00Z";
        assert_eq!(splits(&flag, "a", early), ("targeting_rule", false));
        assert_eq!(splits(&flag, "b", early), ("targeting_rule", true));
        assert_eq!(splits(&flag, "c", early), ("default", true));
        assert_eq!(splits(&flag, "c", "2030-06-01T00:00:00Z"), ("scheduled_change", false));
        assert_eq!(splits(&flag, "c", "2031-06-01T00:00:00Z"), ("scheduled_change", true));
        let fixed_default = crate::Flag { default: serve(fixed), ..flag.clone() };
        assert_eq!(splits(&fixed_default, "c", early), ("default", false));
        assert_eq!(splits(&crate::Flag { enabled: false, ..flag }, "b", early), ("disabled", false));
    }
}
