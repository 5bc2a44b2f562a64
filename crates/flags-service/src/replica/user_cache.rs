//! Users seen lately, so that evaluation need not ask the database who somebody is.

use std::{hash::BuildHasher, sync::Arc};

use flags_domain::EvaluationContext;
use flags_store::users::{Role, UserRecord};
use parking_lot::Mutex;
use quick_cache::sync::Cache;
use rustc_hash::FxBuildHasher;
use uuid::Uuid;

/// Most users held.
const CAPACITY: usize = 1_000_000;
/// Most ids held that are no user's.
const STRANGER_CAPACITY: usize = 200_000;
/// Most e-mails whose users are held: only issuers that name users by them need any.
const EMAIL_CAPACITY: usize = 100_000;
/// Users share this many counters of changes.
const SHARDS: usize = 64;

/// What evaluation and permission need of a user.
#[derive(Debug)]
pub struct CachedUser {
    /// Their id.
    pub id: Uuid,
    /// What they may do.
    pub role: Role,
    /// An inactive user is nobody.
    pub active: bool,
    /// Their e-mail as written.
    pub email: Box<str>,
    /// Who flags are evaluated for.
    pub context: EvaluationContext,
}

impl From<UserRecord> for CachedUser {
    fn from(user: UserRecord) -> Self {
        let context =
            EvaluationContext::user(user.id, &user.email, user.role.as_str(), user.created_at, user.attributes);
        Self { id: user.id, role: user.role, active: user.active, email: user.email.into(), context }
    }
}

/// A bounded cache of users, filled on demand and emptied by the log.
///
/// A fill reads the database and may be overtaken by a change: it takes a [`FillGuard`] before it reads, and what it read is
/// kept only if the log has named no user of the same shard since.
#[derive(Debug)]
pub struct UserCache {
    users: Cache<Uuid, Arc<CachedUser>>,
    /// Ids that are no user's: applications may know their visitors by UUIDs as well. Apart, so that they drive no user out.
    strangers: Cache<Uuid, ()>,
    /// Who had an e-mail when that was last looked up. Nobody empties it: whoever reads it compares with what the user has.
    by_email: Cache<String, Uuid>,
    changes: [Mutex<u64>; SHARDS],
}

/// The state of the log, as far as it concerns a user, when a fill began.
#[derive(Clone, Copy, Debug)]
pub struct FillGuard(u64);

impl Default for UserCache {
    fn default() -> Self {
        Self {
            users: Cache::new(CAPACITY),
            strangers: Cache::new(STRANGER_CAPACITY),
            by_email: Cache::new(EMAIL_CAPACITY),
            changes: std::array::from_fn(|_| Mutex::new(0)),
        }
    }
}

impl UserCache {
    /// The user, if they are at hand.
    pub fn get(&self, id: Uuid) -> Option<Arc<CachedUser>> {
        self.users.get(&id)
    }

    /// Whether this is known to be no user's id.
    pub fn is_stranger(&self, id: Uuid) -> bool {
        self.strangers.get(&id).is_some()
    }

    /// To be taken before the database is read.
    pub fn ticket(&self, id: Uuid) -> FillGuard {
        FillGuard(*self.shard(id).lock())
    }

    /// Keeps what was read, unless the log has overtaken it.
    pub fn fill(&self, ticket: FillGuard, user: &Arc<CachedUser>) {
        let changes = self.shard(user.id).lock();
        if *changes == ticket.0 {
            self.users.insert(user.id, Arc::clone(user));
        }
    }

    /// Keeps that there is no such user, unless the log has overtaken it.
    pub fn fill_stranger(&self, ticket: FillGuard, id: Uuid) {
        let changes = self.shard(id).lock();
        if *changes == ticket.0 {
            self.strangers.insert(id, ());
        }
    }

    /// Who had this e-mail when that was last looked up; they may have another one by now.
    pub(crate) fn id_of(&self, email_key: &str) -> Option<Uuid> {
        self.by_email.get(email_key)
    }

    /// Notes who has an e-mail.
    pub(crate) fn note_email(&self, email_key: String, id: Uuid) {
        self.by_email.insert(email_key, id);
    }

    /// Drops a user whom the log names.
    pub(super) fn forget(&self, id: Uuid) {
        let mut changes = self.shard(id).lock();
        *changes += 1;
        self.users.remove(&id);
        self.strangers.remove(&id);
    }

    /// Drops everybody.
    pub(super) fn forget_all(&self) {
        for shard in &self.changes {
            *shard.lock() += 1;
        }
        self.users.clear();
        self.strangers.clear();
    }

    fn shard(&self, id: Uuid) -> &Mutex<u64> {
        &self.changes[usize::try_from(FxBuildHasher.hash_one(id)).unwrap_or_default() % SHARDS]
    }
}

#[cfg(test)]
mod tests {
    use flags_domain::Instant;
    use serde_json::Map;

    use super::*;

    fn user(id: u128) -> Arc<CachedUser> {
        let id = Uuid::from_u128(id);
        let context = EvaluationContext::user(id, "a@b.c", "user", Instant::from_micros(0), Map::new());
        Arc::new(CachedUser { id, role: Role::User, active: true, email: "a@b.c".into(), context })
    }

    #[test]
    fn a_fill_that_was_overtaken_is_thrown_away() {
        let cache = UserCache::default();
        let (one, two) = (user(1), user(2));
        let ticket = cache.ticket(one.id);
        cache.forget(one.id);
        cache.fill(ticket, &one);
        assert!(cache.get(one.id).is_none());
        cache.fill(cache.ticket(two.id), &two);
        assert!(cache.get(two.id).is_some());
        let ticket = cache.ticket(one.id);
        cache.forget_all();
        cache.fill(ticket, &one);
        assert!(cache.get(one.id).is_none() && cache.get(two.id).is_none());
    }

    #[test]
    fn nobody_stays_a_stranger_whom_the_log_names() {
        let cache = UserCache::default();
        let id = Uuid::from_u128(1);
        let ticket = cache.ticket(id);
        cache.fill_stranger(ticket, id);
        assert!(cache.is_stranger(id));
        cache.forget(id);
        assert!(!cache.is_stranger(id));
        cache.fill_stranger(ticket, id);
        assert!(!cache.is_stranger(id), "overtaken by the log");
        cache.fill_stranger(cache.ticket(id), id);
        cache.forget_all();
        assert!(!cache.is_stranger(id));
    }
}
