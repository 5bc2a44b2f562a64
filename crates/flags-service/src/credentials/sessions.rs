//! Sessions: who is signed in. How somebody signed in does not matter to what a session is.
//!
//! A session lives in the database; each server remembers for a second what it read of those in use, and for as long as the
//! database is out of reach. So one that is ended anywhere is void everywhere within two seconds.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant as Moment},
};

use flags_domain::Instant;
use flags_store::{
    Author, Tx,
    passwords::{self as store_passwords, Account, PasswordHash},
    sessions::{self as store, SessionRecord},
    users,
};
use parking_lot::Mutex;
use quick_cache::sync::Cache;
use uuid::Uuid;

use super::{
    passwords::{self, Password},
    secret::{Secret, SecretKind, hash},
    throttle::{self, Attempt, Reserve},
};
use crate::{
    core::{Command, Core, Done},
    error::{Result, ServiceError, Thing},
    users::set_password,
};

/// What was read of a session counts for so long.
const FRESH_FOR: Duration = Duration::from_secs(1);
/// How long a look at the database may take for a session that is known already.
const LOOK: Duration = Duration::from_secs(1);
/// Most sessions remembered.
const CAPACITY: usize = 100_000;
/// How exactly the last use is written down, in microseconds: to the minute.
const TOUCH_EVERY: i64 = 60 * 1_000_000;

/// How long sessions live.
#[derive(Clone, Copy, Debug)]
pub struct Lifetimes {
    /// Without being used.
    pub idle: Duration,
    /// However much they are used.
    pub absolute: Duration,
}

impl Default for Lifetimes {
    fn default() -> Self {
        Self { idle: Duration::from_secs(8 * 3_600), absolute: Duration::from_secs(7 * 24 * 3_600) }
    }
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

/// Somebody who wants to sign in with a password.
#[derive(Clone, Debug)]
pub struct SignIn {
    /// In whatever case.
    pub email: String,
    /// As typed.
    pub password: Password,
    /// Where the attempt comes from.
    pub address: String,
    /// The session that the new one takes the place of, by its SHA-256.
    pub previous: Option<[u8; 32]>,
}

/// A session that has just begun.
#[derive(Clone, Debug)]
pub struct SignedIn {
    /// For the cookie.
    pub secret: Secret,
    /// The session.
    pub session: SessionRecord,
}

/// What is remembered of a session.
struct Known {
    session: SessionRecord,
    seen: Mutex<Seen>,
}

struct Seen {
    /// When the database was last asked.
    read_at: Moment,
    /// When it was last used here or, as the database says, elsewhere.
    used_at: Instant,
    /// What of that is written down.
    written: Instant,
}

/// Signs people in and out, and knows who is signed in.
#[derive(Clone)]
pub struct SessionService {
    core: Core,
    lifetimes: Lifetimes,
    known: Arc<Cache<[u8; 32], Arc<Known>>>,
}

impl fmt::Debug for SessionService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionService").field("lifetimes", &self.lifetimes).finish_non_exhaustive()
    }
}

impl SessionService {
    /// On this core.
    pub fn new(core: Core, lifetimes: Lifetimes) -> Self {
        Self { core, lifetimes, known: Arc::new(Cache::new(CAPACITY)) }
    }

    /// How long sessions live.
    pub const fn lifetimes(&self) -> Lifetimes {
        self.lifetimes
    }

    /// Signs somebody in: a new session, under a new secret. Takes the same time whether or not there is such an account.
    pub async fn sign_in(&self, wanted: SignIn) -> Result<SignedIn> {
        let attempt = Attempt::new(&wanted.email, &wanted.address);
        self.core.execute(book_keeper(), Reserve(attempt)).await?;
        let account = self.core.read(async |conn| store_passwords::account(conn, &wanted.email).await).await?;
        let expected = account.as_ref().map(|account| account.hash.clone());
        let fits = passwords::verify(wanted.password, expected).await?;
        let Some(account) = account.filter(|account| fits && account.active) else {
            return Err(ServiceError::SignInRefused);
        };
        let open = self.open(&account, attempt, wanted.previous)?;
        let (secret, previous) = (open.secret.clone(), open.previous);
        let session = self.core.execute(book_keeper(), open).await?.output;
        if let Some(previous) = previous {
            self.known.remove(&previous);
        }
        Ok(SignedIn { secret, session })
    }

