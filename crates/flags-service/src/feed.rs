//! Follows the log and feeds the replica, listens for news, and tells when answers become stale: one task a process.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use flags_domain::{Change, Snapshot};
use flags_store::{Conn, Store, StoreError, api_tokens, change_log, flags, overrides, schedules, within};
use parking_lot::Mutex;
use rustc_hash::{FxHashMap, FxHashSet};
use tokio::{
    sync::Notify,
    time::{Instant, MissedTickBehavior, interval, sleep},
};
use uuid::Uuid;

use crate::{
    clock::Clock,
    metrics::{self, ActiveGauge},
    replica::{Commit, Loaded, Replica},
};

/// The log is read at least so often, whether or not anything rings.
const TICK: Duration = Duration::from_secs(1);
/// Longest that following the log, or one query of a load, may take.
const DEADLINE: Duration = Duration::from_secs(10);
/// How often it is looked whether answers have become stale.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Rows of the log read at once.
const BATCH: usize = 5_000;
/// Changes remembered from before this process began, so that streams can be resumed.
const RECENT: i64 = 20_000;
/// Shortest and longest wait before listening is tried again.
const LISTEN_AGAIN: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// Follows the log for one replica.
pub struct Feed {
    /// Where the log is.
    store: Store,
    /// What is fed.
    replica: Arc<Replica>,
    /// Rung after every commit of this process.
    wakeup: Arc<Notify>,
    /// Tells how late changes arrive, and which overrides are active.
    clock: Arc<dyn Clock>,
    /// The epochs that this process has left: one that comes back means that a backup was restored.
    left: Mutex<FxHashSet<Uuid>>,
}

/// Ends what the database does not answer in time.
async fn bounded<T>(work: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
    within(DEADLINE, work).await
}

/// Begins a new epoch if the log was written by another database than it stands in now. To be called before a server's first
/// [`load`].
pub async fn check_lineage(store: &Store) -> Result<(), StoreError> {
    if bounded(store.adopt_lineage()).await? {
        tracing::warn!("the log was written by another database, or on another timeline: a new epoch has begun");
    }
    Ok(())
}

/// Reads everything at one revision. Each query is bounded in time, not the whole: very many overrides take a while.
pub async fn load(store: &Store) -> Result<Loaded, StoreError> {
    let begun = Instant::now();
    let mut conn = bounded(store.snapshot()).await?;
    let revision = bounded(change_log::head(&mut conn)).await?;
    let mut schedules_by_flag: FxHashMap<_, Vec<_>> = FxHashMap::default();
    for record in bounded(schedules::load_all(&mut conn)).await? {
        schedules_by_flag.entry(record.flag_name).or_default().push(record.change);
    }
    let flags = bounded(flags::load_all(&mut conn)).await?.into_iter().map(|record| {
        let schedule = schedules_by_flag.remove(&record.flag.name).unwrap_or_default();
        (record.flag, schedule)
    });
    let snapshot = Snapshot::new(flags.collect::<Vec<_>>());
    for flag in snapshot.iter() {
        if let Some(failure) = flag.compiled().failure() {
            tracing::error!(flag = %flag.flag().name, %failure, "a flag cannot be compiled; it serves overrides only");
        }
    }
    let tokens = bounded(api_tokens::load_all(&mut conn)).await?;
    let recent = match bounded(change_log::recent(&mut conn, RECENT)).await {
        // Without it, streams begin anew.
        Err(StoreError::Corrupt(_)) => Vec::new(),
        read => read?,
    };
    let dense = recent.last().is_none_or(|last| last.revision == revision.number)
        && recent.windows(2).all(|pair| pair[1].revision - pair[0].revision <= 1);
    let mut loaded = Loaded::new(revision, snapshot, tokens, if dense { &recent } else { &[] });
    let mut count = 0_u64;
    overrides::load_each(&mut conn, DEADLINE, |found| match found {
        Ok(found) => {
            loaded.add(&found);
            count += 1;
        }
        Err(error) => tracing::error!(%error, "an override cannot be read and has no effect"),
    })
    .await?;
    tracing::info!(%revision, overrides = count, seconds = begun.elapsed().as_secs_f64(), "everything is loaded");
    metrics::show_load(begun.elapsed());
    Ok(loaded)
}

impl Feed {
    /// A feed of this replica; `wakeup` is rung after every commit of this process.
    pub fn new(store: Store, replica: Arc<Replica>, wakeup: Arc<Notify>, clock: Arc<dyn Clock>) -> Self {
        Self { store, replica, wakeup, clock, left: Mutex::default() }
    }

    /// Follows the log until the task is dropped. A database that cannot be read is tried again at every tick; meanwhile
    /// the replica serves what it has.
    pub async fn run(self) {
        let listening = AtomicBool::new(false);
        tokio::join!(self.listen(&listening), self.follow(), self.watch(&listening));
    }

    /// Rings the bell whenever the listener hears something, and once whenever a listener begins, as news may have come
    /// while nobody listened. Deafness costs time, at most a tick, and no change.
    async fn listen(&self, listening: &AtomicBool) {
        let mut pause = LISTEN_AGAIN.0;
        loop {
            match self.store.listen().await {
                Ok(mut listener) => {
                    pause = LISTEN_AGAIN.0;
                    listening.store(true, Ordering::Relaxed);
                    self.wakeup.notify_one();
                    let error = loop {
                        match listener.heard().await {
                            Ok(()) => self.wakeup.notify_one(),
                            Err(error) => break error,
                        }
                    };
                    tracing::warn!(%error, "news of other processes are read at the tick only; listening again");
                }
                Err(error) => tracing::debug!(%error, "cannot listen"),
            }
            listening.store(false, Ordering::Relaxed);
            sleep(pause).await;
            pause = (pause * 2).min(LISTEN_AGAIN.1);
        }
    }

