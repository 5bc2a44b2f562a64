//! Findings about overrides: why an override has no effect, and which layers it hides.

use crate::{
    compiled::CompiledFlag,
    context::EvaluationContext,
    instant::Instant,
    resolve::{OverrideOutcome, Resolution, Source, resolve},
    user_override::OverrideView,
    value::same_value,
};

/// A finding about an override that an admin may want to act on.
///
/// For an archived flag, only [`OverrideExpired`](Self::OverrideExpired) and
/// [`OverrideDisabled`](Self::OverrideDisabled) apply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FindingCode {
    /// The override is active, and until it expires the user would get the same value without it.
    OverrideRedundant,
    /// The override is active, and a targeting rule would decide without it.
    OverrideShadowsRule,
    /// The override is active, and without it a scheduled change would decide, or would change the value or its source
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
}

impl FindingCode {
    /// All codes, in the order in which [`explain()`](crate::explain()) reports them.
    pub const ALL: [Self; 7] = [
        Self::OverrideRedundant,
        Self::OverrideShadowsRule,
        Self::OverrideShadowsSchedule,
        Self::OverrideOnDisabledFlag,
        Self::OverrideExpired,
        Self::OverrideDisabled,
        Self::OverrideTypeMismatch,
    ];

    /// Whether the finding can depend on attributes of the context, for a flag that
    /// [reads attributes](CompiledFlag::reads_attributes).
    pub const fn reads_attributes(self) -> bool {
        matches!(self, Self::OverrideRedundant | Self::OverrideShadowsRule | Self::OverrideShadowsSchedule)
    }

    /// Returns whether the finding applies at `now` to `user_override`, an override of `flag` for the user of
    /// `context`.
    pub fn applies(
        self,
        flag: &CompiledFlag,
        context: &EvaluationContext,
        user_override: OverrideView<'_>,
        now: Instant,
    ) -> bool {
        let outcome = flag.override_outcome(user_override, now);
        match self {
            Self::OverrideExpired => outcome == OverrideOutcome::Expired,
            Self::OverrideDisabled => outcome == OverrideOutcome::Disabled,
            _ if flag.is_archived() => false,
            Self::OverrideTypeMismatch => outcome == OverrideOutcome::TypeMismatch,
            _ if outcome != OverrideOutcome::Applied => false,
            Self::OverrideRedundant => {
                resolutions_without(flag, context, user_override, now).is_some_and(|mut resolutions| {
                    resolutions.all(|resolution| same_value(resolution.value.value(), user_override.value.value()))
                })
            }
            Self::OverrideShadowsRule => {
                let resolution = resolve(flag, context, None, now);
                resolution.is_some_and(|resolution| matches!(resolution.source, Source::TargetingRule { .. }))
            }
            Self::OverrideShadowsSchedule => {
                resolutions_without(flag, context, user_override, now).is_some_and(|mut resolutions| {
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
                resolve(flag, context, None, now).is_some_and(|resolution| resolution.source == Source::Disabled)
            }
        }
    }
}

/// Returns the evaluation results without the override: at `now`, and at each later instant before the override expires
/// at which the result may change. Returns `None` if the flag has no result without the override.
fn resolutions_without<'r>(
    flag: &'r CompiledFlag,
    context: &'r EvaluationContext,
    user_override: OverrideView<'_>,
    now: Instant,
) -> Option<impl Iterator<Item = Resolution<'r>>> {
    let expires_at = user_override.expires_at;
    let first = resolve(flag, context, None, now)?;
    Some(std::iter::successors(Some(first), move |resolution| {
        let next = resolution.valid_until.filter(|next| expires_at.is_none_or(|expires_at| *next < expires_at))?;
        resolve(flag, context, None, next)
    }))
}
