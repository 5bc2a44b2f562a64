//! What creating, changing and removing an override do to the database.

use flags_domain::{Flag, FlagName, Instant, MAX_REASON_LENGTH, OverrideStatus, UserOverride, Violation, check_text};
use flags_store::{
    Author, StoreError, Tx, flags,
    overrides::{self, ListedOverride, OverrideRecord},
    users,
};
use serde_json::Value;
use uuid::Uuid;

use super::{OverrideInput, OverridePatch, UpsertOutcome};
use crate::{
    core::Command,
    error::{Conflict, ResourceKind, Result, ServiceError, check},
    precondition::Precondition,
};

#[derive(Clone)]
pub(super) struct CreateOverride {
    pub(super) user_id: Uuid,
    pub(super) flag_name: FlagName,
    pub(super) input: OverrideInput,
}

impl Command for CreateOverride {
    type Output = ListedOverride;

    async fn apply(&self, tx: &mut Tx, author: &Author) -> Result<Self::Output> {
        share_parents(tx, self.user_id, &self.flag_name).await?;
        let (user_email, flag) = find_parents(tx, self.user_id, &self.flag_name).await?;
        let present = claim_unexpired(tx, self.user_id, &self.flag_name).await?;
        check_input(&self.input, &flag, tx.now())?;
        if present.is_some() {
            return Err(Conflict::OverrideExists.into());
        }
        let record = insert(tx, author, self.user_id, &self.flag_name, &self.input).await?;
        let record = record.ok_or(Conflict::OverrideExists)?;
        Ok(ListedOverride { record, user_email })
    }

    fn stamp(output: &mut Self::Output, revision: i64) {
        output.record.revision = revision;
    }
}

#[derive(Clone)]
pub(super) struct SetOverride {
    pub(super) user_id: Uuid,
    pub(super) flag_name: FlagName,
    pub(super) input: OverrideInput,
    pub(super) precondition: Precondition,
}

impl Command for SetOverride {
    type Output = (UpsertOutcome, ListedOverride);

    async fn apply(&self, tx: &mut Tx, author: &Author) -> Result<Self::Output> {
        share_parents(tx, self.user_id, &self.flag_name).await?;
        let present = claim_unexpired(tx, self.user_id, &self.flag_name).await?;
        self.precondition.check(tx, present.as_ref().map(|record| record.revision)).await?;
        let (user_email, flag) = find_parents(tx, self.user_id, &self.flag_name).await?;
        let Some(record) = present else {
            check_input(&self.input, &flag, tx.now())?;
            let record = insert(tx, author, self.user_id, &self.flag_name, &self.input).await?;
            // Another transaction was faster: the next attempt finds what it created.
            let record = record.ok_or_else(|| StoreError::Collision("an override was created meanwhile".to_owned()))?;
            return Ok((UpsertOutcome::Created, ListedOverride { record, user_email }));
        };
        let patch = OverridePatch {
            override_value: Some(self.input.override_value.clone()),
            enabled: Some(self.input.enabled),
            reason: Some(self.input.reason.clone()),
            expires_at: Some(self.input.expires_at),
        };
        let record = change(tx, &flag, record, &patch).await?;
        Ok((UpsertOutcome::Replaced, ListedOverride { record, user_email }))
    }

    fn stamp(output: &mut Self::Output, revision: i64) {
        output.1.record.revision = revision;
    }
}

#[derive(Clone)]
pub(super) struct PatchOverride {
    pub(super) user_id: Uuid,
    pub(super) flag_name: FlagName,
    pub(super) patch: OverridePatch,
    pub(super) precondition: Precondition,
}

impl Command for PatchOverride {
    type Output = ListedOverride;

    async fn apply(&self, tx: &mut Tx, _: &Author) -> Result<Self::Output> {
        share_parents(tx, self.user_id, &self.flag_name).await?;
        let record = overrides::claim(tx, self.user_id, &self.flag_name).await?;
        let record = record.filter(|record| record.user_override.status(tx.now()) != OverrideStatus::Expired);
        self.precondition.check(tx, record.as_ref().map(|record| record.revision)).await?;
        let user = users::find(tx.conn(), self.user_id).await?.ok_or(ServiceError::NotFound(ResourceKind::User))?;
        let record = record.ok_or(ServiceError::NotFound(ResourceKind::Override))?;
        let flag = flags::find(tx.conn(), &self.flag_name).await?.ok_or(ServiceError::NotFound(ResourceKind::Flag))?;
        let record = change(tx, &flag.flag, record, &self.patch).await?;
        Ok(ListedOverride { record, user_email: user.email })
    }

