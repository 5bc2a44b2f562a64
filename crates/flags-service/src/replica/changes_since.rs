//! Changes that a resuming stream must deliver.

use std::{collections::BTreeSet, sync::Arc};

use flags_domain::{FlagName, Instant};
use uuid::Uuid;

use super::{Invalidation, RecentChange, RecentCommit, ReplicaSnapshot};
use crate::stream_position::StreamPosition;

/// Flags that may have changed for a user since a stream position.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChangesSince {
    /// Last revision that changed the user. If set, every flag may have a different value.
    pub user_revision: Option<i64>,
    /// Flags that changed for all users and were visible to clients before. Clients may learn their
    /// names.
    pub flags: BTreeSet<FlagName>,
    /// Flags that changed for this user only or became visible. The user may never have seen these
    /// flags, so reveal a name only if the flag is visible now.
    pub own_flags: BTreeSet<FlagName>,
    /// Whether a flag became visible to clients, even if it was hidden or deleted again later.
    pub newly_visible: bool,
    /// Whether a flag changed that was hidden from clients before and after the change.
    pub hidden_flags: bool,
}

impl ReplicaSnapshot {
    /// Returns what may have changed for the user between `position` and this snapshot at `now`,
    /// through commits or through the passage of time. `commits` are the commits after `position`,
    /// from [`View::commits_after`](super::View::commits_after).
    ///
    /// Returns `None` if the changes are unknown: the position is too old, belongs to another epoch
    /// or lies in the future.
    pub fn changes_since(
        &self,
        position: &StreamPosition,
        commits: Option<&[Arc<RecentCommit>]>,
        now: Instant,
    ) -> Option<ChangesSince> {
        let evaluated_at = position.evaluated_at;
        if position.revision.epoch != self.revision().epoch || evaluated_at > now {
            return None;
        }
        let mut changes = ChangesSince::default();
        let mut newly_visible = BTreeSet::new();
        for commit in commits? {
            for change in &commit.changes {
                let is_own = change.user_id.is_some() && change.user_id == self.user_id();
                match change.invalidation {
                    Invalidation::Unknown => return None,
                    // A flag that became visible may be hidden again by a later commit. The user
                    // may not have seen its name, so it must not be added to `flags`.
                    Invalidation::Flag { was_visible: false } => {
                        changes.own_flags.extend(change.flag_name.clone().filter(|name| !changes.flags.contains(name)));
                        newly_visible.extend(change.flag_name.clone());
                    }
                    Invalidation::Flag { was_visible: true } => {
                        let name = change.flag_name.clone().filter(|name| !newly_visible.contains(name));
                        changes.flags.extend(name);
                    }
                    Invalidation::Override { expires_at }
                        if is_own && expires_at.is_none_or(|at| at > evaluated_at) =>
                    {
                        changes.own_flags.extend(change.flag_name.clone());
                    }
                    Invalidation::HiddenFlag => changes.hidden_flags = true,
                    Invalidation::User if is_own => changes.user_revision = Some(commit.revision),
                    Invalidation::None | Invalidation::Override { .. } | Invalidation::User => {}
                }
            }
        }
        changes.newly_visible = !newly_visible.is_empty();
        changes.own_flags.extend(self.flags_changed_by_time(evaluated_at, now));
        Some(changes)
    }
}

/// Whether any of the commits may have changed the user. Returns `true` if the commits are unknown.
pub fn may_change_user(commits: Option<&[Arc<RecentCommit>]>, user_id: Uuid) -> bool {
    let changes_user =
        |change: &RecentChange| change.invalidation == Invalidation::User && change.user_id == Some(user_id);
    commits.is_none_or(|commits| commits.iter().any(|commit| commit.changes.iter().any(changes_user)))
}
