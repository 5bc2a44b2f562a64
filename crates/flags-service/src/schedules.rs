//! Scheduled changes: planning, editing and cancelling them.

use std::collections::HashMap;

use flags_domain::{Flag, FlagName, Instant, SchedulePreview, ScheduleStatus, ScheduledChange, Serve, Violation};
use flags_store::{
    Author, Page, Tx,
    change_log::Action,
    flags, schedules,
    schedules::{ScheduleFilter, ScheduleRecord},
};
use uuid::Uuid;

use crate::{
    core::{Command, CommandOutcome, CommandRequest, Core},
    error::{Conflict, ResourceKind, Result, ServiceError, check},
    flags::claim,
    patch::assign,
    precondition::Precondition,
};

/// A new scheduled change.
#[derive(Clone, Debug)]
pub struct ScheduleInput {
    /// In force from here on; must lie in the future.
    pub scheduled_at: Instant,
    /// What the default becomes.
    pub serve: Option<Serve>,
    /// What the switch becomes.
    pub enabled: Option<bool>,
    /// For people.
    pub description: Option<String>,
}

/// What is to be different about a pending change; `None` leaves a field as it is, `Some(None)` clears it.
#[derive(Clone, Debug, Default)]
pub struct SchedulePatch {
    /// In the future.
    pub scheduled_at: Option<Instant>,
    /// What the default becomes.
    pub serve: Option<Option<Serve>>,
    /// What the switch becomes.
    pub enabled: Option<Option<bool>>,
    /// For people.
    pub description: Option<Option<String>>,
}

/// A scheduled change and where it stands.
#[derive(Clone, Debug)]
pub struct ScheduleDetail {
    /// The change.
    pub record: ScheduleRecord,
    /// Derived from the clock.
    pub status: ScheduleStatus,
    /// What it is going to change; only while it is pending.
    pub preview: Option<SchedulePreview>,
}

impl ScheduleDetail {
    /// Of a change of this flag among all its changes.
    fn new(record: ScheduleRecord, flag: &Flag, changes: &[ScheduledChange], now: Instant) -> Self {
        let status = record.change.status(flag, changes, now);
        let pending = status == ScheduleStatus::Pending;
        let preview = pending.then(|| SchedulePreview::of(&record.change, flag, changes));
        Self { record, status, preview }
    }
}

/// Reads and changes scheduled changes.
#[derive(Clone)]
pub struct ScheduleService {
    core: Core,
}

impl ScheduleService {
    /// On this core.
    pub const fn new(core: Core) -> Self {
        Self { core }
    }

    /// A page of the scheduled changes of one flag or of all, or only of those that are pending, by instant.
    pub async fn list(
        &self,
        flag_name: Option<&str>,
        only_pending: bool,
        after: Option<(Instant, Uuid)>,
        limit: u32,
    ) -> Result<Page<ScheduleDetail>> {
        let now = self.core.now();
        let read = self.core.read(async |conn| {
            if let Some(name) = flag_name
                && flags::find(conn, name).await?.is_none()
            {
                return Ok(None);
            }
            let filter = ScheduleFilter { flag_name, pending_at: only_pending.then_some(now) };
            let page = schedules::list(conn, filter, after, limit).await?;
            let names: Vec<_> = page.items.iter().map(|record| record.flag_name.clone()).collect();
            let context = Context::read(conn, names).await?;
            Ok(Some(page.map(|record| context.detail(record, now))))
        });
        read.await?.ok_or(ServiceError::NotFound(ResourceKind::Flag))
    }

    /// The scheduled change of this id, if it is one of this flag.
    pub async fn get(&self, flag_name: &str, id: Uuid) -> Result<ScheduleDetail> {
        let now = self.core.now();
        let read = self.core.read(async |conn| {
            if flags::find(conn, flag_name).await?.is_none() {
                return Ok(Err(ResourceKind::Flag));
            }
            let record = schedules::find(conn, id).await?.filter(|record| record.flag_name.as_str() == flag_name);
            let Some(record) = record else { return Ok(Err(ResourceKind::ScheduledChange)) };
            let context = Context::read(conn, vec![record.flag_name.clone()]).await?;
            Ok(Ok(context.detail(record, now)))
        });
        read.await?.map_err(ServiceError::NotFound)
    }

    /// Plans a change.
    pub async fn create(
        &self,
        intent: impl Into<CommandRequest<ScheduleDetail>>,
        flag_name: &str,
        input: ScheduleInput,
    ) -> Result<CommandOutcome<ScheduleDetail>> {
        let command = CreateSchedule { flag_name: flag_name.to_owned(), input };
        self.core.execute(intent, command).await
    }

    /// Changes the named fields of a pending change.
    pub async fn patch(
        &self,
        author: Author,
        flag_name: &str,
        id: Uuid,
        patch: SchedulePatch,
        precondition: Precondition,
    ) -> Result<CommandOutcome<ScheduleDetail>> {
        let edit = Edit::Patch(patch);
        let command = EditSchedule { flag_name: flag_name.to_owned(), id, edit, precondition };
        self.core.execute(author, command).await
    }

    /// Calls a pending change off.
    pub async fn cancel(
        &self,
        intent: impl Into<CommandRequest<ScheduleDetail>>,
        flag_name: &str,
        id: Uuid,
        precondition: Precondition,
    ) -> Result<CommandOutcome<ScheduleDetail>> {
        let command = EditSchedule { flag_name: flag_name.to_owned(), id, edit: Edit::Cancel, precondition };
        self.core.execute(intent, command).await
    }
}

