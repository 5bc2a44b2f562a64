//! In-memory copy of the state that evaluation needs, kept up to date by the change feed.
//!
//! One lock protects the whole state, so a reader sees exactly one revision and a commit becomes visible atomically.
//! The change feed compiles flags before it takes the lock and holds the lock only to update the entries that a commit
//! changes. Readers hold it only to take a [`ReplicaSnapshot`], which they evaluate without the lock.

mod changes_since;
mod counts;
mod evaluate;
mod external_users;
mod flag_index;
mod input;
mod interner;
mod loaded_state;
mod override_index;
mod override_ref;
mod recent_changes;
mod snapshot;
mod state;
#[cfg(test)]
mod tests;
mod tokens;
mod user_cache;
mod user_shards;
mod view;

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant as StdInstant},
};

use flags_domain::{Change, FlagName, Instant, Revision, UserIdNamespace};
use parking_lot::RwLock;
use tokio::{sync::watch, time::timeout};
use uuid::Uuid;

pub use self::{
    changes_since::{ChangesSince, may_change_user},
    evaluate::{EvaluatedFlag, evaluate},
    external_users::{ExternalUser, ExternalUserId},
    input::{ChangeMetadata, Commit, CredentialScope, CredentialUpdate, DescribedChange, PastCommit, ReplicaToken},
    loaded_state::{DatabaseKeys, LoadedState},
    override_ref::{OverrideRef, SharedOverride},
    recent_changes::{Invalidation, RecentChange, RecentCommit},
    snapshot::ReplicaSnapshot,
    user_cache::{CachedUser, FillGuard, UserCache},
    user_shards::ShardKey,
    view::View,
};
use self::{
    external_users::ExternalUsers, flag_index::flag_invalidations, override_index::PreparedOverride,
    state::ReplicaState,
};
use crate::notifier::{Audience, ChangeNotifier};

/// Age at which the replica becomes stale.
pub const STALE_AFTER: Duration = Duration::from_secs(5);

/// Maximum number of expired overrides removed from the counts while the write lock is held.
const EXPIRY_BATCH_SIZE: usize = 10_000;

/// The replica of one process.
#[derive(Debug)]
pub struct Replica {
    state: RwLock<ReplicaState>,
    /// Revision of `state`. Tasks can wait here for a revision without taking the lock.
    revision: watch::Sender<Revision>,
    started_at: StdInstant,
    /// Time at which the replica was last known to match the database, in microseconds since `started_at`. Not
    /// protected by a lock, so that health checks never wait.
    last_current_micros: AtomicU64,
    credentials: RwLock<CredentialState>,
    /// Number of updates by [`apply_credentials`](Self::apply_credentials).
    credential_updates: AtomicU64,
    users: UserCache,
    external_users: ExternalUsers,
    notifier: Arc<ChangeNotifier>,
}

/// Revision up to which the replica contains all changes of users and tokens. It may be ahead of the replica's own
/// revision.
#[derive(Clone, Copy, Debug)]
struct CredentialState {
    revision: Revision,
    /// Time at which the users and tokens were last known to match the database.
    last_current_at: StdInstant,
}

impl CredentialState {
    fn current_at(revision: Revision) -> Self {
        Self { revision, last_current_at: StdInstant::now() }
    }
}

