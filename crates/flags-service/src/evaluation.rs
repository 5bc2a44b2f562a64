//! What users get: the replica, the user's context, and `resolve`.

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

/// What a user gets of one flag.
#[derive(Clone, Copy, Debug)]
pub struct Evaluated<'v> {
    /// The flag.
    pub flag: &'v CompiledFlag,
    /// What they get, and why.
    pub resolution: Resolution<'v>,
    /// Their override, if it decided.
    pub user_override: Option<OverrideRef<'v>>,
    /// What they get once that override has ended, if it ends.
    pub then: Option<Resolution<'v>>,
}

/// Whom flags are evaluated for.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'s> {
    /// Whose overrides count; `None`: nobody's.
    pub user_id: Option<Uuid>,
    /// What rules and splits look at.
    pub context: &'s EvaluationContext,
}

impl<'s> From<&'s CachedUser> for Subject<'s> {
    fn from(user: &'s CachedUser) -> Self {
        Self { user_id: Some(user.id), context: &user.context }
    }
}

impl View<'_> {
    /// What the subject gets of every flag that is not archived, in order of the flags' names. A flag that could not be
    /// compiled gives no result unless an override stands in.
    pub fn evaluate_all<'s>(
        &self,
        subject: impl Into<Subject<'s>>,
        now: Instant,
    ) -> impl Iterator<Item = Evaluated<'_>> {
        self.evaluate_each(subject, now).filter_map(|(_, evaluated)| evaluated)
    }

    /// The same with the flags that give no result; [`CompiledFlag::failure`] says why.
    ///
    /// Flags and the subject's overrides are both in order of names, so they are walked side by side.
    pub fn evaluate_each<'s>(
        &self,
        subject: impl Into<Subject<'s>>,
        now: Instant,
    ) -> impl Iterator<Item = (&CompiledFlag, Option<Evaluated<'_>>)> {
        let subject = subject.into();
        let overrides = subject.user_id.into_iter().flat_map(|user_id| self.overrides_of(user_id));
        let mut overrides = overrides.peekable();
        self.flags().map(FlagState::compiled).filter(|flag| !flag.is_archived()).map(move |flag| {
            while overrides.next_if(|o| o.flag_name < flag.name()).is_some() {}
            let found = overrides.next_if(|o| o.flag_name == flag.name());
            (flag, evaluate(flag, subject, found, now))
        })
    }

    /// What the subject gets of one flag; `None` if it is not there or gives no result.
    pub fn evaluate<'s>(
        &self,
        flag_name: &str,
        subject: impl Into<Subject<'s>>,
        now: Instant,
    ) -> Option<Evaluated<'_>> {
        let subject = subject.into();
        let flag = self.flag(flag_name)?.compiled();
        let found = subject.user_id.and_then(|id| self.overrides_of(id).find(|o| o.flag_name == flag.name()));
        evaluate(flag, subject, found, now)
    }
}

/// What the subject gets of a flag, given their override of it, if they have one.
pub fn evaluate<'v, 's>(
    flag: &'v CompiledFlag,
    subject: impl Into<Subject<'s>>,
    found: Option<OverrideRef<'v>>,
    now: Instant,
) -> Option<Evaluated<'v>> {
    let context = subject.into().context;
    let resolution = resolve(flag, context, found.map(|o| o.view()), now)?;
    let decided = resolution.source == flags_domain::Source::Override;
    let user_override = found.filter(|_| decided);
    let end = user_override.and_then(|o| o.expires_at);
    let then = end.and_then(|end| resolve(flag, context, None, end));
    Some(Evaluated { flag, resolution, user_override, then })
}

/// Evaluates flags for users.
#[derive(Clone)]
pub struct Evaluation {
    core: Core,
    replica: Arc<Replica>,
    /// The second in which it was last said that users cannot be looked up.
    warned_at: Arc<AtomicI64>,
}

impl Evaluation {
    /// Evaluates by `replica`.
    pub fn new(core: Core, replica: Arc<Replica>) -> Self {
        Self { core, replica, warned_at: Arc::default() }
    }