/// What the status of scheduled changes is derived from.
struct Context(HashMap<FlagName, (Flag, Vec<ScheduledChange>)>);

impl Context {
    async fn read(conn: &mut flags_store::Conn, mut names: Vec<FlagName>) -> flags_store::Result<Self> {
        names.sort();
        names.dedup();
        let flags = flags::find_all(conn, &names).await?.into_iter();
        let mut of_flag: HashMap<_, _> =
            flags.map(|record| (record.flag.name.clone(), (record.flag, Vec::new()))).collect();
        for record in schedules::of_flags(conn, &names).await? {
            if let Some((_, changes)) = of_flag.get_mut(&record.flag_name) {
                changes.push(record.change);
            }
        }
        Ok(Self(of_flag))
    }

    fn detail(&self, record: ScheduleRecord, now: Instant) -> ScheduleDetail {
        match self.0.get(&record.flag_name) {
            Some((flag, changes)) => ScheduleDetail::new(record, flag, changes, now),
            None => ScheduleDetail { record, status: ScheduleStatus::Superseded, preview: None },
        }
    }
}

#[derive(Clone)]
struct CreateSchedule {
    flag_name: String,
    input: ScheduleInput,
}

impl Command for CreateSchedule {
    type Output = ScheduleDetail;

    async fn apply(&self, tx: &mut Tx, author: &Author) -> Result<ScheduleDetail> {
        let (flag, siblings) = claim(tx, &self.flag_name, &Precondition::None).await?;
        if flag.flag.archived_at.is_some() {
            return Err(Conflict::FlagArchived.into());
        }
        let now = tx.now();
        let change = ScheduledChange {
            id: Uuid::now_v7(),
            scheduled_at: self.input.scheduled_at,
            serve: self.input.serve.clone(),
            enabled: self.input.enabled,
            description: self.input.description.clone(),
            cancelled_at: None,
        };
        check(violations(&change, &flag.flag, now))?;
        let record = ScheduleRecord {
            change,
            flag_name: flag.flag.name.clone(),
            created_by: author.actor.clone(),
            created_at: now,
            updated_at: now,
            marked_at: None,
            revision: 0,
        };
        if !schedules::insert(tx, &record).await? {
            return Err(Conflict::ScheduledChangeExists.into());
        }
        let changes: Vec<_> = siblings.into_iter().chain([record.clone()]).map(|record| record.change).collect();
        Ok(ScheduleDetail::new(record, &flag.flag, &changes, now))
    }

    fn stamp(output: &mut Self::Output, revision: i64) {
        output.record.revision = revision;
    }
}

#[derive(Clone)]
struct EditSchedule {
    flag_name: String,
    id: Uuid,
    edit: Edit,
    precondition: Precondition,
}

#[derive(Clone)]
enum Edit {
    Patch(SchedulePatch),
    Cancel,
}

impl Command for EditSchedule {
    type Output = ScheduleDetail;

    async fn apply(&self, tx: &mut Tx, _: &Author) -> Result<ScheduleDetail> {
        // Holding the flag holds its schedule: whatever changes one holds the flag first.
        let (flag, siblings) = claim(tx, &self.flag_name, &Precondition::None).await?;
        let before = siblings.iter().find(|record| record.change.id == self.id).cloned();
        self.precondition.check(tx, before.as_ref().map(|record| record.revision)).await?;
        let before = before.ok_or(ServiceError::NotFound(ResourceKind::ScheduledChange))?;
        let (flag, changes) = (flag.flag, siblings.into_iter().map(|record| record.change).collect::<Vec<_>>());
        let now = tx.now();
        match before.change.status(&flag, &changes, now) {
            ScheduleStatus::Pending => {}
            ScheduleStatus::Cancelled => return Err(Conflict::NotPending("cancelled").into()),
            ScheduleStatus::Superseded => return Err(Conflict::NotPending("superseded").into()),
            ScheduleStatus::Applied => return Err(Conflict::NotPending("applied").into()),
        }
        let mut after = before.clone();
        let action = match &self.edit {
            Edit::Cancel => {
                after.change.cancelled_at = Some(now);
                Action::Cancelled
            }
            Edit::Patch(patch) => {
                patch_change(&mut after.change, patch.clone());
                check(violations(&after.change, &flag, now))?;
                Action::Updated
            }
        };
        let taken = |other: &&ScheduledChange| {
            other.id != self.id && other.cancelled_at.is_none() && other.scheduled_at == after.change.scheduled_at
        };
        if action == Action::Updated && changes.iter().any(|other| taken(&other)) {
            return Err(Conflict::ScheduledChangeExists.into());
        }
        if after != before {
            after.updated_at = now;
            schedules::update(tx, action, &before, &after).await?;
        }
        let others = changes.into_iter().filter(|other| other.id != self.id);
        let changes: Vec<_> = others.chain([after.change.clone()]).collect();
        Ok(ScheduleDetail::new(after, &flag, &changes, now))
    }

    fn stamp(output: &mut Self::Output, revision: i64) {
        output.record.revision = revision;
    }
}

fn patch_change(change: &mut ScheduledChange, patch: SchedulePatch) {
    assign(&mut change.scheduled_at, patch.scheduled_at);
    assign(&mut change.serve, patch.serve);
    assign(&mut change.enabled, patch.enabled);
    assign(&mut change.description, patch.description);
}

fn violations(change: &ScheduledChange, flag: &Flag, now: Instant) -> Vec<Violation> {
    let mut found = change.check(flag);
    if change.scheduled_at <= now {
        found.push(Violation::new("/scheduled_at", "not_in_future", "must lie in the future"));
    }
    found
}
