//! In-memory copy of the state that evaluation needs, kept up to date by the change feed.
//!
//! One lock protects the whole state, so a reader sees exactly one revision and a commit becomes visible atomically.
//! The change feed compiles flags before it takes the lock and holds the lock only to update the entries that a commit
//! changes.

mod changes_since;
mod counts;
mod interner;
mod override_index;
mod override_ref;
mod recent_changes;
mod tokens;
mod user_cache;
mod view;

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    ops::Bound,
    sync::Arc,
    time::{Duration, Instant as StdInstant},
};

use flags_domain::{Change, FlagName, FlagState, Instant, Snapshot, SnapshotEdit, UserOverride};
use flags_store::{
    api_tokens::TokenRecord,
    change_log::{Action, ChangeSummary, ResourceKind, Revision},
};
use parking_lot::RwLock;
use rustc_hash::FxHashMap;
use tokio::{sync::watch, time::timeout};
use uuid::Uuid;

pub use self::{
    changes_since::ChangesSince,
    override_ref::{OverrideRef, OwnedOverride},
    recent_changes::{Invalidation, RecentChange, RecentCommit},
    user_cache::{CachedUser, FillGuard, UserCache},
    view::View,
};
use self::{override_index::OverrideIndex, recent_changes::RecentChanges, tokens::TokenIndex};
use crate::notifier::{Audience, ChangeNotifier};

/// Age from which the replica is stale.
pub const STALE_AFTER: Duration = Duration::from_secs(5);

/// Maximum number of expired overrides removed from the counts while the write lock is held.
const EXPIRY_BATCH_SIZE: usize = 10_000;

/// The replica of one process.
#[derive(Debug)]
pub struct Replica {
    state: RwLock<ReplicaState>,
    /// Revision of `state`, for waiting on it.
    revision: watch::Sender<Revision>,
    last_current_at: RwLock<StdInstant>,
    users: UserCache,
    notifier: Arc<ChangeNotifier>,
}

#[derive(Debug)]
struct ReplicaState {
    revision: Revision,
    /// Number of reloads. Streams that were open before a reload start again with a full snapshot.
    generation: u64,
    flags: Snapshot,
    /// Past and future instants at which the schedule of a flag may change its value.
    schedule_instants: BTreeMap<Instant, BTreeSet<FlagName>>,
    overrides: OverrideIndex,
    tokens: TokenIndex,
    recent_changes: RecentChanges,
}

/// Complete state at one revision, as loaded from the database.
#[derive(Debug)]
pub struct LoadedState {
    revision: Revision,
    flags: Snapshot,
    overrides: OverrideIndex,
    tokens: Vec<TokenRecord>,
    recent_changes: RecentChanges,
}

impl LoadedState {
    /// Creates a state without overrides; add them with [`add`](Self::add).
    ///
    /// `recent` contains the last changes up to `revision`, ordered and without missing revisions. It allows streams to
    /// resume that were opened before this process started.
    pub fn new(revision: Revision, flags: Snapshot, tokens: Vec<TokenRecord>, recent: &[ChangeSummary]) -> Self {
        let floor = recent.first().map_or(revision.number, |oldest| oldest.revision - 1);
        let mut recent_changes = RecentChanges::new(floor);
        for commit in recent.chunk_by(|a, b| a.revision == b.revision) {
            recent_changes
                .push(RecentCommit::new(commit[0].revision, commit, |change| possible_invalidation(change, &flags)));
        }
        Self { revision, flags, overrides: OverrideIndex::default(), tokens, recent_changes }
    }

    /// Adds an override.
    pub fn add(&mut self, user_override: &UserOverride) {
        self.overrides.set(user_override);
    }
}

/// Returns a conservative invalidation for a change from before this process started, whose previous state is unknown.
/// Must not reveal the names of flags that were never visible to clients.
fn possible_invalidation(change: &ChangeSummary, flags: &Snapshot) -> Invalidation {
    match (change.resource_kind, change.action) {
        (ResourceKind::ScheduledChange, Action::Applied) | (ResourceKind::ApiToken, _) => Invalidation::None,
        (ResourceKind::Flag | ResourceKind::ScheduledChange, _) => {
            let flag = change.flag_name.as_ref().and_then(|name| flags.get(name));
            // Assumes that a flag that is visible now was also visible before an update, and so its name is known.
            let is_new = matches!(change.action, Action::Created | Action::Restored);
            let was_visible = !(is_new && change.resource_kind == ResourceKind::Flag);
            if flag.is_some_and(|flag| flag.compiled().is_visible_to_clients()) {
                Invalidation::Flag { was_visible }
            } else {
                Invalidation::Unknown
            }
        }
        (ResourceKind::Override, _) => Invalidation::Override { expires_at: None },
        (ResourceKind::User, _) => Invalidation::User,
    }
}

