//! User overrides: the use cases of the specification's `UserFlagOverrideService`.

use std::collections::HashMap;

use flags_domain::{Flag, FlagName, Instant, MAX_REASON_LENGTH, OverrideStatus, UserOverride, Violation, check_text};
use flags_store::{
    Author, Page, StoreError, Tx, flags,
    overrides::{self, ListedOverride, OverrideFilter, OverrideOrder, OverrideRecord},
    users,
};
use serde_json::Value;
use uuid::Uuid;

use crate::{
    core::{Command, Core, Done, Intent},
    error::{Conflict, Result, ServiceError, Thing, check},
    evaluation::Evaluation,
    maintenance,
    precondition::Precondition,
};

/// What an override is to say.
#[derive(Clone, Debug, PartialEq)]
pub struct OverrideInput {
    /// What the user gets; must be of the flag's type.
    pub override_value: Value,
    /// Whether it is switched on.
    pub enabled: bool,
    /// Why, at most 500 characters.
    pub reason: Option<String>,
    /// Its end; must lie in the future.
    pub expires_at: Option<Instant>,
}

/// What an override is to say from now on; `None` leaves a field as it is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OverridePatch {
    /// What the user gets; must be of the flag's type.
    pub override_value: Option<Value>,
    /// Whether it is switched on.
    pub enabled: Option<bool>,
    /// Why; `Some(None)` clears it.
    pub reason: Option<Option<String>>,
    /// Its end, in the future; `Some(None)` takes it away.
    pub expires_at: Option<Option<Instant>>,
}

/// Whether setting an override made one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placed {
    /// There was none before.
    Created,
    /// It replaced one, or left it as it was.
    Replaced,
}

/// Reads and changes overrides.
#[derive(Clone)]
pub struct UserFlagOverrideService {
    pub(crate) core: Core,
    evaluation: Evaluation,
}

impl UserFlagOverrideService {
    /// On this core; values come from `evaluation`.
    pub const fn new(core: Core, evaluation: Evaluation) -> Self {
        Self { core, evaluation }
    }

    /// All unexpired overrides of a user, by the flag's name.
    pub async fn get_user_overrides(&self, user_id: Uuid) -> Result<Vec<OverrideRecord>> {
        let now = self.core.now();
        let mut found = Vec::new();
        let mut after = None;
        loop {
            let page = self.list_of_user(user_id, after.take(), PAGE).await?;
            after = page.items.last().map(|item| item.record.user_override.flag_name.to_string());
            let unexpired = |record: &OverrideRecord| record.user_override.status(now) != OverrideStatus::Expired;
            found.extend(page.items.into_iter().map(|item| item.record).filter(unexpired));
            if !page.has_more {
                return Ok(found);
            }
        }
    }

    /// Creates the override of a user and flag, or replaces it.
    pub async fn set_override(
        &self,
        author: Author,
        user_id: Uuid,
        flag_name: &str,
        input: OverrideInput,
        precondition: Precondition,
    ) -> Result<Done<(Placed, ListedOverride)>> {
        let command = SetOverride { user_id, flag_name: read_name(flag_name)?, input, precondition };
        self.core.execute(author, command).await
    }

