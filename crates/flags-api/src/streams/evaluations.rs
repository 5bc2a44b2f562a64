//! The stream that tells a provider of OpenFeature to ask again. It names no flag and no value.

use std::pin::pin;

use actix_web::web::Data;
use flags_domain::{FlagName, Instant};
use flags_service::{
    cursor::Cursor,
    notifier::Subscription,
    replica::{ChangesSince, View},
};
use uuid::Uuid;

use super::{EventStream, Follower, Pulled, connection::Connection};
use crate::{
    app::App,
    auth::{FlagVisibility, Follows, StreamToken},
    problem::Problem,
};

/// Stands for those who are no user: no user has this id.
const NOBODY: Uuid = Uuid::nil();

/// What may change an evaluation of all flags, event by event.
pub(crate) struct EvaluationStream {
    connection: Connection,
    signals: Subscription,
    user_id: Uuid,
    flags: FlagVisibility,
    /// When the ticket becomes void.
    ends_at: Instant,
    /// Where the client stands; `None` if it has nothing yet that counts.
    cursor: Option<Cursor>,
    /// Of the replica at the last look; `None` before the first.
    generation: Option<u64>,
    /// When time alone may next change something.
    next_instant: Option<Instant>,
}

/// What one look at the replica came to.
struct Looked {
    here: Cursor,
    /// Whether anything may have changed that the client has a right to know of.
    is_news: bool,
    /// Whether the user may have changed, and so what the credential allows.
    is_user_touched: bool,
}

impl EvaluationStream {
    /// A stream for the bearer of this ticket, who sees these flags, that goes on from `cursor` if it can.
    pub(crate) fn open(
        app: &Data<App>,
        ticket: StreamToken,
        flags: FlagVisibility,
        cursor: Option<Cursor>,
    ) -> Result<Self, Problem> {
        let connection = Connection::open(app, Follows::Evaluations(ticket.user_id), ticket.credential)?;
        let user_id = ticket.user_id.unwrap_or(NOBODY);
        let notifier = app.evaluation.replica().notifier();
        let signals = match flags {
            FlagVisibility::All => notifier.subscribe_to_every_flag(user_id),
            FlagVisibility::Shown => notifier.subscribe(user_id),
        };
        let ends_at = ticket.ends_at;
        Ok(Self { connection, signals, user_id, flags, ends_at, cursor, generation: None, next_instant: None })
    }

    /// What is new for the client; `None` if ticket or credential is void.
    fn look(&mut self) -> Option<Looked> {
        let app = self.connection.app.clone();
        let view = app.evaluation.replica().read();
        let clock = app.evaluation.now();
        if clock >= self.ends_at || !self.connection.credential().is_live(&view, clock) {
            return None;
        }
        let now = self.cursor.map_or(clock, |cursor| cursor.next_instant(clock));
        let follower = Follower {
            user_id: self.user_id,
            cursor: self.cursor,
            generation: self.generation,
            signals: &self.signals,
        };
        let touched = follower.touched(&view, now);
        let looked = Looked {
            here: Cursor { revision: view.revision(), evaluated_at: now },
            // What cannot be told may be so.
            is_news: touched.as_ref().is_none_or(|touched| self.is_news(&view, touched)),
            is_user_touched: touched.is_none_or(|touched| touched.user.is_some()),
        };
        self.generation = Some(view.generation());
        self.next_instant = view.next_instant(self.user_id, now, |flag| self.flags.has(flag));
        Some(looked)
    }

    /// Attributes of the request are not known here, so whatever may matter to anybody counts. Of flags that users neither saw
    /// nor see, nothing does to a client that sees as much as they.
    fn is_news(&self, view: &View<'_>, touched: &ChangesSince) -> bool {
        let is_seen = |name: &FlagName| view.flag(name).is_some_and(|flag| self.flags.has(flag.compiled()));
        let of_flags = match self.flags {
            FlagVisibility::All => touched.hidden || !touched.own.is_empty(),
            // What the client has may be newer than where its stream stood: it may have seen what came and went.
            FlagVisibility::Shown => touched.came || touched.own.iter().any(is_seen),
        };
        of_flags || touched.user.is_some() || !touched.flags.is_empty()
    }
}

impl EventStream for EvaluationStream {
    fn connection(&mut self) -> &mut Connection {
        &mut self.connection
    }

    fn hear(&mut self) {
        self.signals.hear();
    }

    async fn pull(&mut self, out: &mut String) -> Pulled {
        let Some(Looked { here, is_news, is_user_touched }) = self.look() else { return Pulled::Revoked };
        if is_user_touched && !self.connection.is_allowed().await {
            return Pulled::Revoked;
        }
        if is_news {
            // The whole position: values move with time as well, and another server's clock may be a little behind.
            let seconds = here.evaluated_at.as_micros().div_euclid(1_000_000);
            let data = format!(r#"{{"type":"refetchEvaluation","etag":"{here}","lastModified":{seconds}}}"#);
            self.connection.write(out, "message", Some(&here), &data);
        }
        self.cursor = Some(here);
        Pulled::UpToDate
    }

    fn position(&self) -> Option<Cursor> {
        self.cursor
    }

    async fn wait(&mut self, _: bool) {
        let until = self.next_instant.map_or(self.ends_at, |at| at.min(self.ends_at));
        self.connection.wait(pin!(self.signals.woken()), Some(until)).await;
    }
}
