//! The stream of a user's own flag values.

use std::{pin::pin, sync::Arc};

use actix_web::web::Data;
use flags_domain::{FlagName, Instant};
use flags_service::{
    cursor::Cursor,
    notifier::Subscription,
    replica::{CachedUser, ChangesSince, View},
};

use super::{EventStream, Follower, Pulled, connection::Connection};
use crate::{
    app::App,
    auth::{Credential, Follows},
    evaluation_json::{Tally, all_flags, write_end_of_change, write_head_of_change, write_named_result},
    problem::Problem,
};

/// What a user sees of flags, event by event.
pub(crate) struct OwnFlagStream {
    connection: Connection,
    signals: Subscription,
    user: Arc<CachedUser>,
    /// What is known of the user is as of this revision or later.
    user_as_of: i64,
    /// Where the client stands; `None` if it has nothing yet that counts.
    cursor: Option<Cursor>,
    /// Of the replica when the client last got something; `None` before the first pull.
    generation: Option<u64>,
    /// When time alone may next change something.
    valid_until: Option<Instant>,
}

/// What one look at the replica came to.
enum Looked {
    /// The client is told everything.
    UpToDate,
    /// What is known of the user is too old; it must be looked up as of this revision.
    UserTouched(i64),
    /// The credential is void.
    Revoked,
}

impl OwnFlagStream {
    /// A stream for this user that goes on from `cursor` if it can. What is known of the user must be no older than
    /// `user_as_of`.
    pub(crate) fn open(
        app: &Data<App>,
        (credential, user): (Credential, Arc<CachedUser>),
        user_as_of: i64,
        cursor: Option<Cursor>,
    ) -> Result<Self, Problem> {
        let connection = Connection::open(app, Follows::OwnFlags, credential)?;
        let signals = app.evaluation.replica().notifier().subscribe(user.id);
        Ok(Self { connection, signals, user, user_as_of, cursor, generation: None, valid_until: None })
    }

    /// Appends what is new for the client.
    fn look(&mut self, out: &mut String) -> Looked {
        let app = self.connection.app.clone();
        let view = app.evaluation.replica().read();
        let clock = app.evaluation.now();
        let now = self.cursor.map_or(clock, |cursor| cursor.next_instant(clock));
        if !self.connection.credential().is_live(&view, clock) {
            return Looked::Revoked;
        }
        let here = Cursor { revision: view.revision(), evaluated_at: now };
        let first = self.generation.is_none();
        let follower = Follower {
            user_id: self.user.id,
            cursor: self.cursor,
            generation: self.generation,
            signals: &self.signals,
        };
        let touched = follower.touched(&view, now);
        match touched {
            Some(ChangesSince { user: Some(revision), .. }) if revision > self.user_as_of => {
                return Looked::UserTouched(view.revision().number);
            }
            // Of a client that comes from elsewhere nobody knows what was known of its user then.
            Some(touched) if touched.user.is_none() || !first => self.write_change(out, &view, &here, &touched, first),
            Some(_) | None => {
                if view.user_touched_after(self.user_as_of, self.user.id) {
                    return Looked::UserTouched(view.revision().number);
                }
                self.write_snapshot(out, &view, &here);
            }
        }
        self.cursor = Some(here);
        self.generation = Some(view.generation());
        Looked::UpToDate
    }

    fn write_snapshot(&mut self, out: &mut String, view: &View<'_>, here: &Cursor) {
        let app = self.connection.app.clone();
        let stale = app.evaluation.replica().is_stale();
        let all = all_flags(view, &self.user, here.evaluated_at, stale, app.settings.show_reasons_to_users);
        self.valid_until = all.valid_until;
        self.connection.told(stale);
        self.connection.write(out, "snapshot", Some(here), &all.body);
    }

    /// What of the touched flags the user sees now, and which of them they see no more. A flag that was hidden all along is
    /// not named. `first` says that nothing is known yet of when time may change something.
    fn write_change(&mut self, out: &mut String, view: &View<'_>, here: &Cursor, touched: &ChangesSince, first: bool) {
        let now = here.evaluated_at;
        if touched.flags.is_empty() && touched.own.is_empty() {
            if first || self.valid_until.is_some_and(|at| at <= now) {
                self.valid_until = view.valid_until(&self.user, now);
            }
            return;
        }
        let reasons = self.connection.app.settings.show_reasons_to_users;
        let (mut data, mut unset, mut tally) = (String::with_capacity(256), Vec::new(), Tally::default());
        write_head_of_change(&mut data, here);
        let empty = data.len();
        let is_shown = |name: &FlagName| view.flag(name).is_some_and(|flag| flag.compiled().is_shown());
        for name in touched.flags.union(&touched.own) {
            match view.evaluate(name, &*self.user, now).filter(|evaluated| evaluated.flag.client_visible()) {
                Some(evaluated) => {
                    if data.len() > empty {
                        data.push(',');
                    }
                    write_named_result(&mut data, &evaluated, reasons);
                    tally.count(&evaluated.resolution);
                }
                None if touched.flags.contains(name) || is_shown(name) => unset.push(name),
                None => {}
            }
        }
        tally.publish();
        self.valid_until = view.valid_until(&self.user, now);
        if data.len() == empty && unset.is_empty() {
            return;
        }
        write_end_of_change(&mut data, &unset, self.valid_until);
        self.connection.write(out, "change", Some(here), &data);
    }

    /// Looks the user up anew. While that cannot be done the stream stays where it is and tries again every second or so.
    async fn look_up(&mut self, as_of: i64) -> LookedUp {
        // On the heap while it lasts: every stream would carry room for it all its life.
        match Box::pin(self.connection.app.evaluation.user(self.user.id)).await {
            Ok(Some(user)) if user.active => {
                if user.context != self.user.context {
                    // Every flag may differ.
                    self.cursor = None;
                }
                self.user = user;
                self.user_as_of = as_of;
                LookedUp::Known
            }
            Ok(_) => LookedUp::Nobody,
            Err(_) => LookedUp::Unavailable,
        }
    }
}

/// What came of looking a user up.
enum LookedUp {
    Known,
    /// They are gone or inactive.
    Nobody,
    /// The database cannot be asked.
    Unavailable,
}

impl EventStream for OwnFlagStream {
    fn connection(&mut self) -> &mut Connection {
        &mut self.connection
    }

    fn hear(&mut self) {
        self.signals.hear();
    }

    /// What is known of the user is looked up as often as it takes.
    async fn pull(&mut self, out: &mut String) -> Pulled {
        loop {
            let as_of = match self.look(out) {
                Looked::UpToDate => return Pulled::UpToDate,
                Looked::Revoked => return Pulled::Revoked,
                Looked::UserTouched(as_of) => as_of,
            };
            match self.look_up(as_of).await {
                LookedUp::Known => {}
                LookedUp::Nobody => return Pulled::Revoked,
                LookedUp::Unavailable => return Pulled::Blocked,
            }
        }
    }

    fn position(&self) -> Option<Cursor> {
        self.cursor
    }

    async fn wait(&mut self, blocked: bool) {
        if blocked {
            // Neither a signal nor an instant that has passed may make it ask the database without a pause.
            return self.connection.wait_to_try_again().await;
        }
        self.connection.wait(pin!(self.signals.woken()), self.valid_until).await;
    }
}