impl Replica {
    /// Creates a replica from a loaded state.
    pub fn new(mut loaded: LoadedState) -> Self {
        let (revision, _) = watch::channel(loaded.revision);
        let external_users = loaded.take_external_users();
        let credentials = RwLock::new(CredentialState::current_at(loaded.revision));
        Self {
            external_users,
            state: RwLock::new(loaded.into()),
            revision,
            started_at: StdInstant::now(),
            last_current_micros: AtomicU64::new(0),
            credentials,
            credential_updates: AtomicU64::new(0),
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

    /// Namespace from which the ids of users with an external id are derived.
    pub fn user_id_namespace(&self) -> UserIdNamespace {
        self.external_users.namespace()
    }

    /// Whether the user may have an external id. Users that were deleted may have one.
    pub fn may_have_external_id(&self, id: Uuid) -> bool {
        self.external_users.may_include(id)
    }

    /// Returns the id of the user with this external id or, if there is none, the id that is derived from it.
    pub fn external_user_id(&self, external_id: &str) -> ExternalUserId {
        self.external_users.resolve(external_id)
    }

    /// Takes a read lock and returns a view of the state at one revision.
    ///
    /// Hold the view only for microseconds and never across an `await`, because it blocks the change feed.
    pub fn read(&self) -> View<'_> {
        View::new(self.state.read())
    }

    /// Returns the flags and the overrides of a user at one revision, for evaluation without a
    /// lock. For an anonymous context, `user_id` is `None` and the snapshot has no overrides.
    pub fn snapshot(&self, user_id: Option<Uuid>) -> ReplicaSnapshot {
        self.read().into_snapshot(user_id)
    }

    /// Current revision.
    pub fn revision(&self) -> Revision {
        *self.revision.borrow()
    }

    /// Waits until the replica has reached `revision`. Returns `false` if this takes longer than
    /// `limit`.
    pub async fn wait_for(&self, revision: Revision, limit: Duration) -> bool {
        let mut current = self.revision.subscribe();
        let reached = current.wait_for(|at| at.epoch == revision.epoch && at.number >= revision.number);
        matches!(timeout(limit, reached).await, Ok(Ok(_)))
    }

    /// Time since the replica was last known to match the database.
    pub fn age(&self) -> Duration {
        let last_current = Duration::from_micros(self.last_current_micros.load(Ordering::Relaxed));
        self.started_at.elapsed().saturating_sub(last_current)
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
        // Many overrides may expire at once. The write lock is released between batches so that
        // readers are not blocked for long.
        while !self.state.write().overrides.remove_expired_from_counts(now, EXPIRY_BATCH_SIZE) {}
        let (mut counts, flags) = {
            let state = self.state.read();
            (state.overrides.active_counts(), Arc::clone(&state.flags))
        };
        counts.retain(|name, _| flags.flags().get(name).is_some_and(|flag| !flag.compiled().is_archived()));
        counts
    }

    /// Time since the replica's users and tokens were last known to match the database. Never
    /// longer than [`age`](Self::age).
    pub fn credentials_age(&self) -> Duration {
        self.credentials.read().last_current_at.elapsed()
    }

    /// Number of times that the replica has applied changes of users and tokens ahead of other
    /// changes. After each such update, the credentials of open streams must be validated.
    pub fn credential_updates(&self) -> u64 {
        self.credential_updates.load(Ordering::Acquire)
    }

    /// Revision up to which the changes of users and tokens are applied.
    pub(crate) fn credential_revision(&self) -> Revision {
        self.credentials.read().revision
    }

    /// Records that the replica matches the database at this moment.
    pub(crate) fn mark_current(&self) {
        let micros = u64::try_from(self.started_at.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.last_current_micros.store(micros, Ordering::Relaxed);
        *self.credentials.write() = CredentialState::current_at(self.revision());
        self.external_users.catch_up();
    }

    /// Applies changes of users and tokens ahead of all other changes, and wakes all streams so
    /// that they validate their credentials.
    ///
    /// The commits that contain these changes may be applied later. They then have no further
    /// effect on users and tokens.
    pub(crate) fn apply_credentials(&self, update: CredentialUpdate) {
        let CredentialUpdate { revision, scope, tokens, external_users } = update;
        // Add external ids before users are invalidated. Otherwise a lookup after the invalidation could treat a new
        // user as unknown.
        match &scope {
            CredentialScope::All => {
                self.external_users.mark_incomplete();
                self.users.clear();
            }
            CredentialScope::Changed { user_ids, .. } => {
                self.external_users.update_ahead(user_ids, external_users);
                user_ids.iter().for_each(|id| self.users.invalidate(*id));
            }
        }
        let is_empty = matches!(&scope, CredentialScope::Changed { user_ids, token_ids }
            if user_ids.is_empty() && token_ids.is_empty());
        if !is_empty {
            let mut state = self.state.write();
            match scope {
                CredentialScope::All => state.tokens.clear(),
                CredentialScope::Changed { token_ids, .. } => token_ids.iter().for_each(|id| state.tokens.remove(*id)),
            }
            tokens.into_iter().for_each(|token| state.tokens.set(token));
        }
        *self.credentials.write() = CredentialState::current_at(revision);
        if !is_empty {
            self.credential_updates.fetch_add(1, Ordering::Release);
            self.notifier.wake_all();
        }
    }

    /// Replaces the complete state after a reload, and wakes all streams so that they start again.
    /// If changes of tokens beyond the loaded revision were applied during the reload, the current
    /// tokens are kept.
    pub(crate) fn replace(&self, mut loaded: LoadedState) {
        let revision = loaded.revision;
        let current = self.credential_revision();
        let is_behind = current.epoch == revision.epoch && current.number > revision.number;
        self.external_users.replace(loaded.take_external_users(), is_behind);
        self.users.clear();
        let mut new = ReplicaState::from(loaded);
        let old = {
            let mut state = self.state.write();
            new.generation = state.generation + 1;
            let mut credentials = self.credentials.write();
            if is_behind {
                std::mem::swap(&mut new.tokens, &mut state.tokens);
            } else {
                *credentials = CredentialState::current_at(revision);
            }
            std::mem::replace(&mut *state, new)
        };
        // Dropped after the lock is released, because the old state may contain millions of
        // overrides.
        drop(old);
        self.revision.send_replace(revision);
        self.notifier.wake_all();
    }

    /// Applies one commit. Only the source that feeds the replica may call this, and only with the next revision.
    pub(crate) fn apply(&self, commit: Commit) {
        let changed_users = || {
            commit.changes.iter().filter_map(|described| match described.change {
                Change::UserChanged(id) => Some(id),
                _ => None,
            })
        };
        // A lookup after the invalidation of a user must not treat the user as unknown.
        if changed_users().next().is_some() {
            self.external_users.update(changed_users(), commit.external_users);
        }
        changed_users().for_each(|id| self.users.invalidate(id));
        // Slow work is done before the write lock is taken. The flags cannot change in the
        // meantime, because only the change feed changes them.
        let current_flags = Arc::clone(&self.state.read().flags);
        let edit = current_flags.prepare(commit.changes.iter().map(|described| &described.change));
        let flag_invalidations = flag_invalidations(&current_flags, &edit);
        let changes_flags = edit.flags().next().is_some();
        let new_flags = changes_flags.then(|| Arc::new(current_flags.edited(edit)));
        let prepared_overrides: Vec<_> = commit.changes.iter().map(|described| prepare(&described.change)).collect();
        let mut audience = Audience {
            all_users: flag_invalidations.values().any(|invalidation| *invalidation != Invalidation::HiddenFlag),
            hidden_flags: !flag_invalidations.is_empty(),
            ..Audience::default()
        };
        let number = commit.revision.number;
        let mut state = self.state.write();
        if let Some(new_flags) = new_flags {
            state.flags = new_flags;
        }
        let mut changes = Vec::with_capacity(commit.changes.len());
        for (DescribedChange { metadata, change }, prepared) in commit.changes.into_iter().zip(prepared_overrides) {
            let invalidation = state.apply_change(&change, prepared, &flag_invalidations);
            extend_audience(&mut audience, &change, metadata.user_id, invalidation);
            changes.push((metadata, invalidation));
        }
        commit.tokens.into_iter().for_each(|token| state.tokens.set(token));
        state.revision = commit.revision;
        state.recent_changes.push(RecentCommit::new(number, changes));
        self.notifier.record(&audience, number);
        drop(state);
        self.revision.send_replace(commit.revision);
        self.notifier.wake(&audience, number);
    }
}

fn prepare(change: &Change) -> Option<PreparedOverride> {
    match change {
        Change::OverrideSet(user_override) => Some((&**user_override).into()),
        _ => None,
    }
}

/// Adds the streams that a change of an override, user or token affects. For changes of flags, the caller extends the
/// audience.
fn extend_audience(audience: &mut Audience, change: &Change, user_id: Option<Uuid>, invalidation: Invalidation) {
    match (change, invalidation) {
        // Any stream may use this token, so all streams are woken to check their credentials.
        (Change::TokenChanged(_), _) => audience.all_users = true,
        (_, Invalidation::Override { .. } | Invalidation::User) => audience.users.extend(user_id),
        (_, Invalidation::Flag { .. } | Invalidation::HiddenFlag | Invalidation::None | Invalidation::Unknown) => {}
    }
}
