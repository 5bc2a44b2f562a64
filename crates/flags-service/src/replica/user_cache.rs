//! Cache of users, so that most evaluations need no database query.

use std::{
    hash::{BuildHasher as _, RandomState},
    sync::Arc,
};

use flags_domain::{EvaluationContext, Role};
use parking_lot::Mutex;
use quick_cache::sync::Cache;
use uuid::Uuid;

/// Maximum number of cached users.
const USER_CAPACITY: usize = 1_000_000;
/// Maximum number of cached ids that belong to no user.
const ABSENT_ID_CAPACITY: usize = 200_000;
/// Maximum number of cached e-mail addresses. The cache has entries only if JWTs identify users by
/// e-mail address.
const EMAIL_CAPACITY: usize = 100_000;
/// Number of shards. Each shard has its own invalidation counter.
const SHARDS: usize = 64;

/// Fields of a user that evaluation and authorization need.
#[derive(Debug)]
pub struct CachedUser {
    /// Id of the user.
    pub id: Uuid,
    /// Role, which determines the permissions.
    pub role: Role,
    /// Whether the user is active. Inactive users cannot authenticate.
    pub active: bool,
    /// E-mail address as entered.
    pub email: Option<Box<str>>,
    /// Evaluation context.
    pub context: EvaluationContext,
}

/// A bounded cache of users, filled on demand and invalidated by the change feed.
///
/// The user may change while a reader fetches it from the database. To keep stale data out of the cache, a reader takes
/// a [`FillGuard`] before the query. The cache then stores the result only if no user of the same shard was invalidated
/// in the meantime.
#[derive(Debug)]
pub struct UserCache {
    users: Cache<Uuid, Arc<CachedUser>>,
    /// Ids that belong to no user, such as UUIDs that clients use as keys of anonymous contexts.
    /// Cached separately, so that these ids do not evict users.
    absent_ids: Cache<Uuid, ()>,
    /// User id found by the last lookup of an e-mail address, as spelled in the request. Entries
    /// are never invalidated, so the reader must compare the address with the user's current
    /// address.
    by_email: Cache<String, Uuid>,
    /// Number of invalidations per shard.
    invalidations: [Mutex<u64>; SHARDS],
    /// Determines a user's shard. Each process has a different random key.
    shard_hasher: RandomState,
}

/// Cache fill guard: the invalidation count of a user's shard before the user was read from the database.
#[derive(Clone, Copy, Debug)]
pub struct FillGuard(u64);

impl Default for UserCache {
    fn default() -> Self {
        Self {
            users: Cache::new(USER_CAPACITY),
            absent_ids: Cache::new(ABSENT_ID_CAPACITY),
            by_email: Cache::new(EMAIL_CAPACITY),
            invalidations: std::array::from_fn(|_| Mutex::new(0)),
            shard_hasher: RandomState::new(),
        }
    }
}

impl UserCache {
    /// Returns the user if it is cached.
    pub fn get(&self, id: Uuid) -> Option<Arc<CachedUser>> {
        self.users.get(&id)
    }

    /// Whether the cache has stored that no user has this id.
    pub fn is_known_absent(&self, id: Uuid) -> bool {
        self.absent_ids.get(&id).is_some()
    }

    /// Returns a guard for a fill. Must be called before the user is read from the database.
    pub fn fill_guard(&self, id: Uuid) -> FillGuard {
        FillGuard(*self.shard(id).lock())
    }

    /// Stores a user, unless its shard was invalidated since `guard` was taken.
    pub fn fill(&self, guard: FillGuard, user: &Arc<CachedUser>) {
        let invalidations = self.shard(user.id).lock();
        if *invalidations == guard.0 {
            self.users.insert(user.id, Arc::clone(user));
        }
    }

    /// Stores that no user has this id, unless its shard was invalidated since `guard` was taken.
    pub fn fill_absent(&self, guard: FillGuard, id: Uuid) {
        let invalidations = self.shard(id).lock();
        if *invalidations == guard.0 {
            self.absent_ids.insert(id, ());
        }
    }

    /// Returns the id that the last lookup of this e-mail address found. The user may have a
    /// different address by now.
    pub(crate) fn id_by_email(&self, email: &str) -> Option<Uuid> {
        self.by_email.get(email)
    }

    /// Stores the id of the user that has this e-mail address.
    pub(crate) fn insert_email(&self, email: String, id: Uuid) {
        self.by_email.insert(email, id);
    }

    /// Removes what is cached about a user that was created, changed or deleted.
    pub(super) fn invalidate(&self, id: Uuid) {
        let mut invalidations = self.shard(id).lock();
        *invalidations += 1;
        self.users.remove(&id);
        self.absent_ids.remove(&id);
    }

    /// Removes all cached users and absent ids.
    pub(super) fn clear(&self) {
        for shard in &self.invalidations {
            *shard.lock() += 1;
        }
        self.users.clear();
        self.absent_ids.clear();
    }

    fn shard(&self, id: Uuid) -> &Mutex<u64> {
        &self.invalidations[self.shard_hasher.hash_one(id) as usize % SHARDS]
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Map;

    use super::*;

    fn user(id: u128) -> Arc<CachedUser> {
        let id = Uuid::from_u128(id);
        let context = EvaluationContext::anonymous(&id.to_string(), Map::new());
        Arc::new(CachedUser { id, role: Role::User, active: true, email: None, context })
    }

    #[test]
    fn ignores_a_fill_after_an_invalidation() {
        let cache = UserCache::default();
        let (first, second) = (user(1), user(2));
        let guard = cache.fill_guard(first.id);
        cache.invalidate(first.id);
        cache.fill(guard, &first);
        assert!(cache.get(first.id).is_none());
        cache.fill(cache.fill_guard(second.id), &second);
        assert!(cache.get(second.id).is_some());
        let guard = cache.fill_guard(first.id);
        cache.clear();
        cache.fill(guard, &first);
        assert!(cache.get(first.id).is_none() && cache.get(second.id).is_none());
    }

    #[test]
    fn invalidation_removes_absent_ids_and_ignores_late_fills() {
        let cache = UserCache::default();
        let id = Uuid::from_u128(1);
        let guard = cache.fill_guard(id);
        cache.fill_absent(guard, id);
        assert!(cache.is_known_absent(id));
        cache.invalidate(id);
        assert!(!cache.is_known_absent(id));
        cache.fill_absent(guard, id);
        assert!(!cache.is_known_absent(id), "the guard is outdated");
        cache.fill_absent(cache.fill_guard(id), id);
        cache.clear();
        assert!(!cache.is_known_absent(id));
    }
}
