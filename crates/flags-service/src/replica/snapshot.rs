//! Snapshots of the replica, for evaluation without a lock.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use flags_domain::{CompiledFlag, EvaluationBudget, EvaluationContext, FlagName, FlagState, Instant, Revision};
use uuid::Uuid;

use super::{EvaluatedFlag, OverrideRef, SharedOverride, evaluate, flag_index::FlagIndex};

/// All flags and the overrides of one user at one revision.
///
/// A snapshot shares flags and values with the replica and holds no lock. A slow evaluation
/// therefore delays neither the change feed nor other readers. Flags can be evaluated only through
/// a snapshot.
#[derive(Clone, Debug)]
pub struct ReplicaSnapshot {
    pub(super) revision: Revision,
    pub(super) generation: u64,
    pub(super) flags: Arc<FlagIndex>,
    /// User of the overrides; `None` for an anonymous context.
    pub(super) user_id: Option<Uuid>,
    /// Overrides of the user in order of flag names, with any status.
    pub(super) overrides: Vec<SharedOverride>,
}

impl ReplicaSnapshot {
    /// Revision of the state.
    pub const fn revision(&self) -> Revision {
        self.revision
    }

    /// Number of reloads since the process started. Changes between two snapshots with different generations are
    /// unknown.
    pub const fn generation(&self) -> u64 {
        self.generation
    }

    /// User whose overrides the snapshot contains; `None` for an anonymous context.
    pub const fn user_id(&self) -> Option<Uuid> {
        self.user_id
    }

    /// Returns the flag with this name.
    pub fn flag(&self, name: &str) -> Option<&FlagState> {
        self.flags.flags().get(name).map(|state| &**state)
    }

    /// Returns all flags in order of their names, including archived flags.
    pub fn flags(&self) -> impl Iterator<Item = &FlagState> {
        self.flags.flags().iter().map(|state| &**state)
    }

    /// Returns the flags whose definition cannot be read or compiled, each with the reason.
    pub fn unreadable_flags(&self) -> BTreeMap<FlagName, String> {
        let failed = self.flags().filter_map(|flag| Some((flag, flag.compiled().compile_error()?)));
        failed.map(|(flag, error)| (flag.name().clone(), error.to_string())).collect()
    }

    /// Number of flags, including archived flags.
    pub fn flag_count(&self) -> usize {
        self.flags.flags().len()
    }

    /// Counts the pending scheduled changes of flags that are not archived.
    pub fn count_pending_changes(&self, now: Instant) -> usize {
        let flags = self.flags().filter(|state| !state.compiled().is_archived());
        let changes = flags.flat_map(|state| state.schedule());
        changes.filter(|change| change.cancelled_at.is_none() && change.scheduled_at > now).count()
    }

