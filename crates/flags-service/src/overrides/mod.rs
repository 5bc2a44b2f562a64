//! User overrides: reading, setting and removing them.

mod commands;
mod missing_user;

use std::collections::HashMap;

use flags_domain::{FlagName, Instant, OverrideStatus};
use flags_store::{
    Page, flags,
    overrides::{self, OverrideFilter, OverrideListItem, OverrideOrder, OverrideRecord},
    users,
};
use serde_json::Value;
use uuid::Uuid;

use self::commands::{CreateOverride, DeleteOverride, PatchOverride, SetOverride};
use crate::{
    core::{CommandOutcome, CommandRequest, Core},
    credentials::check::CommandAuthor,
    error::{ResourceKind, Result, ServiceError},
    evaluation::Evaluation,
    maintenance,
    precondition::Precondition,
};

/// Reads, sets and removes user overrides.
#[derive(Clone)]
pub struct UserFlagOverrideService {
    pub(crate) core: Core,
    evaluation: Evaluation,
}

impl UserFlagOverrideService {
    /// Creates a service that executes its commands on `core` and evaluates flags with
    /// `evaluation`.
    pub const fn new(core: Core, evaluation: Evaluation) -> Self {
        Self { core, evaluation }
    }

    /// Returns all unexpired overrides of a user, sorted by flag name.
    pub async fn get_user_overrides(&self, user_id: Uuid) -> Result<Vec<OverrideRecord>> {
        let now = self.core.now();
        let mut found = Vec::new();
        let mut after = None;
        loop {
            let page = self.list_for_user(user_id, after.take(), PAGE_SIZE).await?;
            after = page.items.last().map(|item| item.record.user_override.flag_name.to_string());
            let records = page.items.into_iter().map(|item| item.record);
            found.extend(records.filter(|record| record.user_override.status(now) != OverrideStatus::Expired));
            if !page.has_more {
                return Ok(found);
            }
        }
    }

    /// Creates or replaces a user's override of a flag.
    pub async fn set_override(
        &self,
        author: CommandAuthor,
        user_id: Uuid,
        flag_name: &str,
        new_override: NewOverride,
        precondition: Precondition,
    ) -> Result<CommandOutcome<(UpsertOutcome, OverrideListItem)>> {
        let (flag_name, permitted) = (parse_flag_name(flag_name)?, author.permitted_users());
        let command = SetOverride { user_id, flag_name, new_override, precondition, permitted };
        self.core.execute(author, command).await
    }

