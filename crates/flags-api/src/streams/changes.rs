//! Event stream of all changes, for admins, support and viewers. The events name the changed resources but not their
//! new values.

use std::{pin::pin, sync::Arc};

use actix_web::web::Data;
use flags_service::{
    replica::{RecentChange, RecentCommit},
    stream_position::StreamPosition,
};
use flags_store::change_log::Revision;
use serde::Serialize;
use tokio::sync::watch;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{EventStream, PullOutcome, connection::Connection, event::StreamHeartbeat};
use crate::{
    auth::{Credential, StreamSubject},
    json::to_json,
    problem::Problem,
    state::App,
};

/// Number of changes after which a batch ends. A commit is never split, so a batch may contain more changes. A commit
/// without changes counts as one change. The stream writes the next batch when the client has read the previous one.
const BATCH_SIZE: usize = 500;

/// Changes of one revision.
#[derive(Serialize, ToSchema)]
pub(crate) struct ChangeEvent<'c> {
    /// Revision of the changes: `<epoch>:<number>`.
    revision: String,
    changes: Vec<ChangedResource<'c>>,
}

/// Resource that was changed.
#[derive(Serialize, ToSchema)]
pub(crate) struct ChangedResource<'c> {
    /// Kind of resource: `user`, `flag`, `scheduled_change`, `override` or `api_token`.
    entity: &'c str,
    /// Kind of change: `created`, `updated`, `deleted`, `expired`, `archived`, `restored`, `cancelled`, `applied`,
    /// `revoked` or `erased`.
    action: &'c str,
    /// Flag that was changed or that the resource belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    flag_name: Option<&'c str>,
    /// User that was changed or that the resource belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    user_id: Option<Uuid>,
    /// Id of the resource. Absent for flags, which `flag_name` identifies.
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<Uuid>,
    /// Author of the change: `user:<id>`, `token:<id>` or `system:<name>`.
    actor: &'c str,
}

impl<'c> From<&'c RecentChange> for ChangedResource<'c> {
    fn from(change: &'c RecentChange) -> Self {
        Self {
            entity: change.resource_kind.as_str(),
            action: change.action.as_str(),
            flag_name: change.flag_name.as_deref(),
            user_id: change.user_id,
            id: change.resource_id,
            actor: &change.actor,
        }
    }
}

/// Event stream of all changes.
pub(crate) struct ChangeStream {
    connection: Connection,
    /// Number of the latest revision. A new value wakes the stream.
    latest_revision: watch::Receiver<i64>,
    /// Position up to which the client has received events. `None` until the first event, unless the stream resumes.
    position: Option<StreamPosition>,
    /// Generation (number of reloads) of the replica at the last pull. `None` before the first pull.
    generation: Option<u64>,
}

impl ChangeStream {
    /// Opens a stream. It resumes after `position` if the recent changes buffer still contains all later changes.
    pub(crate) fn open(
        app: &Data<App>,
        credential: Credential,
        position: Option<StreamPosition>,
    ) -> Result<Self, Problem> {
        let connection = Connection::open(app, StreamSubject::Changes, credential)?;
        let latest_revision = app.evaluation.replica().notifier().subscribe_to_commits();
        Ok(Self { connection, latest_revision, position, generation: None })
    }

    /// Returns the next batch of commits and the replica's revision; `None` if the credential is no longer valid.
    ///
    /// The batch is `None` if the commits since the client's position are unknown. The client must then reload
    /// everything.
    fn next_commits(&mut self) -> Option<(Option<Vec<Arc<RecentCommit>>>, Revision)> {
        let app = &self.connection.app;
        let view = app.evaluation.replica().read();
        if !self.connection.credential().is_valid_at(&view, app.evaluation.now()) {
            return None;
        }
        let previous_generation = self.generation.replace(view.generation());
        let same_generation = previous_generation.is_none_or(|generation| generation == view.generation());
        let position =
            self.position.filter(|position| same_generation && position.revision.epoch == view.revision().epoch);
        let commits = position.and_then(|position| view.commits_after(position.revision.number));
        let head = view.revision();
        drop(view);
        Some((commits.map(take_batch), head))
    }

    /// Writes one event per commit.
    fn write(&mut self, out: &mut String, commits: &[Arc<RecentCommit>], head: Revision) -> PullOutcome {
        let evaluated_at = self.connection.app.evaluation.now();
        let at = |number| StreamPosition { revision: Revision { number, ..head }, evaluated_at };
        for commit in commits {
            let position = at(commit.revision);
            self.connection.write(out, "change", Some(&position), &change_event_json(commit, &position));
            self.position = Some(position);
        }
        if commits.last().is_some_and(|last| last.revision < head.number) {
            return PullOutcome::More;
        }
        self.position = Some(at(head.number));
        PullOutcome::UpToDate
    }

    /// Writes a `snapshot` event, which tells the client to reload everything. Later events report changes after
    /// `head`.
    fn write_snapshot(&mut self, out: &mut String, head: Revision) {
        let position = StreamPosition { revision: head, evaluated_at: self.connection.app.evaluation.now() };
        let stale = self.connection.app.evaluation.replica().is_stale();
        self.connection.set_reported_stale(stale);
        let data = StreamHeartbeat { revision: head.to_string(), stale };
        self.connection.write(out, "snapshot", Some(&position), &to_json(&data));
        self.position = Some(position);
    }
}

/// Returns the first commits, until the batch contains [`BATCH_SIZE`] changes.
fn take_batch(commits: Vec<Arc<RecentCommit>>) -> Vec<Arc<RecentCommit>> {
    let mut remaining = BATCH_SIZE;
    let has_room = |commit: &Arc<RecentCommit>| {
        let remaining_before = remaining;
        remaining = remaining.saturating_sub(commit.changes.len().max(1));
        remaining_before > 0
    };
    commits.into_iter().take_while(has_room).collect()
}

fn change_event_json(commit: &RecentCommit, position: &StreamPosition) -> String {
    let changes = commit.changes.iter().map(ChangedResource::from).collect();
    to_json(&ChangeEvent { revision: position.revision.to_string(), changes })
}

impl EventStream for ChangeStream {
    fn connection(&mut self) -> &mut Connection {
        &mut self.connection
    }

    fn mark_seen(&mut self) {
        self.latest_revision.mark_unchanged();
    }

    async fn pull(&mut self, out: &mut String) -> PullOutcome {
        let Some((commits, head)) = self.next_commits() else { return PullOutcome::Revoked };
        let Some(commits) = commits else {
            self.write_snapshot(out, head);
            return PullOutcome::UpToDate;
        };
        // The commits may have changed the caller's role, so the permission is checked before they are written.
        let mut changes = commits.iter().flat_map(|commit| &commit.changes);
        if changes.any(|change| self.connection.credential().is_affected_by(change))
            && !self.connection.is_allowed().await
        {
            return PullOutcome::Revoked;
        }
        self.write(out, &commits, head)
    }

    fn position(&self) -> Option<StreamPosition> {
        self.position
    }

    async fn wait(&mut self, _: bool) {
        let latest_revision = &mut self.latest_revision;
        // `changed` cannot fail: the sender belongs to the change notifier, which lives as long as `App`.
        let wakeup = async { _ = latest_revision.changed().await };
        self.connection.wait(pin!(wakeup), None).await;
    }
}
