//! Database commands for creating, changing, archiving, restoring and deleting flags.

use flags_domain::{
    EffectiveSettings, Flag, FlagType, Instant, MAX_FLAGS, ScheduleStatus, ScheduledChange, Serve, Violation,
};
use flags_store::{
    Author, Tx,
    change_log::{self, Action},
    flags::{self, FlagRecord, StoredFlag},
    overrides::OverrideOwner,
    schedules::{self, ScheduleRecord, StoredSchedule},
};

use super::{FlagDetail, FlagItem, FlagPatch, NewFlag, UnreadableFlagDetail, detail::FlagWithSchedule};
use crate::{
    core::{Command, Progress},
    error::{Conflict, ResourceKind, Result, ServiceError, check},
    override_deletion::delete_overrides,
    patch::assign,
    precondition::Precondition,
};

#[derive(Clone)]
pub(super) struct CreateFlag {
    pub(super) new_flag: NewFlag,
}

impl CreateFlag {
    /// Builds the flag, with default values for missing properties.
    fn build_flag(&self, now: Instant) -> std::result::Result<Flag, Vec<Violation>> {
        let new_flag = self.new_flag.clone();
        let uses_default_variants = new_flag.flag_type == FlagType::Boolean && new_flag.variants.is_none();
        let off = uses_default_variants.then(|| "off".to_owned());
        let variants = new_flag.variants.or_else(|| uses_default_variants.then(flags_domain::default_boolean_variants));
        let default = new_flag.default.or_else(|| off.clone().map(Serve::Variant));
        let off_variant = new_flag.off_variant.or(off);
        let (Some(variants), Some(default), Some(off_variant)) =
            (variants.clone(), default.clone(), off_variant.clone())
        else {
            let missing = [
                variants.is_none().then(|| required("/variants")),
                default.is_none().then(|| required("/default")),
                off_variant.is_none().then(|| required("/off_variant")),
            ];
            return Err(missing.into_iter().flatten().collect());
        };
        let flag = Flag {
            salt: new_flag.salt.unwrap_or_else(|| new_flag.name.to_string()),
            name: new_flag.name,
            flag_type: new_flag.flag_type,
            description: new_flag.description,
            owner: new_flag.owner,
            tags: new_flag.tags,
            enabled: new_flag.enabled,
            variants,
            default,
            off_variant,
            targeting_rules: new_flag.targeting_rules,
            client_visible: new_flag.client_visible,
            archived_at: None,
            default_set_at: now,
            enabled_set_at: now,
        };
        let violations = flag.check();
        if violations.is_empty() { Ok(flag) } else { Err(violations) }
    }
}

fn required(pointer: &'static str) -> Violation {
    Violation::new(pointer, "required", "is required unless the flag is boolean and uses the default variants")
}

impl Command for CreateFlag {
    type Output = FlagDetail;

    async fn apply(&self, tx: &mut Tx, _: &Author) -> Result<FlagDetail> {
        let now = tx.now();
        let flag = self.build_flag(now).map_err(ServiceError::Invalid)?;
        let record = FlagRecord { flag, created_at: now, updated_at: now, deleting: false, revision: 0 };
        if !flags::insert(tx, &record).await? {
            return Err(Conflict::FlagExists.into());
        }
        let detail = FlagDetail::load(tx, record, Vec::new()).await?;
        check_flag_count(tx).await?;
        Ok(detail)
    }
}

/// Fails if the number of flags exceeds the maximum. Locks the head of the change log, so that
/// concurrent commands cannot exceed the maximum together.
///
/// Must be called last in a transaction, because the lock blocks all other changes.
async fn check_flag_count(tx: &mut Tx) -> Result<()> {
    change_log::lock_head(tx).await?;
    let count = flags::count(tx.conn()).await?;
    if count <= i64::try_from(MAX_FLAGS).unwrap_or(i64::MAX) {
        return Ok(());
    }
    let detail = format!("a deployment can have at most {MAX_FLAGS} flags; delete archived flags first");
    Err(Violation::new("/name", "too_many_flags", detail).into())
}

#[derive(Clone)]
pub(super) struct PatchFlag {
    pub(super) name: String,
    pub(super) patch: FlagPatch,
    pub(super) precondition: Precondition,
}

