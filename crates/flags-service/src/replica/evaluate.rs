//! Evaluation of flags for users and anonymous contexts at one revision.

use flags_domain::{CompiledFlag, EvaluationContext, FlagState, Instant, Resolution, Source, resolve};
use uuid::Uuid;

use super::{CachedUser, OverrideRef, View};

/// Evaluation result of one flag.
#[derive(Clone, Copy, Debug)]
pub struct EvaluatedFlag<'v> {
    /// The evaluated flag.
    pub flag: &'v CompiledFlag,
    /// Value, variant and source of the result.
    pub resolution: Resolution<'v>,
    /// The override that determined the result, if the source is an override.
    pub user_override: Option<OverrideRef<'v>>,
    /// The result after `user_override` expires. `None` without an override or if it does not expire.
    pub after_override: Option<Resolution<'v>>,
}

/// User or anonymous context for which flags are evaluated.
#[derive(Clone, Copy, Debug)]
pub struct EvaluationSubject<'s> {
    /// User whose overrides apply; `None` for an anonymous context.
    pub user_id: Option<Uuid>,
    /// Attributes and key for targeting rules and percentage splits.
    pub context: &'s EvaluationContext,
}

impl<'s> From<&'s CachedUser> for EvaluationSubject<'s> {
    fn from(user: &'s CachedUser) -> Self {
        Self { user_id: Some(user.id), context: &user.context }
    }
}

impl View<'_> {
    /// Evaluates all flags that are not archived, in order of their names. Omits flags that failed to compile, unless
    /// an override determines their value.
    pub fn evaluate_all<'s>(
        &self,
        subject: impl Into<EvaluationSubject<'s>>,
        now: Instant,
    ) -> impl Iterator<Item = EvaluatedFlag<'_>> {
        self.evaluate_each(subject, now).filter_map(|(_, evaluated)| evaluated)
    }

    /// Evaluates all flags that are not archived, in order of their names. The result is `None` for a flag that failed
    /// to compile and has no applicable override; [`CompiledFlag::compile_error`] returns the error.
    pub fn evaluate_each<'s>(
        &self,
        subject: impl Into<EvaluationSubject<'s>>,
        now: Instant,
    ) -> impl Iterator<Item = (&CompiledFlag, Option<EvaluatedFlag<'_>>)> {
        let subject = subject.into();
        let overrides = subject.user_id.into_iter().flat_map(|user_id| self.overrides_of(user_id));
        let mut overrides = overrides.peekable();
        // Merge join: flags and overrides are both sorted by flag name.
        self.flags().map(FlagState::compiled).filter(|flag| !flag.is_archived()).map(move |flag| {
            while overrides.next_if(|o| o.flag_name < flag.name()).is_some() {}
            let user_override = overrides.next_if(|o| o.flag_name == flag.name());
            (flag, evaluate(flag, subject, user_override, now))
        })
    }

    /// Evaluates one flag. Returns `None` if the flag does not exist or has no result.
    pub fn evaluate<'s>(
        &self,
        flag_name: &str,
        subject: impl Into<EvaluationSubject<'s>>,
        now: Instant,
    ) -> Option<EvaluatedFlag<'_>> {
        let subject = subject.into();
        let flag = self.flag(flag_name)?.compiled();
        let user_override = subject.user_id.and_then(|id| self.overrides_of(id).find(|o| o.flag_name == flag.name()));
        evaluate(flag, subject, user_override, now)
    }
}

/// Evaluates a flag for a subject. `user_override` is the subject's override of the flag, whatever its status.
pub fn evaluate<'v, 's>(
    flag: &'v CompiledFlag,
    subject: impl Into<EvaluationSubject<'s>>,
    user_override: Option<OverrideRef<'v>>,
    now: Instant,
) -> Option<EvaluatedFlag<'v>> {
    let context = subject.into().context;
    let resolution = resolve(flag, context, user_override.map(|o| o.view()), now)?;
    let is_overridden = resolution.source == Source::Override;
    let user_override = user_override.filter(|_| is_overridden);
    let expires_at = user_override.and_then(|o| o.expires_at);
    let after_override = expires_at.and_then(|expires_at| resolve(flag, context, None, expires_at));
    Some(EvaluatedFlag { flag, resolution, user_override, after_override })
}
