//! Database commands for creating, changing and removing overrides.

use flags_domain::{Flag, FlagName, Instant, MAX_REASON_LENGTH, OverrideStatus, UserOverride, Violation, check_text};
use flags_store::{
    Author, StoreError, Tx,
    flags::{self, FlagRecord},
    overrides::{self, OverrideListItem, OverrideRecord},
    users::{self, UserRecord},
};
use serde_json::Value;
use uuid::Uuid;

use super::{NewOverride, OverridePatch, UpsertOutcome};
use crate::{
    core::Command,
    credentials::check::PermittedUsers,
    error::{Conflict, ResourceKind, Result, ServiceError, check},
    precondition::Precondition,
};

#[derive(Clone)]
pub(super) struct CreateOverride {
    pub(super) user_id: Uuid,
    pub(super) flag_name: FlagName,
    pub(super) new_override: NewOverride,
    pub(super) permitted: PermittedUsers,
}

impl Command for CreateOverride {
    type Output = OverrideListItem;

    async fn apply(&self, tx: &mut Tx, author: &Author) -> Result<Self::Output> {
        let (user, flag) = lock_user_and_flag_shared(tx, self.user_id, &self.flag_name, self.permitted).await?;
        let (user, flag) = require_user_and_flag(user, flag)?;
        let existing = lock_unexpired(tx, self.user_id, &self.flag_name).await?;
        check_new_override(&self.new_override, &flag, tx.now())?;
        if existing.is_some() {
            return Err(Conflict::OverrideExists.into());
        }
        let record = insert(tx, author, self.user_id, &self.flag_name, &self.new_override).await?;
        let record = record.ok_or(Conflict::OverrideExists)?;
        Ok(OverrideListItem { record, user: user.identity() })
    }
}

#[derive(Clone)]
pub(super) struct SetOverride {
    pub(super) user_id: Uuid,
    pub(super) flag_name: FlagName,
    pub(super) new_override: NewOverride,
    pub(super) precondition: Precondition,
    pub(super) permitted: PermittedUsers,
}

impl Command for SetOverride {
    type Output = (UpsertOutcome, OverrideListItem);

    async fn apply(&self, tx: &mut Tx, author: &Author) -> Result<Self::Output> {
        let (user, flag) = lock_user_and_flag_shared(tx, self.user_id, &self.flag_name, self.permitted).await?;
        let existing = lock_unexpired(tx, self.user_id, &self.flag_name).await?;
        self.precondition.check(tx, existing.as_ref().map(|record| record.revision)).await?;
        let (user, flag) = require_user_and_flag(user, flag)?;
        let Some(record) = existing else {
            check_new_override(&self.new_override, &flag, tx.now())?;
            let record = insert(tx, author, self.user_id, &self.flag_name, &self.new_override).await?;
            // If a concurrent transaction has created the override, the retry finds and replaces
            // it.
            let record = record
                .ok_or_else(|| StoreError::TransactionConflict("override was created concurrently".to_owned()))?;
            return Ok((UpsertOutcome::Created, OverrideListItem { record, user: user.identity() }));
        };
        let patch = OverridePatch {
            override_value: Some(self.new_override.override_value.clone()),
            enabled: Some(self.new_override.enabled),
            reason: Some(self.new_override.reason.clone()),
            expires_at: Some(self.new_override.expires_at),
        };
        let record = apply_patch(tx, &flag, record, &patch).await?;
        Ok((UpsertOutcome::Replaced, OverrideListItem { record, user: user.identity() }))
    }
}

#[derive(Clone)]
pub(super) struct PatchOverride {
    pub(super) user_id: Uuid,
    pub(super) flag_name: FlagName,
    pub(super) patch: OverridePatch,
    pub(super) precondition: Precondition,
    pub(super) permitted: PermittedUsers,
}

impl Command for PatchOverride {
    type Output = OverrideListItem;

    async fn apply(&self, tx: &mut Tx, _: &Author) -> Result<Self::Output> {
        let (user, flag) = lock_user_and_flag_shared(tx, self.user_id, &self.flag_name, self.permitted).await?;
        let record = overrides::lock(tx, self.user_id, &self.flag_name).await?;
        let record = record.filter(|record| record.user_override.status(tx.now()) != OverrideStatus::Expired);
        self.precondition.check(tx, record.as_ref().map(|record| record.revision)).await?;
        let user = user.ok_or(ServiceError::NotFound(ResourceKind::User))?;
        let record = record.ok_or(ServiceError::NotFound(ResourceKind::Override))?;
        let flag = flag.ok_or(ServiceError::NotFound(ResourceKind::Flag))?;
        let record = apply_patch(tx, &flag.flag, record, &self.patch).await?;
        Ok(OverrideListItem { record, user: user.identity() })
    }
}

#[derive(Clone)]
pub(super) struct DeleteOverride {
    pub(super) user_id: Uuid,
    pub(super) flag_name: String,
    pub(super) precondition: Precondition,
    pub(super) permitted: PermittedUsers,
}

impl Command for DeleteOverride {
    type Output = ();