    /// Removes the override of a user and flag; `false` if there was none.
    pub async fn remove_override(&self, author: Author, user_id: Uuid, flag_name: &str) -> Result<bool> {
        match self.delete(author, user_id, flag_name, Precondition::None).await {
            Ok(_) => Ok(true),
            Err(ServiceError::NotFound(Thing::Override)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The value that a user gets of a flag, from whichever layer decides.
    pub async fn get_flag_value_for_user(&self, flag_name: &str, user_id: Uuid) -> Result<Value> {
        self.evaluation.value_for_user(flag_name, user_id).await
    }

    /// Removes all overrides whose end has passed and returns how many went.
    pub async fn cleanup_expired_overrides(&self) -> Result<u64> {
        maintenance::remove_expired_overrides(&self.core).await
    }

    /// The overrides of a user by the flag's name, whatever their status.
    pub async fn list_of_user(&self, user_id: Uuid, after: Option<String>, limit: u32) -> Result<Page<ListedOverride>> {
        let filter = OverrideFilter { user_id: Some(user_id), ..OverrideFilter::default() };
        let order = OverrideOrder::FlagName(after);
        let page = self.core.read(async |conn| {
            let known = users::find(conn, user_id).await?.is_some();
            Ok((known, overrides::list(conn, &filter, order, limit).await?))
        });
        let (known, page) = page.await?;
        if known { Ok(page) } else { Err(ServiceError::NotFound(Thing::User)) }
    }

    /// The overrides of a flag by the users' e-mail, whatever their status.
    pub async fn list_of_flag(
        &self,
        flag_name: &str,
        after: Option<(String, Uuid)>,
        limit: u32,
    ) -> Result<Page<ListedOverride>> {
        let filter = OverrideFilter { flag_name: Some(flag_name.to_owned()), ..OverrideFilter::default() };
        let order = OverrideOrder::UserEmail(after);
        let page = self.core.read(async |conn| {
            let known = flags::find(conn, flag_name).await?.is_some();
            Ok((known, overrides::list(conn, &filter, order, limit).await?))
        });
        let (known, page) = page.await?;
        if known { Ok(page) } else { Err(ServiceError::NotFound(Thing::Flag)) }
    }

    /// All overrides that `filter` lets through.
    pub async fn list(
        &self,
        filter: &OverrideFilter,
        order: OverrideOrder,
        limit: u32,
    ) -> Result<Page<ListedOverride>> {
        self.core.read(async |conn| overrides::list(conn, filter, order, limit).await).await
    }

    /// Those of these overrides that are still there, in this order.
    pub async fn find_listed(&self, ids: &[Uuid]) -> Result<Vec<ListedOverride>> {
        let found = self.core.read(async |conn| overrides::find_listed(conn, ids).await).await?;
        let mut found: HashMap<_, _> = found.into_iter().map(|o| (o.record.user_override.id, o)).collect();
        Ok(ids.iter().filter_map(|id| found.remove(id)).collect())
    }

    /// The override of a user and flag. Until it is removed an expired one is found as well.
    pub async fn get(&self, user_id: Uuid, flag_name: &str) -> Result<ListedOverride> {
        let found = self.core.read(async |conn| {
            let user = users::find(conn, user_id).await?;
            Ok((user, overrides::find(conn, user_id, flag_name).await?))
        });
        let (user, record) = found.await?;
        let user = user.ok_or(ServiceError::NotFound(Thing::User))?;
        let record = record.ok_or(ServiceError::NotFound(Thing::Override))?;
        Ok(ListedOverride { record, user_email: user.email })
    }

    /// Creates an override; one that has not expired stands in the way.
    pub async fn create(
        &self,
        intent: impl Into<Intent<ListedOverride>>,
        user_id: Uuid,
        flag_name: &str,
        input: OverrideInput,
    ) -> Result<Done<ListedOverride>> {
        let command = CreateOverride { user_id, flag_name: read_name(flag_name)?, input };
        self.core.execute(intent, command).await
    }

    /// Changes the named fields of an override that has not expired.
    pub async fn patch(
        &self,
        author: Author,
        user_id: Uuid,
        flag_name: &str,
        patch: OverridePatch,
        precondition: Precondition,
    ) -> Result<Done<ListedOverride>> {
        let command = PatchOverride { user_id, flag_name: read_name(flag_name)?, patch, precondition };
        self.core.execute(author, command).await
    }

    /// Removes an override.
    pub async fn delete(
        &self,
        author: Author,
        user_id: Uuid,
        flag_name: &str,
        precondition: Precondition,
    ) -> Result<Done<()>> {
        let command = DeleteOverride { user_id, flag_name: flag_name.to_owned(), precondition };
        self.core.execute(author, command).await
    }
}

/// Overrides read at once.
const PAGE: u32 = 200;

fn read_name(text: &str) -> Result<FlagName> {
    FlagName::new(text).map_err(|_| ServiceError::NotFound(Thing::Flag))
}

#[derive(Clone)]
struct CreateOverride {
    user_id: Uuid,
    flag_name: FlagName,
    input: OverrideInput,
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
struct SetOverride {
    user_id: Uuid,
    flag_name: FlagName,
    input: OverrideInput,
    precondition: Precondition,
}

impl Command for SetOverride {
    type Output = (Placed, ListedOverride);

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
            return Ok((Placed::Created, ListedOverride { record, user_email }));
        };
        let patch = OverridePatch {
            override_value: Some(self.input.override_value.clone()),
            enabled: Some(self.input.enabled),
            reason: Some(self.input.reason.clone()),
            expires_at: Some(self.input.expires_at),
        };
        let record = change(tx, &flag, record, &patch).await?;
        Ok((Placed::Replaced, ListedOverride { record, user_email }))
    }

    fn stamp(output: &mut Self::Output, revision: i64) {
        output.1.record.revision = revision;
    }
}

#[derive(Clone)]
struct PatchOverride {
    user_id: Uuid,
    flag_name: FlagName,
    patch: OverridePatch,
    precondition: Precondition,
}

impl Command for PatchOverride {
    type Output = ListedOverride;

    async fn apply(&self, tx: &mut Tx, _: &Author) -> Result<Self::Output> {
        share_parents(tx, self.user_id, &self.flag_name).await?;
        let record = overrides::claim(tx, self.user_id, &self.flag_name).await?;
        let record = record.filter(|record| record.user_override.status(tx.now()) != OverrideStatus::Expired);
        self.precondition.check(tx, record.as_ref().map(|record| record.revision)).await?;
        let user = users::find(tx.conn(), self.user_id).await?.ok_or(ServiceError::NotFound(Thing::User))?;
        let record = record.ok_or(ServiceError::NotFound(Thing::Override))?;
        let flag = flags::find(tx.conn(), &self.flag_name).await?.ok_or(ServiceError::NotFound(Thing::Flag))?;
        let record = change(tx, &flag.flag, record, &self.patch).await?;
        Ok(ListedOverride { record, user_email: user.email })
    }

    fn stamp(output: &mut Self::Output, revision: i64) {
        output.record.revision = revision;
    }
}

#[derive(Clone)]
struct DeleteOverride {
    user_id: Uuid,
    flag_name: String,
    precondition: Precondition,
}

impl Command for DeleteOverride {
    type Output = ();

    async fn apply(&self, tx: &mut Tx, _: &Author) -> Result<()> {
        let record = overrides::claim(tx, self.user_id, &self.flag_name).await?;
        self.precondition.check(tx, record.as_ref().map(|record| record.revision)).await?;
        if users::find(tx.conn(), self.user_id).await?.is_none() {
            return Err(ServiceError::NotFound(Thing::User));
        }
        let record = record.ok_or(ServiceError::NotFound(Thing::Override))?;
        Ok(overrides::delete(tx, &record.user_override).await?)
    }
}

/// Holds user and flag, so that neither goes while an override is born.
async fn share_parents(tx: &mut Tx, user_id: Uuid, flag_name: &str) -> Result<()> {
    tx.share_user(user_id).await?;
    Ok(tx.share_flag(flag_name).await?)
}

/// The user's e-mail and the flag, which must not be archived.
async fn find_parents(tx: &mut Tx, user_id: Uuid, flag_name: &str) -> Result<(String, Flag)> {
    let user = users::find(tx.conn(), user_id).await?.ok_or(ServiceError::NotFound(Thing::User))?;
    let flag = flags::find(tx.conn(), flag_name).await?.filter(|record| record.flag.archived_at.is_none());
    Ok((user.email, flag.ok_or(ServiceError::NotFound(Thing::Flag))?.flag))
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