    fn open(&self, account: &Account, attempt: Attempt, previous: Option<[u8; 32]>) -> Result<OpenSession> {
        let secret = Secret::generate(SecretKind::Session)?;
        let password = account.hash.clone();
        Ok(OpenSession {
            id: Uuid::now_v7(),
            user_id: account.user_id,
            secret,
            password,
            attempt,
            previous,
            lifetimes: self.lifetimes,
        })
    }

    /// The session whose secret has this SHA-256, if it is alive. `used` says whether this is a use of it. While the database
    /// is out of reach a known session stays what it was.
    pub async fn find(&self, hash: &[u8; 32], used: bool) -> Result<Option<SessionRecord>> {
        let now = self.core.now();
        let known = match self.known.get(hash) {
            Some(known) if !known.needs_look() => Some(known),
            known => self.look_up(hash, known).await?,
        };
        let Some(known) = known.filter(|known| self.is_alive(known, now)) else { return Ok(None) };
        if used {
            self.note_use(&known, now);
        }
        Ok(Some(known.session))
    }

    async fn look_up(&self, hash: &[u8; 32], before: Option<Arc<Known>>) -> Result<Option<Arc<Known>>> {
        let read = self.core.read(async |conn| store::find(conn, hash).await);
        let found = match &before {
            None => read.await,
            // Better an old answer than none for long.
            Some(_) => tokio::time::timeout(LOOK, read).await.unwrap_or(Err(ServiceError::ContextUnavailable)),
        };
        match (found, before) {
            (Ok(Some(session)), Some(before)) => {
                before.refresh(&session);
                Ok(Some(before))
            }
            (Ok(Some(session)), None) => {
                let known = Arc::new(Known::new(session));
                self.known.insert(*hash, Arc::clone(&known));
                Ok(Some(known))
            }
            (Ok(None), _) => {
                self.known.remove(hash);
                Ok(None)
            }
            (Err(_), Some(before)) => Ok(Some(before)),
            (Err(_), None) => Err(ServiceError::ContextUnavailable),
        }
    }

    fn is_alive(&self, known: &Known, now: Instant) -> bool {
        let idle_end = known.seen.lock().used_at.plus_micros(micros(self.lifetimes.idle));
        now < known.session.ends_at && now < idle_end
    }

    /// Notes a use; now and then in the database as well, for other servers and for after a restart.
    fn note_use(&self, known: &Known, now: Instant) {
        let write = {
            let mut seen = known.seen.lock();
            seen.used_at = seen.used_at.max(now);
            let due = seen.written.plus_micros(TOUCH_EVERY) <= now;
            if due {
                seen.written = now;
            }
            due
        };
        if write {
            let (core, id) = (self.core.clone(), known.session.id);
            tokio::spawn(async move {
                if let Err(error) = store::touch(core.store(), id, now).await {
                    tracing::debug!(%error, "the last use of a session was not written down");
                }
            });
        }
    }

    /// Ends a session.
    pub async fn sign_out(&self, session: &SessionRecord) -> Result<()> {
        self.core.execute(book_keeper(), EndSession { hash: session.hash }).await?;
        self.known.remove(&session.hash);
        Ok(())
    }

    /// Ends all sessions of a user.
    pub async fn sign_out_everywhere(&self, user_id: Uuid) -> Result<()> {
        self.core.execute(book_keeper(), EndAll { user_id }).await?;
        self.forget(user_id);
        Ok(())
    }

    /// Forgets what is remembered of a user's sessions: the next look goes to the database.
    pub fn forget(&self, user_id: Uuid) {
        self.known.retain(|_, known| known.session.user_id != user_id);
    }

    /// Changes the password of whoever is signed in, if they know the present one. All their sessions end; a new one begins.
    pub async fn change_password(
        &self,
        author: Author,
        session: &SessionRecord,
        address: &str,
        passwords: NewPassword,
    ) -> Result<Done<SignedIn>> {
        let user = self.core.read(async |conn| users::find(conn, session.user_id).await).await?;
        let user = user.ok_or(ServiceError::NotFound(Thing::User))?;
        if let Some(violation) = passwords.new.violation("/new_password", &user.email) {
            return Err(violation.into());
        }
        let attempt = Attempt::new(&user.email, address);
        self.core.execute(book_keeper(), Reserve(attempt)).await?;
        let present = self.core.read(async |conn| store_passwords::find(conn, user.id).await).await?;
        if !passwords::verify(passwords.present, present.clone()).await? {
            return Err(ServiceError::SignInRefused);
        }
        let Some(present) = present else { return Err(ServiceError::SignInRefused) };
        let hash = passwords::hash(passwords.new).await?;
        let account = Account { user_id: user.id, active: true, hash: present };
        let open = self.open(&account, attempt, None)?;
        let secret = open.secret.clone();
        let done = self.core.execute(author, ChangePassword { open, hash }).await?;
        self.forget(user.id);
        let signed_in = SignedIn { secret, session: done.output };
        Ok(Done { output: signed_in, committed: done.committed })
    }
}

