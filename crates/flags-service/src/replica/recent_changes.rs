//! Recent changes buffer: a bounded buffer of invalidations used to resume streams.
//!
//! The buffer records which flags and users each commit affects, not their new state. Streams evaluate the affected
//! flags for their own user.

use std::{collections::VecDeque, sync::Arc};

use flags_domain::{Action, FlagName, Instant, ResourceKind};
use uuid::Uuid;

use super::input::ChangeMetadata;

/// Maximum number of buffered commits.
const MAX_COMMITS: usize = 10_000;
/// Maximum size of the buffer in bytes.
const MAX_BYTES: usize = 64 * 1024 * 1024;

/// A bounded queue of commits with consecutive revisions.
#[derive(Debug)]
pub(super) struct RecentChanges {
    /// The buffer contains all commits after this revision.
    floor: i64,
    commits: VecDeque<Arc<RecentCommit>>,
    bytes: usize,
    max_bytes: usize,
}

/// The changes of one revision, without the new state.
#[derive(Clone, Debug)]
pub struct RecentCommit {
    /// Revision number.
    pub revision: i64,
    /// Changes in order.
    pub changes: Box<[RecentChange]>,
}

/// A change, without the new state.
#[derive(Clone, Debug)]
pub struct RecentChange {
    /// Kind of the changed resource.
    pub resource_kind: ResourceKind,
    /// Kind of the change.
    pub action: Action,
    /// Id of the resource; `None` for a kind that has no ids, such as flags.
    pub resource_id: Option<Uuid>,
    /// Flag that was changed or to which the resource belongs.
    pub flag_name: Option<FlagName>,
    /// User that was changed or to which the resource belongs.
    pub user_id: Option<Uuid>,
    /// Actor that made the change.
    pub actor: Arc<str>,
    /// Effect on evaluation results.
    pub invalidation: Invalidation,
}

/// Evaluation results that a change may affect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Invalidation {
    /// No results.
    None,
    /// The results of the flag for all users. The flag is visible to clients before or after the change.
    Flag {
        /// Whether the flag was visible to clients before the change.
        was_visible: bool,
    },
    /// The results of a flag that is hidden from clients before and after the change.
    HiddenFlag,
    /// Unknown. Streams that have not processed this change must start again with a full snapshot.
    Unknown,
    /// The result of the flag for the user. A stream that last evaluated at or after `expires_at` is not affected,
    /// because the override had already expired.
    Override {
        /// Expiry of the removed override. `None` if the override was created or changed, or if the removed override
        /// had no expiry.
        expires_at: Option<Instant>,
    },
    /// The results of all flags for the user.
    User,
}

impl RecentCommit {
    /// Creates a commit from the metadata and invalidation of each change, in the order of the change log.
    pub(super) fn new(revision: i64, changes: impl IntoIterator<Item = (ChangeMetadata, Invalidation)>) -> Self {
        let mut actor: Arc<str> = Arc::default();
        let changes = changes.into_iter().map(|(change, invalidation)| {
            // Consecutive changes by the same actor share one allocation.
            if *actor != *change.actor {
                actor = change.actor.as_str().into();
            }
            RecentChange::new(change, Arc::clone(&actor), invalidation)
        });
        Self { revision, changes: changes.collect() }
    }

    /// Upper bound of the size in bytes. Changes often share the memory of names and actors.
    fn bytes(&self) -> usize {
        size_of::<Self>() + self.changes.iter().map(RecentChange::bytes).sum::<usize>()
    }
}

impl RecentChange {
    fn new(change: ChangeMetadata, actor: Arc<str>, invalidation: Invalidation) -> Self {
        let ChangeMetadata { actor: _, action, resource_kind, resource_id, flag_name, user_id } = change;
        Self { resource_kind, action, resource_id, flag_name, user_id, actor, invalidation }
    }

    /// Size in bytes, including texts that the change may share with other changes.
    fn bytes(&self) -> usize {
        size_of::<Self>() + self.actor.len() + self.flag_name.as_deref().map_or(0, str::len)
    }
}

impl RecentChanges {
    /// Creates an empty buffer that continues after revision `floor`.
    pub(super) const fn new(floor: i64) -> Self {
        Self { floor, commits: VecDeque::new(), bytes: 0, max_bytes: MAX_BYTES }
    }

    /// Appends the next commit. Drops the oldest commits if the buffer exceeds its limits.
    pub(super) fn push(&mut self, commit: RecentCommit) {
        self.bytes += commit.bytes();
        self.commits.push_back(Arc::new(commit));
        while self.commits.len() > MAX_COMMITS || self.bytes > self.max_bytes {
            let Some(oldest) = self.commits.pop_front() else { return };
            self.bytes -= oldest.bytes();
            self.floor = oldest.revision;
        }
    }

    /// Returns all commits after `revision`, or `None` if some of them were dropped.
    pub(super) fn after(&self, revision: i64) -> Option<impl Iterator<Item = &Arc<RecentCommit>>> {
        let skip = usize::try_from(revision.checked_sub(self.floor)?).ok()?;
        Some(self.commits.range(skip.min(self.commits.len())..))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn commit(revision: i64) -> RecentCommit {
        let change = RecentChange {
            resource_kind: ResourceKind::Flag,
            action: Action::Updated,
            resource_id: None,
            flag_name: None,
            user_id: None,
            actor: "user:1".into(),
            invalidation: Invalidation::Flag { was_visible: true },
        };
        RecentCommit { revision, changes: vec![change].into() }
    }

    fn revisions_after(recent_changes: &RecentChanges, revision: i64) -> Option<Vec<i64>> {
        recent_changes.after(revision).map(|commits| commits.map(|commit| commit.revision).collect())
    }

    #[test]
    fn returns_commits_after_a_revision_unless_some_are_missing() {
        let mut recent_changes = RecentChanges::new(5);
        assert_eq!(revisions_after(&recent_changes, 5), Some(vec![]));
        assert_eq!(revisions_after(&recent_changes, 4), None);
        recent_changes.push(commit(6));
        recent_changes.push(commit(7));
        assert_eq!(revisions_after(&recent_changes, 5), Some(vec![6, 7]));
        assert_eq!(revisions_after(&recent_changes, 6), Some(vec![7]));
        assert_eq!(revisions_after(&recent_changes, 7), Some(vec![]));
        assert_eq!(revisions_after(&recent_changes, 4), None);
        assert_eq!(revisions_after(&recent_changes, i64::MIN), None);
    }

    #[test]
    fn drops_oldest_commits_beyond_count_and_byte_limits() {
        let mut recent_changes = RecentChanges::new(0);
        for revision in 1..=10_003 {
            recent_changes.push(commit(revision));
        }
        assert_eq!(recent_changes.commits.len(), 10_000);
        assert_eq!(revisions_after(&recent_changes, 2), None);
        assert_eq!(revisions_after(&recent_changes, 3).map(|revisions| revisions.len()), Some(10_000));
        let mut small = RecentChanges { max_bytes: 3 * commit(1).bytes(), ..RecentChanges::new(0) };
        for revision in 1..=10 {
            small.push(commit(revision));
        }
        assert_eq!(revisions_after(&small, 7), Some(vec![8, 9, 10]));
        assert_eq!(small.bytes, 3 * commit(1).bytes());
    }
}
