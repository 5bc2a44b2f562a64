//! Flags: creating, changing, archiving and deleting them.

mod commands;
mod detail;

use flags_domain::{FlagName, FlagType, Serve, TargetingRule, Variant};
use flags_store::{
    Author, Committed, Page,
    flags::{self, FlagFilter, FlagOrder},
};

pub(crate) use self::commands::claim;
pub use self::detail::FlagDetail;
use self::{
    commands::{ArchiveFlag, CreateFlag, DeleteFlag, PatchFlag, RestoreFlag},
    detail::Beside,
};
use crate::{
    core::{CommandOutcome, CommandRequest, Core},
    error::{ResourceKind, Result, ServiceError},
    precondition::Precondition,
};

/// Reads and changes flags.
#[derive(Clone)]
pub struct FlagService {
    core: Core,
}

impl FlagService {
    /// On this core.
    pub const fn new(core: Core) -> Self {
        Self { core }
    }

    /// A page of flags.
    pub async fn list(&self, filter: &FlagFilter, order: FlagOrder, limit: u32) -> Result<Page<FlagDetail>> {
        let now = self.core.now();
        self.core
            .read(async |conn| {
                let page = flags::list(conn, filter, order, limit).await?;
                let names: Vec<_> = page.items.iter().map(|record| record.flag.name.clone()).collect();
                let mut beside = Beside::read(conn, &names, now).await?;
                Ok(page.map(|record| beside.detail(record)))
            })
            .await
    }

    /// The flag of this name.
    pub async fn get(&self, name: &str) -> Result<FlagDetail> {
        let now = self.core.now();
        let found = self.core.read(async |conn| {
            let Some(record) = flags::find(conn, name).await? else { return Ok(None) };
            let mut beside = Beside::read(conn, std::slice::from_ref(&record.flag.name), now).await?;
            Ok(Some(beside.detail(record)))
        });
        found.await?.ok_or(ServiceError::NotFound(ResourceKind::Flag))
    }

    /// Creates a flag.
    pub async fn create(
        &self,
        intent: impl Into<CommandRequest<FlagDetail>>,
        input: FlagInput,
    ) -> Result<CommandOutcome<FlagDetail>> {
        self.core.execute(intent, CreateFlag { input }).await
    }

    /// Changes the named fields of a flag.
    pub async fn patch(
        &self,
        author: Author,
        name: &str,
        patch: FlagPatch,
        precondition: Precondition,
    ) -> Result<CommandOutcome<FlagDetail>> {
        self.core.execute(author, PatchFlag { name: name.to_owned(), patch, precondition }).await
    }

    /// Puts a flag out of use: no result for anybody. Its pending scheduled changes are cancelled.
    pub async fn archive(
        &self,
        intent: impl Into<CommandRequest<FlagDetail>>,
        name: &str,
        precondition: Precondition,
    ) -> Result<CommandOutcome<FlagDetail>> {
        self.core.execute(intent, ArchiveFlag { name: name.to_owned(), precondition }).await
    }

    /// Puts an archived flag back in use, with the overrides that have not expired.
    pub async fn restore(
        &self,
        intent: impl Into<CommandRequest<FlagDetail>>,
        name: &str,
        precondition: Precondition,
    ) -> Result<CommandOutcome<FlagDetail>> {
        self.core.execute(intent, RestoreFlag { name: name.to_owned(), precondition }).await
    }

    /// Deletes an archived flag with its overrides and scheduled changes, each recorded. Very many overrides go in
    /// several revisions, the flag itself in the last.
    pub async fn delete(&self, author: Author, name: &str, precondition: Precondition) -> Result<Committed> {
        let command = DeleteFlag { name: name.to_owned(), precondition };
        let next = |command: &mut DeleteFlag| command.precondition = Precondition::None;
        self.core.execute_until_finished(author, command, next).await
    }
}

/// A new flag.
#[derive(Clone, Debug)]
pub struct FlagInput {
    /// Its key.
    pub name: FlagName,
    /// Its type.
    pub flag_type: FlagType,
    /// For people.
    pub description: Option<String>,
    /// For people.
    pub owner: Option<String>,
    /// For people.
    pub tags: Vec<String>,
    /// The switch.
    pub enabled: bool,
    /// Left out, a boolean flag gets `on` and `off`.
    pub variants: Option<Vec<Variant>>,
    /// Left out, a boolean flag made without variants serves `off`.
    pub default: Option<Serve>,
    /// Left out, a boolean flag made without variants serves `off`.
    pub off_variant: Option<String>,
    /// Rules, first match first.
    pub targeting_rules: Vec<TargetingRule>,
    /// Bucketing salt; the name if left out.
    pub salt: Option<String>,
    /// Whether users themselves get it.
    pub client_visible: bool,
}

/// What is to be different about a flag; `None` leaves a field as it is.
#[derive(Clone, Debug, Default)]
pub struct FlagPatch {
    /// `Some(None)` clears it.
    pub description: Option<Option<String>>,
    /// `Some(None)` clears it.
    pub owner: Option<Option<String>>,
    /// All tags.
    pub tags: Option<Vec<String>>,
    /// The switch; named at all, it counts as set by hand now.
    pub enabled: Option<bool>,
    /// All variants.
    pub variants: Option<Vec<Variant>>,
    /// The default; named at all, it counts as set by hand now.
    pub default: Option<Serve>,
    /// What is served while the flag is off.
    pub off_variant: Option<String>,
    /// All rules.
    pub targeting_rules: Option<Vec<TargetingRule>>,
    /// Bucketing salt; changing it moves users between variants.
    pub salt: Option<String>,
    /// Whether users themselves get it.
    pub client_visible: Option<bool>,
}