impl PatchFlag {
    /// Applies the patch. `default` and `enabled` count as manual edits if the new value differs from the stored or
    /// from the effective value. The most recent of the last manual edit and the last due scheduled change takes
    /// effect.
    fn apply_to(&self, before: &Flag, effective: &EffectiveSettings<'_>, now: Instant) -> Flag {
        let mut after = before.clone();
        let patch = self.patch.clone();
        assign(&mut after.description, patch.description);
        assign(&mut after.owner, patch.owner);
        assign(&mut after.tags, patch.tags);
        assign(&mut after.variants, patch.variants);
        assign(&mut after.off_variant, patch.off_variant);
        assign(&mut after.targeting_rules, patch.targeting_rules);
        assign(&mut after.salt, patch.salt);
        assign(&mut after.client_visible, patch.client_visible);
        if let Some(enabled) = patch.enabled
            && (enabled != before.enabled || enabled != effective.enabled)
        {
            after.enabled = enabled;
            after.enabled_set_at = now.max(before.enabled_set_at);
        }
        if let Some(default) = patch.default
            && (default != before.default || default != *effective.default || effective.scheduled_change_id.is_some())
        {
            after.default = default;
            after.default_set_at = now.max(before.default_set_at);
        }
        after
    }
}

impl Command for PatchFlag {
    type Output = FlagDetail;

    async fn apply(&self, tx: &mut Tx, _: &Author) -> Result<FlagDetail> {
        let (before, schedule) = lock_flag_with_schedule(tx, &self.name, &self.precondition).await?;
        let now = tx.now();
        let changes = changes(schedule);
        let effective = EffectiveSettings::at(&before.flag, &changes, now);
        let after = self.apply_to(&before.flag, &effective, now);
        if after == before.flag {
            return FlagDetail::load(tx, before, changes).await;
        }
        check_variants_in_use(&before.flag, &after, &changes, now)?;
        check(after.check_edit(&before.flag))?;
        let after = FlagRecord { flag: after, updated_at: now, ..before.clone() };
        flags::update(tx, Action::Updated, &before, &after).await?;
        FlagDetail::load(tx, after, changes).await
    }
}

fn changes(schedule: Vec<ScheduleRecord>) -> Vec<ScheduledChange> {
    schedule.into_iter().map(|record| record.change).collect()
}

/// Rejects the removal of variants that are still in use. The error lists the uses.
fn check_variants_in_use(before: &Flag, after: &Flag, changes: &[ScheduledChange], now: Instant) -> Result<()> {
    let off_serve = Serve::Variant(after.off_variant.clone());
    let mut served = vec![(&after.default, "`default`".to_owned()), (&off_serve, "`off_variant`".to_owned())];
    served.extend(after.targeting_rules.iter().map(|rule| (&rule.serve, format!("targeting rule {:?}", rule.id))));
    let last_applied = EffectiveSettings::at(after, changes, now).scheduled_change_id;
    for change in changes {
        let is_pending = change.status(after, changes, now) == ScheduleStatus::Pending;
        if let Some(serve) = change.serve.as_ref().filter(|_| is_pending || last_applied == Some(change.id)) {
            served.push((serve, format!("scheduled change {} at {}", change.id, change.scheduled_at)));
        }
    }
    let mut uses = Vec::new();
    for (serve, location) in served {
        let variants = serve.variant_ids();
        let removed: Vec<_> = variants.filter(|id| before.has_variant(id) && !after.has_variant(id)).collect();
        if !removed.is_empty() {
            uses.push(format!("{} (used by {location})", removed.join(" and ")));
        }
    }
    if uses.is_empty() { Ok(()) } else { Err(Conflict::VariantInUse(uses.join(", ")).into()) }
}

#[derive(Clone)]
pub(super) struct ArchiveFlag {
    pub(super) name: String,
    pub(super) precondition: Precondition,
}

impl Command for ArchiveFlag {
    type Output = FlagItem;

    async fn apply(&self, tx: &mut Tx, _: &Author) -> Result<FlagItem> {
        match lock_stored_flag(tx, &self.name, &self.precondition).await? {
            FlagWithSchedule::Readable(record, schedule) => {
                let detail = archive(tx, *record, schedule).await?;
                Ok(FlagItem::Readable(Box::new(detail)))
            }
            FlagWithSchedule::Unreadable(mut record) => {
                if record.flag.archived_at.is_none() {
                    flags::archive_unreadable(tx, &record).await?;
                    record.flag.archived_at = Some(tx.now());
                    record.updated_at = Some(tx.now());
                }
                Ok(FlagItem::Unreadable(Box::new(UnreadableFlagDetail::load(tx, *record).await?)))
            }
        }
    }
}

