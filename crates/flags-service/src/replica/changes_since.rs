//! Changes that a resuming stream must deliver.

use std::collections::BTreeSet;

use flags_domain::{CompiledFlag, FlagName, Instant};
use uuid::Uuid;

use super::{CachedUser, Invalidation, RecentChange, View};
use crate::stream_position::StreamPosition;

/// Flags that may have changed for a user since a stream position.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChangesSince {
    /// Last revision that changed the user. If set, every flag may have a different value.
    pub user_revision: Option<i64>,
    /// Flags that changed for all users and were visible to clients before. Their names may be revealed.
    pub flags: BTreeSet<FlagName>,
    /// Flags that changed for this user only or became visible. The user may never have seen them and may not see them
    /// now, so reveal a name only if the flag is visible now.
    pub own_flags: BTreeSet<FlagName>,
    /// Whether a flag became visible to clients, even if it was hidden or deleted again later.
    pub newly_visible: bool,
    /// Whether a flag changed that is hidden from clients, before and after the change.
    pub hidden_flags: bool,
}

impl View<'_> {
    /// Returns what may have changed for a user between `position` and this view at `now`, through commits or through
    /// the passage of time.
    ///
    /// Returns `None` if the changes are unknown: the position is too old, belongs to another epoch or lies in the
    /// future.
    pub fn changes_since(&self, position: &StreamPosition, user_id: Uuid, now: Instant) -> Option<ChangesSince> {
        let evaluated_at = position.evaluated_at;
        if position.revision.epoch != self.revision().epoch || evaluated_at > now {
            return None;
        }
        let mut changes = ChangesSince::default();
        let mut newly_visible = BTreeSet::new();
        for commit in self.commits_after(position.revision.number)? {
            for change in &commit.changes {
                let is_own = change.user_id == Some(user_id);
                match change.invalidation {
                    Invalidation::Unknown => return None,
                    // A flag that became visible may be hidden again by a later commit. It must not enter `flags`,
                    // because the user never saw its name.
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
        changes.own_flags.extend(self.flags_changed_by_time(user_id, evaluated_at, now));
        Some(changes)
    }

    /// Whether the user may have changed after `revision`. Returns `true` if that is unknown.
    pub fn user_changed_after(&self, revision: i64, user_id: Uuid) -> bool {
        let changes_user =
            |change: &RecentChange| change.invalidation == Invalidation::User && change.user_id == Some(user_id);
        self.commits_after(revision)
            .is_none_or(|mut commits| commits.any(|commit| commit.changes.iter().any(changes_user)))
    }

    /// Returns the flags whose value may have changed with time: those with a schedule instant, or an expiry of the
    /// user's override, after `from` and up to `until`. May contain duplicates.
    pub fn flags_changed_by_time(
        &self,
        user_id: Uuid,
        from: Instant,
        until: Instant,
    ) -> impl Iterator<Item = FlagName> {
        let is_in_period = move |at: Instant| at > from && at <= until;
        let scheduled = self.0.schedule_instants_after(from).take_while(move |(at, _)| is_in_period(**at));
        let expired = self.overrides_of(user_id).filter(move |o| o.expires_at.is_some_and(is_in_period));
        scheduled.map(|(_, name)| name.clone()).chain(expired.map(|o| o.flag_name.clone()))
    }

    /// Returns the next instant after `now` at which the passage of time may change a value that the user sees: the
    /// earliest `valid_until` of the user's client-visible flags. Evaluates only flags that time can change.
    pub fn valid_until(&self, user: &CachedUser, now: Instant) -> Option<Instant> {
        let mut names: BTreeSet<&FlagName> = self.0.schedule_instants_after(now).map(|(_, name)| name).collect();
        names.extend(
            self.overrides_of(user.id).filter(|o| o.expires_at.is_some_and(|at| at > now)).map(|o| o.flag_name),
        );
        let evaluated = names.into_iter().filter_map(|name| self.evaluate(name, user, now));
        evaluated.filter(|e| e.flag.client_visible()).filter_map(|e| e.resolution.valid_until).min()
    }

    /// Returns the next instant after `now` at which the passage of time may change a value for any context that has
    /// this user's overrides. Considers only flags for which `is_included` returns `true`.
    pub fn next_time_change(
        &self,
        user_id: Uuid,
        now: Instant,
        is_included: impl Fn(&CompiledFlag) -> bool,
    ) -> Option<Instant> {
        let is_included = |name: &FlagName| self.flag(name).is_some_and(|flag| is_included(flag.compiled()));
        let scheduled = self.0.schedule_instants_after(now).find(|(_, name)| is_included(name)).map(|(at, _)| *at);
        let expiries = self.overrides_of(user_id).filter(|o| is_included(o.flag_name)).filter_map(|o| o.expires_at);
        scheduled.into_iter().chain(expiries.filter(|at| *at > now)).min()
    }
}