impl From<LoadedState> for ReplicaState {
    fn from(loaded: LoadedState) -> Self {
        let mut state = Self {
            revision: loaded.revision,
            generation: 0,
            schedule_instants: BTreeMap::new(),
            flags: loaded.flags,
            overrides: loaded.overrides,
            tokens: loaded.tokens.into_iter().collect(),
            recent_changes: loaded.recent_changes,
        };
        for flag in state.flags.iter() {
            add_schedule_instants(&mut state.schedule_instants, flag);
        }
        state
    }
}

fn add_schedule_instants(instants: &mut BTreeMap<Instant, BTreeSet<FlagName>>, flag: &FlagState) {
    for at in flag.compiled().schedule_instants() {
        instants.entry(at).or_default().insert(flag.flag().name.clone());
    }
}

/// All changes of one revision.
#[derive(Debug)]
pub struct Commit {
    /// Revision of the commit.
    pub revision: Revision,
    /// The changes in order, each with its summary from the change log.
    pub changes: Vec<(ChangeSummary, Change)>,
    /// Current state of the tokens that `changes` name. Deleted tokens are missing.
    pub tokens: Vec<TokenRecord>,
}

impl Replica {
    /// Creates a replica from a loaded state.
    pub fn new(loaded: LoadedState) -> Self {
        let (revision, _) = watch::channel(loaded.revision);
        Self {
            state: RwLock::new(loaded.into()),
            revision,
            last_current_at: RwLock::new(StdInstant::now()),
            users: UserCache::default(),
            notifier: Arc::default(),
        }
    }

    /// Notifier that wakes event streams.
    pub const fn notifier(&self) -> &Arc<ChangeNotifier> {
        &self.notifier
    }

    /// Cache of users.
    pub const fn users(&self) -> &UserCache {
        &self.users
    }

    /// Takes a read lock and returns a view of the state at one revision.
    ///
    /// Hold the view only for microseconds and never across an `await`, because it blocks the change feed.
    pub fn read(&self) -> View<'_> {
        View::new(self.state.read())
    }

    /// Current revision.
    pub fn revision(&self) -> Revision {
        *self.revision.borrow()
    }

    /// Waits until the replica has reached `revision`. Returns `false` after `limit`.
    pub async fn wait_for(&self, revision: Revision, limit: Duration) -> bool {
        let mut current = self.revision.subscribe();
        let reached = current.wait_for(|at| at.epoch == revision.epoch && at.number >= revision.number);
        matches!(timeout(limit, reached).await, Ok(Ok(_)))
    }

    /// Time since the replica was last known to match the database.
    pub fn age(&self) -> Duration {
        self.last_current_at.read().elapsed()
    }

    /// Whether the replica's age has reached [`STALE_AFTER`].
    pub fn is_stale(&self) -> bool {
        self.age() >= STALE_AFTER
    }

    /// Returns the token uses recorded since the last call: the id of each token and the instant of its last use.
    pub fn take_token_uses(&self) -> Vec<(Uuid, Instant)> {
        self.state.read().tokens.take_uses()
    }

    /// Counts the overrides that are active at `now`, by flag. Omits archived flags.
    pub fn count_active(&self, now: Instant) -> BTreeMap<FlagName, u64> {
        // Many overrides may expire at once. Releases the write lock between batches so that readers are not blocked.
        while !self.state.write().overrides.remove_expired_from_counts(now, EXPIRY_BATCH_SIZE) {}
        let state = self.state.read();
        let mut counts = state.overrides.active_counts();
        counts.retain(|name, _| state.flags.get(name).is_some_and(|flag| !flag.compiled().is_archived()));
        counts
    }

    /// Records that the replica matches the database at this moment.
    pub(crate) fn mark_current(&self) {
        *self.last_current_at.write() = StdInstant::now();
    }

    /// Replaces the complete state after a reload, and wakes all streams so that they start again.
    pub(crate) fn replace(&self, loaded: LoadedState) {
        let revision = loaded.revision;
        self.users.clear();
        let mut new = ReplicaState::from(loaded);
        let old = {
            let mut state = self.state.write();
            new.generation = state.generation + 1;
            std::mem::replace(&mut *state, new)
        };
        // Dropped after the lock is released: the old state may contain millions of overrides.
        drop(old);
        self.revision.send_replace(revision);
        self.notifier.wake_all();
    }

    /// Applies one commit. Only the change feed may call this, and only with the next revision.
    pub(crate) fn apply(&self, commit: Commit) {
        for (_, change) in &commit.changes {
            if let Change::UserChanged(id) = change {
                self.users.invalidate(*id);
            }
        }
        let (edit, flag_invalidations) = {
            let state = self.state.read();
            let edit = state.flags.prepare(commit.changes.iter().map(|(_, change)| change));
            let flag_invalidations = flag_invalidations(&state.flags, &edit);
            (edit, flag_invalidations)
        };
        let mut audience = Audience {
            all_users: flag_invalidations.values().any(|invalidation| *invalidation != Invalidation::HiddenFlag),
            hidden_flags: !flag_invalidations.is_empty(),
            ..Audience::default()
        };
        let mut state = self.state.write();
        state.commit_flags(edit);
        let mut invalidations = commit
            .changes
            .iter()
            .map(|(_, change)| state.apply_change(change, &flag_invalidations))
            .collect::<Vec<_>>();
        commit.tokens.into_iter().filter(|token| token.revoked_at.is_none()).for_each(|token| state.tokens.set(token));
        state.revision = commit.revision;
        for ((summary, change), invalidation) in commit.changes.iter().zip(&mut invalidations) {
            match (change, *invalidation) {
                // Streams check whether their credential is still valid.
                (Change::TokenChanged(_), _) => audience.all_users = true,
                (_, Invalidation::Override { .. } | Invalidation::User) => audience.users.extend(summary.user_id),
                (
                    _,
                    Invalidation::Flag { .. } | Invalidation::HiddenFlag | Invalidation::None | Invalidation::Unknown,
                ) => {}
            }
        }
        let mut invalidations = invalidations.into_iter();
        let summaries: Vec<_> = commit.changes.into_iter().map(|(summary, _)| summary).collect();
        let number = commit.revision.number;
        state
            .recent_changes
            .push(RecentCommit::new(number, &summaries, |_| invalidations.next().unwrap_or(Invalidation::None)));
        self.notifier.record(&audience, number);
        drop(state);
        self.revision.send_replace(commit.revision);
        self.notifier.wake(&audience, number);
    }
}

