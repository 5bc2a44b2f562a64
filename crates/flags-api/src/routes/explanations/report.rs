//! Why a user gets it: layer by layer.

use flags_domain::{self as domain, Instant, SkipReason};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

use super::user_flags::{OverrideDetail, Resolved};
use crate::wire::{Finding, Operator, mirror};

/// Why a user gets what they get of a flag.
#[derive(Serialize, ToSchema)]
pub(crate) struct Explanation<'v> {
    pub(super) user_id: Uuid,
    pub(super) flag_name: &'v str,
    /// `<epoch>:<number>`: the revision of the log that was evaluated.
    pub(super) revision: String,
    #[schema(value_type = String, format = DateTime)]
    pub(super) evaluated_at: Instant,
    /// Whether the server has not been able to read its database for 5 s.
    pub(super) stale: bool,
    /// What they get; `null` of an archived flag, or of one that could not be compiled.
    #[schema(required)]
    pub(super) resolution: Option<Resolution<'v>>,
    /// The user's override of this flag, whatever became of it.
    #[schema(required)]
    pub(super) r#override: Option<OverrideDetail<'v>>,
    /// Highest first; one entry for each rule.
    pub(super) layers: Vec<Layer<'v>>,
    pub(super) findings: Vec<FindingReport>,
    /// The first instant at which value or source differ by time alone.
    #[schema(required)]
    pub(super) next_change: Option<NextChange<'v>>,
}

/// What they get.
#[derive(Serialize, ToSchema)]
pub(crate) struct Resolution<'v> {
    #[serde(flatten)]
    pub(super) given: Resolved<'v>,
    /// The next instant at which time alone may change it.
    #[schema(required, value_type = Option<String>, format = DateTime)]
    pub(super) valid_until: Option<Instant>,
}

/// What comes next.
#[derive(Serialize, ToSchema)]
pub(crate) struct NextChange<'v> {
    #[schema(value_type = String, format = DateTime)]
    pub(super) at: Instant,
    /// Left out if the user gets nothing from then on: the definition could not be compiled.
    #[serde(flatten)]
    pub(super) given: Option<Resolved<'v>>,
}

/// What an admin may want to know of the override.
#[derive(Serialize, ToSchema)]
pub(crate) struct FindingReport {
    pub(super) code: Finding,
    /// A sentence for people.
    pub(super) detail: &'static str,
}

/// One layer, and what became of it.
#[derive(Serialize, ToSchema)]
pub(crate) struct Layer<'v> {
    pub(super) layer: LayerName,
    pub(super) outcome: Outcome,
    /// Of a targeting rule.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(super) rule_id: Option<&'v str>,
    /// Of `scheduled_change`, the one that is due; of `disabled`, the one that set the switch, on or off.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(super) scheduled_change_id: Option<Uuid>,
    /// Whether it has something to give, reached or not.
    pub(super) would_match: bool,
    /// What it gives, or would give if no higher layer decided.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) value: Option<&'v Value>,
    /// The variant with this value.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(super) variant: Option<&'v str>,
    /// How a split chose.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(super) split: Option<Split<'v>>,
    /// Why it has nothing to give.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(super) why_not: Option<WhyNotMatched<'v>>,
}

/// How a split chose.
#[derive(Serialize, ToSchema)]
pub(crate) struct Split<'v> {
    /// The attribute that is hashed.
    pub(super) bucket_by: &'v str,
    /// 0 to 99,999; `null` if the user has nothing to hash there: then the first variant with a weight above 0 is chosen.
    #[schema(required, maximum = 99999)]
    pub(super) bucket: Option<u32>,
}

/// Why a layer has nothing to give.
#[derive(Serialize, ToSchema)]
#[serde(tag = "code", rename_all = "snake_case")]
pub(crate) enum WhyNotMatched<'v> {
    /// The user has no override of this flag.
    NoOverride,
    /// Theirs is switched off.
    OverrideDisabled,
    /// Theirs has expired.
    OverrideExpired,
    /// The value of theirs is not of the flag's type.
    OverrideTypeMismatch,
    /// The flag is on.
    FlagEnabled,
    /// The rule is switched off.
    RuleDisabled,
    /// The first of the rule's conditions that does not hold.
    Condition {
        /// Its place in the rule, from 0.
        condition: usize,
        attribute: &'v str,
        operator: Operator,
        /// What was seen of the user, cut after 200 characters; `null` if it is missing.
        #[schema(value_type = Value)]
        seen: Value,
        failure: Failure,
    },
    /// No scheduled change of the default is due, or the default was set by hand since.
    NothingDue,
    /// The definition could not be compiled.
    Invalid {
        /// Where.
        pointer: &'v str,
        /// Why.
        detail: &'v str,
    },
}

