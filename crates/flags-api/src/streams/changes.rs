//! The stream of all changes, for admins: what was changed, not to what.

use std::{pin::pin, sync::Arc};

use actix_web::web::Data;
use flags_service::{
    cursor::Cursor,
    replica::{RecentChange, RecentCommit},
};
use flags_store::change_log::Revision;
use serde::Serialize;
use tokio::sync::watch;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{EventStream, Pulled, connection::Connection};
use crate::{
    app::App,
    auth::{Credential, Follows},
    problem::Problem,
};

/// Most commits, and most changes unless a single commit has more, that are written at once; the rest comes when the client
/// has read them.
const PORTION: usize = 500;

/// All changes of one revision.
#[derive(Serialize, ToSchema)]
pub(crate) struct ChangeEvent<'c> {
    /// `<epoch>:<number>`
    revision: String,
    changes: Vec<ChangedThing<'c>>,
}

/// One thing that was changed.
#[derive(Serialize, ToSchema)]
pub(crate) struct ChangedThing<'c> {
    /// `user`, `flag`, `scheduled_change`, `override` or `api_token`.
    entity: &'c str,
    /// `created`, `updated`, `deleted`, `expired`, `archived`, `restored`, `cancelled`, `applied`, `revoked` or `erased`.
    action: &'c str,
    #[serde(skip_serializing_if = "Option::is_none")]
    flag_name: Option<&'c str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_id: Option<Uuid>,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<Uuid>,
    /// Who did it: `user:<id>`, `token:<id>` or `system:<name>`.
    actor: &'c str,
}

impl<'c> From<&'c RecentChange> for ChangedThing<'c> {
    fn from(change: &'c RecentChange) -> Self {
        Self {
            entity: change.entity.as_str(),
            action: change.action.as_str(),
            flag_name: change.flag_name.as_deref(),
            user_id: change.user_id,
            id: change.id,
            actor: &change.actor,
        }
    }
}

/// All changes, event by event.
pub(crate) struct ChangeStream {
    connection: Connection,
    signal: watch::Receiver<i64>,
    cursor: Option<Cursor>,
    generation: Option<u64>,
}

impl ChangeStream {
    /// A stream that goes on from `cursor` if it can.
    pub(crate) fn open(app: &Data<App>, credential: Credential, cursor: Option<Cursor>) -> Result<Self, Problem> {
        let connection = Connection::open(app, Follows::Changes, credential)?;
        let signal = app.evaluation.replica().notifier().subscribe_to_all();
        Ok(Self { connection, signal, cursor, generation: None })
    }

    /// The next commits, if it can be told which they are, and where the replica stands; `None` if the credential is void.
    fn look(&mut self) -> Option<(Option<Vec<Arc<RecentCommit>>>, Revision)> {
        let app = &self.connection.app;
        let view = app.evaluation.replica().read();
        if !self.connection.credential().is_live(&view, app.evaluation.now()) {
            return None;
        }
        let same = self.generation.replace(view.generation()).is_none_or(|before| before == view.generation());
        let known = self.cursor.filter(|cursor| same && cursor.revision.epoch == view.revision().epoch);
        let commits = known.and_then(|cursor| view.commits_after(cursor.revision.number)).map(portion);
        Some((commits, view.revision()))
    }

    /// Appends these commits.
    fn write(&mut self, out: &mut String, commits: &[Arc<RecentCommit>], head: Revision) -> Pulled {
        let evaluated_at = self.connection.app.evaluation.now();
        let at = |number| Cursor { revision: Revision { number, ..head }, evaluated_at };
        for commit in commits {
            let here = at(commit.revision);
            self.connection.write(out, "change", Some(&here), &show(commit, &here));
            self.cursor = Some(here);
        }
        if commits.last().is_some_and(|last| last.revision < head.number) {
            return Pulled::More;
        }
        self.cursor = Some(at(head.number));
        Pulled::UpToDate
    }

    /// Says that everything must be read anew: from here on changes are told.
    fn write_snapshot(&mut self, out: &mut String, head: Revision) {
        let here = Cursor { revision: head, evaluated_at: self.connection.app.evaluation.now() };
        let stale = self.connection.app.evaluation.replica().is_stale();
        self.connection.told(stale);
        let data = format!("{{\"revision\":\"{}\",\"stale\":{stale}}}", here.revision);
        self.connection.write(out, "snapshot", Some(&here), &data);
        self.cursor = Some(here);
    }
}

/// The first of these commits, as many as are written at once.
fn portion<'c>(commits: impl Iterator<Item = &'c Arc<RecentCommit>>) -> Vec<Arc<RecentCommit>> {
    let mut left = PORTION;
    let fits = |commit: &&Arc<RecentCommit>| {
        let begun = left;
        left = left.saturating_sub(commit.changes.len().max(1));
        begun > 0
    };
    commits.take_while(fits).cloned().collect()
}

fn show(commit: &RecentCommit, here: &Cursor) -> String {
    let changes = commit.changes.iter().map(ChangedThing::from).collect();
    // A struct of texts, ids and lists can always be written.
    serde_json::to_string(&ChangeEvent { revision: here.revision.to_string(), changes }).unwrap_or_default()
}

impl EventStream for ChangeStream {
    fn connection(&mut self) -> &mut Connection {
        &mut self.connection
    }

    fn hear(&mut self) {
        self.signal.mark_unchanged();
    }

    async fn pull(&mut self, out: &mut String) -> Pulled {
        let Some((commits, head)) = self.look() else { return Pulled::Revoked };
        let Some(commits) = commits else {
            self.write_snapshot(out, head);
            return Pulled::UpToDate;
        };
        // What follows on a change of the caller's own role is told only if they may still see it.
        let mut changes = commits.iter().flat_map(|commit| &commit.changes);
        if changes.any(|change| self.connection.credential().is_touched_by(change))
            && !self.connection.is_allowed().await
        {
            return Pulled::Revoked;
        }
        self.write(out, &commits, head)
    }

    fn position(&self) -> Option<Cursor> {
        self.cursor
    }

    async fn wait(&mut self, _: bool) {
        let signal = &mut self.signal;
        // The sender is the hub's, which lives as long as the application.
        let woken = async { _ = signal.changed().await };
        self.connection.wait(pin!(woken), None).await;
    }
}
