//! Flags with their scheduled changes and counts.

use std::collections::HashMap;

use flags_domain::{EffectiveSettings, FlagName, Instant, ScheduledChange};
use flags_store::{Conn, Tx, flags::FlagRecord, overrides, schedules};

use crate::error::Result;

/// Flag with its scheduled changes and counts.
#[derive(Clone, Debug)]
pub struct FlagDetail {
    /// Stored flag.
    pub record: FlagRecord,
    /// All scheduled changes of the flag.
    pub schedule: Vec<ScheduledChange>,
    /// Number of unexpired overrides; 0 for an archived flag.
    pub override_count: i64,
    /// Number of pending scheduled changes.
    pub pending_change_count: i64,
}

impl FlagDetail {
    /// Returns `default` and `enabled` with the scheduled changes that are due at `now`.
    pub fn effective(&self, now: Instant) -> EffectiveSettings<'_> {
        EffectiveSettings::at(&self.record.flag, &self.schedule, now)
    }

    /// Builds the detail of a flag. `schedule` are all its scheduled changes, and `override_count` is the number of
    /// its unexpired overrides.
    fn new(record: FlagRecord, schedule: Vec<ScheduledChange>, override_count: i64, now: Instant) -> Self {
        let is_archived = record.flag.archived_at.is_some();
        let pending =
            schedule.iter().filter(|change| change.cancelled_at.is_none() && change.scheduled_at > now).count();
        Self {
            record,
            schedule,
            override_count: if is_archived { 0 } else { override_count },
            pending_change_count: i64::try_from(pending).unwrap_or(i64::MAX),
        }
    }

    /// Counts the overrides of a flag within the transaction, and builds the detail. `schedule` are all scheduled
    /// changes of the flag.
    pub(super) async fn load(tx: &mut Tx, record: FlagRecord, schedule: Vec<ScheduledChange>) -> Result<Self> {
        let now = tx.now();
        let counts = overrides::count_by_flag(tx.conn(), std::slice::from_ref(&record.flag.name), now).await?;
        let override_count = counts.get(record.flag.name.as_str()).copied().unwrap_or(0);
        Ok(Self::new(record, schedule, override_count, now))
    }
}

/// Scheduled changes and override counts of a set of flags, loaded with one query each.
pub(super) struct FlagRelatedData {
    schedules: HashMap<FlagName, Vec<ScheduledChange>>,
    override_counts: HashMap<String, i64>,
    now: Instant,
}

impl FlagRelatedData {
    pub(super) async fn load(conn: &mut Conn, names: &[FlagName], now: Instant) -> flags_store::Result<Self> {
        let mut by_flag: HashMap<_, Vec<_>> = HashMap::new();
        for record in schedules::find_by_flags(conn, names).await? {
            by_flag.entry(record.flag_name).or_default().push(record.change);
        }
        Ok(Self { schedules: by_flag, override_counts: overrides::count_by_flag(conn, names, now).await?, now })
    }

    /// Builds the detail of a flag. Moves the data out, so call it only once per flag.
    pub(super) fn take_detail(&mut self, record: FlagRecord) -> FlagDetail {
        let schedule = self.schedules.remove(&record.flag.name).unwrap_or_default();
        let override_count = self.override_counts.remove(record.flag.name.as_str()).unwrap_or(0);
        FlagDetail::new(record, schedule, override_count, self.now)
    }
}
