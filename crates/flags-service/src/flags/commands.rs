//! What creating, changing, archiving and deleting a flag do to the database.

use flags_domain::{Effective, Flag, FlagType, Instant, ScheduleStatus, Serve, Violation};
use flags_store::{
    Author, Tx,
    change_log::Action,
    flags::{self, FlagRecord},
    overrides,
    schedules::{self, ScheduleRecord},
};

use super::{FlagDetail, FlagInput, FlagPatch, detail::Beside};
use crate::{
    core::{Command, Progress},
    error::{Conflict, ResourceKind, Result, ServiceError, check},
    maintenance::BATCH,
    patch::assign,
    precondition::Precondition,
};

#[derive(Clone)]
pub(super) struct CreateFlag {
    pub(super) input: FlagInput,
}

impl CreateFlag {
    fn flag(&self, now: Instant) -> std::result::Result<Flag, Vec<Violation>> {
        let input = self.input.clone();
        let required = |pointer, what| Violation::new(pointer, "required", format!("a flag of this type needs {what}"));
        let simple = input.flag_type == FlagType::Boolean && input.variants.is_none();
        let off = || simple.then(|| "off".to_owned());
        let variants = input.variants.or_else(|| simple.then(flags_domain::boolean_variants));
        let default = input.default.or_else(|| off().map(Serve::Variant));
        let off_variant = input.off_variant.or_else(off);
        let (Some(variants), Some(default), Some(off_variant)) =
            (variants.clone(), default.clone(), off_variant.clone())
        else {
            let missing = [
                variants.is_none().then(|| required("/variants", "variants")),
                default.is_none().then(|| required("/default", "a default")),
                off_variant.is_none().then(|| required("/off_variant", "an off_variant")),
            ];
            return Err(missing.into_iter().flatten().collect());
        };
        let flag = Flag {
            salt: input.salt.unwrap_or_else(|| input.name.to_string()),
            name: input.name,
            flag_type: input.flag_type,
            description: input.description,
            owner: input.owner,
            tags: input.tags,
            enabled: input.enabled,
            variants,
            default,
            off_variant,
            targeting_rules: input.targeting_rules,
            client_visible: input.client_visible,
            archived_at: None,
            default_set_at: now,
            enabled_set_at: now,
        };
        let violations = flag.check();
        if violations.is_empty() { Ok(flag) } else { Err(violations) }
    }
}

impl Command for CreateFlag {
    type Output = FlagDetail;

    async fn apply(&self, tx: &mut Tx, _: &Author) -> Result<FlagDetail> {
        let now = tx.now();
        let flag = self.flag(now).map_err(ServiceError::Invalid)?;
        let record = FlagRecord { flag, created_at: now, updated_at: now, deleting: false, revision: 0 };
        if !flags::insert(tx, &record).await? {
            return Err(Conflict::FlagExists.into());
        }
        Beside::within(tx, record).await
    }

    fn stamp(output: &mut Self::Output, revision: i64) {
        output.record.revision = revision;
    }
}

#[derive(Clone)]
pub(super) struct PatchFlag {
    pub(super) name: String,
    pub(super) patch: FlagPatch,
    pub(super) precondition: Precondition,
}

impl PatchFlag {
    /// The flag as it is to be. `default` and `enabled`, if named, are set by hand now, and are a change if either the
    /// stored or the effective value differs.
    fn apply_to(&self, before: &Flag, effective: &Effective<'_>, now: Instant) -> Flag {
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
        let (before, schedule) = claim(tx, &self.name, &self.precondition).await?;
        let now = tx.now();
        let changes: Vec<_> = schedule.iter().map(|record| record.change.clone()).collect();
        let effective = Effective::at(&before.flag, &changes, now);
        let after = self.apply_to(&before.flag, &effective, now);
        if after == before.flag {
            return Beside::within(tx, before).await;
        }
        check_variants_in_use(&before.flag, &after, &schedule, now)?;
        check(after.check())?;
        let after = FlagRecord { flag: after, updated_at: now, ..before.clone() };
        flags::update(tx, Action::Updated, &before, &after).await?;
        Beside::within(tx, after).await
    }

    fn stamp(output: &mut Self::Output, revision: i64) {
        output.record.revision = revision;
    }
}

