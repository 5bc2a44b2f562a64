//! User overrides: the use cases of the specification's `UserFlagOverrideService`.

mod commands;

use std::collections::HashMap;

use flags_domain::{FlagName, Instant, OverrideStatus};
use flags_store::{
    Author, Page, flags,
    overrides::{self, ListedOverride, OverrideFilter, OverrideOrder, OverrideRecord},
    users,
};
use serde_json::Value;
use uuid::Uuid;

use self::commands::{CreateOverride, DeleteOverride, PatchOverride, SetOverride};
use crate::{
    core::{CommandOutcome, CommandRequest, Core},
    error::{ResourceKind, Result, ServiceError},
    evaluation::Evaluation,
    maintenance,
    precondition::Precondition,
};

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
    ) -> Result<CommandOutcome<(UpsertOutcome, ListedOverride)>> {
        let command = SetOverride { user_id, flag_name: read_name(flag_name)?, input, precondition };
        self.core.execute(author, command).await
    }

    /// Removes the override of a user and flag; `false` if there was none.
    pub async fn remove_override(&self, author: Author, user_id: Uuid, flag_name: &str) -> Result<bool> {
        match self.delete(author, user_id, flag_name, Precondition::None).await {
            Ok(_) => Ok(true),
            Err(ServiceError::NotFound(ResourceKind::Override)) => Ok(false),
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
        if known { Ok(page) } else { Err(ServiceError::NotFound(ResourceKind::User)) }
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
        if known { Ok(page) } else { Err(ServiceError::NotFound(ResourceKind::Flag)) }
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
        let user = user.ok_or(ServiceError::NotFound(ResourceKind::User))?;
        let record = record.ok_or(ServiceError::NotFound(ResourceKind::Override))?;
        Ok(ListedOverride { record, user_email: user.email })
    }

    /// Creates an override; one that has not expired stands in the way.
    pub async fn create(
        &self,
        intent: impl Into<CommandRequest<ListedOverride>>,
        user_id: Uuid,
        flag_name: &str,
        input: OverrideInput,
    ) -> Result<CommandOutcome<ListedOverride>> {
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
    ) -> Result<CommandOutcome<ListedOverride>> {
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
    ) -> Result<CommandOutcome<()>> {
        let command = DeleteOverride { user_id, flag_name: flag_name.to_owned(), precondition };
        self.core.execute(author, command).await
    }
}

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
pub enum UpsertOutcome {
    /// There was none before.
    Created,
    /// It replaced one, or left it as it was.
    Replaced,
}

/// Overrides read at once.
const PAGE: u32 = 200;

fn read_name(text: &str) -> Result<FlagName> {
    FlagName::new(text).map_err(|_| ServiceError::NotFound(ResourceKind::Flag))
}
