//! Explanation of an evaluation result, layer by layer.

use flags_domain::{self as domain, Instant, SkipReason};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

use super::user_flags::{DetailedResult, OverrideDetail};
use crate::wire::{WireFindingCode, WireOperator, wire_enum};

/// Explanation of a flag's value for one user.
#[derive(Serialize, ToSchema)]
pub(crate) struct ExplanationResponse<'v> {
    /// User that the flag was evaluated for.
    pub(super) user_id: Uuid,
    /// Flag that was evaluated.
    pub(super) flag_name: &'v str,
    /// Revision that was evaluated, as `<epoch>:<number>`.
    pub(super) revision: String,
    /// Time of evaluation.
    #[schema(value_type = String, format = DateTime)]
    pub(super) evaluated_at: Instant,
    /// Whether the server has been unable to read its database for at least 5 seconds.
    pub(super) stale: bool,
    /// Evaluation result. `null` if the flag is archived, or if its definition is invalid and no override supplies a
    /// value.
    #[schema(required)]
    pub(super) resolution: Option<ExplainedResult<'v>>,
    /// The user's override of this flag, of any status. `null` if there is none.
    #[schema(required)]
    pub(super) r#override: Option<OverrideDetail<'v>>,
    /// Layers in order of priority, highest first, with one entry for each targeting rule.
    pub(super) layers: Vec<LayerExplanation<'v>>,
    /// Findings about the user's override and the evaluation.
    pub(super) findings: Vec<FindingReport>,
    /// Next change of `value` or `source` without a new revision, because an override expires or a scheduled change
    /// takes effect. `null` if there is none.
    #[schema(required)]
    pub(super) next_change: Option<NextResultChange<'v>>,
}

/// Evaluation result.
#[derive(Serialize, ToSchema)]
pub(crate) struct ExplainedResult<'v> {
    #[serde(flatten)]
    pub(super) result: DetailedResult<'v>,
    /// Earliest time at which the result may change without a new revision. `null` if there is none.
    #[schema(required, value_type = Option<String>, format = DateTime)]
    pub(super) valid_until: Option<Instant>,
}

/// A change of the evaluation result at a later time, without a new revision.
#[derive(Serialize, ToSchema)]
pub(crate) struct NextResultChange<'v> {
    /// When the result changes.
    #[schema(value_type = String, format = DateTime)]
    pub(super) at: Instant,
    /// Result after the change. Absent if the flag's definition is invalid.
    #[serde(flatten)]
    pub(super) result: Option<DetailedResult<'v>>,
}

/// A finding about the user's override or the evaluation.
#[derive(Serialize, ToSchema)]
pub(crate) struct FindingReport {
    /// Stable code.
    pub(super) code: WireFindingCode,
    /// Human-readable description.
    pub(super) detail: &'static str,
}

/// One layer of the evaluation and its outcome.
#[derive(Serialize, ToSchema)]
pub(crate) struct LayerExplanation<'v> {
    /// Name of the layer.
    pub(super) layer: LayerName,
    /// Outcome of the layer.
    pub(super) outcome: WireLayerOutcome,
    /// Id of the rule, for the layer `targeting_rule`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(super) rule_id: Option<&'v str>,
    /// For `scheduled_change`: id of the change in effect. For `disabled`: id of the scheduled change that turned the
    /// flag on or off, if this was not done manually.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(super) scheduled_change_id: Option<Uuid>,
    /// Whether the layer supplies a value, or would supply one if no higher layer had decided the result.
    pub(super) would_match: bool,
    /// Value that the layer supplies, or would supply if no higher layer had decided. Absent if the layer supplies
    /// none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) value: Option<&'v Value>,
    /// Id of the variant with this value.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(super) variant: Option<&'v str>,
    /// How the percentage split selected the variant. Present only if the layer serves a split.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(super) split: Option<SplitExplanation<'v>>,
    /// Why the layer supplies no value.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(super) why_not: Option<NotMatchedReason<'v>>,
}

/// How a percentage split selected a variant.
#[derive(Serialize, ToSchema)]
pub(crate) struct SplitExplanation<'v> {
    /// Attribute that was hashed.
    pub(super) bucket_by: &'v str,
    /// Bucket from 0 to 99,999. `null` if the user has no value to hash; the first variant with a weight above 0 is
    /// then served.
    #[schema(required, maximum = 99999)]
    pub(super) bucket: Option<u32>,
}

/// Why a layer supplies no value.
#[derive(Serialize, ToSchema)]
#[serde(tag = "code", rename_all = "snake_case")]
pub(crate) enum NotMatchedReason<'v> {
    /// The user has no override of this flag.
    NoOverride,
    /// The override is disabled.
    OverrideDisabled,
    /// The override has expired.
    OverrideExpired,
    /// The override's value does not have the flag's type.
    OverrideTypeMismatch,
    /// The flag is on.
    FlagEnabled,
    /// The rule is disabled.
    RuleDisabled,
    /// Evaluating the rules up to this one exceeds the evaluation budget.
    EvaluationTooExpensive,
    /// A condition of the rule does not hold. The first such condition is reported.
    Condition {
        /// Zero-based index of the condition in the rule.
        condition: usize,
        /// Attribute that was tested.
        attribute: &'v str,
        /// Operator of the condition.
        operator: WireOperator,
        /// The user's value of the attribute, truncated to 200 characters. `null` if the attribute is missing.
        #[schema(value_type = Value)]
        seen: Value,
        /// Why the condition does not hold.
        failure: WireConditionFailure,
    },
    /// No scheduled change of the default has taken effect since the default was last set manually.
    NothingDue,
    /// The flag's definition is invalid.
    Invalid {
        /// JSON pointer of the error in the definition.
        pointer: &'v str,
        /// Description of the error.
        detail: &'v str,
    },
}

