//! Evaluation of flags for users, based on the replica and the user cache.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
};

use flags_domain::{EvaluationBudget, EvaluationContext, Instant, email_key};
use serde_json::{Map, Value};
use uuid::Uuid;

pub use crate::replica::{EvaluatedFlag, evaluate};
use crate::{
    clock::Clock,
    error::{ResourceKind, Result, ServiceError},
    replica::{CachedUser, Replica},
};

/// Number of users read per query while preloading.
const PRELOAD_BATCH_SIZE: usize = 1_000;

/// Future of a user lookup.
///
/// Boxed because lookups are rare and their futures are large; inline, they would enlarge the future of every request.
pub type UserLookup<'a, T> = Pin<Box<dyn Future<Output = Result<T>> + Send + 'a>>;

/// Source of users that are not in the cache, such as the database.
pub trait UserSource: Send + Sync + 'static {
    /// Returns the user with this id. Fails with [`ServiceError::UserUnreadable`] if the user cannot be read.
    fn find(&self, id: Uuid) -> UserLookup<'_, Option<CachedUser>>;

    /// Returns the user with this e-mail address, compared by [`email_key`]. Fails like [`find`](Self::find).
    fn find_by_email<'a>(&'a self, email: &'a str) -> UserLookup<'a, Option<CachedUser>>;

    /// Returns the users with these ids. Omits unknown ids and users that cannot be read.
    fn find_all<'a>(&'a self, ids: &'a [Uuid]) -> UserLookup<'a, Vec<CachedUser>>;
}

/// Result of looking a user up.
#[derive(Clone, Debug)]
pub enum FoundUser {
    /// The stored user, active or not.
    Stored(Arc<CachedUser>),
    /// No such user is stored.
    Absent,
    /// The row of the user cannot be read.
    Unreadable,
}

impl FoundUser {
    /// Returns the stored user. `None` if the user does not exist or cannot be read.
    pub fn stored(self) -> Option<Arc<CachedUser>> {
        match self {
            Self::Stored(user) => Some(user),
            Self::Absent | Self::Unreadable => None,
        }
    }
}

/// User that an evaluation key belongs to.
#[derive(Clone, Debug)]
pub struct ResolvedKey {
    /// Id under which overrides are stored. Set even if no such user is stored.
    pub user_id: Uuid,
    /// The user.
    pub user: FoundUser,
}

impl ResolvedKey {
    /// Returns the context of the active user or, without one, the anonymous context of `key`. `key` must be the key
    /// that was resolved. A user keeps its evaluation key while it is inactive.
    pub fn context(&self, key: &str) -> EvaluationContext {
        match &self.user {
            FoundUser::Stored(user) if user.active => user.context.clone(),
            FoundUser::Stored(user) => {
                let key = user.context.evaluation_key().unwrap_or(key);
                EvaluationContext::anonymous_user(key, self.user_id, Map::new())
            }
            FoundUser::Absent | FoundUser::Unreadable => {
                EvaluationContext::anonymous_user(key, self.user_id, Map::new())
            }
        }
    }

    /// Whether the user is stored and inactive.
    pub fn is_inactive(&self) -> bool {
        matches!(&self.user, FoundUser::Stored(user) if !user.active)
    }
}

/// Evaluates flags for users and provides their evaluation contexts.
#[derive(Clone)]
pub struct Evaluation {
    clock: Arc<dyn Clock>,
    source: Arc<dyn UserSource>,
    replica: Arc<Replica>,
    /// Time of the last warning about a failed user lookup, in seconds since the Unix epoch.
    warned_at: Arc<AtomicI64>,
}

impl Evaluation {
    /// Creates a service that evaluates flags from `replica` and reads uncached users from `source`.
    pub fn new(clock: Arc<dyn Clock>, source: Arc<dyn UserSource>, replica: Arc<Replica>) -> Self {
        Self { clock, source, replica, warned_at: Arc::default() }
    }

    /// The replica that evaluation reads.
    pub const fn replica(&self) -> &Arc<Replica> {
        &self.replica
    }

    /// Current instant of the clock.
    pub fn now(&self) -> Instant {
        self.clock.now()
    }

    /// Waits until the clock reaches `at`.
    pub async fn wait_until(&self, at: Instant) {
        self.clock.wait_until(at).await;
    }

