//! The state that evaluation reads, in memory, fed by the log.
//!
//! One lock over everything: a reader sees all of one revision, and a commit appears whole or not at all. The feed
//! compiles before it takes the lock, and holds it only while it changes the entries that a commit touches.

mod interner;
mod override_index;
mod user_cache;

use std::{
    collections::BTreeMap,
    time::{Duration, Instant as Moment},
};

use flags_domain::{Change, FlagName, FlagState, Instant, Snapshot, UserOverride};
use flags_store::{credentials::TokenRecord, log::Revision};
use parking_lot::{RwLock, RwLockReadGuard};
use rustc_hash::FxHashMap;
use tokio::{sync::watch, time::timeout};
use uuid::Uuid;

use self::override_index::OverrideIndex;
pub use self::override_index::OverrideRef;
pub use self::user_cache::{KnownUser, Ticket, UserCache};

/// Answers are called stale once the database has not been read for so long.
pub const STALE_AFTER: Duration = Duration::from_secs(5);

/// The replica of one process.
#[derive(Debug)]
pub struct Replica {
    state: RwLock<State>,
    /// Where the replica stands, for those who wait.
    position: watch::Sender<Revision>,
    last_read: RwLock<Moment>,
    users: UserCache,
}

#[derive(Debug)]
struct State {
    revision: Revision,
    flags: Snapshot,
    overrides: OverrideIndex,
    tokens: FxHashMap<[u8; 32], TokenRecord>,
}

/// Everything the replica holds, as read from the database at one revision.
#[derive(Debug)]
pub struct Loaded {
    revision: Revision,
    flags: Snapshot,
    overrides: OverrideIndex,
    tokens: Vec<TokenRecord>,
}

impl Loaded {
    /// Flags and tokens at `revision`, and no overrides yet.
    pub fn new(revision: Revision, flags: Snapshot, tokens: Vec<TokenRecord>) -> Self {
        Self { revision, flags, overrides: OverrideIndex::default(), tokens }
    }

    /// Adds an override.
    pub fn add(&mut self, user_override: &UserOverride) {
        self.overrides.set(user_override);
    }
}

impl From<Loaded> for State {
    fn from(loaded: Loaded) -> Self {
        let tokens = loaded.tokens.into_iter().map(|token| (token.hash, token)).collect();
        Self { revision: loaded.revision, flags: loaded.flags, overrides: loaded.overrides, tokens }
    }
}

/// All changes of one revision, and the present state of the tokens they name.
#[derive(Debug)]
pub struct Commit {
    /// The revision they bring the replica to.
    pub revision: Revision,
    /// The changes, in order.
    pub changes: Vec<Change>,
    /// The tokens that `changes` name, as far as they are still there.
    pub tokens: Vec<TokenRecord>,
}

impl Replica {
    /// A replica of what was loaded.
    pub fn new(loaded: Loaded) -> Self {
        let (position, _) = watch::channel(loaded.revision);
        let last_read = RwLock::new(Moment::now());
        Self { state: RwLock::new(loaded.into()), position, last_read, users: UserCache::default() }
    }

    /// The users seen lately.
    pub const fn users(&self) -> &UserCache {
        &self.users
    }

    /// Everything as of one revision. Hold it for microseconds only, and never across an await.
    pub fn read(&self) -> View<'_> {
        View(self.state.read())
    }

    /// Where the replica stands.
    pub fn revision(&self) -> Revision {
        *self.position.borrow()
    }

    /// Waits until the replica has reached `revision`; `false` if it does not within `limit`.
    pub async fn wait_for(&self, revision: Revision, limit: Duration) -> bool {
        let mut position = self.position.subscribe();
        let reached = position.wait_for(|at| at.epoch == revision.epoch && at.number >= revision.number);
        matches!(timeout(limit, reached).await, Ok(Ok(_)))
    }

    /// How long ago the database was last read.
    pub fn age(&self) -> Duration {
        self.last_read.read().elapsed()
    }

    /// Whether the database has not been read for [`STALE_AFTER`].
    pub fn is_stale(&self) -> bool {
        self.age() >= STALE_AFTER
    }

    /// How many overrides of each unarchived flag are active at `now`.
    pub fn count_active(&self, now: Instant) -> BTreeMap<FlagName, u64> {
        let mut state = self.state.write();
        let mut counts = state.overrides.count_active(now);
        counts.retain(|name, _| state.flags.get(name).is_some_and(|flag| !flag.compiled().is_archived()));
        counts
    }

    /// Notes that the database was read just now and the replica is up with it.
    pub(crate) fn mark_read(&self) {
        *self.last_read.write() = Moment::now();
    }

    /// Puts everything in place of what was there.
    pub(crate) fn replace(&self, loaded: Loaded) {
        let revision = loaded.revision;
        self.users.forget_all();
        let new = State::from(loaded);
        // The old state is dropped after the lock: there may be millions of overrides in it.
        let old = std::mem::replace(&mut *self.state.write(), new);
        drop(old);
        self.position.send_replace(revision);
    }

    /// Applies one commit. Only the feed calls it, and only for the next revision.
    pub(crate) fn apply(&self, commit: Commit) {
        for change in &commit.changes {
            if let Change::UserTouched(id) = change {
                self.users.forget(*id);
            }
        }
        let edit = self.state.read().flags.prepare(&commit.changes);
        let mut state = self.state.write();
        state.flags.commit(edit);
        for change in &commit.changes {
            match change {
                Change::OverrideSet(new) => state.overrides.set(new),
                Change::OverrideRemoved { user_id, flag_name } => state.overrides.remove(*user_id, flag_name),
                Change::TokenTouched(id) => state.tokens.retain(|_, token| token.id != *id),
                Change::FlagSet(_)
                | Change::FlagRemoved(_)
                | Change::ScheduledChangeSet(..)
                | Change::ScheduledChangeRemoved(..)
                | Change::UserTouched(_) => {}
            }
        }
        state.tokens.extend(commit.tokens.into_iter().map(|token| (token.hash, token)));
        state.revision = commit.revision;
        drop(state);
        self.position.send_replace(commit.revision);
    }
}

/// The replica at one revision.
pub struct View<'r>(RwLockReadGuard<'r, State>);

impl View<'_> {
    /// The revision.
    pub fn revision(&self) -> Revision {
        self.0.revision
    }

    /// The flag of this name.
    pub fn flag(&self, name: &str) -> Option<&FlagState> {
        self.0.flags.get(name).map(|state| &**state)
    }

    /// All flags in order of their names, archived ones included.
    pub fn flags(&self) -> impl Iterator<Item = &FlagState> {
        self.0.flags.iter().map(|state| &**state)
    }

    /// How many flags there are, archived ones included.
    pub fn flag_count(&self) -> usize {
        self.0.flags.len()
    }

    /// A user's overrides in order of the flags' names, whatever their status.
    pub fn overrides_of(&self, user_id: Uuid) -> impl Iterator<Item = OverrideRef<'_>> {
        self.0.overrides.of_user(user_id)
    }

    /// The token with this SHA-256.
    pub fn token(&self, hash: &[u8; 32]) -> Option<&TokenRecord> {
        self.0.tokens.get(hash)
    }

    /// The users that tokens act as.
    pub fn token_users(&self) -> Vec<Uuid> {
        self.0.tokens.values().filter_map(|token| token.user_id).collect()
    }
}
