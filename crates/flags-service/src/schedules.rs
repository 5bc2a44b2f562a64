//! Scheduled changes of flags: creating, listing, editing and cancelling them.

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
    credentials::check::CommandAuthor,
    error::{Conflict, ResourceKind, Result, ServiceError, check},
    flags::lock_flag_with_schedule,
    patch::assign,
    precondition::Precondition,
};

/// Properties of a new scheduled change.
#[derive(Clone, Debug)]
pub struct NewScheduledChange {
    /// Instant at which the change takes effect; must be in the future.
    pub scheduled_at: Instant,
    /// New `default` of the flag; `None` keeps it.
    pub serve: Option<Serve>,
    /// New `enabled` of the flag; `None` keeps it.
    pub enabled: Option<bool>,
    /// Description of the purpose.
    pub description: Option<String>,
}

/// Changes to a pending scheduled change. `None` keeps a field, `Some(None)` removes it.
#[derive(Clone, Debug, Default)]
pub struct ScheduledChangePatch {
    /// Instant at which the change takes effect; must be in the future.
    pub scheduled_at: Option<Instant>,
    /// New `default` of the flag.
    pub serve: Option<Option<Serve>>,
    /// New `enabled` of the flag.
    pub enabled: Option<Option<bool>>,
    /// Description of the purpose.
    pub description: Option<Option<String>>,
}

/// Scheduled change with its status.
#[derive(Clone, Debug)]
pub struct ScheduledChangeDetail {
    /// Stored change.
    pub record: ScheduleRecord,
    /// Status, computed from the current time.
    pub status: ScheduleStatus,
    /// Values before and after the change; `None` unless the change is pending.
    pub preview: Option<SchedulePreview>,
}

impl ScheduledChangeDetail {
    /// Computes the status and preview of a change. `changes` contains all scheduled changes of the
    /// flag.
    fn new(record: ScheduleRecord, flag: &Flag, changes: &[ScheduledChange], now: Instant) -> Self {
        let status = record.change.status(flag, changes, now);
        let is_pending = status == ScheduleStatus::Pending;
        let preview = is_pending.then(|| SchedulePreview::new(&record.change, flag, changes));
        Self { record, status, preview }
    }
}

/// Creates, lists, edits and cancels scheduled changes.
#[derive(Clone)]
pub struct ScheduleService {
    core: Core,
}

impl ScheduleService {
    /// Creates a service that executes its commands on `core`.
    pub const fn new(core: Core) -> Self {
        Self { core }
    }

    /// Returns a page of scheduled changes, sorted by `scheduled_at`. `flag_name` limits the list
    /// to one flag, and `only_pending` limits it to pending changes. `after` is the position of the
    /// last item of the previous page.
    pub async fn list(
        &self,
        flag_name: Option<&str>,
        only_pending: bool,
        after: Option<(Instant, Uuid)>,
        limit: u32,
    ) -> Result<Page<ScheduledChangeDetail>> {
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
            let flags_with_changes = FlagsWithChanges::load(conn, names).await?;
            Ok(Some(page.map(|record| flags_with_changes.detail(record, now))))
        });
        read.await?.ok_or(ServiceError::NotFound(ResourceKind::Flag))
    }

    /// Returns a scheduled change of a flag by id.
    pub async fn get(&self, flag_name: &str, id: Uuid) -> Result<ScheduledChangeDetail> {
        let now = self.core.now();
        let read = self.core.read(async |conn| {
            if flags::find(conn, flag_name).await?.is_none() {
                return Ok(Err(ResourceKind::Flag));
            }
            let record = schedules::find(conn, id).await?.filter(|record| record.flag_name.as_str() == flag_name);
            let Some(record) = record else { return Ok(Err(ResourceKind::ScheduledChange)) };
            let flags_with_changes = FlagsWithChanges::load(conn, vec![record.flag_name.clone()]).await?;
            Ok(Ok(flags_with_changes.detail(record, now)))
        });
        read.await?.map_err(ServiceError::NotFound)
    }

    /// Creates a scheduled change. Fails with `Conflict::ScheduledChangeExists` if the flag already
    /// has a change at the same instant.
    pub async fn create(
        &self,
        request: impl Into<CommandRequest<ScheduledChangeDetail>>,
        flag_name: &str,
        new_change: NewScheduledChange,
    ) -> Result<CommandOutcome<ScheduledChangeDetail>> {
        let command = CreateScheduledChange { flag_name: flag_name.to_owned(), new_change };
        self.core.execute(request, command).await
    }

    /// Applies a patch to a pending change. Writes nothing if the patch changes no value.
    pub async fn patch(
        &self,
        author: CommandAuthor,
        flag_name: &str,
        id: Uuid,
        patch: ScheduledChangePatch,
        precondition: Precondition,
    ) -> Result<CommandOutcome<ScheduledChangeDetail>> {
        let edit = ScheduledChangeEdit::Patch(patch);
        let command = EditScheduledChange { flag_name: flag_name.to_owned(), id, edit, precondition };
        self.core.execute(author, command).await
    }

    /// Cancels a pending change. Fails with `Conflict::NotPending` if the change is not pending.
    pub async fn cancel(
        &self,
        request: impl Into<CommandRequest<ScheduledChangeDetail>>,
        flag_name: &str,
        id: Uuid,
        precondition: Precondition,
    ) -> Result<CommandOutcome<ScheduledChangeDetail>> {
        let command = EditScheduledChange {
            flag_name: flag_name.to_owned(),
            id,
            edit: ScheduledChangeEdit::Cancel,
            precondition,
        };
        self.core.execute(request, command).await
    }
}