    /// The replica.
    pub const fn replica(&self) -> &Arc<Replica> {
        &self.replica
    }

    /// What use cases share.
    pub(crate) const fn core(&self) -> &Core {
        &self.core
    }

    /// The present instant.
    pub fn now(&self) -> Instant {
        self.core.now()
    }

    /// Waits until `at` has come.
    pub async fn wait_until(&self, at: Instant) {
        self.core.wait_until(at).await;
    }

    /// What is known of a user, from memory if they were seen lately. While the database is down an unknown one is a
    /// [`ServiceError::ContextUnavailable`], never a guess.
    pub async fn user(&self, id: Uuid) -> Result<Option<Arc<CachedUser>>> {
        let cache = self.replica.users();
        if let Some(user) = cache.get(id) {
            return Ok(Some(user));
        }
        if cache.is_stranger(id) {
            return Ok(None);
        }
        let ticket = cache.ticket(id);
        // Boxed, as it is rare and large: each request would carry room for it.
        let found = Box::pin(self.core.read(async |conn| users::find(conn, id).await)).await;
        let found = found.map_err(|error| self.unavailable(&error))?;
        let user = found.map(|record| Arc::new(CachedUser::from(record)));
        match &user {
            Some(user) => cache.fill(ticket, user),
            None => cache.fill_stranger(ticket, id),
        }
        Ok(user)
    }

    /// What is known of the user who has this e-mail, in whatever case of its ASCII letters; from memory if they were seen
    /// lately. Letters beyond ASCII must be the same: whoever vouches for the e-mail may tell mailboxes apart that the
    /// database does not, such as those of `k` and of the sign for kelvin.
    pub async fn user_by_email(&self, email: &str) -> Result<Option<Arc<CachedUser>>> {
        let cache = self.replica.users();
        let key = email_key(email);
        let is_theirs = |user: &Arc<CachedUser>| user.email.eq_ignore_ascii_case(email);
        if let Some(id) = cache.id_of(&key)
            && let Some(user) = self.user(id).await?.filter(is_theirs)
        {
            return Ok(Some(user));
        }
        let found = Box::pin(self.core.read(async |conn| users::find_by_email(conn, email).await)).await;
        let Some(record) = found.map_err(|error| self.unavailable(&error))? else { return Ok(None) };
        cache.note_email(key, record.id);
        Ok(self.user(record.id).await?.filter(is_theirs))
    }

    fn unavailable(&self, error: &ServiceError) -> ServiceError {
        // At most one line a second: every stream and request may come here at once.
        let second = self.core.now().as_micros() / 1_000_000;
        if self.warned_at.swap(second, Ordering::Relaxed) != second {
            tracing::warn!(%error, "users cannot be looked up");
        }
        ServiceError::ContextUnavailable
    }

    /// Brings the users that API tokens act as into memory, as far as they fit, so that their first request needs no
    /// database.
    pub async fn warm_up(&self) -> Result<()> {
        let ids = self.replica.read().token_users();
        for part in ids.chunks(1_000) {
            let tickets: Vec<_> = part.iter().map(|id| (*id, self.replica.users().ticket(*id))).collect();
            for record in self.core.read(async |conn| users::find_all(conn, part).await).await? {
                let ticket = tickets.iter().find(|(id, _)| *id == record.id);
                if let Some((_, ticket)) = ticket {
                    self.replica.users().fill(*ticket, &Arc::new(CachedUser::from(record)));
                }
            }
        }
        Ok(())
    }

    /// The value that a user gets of a flag.
    pub async fn value_for_user(&self, flag_name: &str, user_id: Uuid) -> Result<Value> {
        let user = self.user(user_id).await?.ok_or(ServiceError::NotFound(ResourceKind::User))?;
        let view = self.replica.read();
        let evaluated = view.evaluate(flag_name, &*user, self.now());
        evaluated.map(|e| e.resolution.value.value().clone()).ok_or(ServiceError::NotFound(ResourceKind::Flag))
    }
}
