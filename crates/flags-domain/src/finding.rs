//! What an admin may want to know of an override: that it does nothing, or what it hides.

use crate::{
    compiled::CompiledFlag,
    context::EvaluationContext,
    instant::Instant,
    resolve::{OverrideOutcome, Resolution, Source, resolve},
    user_override::OverrideView,
    value::same_value,
};

/// Something worth knowing of an override. Of an archived flag's there is only to say whether it is expired or disabled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FindingCode {
    /// It is active, and from now to its end the user would get the same without it.
    OverrideRedundant,
    /// It is active, and a targeting rule would decide without it.
    OverrideShadowsRule,
    /// It is active, and a scheduled change would decide without it, or change what the user would get before its end.
    OverrideShadowsSchedule,
    /// It is active, and the flag is off: the user gets the override all the same.
    OverrideOnDisabledFlag,
    /// Its end has passed.
    OverrideExpired,
    /// It is switched off.
    OverrideDisabled,
    /// Its value is not of the flag's type, so that it is passed over.
    OverrideTypeMismatch,
}

impl FindingCode {
    /// All of them, in the order of reports.
    pub const ALL: [Self; 7] = [
        Self::OverrideRedundant,
        Self::OverrideShadowsRule,
        Self::OverrideShadowsSchedule,
        Self::OverrideOnDisabledFlag,
        Self::OverrideExpired,
        Self::OverrideDisabled,
        Self::OverrideTypeMismatch,
    ];

    /// Whether it can depend on more of the context than the targeting key, for a flag that does.
    pub const fn reads_attributes(self) -> bool {
        matches!(self, Self::OverrideRedundant | Self::OverrideShadowsRule | Self::OverrideShadowsSchedule)
    }

    /// Whether it applies to this override of whoever `context` describes, at `now`.
    pub fn applies(
        self,
        flag: &CompiledFlag,
        context: &EvaluationContext,
        found: OverrideView<'_>,
        now: Instant,
    ) -> bool {
        let outcome = flag.override_outcome(found, now);
        match self {
            Self::OverrideExpired => outcome == OverrideOutcome::Expired,
            Self::OverrideDisabled => outcome == OverrideOutcome::Disabled,
            _ if flag.is_archived() => false,
            Self::OverrideTypeMismatch => outcome == OverrideOutcome::TypeMismatch,
            _ if outcome != OverrideOutcome::Decided => false,
            Self::OverrideRedundant => without(flag, context, found, now)
                .is_some_and(|mut answers| answers.all(|answer| same_value(answer.value.value(), found.value.value()))),
            Self::OverrideShadowsRule => {
                let answer = resolve(flag, context, None, now);
                answer.is_some_and(|answer| matches!(answer.source, Source::TargetingRule { .. }))
            }
            Self::OverrideShadowsSchedule => without(flag, context, found, now).is_some_and(|mut answers| {
                let first = answers.next();
                let is_scheduled = |answer: &Resolution<'_>| matches!(answer.source, Source::ScheduledChange { .. });
                first.is_some_and(|first| {
                    is_scheduled(&first) || answers.any(|later| is_scheduled(&later) || !later.gives_like(&first))
                })
            }),
            Self::OverrideOnDisabledFlag => {
                resolve(flag, context, None, now).is_some_and(|answer| answer.source == Source::Disabled)
            }
        }
    }
}

/// What the user would get without the override: now, and at each instant before its end at which that may change.
fn without<'r>(
    flag: &'r CompiledFlag,
    context: &'r EvaluationContext,
    found: OverrideView<'_>,
    now: Instant,
) -> Option<impl Iterator<Item = Resolution<'r>>> {
    let end = found.expires_at;
    let first = resolve(flag, context, None, now)?;
    Some(std::iter::successors(Some(first), move |answer| {
        let next = answer.valid_until.filter(|next| end.is_none_or(|end| *next < end))?;
        resolve(flag, context, None, next)
    }))
}
