//! Event stream that tells OpenFeature providers to evaluate again. The events contain no flag names and no values.

use std::pin::pin;

use actix_web::web::Data;
use flags_domain::{FlagName, Instant};
use flags_service::{
    notifier::Subscription,
    replica::{ChangesSince, ReplicaSnapshot},
    stream_position::StreamPosition,
};
use uuid::Uuid;

use super::{EventStream, PullOutcome, StreamSubscriber, connection::Connection};
use crate::{
    auth::{FlagVisibility, StreamSubject, StreamToken},
    problem::Problem,
    state::App,
};

/// User id of anonymous contexts. No user has this id.
const ANONYMOUS_USER_ID: Uuid = Uuid::nil();

/// Event stream of changes that may affect an evaluation of all flags. Each event tells the client to evaluate again.
pub(crate) struct EvaluationStream {
    connection: Connection,
    subscription: Subscription,
    user_id: Uuid,
    visibility: FlagVisibility,
    /// Expiry of the stream token.
    expires_at: Instant,
    /// Position up to which the client has received events. `None` until the first event, unless the stream resumes.
    position: Option<StreamPosition>,
    /// Generation (number of reloads) of the replica at the last pull. `None` before the first pull.
    generation: Option<u64>,
    /// Next instant at which a value can change without a commit, such as the expiry of an override.
    next_time_change: Option<Instant>,
}

/// Changes in the replica since the client's position.
struct EvaluationUpdate {
    new_position: StreamPosition,
    /// Whether an evaluation may have changed in a way that the client can see.
    is_relevant: bool,
    /// Whether the user may have changed, and with it the caller's permission.
    user_changed: bool,
}

impl EvaluationStream {
    /// Opens a stream for the bearer of `stream_token`. The stream resumes after `position` if the recent changes
    /// buffer still contains all later changes.
    pub(crate) fn open(
        app: &Data<App>,
        stream_token: StreamToken,
        visibility: FlagVisibility,
        position: Option<StreamPosition>,
    ) -> Result<Self, Problem> {
        let connection =
            Connection::open(app, StreamSubject::Evaluations(stream_token.user_id), stream_token.credential)?;
        let user_id = stream_token.user_id.unwrap_or(ANONYMOUS_USER_ID);
        let notifier = app.evaluation.replica().notifier();
        let subscription = match visibility {
            FlagVisibility::All => notifier.subscribe_with_hidden_flags(user_id),
            FlagVisibility::ClientVisible => notifier.subscribe(user_id),
        };
        let expires_at = stream_token.expires_at;
        Ok(Self {
            connection,
            subscription,
            user_id,
            visibility,
            expires_at,
            position,
            generation: None,
            next_time_change: None,
        })
    }

    /// Checks the replica for changes since the client's position. Returns `None` if the stream token or the credential
    /// is no longer valid.
    fn check_replica(&mut self) -> Option<EvaluationUpdate> {
        let app = self.connection.app.clone();
        let view = app.evaluation.replica().read();
        let clock = app.evaluation.now();
        if clock >= self.expires_at || !self.connection.credential().is_valid_at(&view, clock) {
            return None;
        }
        let now = self.position.map_or(clock, |position| position.evaluation_instant(clock));
        let subscriber = StreamSubscriber {
            user_id: self.user_id,
            position: self.position,
            generation: self.generation,
            subscription: &self.subscription,
        };
        let (snapshot, changes) = subscriber.changes_up_to(view, now);
        let update = EvaluationUpdate {
            new_position: StreamPosition { revision: snapshot.revision(), evaluated_at: now },
            // If the changes since the position are unknown, assume that they are relevant.
            is_relevant: changes.as_ref().is_none_or(|changes| self.is_relevant(&snapshot, changes)),
            user_changed: changes.is_none_or(|changes| changes.user_revision.is_some()),
        };
        self.generation = Some(snapshot.generation());
        self.next_time_change = snapshot.next_time_change(now, |flag| self.visibility.includes(flag));
        Some(update)
    }

    /// Whether the changes may affect the client's evaluation.
    ///
    /// The stream does not know the attributes of the evaluation context. Every change of a flag therefore counts if
    /// the flag is visible to the client or was visible before the change.
    fn is_relevant(&self, snapshot: &ReplicaSnapshot, changes: &ChangesSince) -> bool {
        let is_included =
            |name: &FlagName| snapshot.flag(name).is_some_and(|flag| self.visibility.includes(flag.compiled()));
        let other_flags_changed = match self.visibility {
            FlagVisibility::All => changes.hidden_flags || !changes.own_flags.is_empty(),
            // The client's last evaluation may be newer than its stream position. The evaluation may therefore include
            // a flag that was visible only in between.
            FlagVisibility::ClientVisible => changes.newly_visible || changes.own_flags.iter().any(is_included),
        };
        other_flags_changed || changes.user_revision.is_some() || !changes.flags.is_empty()
    }
}

impl EventStream for EvaluationStream {
    fn connection(&mut self) -> &mut Connection {
        &mut self.connection
    }

    fn mark_seen(&mut self) {
        self.subscription.mark_seen();
    }

    async fn pull(&mut self, out: &mut String) -> PullOutcome {
        let Some(EvaluationUpdate { new_position, is_relevant, user_changed }) = self.check_replica() else {
            return PullOutcome::Revoked;
        };
        if user_changed && !self.connection.is_allowed().await {
            return PullOutcome::Revoked;
        }
        if is_relevant {
            // `etag` is the whole position, not only the revision, because values also change with time. The client sends
            // it with its next request, so that a server whose clock is slightly behind does not evaluate for a time
            // before this event.
            let seconds = new_position.evaluated_at.as_micros().div_euclid(1_000_000);
            let data = format!(r#"{{"type":"refetchEvaluation","etag":"{new_position}","lastModified":{seconds}}}"#);
            self.connection.write(out, "message", Some(&new_position), &data);
        }
        self.position = Some(new_position);
        PullOutcome::UpToDate
    }

    fn position(&self) -> Option<StreamPosition> {
        self.position
    }

    async fn wait(&mut self, _: bool) {
        let until = self.next_time_change.map_or(self.expires_at, |at| at.min(self.expires_at));
        self.connection.wait(pin!(self.subscription.changed()), Some(until)).await;
    }
}
