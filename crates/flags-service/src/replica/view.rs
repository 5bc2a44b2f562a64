//! The replica as a reader sees it.

use std::sync::Arc;

use flags_domain::{FlagState, Instant};
use flags_store::{api_tokens::TokenRecord, change_log::Revision};
use parking_lot::RwLockReadGuard;
use uuid::Uuid;

use super::{HeldOverride, OverrideRef, RecentCommit, State, override_index};

/// The replica at one revision.
pub struct View<'r>(pub(super) RwLockReadGuard<'r, State>);

impl<'r> View<'r> {
    pub(super) const fn new(state: RwLockReadGuard<'r, State>) -> Self {
        Self(state)
    }

    /// The revision.
    pub fn revision(&self) -> Revision {
        self.0.revision
    }

    /// How often everything was loaded anew.
    pub fn generation(&self) -> u64 {
        self.0.generation
    }

    /// All commits after `revision`, if they are still held.
    pub fn commits_after(&self, revision: i64) -> Option<impl Iterator<Item = &Arc<RecentCommit>>> {
        (revision <= self.0.revision.number).then(|| self.0.recent.after(revision))?
    }

    /// The flag of this name.
    pub fn flag(&self, name: &str) -> Option<&FlagState> {
        self.0.flags.get(name).map(|state| &**state)
    }

    /// The same, to go on with when the view is gone.
    pub fn held_flag(&self, name: &str) -> Option<Arc<FlagState>> {
        self.0.flags.get(name).cloned()
    }

    /// All flags with this user's overrides of them, in order of names, to go on with when the view is gone.
    pub fn held_flags(&self, user_id: Uuid) -> Vec<(Arc<FlagState>, Option<HeldOverride>)> {
        let mut overrides = self.overrides_of(user_id).peekable();
        let with_override = |state: &Arc<FlagState>| {
            while overrides.next_if(|o| *o.flag_name < state.flag().name).is_some() {}
            let found = overrides.next_if(|o| *o.flag_name == state.flag().name);
            (Arc::clone(state), found.map(HeldOverride::from))
        };
        self.0.flags.iter().map(with_override).collect()
    }

    /// All flags in order of their names, archived ones included.
    pub fn flags(&self) -> impl Iterator<Item = &FlagState> {
        self.0.flags.iter().map(|state| &**state)
    }

    /// How many flags there are, archived ones included.
    pub fn flag_count(&self) -> usize {
        self.0.flags.len()
    }

    /// How many scheduled changes are to come.
    pub fn count_pending_changes(&self, now: Instant) -> usize {
        let live = self.flags().filter(|state| !state.compiled().is_archived());
        let pending = |state: &FlagState| {
            let changes = state.schedule().iter();
            changes.filter(|change| change.cancelled_at.is_none() && change.scheduled_at > now).count()
        };
        live.map(pending).sum()
    }

    /// A user's overrides in order of the flags' names, whatever their status.
    pub fn overrides_of(&self, user_id: Uuid) -> impl Iterator<Item = OverrideRef<'_>> {
        self.0.overrides.of_user(user_id)
    }

    /// The part of the users with overrides that this one is in. There are some hundreds of parts, numbered from 0; together
    /// they are all users.
    pub fn part_of(user_id: Uuid) -> usize {
        override_index::shard(user_id)
    }

    /// The users with overrides in one part, by id; `None` after the last part.
    pub fn users_of_part(&self, part: usize) -> Option<Vec<Uuid>> {
        let mut users: Vec<_> = self.0.overrides.users_of_part(part)?.collect();
        users.sort_unstable();
        Some(users)
    }

    /// The token with this SHA-256.
    pub fn token(&self, hash: &[u8; 32]) -> Option<&TokenRecord> {
        self.0.tokens.get(hash)
    }

    /// Notes that the token with this SHA-256 was used.
    pub fn note_token_use(&self, hash: &[u8; 32], now: Instant) {
        self.0.tokens.note_use(hash, now);
    }

    /// The users that tokens act as.
    pub fn token_users(&self) -> Vec<Uuid> {
        self.0.tokens.users()
    }
}