    /// Returns the user's overrides in order of flag names, regardless of their status.
    pub fn overrides(&self) -> impl Iterator<Item = OverrideRef<'_>> {
        self.overrides.iter().map(SharedOverride::to_ref)
    }

    /// Returns the user's override of a flag, regardless of its status.
    pub fn override_of(&self, flag_name: &str) -> Option<OverrideRef<'_>> {
        let index = self.overrides.binary_search_by(|o| o.flag_name().as_str().cmp(flag_name)).ok()?;
        self.overrides.get(index).map(SharedOverride::to_ref)
    }

    /// Evaluates all flags that are not archived and that `is_included` accepts, in order of their
    /// names, within the budget of one request. Omits flags that failed to compile, unless an
    /// override determines their value.
    ///
    /// `context` must belong to the snapshot's user.
    pub fn evaluate_all(
        &self,
        context: &EvaluationContext,
        now: Instant,
        is_included: impl Fn(&CompiledFlag) -> bool,
    ) -> impl Iterator<Item = EvaluatedFlag<'_>> {
        self.evaluate_each(context, now, is_included).filter_map(|(_, evaluated)| evaluated)
    }

    /// Like [`evaluate_all`](Self::evaluate_all), but the result is `None` for a flag that failed to compile and has no
    /// applicable override; [`CompiledFlag::compile_error`] returns the error.
    pub fn evaluate_each(
        &self,
        context: &EvaluationContext,
        now: Instant,
        is_included: impl Fn(&CompiledFlag) -> bool,
    ) -> impl Iterator<Item = (&CompiledFlag, Option<EvaluatedFlag<'_>>)> {
        let mut budget = EvaluationBudget::default();
        let mut overrides = self.overrides().peekable();
        // Flags that are not included must not use up the budget.
        let included = move |flag: &&CompiledFlag| !flag.is_archived() && is_included(flag);
        // Merge join: flags and overrides are both sorted by flag name.
        self.flags().map(FlagState::compiled).filter(included).map(move |flag| {
            while overrides.next_if(|o| o.flag_name < flag.name()).is_some() {}
            let user_override = overrides.next_if(|o| o.flag_name == flag.name());
            (flag, evaluate(flag, context, user_override, now, &mut budget))
        })
    }

    /// Evaluates one flag. Returns `None` if the flag does not exist or has no result.
    ///
    /// `context` must belong to the snapshot's user. All evaluations of a request share `budget`.
    pub fn evaluate(
        &self,
        flag_name: &str,
        context: &EvaluationContext,
        now: Instant,
        budget: &mut EvaluationBudget,
    ) -> Option<EvaluatedFlag<'_>> {
        evaluate(self.flag(flag_name)?.compiled(), context, self.override_of(flag_name), now, budget)
    }

    /// Returns the flags whose value may have changed without a commit between `from` (exclusive)
    /// and `until`: a scheduled change became due, or the user's override of the flag expired. May
    /// contain duplicates.
    pub fn flags_changed_by_time(&self, from: Instant, until: Instant) -> impl Iterator<Item = FlagName> {
        let is_in_period = move |at: Instant| at > from && at <= until;
        let scheduled = self.flags.schedule_instants_after(from).take_while(move |(at, _)| is_in_period(*at));
        let expired = self.overrides().filter(move |o| o.expires_at.is_some_and(is_in_period));
        scheduled.map(|(_, name)| name.clone()).chain(expired.map(|o| o.flag_name.clone()))
    }

    /// Returns the next instant after `now` at which the passage of time may change a value that
    /// the user sees: the earliest `valid_until` of the client-visible flags.
    ///
    /// Evaluates only flags that time can change, within the budget of one request.
    pub fn valid_until(&self, context: &EvaluationContext, now: Instant) -> Option<Instant> {
        let mut names: BTreeSet<&FlagName> = self.flags.schedule_instants_after(now).map(|(_, name)| name).collect();
        names.extend(self.overrides().filter(|o| o.expires_at.is_some_and(|at| at > now)).map(|o| o.flag_name));
        let mut budget = EvaluationBudget::default();
        let evaluated = names.into_iter().filter_map(|name| self.evaluate(name, context, now, &mut budget));
        evaluated.filter(|e| e.flag.client_visible()).filter_map(|e| e.resolution.valid_until).min()
    }

    /// Returns the next instant after `now` at which the passage of time may change a value for any context that has
    /// this user's overrides. Considers only flags for which `is_included` returns `true`.
    pub fn next_time_change(&self, now: Instant, is_included: impl Fn(&CompiledFlag) -> bool) -> Option<Instant> {
        let is_included = |name: &FlagName| self.flag(name).is_some_and(|flag| is_included(flag.compiled()));
        let scheduled = self.flags.schedule_instants_after(now).find(|(_, name)| is_included(name)).map(|(at, _)| at);
        let expiries = self.overrides().filter(|o| is_included(o.flag_name)).filter_map(|o| o.expires_at);
        scheduled.into_iter().chain(expiries.filter(|at| *at > now)).min()
    }
}
