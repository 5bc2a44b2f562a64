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
}

/// Scheduled changes and counts for a set of flags, loaded with one query per kind.
pub(super) struct FlagRelatedData {
    schedules: HashMap<FlagName, Vec<ScheduledChange>>,
    override_counts: HashMap<String, i64>,
    pending_change_counts: HashMap<String, i64>,
}

impl FlagRelatedData {
    pub(super) async fn load(conn: &mut Conn, names: &[FlagName], now: Instant) -> flags_store::Result<Self> {
        let mut by_flag: HashMap<_, Vec<_>> = HashMap::new();
        for record in schedules::find_by_flags(conn, names).await? {
            by_flag.entry(record.flag_name).or_default().push(record.change);
        }
        Ok(Self {
            schedules: by_flag,
            override_counts: overrides::count_by_flag(conn, names, now).await?,
            pending_change_counts: schedules::count_pending(conn, names, now).await?,
        })
    }

    /// Returns the detail of a flag, read within the transaction.
    pub(super) async fn load_detail(tx: &mut Tx, record: FlagRecord) -> Result<FlagDetail> {
        let now = tx.now();
        let mut related = Self::load(tx.conn(), std::slice::from_ref(&record.flag.name), now).await?;
        Ok(related.take_detail(record))
    }

    /// Builds the detail of a flag. Moves the data out, so it works once per flag.
    pub(super) fn take_detail(&mut self, record: FlagRecord) -> FlagDetail {
        let name = &record.flag.name;
        let is_archived = record.flag.archived_at.is_some();
        FlagDetail {
            schedule: self.schedules.remove(name).unwrap_or_default(),
            override_count: if is_archived { 0 } else { self.override_counts.remove(name.as_str()).unwrap_or(0) },
            pending_change_count: self.pending_change_counts.remove(name.as_str()).unwrap_or(0),
            record,
        }
    }
}