    /// Returns a user from the cache or from the source of users. Returns `None` if the user does
    /// not exist or the user's row cannot be decoded.
    ///
    /// # Errors
    /// [`ServiceError::ContextUnavailable`] if the user is not cached and the source cannot be
    /// read.
    pub async fn user(&self, id: Uuid) -> Result<Option<Arc<CachedUser>>> {
        Ok(self.find_user(id).await?.stored())
    }

    /// Looks a user up in the cache or in the source of users.
    ///
    /// # Errors
    /// [`ServiceError::ContextUnavailable`] if the user is not cached and the source cannot be read.
    pub async fn find_user(&self, id: Uuid) -> Result<FoundUser> {
        let cache = self.replica.users();
        if let Some(user) = cache.get(id) {
            return Ok(FoundUser::Stored(user));
        }
        if cache.is_known_absent(id) {
            return Ok(FoundUser::Absent);
        }
        let fill_guard = cache.fill_guard(id);
        let found = match self.source.find(id).await {
            // The cache must not record this user as absent: the row may be repaired without a change in the change
            // log.
            Err(ServiceError::UserUnreadable) => return Ok(FoundUser::Unreadable),
            result => result.map_err(|error| self.context_unavailable(&error))?,
        };
        Ok(match found.map(Arc::new) {
            Some(user) => {
                cache.fill(fill_guard, &user);
                FoundUser::Stored(user)
            }
            None => {
                cache.fill_absent(fill_guard, id);
                FoundUser::Absent
            }
        })
    }

    /// Returns the user with this e-mail address, from the cache or from the source of users. Addresses are compared by
    /// [`email_key`]; a user with exactly this spelling has priority.
    ///
    /// # Errors
    /// [`ServiceError::ContextUnavailable`] if the user is not cached and the source cannot be read.
    pub async fn user_by_email(&self, email: &str) -> Result<Option<Arc<CachedUser>>> {
        let cache = self.replica.users();
        if let Some(id) = cache.id_by_email(email)
            && let Some(user) = self.user(id).await?.filter(|user| has_email(user, email))
        {
            return Ok(Some(user));
        }
        let found = match self.source.find_by_email(email).await {
            Err(ServiceError::UserUnreadable) => return Ok(None),
            result => result.map_err(|error| self.context_unavailable(&error))?,
        };
        let Some(found) = found else { return Ok(None) };
        cache.insert_email(email.to_owned(), found.id);
        Ok(self.user(found.id).await?.filter(|user| has_email(user, email)))
    }

    /// Resolves an evaluation key to a user. If the key is a UUID, in any spelling, and a stored user has this id, the
    /// key belongs to that user. Every other key is treated as an external id.
    ///
    /// # Errors
    /// [`ServiceError::ContextUnavailable`] if the user is not cached and the source cannot be read.
    pub async fn resolve_key(&self, key: &str) -> Result<ResolvedKey> {
        if let Ok(id) = Uuid::try_parse(key) {
            let user = self.find_user(id).await?;
            if !matches!(user, FoundUser::Absent) {
                return Ok(ResolvedKey { user_id: id, user });
            }
        }
        let external = self.replica.external_user_id(key);
        let user = if external.may_exist { self.find_user(external.id).await? } else { FoundUser::Absent };
        Ok(ResolvedKey { user_id: external.id, user })
    }

    /// Logs a failed user lookup, at most once per second, because many requests and streams may fail at the same time.
    fn context_unavailable(&self, error: &ServiceError) -> ServiceError {
        let second = self.clock.now().as_micros() / 1_000_000;
        if self.warned_at.swap(second, Ordering::Relaxed) != second {
            tracing::warn!(%error, "cannot read user from the database");
        }
        ServiceError::ContextUnavailable
    }

    /// Fills the user cache with the users on whose behalf API tokens act, so that their first
    /// request needs no lookup.
    pub async fn preload_token_users(&self) -> Result<()> {
        let ids = self.replica.read().token_users();
        for batch in ids.chunks(PRELOAD_BATCH_SIZE) {
            let fill_guards: Vec<_> = batch.iter().map(|id| (*id, self.replica.users().fill_guard(*id))).collect();
            for user in self.source.find_all(batch).await? {
                let fill_guard = fill_guards.iter().find(|(id, _)| *id == user.id);
                if let Some((_, fill_guard)) = fill_guard {
                    self.replica.users().fill(*fill_guard, &Arc::new(user));
                }
            }
        }
        Ok(())
    }

