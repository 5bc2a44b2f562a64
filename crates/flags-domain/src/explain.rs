//! Why somebody gets what they get of a flag: every layer, what is shadowed, and what comes next.

use serde_json::Value;
use uuid::Uuid;

use crate::{
    compiled::{CompiledFlag, CompiledServe, CompiledVariant, Layers},
    condition::ConditionFailure,
    context::EvaluationContext,
    finding::FindingCode,
    flag::Flag,
    instant::Instant,
    resolve::{OverrideOutcome, Resolution, resolve},
    rule::{Operator, TargetingRule},
    snapshot::FlagState,
    user_override::OverrideView,
    value::PreparedValue,
};

/// Why somebody gets what they get of a flag.
#[derive(Clone, Debug)]
pub struct Explanation<'r> {
    /// What they get; `None` as from [`resolve()`].
    pub resolution: Option<Resolution<'r>>,
    /// All layers, highest first; of an archived flag this is all there is to say.
    pub layers: Vec<LayerReport<'r>>,
    /// What an admin may want to know of the override.
    pub findings: Vec<FindingCode>,
    /// The first instant at which value or source differ, if time alone changes them.
    pub next_change: Option<NextChange<'r>>,
}

/// What comes next.
#[derive(Clone, Copy, Debug)]
pub struct NextChange<'r> {
    /// When.
    pub at: Instant,
    /// What they get from then on; `None` if that is nothing.
    pub resolution: Option<Resolution<'r>>,
}

/// One layer, and what became of it.
#[derive(Clone, Debug)]
pub struct LayerReport<'r> {
    /// Which.
    pub layer: Layer<'r>,
    /// What became of it.
    pub outcome: LayerOutcome,
    /// What it gives, or would give if no higher layer decided; `None` if it has nothing to give.
    pub gives: Option<LayerResult<'r>>,
    /// Why it has nothing to give.
    pub why_not: Option<SkipReason<'r>>,
}

/// What a layer gives.
#[derive(Clone, Copy, Debug)]
pub struct LayerResult<'r> {
    /// The value.
    pub value: &'r PreparedValue,
    /// The variant that has it; `None` for an override's value that no variant has.
    pub variant: Option<&'r CompiledVariant>,
    /// How a split chose, if it is one.
    pub split: Option<SplitReport<'r>>,
}

/// How a split chose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SplitReport<'r> {
    /// The attribute that is hashed.
    pub bucket_by: &'r str,
    /// The bucket, `0..100_000`; `None` if there is nothing to hash: then the first variant with a weight above 0 is chosen.
    pub bucket: Option<u32>,
}

/// A layer, highest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layer<'r> {
    /// The flag is archived.
    Archived,
    /// The user's override.
    Override,
    /// The switch.
    Disabled {
        /// The scheduled change that set it, if it does not stand as set by hand.
        set_by: Option<Uuid>,
    },
    /// A targeting rule.
    TargetingRule {
        /// The rule's id.
        rule_id: &'r str,
    },
    /// The last due scheduled change of the default.
    ScheduledChange {
        /// The change's id, if one is due.
        id: Option<Uuid>,
    },
    /// The default, as set by hand.
    Default,
    /// In place of everything below the override: the definition could not be compiled.
    Invalid,
}

impl Layer<'_> {
    /// The layer's name on the wire.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Archived => "archived",
            Self::Override => "override",
            Self::Disabled { .. } => "disabled",
            Self::TargetingRule { .. } => "targeting_rule",
            Self::ScheduledChange { .. } => "scheduled_change",
            Self::Default => "default",
            Self::Invalid => "invalid",
        }
    }
}

/// What became of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LayerOutcome {
    /// It decided.
    Matched,
    /// It had nothing to give.
    NotMatched,
    /// A higher layer had decided.
    NotReached,
}

/// Why a layer has nothing to give.
#[derive(Clone, Debug, PartialEq)]
pub enum SkipReason<'r> {
    /// There is no override.
    NoOverride,
    /// The override is switched off.
    OverrideDisabled,
    /// The override's end has passed.
    OverrideExpired,
    /// The override's value is not of the flag's type.
    OverrideTypeMismatch,
    /// The flag is on.
    FlagEnabled,
    /// The rule is switched off.
    RuleDisabled,
    /// The first condition that does not hold.
    Condition {
        /// Its place in the rule.
        index: usize,
        /// What it looks at.
        attribute: &'r str,
        /// How it compares.
        operator: Operator,
        /// What was seen, cut short where it is long; `None` if the attribute is missing or null.
        seen: Option<Value>,
        /// Why it does not hold.
        failure: ConditionFailure,
    },
    /// No scheduled change of the default is due that was not set later by hand.
    NothingDue,
    /// The definition could not be compiled: where and why.
    Invalid {
        /// Where: like a JSON pointer, but rules stand under their ids.
        pointer: &'r str,
        /// What is wrong with it.
        detail: &'r str,
    },
}

/// Explains what `context` gets of a flag at `now`. It never disagrees with [`resolve()`].
pub fn explain<'r>(
    state: &'r FlagState,
    context: &EvaluationContext,
    user_override: Option<OverrideView<'r>>,
    now: Instant,
) -> Explanation<'r> {
    let flag = state.compiled();
    let found = |code: &FindingCode| user_override.is_some_and(|found| code.applies(flag, context, found, now));
    Explanation {
        resolution: resolve(flag, context, user_override, now),
        layers: layers(state, context, user_override, now),
        findings: FindingCode::ALL.into_iter().filter(found).collect(),
        next_change: next_change(flag, context, user_override, now),
    }
}

