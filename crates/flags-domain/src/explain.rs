//! Explanations of evaluation results: the outcome of every layer, findings about the override, and the next change.

use serde_json::Value;
use uuid::Uuid;

use crate::{
    budget::{BudgetExhausted, EvaluationBudget},
    compiled::{CompiledFlag, CompiledLayers, CompiledServe, CompiledVariant},
    condition::{ConditionFailure, Operator},
    context::EvaluationContext,
    finding::{FindingCode, is_too_expensive},
    flag::Flag,
    instant::Instant,
    resolve::{OverrideOutcome, RepeatedEvaluation, Resolution},
    rule::TargetingRule,
    snapshot::FlagState,
    user_override::OverrideView,
    value::PreparedValue,
};

/// Explanation of the evaluation result of one flag for one context.
#[derive(Clone, Debug)]
pub struct Explanation<'r> {
    /// Evaluation result, exactly as returned by [`resolve()`](crate::resolve()).
    pub resolution: Option<Resolution<'r>>,
    /// Layers in order of priority, highest first, with one entry for each targeting rule. For an archived flag,
    /// [`Layer::Archived`] only.
    pub layers: Vec<LayerReport<'r>>,
    /// Findings about the override and the evaluation. Without an override, only
    /// [`FindingCode::EvaluationTooExpensive`] can apply.
    pub findings: Vec<FindingCode>,
    /// Next change of value or source that time alone causes; `None` if there is none.
    pub next_change: Option<NextChange<'r>>,
}

/// Next change of an evaluation result that time alone causes.
#[derive(Clone, Copy, Debug)]
pub struct NextChange<'r> {
    /// First instant with the new result.
    pub at: Instant,
    /// Result from that instant on; `None` if the flag then has no result because it does not compile.
    pub resolution: Option<Resolution<'r>>,
}

/// Outcome and result of one layer.
#[derive(Clone, Debug)]
pub struct LayerReport<'r> {
    /// Layer, with the id of the rule or scheduled change if it has one.
    pub layer: Layer<'r>,
    /// Whether the layer decided the result.
    pub outcome: LayerOutcome,
    /// Result that the layer supplies, or would supply if no higher layer had decided; `None` if it supplies none.
    pub result: Option<LayerResult<'r>>,
    /// Reason why `result` is `None`. Always `None` for [`Layer::Archived`].
    pub skip_reason: Option<SkipReason<'r>>,
}

/// Result that one layer supplies.
#[derive(Clone, Copy, Debug)]
pub struct LayerResult<'r> {
    /// Value that this layer supplies.
    pub value: &'r PreparedValue,
    /// Variant with this value; `None` if the value of an override equals no variant.
    pub variant: Option<&'r CompiledVariant>,
    /// Bucketing of a percentage split; `None` if the layer serves one variant or is the override.
    pub split: Option<SplitReport<'r>>,
}

/// Bucketing of a percentage split.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SplitReport<'r> {
    /// Name of the hashed attribute.
    pub bucket_by: &'r str,
    /// Bucket, `0..100_000`. `None` if the attribute is missing or cannot be hashed; the split then selects the first
    /// variant with a weight above 0.
    pub bucket: Option<u32>,
}

/// Layer of the evaluation. `Archived` to `Default` are declared from highest to lowest priority.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layer<'r> {
    /// Archived flag. Replaces all other layers.
    Archived,
    /// Override of the user.
    Override,
    /// On/off switch of the flag.
    Disabled {
        /// Id of the scheduled change that set the switch; `None` if it was last set manually.
        scheduled_change_id: Option<Uuid>,
    },
    /// Targeting rule.
    TargetingRule {
        /// Id of the rule.
        rule_id: &'r str,
    },
    /// Latest due scheduled change of the default.
    ScheduledChange {
        /// Id of the scheduled change; `None` if none is due.
        id: Option<Uuid>,
    },
    /// Default, as last set manually.
    Default,
    /// Off variant, served because evaluating the rules exceeds the budget. Listed after the rule
    /// at which the budget is exhausted.
    EvaluationTooExpensive,
    /// Definition that does not compile or cannot be read. Replaces all layers below the override.
    Invalid,
}

impl Layer<'_> {
    /// Name of the layer in JSON.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Archived => "archived",
            Self::Override => "override",
            Self::Disabled { .. } => "disabled",
            Self::TargetingRule { .. } => "targeting_rule",
            Self::ScheduledChange { .. } => "scheduled_change",
            Self::Default => "default",
            Self::EvaluationTooExpensive => "evaluation_too_expensive",
            Self::Invalid => "invalid",
        }
    }
}

/// Whether a layer decided the result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LayerOutcome {
    /// The layer decided the result.
    Matched,
    /// The layer was evaluated and supplied no result.
    NotMatched,
    /// A higher layer decided the result.
    NotReached,
}