    fn stamp(output: &mut Self::Output, revision: i64) {
        output.record.revision = revision;
    }
}

#[derive(Clone)]
pub(super) struct DeleteOverride {
    pub(super) user_id: Uuid,
    pub(super) flag_name: String,
    pub(super) precondition: Precondition,
}

impl Command for DeleteOverride {
    type Output = ();

    async fn apply(&self, tx: &mut Tx, _: &Author) -> Result<()> {
        let record = overrides::claim(tx, self.user_id, &self.flag_name).await?;
        self.precondition.check(tx, record.as_ref().map(|record| record.revision)).await?;
        if users::find(tx.conn(), self.user_id).await?.is_none() {
            return Err(ServiceError::NotFound(ResourceKind::User));
        }
        let record = record.ok_or(ServiceError::NotFound(ResourceKind::Override))?;
        Ok(overrides::delete(tx, &record.user_override).await?)
    }
}

/// Holds user and flag, so that neither goes while an override is born.
async fn share_parents(tx: &mut Tx, user_id: Uuid, flag_name: &str) -> Result<()> {
    tx.lock_user_shared(user_id).await?;
    Ok(tx.lock_flag_shared(flag_name).await?)
}

/// The user's e-mail and the flag, which must not be archived.
async fn find_parents(tx: &mut Tx, user_id: Uuid, flag_name: &str) -> Result<(String, Flag)> {
    let user = users::find(tx.conn(), user_id).await?.ok_or(ServiceError::NotFound(ResourceKind::User))?;
    let flag = flags::find(tx.conn(), flag_name).await?.filter(|record| record.flag.archived_at.is_none());
    Ok((user.email, flag.ok_or(ServiceError::NotFound(ResourceKind::Flag))?.flag))
}

/// The override, held; one that has expired is removed on the way and counts as absent.
async fn claim_unexpired(tx: &mut Tx, user_id: Uuid, flag_name: &str) -> Result<Option<OverrideRecord>> {
    let Some(record) = overrides::claim(tx, user_id, flag_name).await? else { return Ok(None) };
    if record.user_override.status(tx.now()) != OverrideStatus::Expired {
        return Ok(Some(record));
    }
    overrides::delete(tx, &record.user_override).await?;
    Ok(None)
}

/// Creates the override; `None` if another transaction was faster.
async fn insert(
    tx: &mut Tx,
    author: &Author,
    user_id: Uuid,
    flag_name: &FlagName,
    input: &OverrideInput,
) -> Result<Option<OverrideRecord>> {
    let now = tx.now();
    let user_override = UserOverride {
        id: Uuid::now_v7(),
        user_id,
        flag_name: flag_name.clone(),
        override_value: input.override_value.clone(),
        enabled: Some(input.enabled),
        reason: input.reason.clone(),
        created_by: author.actor.clone(),
        created_at: now,
        updated_at: now,
        expires_at: input.expires_at,
    };
    let inserted = overrides::insert(tx, &user_override).await?;
    Ok(inserted.then_some(OverrideRecord { user_override, revision: 0 }))
}

/// Changes what `patch` names; nothing is written if nothing differs.
async fn change(tx: &mut Tx, flag: &Flag, record: OverrideRecord, patch: &OverridePatch) -> Result<OverrideRecord> {
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
    let new_end = after.expires_at.filter(|_| after.expires_at != before.expires_at);
    let new_value = patch.override_value.as_ref();
    check(violations(flag, new_value, after.reason.as_deref(), new_end, tx.now()))?;
    if after == before {
        return Ok(OverrideRecord { user_override: before, revision: record.revision });
    }
    after.updated_at = tx.now();
    overrides::update(tx, &before, &after).await?;
    Ok(OverrideRecord { user_override: after, revision: record.revision })
}

fn check_input(input: &OverrideInput, flag: &Flag, now: Instant) -> Result<()> {
    check(violations(flag, Some(&input.override_value), input.reason.as_deref(), input.expires_at, now))
}

fn violations(
    flag: &Flag,
    value: Option<&Value>,
    reason: Option<&str>,
    expires_at: Option<Instant>,
    now: Instant,
) -> Vec<Violation> {
    let mut found = Vec::new();
    found.extend(value.and_then(|value| flag.flag_type.check("/override_value", value).err()));
    found.extend(reason.and_then(|reason| check_text("/reason", reason, MAX_REASON_LENGTH)));
    if expires_at.is_some_and(|end| end <= now) {
        found.push(Violation::new("/expires_at", "not_in_future", "must lie in the future, or be left out"));
    }
    found
}
