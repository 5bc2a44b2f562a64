//! Evaluation of flags for users, based on the replica and the user cache.

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

use flags_domain::{CompiledFlag, EvaluationContext, FlagState, Instant, Resolution, resolve};
use flags_store::users::{self, email_key};
use serde_json::Value;
use uuid::Uuid;

use crate::{
    core::Core,
    error::{ResourceKind, Result, ServiceError},
    replica::{CachedUser, OverrideRef, Replica, View},
};

/// Number of users read per query while preloading.
const PRELOAD_BATCH_SIZE: usize = 1_000;

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
    let is_overridden = resolution.source == flags_domain::Source::Override;
    let user_override = user_override.filter(|_| is_overridden);
    let expires_at = user_override.and_then(|o| o.expires_at);
    let after_override = expires_at.and_then(|expires_at| resolve(flag, context, None, expires_at));
    Some(EvaluatedFlag { flag, resolution, user_override, after_override })
}

/// Evaluates flags for users and provides their evaluation contexts.
#[derive(Clone)]
pub struct Evaluation {
    core: Core,
    replica: Arc<Replica>,
    /// Second since the Unix epoch of the last warning about failed user lookups.
    warned_at: Arc<AtomicI64>,
}

impl Evaluation {
    /// Creates a service that evaluates flags from `replica` and reads uncached users through `core`.
    pub fn new(core: Core, replica: Arc<Replica>) -> Self {
        Self { core, replica, warned_at: Arc::default() }
    }

    /// The replica that evaluation reads.
    pub const fn replica(&self) -> &Arc<Replica> {
        &self.replica
    }

    /// The core that provides database and clock.
    pub(crate) const fn core(&self) -> &Core {
        &self.core
    }

    /// Current instant of the clock.
    pub fn now(&self) -> Instant {
        self.core.now()
    }

    /// Waits until the clock reaches `at`.
    pub async fn wait_until(&self, at: Instant) {
        self.core.wait_until(at).await;
    }

    /// Returns a user from the cache or from the database.
    ///
    /// # Errors
    /// [`ServiceError::ContextUnavailable`] if the user is not cached and the database cannot be read.
    pub async fn user(&self, id: Uuid) -> Result<Option<Arc<CachedUser>>> {
        let cache = self.replica.users();
        if let Some(user) = cache.get(id) {
            return Ok(Some(user));
        }
        if cache.is_known_absent(id) {
            return Ok(None);
        }
        let fill_guard = cache.fill_guard(id);
        // Boxed because this path is rare and its future is large; inline, it would enlarge the future of every
        // request.
        let found = Box::pin(self.core.read(async |conn| users::find(conn, id).await)).await;
        let found = found.map_err(|error| self.context_unavailable(&error))?;
        let user = found.map(|record| Arc::new(CachedUser::from(record)));
        match &user {
            Some(user) => cache.fill(fill_guard, user),
            None => cache.fill_absent(fill_guard, id),
        }
        Ok(user)
    }

    /// Returns the user with this e-mail address, from the cache or from the database.
    ///
    /// ASCII letters match in any case. Other letters must match exactly: an identity provider may distinguish
    /// mailboxes that the database considers equal, such as those of `k` and U+212A (Kelvin sign).
    ///
    /// # Errors
    /// [`ServiceError::ContextUnavailable`] if the user is not cached and the database cannot be read.
    pub async fn user_by_email(&self, email: &str) -> Result<Option<Arc<CachedUser>>> {
        let cache = self.replica.users();
        let key = email_key(email);
        let has_email = |user: &Arc<CachedUser>| user.email.eq_ignore_ascii_case(email);
        if let Some(id) = cache.id_by_email(&key)
            && let Some(user) = self.user(id).await?.filter(has_email)
        {
            return Ok(Some(user));
        }
        let found = Box::pin(self.core.read(async |conn| users::find_by_email(conn, email).await)).await;
        let Some(record) = found.map_err(|error| self.context_unavailable(&error))? else { return Ok(None) };
        cache.insert_email(key, record.id);
        Ok(self.user(record.id).await?.filter(has_email))
    }

    /// Logs a failed user lookup, at most once per second, because many requests and streams may fail at the same time.
    fn context_unavailable(&self, error: &ServiceError) -> ServiceError {
        let second = self.core.now().as_micros() / 1_000_000;
        if self.warned_at.swap(second, Ordering::Relaxed) != second {
            tracing::warn!(%error, "cannot read user from the database");
        }
        ServiceError::ContextUnavailable
    }

    /// Loads the users on whose behalf API tokens act into the cache, so that their first request needs no database
    /// query.
    pub async fn preload_token_users(&self) -> Result<()> {
        let ids = self.replica.read().token_users();
        for batch in ids.chunks(PRELOAD_BATCH_SIZE) {
            let fill_guards: Vec<_> = batch.iter().map(|id| (*id, self.replica.users().fill_guard(*id))).collect();
            for record in self.core.read(async |conn| users::find_all(conn, batch).await).await? {
                let fill_guard = fill_guards.iter().find(|(id, _)| *id == record.id);
                if let Some((_, fill_guard)) = fill_guard {
                    self.replica.users().fill(*fill_guard, &Arc::new(CachedUser::from(record)));
                }
            }
        }
        Ok(())
    }

    /// Returns the value of a flag for a user.
    ///
    /// # Errors
    /// [`ServiceError::NotFound`] if the user does not exist, or if the flag does not exist or has no result.
    pub async fn value_for_user(&self, flag_name: &str, user_id: Uuid) -> Result<Value> {
        let user = self.user(user_id).await?.ok_or(ServiceError::NotFound(ResourceKind::User))?;
        let view = self.replica.read();
        let evaluated = view.evaluate(flag_name, &*user, self.now());
        evaluated.map(|e| e.resolution.value.value().clone()).ok_or(ServiceError::NotFound(ResourceKind::Flag))
    }
}
