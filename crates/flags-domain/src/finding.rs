//! Findings about overrides and evaluations: why an override has no effect, which layers it hides, and whether the
//! targeting rules are too expensive.

use crate::{
    compiled::CompiledFlag,
    context::EvaluationContext,
    instant::Instant,
    resolve::{OverrideOutcome, RepeatedEvaluation, Resolution, Source},
    user_override::OverrideView,
    value::same_value,
};

/// A possible problem with an override, or with its flag, that an admin may want to fix.
///
/// For an archived flag, only [`OverrideExpired`](Self::OverrideExpired) and
/// [`OverrideDisabled`](Self::OverrideDisabled) apply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FindingCode {
    /// Without the active override, the user would get the same value until the override expires.
    OverrideRedundant,
    /// Without the active override, a targeting rule would decide the result.
    OverrideShadowsRule,
    /// Without the active override, a scheduled change would decide the result, or would change the value or its source
    /// before the override expires.
    OverrideShadowsSchedule,
    /// The override is active although the flag is off. The user gets the value of the override.
    OverrideOnDisabledFlag,
    /// The override has expired.
    OverrideExpired,
    /// The override is disabled.
    OverrideDisabled,
    /// The value of the override does not have the type of the flag, so the override is ignored.
    OverrideTypeMismatch,
    /// Evaluating the targeting rules for this user exceeds the budget, so the flag serves its off
    /// variant unless an override applies. [`explain()`](crate::explain()) also reports this for a
    /// user without an override.
    EvaluationTooExpensive,
}

impl FindingCode {
    /// All codes, in the order in which [`explain()`](crate::explain()) reports them.
    pub const ALL: [Self; 8] = [
        Self::OverrideRedundant,
        Self::OverrideShadowsRule,
        Self::OverrideShadowsSchedule,
        Self::OverrideOnDisabledFlag,
        Self::OverrideExpired,
        Self::OverrideDisabled,
        Self::OverrideTypeMismatch,
        Self::EvaluationTooExpensive,
    ];

    /// Whether the finding can depend on attributes of the context. This matters only for flags that
    /// [read attributes](CompiledFlag::reads_attributes).
    pub const fn reads_attributes(self) -> bool {
        matches!(
            self,
            Self::OverrideRedundant
                | Self::OverrideShadowsRule
                | Self::OverrideShadowsSchedule
                | Self::EvaluationTooExpensive
        )
    }

    /// Returns whether the finding applies at `now` to `user_override`, an override of `flag` for
    /// the user of `context`. Evaluates the targeting rules at most once, within the budget of one
    /// flag, and adds the budget units used to `spent`.
    pub fn applies(
        self,
        flag: &CompiledFlag,
        context: &EvaluationContext,
        user_override: OverrideView<'_>,
        now: Instant,
        spent: &mut u64,
    ) -> bool {
        let evaluation = RepeatedEvaluation::new(flag, context);
        let applies = self.applies_to(&evaluation, user_override, now);
        *spent += evaluation.spent();
        applies
    }

    /// Like [`applies`](Self::applies), for the flag and the context of `evaluation`.
    pub(crate) fn applies_to(
        self,
        evaluation: &RepeatedEvaluation<'_, '_>,
        user_override: OverrideView<'_>,
        now: Instant,
    ) -> bool {
        let flag = evaluation.flag();
        let outcome = flag.override_outcome(user_override, now);
        match self {
            Self::OverrideExpired => outcome == OverrideOutcome::Expired,
            Self::OverrideDisabled => outcome == OverrideOutcome::Disabled,
            _ if flag.is_archived() => false,
            Self::OverrideTypeMismatch => outcome == OverrideOutcome::TypeMismatch,
            Self::EvaluationTooExpensive => is_too_expensive(evaluation, now),
            _ if outcome != OverrideOutcome::Applied => false,
            Self::OverrideRedundant => {
                resolutions_without(evaluation, user_override, now).is_some_and(|mut resolutions| {
                    resolutions.all(|resolution| same_value(resolution.value.value(), user_override.value.value()))
                })
            }
            Self::OverrideShadowsRule => {
                let resolution = evaluation.resolve(None, now);
                resolution.is_some_and(|resolution| matches!(resolution.source, Source::TargetingRule { .. }))
            }
            Self::OverrideShadowsSchedule => {
                resolutions_without(evaluation, user_override, now).is_some_and(|mut resolutions| {
                    let first = resolutions.next();
                    let is_scheduled =
                        |resolution: &Resolution<'_>| matches!(resolution.source, Source::ScheduledChange { .. });
                    first.is_some_and(|first| {
                        is_scheduled(&first)
                            || resolutions.any(|later| is_scheduled(&later) || !later.has_same_value_and_source(&first))
                    })
                })
            }
            Self::OverrideOnDisabledFlag => {
                evaluation.resolve(None, now).is_some_and(|resolution| resolution.source == Source::Disabled)
            }
        }
    }
}

/// Returns whether evaluating the flag at `now` without an override exceeds the budget.
pub(crate) fn is_too_expensive(evaluation: &RepeatedEvaluation<'_, '_>, now: Instant) -> bool {
    evaluation.resolve(None, now).is_some_and(|resolution| resolution.source == Source::EvaluationTooExpensive)
}

/// Returns the evaluation results without the override: at `now`, and at each later instant before the override expires
/// at which the result may change. Returns `None` if the flag has no result without the override.
fn resolutions_without<'e, 'r>(
    evaluation: &'e RepeatedEvaluation<'r, '_>,
    user_override: OverrideView<'_>,
    now: Instant,
) -> Option<impl Iterator<Item = Resolution<'r>> + use<'e, 'r>> {
    let expires_at = user_override.expires_at;
    let first = evaluation.resolve(None, now)?;
    Some(std::iter::successors(Some(first), move |resolution| {
        let next = resolution.valid_until.filter(|next| expires_at.is_none_or(|expires_at| *next < expires_at))?;
        evaluation.resolve(None, next)
    }))
}
