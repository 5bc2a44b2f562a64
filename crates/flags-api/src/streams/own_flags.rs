//! Event stream of a user's own flag values.

use std::{pin::pin, sync::Arc};

use actix_web::web::Data;
use flags_domain::{CompiledFlag, EvaluationBudget, FlagName, Instant};
use flags_service::{
    acting_user::ActingUser,
    notifier::Subscription,
    replica::{CachedUser, ChangesSince, ReplicaSnapshot, may_change_user},
    stream_position::StreamPosition,
};

use super::{EventStream, PullOutcome, StreamSubscriber, connection::Connection};
use crate::{
    auth::{Credential, StreamSubject},
    evaluation_json::{EvaluatedState, build_change, build_own_flags_body},
    problem::Problem,
    state::App,
};

/// Event stream of a user's own flag values: a snapshot, then changes.
pub(crate) struct OwnFlagStream {
    connection: Connection,
    subscription: Subscription,
    user: Arc<CachedUser>,
    /// `user` is at least as new as this revision number.
    loaded_revision: i64,
    /// Position up to which the client has received events. `None` if the client needs a snapshot.
    position: Option<StreamPosition>,
    /// Generation (number of reloads) of the replica at the last successful pull. `None` before the first one.
    generation: Option<u64>,
    /// Next instant at which a value can change without a commit, such as the expiry of an override.
    valid_until: Option<Instant>,
}

/// Result of checking the replica for changes.
enum ReplicaCheck {
    /// All events were appended.
    UpToDate,
    /// The user was changed and must be looked up again. Contains the revision number that the lookup will reflect.
    UserOutdated(i64),
    /// The credential is no longer valid.
    Revoked,
}

impl OwnFlagStream {
    /// Opens a stream for the user. It resumes after `position` if the recent changes buffer still contains all later
    /// changes.
    ///
    /// The user must have been looked up at revision number `loaded_revision` or later.
    pub(crate) fn open(
        app: &Data<App>,
        (credential, user): (Credential, Arc<CachedUser>),
        loaded_revision: i64,
        position: Option<StreamPosition>,
    ) -> Result<Self, Problem> {
        let connection = Connection::open(app, StreamSubject::OwnFlags, credential)?;
        let subscription = app.evaluation.replica().notifier().subscribe(user.id);
        Ok(Self { connection, subscription, user, loaded_revision, position, generation: None, valid_until: None })
    }

    /// Appends the events since the client's position.
    fn write_updates(&mut self, out: &mut String) -> ReplicaCheck {
        let app = self.connection.app.clone();
        let view = app.evaluation.replica().read();
        let clock = app.evaluation.now();
        let now = self.position.map_or(clock, |position| position.evaluation_instant(clock));
        if !self.connection.credential().is_valid_at(&view, clock) {
            return ReplicaCheck::Revoked;
        }
        let is_first_pull = self.generation.is_none();
        let subscriber = StreamSubscriber {
            user_id: self.user.id,
            position: self.position,
            generation: self.generation,
            subscription: &self.subscription,
        };
        let (snapshot, changes) = subscriber.changes_up_to(view, now);
        let new_position = StreamPosition { revision: snapshot.revision(), evaluated_at: now };
        match changes {
            Some(ChangesSince { user_revision: Some(revision), .. }) if revision > self.loaded_revision => {
                return ReplicaCheck::UserOutdated(snapshot.revision().number);
            }
            // A resumed stream needs a snapshot if the user changed, because the server does not know which attributes
            // the client's previous values were evaluated with.
            Some(changes) if changes.user_revision.is_none() || !is_first_pull => {
                self.write_change(out, &snapshot, &new_position, &changes, is_first_pull)
            }
            Some(_) | None => {
                let commits = app.evaluation.replica().read().commits_after(self.loaded_revision);
                if may_change_user(commits.as_deref(), self.user.id) {
                    return ReplicaCheck::UserOutdated(snapshot.revision().number);
                }
                self.write_snapshot(out, &snapshot, &new_position);
            }
        }
        self.position = Some(new_position);
        self.generation = Some(snapshot.generation());
        ReplicaCheck::UpToDate
    }

