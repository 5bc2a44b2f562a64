//! Evaluation of one flag: the current result, and the result after the user's override expires.

use flags_domain::{CompiledFlag, EvaluationBudget, EvaluationContext, Instant, Resolution, Source, resolve_within};

use super::OverrideRef;

/// Evaluation result of one flag.
#[derive(Clone, Copy, Debug)]
pub struct EvaluatedFlag<'v> {
    /// The evaluated flag.
    pub flag: &'v CompiledFlag,
    /// Value, variant and source of the result.
    pub resolution: Resolution<'v>,
    /// The override that determined the result, if the source is an override.
    pub user_override: Option<OverrideRef<'v>>,
    /// The result after `user_override` expires. `None` if there is no override or it does not
    /// expire.
    pub after_override: Option<Resolution<'v>>,
}

/// Evaluates a flag for a context. Returns `None` if the flag has no result.
///
/// `user_override` is the override of the flag for the user of the context, with any status. All
/// evaluations of a request share `budget`.
pub fn evaluate<'v>(
    flag: &'v CompiledFlag,
    context: &EvaluationContext,
    user_override: Option<OverrideRef<'v>>,
    now: Instant,
    budget: &mut EvaluationBudget,
) -> Option<EvaluatedFlag<'v>> {
    let resolution = resolve_within(flag, context, user_override.map(|o| o.view()), now, budget)?;
    let is_overridden = resolution.source == Source::Override;
    let user_override = user_override.filter(|_| is_overridden);
    let expires_at = user_override.and_then(|o| o.expires_at);
    let after_override = expires_at.and_then(|expires_at| resolve_within(flag, context, None, expires_at, budget));
    Some(EvaluatedFlag { flag, resolution, user_override, after_override })
}
