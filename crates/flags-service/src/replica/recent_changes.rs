//! The last commits, for streams: what was touched, not what it became. Streams evaluate that anew, each for its client.

use std::{collections::VecDeque, sync::Arc};

use flags_domain::{FlagName, Instant};
use flags_store::change_log::{Action, ChangeSummary, ResourceKind};
use uuid::Uuid;

/// Most commits held.
const MOST_COMMITS: usize = 10_000;
/// Most memory held, in bytes.
const MOST_BYTES: usize = 64 * 1024 * 1024;

/// A bounded queue of commits with dense revisions.
#[derive(Debug)]
pub(super) struct RecentChanges {
    /// Everything after this revision is held.
    floor: i64,
    commits: VecDeque<Arc<RecentCommit>>,
    bytes: usize,
    most_bytes: usize,
}

/// What one revision touched.
#[derive(Clone, Debug)]
pub struct RecentCommit {
    /// The revision.
    pub revision: i64,
    /// Its changes, in order.
    pub changes: Box<[RecentChange]>,
}

/// One change: enough for an admin to know what to read again, and for a stream what to evaluate again.
#[derive(Clone, Debug)]
pub struct RecentChange {
    /// What kind of thing was changed.
    pub entity: ResourceKind,
    /// How.
    pub action: Action,
    /// Which thing.
    pub id: Option<Uuid>,
    /// The flag it concerns.
    pub flag_name: Option<FlagName>,
    /// The user it concerns.
    pub user_id: Option<Uuid>,
    /// Who did it.
    pub actor: Arc<str>,
    /// Whom it may give other values.
    pub invalidation: Invalidation,
}

/// Whom a change may give other values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Invalidation {
    /// Nobody.
    None,
    /// Everybody, of this flag, which users saw before or see since.
    Flag {
        /// Whether they saw it before.
        shown_before: bool,
    },
    /// Whoever sees flags that are hidden from users, as this one was before and is since.
    HiddenFlag,
    /// It cannot be told: whoever has not seen it must begin anew.
    Unknown,
    /// The user, of this flag; nobody who saw the state at or after `until`, when the override had ended by itself.
    Override {
        /// The end of the override that was removed.
        until: Option<Instant>,
    },
    /// The user, of every flag.
    User,
}

impl RecentCommit {
    /// A commit of these changes; `invalidation` is asked for each in turn.
    pub(super) fn new(
        revision: i64,
        changes: &[ChangeSummary],
        mut invalidation: impl FnMut(&ChangeSummary) -> Invalidation,
    ) -> Self {
        let mut actor: Arc<str> = Arc::default();
        let change = |change: &ChangeSummary| {
            if *actor != *change.actor {
                actor = change.actor.as_str().into();
            }
            RecentChange {
                entity: change.entity,
                action: change.action,
                id: change.entity_id,
                flag_name: change.flag_name.clone(),
                user_id: change.user_id,
                actor: Arc::clone(&actor),
                invalidation: invalidation(change),
            }
        };
        Self { revision, changes: changes.iter().map(change).collect() }
    }

    fn bytes(&self) -> usize {
        // Names and actors are shared more often than not; this is what they cost if they are not.
        let text = |change: &RecentChange| change.actor.len() + change.flag_name.as_deref().map_or(0, str::len);
        size_of::<Self>() + self.changes.iter().map(|change| size_of::<RecentChange>() + text(change)).sum::<usize>()
    }
}

impl RecentChanges {
    /// An empty ring that goes on after `floor`.
    pub(super) const fn new(floor: i64) -> Self {
        Self { floor, commits: VecDeque::new(), bytes: 0, most_bytes: MOST_BYTES }
    }

    /// Appends the next commit; the oldest go if it becomes too much.
    pub(super) fn push(&mut self, commit: RecentCommit) {
        self.bytes += commit.bytes();
        self.commits.push_back(Arc::new(commit));
        while self.commits.len() > MOST_COMMITS || self.bytes > self.most_bytes {
            let Some(oldest) = self.commits.pop_front() else { return };
            self.bytes -= oldest.bytes();
            self.floor = oldest.revision;
        }
    }

    /// All commits after `revision`; `None` if some of them are gone.
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
            entity: ResourceKind::Flag,
            action: Action::Updated,
            id: None,
            flag_name: None,
            user_id: None,
            actor: "user:1".into(),
            invalidation: Invalidation::Flag { shown_before: true },
        };
        RecentCommit { revision, changes: vec![change].into() }
    }

    fn revisions_after(recent_changes: &RecentChanges, revision: i64) -> Option<Vec<i64>> {
        recent_changes.after(revision).map(|commits| commits.map(|commit| commit.revision).collect())
    }

    #[test]
    fn a_ring_knows_what_it_has_and_what_it_has_not() {
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
    fn a_ring_is_bounded_in_commits_and_in_bytes() {
        let mut recent_changes = RecentChanges::new(0);
        for revision in 1..=10_003 {
            recent_changes.push(commit(revision));
        }
        assert_eq!(recent_changes.commits.len(), 10_000);
        assert_eq!(revisions_after(&recent_changes, 2), None);
        assert_eq!(revisions_after(&recent_changes, 3).map(|held| held.len()), Some(10_000));
        let mut small = RecentChanges { most_bytes: 3 * commit(1).bytes(), ..RecentChanges::new(0) };
        for revision in 1..=10 {
            small.push(commit(revision));
        }
        assert_eq!(revisions_after(&small, 7), Some(vec![8, 9, 10]));
        assert_eq!(small.bytes, 3 * commit(1).bytes());
    }
}
