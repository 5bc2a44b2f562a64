//! Evaluation of one flag for one context.

use std::cell::{Cell, OnceCell};

use uuid::Uuid;

use crate::{
    budget::{BudgetExhausted, EvaluationBudget, FlagBudget},
    compiled::{CompiledFlag, CompiledLayers, CompiledRule, CompiledServe, CompiledVariant},
    context::EvaluationContext,
    instant::Instant,
    user_override::OverrideView,
    value::{PreparedValue, same_value},
};

/// Evaluation result of one flag for one context. Borrows from the flag and the override.
#[derive(Clone, Copy, Debug)]
pub struct Resolution<'r> {
    /// Value of the flag.
    pub value: &'r PreparedValue,
    /// First variant with this value; `None` if the value of an override equals no variant.
    pub variant: Option<&'r CompiledVariant>,
    /// Layer that decided the result.
    pub source: Source<'r>,
    /// Next instant at which time alone may change the result; `None` if time alone never changes
    /// it. Always later than the instant of the evaluation. The result may turn out unchanged at
    /// that instant.
    pub valid_until: Option<Instant>,
    /// Whether the override of the user applied, or why it did not.
    pub override_outcome: OverrideOutcome,
}

impl Resolution<'_> {
    /// Returns whether both results have the same value and the same kind of source.
    pub(crate) fn has_same_value_and_source(&self, other: &Resolution<'_>) -> bool {
        self.source.as_str() == other.source.as_str() && same_value(self.value.value(), other.value.value())
    }
}

/// Layer that decided an evaluation result, in order of priority, highest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source<'r> {
    /// Active override of the user.
    Override,
    /// Off variant of a flag that is off.
    Disabled,
    /// Targeting rule.
    TargetingRule {
        /// Id of the rule.
        rule_id: &'r str,
    },
    /// Latest due scheduled change of the default.
    ScheduledChange {
        /// Id of the scheduled change.
        id: Uuid,
    },
    /// Default, as last set manually.
    Default,
    /// Off variant of a flag that is on, because evaluating its targeting rules for the context exceeds the
    /// [`EvaluationBudget`].
    EvaluationTooExpensive,
}

impl Source<'_> {
    /// Name of the source in JSON.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Override => "override",
            Self::Disabled => "disabled",
            Self::TargetingRule { .. } => "targeting_rule",
            Self::ScheduledChange { .. } => "scheduled_change",
            Self::Default => "default",
            Self::EvaluationTooExpensive => "evaluation_too_expensive",
        }
    }
}

/// Whether an override applied in an evaluation, or why it did not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OverrideOutcome {
    /// The caller passed no override.
    Absent,
    /// The override decided the result.
    Applied,
    /// The override is disabled.
    Disabled,
    /// The override has expired.
    Expired,
    /// The value of the override does not have the type of the flag, so the override was ignored.
    TypeMismatch,
}

impl CompiledFlag {
    /// Returns whether the rule, scheduled change or default that `source` refers to is a
    /// percentage split.
    ///
    /// This is a separate lookup because a field of [`Resolution`] would slow down [`resolve()`].
    pub fn uses_split(&self, source: Source<'_>) -> bool {
        let Some(layers) = self.layers() else { return false };
        let serve = match source {
            Source::Override | Source::Disabled | Source::EvaluationTooExpensive => None,
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

/// Evaluates `flag` for `context` at `now`, with the budget of a request that evaluates only this
/// flag.
///
/// Returns `None` if the flag is archived, or if it does not compile and no active override
/// supplies the value.
///
/// The first of these layers that supplies a value decides: an active override, the on/off switch,
/// the first matching targeting rule, the latest due scheduled change of the default, the default.
/// An active override applies even if the flag is off. A flag whose rules exceed the budget serves
/// its off variant.
///
/// `user_override` must be the override of this flag for the user of `context`, if there is one. An
/// expired or disabled override is ignored.
///
/// The function is deterministic, performs no I/O and does not panic. The [crate
/// documentation](crate) lists the cases in which it allocates.
pub fn resolve<'r>(
    flag: &'r CompiledFlag,
    context: &EvaluationContext,
    user_override: Option<OverrideView<'r>>,
    now: Instant,
) -> Option<Resolution<'r>> {
    resolve_within(flag, context, user_override, now, &mut EvaluationBudget::default())
}

/// Like [`resolve()`], but charges `budget`, which all evaluations of one request share.
pub fn resolve_within<'r>(
    flag: &'r CompiledFlag,
    context: &EvaluationContext,
    user_override: Option<OverrideView<'r>>,
    now: Instant,
    budget: &mut EvaluationBudget,
) -> Option<Resolution<'r>> {
    resolve_above_layers(flag, user_override, now, |layers| {
        let decision = layers.decide(now, || layers.first_matching_rule(context, &mut budget.for_flag()));
        let selection = match decision.serve {
            Some(serve) if serve.is_split() => budget.charge(layers.selection_cost(serve, context)),
            _ => Ok(()),
        };
        decision.resolve(layers, context, now, selection)
    })
}