    /// Removes a user's override of a flag. Returns `false` if the override does not exist.
    pub async fn remove_override(&self, author: CommandAuthor, user_id: Uuid, flag_name: &str) -> Result<bool> {
        match self.delete(author, user_id, flag_name, Precondition::None).await {
            Ok(_) => Ok(true),
            Err(ServiceError::NotFound(ResourceKind::Override)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Returns the value of a flag for a user, after applying the user's override if there is one.
    pub async fn get_flag_value_for_user(&self, flag_name: &str, user_id: Uuid) -> Result<Value> {
        self.evaluation.value_for_user(flag_name, user_id).await
    }

    /// Removes all expired overrides and returns their number.
    pub async fn cleanup_expired_overrides(&self) -> Result<u64> {
        maintenance::remove_expired_overrides(&self.core).await
    }

    /// Returns a page of a user's overrides, with any status and sorted by flag name. `after` is
    /// the last flag name of the previous page.
    pub async fn list_for_user(
        &self,
        user_id: Uuid,
        after: Option<String>,
        limit: u32,
    ) -> Result<Page<OverrideListItem>> {
        let filter = OverrideFilter { user_id: Some(user_id), ..OverrideFilter::default() };
        let order = OverrideOrder::FlagName(after);
        let page = self.core.read(async |conn| {
            let user_exists = users::find(conn, user_id).await?.is_some();
            Ok((user_exists, overrides::list(conn, &filter, order, limit).await?))
        });
        let (user_exists, page) = page.await?;
        if user_exists { Ok(page) } else { Err(ServiceError::NotFound(ResourceKind::User)) }
    }

    /// Returns a page of the overrides of a flag, with any status and sorted by the user's handle
    /// (e-mail address or external id). `after` is the position of the last item of the previous
    /// page.
    pub async fn list_for_flag(
        &self,
        flag_name: &str,
        after: Option<(String, Uuid)>,
        limit: u32,
    ) -> Result<Page<OverrideListItem>> {
        let filter = OverrideFilter { flag_name: Some(flag_name.to_owned()), ..OverrideFilter::default() };
        let order = OverrideOrder::UserHandle(after);
        let page = self.core.read(async |conn| {
            let flag_exists = flags::find(conn, flag_name).await?.is_some();
            Ok((flag_exists, overrides::list(conn, &filter, order, limit).await?))
        });
        let (flag_exists, page) = page.await?;
        if flag_exists { Ok(page) } else { Err(ServiceError::NotFound(ResourceKind::Flag)) }
    }

    /// Returns a page of the overrides that match `filter`.
    pub async fn list(
        &self,
        filter: &OverrideFilter,
        order: OverrideOrder,
        limit: u32,
    ) -> Result<Page<OverrideListItem>> {
        self.core.read(async |conn| overrides::list(conn, filter, order, limit).await).await
    }

    /// Returns the overrides with these ids that still exist, in the order of `ids`.
    pub async fn find_listed(&self, ids: &[Uuid]) -> Result<Vec<OverrideListItem>> {
        let found = self.core.read(async |conn| overrides::find_list_items(conn, ids).await).await?;
        let mut found: HashMap<_, _> = found.into_iter().map(|o| (o.record.user_override.id, o)).collect();
        Ok(ids.iter().filter_map(|id| found.remove(id)).collect())
    }

    /// Returns a user's override of a flag, including an expired override that has not been removed
    /// yet.
    pub async fn get(&self, user_id: Uuid, flag_name: &str) -> Result<OverrideListItem> {
        let found = self.core.read(async |conn| {
            let user = users::find(conn, user_id).await?;
            Ok((user, overrides::find(conn, user_id, flag_name).await?))
        });
        let (user, record) = found.await?;
        let user = user.ok_or(ServiceError::NotFound(ResourceKind::User))?;
        let record = record.ok_or(ServiceError::NotFound(ResourceKind::Override))?;
        Ok(OverrideListItem { record, user: user.identity() })
    }

    /// Creates an override.
    ///
    /// # Errors
    ///
    /// `Conflict::OverrideExists` if the user already has an unexpired override of the flag.
    pub async fn create(
        &self,
        request: impl Into<CommandRequest<OverrideListItem>>,
        user_id: Uuid,
        flag_name: &str,
        new_override: NewOverride,
    ) -> Result<CommandOutcome<OverrideListItem>> {
        let request = request.into();
        let (flag_name, permitted) = (parse_flag_name(flag_name)?, request.author().permitted_users());
        let command = CreateOverride { user_id, flag_name, new_override, permitted };
        self.core.execute(request, command).await
    }

    /// Applies a patch to an unexpired override. Writes nothing if the patch changes no value.
    pub async fn patch(
        &self,
        author: CommandAuthor,
        user_id: Uuid,
        flag_name: &str,
        patch: OverridePatch,
        precondition: Precondition,
    ) -> Result<CommandOutcome<OverrideListItem>> {
        let (flag_name, permitted) = (parse_flag_name(flag_name)?, author.permitted_users());
        let command = PatchOverride { user_id, flag_name, patch, precondition, permitted };
        self.core.execute(author, command).await
    }

    /// Removes an override, including an expired one.
    pub async fn delete(
        &self,
        author: CommandAuthor,
        user_id: Uuid,
        flag_name: &str,
        precondition: Precondition,
    ) -> Result<CommandOutcome<()>> {
        let permitted = author.permitted_users();
        let command = DeleteOverride { user_id, flag_name: flag_name.to_owned(), precondition, permitted };
        self.core.execute(author, command).await
    }
}

/// Properties of a new or replaced override.
#[derive(Clone, Debug, PartialEq)]
pub struct NewOverride {
    /// Value that the user receives. It must have the flag's type.
    pub override_value: Value,
    /// Whether the override applies.
    pub enabled: bool,
    /// Reason for the override, at most 500 characters.
    pub reason: Option<String>,
    /// Expiry, which must be in the future; `None` for an override that does not expire.
    pub expires_at: Option<Instant>,
}

/// Changes to an override. `None` keeps a field.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OverridePatch {
    /// Value that the user receives. It must have the flag's type.
    pub override_value: Option<Value>,
    /// Whether the override applies.
    pub enabled: Option<bool>,
    /// Reason, at most 500 characters; `Some(None)` removes it.
    pub reason: Option<Option<String>>,
    /// Expiry, which must be in the future; `Some(None)` removes it.
    pub expires_at: Option<Option<Instant>>,
}

/// Result of an upsert.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpsertOutcome {
    /// The override did not exist or had expired.
    Created,
    /// The override existed. It was replaced, or left unchanged if nothing differs.
    Replaced,
}

/// Number of overrides per query in [`UserFlagOverrideService::get_user_overrides`].
const PAGE_SIZE: u32 = 200;

/// Parses a flag name. A malformed name cannot belong to a flag, so the error is "not found".
fn parse_flag_name(text: &str) -> Result<FlagName> {
    FlagName::new(text).map_err(|_| ServiceError::NotFound(ResourceKind::Flag))
}