/// Reason why a layer supplies no result.
#[derive(Clone, Debug, PartialEq)]
pub enum SkipReason<'r> {
    /// The user has no override of the flag.
    NoOverride,
    /// The override is disabled.
    OverrideDisabled,
    /// The override has expired.
    OverrideExpired,
    /// The value of the override does not have the type of the flag.
    OverrideTypeMismatch,
    /// The flag is on, so the off variant is not served.
    FlagEnabled,
    /// The rule is disabled.
    RuleDisabled,
    /// A condition of the rule does not hold. The fields describe the first such condition.
    Condition {
        /// Index of the condition in the rule, from 0.
        index: usize,
        /// Attribute of the condition.
        attribute: &'r str,
        /// Operator of the condition.
        operator: Operator,
        /// Value of the attribute, truncated to 200 characters; `None` if the attribute is missing or null.
        attribute_value: Option<Value>,
        /// Reason why the condition does not hold.
        failure: ConditionFailure,
    },
    /// Evaluating this rule and the rules before it exceeds the budget.
    EvaluationTooExpensive,
    /// No scheduled change of the default is due, or the default was set manually at or after the
    /// latest one.
    NoScheduledChangeDue,
    /// The definition does not compile or cannot be read.
    Invalid {
        /// Location in the definition: a JSON pointer, except that a rule is identified by its id
        /// instead of its index. Empty if the definition cannot be read.
        pointer: &'r str,
        /// Description of the problem.
        detail: &'r str,
    },
}

/// Explains the evaluation result of a flag for `context` at `now`. The result always equals that
/// of [`resolve()`](crate::resolve()).
///
/// Unlike [`resolve()`](crate::resolve()), this function allocates. It evaluates the rules at most
/// twice, each time within the budget of one flag.
pub fn explain<'r>(
    state: &'r FlagState,
    context: &EvaluationContext,
    user_override: Option<OverrideView<'r>>,
    now: Instant,
) -> Explanation<'r> {
    let evaluation = RepeatedEvaluation::new(state.compiled(), context);
    Explanation {
        resolution: evaluation.resolve(user_override, now),
        layers: layer_reports(state, context, user_override, now),
        findings: findings(&evaluation, user_override, now),
        next_change: next_change(&evaluation, user_override, now),
    }
}

fn findings(
    evaluation: &RepeatedEvaluation<'_, '_>,
    user_override: Option<OverrideView<'_>>,
    now: Instant,
) -> Vec<FindingCode> {
    match user_override {
        Some(view) => FindingCode::ALL.into_iter().filter(|code| code.applies_to(evaluation, view, now)).collect(),
        None if is_too_expensive(evaluation, now) => vec![FindingCode::EvaluationTooExpensive],
        None => Vec::new(),
    }
}

/// Finds the first instant after `now` at which the value or the source differs from the current one.
fn next_change<'r>(
    evaluation: &RepeatedEvaluation<'r, '_>,
    user_override: Option<OverrideView<'r>>,
    now: Instant,
) -> Option<NextChange<'r>> {
    let current = evaluation.resolve(user_override, now)?;
    let mut boundary = current.valid_until;
    while let Some(at) = boundary {
        let resolution = evaluation.resolve(user_override, at);
        boundary = match resolution {
            Some(later) if later.has_same_value_and_source(&current) => later.valid_until,
            _ => return Some(NextChange { at, resolution }),
        };
    }
    None
}

/// Collects the layer reports in order of priority. The first layer with a result decides.
struct ReportBuilder<'r> {
    layers: Vec<LayerReport<'r>>,
    decided: bool,
}

impl<'r> ReportBuilder<'r> {
    fn add(&mut self, layer: Layer<'r>, evaluated: Result<LayerResult<'r>, SkipReason<'r>>) {
        let outcome = match (&evaluated, self.decided) {
            (_, true) => LayerOutcome::NotReached,
            (Ok(_), false) => LayerOutcome::Matched,
            (Err(_), false) => LayerOutcome::NotMatched,
        };
        self.decided |= evaluated.is_ok();
        let (result, skip_reason) = match evaluated {
            Ok(result) => (Some(result), None),
            Err(reason) => (None, Some(reason)),
        };
        self.layers.push(LayerReport { layer, outcome, result, skip_reason });
    }
}

fn layer_reports<'r>(
    state: &'r FlagState,
    context: &EvaluationContext,
    user_override: Option<OverrideView<'r>>,
    now: Instant,
) -> Vec<LayerReport<'r>> {
    let flag = state.compiled();
    if flag.is_archived() {
        let archived =
            LayerReport { layer: Layer::Archived, outcome: LayerOutcome::Matched, result: None, skip_reason: None };
        return vec![archived];
    }
    let rule_count = state.flag().map_or(0, |flag| flag.targeting_rules.len());
    let mut report = ReportBuilder { layers: Vec::with_capacity(4 + rule_count), decided: false };
    report.add(Layer::Override, evaluate_override(flag, user_override, now));
    match state.flag().zip(flag.layers()) {
        None => {
            let (pointer, detail) =
                flag.compile_error().map_or(("", ""), |error| (error.pointer.as_str(), error.detail.as_str()));
            report.add(Layer::Invalid, Err(SkipReason::Invalid { pointer, detail }));
        }
        Some((definition, layers)) => add_lower_layers(&mut report, definition, layers, context, now),
    }
    report.layers
}