mirror! {
    /// Why a condition does not hold.
    Failure = domain::ConditionFailure {
        /// The user has no such attribute; negated or not, only `exists` can hold then.
        Missing,
        /// What was seen is of a type that the operator does not compare; negated or not, the condition fails.
        TypeMismatch,
        /// None of the values fits.
        NoMatch,
        /// One of the values fits, and the condition is negated.
        Excluded,
    }
}

/// A layer, highest first.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum LayerName {
    /// In place of all: the flag is archived.
    Archived,
    Override,
    Disabled,
    TargetingRule,
    ScheduledChange,
    Default,
    /// In place of all below the override: the definition could not be compiled.
    Invalid,
}

mirror! {
    /// What became of a layer.
    Outcome = domain::LayerOutcome {
        /// It decided.
        Matched,
        /// It had nothing to give.
        NotMatched,
        /// A higher one had decided.
        NotReached,
    }
}

impl<'v> Layer<'v> {
    pub(super) fn show(report: domain::LayerReport<'v>) -> Self {
        let (layer, rule_id, scheduled_change_id) = match report.layer {
            domain::Layer::Archived => (LayerName::Archived, None, None),
            domain::Layer::Override => (LayerName::Override, None, None),
            domain::Layer::Disabled { set_by } => (LayerName::Disabled, None, set_by),
            domain::Layer::TargetingRule { rule_id } => (LayerName::TargetingRule, Some(rule_id), None),
            domain::Layer::ScheduledChange { id } => (LayerName::ScheduledChange, None, id),
            domain::Layer::Default => (LayerName::Default, None, None),
            domain::Layer::Invalid => (LayerName::Invalid, None, None),
        };
        Self {
            layer,
            outcome: report.outcome.into(),
            rule_id,
            scheduled_change_id,
            would_match: report.gives.is_some(),
            value: report.gives.map(|given| given.value.value()),
            variant: report.gives.and_then(|given| given.variant).map(domain::CompiledVariant::id),
            split: report
                .gives
                .and_then(|given| given.split)
                .map(|split| Split { bucket_by: split.bucket_by, bucket: split.bucket }),
            why_not: report.why_not.map(WhyNotMatched::show),
        }
    }
}

impl<'v> WhyNotMatched<'v> {
    pub(super) fn show(why: SkipReason<'v>) -> Self {
        match why {
            SkipReason::NoOverride => Self::NoOverride,
            SkipReason::OverrideDisabled => Self::OverrideDisabled,
            SkipReason::OverrideExpired => Self::OverrideExpired,
            SkipReason::OverrideTypeMismatch => Self::OverrideTypeMismatch,
            SkipReason::FlagEnabled => Self::FlagEnabled,
            SkipReason::RuleDisabled => Self::RuleDisabled,
            SkipReason::Condition { index, attribute, operator, seen, failure } => Self::Condition {
                condition: index,
                attribute,
                operator: operator.into(),
                seen: seen.unwrap_or_default(),
                failure: failure.into(),
            },
            SkipReason::NothingDue => Self::NothingDue,
            SkipReason::Invalid { pointer, detail } => Self::Invalid { pointer, detail },
        }
    }
}

impl FindingReport {
    pub(super) fn show(code: domain::FindingCode) -> Self {
        use domain::FindingCode as Code;
        let detail = match code {
            Code::OverrideRedundant => "the user would get the same without the override, up to its end",
            Code::OverrideShadowsRule => "a targeting rule would decide without the override",
            Code::OverrideShadowsSchedule => {
                "a scheduled change would decide without the override, or change what the user gets before it ends"
            }
            Code::OverrideOnDisabledFlag => "the flag is off, and the user gets the override all the same",
            Code::OverrideExpired => "the override has expired and does nothing",
            Code::OverrideDisabled => "the override is switched off and does nothing",
            Code::OverrideTypeMismatch => "the override's value is not of the flag's type, so that it does nothing",
        };
        Self { code: code.into(), detail }
    }
}