/// What somebody types to change their password.
#[derive(Clone, Debug)]
pub struct NewPassword {
    /// The one they have.
    pub present: Password,
    /// The one they want.
    pub new: Password,
}

impl Known {
    fn new(session: SessionRecord) -> Self {
        let (used_at, written) = (session.last_seen_at, session.last_seen_at);
        Self { session, seen: Mutex::new(Seen { read_at: Moment::now(), used_at, written }) }
    }

    /// Whether the database should be asked. Of those who come at once one asks, and the others go on with what is known.
    fn needs_look(&self) -> bool {
        let mut seen = self.seen.lock();
        let due = seen.read_at.elapsed() >= FRESH_FOR;
        if due {
            seen.read_at = Moment::now();
        }
        due
    }

    fn refresh(&self, session: &SessionRecord) {
        let mut seen = self.seen.lock();
        seen.used_at = seen.used_at.max(session.last_seen_at);
    }
}

/// Who stands for what takes no revision: it is never seen.
fn book_keeper() -> Author {
    Author { actor: "system:sessions".to_owned(), request_id: None }
}

#[derive(Clone)]
struct OpenSession {
    id: Uuid,
    user_id: Uuid,
    secret: Secret,
    /// The password that was checked: if it was changed since, it no longer opens anything.
    password: PasswordHash,
    attempt: Attempt,
    previous: Option<[u8; 32]>,
    lifetimes: Lifetimes,
}

impl Command for OpenSession {
    type Output = SessionRecord;
    const BOOK_KEEPING: bool = true;

    async fn apply(&self, tx: &mut Tx, _: &Author) -> Result<SessionRecord> {
        // Nobody can deactivate the user, or change the password, before this session is there to be ended.
        tx.share_user(self.user_id).await?;
        let active = users::find(tx.conn(), self.user_id).await?.is_some_and(|user| user.active);
        let password = store_passwords::find(tx.conn(), self.user_id).await?;
        if !active || password.as_ref() != Some(&self.password) {
            return Err(ServiceError::SignInRefused);
        }
        self.insert(tx).await
    }
}

impl OpenSession {
    async fn insert(&self, tx: &mut Tx) -> Result<SessionRecord> {
        if let Some(previous) = &self.previous {
            store::delete(tx, previous).await?;
        }
        throttle::succeeded(tx, &self.attempt).await?;
        let now = tx.now();
        let session = SessionRecord {
            id: self.id,
            hash: hash(self.secret.reveal()),
            user_id: self.user_id,
            created_at: now,
            last_seen_at: now,
            ends_at: now.plus_micros(micros(self.lifetimes.absolute)),
        };
        store::insert(tx, &session).await?;
        Ok(session)
    }
}

#[derive(Clone)]
struct ChangePassword {
    open: OpenSession,
    hash: PasswordHash,
}

impl Command for ChangePassword {
    type Output = SessionRecord;

    async fn apply(&self, tx: &mut Tx, _: &Author) -> Result<SessionRecord> {
        let user_id = self.open.user_id;
        tx.claim_user(user_id).await?;
        let user = users::find(tx.conn(), user_id).await?.filter(|user| user.active);
        let user = user.ok_or(ServiceError::NotFound(Thing::User))?;
        if store_passwords::find(tx.conn(), user_id).await?.as_ref() != Some(&self.open.password) {
            return Err(ServiceError::SignInRefused);
        }
        set_password(tx, &user, &self.hash).await?;
        self.open.insert(tx).await
    }
}

#[derive(Clone)]
struct EndSession {
    hash: [u8; 32],
}

impl Command for EndSession {
    type Output = ();
    const BOOK_KEEPING: bool = true;

    async fn apply(&self, tx: &mut Tx, _: &Author) -> Result<()> {
        Ok(store::delete(tx, &self.hash).await?)
    }
}

#[derive(Clone)]
struct EndAll {
    user_id: Uuid,
}

impl Command for EndAll {
    type Output = ();
    const BOOK_KEEPING: bool = true;

    async fn apply(&self, tx: &mut Tx, _: &Author) -> Result<()> {
        Ok(store::delete_of_user(tx, self.user_id).await?)
    }
}
