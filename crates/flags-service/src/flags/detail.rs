//! A flag as its readers see it.

use std::collections::HashMap;

use flags_domain::{Effective, FlagName, Instant, ScheduledChange};
use flags_store::{Conn, Tx, flags::FlagRecord, overrides, schedules};

use crate::error::Result;

/// A flag with what its readers want to see beside it.
#[derive(Clone, Debug)]
pub struct FlagDetail {
    /// The flag.
    pub record: FlagRecord,
    /// All its scheduled changes.
    pub schedule: Vec<ScheduledChange>,
    /// Its unexpired overrides; 0 while archived.
    pub override_count: i64,
    /// Its scheduled changes to come.
    pub pending_change_count: i64,
}

impl FlagDetail {
    /// Default and switch as they act at `now`.
    pub fn effective(&self, now: Instant) -> Effective<'_> {
        Effective::at(&self.record.flag, &self.schedule, now)
    }
}

/// What the readers of some flags want to see beside them.
pub(super) struct Beside {
    schedules: HashMap<FlagName, Vec<ScheduledChange>>,
    overrides: HashMap<String, i64>,
    pending: HashMap<String, i64>,
}

impl Beside {
    pub(super) async fn read(conn: &mut Conn, names: &[FlagName], now: Instant) -> flags_store::Result<Self> {
        let mut by_flag: HashMap<_, Vec<_>> = HashMap::new();
        for record in schedules::of_flags(conn, names).await? {
            by_flag.entry(record.flag_name).or_default().push(record.change);
        }
        Ok(Self {
            schedules: by_flag,
            overrides: overrides::count_by_flag(conn, names, now).await?,
            pending: schedules::count_pending(conn, names, now).await?,
        })
    }

    /// The detail of a flag as the transaction leaves it.
    pub(super) async fn within(tx: &mut Tx, record: FlagRecord) -> Result<FlagDetail> {
        let now = tx.now();
        let mut beside = Self::read(tx.conn(), std::slice::from_ref(&record.flag.name), now).await?;
        Ok(beside.detail(record))
    }

    pub(super) fn detail(&mut self, record: FlagRecord) -> FlagDetail {
        let name = &record.flag.name;
        let archived = record.flag.archived_at.is_some();
        FlagDetail {
            schedule: self.schedules.remove(name).unwrap_or_default(),
            override_count: if archived { 0 } else { self.overrides.remove(name.as_str()).unwrap_or(0) },
            pending_change_count: self.pending.remove(name.as_str()).unwrap_or(0),
            record,
        }
    }
}
