//! The state that evaluation reads, in memory, fed by the log.
//!
//! One lock over everything: a reader sees all of one revision, and a commit appears whole or not at all. The feed
//! compiles before it takes the lock, and holds it only while it changes the entries that a commit touches.

mod counts;
mod interner;
mod override_index;
mod override_ref;
mod recent_changes;
mod since;
mod tokens;
mod user_cache;
mod view;

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    ops::Bound,
    sync::Arc,
    time::{Duration, Instant as Moment},
};

use flags_domain::{Change, Edit, FlagName, FlagState, Instant, Snapshot, UserOverride};
use flags_store::{
    api_tokens::TokenRecord,
    change_log::{Action, ChangeSummary, ResourceKind, Revision},
};
use parking_lot::RwLock;
use rustc_hash::FxHashMap;
use tokio::{sync::watch, time::timeout};
use uuid::Uuid;

use self::{override_index::OverrideIndex, recent_changes::RecentChanges, tokens::TokenIndex};
pub use self::{
    override_ref::{HeldOverride, OverrideRef},
    recent_changes::{Invalidation, RecentChange, RecentCommit},
    since::ChangesSince,
    user_cache::{CachedUser, FillGuard, UserCache},
    view::View,
};
use crate::notifier::{Audience, ChangeNotifier};

/// Answers are called stale once the database has not been read for so long.
pub const STALE_AFTER: Duration = Duration::from_secs(5);

/// Most overrides counted out under one lock.
const COUNTED_AT_ONCE: usize = 10_000;

/// The replica of one process.
#[derive(Debug)]
pub struct Replica {
    state: RwLock<State>,
    /// Where the replica stands, for those who wait.
    position: watch::Sender<Revision>,
    last_read: RwLock<Moment>,
    users: UserCache,
    notifier: Arc<ChangeNotifier>,
}

#[derive(Debug)]
struct State {
    revision: Revision,
    /// How often everything was loaded anew: who followed before must begin anew as well.
    generation: u64,
    flags: Snapshot,
    /// The instants at which flags' schedules may change what they give, past and to come.
    instants: BTreeMap<Instant, BTreeSet<FlagName>>,
    overrides: OverrideIndex,
    tokens: TokenIndex,
    recent: RecentChanges,
}

/// Everything the replica holds, as read from the database at one revision.
#[derive(Debug)]
pub struct Loaded {
    revision: Revision,
    flags: Snapshot,
    overrides: OverrideIndex,
    tokens: Vec<TokenRecord>,
    recent: RecentChanges,
}

impl Loaded {
    /// Flags and tokens at `revision`, and no overrides yet. `recent` are the last changes up to there, in order, without a
    /// gap, so that streams can be resumed that were cut before this process began.
    pub fn new(revision: Revision, flags: Snapshot, tokens: Vec<TokenRecord>, recent: &[ChangeSummary]) -> Self {
        let floor = recent.first().map_or(revision.number, |oldest| oldest.revision - 1);
        let mut recent_changes = RecentChanges::new(floor);
        for commit in recent.chunk_by(|a, b| a.revision == b.revision) {
            recent_changes
                .push(RecentCommit::new(commit[0].revision, commit, |change| possible_invalidation(change, &flags)));
        }
        Self { revision, flags, overrides: OverrideIndex::default(), tokens, recent: recent_changes }
    }

    /// Adds an override.
    pub fn add(&mut self, user_override: &UserOverride) {
        self.overrides.set(user_override);
    }
}

/// Whom a change may have given other values, as far as it can be told without the state before it. Users must not learn
/// the names of flags that they never saw.
fn possible_invalidation(change: &ChangeSummary, flags: &Snapshot) -> Invalidation {
    match (change.entity, change.action) {
        (ResourceKind::ScheduledChange, Action::Applied) | (ResourceKind::ApiToken, _) => Invalidation::None,
        (ResourceKind::Flag | ResourceKind::ScheduledChange, _) => {
            let flag = change.flag_name.as_ref().and_then(|name| flags.get(name));
            // Whether one that is shown was so before an update is not known; that its name has been seen is likely.
            let is_new = matches!(change.action, Action::Created | Action::Restored);
            let shown_before = !(is_new && change.entity == ResourceKind::Flag);
            if flag.is_some_and(|flag| flag.compiled().is_shown()) {
                Invalidation::Flag { shown_before }
            } else {
                Invalidation::Unknown
            }
        }
        (ResourceKind::Override, _) => Invalidation::Override { until: None },
        (ResourceKind::User, _) => Invalidation::User,
    }
}