    async fn follow(&self) {
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut gauge = ActiveGauge::default();
        let mut failing = false;
        loop {
            let ticked = tokio::select! {
                _ = tick.tick() => true,
                () = self.wakeup.notified() => false,
            };
            let outcome = if ticked { check_lineage(&self.store).await } else { Ok(()) };
            let outcome = match outcome {
                Ok(()) => self.catch_up().await,
                failed => failed,
            };
            match &outcome {
                Ok(()) if failing => tracing::info!("the log can be read again"),
                Err(error) if !failing => tracing::error!(%error, "the log cannot be read; serving the last state"),
                _ => {}
            }
            failing = outcome.is_err();
            if ticked {
                let now = self.clock.now();
                gauge.set(self.replica.count_active(now));
                metrics::show_pending_changes(self.replica.read().count_pending_changes(now));
            }
        }
    }

    /// Tells streams and metrics when answers become stale and when they are no longer, also while the database keeps
    /// whoever follows it waiting.
    async fn watch(&self, listening: &AtomicBool) {
        let mut look = interval(LOOK_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut stale = false;
        loop {
            look.tick().await;
            if std::mem::replace(&mut stale, self.replica.is_stale()) != stale {
                self.replica.notifier().wake_all();
            }
            metrics::show_listener(listening.load(Ordering::Relaxed));
            metrics::show_replica(self.replica.revision().number, self.replica.age());
        }
    }

    /// Brings the replica up to the log's head, or loads everything anew if what is there does not follow on what was
    /// applied.
    pub async fn catch_up(&self) -> Result<(), StoreError> {
        let why = match bounded(self.read_on()).await {
            Ok(None) => return Ok(()),
            Ok(Some(why)) => why,
            Err(StoreError::Corrupt(what)) => {
                tracing::error!(what, "the log holds what this program cannot read");
                ReloadReason::Unreadable
            }
            Err(error) => return Err(error),
        };
        if let ReloadReason::Restored(epoch) = why
            && bounded(self.store.begin_epoch_after(epoch)).await?
        {
            tracing::warn!("the log went back: a backup was restored, and a new epoch has begun");
        }
        tracing::warn!(reason = why.as_str(), "the log cannot be followed: loading everything anew");
        metrics::count_reload(why.as_str());
        let before = self.replica.revision().epoch;
        self.replica.replace(load(&self.store).await?);
        self.replica.mark_read();
        if before != self.replica.revision().epoch {
            self.left.lock().insert(before);
        }
        Ok(())
    }

    /// Applies what is new; gives the reason if that cannot be done.
    async fn read_on(&self) -> Result<Option<ReloadReason>, StoreError> {
        let mut conn = self.store.feed_conn().await?;
        loop {
            let at = self.replica.revision();
            let (head, rows) = change_log::read_on(&mut conn, at.number, BATCH).await?;
            metrics::show_log_head(head.number);
            if head.epoch != at.epoch {
                let known = self.left.lock().contains(&head.epoch);
                return Ok(Some(if known { ReloadReason::Restored(head.epoch) } else { ReloadReason::OtherEpoch }));
            }
            if head.number < at.number {
                return Ok(Some(ReloadReason::Restored(head.epoch)));
            }
            if head.number == at.number {
                self.replica.mark_read();
                return Ok(None);
            }
            if !self.apply(&mut conn, at, rows).await? {
                return Ok(Some(ReloadReason::Hole));
            }
        }
    }

    /// Applies the next part of the log; `false` if it does not follow on what was applied.
    async fn apply(
        &self,
        conn: &mut Conn,
        at: change_log::Revision,
        rows: Vec<change_log::LoggedChange>,
    ) -> Result<bool, StoreError> {
        let mut next = at.number;
        for rows in rows.chunk_by(|a, b| a.summary.revision == b.summary.revision) {
            next += 1;
            if rows[0].summary.revision != next {
                return Ok(false);
            }
            let read = |row: &change_log::LoggedChange| Ok((row.summary.clone(), row.change()?));
            let changes = rows.iter().map(read).collect::<Result<Vec<_>, StoreError>>()?;
            let touched = |change: &Change| if let Change::TokenTouched(id) = change { Some(*id) } else { None };
            let ids: Vec<_> = changes.iter().filter_map(|(_, change)| touched(change)).collect();
            let tokens = if ids.is_empty() { Vec::new() } else { api_tokens::find_all(conn, &ids).await? };
            metrics::record_propagation(rows[0].summary.at, self.clock.now());
            self.replica.apply(Commit { revision: change_log::Revision { number: next, ..at }, changes, tokens });
        }
        Ok(next > at.number)
    }
}

/// Why the log cannot be followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ReloadReason {
    OtherEpoch,
    /// The log went back: within this epoch, or to it.
    Restored(Uuid),
    Hole,
    Unreadable,
}

impl ReloadReason {
    const fn as_str(self) -> &'static str {
        match self {
            Self::OtherEpoch => "other_epoch",
            Self::Restored(_) => "restored",
            Self::Hole => "hole",
            Self::Unreadable => "unreadable",
        }
    }
}