/// Returns the flags whose evaluation an edit changes, each with its invalidation.
fn flag_invalidations(flags: &Snapshot, edit: &SnapshotEdit) -> FxHashMap<FlagName, Invalidation> {
    let is_visible = |flag: Option<&FlagState>| flag.is_some_and(|flag| flag.compiled().is_visible_to_clients());
    let invalidation = |was_visible: bool, is_visible: bool| {
        if was_visible || is_visible { Invalidation::Flag { was_visible } } else { Invalidation::HiddenFlag }
    };
    let changed = flags.flags_changed_by(edit);
    changed.map(|(name, before, after)| (name.clone(), invalidation(is_visible(before), is_visible(after)))).collect()
}

fn flag_invalidation(name: &FlagName, invalidations: &FxHashMap<FlagName, Invalidation>) -> Invalidation {
    invalidations.get(name).copied().unwrap_or(Invalidation::None)
}

impl ReplicaState {
    /// Applies a prepared edit of flags and updates `schedule_instants`.
    fn commit_flags(&mut self, edit: SnapshotEdit) {
        for (name, after) in edit.flags() {
            if let Some(before) = self.flags.get(name) {
                for at in before.compiled().schedule_instants() {
                    if let Entry::Occupied(mut flags) = self.schedule_instants.entry(at) {
                        flags.get_mut().remove(name);
                        if flags.get().is_empty() {
                            flags.remove();
                        }
                    }
                }
            }
            if let Some(after) = after {
                add_schedule_instants(&mut self.schedule_instants, after);
            }
        }
        self.flags.commit(edit);
    }

    /// Returns the schedule instants later than `after` in ascending order, each with a flag.
    fn schedule_instants_after(&self, after: Instant) -> impl Iterator<Item = (&Instant, &FlagName)> {
        let later = self.schedule_instants.range((Bound::Excluded(after), Bound::Unbounded));
        later.flat_map(|(at, flags)| flags.iter().map(move |name| (at, name)))
    }

    /// Applies a change, except to flags, and returns its invalidation. `flag_invalidations` contains the flags whose
    /// evaluation the commit changes.
    fn apply_change(
        &mut self,
        change: &Change,
        flag_invalidations: &FxHashMap<FlagName, Invalidation>,
    ) -> Invalidation {
        match change {
            Change::OverrideSet(user_override) => {
                self.overrides.set(user_override);
                Invalidation::Override { expires_at: None }
            }
            Change::OverrideRemoved { user_id, flag_name } => match self.overrides.remove(*user_id, flag_name) {
                Some(removed) => Invalidation::Override { expires_at: removed.expires_at },
                None => Invalidation::None,
            },
            Change::TokenChanged(id) => {
                self.tokens.remove(*id);
                Invalidation::None
            }
            Change::UserChanged(_) => Invalidation::User,
            Change::FlagSet(flag) => flag_invalidation(&flag.name, flag_invalidations),
            Change::FlagRemoved(name)
            | Change::ScheduledChangeSet(name, _)
            | Change::ScheduledChangeRemoved(name, _) => flag_invalidation(name, flag_invalidations),
        }
    }
}