/// Evaluates one flag for one context at several instants, with or without an override.
///
/// The targeting rules are evaluated at most once, because their result does not depend on time.
/// Each result equals that of [`resolve()`].
pub(crate) struct RepeatedEvaluation<'r, 'c> {
    flag: &'r CompiledFlag,
    context: &'c EvaluationContext,
    rule: OnceCell<Result<Option<&'r CompiledRule>, BudgetExhausted>>,
    /// Budget units that evaluating the rules has used.
    spent: Cell<u64>,
}

impl<'r, 'c> RepeatedEvaluation<'r, 'c> {
    pub(crate) const fn new(flag: &'r CompiledFlag, context: &'c EvaluationContext) -> Self {
        Self { flag, context, rule: OnceCell::new(), spent: Cell::new(0) }
    }

    /// The evaluated flag.
    pub(crate) const fn flag(&self) -> &'r CompiledFlag {
        self.flag
    }

    /// Budget units used so far.
    pub(crate) const fn spent(&self) -> u64 {
        self.spent.get()
    }

    /// Evaluates the flag at one instant.
    pub(crate) fn resolve(&self, user_override: Option<OverrideView<'r>>, now: Instant) -> Option<Resolution<'r>> {
        resolve_above_layers(self.flag, user_override, now, |layers| {
            let decision = layers.decide(now, || *self.rule.get_or_init(|| self.find_rule(layers)));
            // The selection of a variant is not charged, because the budget of a request for one
            // flag always suffices for it.
            decision.resolve(layers, self.context, now, Ok(()))
        })
    }
}

impl<'r> RepeatedEvaluation<'r, '_> {
    fn find_rule(&self, layers: &'r CompiledLayers) -> Result<Option<&'r CompiledRule>, BudgetExhausted> {
        let mut budget = EvaluationBudget::default();
        let rule = layers.first_matching_rule(self.context, &mut budget.for_flag());
        self.spent.set(budget.spent());
        rule
    }
}

/// Handles archived flags and overrides. Calls `resolve_layers` for all lower layers.
fn resolve_above_layers<'r>(
    flag: &'r CompiledFlag,
    user_override: Option<OverrideView<'r>>,
    now: Instant,
    resolve_layers: impl FnOnce(&'r CompiledLayers) -> LayersResult<'r>,
) -> Option<Resolution<'r>> {
    if flag.is_archived() {
        return None;
    }
    let override_outcome = user_override.map_or(OverrideOutcome::Absent, |view| flag.override_outcome(view, now));
    if let (OverrideOutcome::Applied, Some(view)) = (override_outcome, user_override) {
        return Some(Resolution {
            value: view.value,
            variant: flag.variant_with_value(view.value),
            source: Source::Override,
            valid_until: view.expires_at,
            override_outcome,
        });
    }
    let (variant, source, valid_until) = resolve_layers(flag.layers()?);
    Some(Resolution { value: variant.value(), variant: Some(variant), source, valid_until, override_outcome })
}

/// Variant, source and `valid_until` of the layers below the override.
type LayersResult<'r> = (&'r CompiledVariant, Source<'r>, Option<Instant>);

