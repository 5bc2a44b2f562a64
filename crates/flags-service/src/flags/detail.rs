//! Flags with their scheduled changes and counts.

use std::collections::HashMap;

use flags_domain::{EffectiveSettings, FlagName, Instant, ScheduledChange};
use flags_store::{
    Conn, StoreError, Tx,
    flags::{FlagRecord, StoredFlag, UnreadableFlagRecord},
    overrides,
    schedules::{self, ScheduleRecord, StoredSchedule},
};

use crate::error::Result;

/// Flag in lists and responses.
#[derive(Clone, Debug)]
pub enum FlagItem {
    /// Flag whose definition and scheduled changes can be read.
    Readable(Box<FlagDetail>),
    /// Flag whose definition, or one of whose scheduled changes, cannot be read by this version.
    Unreadable(Box<UnreadableFlagDetail>),
}

impl FlagItem {
    /// Unique name.
    pub const fn name(&self) -> &FlagName {
        match self {
            Self::Readable(detail) => &detail.record.flag.name,
            Self::Unreadable(detail) => &detail.record.flag.name,
        }
    }

    /// Revision of the last change; 0 if it cannot be read.
    pub fn revision(&self) -> i64 {
        match self {
            Self::Readable(detail) => detail.record.revision,
            Self::Unreadable(detail) => detail.record.revision.unwrap_or(0),
        }
    }
}

/// Flag whose definition cannot be read, with the number of its overrides.
#[derive(Clone, Debug)]
pub struct UnreadableFlagDetail {
    /// Parts of the flag that can be read.
    pub record: UnreadableFlagRecord,
    /// Number of unexpired overrides; 0 for an archived flag.
    pub override_count: i64,
}

impl UnreadableFlagDetail {
    fn new(record: UnreadableFlagRecord, override_count: i64) -> Self {
        let is_archived = record.flag.archived_at.is_some();
        Self { record, override_count: if is_archived { 0 } else { override_count } }
    }

    /// Counts the overrides of the flag and combines their number with the record.
    pub(super) async fn load(tx: &mut Tx, record: UnreadableFlagRecord) -> Result<Self> {
        let now = tx.now();
        let counts = overrides::count_by_flag(tx.conn(), std::slice::from_ref(&record.flag.name), now).await?;
        let override_count = counts.get(record.flag.name.as_str()).copied().unwrap_or(0);
        Ok(Self::new(record, override_count))
    }
}

/// Flag with all its scheduled changes, as stored.
pub(super) enum FlagWithSchedule {
    Readable(Box<FlagRecord>, Vec<ScheduleRecord>),
    Unreadable(Box<UnreadableFlagRecord>),
}

impl FlagWithSchedule {
    /// Combines a flag with all its scheduled changes. A scheduled change that cannot be read makes
    /// the flag unreadable.
    pub(super) fn new(flag: StoredFlag, schedule: Vec<StoredSchedule>) -> Self {
        let record = match flag {
            StoredFlag::Readable(record) => record,
            StoredFlag::Unreadable(record) => return Self::Unreadable(record),
        };
        match schedule.into_iter().map(StoredSchedule::into_readable).collect() {
            Ok(schedule) => Self::Readable(record, schedule),
            Err(error) => {
                let reason = match error {
                    StoreError::UnreadableFlag { reason, .. } => reason,
                    error => error.to_string(),
                };
                Self::Unreadable(Box::new(UnreadableFlagRecord::from_record(&record, reason)))
            }
        }
    }

    /// Returns the flag and its scheduled changes. Fails with [`StoreError::UnreadableFlag`] if the
    /// flag or one of its scheduled changes cannot be read.
    pub(super) fn into_readable(self) -> flags_store::Result<(FlagRecord, Vec<ScheduleRecord>)> {
        match self {
            Self::Readable(record, schedule) => Ok((*record, schedule)),
            Self::Unreadable(record) => Err(record.into_error()),
        }
    }
}

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
    /// Returns the values of `default` and `enabled` at `now`, including due scheduled changes.
    pub fn effective(&self, now: Instant) -> EffectiveSettings<'_> {
        EffectiveSettings::at(&self.record.flag, &self.schedule, now)
    }

    /// `schedule` contains all scheduled changes of the flag. `override_count` is the number of its
    /// unexpired overrides.
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

    /// Counts the overrides of the flag and combines their number with the record. `schedule`
    /// contains all scheduled changes of the flag.
    pub(super) async fn load(tx: &mut Tx, record: FlagRecord, schedule: Vec<ScheduledChange>) -> Result<Self> {
        let now = tx.now();
        let counts = overrides::count_by_flag(tx.conn(), std::slice::from_ref(&record.flag.name), now).await?;
        let override_count = counts.get(record.flag.name.as_str()).copied().unwrap_or(0);
        Ok(Self::new(record, schedule, override_count, now))
    }
}

/// Scheduled changes and override counts of a set of flags, loaded with one query each.
pub(super) struct FlagRelatedData {
    schedules: HashMap<FlagName, Vec<StoredSchedule>>,
    override_counts: HashMap<String, i64>,
    now: Instant,
}

impl FlagRelatedData {
    pub(super) async fn load(conn: &mut Conn, names: &[FlagName], now: Instant) -> flags_store::Result<Self> {
        let mut by_flag: HashMap<_, Vec<_>> = HashMap::new();
        for stored in schedules::find_by_flags(conn, names).await? {
            by_flag.entry(stored.flag_name().clone()).or_default().push(stored);
        }
        Ok(Self { schedules: by_flag, override_counts: overrides::count_by_flag(conn, names, now).await?, now })
    }

    /// Builds the list item of a flag. Call this only once per flag, because it takes the flag's schedule and override
    /// count out of `self`.
    pub(super) fn take_item(&mut self, flag: StoredFlag) -> FlagItem {
        let schedule = self.schedules.remove(flag.name()).unwrap_or_default();
        let override_count = self.override_counts.remove(flag.name().as_str()).unwrap_or(0);
        match FlagWithSchedule::new(flag, schedule) {
            FlagWithSchedule::Readable(record, schedule) => {
                let changes = schedule.into_iter().map(|record| record.change).collect();
                FlagItem::Readable(Box::new(FlagDetail::new(*record, changes, override_count, self.now)))
            }
            FlagWithSchedule::Unreadable(record) => {
                FlagItem::Unreadable(Box::new(UnreadableFlagDetail::new(*record, override_count)))
            }
        }
    }
}
