//! Read access to the replica.

use std::{collections::BTreeMap, sync::Arc};

use flags_domain::{FlagName, FlagState, Instant, Revision};
use parking_lot::RwLockReadGuard;
use uuid::Uuid;

use super::{OverrideRef, OwnedOverride, RecentCommit, ReplicaToken, state::ReplicaState};

/// The replica's state at one revision. Holds the replica's read lock.
pub struct View<'r>(pub(super) RwLockReadGuard<'r, ReplicaState>);

impl<'r> View<'r> {
    pub(super) const fn new(state: RwLockReadGuard<'r, ReplicaState>) -> Self {
        Self(state)
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
    pub fn commits_after(&self, revision: i64) -> Option<impl Iterator<Item = &Arc<RecentCommit>>> {
        (revision <= self.0.revision.number).then(|| self.0.recent_changes.after(revision))?
    }

    /// Returns the flag with this name.
    pub fn flag(&self, name: &str) -> Option<&FlagState> {
        self.0.flags.get(name).map(|state| &**state)
    }

    /// Like [`flag`](Self::flag), but the result can outlive the view.
    pub fn cloned_flag(&self, name: &str) -> Option<Arc<FlagState>> {
        self.0.flags.get(name).cloned()
    }

    /// Returns all flags in order of their names, each with the user's override. The result can outlive the view.
    pub fn cloned_flags_with_overrides(&self, user_id: Uuid) -> Vec<(Arc<FlagState>, Option<OwnedOverride>)> {
        let mut overrides = self.overrides_of(user_id).peekable();
        let with_override = |state: &Arc<FlagState>| {
            while overrides.next_if(|o| o.flag_name < state.name()).is_some() {}
            let user_override = overrides.next_if(|o| o.flag_name == state.name());
            (Arc::clone(state), user_override.map(OwnedOverride::from))
        };
        self.0.flags.iter().map(with_override).collect()
    }

    /// Returns all flags in order of their names, including archived flags.
    pub fn flags(&self) -> impl Iterator<Item = &FlagState> {
        self.0.flags.iter().map(|state| &**state)
    }

    /// Number of flags, including archived flags.
    pub fn flag_count(&self) -> usize {
        self.0.flags.len()
    }

    /// Returns the flags whose definition cannot be read or compiled, each with the reason.
    pub fn unreadable_flags(&self) -> BTreeMap<FlagName, String> {
        let failed = self.flags().filter_map(|flag| Some((flag, flag.compiled().compile_error()?)));
        failed.map(|(flag, error)| (flag.name().clone(), error.to_string())).collect()
    }

    /// Counts the pending scheduled changes of flags that are not archived.
    pub fn count_pending_changes(&self, now: Instant) -> usize {
        let flags = self.flags().filter(|state| !state.compiled().is_archived());
        let changes = flags.flat_map(|state| state.schedule());
        changes.filter(|change| change.cancelled_at.is_none() && change.scheduled_at > now).count()
    }

    /// Returns a user's overrides in order of flag names, regardless of their status.
    pub fn overrides_of(&self, user_id: Uuid) -> impl Iterator<Item = OverrideRef<'_>> {
        self.0.overrides.of_user(user_id)
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

    /// Records a use of the token whose secret has this SHA-256 hash. Does nothing if there is none.
    pub fn record_token_use(&self, hash: &[u8; 32], now: Instant) {
        self.0.tokens.record_use(hash, now);
    }

    /// Returns the ids of the users on whose behalf tokens act.
    pub fn token_users(&self) -> Vec<Uuid> {
        self.0.tokens.users()
    }
}