    async fn apply(&self, tx: &mut Tx, _: &Author) -> Result<()> {
        if self.permitted != PermittedUsers::All
            && let Some(user) = users::lock_shared(tx, self.user_id).await?
        {
            self.permitted.check(&user)?;
        }
        let mut record = overrides::lock(tx, self.user_id, &self.flag_name).await?;
        if record.is_none() {
            // The statement may have waited while another transaction replaced an expired override.
            // The second attempt finds the replacement.
            record = overrides::lock(tx, self.user_id, &self.flag_name).await?;
        }
        self.precondition.check(tx, record.as_ref().map(|record| record.revision)).await?;
        if let Some(record) = record {
            return Ok(overrides::delete(tx, &record.user_override).await?);
        }
        let user = users::find(tx.conn(), self.user_id).await?;
        Err(ServiceError::NotFound(if user.is_some() { ResourceKind::Override } else { ResourceKind::User }))
    }
}

/// Locks the user and the flag against concurrent changes and deletion, and returns those that exist. Fails if the
/// author may not change overrides of the user.
async fn lock_user_and_flag_shared(
    tx: &mut Tx,
    user_id: Uuid,
    flag_name: &str,
    permitted: PermittedUsers,
) -> Result<(Option<UserRecord>, Option<FlagRecord>)> {
    let user = users::lock_shared(tx, user_id).await?;
    if let Some(user) = &user {
        permitted.check(user)?;
    }
    Ok((user, flags::lock_shared(tx, flag_name).await?))
}

/// Fails if the user or the flag does not exist, or if the flag is archived.
fn require_user_and_flag(user: Option<UserRecord>, flag: Option<FlagRecord>) -> Result<(UserRecord, Flag)> {
    let user = user.ok_or(ServiceError::NotFound(ResourceKind::User))?;
    Ok((user, require_flag(flag)?))
}

/// Returns the flag, or the error that it does not exist. An archived flag is not found.
pub(super) fn require_flag(flag: Option<FlagRecord>) -> Result<Flag> {
    let flag = flag.filter(|record| record.flag.archived_at.is_none());
    Ok(flag.ok_or(ServiceError::NotFound(ResourceKind::Flag))?.flag)
}

/// Locks and returns an override. If the override has expired, removes it and returns `None`.
async fn lock_unexpired(tx: &mut Tx, user_id: Uuid, flag_name: &str) -> Result<Option<OverrideRecord>> {
    let Some(record) = overrides::lock(tx, user_id, flag_name).await? else { return Ok(None) };
    if record.user_override.status(tx.now()) != OverrideStatus::Expired {
        return Ok(Some(record));
    }
    overrides::delete(tx, &record.user_override).await?;
    Ok(None)
}

/// Inserts an override. Returns `None` if a concurrent transaction has inserted an override of the
/// same flag and user.
async fn insert(
    tx: &mut Tx,
    author: &Author,
    user_id: Uuid,
    flag_name: &FlagName,
    new_override: &NewOverride,
) -> Result<Option<OverrideRecord>> {
    let now = tx.now();
    let user_override = UserOverride {
        id: Uuid::now_v7(),
        user_id,
        flag_name: flag_name.clone(),
        override_value: new_override.override_value.clone(),
        enabled: Some(new_override.enabled),
        reason: new_override.reason.clone(),
        created_by: author.actor.clone(),
        created_at: now,
        updated_at: now,
        expires_at: new_override.expires_at,
    };
    let inserted = overrides::insert(tx, &user_override).await?;
    Ok(inserted.then_some(OverrideRecord { user_override, revision: 0 }))
}

/// Applies a patch to an override. Writes nothing if the patch changes no value.
async fn apply_patch(
    tx: &mut Tx,
    flag: &Flag,
    record: OverrideRecord,
    patch: &OverridePatch,
) -> Result<OverrideRecord> {
    let before = record.user_override;
    let mut after = before.clone();
    if let Some(value) = &patch.override_value {
        after.override_value = value.clone();
    }
    if let Some(enabled) = patch.enabled
        && enabled != before.is_enabled()
    {
        after.enabled = Some(enabled);
    }
    if let Some(reason) = &patch.reason {
        after.reason.clone_from(reason);
    }
    if let Some(expires_at) = patch.expires_at {
        after.expires_at = expires_at;
    }
    let new_expiry = after.expires_at.filter(|_| after.expires_at != before.expires_at);
    let new_value = patch.override_value.as_ref();
    check(validate(flag, new_value, after.reason.as_deref(), new_expiry, tx.now()))?;
    if after == before {
        return Ok(OverrideRecord { user_override: before, revision: record.revision });
    }
    after.updated_at = tx.now();
    overrides::update(tx, &before, &after).await?;
    Ok(OverrideRecord { user_override: after, revision: record.revision })
}

pub(super) fn check_new_override(new_override: &NewOverride, flag: &Flag, now: Instant) -> Result<()> {
    check(validate(
        flag,
        Some(&new_override.override_value),
        new_override.reason.as_deref(),
        new_override.expires_at,
        now,
    ))
}

fn validate(
    flag: &Flag,
    value: Option<&Value>,
    reason: Option<&str>,
    expires_at: Option<Instant>,
    now: Instant,
) -> Vec<Violation> {
    let mut violations = Vec::new();
    violations.extend(value.and_then(|value| flag.flag_type.check("/override_value", value).err()));
    violations.extend(reason.and_then(|reason| check_text("/reason", reason, MAX_REASON_LENGTH)));
    if expires_at.is_some_and(|expiry| expiry <= now) {
        violations.push(Violation::new("/expires_at", "not_in_future", "must be in the future, or null for no expiry"));
    }
    violations
}