/// Archives a flag and cancels its pending scheduled changes. Does nothing if the flag is already
/// archived.
async fn archive(tx: &mut Tx, before: FlagRecord, mut schedule: Vec<ScheduleRecord>) -> Result<FlagDetail> {
    if before.flag.archived_at.is_some() {
        return FlagDetail::load(tx, before, changes(schedule)).await;
    }
    let now = tx.now();
    let mut after = FlagRecord { updated_at: now, ..before.clone() };
    after.flag.archived_at = Some(now);
    flags::update(tx, Action::Archived, &before, &after).await?;
    for record in &mut schedule {
        if record.change.cancelled_at.is_none() && record.change.scheduled_at > now {
            let pending = record.clone();
            record.updated_at = now;
            record.change.cancelled_at = Some(now);
            schedules::update(tx, Action::Cancelled, &pending, record).await?;
        }
    }
    FlagDetail::load(tx, after, changes(schedule)).await
}

#[derive(Clone)]
pub(super) struct RestoreFlag {
    pub(super) name: String,
    pub(super) precondition: Precondition,
}

impl Command for RestoreFlag {
    type Output = FlagDetail;

    async fn apply(&self, tx: &mut Tx, _: &Author) -> Result<FlagDetail> {
        let (before, schedule) = lock_flag_with_schedule(tx, &self.name, &self.precondition).await?;
        if before.flag.archived_at.is_none() {
            return FlagDetail::load(tx, before, changes(schedule)).await;
        }
        let mut after = FlagRecord { updated_at: tx.now(), ..before.clone() };
        after.flag.archived_at = None;
        flags::update(tx, Action::Restored, &before, &after).await?;
        FlagDetail::load(tx, after, changes(schedule)).await
    }
}

#[derive(Clone)]
pub(super) struct DeleteFlag {
    pub(super) name: String,
    pub(super) precondition: Precondition,
}

impl DeleteFlag {
    /// Removes the precondition after the first batch, because that batch changes the flag's
    /// revision.
    pub(super) fn skip_precondition(&mut self) {
        self.precondition = Precondition::None;
    }
}

impl Command for DeleteFlag {
    type Output = Progress;

    async fn apply(&self, tx: &mut Tx, _: &Author) -> Result<Progress> {
        let flag = flags::lock(tx, &self.name).await?;
        self.precondition.check(tx, flag.as_ref().and_then(StoredFlag::revision)).await?;
        let record = flag.ok_or(ServiceError::NotFound(ResourceKind::Flag))?.into_readable()?;
        if record.flag.archived_at.is_none() {
            return Err(Conflict::FlagNotArchived.into());
        }
        // Read before anything is deleted, because a scheduled change that cannot be read prevents
        // the deletion.
        let schedule = schedules::find_by_flags(tx.conn(), std::slice::from_ref(&record.flag.name)).await?;
        let schedule: flags_store::Result<Vec<_>> = schedule.into_iter().map(StoredSchedule::into_readable).collect();
        let schedule = schedule?;
        if delete_overrides(tx, OverrideOwner::Flag(&self.name)).await? == Progress::Unfinished {
            flags::set_deleting(tx, &self.name).await?;
            return Ok(Progress::Unfinished);
        }
        for scheduled_change in &schedule {
            schedules::delete(tx, scheduled_change).await?;
        }
        flags::delete(tx, &record).await?;
        Ok(Progress::Finished)
    }
}

/// Locks a flag until the end of the transaction, checks the precondition and returns the flag with
/// all its scheduled changes. A flag whose deletion is in progress is not found.
///
/// Fails with [`StoreError::UnreadableFlag`](flags_store::StoreError::UnreadableFlag) if the flag
/// or one of its scheduled changes cannot be read.
pub(crate) async fn lock_flag_with_schedule(
    tx: &mut Tx,
    name: &str,
    precondition: &Precondition,
) -> Result<(FlagRecord, Vec<ScheduleRecord>)> {
    Ok(lock_stored_flag(tx, name, precondition).await?.into_readable()?)
}

/// Like [`lock_flag_with_schedule`], but also returns a flag that cannot be read.
async fn lock_stored_flag(tx: &mut Tx, name: &str, precondition: &Precondition) -> Result<FlagWithSchedule> {
    let flag = flags::lock(tx, name).await?.filter(|flag| !flag.is_deleting());
    precondition.check(tx, flag.as_ref().and_then(StoredFlag::revision)).await?;
    let flag = flag.ok_or(ServiceError::NotFound(ResourceKind::Flag))?;
    let schedule = schedules::find_by_flags(tx.conn(), std::slice::from_ref(flag.name())).await?;
    Ok(FlagWithSchedule::new(flag, schedule))
}
