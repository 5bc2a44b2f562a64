//! Read access to the replica.

use std::sync::Arc;

use flags_domain::{Instant, Revision};
use parking_lot::RwLockReadGuard;
use uuid::Uuid;

use super::{RecentCommit, ReplicaSnapshot, ReplicaToken, state::ReplicaState};

/// The replica's state at one revision.
///
/// A view holds the replica's read lock, so it offers only short operations. Flags are available
/// only through [`into_snapshot`](Self::into_snapshot), which releases the lock.
pub struct View<'r>(RwLockReadGuard<'r, ReplicaState>);

impl<'r> View<'r> {
    pub(super) const fn new(state: RwLockReadGuard<'r, ReplicaState>) -> Self {
        Self(state)
    }

    /// Releases the lock and returns the flags and the overrides of a user. An anonymous context
    /// (`None`) has no overrides. Takes time proportional to the number of overrides.
    pub fn into_snapshot(self, user_id: Option<Uuid>) -> ReplicaSnapshot {
        let state = &self.0;
        ReplicaSnapshot {
            revision: state.revision,
            generation: state.generation,
            flags: Arc::clone(&state.flags),
            user_id,
            overrides: user_id.into_iter().flat_map(|id| state.overrides.of_user(id)).collect(),
        }
    }

    /// Revision of the state.
    pub fn revision(&self) -> Revision {
        self.0.revision
    }

    /// Number of reloads since the process started. Changes between two views with different generations are unknown.
    pub fn generation(&self) -> u64 {
        self.0.generation
    }

    /// Returns all commits after `revision`, or `None` if some of them are no longer in the recent changes buffer or
    /// `revision` lies in the future.
    pub fn commits_after(&self, revision: i64) -> Option<Vec<Arc<RecentCommit>>> {
        let commits = (revision <= self.0.revision.number).then(|| self.0.recent_changes.after(revision))??;
        Some(commits.cloned().collect())
    }

    /// Returns the index of the shard that contains a user. Shards are numbered from 0 and partition the users with
    /// overrides.
    pub fn shard_of(&self, user_id: Uuid) -> usize {
        self.0.overrides.users().shard_of(user_id)
    }

    /// Returns the users with overrides in a shard, sorted by id, or `None` if there is no such shard.
    pub fn users_in_shard(&self, shard: usize) -> Option<Vec<Uuid>> {
        let mut users: Vec<_> = self.0.overrides.users().in_shard(shard)?.collect();
        users.sort_unstable();
        Some(users)
    }

    /// Returns the unrevoked API token whose secret has this SHA-256 hash. Compares in constant time.
    pub fn token(&self, hash: &[u8; 32]) -> Option<&ReplicaToken> {
        self.0.tokens.get(hash)
    }

    /// Records a use of the token whose secret has this SHA-256 hash. Does nothing if there is no
    /// such token.
    pub fn record_token_use(&self, hash: &[u8; 32], now: Instant) {
        self.0.tokens.record_use(hash, now);
    }

    /// Returns the ids of the users on whose behalf tokens act.
    pub fn token_users(&self) -> Vec<Uuid> {
        self.0.tokens.users()
    }
}
