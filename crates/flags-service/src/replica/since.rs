//! What a client of a stream must see again.

use std::collections::BTreeSet;

use flags_domain::{CompiledFlag, FlagName, Instant};
use uuid::Uuid;

use super::{CachedUser, Invalidation, RecentChange, View};
use crate::cursor::Cursor;

/// What may have changed for a user since a cursor.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChangesSince {
    /// The user themselves, last at this revision, in which case every flag may have.
    pub user: Option<i64>,
    /// These flags, for everybody. Users saw each of them before or see it now.
    pub flags: BTreeSet<FlagName>,
    /// These flags, for this user alone, who may never have seen them and may not now.
    pub own: BTreeSet<FlagName>,
    /// Some flag that users did not see before, whether or not it went again.
    pub came: bool,
    /// Flags that users neither saw before nor see now.
    pub hidden: bool,
}

impl View<'_> {
    /// What may have changed for the user since `cursor` up to this view at `now`: what the commits after it touched, and
    /// what moved by time alone. `None` if that cannot be told any more, or the cursor never was a position of this log.
    pub fn changes_since(&self, cursor: &Cursor, user_id: Uuid, now: Instant) -> Option<ChangesSince> {
        let seen_at = cursor.evaluated_at;
        if cursor.revision.epoch != self.revision().epoch || seen_at > now {
            return None;
        }
        let mut touched = ChangesSince::default();
        let mut came = BTreeSet::new();
        for commit in self.commits_after(cursor.revision.number)? {
            for change in &commit.changes {
                let of_user = change.user_id == Some(user_id);
                match change.invalidation {
                    Invalidation::Unknown => return None,
                    // Who has not seen it may not be told that it went: one that came and went meanwhile.
                    Invalidation::Flag { shown_before: false } => {
                        touched.own.extend(change.flag_name.clone().filter(|name| !touched.flags.contains(name)));
                        came.extend(change.flag_name.clone());
                    }
                    Invalidation::Flag { shown_before: true } => {
                        let name = change.flag_name.clone().filter(|name| !came.contains(name));
                        touched.flags.extend(name);
                    }
                    Invalidation::Override { until } if of_user && until.is_none_or(|until| until > seen_at) => {
                        touched.own.extend(change.flag_name.clone());
                    }
                    Invalidation::HiddenFlag => touched.hidden = true,
                    Invalidation::User if of_user => touched.user = Some(commit.revision),
                    Invalidation::None | Invalidation::Override { .. } | Invalidation::User => {}
                }
            }
        }
        touched.came = !came.is_empty();
        touched.own.extend(self.moved_by_time(user_id, seen_at, now));
        Some(touched)
    }

    /// Whether the user themselves may have changed after `revision`.
    pub fn user_touched_after(&self, revision: i64, user_id: Uuid) -> bool {
        let touches =
            |change: &RecentChange| change.invalidation == Invalidation::User && change.user_id == Some(user_id);
        // What is not known may be so.
        self.commits_after(revision).is_none_or(|mut commits| commits.any(|commit| commit.changes.iter().any(touches)))
    }

    /// The flags whose schedule, or the user's override of which, has an instant after `from` and up to `until`.
    pub fn moved_by_time(&self, user_id: Uuid, from: Instant, until: Instant) -> impl Iterator<Item = FlagName> {
        let passed = move |at: Instant| at > from && at <= until;
        let scheduled = self.0.instants_after(from).take_while(move |(at, _)| passed(**at));
        let ended = self.overrides_of(user_id).filter(move |o| o.expires_at.is_some_and(passed));
        scheduled.map(|(_, name)| name.clone()).chain(ended.map(|o| o.flag_name.clone()))
    }

    /// The next instant after `now` at which time alone may change what the user gets of the flags they
    /// see: the earliest `valid_until` of them all. Looks only at those flags that time can change.
    pub fn valid_until(&self, user: &CachedUser, now: Instant) -> Option<Instant> {
        let mut names: BTreeSet<&FlagName> = self.0.instants_after(now).map(|(_, name)| name).collect();
        names.extend(
            self.overrides_of(user.id).filter(|o| o.expires_at.is_some_and(|end| end > now)).map(|o| o.flag_name),
        );
        let evaluated = names.into_iter().filter_map(|name| self.evaluate(name, user, now));
        evaluated.filter(|e| e.flag.client_visible()).filter_map(|e| e.resolution.valid_until).min()
    }

    /// The next instant after `now` at which time alone may change what anybody gets by the flags that `sees` lets through,
    /// whatever their context, if they have this user's overrides.
    pub fn next_instant(&self, user_id: Uuid, now: Instant, sees: impl Fn(&CompiledFlag) -> bool) -> Option<Instant> {
        let counts = |name: &FlagName| self.flag(name).is_some_and(|flag| sees(flag.compiled()));
        let scheduled = self.0.instants_after(now).find(|(_, name)| counts(name)).map(|(at, _)| *at);
        let ends = self.overrides_of(user_id).filter(|o| counts(o.flag_name)).filter_map(|o| o.expires_at);
        scheduled.into_iter().chain(ends.filter(|end| *end > now)).min()
    }
}