fn evaluate_override<'r>(
    flag: &'r CompiledFlag,
    user_override: Option<OverrideView<'r>>,
    now: Instant,
) -> Result<LayerResult<'r>, SkipReason<'r>> {
    let user_override = user_override.ok_or(SkipReason::NoOverride)?;
    match flag.override_outcome(user_override, now) {
        OverrideOutcome::Applied => Ok(LayerResult {
            value: user_override.value,
            variant: flag.variant_with_value(user_override.value),
            split: None,
        }),
        OverrideOutcome::Absent => Err(SkipReason::NoOverride),
        OverrideOutcome::Disabled => Err(SkipReason::OverrideDisabled),
        OverrideOutcome::Expired => Err(SkipReason::OverrideExpired),
        OverrideOutcome::TypeMismatch => Err(SkipReason::OverrideTypeMismatch),
    }
}

/// Adds the reports of all layers below the override.
fn add_lower_layers<'r>(
    report: &mut ReportBuilder<'r>,
    flag: &'r Flag,
    layers: &'r CompiledLayers,
    context: &EvaluationContext,
    now: Instant,
) {
    let (is_on, _) = layers.switch_at(now);
    let off = &layers.variants[layers.off_variant];
    let scheduled_change_id = layers.switch_steps_at(now).0.map(|step| step.change_id);
    report.add(
        Layer::Disabled { scheduled_change_id },
        if is_on {
            Err(SkipReason::FlagEnabled)
        } else {
            Ok(LayerResult { value: off.value(), variant: Some(off), split: None })
        },
    );
    add_rules(report, flag, layers, context);
    let (step, _) = layers.serve_at(now);
    report.add(
        Layer::ScheduledChange { id: step.map(|step| step.change_id) },
        step.map(|step| layer_result(layers, &step.serve, context)).ok_or(SkipReason::NoScheduledChangeDue),
    );
    report.add(Layer::Default, Ok(layer_result(layers, &layers.default, context)));
}

/// Adds a report for each targeting rule and, if the budget is exhausted, for
/// [`Layer::EvaluationTooExpensive`].
fn add_rules<'r>(
    report: &mut ReportBuilder<'r>,
    flag: &'r Flag,
    layers: &'r CompiledLayers,
    context: &EvaluationContext,
) {
    let mut request = EvaluationBudget::default();
    let mut budget = request.for_flag();
    let mut is_exhausted = false;
    // `layers.rules` holds only the enabled rules, in the order of `flag.targeting_rules`.
    let mut compiled_rules = layers.rules.iter();
    for rule in &flag.targeting_rules {
        let layer = Layer::TargetingRule { rule_id: &rule.id };
        let Some(compiled) = rule.enabled.then(|| compiled_rules.next()).flatten() else {
            report.add(layer, Err(SkipReason::RuleDisabled));
            continue;
        };
        if is_exhausted {
            report.add(layer, Err(SkipReason::EvaluationTooExpensive));
            continue;
        }
        match compiled.first_failure(context, &mut budget) {
            Ok(None) => report.add(layer, Ok(layer_result(layers, &compiled.serve, context))),
            Ok(Some((index, failure))) => report.add(layer, Err(failed_condition(rule, index, failure, context))),
            Err(BudgetExhausted) => {
                is_exhausted = true;
                report.add(layer, Err(SkipReason::EvaluationTooExpensive));
                let off = &layers.variants[layers.off_variant];
                let result = LayerResult { value: off.value(), variant: Some(off), split: None };
                report.add(Layer::EvaluationTooExpensive, Ok(result));
            }
        }
    }
}

fn failed_condition<'r>(
    rule: &'r TargetingRule,
    index: usize,
    failure: ConditionFailure,
    context: &EvaluationContext,
) -> SkipReason<'r> {
    let condition = &rule.conditions[index];
    SkipReason::Condition {
        index,
        attribute: &condition.attribute,
        operator: condition.operator,
        attribute_value: context.attribute(&condition.attribute).map(|attribute| attribute.excerpt()),
        failure,
    }
}

fn layer_result<'r>(
    layers: &'r CompiledLayers,
    serve: &'r CompiledServe,
    context: &EvaluationContext,
) -> LayerResult<'r> {
    let variant = layers.select_variant(serve, context);
    let split = match serve {
        CompiledServe::Variant(_) => None,
        CompiledServe::Split { bucket_by, .. } => Some(SplitReport {
            bucket_by: bucket_by.as_deref().unwrap_or("user_id"),
            bucket: layers.bucket_of(bucket_by.as_deref(), context),
        }),
    };
    LayerResult { value: variant.value(), variant: Some(variant), split }
}