impl From<Loaded> for State {
    fn from(loaded: Loaded) -> Self {
        let mut state = Self {
            revision: loaded.revision,
            generation: 0,
            instants: BTreeMap::new(),
            flags: loaded.flags,
            overrides: loaded.overrides,
            tokens: loaded.tokens.into_iter().collect(),
            recent: loaded.recent,
        };
        for flag in state.flags.iter() {
            note_instants(&mut state.instants, flag);
        }
        state
    }
}

fn note_instants(instants: &mut BTreeMap<Instant, BTreeSet<FlagName>>, flag: &FlagState) {
    for at in flag.compiled().instants() {
        instants.entry(at).or_default().insert(flag.flag().name.clone());
    }
}

/// All changes of one revision, and the present state of the tokens they name.
#[derive(Debug)]
pub struct Commit {
    /// The revision they bring the replica to.
    pub revision: Revision,
    /// The changes, in order, each with what the log says of it.
    pub changes: Vec<(ChangeSummary, Change)>,
    /// The tokens that `changes` name, as far as they are still there.
    pub tokens: Vec<TokenRecord>,
}

impl Replica {
    /// A replica of what was loaded.
    pub fn new(loaded: Loaded) -> Self {
        let (position, _) = watch::channel(loaded.revision);
        Self {
            state: RwLock::new(loaded.into()),
            position,
            last_read: RwLock::new(Moment::now()),
            users: UserCache::default(),
            notifier: Arc::default(),
        }
    }

    /// What wakes streams.
    pub const fn notifier(&self) -> &Arc<ChangeNotifier> {
        &self.notifier
    }

    /// The users seen lately.
    pub const fn users(&self) -> &UserCache {
        &self.users
    }

    /// Everything as of one revision. Hold it for microseconds only, and never across an await.
    pub fn read(&self) -> View<'_> {
        View::new(self.state.read())
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

    /// When tokens were last used here, as far as it was noted since the last call.
    pub fn take_token_uses(&self) -> Vec<(Uuid, Instant)> {
        self.state.read().tokens.take_uses()
    }

    /// How many overrides of each unarchived flag are active at `now`.
    pub fn count_active(&self, now: Instant) -> BTreeMap<FlagName, u64> {
        // Very many may end at once, and readers should not wait for all of them.
        while !self.state.write().overrides.count_out(now, COUNTED_AT_ONCE) {}
        let state = self.state.read();
        let mut counts = state.overrides.active();
        counts.retain(|name, _| state.flags.get(name).is_some_and(|flag| !flag.compiled().is_archived()));
        counts
    }

    /// Notes that the database was read just now and the replica is up with it.
    pub(crate) fn mark_read(&self) {
        *self.last_read.write() = Moment::now();
    }

    /// Puts everything in place of what was there. Every stream begins anew.
    pub(crate) fn replace(&self, loaded: Loaded) {
        let revision = loaded.revision;
        self.users.forget_all();
        let mut new = State::from(loaded);
        // The old state is dropped after the lock: there may be millions of overrides in it.
        let old = {
            let mut state = self.state.write();
            new.generation = state.generation + 1;
            std::mem::replace(&mut *state, new)
        };
        drop(old);
        self.position.send_replace(revision);
        self.notifier.wake_all();
    }

