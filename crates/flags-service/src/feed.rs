//! Follows the log and feeds the replica: one task a process.

use std::{sync::Arc, time::Duration};

use flags_domain::{Change, Snapshot};
use flags_store::{Conn, Store, StoreError, credentials, flags, log, overrides, schedules};
use rustc_hash::FxHashMap;
use tokio::{
    sync::Notify,
    time::{MissedTickBehavior, interval, timeout},
};

use crate::{
    clock::Clock,
    metrics::{self, ActiveGauge},
    replica::{Commit, Loaded, Replica},
};

/// The log is read at least so often, whether or not anything rings.
const TICK: Duration = Duration::from_secs(1);
/// Longest that following the log, or one query of a load, may take.
const DEADLINE: Duration = Duration::from_secs(10);
/// Rows of the log read at once.
const BATCH: usize = 5_000;
/// Overrides loaded at once.
const LOAD_BATCH: i64 = 10_000;

/// What the feed needs.
pub struct Feed {
    /// Where the log is.
    pub store: Store,
    /// What is fed.
    pub replica: Arc<Replica>,
    /// Rung after every commit of this process.
    pub bell: Arc<Notify>,
    /// For the gauges.
    pub clock: Arc<dyn Clock>,
}

/// Ends what the database does not answer in time.
async fn bounded<T>(work: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
    let outcome = timeout(DEADLINE, work).await;
    outcome.unwrap_or_else(|_| Err(StoreError::Unavailable("no answer in time".to_owned())))
}

/// Reads everything at one revision. Each query is bounded in time, not the whole: very many overrides take a while.
pub async fn load(store: &Store) -> Result<Loaded, StoreError> {
    let mut conn = bounded(store.snapshot()).await?;
    let revision = bounded(log::head(&mut conn)).await?;
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
    let tokens = bounded(credentials::load_all(&mut conn)).await?;
    let mut loaded = Loaded::new(revision, snapshot, tokens);
    let mut after = None;
    loop {
        let (batch, last) = bounded(overrides::load_after(&mut conn, after, LOAD_BATCH)).await?;
        if last.is_none() {
            return Ok(loaded);
        }
        after = last;
        for record in batch {
            match record {
                Ok(record) => loaded.add(&record.user_override),
                Err(error) => tracing::error!(%error, "an override cannot be read and has no effect"),
            }
        }
    }
}

impl Feed {
    /// Follows the log until the task is dropped. A database that cannot be read is tried again at every tick; meanwhile
    /// the replica serves what it has.
    pub async fn run(self) {
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut gauge = ActiveGauge::default();
        let mut failing = false;
        loop {
            let ticked = tokio::select! {
                _ = tick.tick() => true,
                () = self.bell.notified() => false,
            };
            let outcome = self.catch_up().await;
            match &outcome {
                Ok(()) if failing => tracing::info!("the log can be read again"),
                Err(error) if !failing => tracing::error!(%error, "the log cannot be read; serving the last state"),
                _ => {}
            }
            failing = outcome.is_err();
            if ticked {
                gauge.set(self.replica.count_active(self.clock.now()));
            }
            metrics::show_replica(self.replica.revision().number, self.replica.age());
        }
    }

    /// Brings the replica up to the log's head, or loads everything anew if what is there does not follow on what was
    /// applied.
    pub async fn catch_up(&self) -> Result<(), StoreError> {
        let why = match bounded(self.follow()).await {
            Ok(None) => return Ok(()),
            Ok(Some(why)) => why,
            Err(StoreError::Corrupt(what)) => {
                tracing::error!(what, "the log holds what this program cannot read");
                "the log cannot be followed"
            }
            Err(error) => return Err(error),
        };
        tracing::warn!("{why}: loading everything anew");
        self.replica.replace(load(&self.store).await?);
        self.replica.mark_read();
        Ok(())
    }

    /// Applies what is new; gives the reason if that cannot be done.
    async fn follow(&self) -> Result<Option<&'static str>, StoreError> {
        let mut conn = self.store.feed_conn().await?;
        loop {
            let at = self.replica.revision();
            let head = log::head(&mut conn).await?;
            if head.epoch != at.epoch || head.number < at.number {
                return Ok(Some("the database was restored"));
            }
            if head.number == at.number {
                self.replica.mark_read();
                return Ok(None);
            }
            if !self.apply_next(&mut conn, at).await? {
                return Ok(Some("the log has a hole"));
            }
        }
    }

    /// Applies the next part of the log; `false` if what is there does not follow on what was applied.
    async fn apply_next(&self, conn: &mut Conn, at: log::Revision) -> Result<bool, StoreError> {
        let rows = log::read_after(conn, at.number, BATCH).await?;
        if rows.is_empty() {
            return Ok(false);
        }
        let mut next = at.number;
        for rows in rows.chunk_by(|a, b| a.revision == b.revision) {
            next += 1;
            if rows[0].revision != next {
                return Ok(false);
            }
            let changes = rows.iter().map(log::LoggedChange::change).collect::<Result<Vec<_>, _>>()?;
            let touched = |change: &Change| if let Change::TokenTouched(id) = change { Some(*id) } else { None };
            let ids: Vec<_> = changes.iter().filter_map(touched).collect();
            let tokens = if ids.is_empty() { Vec::new() } else { credentials::find_all(conn, &ids).await? };
            self.replica.apply(Commit { revision: log::Revision { number: next, ..at }, changes, tokens });
        }
        Ok(true)
    }
}