wire_enum! {
    /// Why a condition does not hold.
    ///
    /// - `missing`: the user does not have the attribute; only `exists` can then hold, whether negated or not
    /// - `type_mismatch`: the attribute has a type that the operator does not accept; the condition fails, whether
    ///   negated or not
    /// - `no_match`: no value matches
    /// - `excluded`: a value matches and the condition is negated
    /// - `too_long`: the text has more than 4,096 bytes, so `matches` does not search it; the condition fails, whether
    ///   negated or not
    WireConditionFailure as ConditionFailure = domain::ConditionFailure {
        Missing,
        TypeMismatch,
        NoMatch,
        Excluded,
        TooLong,
    }
}

/// Layer of the evaluation, in order of priority, highest first.
///
/// `archived` replaces all other layers if the flag is archived. `evaluation_too_expensive` serves the off variant; it
/// follows the rule at which the evaluation budget is exhausted. `invalid` replaces all layers below `override` if the
/// flag's definition is invalid.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum LayerName {
    Archived,
    Override,
    Disabled,
    TargetingRule,
    ScheduledChange,
    Default,
    EvaluationTooExpensive,
    Invalid,
}

wire_enum! {
    /// Outcome of a layer.
    ///
    /// - `matched`: the layer decided the result
    /// - `not_matched`: the layer supplied no value
    /// - `not_reached`: a higher layer had already decided
    WireLayerOutcome as LayerOutcome = domain::LayerOutcome {
        Matched,
        NotMatched,
        NotReached,
    }
}

impl<'v> LayerExplanation<'v> {
    pub(super) fn from_report(report: domain::LayerReport<'v>) -> Self {
        let (layer, rule_id, scheduled_change_id) = match report.layer {
            domain::Layer::Archived => (LayerName::Archived, None, None),
            domain::Layer::Override => (LayerName::Override, None, None),
            domain::Layer::Disabled { scheduled_change_id } => (LayerName::Disabled, None, scheduled_change_id),
            domain::Layer::TargetingRule { rule_id } => (LayerName::TargetingRule, Some(rule_id), None),
            domain::Layer::ScheduledChange { id } => (LayerName::ScheduledChange, None, id),
            domain::Layer::Default => (LayerName::Default, None, None),
            domain::Layer::EvaluationTooExpensive => (LayerName::EvaluationTooExpensive, None, None),
            domain::Layer::Invalid => (LayerName::Invalid, None, None),
        };
        Self {
            layer,
            outcome: report.outcome.into(),
            rule_id,
            scheduled_change_id,
            would_match: report.result.is_some(),
            value: report.result.map(|result| result.value.value()),
            variant: report.result.and_then(|result| result.variant).map(domain::CompiledVariant::id),
            split: report
                .result
                .and_then(|result| result.split)
                .map(|split| SplitExplanation { bucket_by: split.bucket_by, bucket: split.bucket }),
            why_not: report.skip_reason.map(NotMatchedReason::from_skip_reason),
        }
    }
}

impl<'v> NotMatchedReason<'v> {
    pub(super) fn from_skip_reason(reason: SkipReason<'v>) -> Self {
        match reason {
            SkipReason::NoOverride => Self::NoOverride,
            SkipReason::OverrideDisabled => Self::OverrideDisabled,
            SkipReason::OverrideExpired => Self::OverrideExpired,
            SkipReason::OverrideTypeMismatch => Self::OverrideTypeMismatch,
            SkipReason::FlagEnabled => Self::FlagEnabled,
            SkipReason::RuleDisabled => Self::RuleDisabled,
            SkipReason::EvaluationTooExpensive => Self::EvaluationTooExpensive,
            SkipReason::Condition { index, attribute, operator, attribute_value, failure } => Self::Condition {
                condition: index,
                attribute,
                operator: operator.into(),
                seen: attribute_value.unwrap_or_default(),
                failure: failure.into(),
            },
            SkipReason::NoScheduledChangeDue => Self::NothingDue,
            SkipReason::Invalid { pointer, detail } => Self::Invalid { pointer, detail },
        }
    }
}

impl FindingReport {
    pub(super) fn from_code(code: domain::FindingCode) -> Self {
        use domain::FindingCode as Code;
        let detail = match code {
            Code::OverrideRedundant => "until the override expires, the user would get the same value without it",
            Code::OverrideShadowsRule => "without the override, a targeting rule would determine the value",
            Code::OverrideShadowsSchedule => {
                "without the override, a scheduled change would determine or change the value before the override expires"
            }
            Code::OverrideOnDisabledFlag => "the flag is off, but the override still supplies the value",
            Code::OverrideExpired => "the override has expired and has no effect",
            Code::OverrideDisabled => "the override is disabled and has no effect",
            Code::OverrideTypeMismatch => {
                "the override's value does not have the flag's type, so the override has no effect"
            }
            Code::EvaluationTooExpensive => {
                "evaluating the targeting rules for this user exceeds the evaluation budget, so the flag serves its off \
                 variant where no override applies"
            }
        };
        Self { code: code.into(), detail }
    }
}