    /// Applies one commit. Only the feed calls it, and only for the next revision.
    pub(crate) fn apply(&self, commit: Commit) {
        for (_, change) in &commit.changes {
            if let Change::UserTouched(id) = change {
                self.users.forget(*id);
            }
        }
        let (edit, changed) = {
            let state = self.state.read();
            let edit = state.flags.prepare(commit.changes.iter().map(|(_, change)| change));
            let changed = effects_of(&state.flags, &edit);
            (edit, changed)
        };
        let mut audience = Audience {
            everybody: changed.values().any(|invalidation| *invalidation != Invalidation::HiddenFlag),
            hidden_flags: !changed.is_empty(),
            ..Audience::default()
        };
        let mut state = self.state.write();
        state.put_in_force(edit);
        let mut effects = commit.changes.iter().map(|(_, change)| state.take_in(change, &changed)).collect::<Vec<_>>();
        commit.tokens.into_iter().filter(|token| token.revoked_at.is_none()).for_each(|token| state.tokens.set(token));
        state.revision = commit.revision;
        for ((summary, change), invalidation) in commit.changes.iter().zip(&mut effects) {
            match (change, *invalidation) {
                // Streams are to see that a credential is void.
                (Change::TokenTouched(_), _) => audience.everybody = true,
                (_, Invalidation::Override { .. } | Invalidation::User) => audience.users.extend(summary.user_id),
                (
                    _,
                    Invalidation::Flag { .. } | Invalidation::HiddenFlag | Invalidation::None | Invalidation::Unknown,
                ) => {}
            }
        }
        let mut effects = effects.into_iter();
        let summaries: Vec<_> = commit.changes.into_iter().map(|(summary, _)| summary).collect();
        let number = commit.revision.number;
        state.recent.push(RecentCommit::new(number, &summaries, |_| effects.next().unwrap_or(Invalidation::None)));
        self.notifier.note(&audience, number);
        drop(state);
        self.position.send_replace(commit.revision);
        self.notifier.wake(&audience, number);
    }
}

/// Whom an edit gives something else, by the flags it does so by.
fn effects_of(flags: &Snapshot, edit: &Edit) -> FxHashMap<FlagName, Invalidation> {
    let is_shown = |flag: Option<&FlagState>| flag.is_some_and(|flag| flag.compiled().is_shown());
    let invalidation = |before: bool, after: bool| {
        if before || after { Invalidation::Flag { shown_before: before } } else { Invalidation::HiddenFlag }
    };
    let changed = flags.flags_changed_by(edit);
    changed.map(|(name, before, after)| (name.clone(), invalidation(is_shown(before), is_shown(after)))).collect()
}

fn of_flag(name: &FlagName, changed: &FxHashMap<FlagName, Invalidation>) -> Invalidation {
    changed.get(name).copied().unwrap_or(Invalidation::None)
}

impl State {
    fn put_in_force(&mut self, edit: Edit) {
        for (name, after) in edit.flags() {
            if let Some(before) = self.flags.get(name) {
                for at in before.compiled().instants() {
                    if let Entry::Occupied(mut flags) = self.instants.entry(at) {
                        flags.get_mut().remove(name);
                        if flags.get().is_empty() {
                            flags.remove();
                        }
                    }
                }
            }
            if let Some(after) = after {
                note_instants(&mut self.instants, after);
            }
        }
        self.flags.commit(edit);
    }

    /// The flags with an instant later than `after`, by instant.
    fn instants_after(&self, after: Instant) -> impl Iterator<Item = (&Instant, &FlagName)> {
        let later = self.instants.range((Bound::Excluded(after), Bound::Unbounded));
        later.flat_map(|(at, flags)| flags.iter().map(move |name| (at, name)))
    }

    /// Takes in what is no change of flags, and tells whom the change may give other values; `changed` are the flags that
    /// give something else from now on, each with whom that concerns.
    fn take_in(&mut self, change: &Change, changed: &FxHashMap<FlagName, Invalidation>) -> Invalidation {
        match change {
            Change::OverrideSet(new) => {
                self.overrides.set(new);
                Invalidation::Override { until: None }
            }
            Change::OverrideRemoved { user_id, flag_name } => match self.overrides.remove(*user_id, flag_name) {
                Some(removed) => Invalidation::Override { until: removed.expires_at },
                None => Invalidation::None,
            },
            Change::TokenTouched(id) => {
                self.tokens.remove(*id);
                Invalidation::None
            }
            Change::UserTouched(_) => Invalidation::User,
            Change::FlagSet(flag) => of_flag(&flag.name, changed),
            Change::FlagRemoved(name)
            | Change::ScheduledChangeSet(name, _)
            | Change::ScheduledChangeRemoved(name, _) => of_flag(name, changed),
        }
    }
}