/// Refuses to remove variants that something still serves, naming what does.
fn check_variants_in_use(before: &Flag, after: &Flag, schedule: &[ScheduleRecord], now: Instant) -> Result<()> {
    let is_removed = |id: &str| before.has_variant(id) && !after.has_variant(id);
    let mut uses = Vec::new();
    let mut note = |serve: &Serve, by: &dyn Fn() -> String| {
        let removed: Vec<_> = serve.variants().filter(|id| is_removed(id)).collect();
        if !removed.is_empty() {
            uses.push(format!("{} by {}", removed.join(" and "), by()));
        }
    };
    note(&after.default, &|| "`default`".to_owned());
    note(&Serve::Variant(after.off_variant.clone()), &|| "`off_variant`".to_owned());
    for rule in &after.targeting_rules {
        note(&rule.serve, &|| format!("targeting rule {:?}", rule.id));
    }
    let changes: Vec<_> = schedule.iter().map(|record| record.change.clone()).collect();
    let last_due = Effective::at(after, &changes, now).scheduled_change_id;
    for change in &changes {
        let pending = change.status(after, &changes, now) == ScheduleStatus::Pending;
        if let Some(serve) = change.serve.as_ref().filter(|_| pending || last_due == Some(change.id)) {
            note(serve, &|| format!("scheduled change {} of {}", change.id, change.scheduled_at));
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
    type Output = FlagDetail;

    async fn apply(&self, tx: &mut Tx, _: &Author) -> Result<FlagDetail> {
        let (before, schedule) = claim(tx, &self.name, &self.precondition).await?;
        if before.flag.archived_at.is_some() {
            return Beside::within(tx, before).await;
        }
        let now = tx.now();
        let mut after = FlagRecord { updated_at: now, ..before.clone() };
        after.flag.archived_at = Some(now);
        flags::update(tx, Action::Archived, &before, &after).await?;
        for pending in schedule.iter().filter(|r| r.change.cancelled_at.is_none() && r.change.scheduled_at > now) {
            let mut cancelled = ScheduleRecord { updated_at: now, ..pending.clone() };
            cancelled.change.cancelled_at = Some(now);
            schedules::update(tx, Action::Cancelled, pending, &cancelled).await?;
        }
        Beside::within(tx, after).await
    }

    fn stamp(output: &mut Self::Output, revision: i64) {
        output.record.revision = revision;
    }
}

#[derive(Clone)]
pub(super) struct RestoreFlag {
    pub(super) name: String,
    pub(super) precondition: Precondition,
}

impl Command for RestoreFlag {
    type Output = FlagDetail;

    async fn apply(&self, tx: &mut Tx, _: &Author) -> Result<FlagDetail> {
        let (before, _) = claim(tx, &self.name, &self.precondition).await?;
        if before.flag.archived_at.is_none() {
            return Beside::within(tx, before).await;
        }
        let mut after = FlagRecord { updated_at: tx.now(), ..before.clone() };
        after.flag.archived_at = None;
        flags::update(tx, Action::Restored, &before, &after).await?;
        Beside::within(tx, after).await
    }

    fn stamp(output: &mut Self::Output, revision: i64) {
        output.record.revision = revision;
    }
}

#[derive(Clone)]
pub(super) struct DeleteFlag {
    pub(super) name: String,
    pub(super) precondition: Precondition,
}

impl Command for DeleteFlag {
    type Output = Progress;

    async fn apply(&self, tx: &mut Tx, _: &Author) -> Result<Progress> {
        tx.lock_flag(&self.name).await?;
        let record = flags::find(tx.conn(), &self.name).await?;
        self.precondition.check(tx, record.as_ref().map(|record| record.revision)).await?;
        let record = record.ok_or(ServiceError::NotFound(ResourceKind::Flag))?;
        if record.flag.archived_at.is_none() {
            return Err(Conflict::FlagNotArchived.into());
        }
        let batch = overrides::claim_some(tx, overrides::OverrideOwner::Flag(&self.name), BATCH).await?;
        for gone in &batch {
            overrides::delete(tx, &gone.user_override).await?;
        }
        if i64::try_from(batch.len()).is_ok_and(|count| count == BATCH) {
            flags::mark_deleting(tx, &self.name).await?;
            return Ok(Progress::More);
        }
        for gone in schedules::of_flags(tx.conn(), std::slice::from_ref(&record.flag.name)).await? {
            schedules::delete(tx, &gone).await?;
        }
        flags::delete(tx, &record).await?;
        Ok(Progress::Finished)
    }
}

/// The flag, held to the end of the transaction, with all its scheduled changes. One whose deletion is under way counts
/// as gone.
pub(crate) async fn claim(
    tx: &mut Tx,
    name: &str,
    precondition: &Precondition,
) -> Result<(FlagRecord, Vec<ScheduleRecord>)> {
    tx.lock_flag(name).await?;
    let record = flags::find(tx.conn(), name).await?.filter(|record| !record.deleting);
    precondition.check(tx, record.as_ref().map(|record| record.revision)).await?;
    let record = record.ok_or(ServiceError::NotFound(ResourceKind::Flag))?;
    let schedule = schedules::of_flags(tx.conn(), std::slice::from_ref(&record.flag.name)).await?;
    Ok((record, schedule))
}