/// Readable flags with all their scheduled changes, from which the status of a change is computed.
struct FlagsWithChanges(HashMap<FlagName, (Flag, Vec<ScheduledChange>)>);

impl FlagsWithChanges {
    async fn load(conn: &mut flags_store::Conn, mut names: Vec<FlagName>) -> flags_store::Result<Self> {
        names.sort();
        names.dedup();
        let flags = flags::find_all(conn, &names).await?.into_iter();
        let mut by_name: HashMap<_, _> =
            flags.map(|record| (record.flag.name.clone(), (record.flag, Vec::new()))).collect();
        for stored in schedules::find_by_flags(conn, &names).await? {
            let name = stored.flag_name().clone();
            match stored.into_readable() {
                Ok(record) => {
                    if let Some((_, changes)) = by_name.get_mut(&name) {
                        changes.push(record.change);
                    }
                }
                // A scheduled change that cannot be read makes the flag unreadable.
                Err(_) => drop(by_name.remove(&name)),
            }
        }
        Ok(Self(by_name))
    }

    fn detail(&self, record: ScheduleRecord, now: Instant) -> ScheduledChangeDetail {
        match self.0.get(&record.flag_name) {
            Some((flag, changes)) => ScheduledChangeDetail::new(record, flag, changes, now),
            // The flag cannot be read, so the change has no effect when it is due.
            None => {
                let status = match (record.change.cancelled_at, record.change.scheduled_at > now) {
                    (Some(_), _) => ScheduleStatus::Cancelled,
                    (None, true) => ScheduleStatus::Pending,
                    (None, false) => ScheduleStatus::Superseded,
                };
                ScheduledChangeDetail { record, status, preview: None }
            }
        }
    }
}

#[derive(Clone)]
struct CreateScheduledChange {
    flag_name: String,
    new_change: NewScheduledChange,
}

impl Command for CreateScheduledChange {
    type Output = ScheduledChangeDetail;

    async fn apply(&self, tx: &mut Tx, author: &Author) -> Result<ScheduledChangeDetail> {
        let (flag, siblings) = lock_flag_with_schedule(tx, &self.flag_name, &Precondition::None).await?;
        if flag.flag.archived_at.is_some() {
            return Err(Conflict::FlagArchived.into());
        }
        let now = tx.now();
        let change = ScheduledChange {
            id: Uuid::now_v7(),
            scheduled_at: self.new_change.scheduled_at,
            serve: self.new_change.serve.clone(),
            enabled: self.new_change.enabled,
            description: self.new_change.description.clone(),
            cancelled_at: None,
        };
        check(validate(&change, &flag.flag, now))?;
        let record = ScheduleRecord {
            change,
            flag_name: flag.flag.name.clone(),
            created_by: author.actor.clone(),
            created_at: now,
            updated_at: now,
            applied_at: None,
            revision: 0,
        };
        if !schedules::insert(tx, &record).await? {
            return Err(Conflict::ScheduledChangeExists.into());
        }
        let changes: Vec<_> = siblings.into_iter().chain([record.clone()]).map(|record| record.change).collect();
        Ok(ScheduledChangeDetail::new(record, &flag.flag, &changes, now))
    }
}

#[derive(Clone)]
struct EditScheduledChange {
    flag_name: String,
    id: Uuid,
    edit: ScheduledChangeEdit,
    precondition: Precondition,
}

#[derive(Clone)]
enum ScheduledChangeEdit {
    Patch(ScheduledChangePatch),
    Cancel,
}

impl Command for EditScheduledChange {
    type Output = ScheduledChangeDetail;

    async fn apply(&self, tx: &mut Tx, _: &Author) -> Result<ScheduledChangeDetail> {
        // The lock on the flag also protects its scheduled changes, because every change to them locks the flag first.
        let (flag, siblings) = lock_flag_with_schedule(tx, &self.flag_name, &Precondition::None).await?;
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
            ScheduledChangeEdit::Cancel => {
                after.change.cancelled_at = Some(now);
                Action::Cancelled
            }
            ScheduledChangeEdit::Patch(patch) => {
                apply_patch(&mut after.change, patch.clone());
                check(validate(&after.change, &flag, now))?;
                Action::Updated
            }
        };
        let mut others = changes.iter().filter(|other| other.id != self.id && other.cancelled_at.is_none());
        if action == Action::Updated && others.any(|other| other.scheduled_at == after.change.scheduled_at) {
            return Err(Conflict::ScheduledChangeExists.into());
        }
        if after != before {
            after.updated_at = now;
            schedules::update(tx, action, &before, &after).await?;
        }
        let others = changes.into_iter().filter(|other| other.id != self.id);
        let changes: Vec<_> = others.chain([after.change.clone()]).collect();
        Ok(ScheduledChangeDetail::new(after, &flag, &changes, now))
    }
}

fn apply_patch(change: &mut ScheduledChange, patch: ScheduledChangePatch) {
    assign(&mut change.scheduled_at, patch.scheduled_at);
    assign(&mut change.serve, patch.serve);
    assign(&mut change.enabled, patch.enabled);
    assign(&mut change.description, patch.description);
}

fn validate(change: &ScheduledChange, flag: &Flag, now: Instant) -> Vec<Violation> {
    let mut violations = change.check(flag);
    if change.scheduled_at <= now {
        violations.push(Violation::new("/scheduled_at", "not_in_future", "must be in the future"));
    }
    violations
}