    /// Reads users from the source of users. Does not fill the user cache, so that a search does
    /// not evict users that send requests.
    pub(crate) async fn read_users(&self, ids: &[Uuid]) -> Result<Vec<CachedUser>> {
        self.source.find_all(ids).await
    }

    /// Returns the value of a flag for a user.
    ///
    /// # Errors
    /// [`ServiceError::NotFound`] if the user does not exist, or if the flag does not exist or has
    /// no evaluation result.
    pub async fn value_for_user(&self, flag_name: &str, user_id: Uuid) -> Result<Value> {
        let user = self.user(user_id).await?.ok_or(ServiceError::NotFound(ResourceKind::User))?;
        let snapshot = self.replica.snapshot(Some(user_id));
        let evaluated = snapshot.evaluate(flag_name, &user.context, self.now(), &mut EvaluationBudget::default());
        evaluated.map(|e| e.resolution.value.value().clone()).ok_or(ServiceError::NotFound(ResourceKind::Flag))
    }
}

fn has_email(user: &CachedUser, email: &str) -> bool {
    user.email.as_deref().is_some_and(|own| email_key(own) == email_key(email))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;
    use crate::{
        ManualClock,
        replica::{DatabaseKeys, LoadedState, ShardKey},
    };
    use flags_domain::{Revision, Role, Snapshot, UserIdNamespace};

    /// A source with one user, which counts its lookups.
    #[derive(Default)]
    struct OneUser {
        lookups: AtomicUsize,
    }

    const KIM: Uuid = Uuid::from_u128(1);

    impl OneUser {
        fn users(&self, is_match: impl Fn(&CachedUser) -> bool) -> Vec<CachedUser> {
            self.lookups.fetch_add(1, Ordering::Relaxed);
            let email = "Kim@example.com";
            let context = EvaluationContext::anonymous(&KIM.to_string(), Map::new());
            let kim = CachedUser { id: KIM, role: Role::User, active: true, email: Some(email.into()), context };
            [kim].into_iter().filter(|user| is_match(user)).collect()
        }
    }

    impl UserSource for OneUser {
        fn find(&self, id: Uuid) -> UserLookup<'_, Option<CachedUser>> {
            Box::pin(async move { Ok(self.users(|user| user.id == id).pop()) })
        }

        fn find_by_email<'a>(&'a self, email: &'a str) -> UserLookup<'a, Option<CachedUser>> {
            Box::pin(async move {
                Ok({
                    let key = email.to_lowercase();
                    self.users(|user| user.email.as_deref().is_some_and(|own| own.to_lowercase() == key)).pop()
                })
            })
        }

        fn find_all<'a>(&'a self, ids: &'a [Uuid]) -> UserLookup<'a, Vec<CachedUser>> {
            Box::pin(async move { Ok(self.users(|user| ids.contains(&user.id))) })
        }
    }

    fn evaluation(source: &Arc<OneUser>) -> Evaluation {
        let revision = Revision { epoch: Uuid::nil(), number: 0 };
        let replica = Replica::new(LoadedState::new(
            revision,
            Snapshot::default(),
            Vec::new(),
            Vec::new(),
            DatabaseKeys { shards: ShardKey::new(&[0; 16]), user_ids: UserIdNamespace::new([0; 16]) },
        ));
        let clock = Arc::new(ManualClock::new(Instant::from_micros(0)));
        Evaluation::new(clock, Arc::clone(source) as _, Arc::new(replica))
    }

    #[tokio::test]
    async fn looks_up_each_user_once() {
        let source = Arc::new(OneUser::default());
        let evaluation = evaluation(&source);
        for _ in 0..3 {
            assert_eq!(evaluation.user(KIM).await.unwrap().unwrap().id, KIM);
            assert!(evaluation.user(Uuid::from_u128(2)).await.unwrap().is_none());
        }
        assert_eq!(source.lookups.load(Ordering::Relaxed), 2);
    }

    #[tokio::test]
    async fn finds_users_by_email_in_any_case_and_normalization() {
        let evaluation = evaluation(&Arc::default());
        for email in ["kim@example.com", "KIM@EXAMPLE.COM", "\u{212a}im@example.com", "kim@example.com"] {
            assert_eq!(evaluation.user_by_email(email).await.unwrap().unwrap().id, KIM, "{email}");
        }
        assert!(evaluation.user_by_email("ann@example.com").await.unwrap().is_none());
    }
}