    fn write_snapshot(&mut self, out: &mut String, replica: &ReplicaSnapshot, new_position: &StreamPosition) {
        let app = self.connection.app.clone();
        let StreamPosition { revision, evaluated_at } = *new_position;
        let stale = app.evaluation.replica().is_stale();
        let state = EvaluatedState { user_id: self.user.id, revision, evaluated_at, stale };
        let results = replica.evaluate_all(&self.user.context, evaluated_at, CompiledFlag::client_visible);
        let reasons = app.settings.override_reasons();
        let snapshot = build_own_flags_body(&state, results, replica.flag_count(), reasons);
        self.valid_until = snapshot.valid_until;
        self.connection.set_reported_stale(stale);
        self.connection.write(out, "snapshot", Some(new_position), &snapshot.body);
    }

    /// Appends a `change` event with the values of the changed flags and the names of flags that are no longer visible.
    /// It does not name flags that were hidden before and after the changes.
    ///
    /// The first pull computes `valid_until` even if no flag changed, because it is not known yet.
    fn write_change(
        &mut self,
        out: &mut String,
        replica: &ReplicaSnapshot,
        new_position: &StreamPosition,
        changes: &ChangesSince,
        is_first_pull: bool,
    ) {
        let now = new_position.evaluated_at;
        if changes.flags.is_empty() && changes.own_flags.is_empty() {
            if is_first_pull || self.valid_until.is_some_and(|at| at <= now) {
                self.valid_until = replica.valid_until(&self.user.context, now);
            }
            return;
        }
        let (mut set, mut unset) = (Vec::new(), Vec::new());
        let mut budget = EvaluationBudget::default();
        for name in changes.flags.union(&changes.own_flags) {
            let evaluated = replica.evaluate(name, &self.user.context, now, &mut budget);
            match evaluated.filter(|evaluated| evaluated.flag.client_visible()) {
                Some(evaluated) => set.push(evaluated),
                None if changes.flags.contains(name) || is_visible_to_clients(replica, name) => unset.push(name),
                None => {}
            }
        }
        self.valid_until = replica.valid_until(&self.user.context, now);
        if set.is_empty() && unset.is_empty() {
            return;
        }
        let reasons = self.connection.app.settings.override_reasons();
        let data = build_change(new_position, set.into_iter(), &unset, self.valid_until, reasons);
        self.connection.write(out, "change", Some(new_position), &data);
    }

    /// Looks the user up again. `revision` is the replica's revision number before the lookup.
    async fn refresh_user(&mut self, revision: i64) -> UserRefresh {
        // Boxed because the future is large and would otherwise be part of every stream's future.
        match Box::pin(self.connection.credential().acting_user(&self.connection.app, self.user.id)).await {
            Ok(Some(ActingUser { user, .. })) => {
                if user.context != self.user.context {
                    // Every value may have changed, so the client needs a snapshot.
                    self.position = None;
                }
                self.user = user;
                self.loaded_revision = revision;
                UserRefresh::Refreshed
            }
            Ok(None) => UserRefresh::Gone,
            Err(_) => UserRefresh::Unavailable,
        }
    }
}

fn is_visible_to_clients(replica: &ReplicaSnapshot, name: &FlagName) -> bool {
    replica.flag(name).is_some_and(|flag| flag.compiled().is_visible_to_clients())
}

/// Result of looking the user up again.
enum UserRefresh {
    Refreshed,
    /// The user was deleted or deactivated.
    Gone,
    /// The database cannot be read.
    Unavailable,
}

impl EventStream for OwnFlagStream {
    fn connection(&mut self) -> &mut Connection {
        &mut self.connection
    }

    fn mark_seen(&mut self) {
        self.subscription.mark_seen();
    }

    /// Repeats the user lookup if the user changes during the lookup. If the lookup fails, the position stays unchanged
    /// and the stream retries after a delay.
    async fn pull(&mut self, out: &mut String) -> PullOutcome {
        loop {
            let revision = match self.write_updates(out) {
                ReplicaCheck::UpToDate => return PullOutcome::UpToDate,
                ReplicaCheck::Revoked => return PullOutcome::Revoked,
                ReplicaCheck::UserOutdated(revision) => revision,
            };
            match self.refresh_user(revision).await {
                UserRefresh::Refreshed => {}
                UserRefresh::Gone => return PullOutcome::Revoked,
                UserRefresh::Unavailable => return PullOutcome::Blocked,
            }
        }
    }

    fn position(&self) -> Option<StreamPosition> {
        self.position
    }

    async fn wait(&mut self, blocked: bool) {
        if blocked {
            // Neither a notification nor a past `valid_until` ends this wait, so the database is not queried in a busy
            // loop.
            return self.connection.wait_before_retry().await;
        }
        self.connection.wait(pin!(self.subscription.changed()), self.valid_until).await;
    }
}