/// The first instant after `now` at which value or source differ from what they are.
fn next_change<'r>(
    flag: &'r CompiledFlag,
    context: &EvaluationContext,
    user_override: Option<OverrideView<'r>>,
    now: Instant,
) -> Option<NextChange<'r>> {
    let present = resolve(flag, context, user_override, now)?;
    let mut boundary = present.valid_until;
    while let Some(at) = boundary {
        let resolution = resolve(flag, context, user_override, at);
        boundary = match resolution {
            Some(later) if later.gives_like(&present) => later.valid_until,
            _ => return Some(NextChange { at, resolution }),
        };
    }
    None
}

/// Reports layer by layer; the first that has something to give has decided.
struct Report<'r> {
    layers: Vec<LayerReport<'r>>,
    decided: bool,
}

impl<'r> Report<'r> {
    fn add(&mut self, layer: Layer<'r>, says: Result<LayerResult<'r>, SkipReason<'r>>) {
        let outcome = match (&says, self.decided) {
            (_, true) => LayerOutcome::NotReached,
            (Ok(_), false) => LayerOutcome::Matched,
            (Err(_), false) => LayerOutcome::NotMatched,
        };
        self.decided |= says.is_ok();
        let (gives, why_not) = match says {
            Ok(given) => (Some(given), None),
            Err(why_not) => (None, Some(why_not)),
        };
        self.layers.push(LayerReport { layer, outcome, gives, why_not });
    }
}

fn layers<'r>(
    state: &'r FlagState,
    context: &EvaluationContext,
    user_override: Option<OverrideView<'r>>,
    now: Instant,
) -> Vec<LayerReport<'r>> {
    let flag = state.compiled();
    if flag.is_archived() {
        let archived =
            LayerReport { layer: Layer::Archived, outcome: LayerOutcome::Matched, gives: None, why_not: None };
        return vec![archived];
    }
    let mut report = Report { layers: Vec::with_capacity(4 + state.flag().targeting_rules.len()), decided: false };
    report.add(Layer::Override, by_override(flag, user_override, now));
    match flag.layers() {
        None => {
            let (pointer, detail) =
                flag.failure().map_or(("", ""), |failure| (failure.pointer.as_str(), failure.detail.as_str()));
            report.add(Layer::Invalid, Err(SkipReason::Invalid { pointer, detail }));
        }
        Some(layers) => add_definition(&mut report, state.flag(), layers, context, now),
    }
    report.layers
}

fn by_override<'r>(
    flag: &'r CompiledFlag,
    user_override: Option<OverrideView<'r>>,
    now: Instant,
) -> Result<LayerResult<'r>, SkipReason<'r>> {
    let found = user_override.ok_or(SkipReason::NoOverride)?;
    match flag.override_outcome(found, now) {
        OverrideOutcome::Decided => {
            Ok(LayerResult { value: found.value, variant: flag.variant_with(found.value), split: None })
        }
        OverrideOutcome::Absent => Err(SkipReason::NoOverride),
        OverrideOutcome::Disabled => Err(SkipReason::OverrideDisabled),
        OverrideOutcome::Expired => Err(SkipReason::OverrideExpired),
        OverrideOutcome::TypeMismatch => Err(SkipReason::OverrideTypeMismatch),
    }
}

/// Everything below the override.
fn add_definition<'r>(
    report: &mut Report<'r>,
    flag: &'r Flag,
    layers: &'r Layers,
    context: &EvaluationContext,
    now: Instant,
) {
    let (is_on, _) = layers.switch_at(now);
    let off = &layers.variants[layers.off_variant];
    let set_by = layers.switch_steps_at(now).0.map(|step| step.change_id);
    report.add(
        Layer::Disabled { set_by },
        if is_on {
            Err(SkipReason::FlagEnabled)
        } else {
            Ok(LayerResult { value: off.value(), variant: Some(off), split: None })
        },
    );
    // Rules that are switched off were not compiled; the others come in the same order.
    let mut compiled = layers.rules.iter();
    for rule in &flag.targeting_rules {
        let says = match rule.enabled.then(|| compiled.next()).flatten() {
            None => Err(SkipReason::RuleDisabled),
            Some(compiled) => match compiled.first_failure(context) {
                None => Ok(given(layers, &compiled.serve, context)),
                Some((index, failure)) => Err(condition(rule, index, failure, context)),
            },
        };
        report.add(Layer::TargetingRule { rule_id: &rule.id }, says);
    }
    let (step, _) = layers.serve_at(now);
    report.add(
        Layer::ScheduledChange { id: step.map(|step| step.change_id) },
        step.map(|step| given(layers, &step.serve, context)).ok_or(SkipReason::NothingDue),
    );
    report.add(Layer::Default, Ok(given(layers, &layers.default, context)));
}

fn condition<'r>(
    rule: &'r TargetingRule,
    index: usize,
    failure: ConditionFailure,
    context: &EvaluationContext,
) -> SkipReason<'r> {
    let condition = &rule.conditions[index];
    let seen = context.attribute(&condition.attribute).map(|attribute| attribute.excerpt());
    SkipReason::Condition { index, attribute: &condition.attribute, operator: condition.operator, seen, failure }
}

fn given<'r>(layers: &'r Layers, serve: &'r CompiledServe, context: &EvaluationContext) -> LayerResult<'r> {
    let variant = layers.pick(serve, context);
    let split = match serve {
        CompiledServe::Variant(_) => None,
        CompiledServe::Split { bucket_by, .. } => Some(SplitReport {
            bucket_by: bucket_by.as_deref().unwrap_or("user_id"),
            bucket: layers.bucket(bucket_by.as_deref(), context),
        }),
    };
    LayerResult { value: variant.value(), variant: Some(variant), split }
}