/// Layer below the override that decides the result.
struct Decision<'r> {
    /// What the layer serves; `None` for the off variant.
    serve: Option<&'r CompiledServe>,
    source: Source<'r>,
    valid_until: Option<Instant>,
}

impl CompiledLayers {
    /// Returns the first rule whose conditions all hold.
    fn first_matching_rule(
        &self,
        context: &EvaluationContext,
        budget: &mut FlagBudget<'_>,
    ) -> Result<Option<&CompiledRule>, BudgetExhausted> {
        for rule in &self.rules {
            if rule.matches(context, budget)? {
                return Ok(Some(rule));
            }
        }
        Ok(None)
    }

    /// Finds the deciding layer. Calls `find_rule`, which returns the first matching rule, only if
    /// the flag is on.
    fn decide<'r>(
        &'r self,
        now: Instant,
        find_rule: impl FnOnce() -> Result<Option<&'r CompiledRule>, BudgetExhausted>,
    ) -> Decision<'r> {
        let (is_on, next_switch) = self.switch_at(now);
        if !is_on {
            return Decision { serve: None, source: Source::Disabled, valid_until: next_switch };
        }
        match find_rule() {
            Err(BudgetExhausted) => {
                return Decision { serve: None, source: Source::EvaluationTooExpensive, valid_until: next_switch };
            }
            Ok(Some(rule)) => {
                let source = Source::TargetingRule { rule_id: &rule.id };
                return Decision { serve: Some(&rule.serve), source, valid_until: next_switch };
            }
            Ok(None) => {}
        }
        let (step, next_serve) = self.serve_at(now);
        let valid_until = [next_switch, next_serve].into_iter().flatten().min();
        match step {
            Some(step) => {
                let source = Source::ScheduledChange { id: step.change_id };
                Decision { serve: Some(&step.serve), source, valid_until }
            }
            None => Decision { serve: Some(&self.default), source: Source::Default, valid_until },
        }
    }
}

impl<'r> Decision<'r> {
    /// Selects the variant. `selection` is the result of charging the budget for the selection; on
    /// an error, the flag serves its off variant.
    fn resolve(
        self,
        layers: &'r CompiledLayers,
        context: &EvaluationContext,
        now: Instant,
        selection: Result<(), BudgetExhausted>,
    ) -> LayersResult<'r> {
        let off = &layers.variants[layers.off_variant];
        match (self.serve, selection) {
            (None, _) => (off, self.source, self.valid_until),
            (Some(serve), Ok(())) => (layers.select_variant(serve, context), self.source, self.valid_until),
            (Some(_), Err(BudgetExhausted)) => (off, Source::EvaluationTooExpensive, layers.switch_at(now).1),
        }
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
    fn uses_split_returns_whether_the_deciding_layer_is_a_split() {
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
        let evaluate = |flag: &crate::Flag, plan: &str, at: &str| {
            let compiled = CompiledFlag::compile(flag, &schedule);
            let attributes = Map::from_iter([("plan".to_owned(), json!(plan))]);
            let context = EvaluationContext::anonymous("visitor-1", attributes);
            let resolution = resolve(&compiled, &context, None, Instant::parse(at).unwrap()).unwrap();
            (resolution.source.as_str(), compiled.uses_split(resolution.source))
        };
        let early = "2029-01-01T00:00:00Z";
        assert_eq!(evaluate(&flag, "a", early), ("targeting_rule", false));
        assert_eq!(evaluate(&flag, "b", early), ("targeting_rule", true));
        assert_eq!(evaluate(&flag, "c", early), ("default", true));
        assert_eq!(evaluate(&flag, "c", "2030-06-01T00:00:00Z"), ("scheduled_change", false));
        assert_eq!(evaluate(&flag, "c", "2031-06-01T00:00:00Z"), ("scheduled_change", true));
        let fixed_default = crate::Flag { default: serve(fixed), ..flag.clone() };
        assert_eq!(evaluate(&fixed_default, "c", early), ("default", false));
        assert_eq!(evaluate(&crate::Flag { enabled: false, ..flag }, "b", early), ("disabled", false));
    }
}
