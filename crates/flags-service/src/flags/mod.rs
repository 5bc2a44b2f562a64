//! Creating, changing, archiving, listing and deleting flags.

mod commands;
mod detail;

use flags_domain::{FlagName, FlagType, Serve, TargetingRule, Variant};
use flags_store::{
    Committed, Page,
    flags::{self, FlagFilter, FlagOrder},
};

pub(crate) use self::commands::lock_flag_with_schedule;
pub use self::detail::{FlagDetail, FlagItem, UnreadableFlagDetail};
use self::{
    commands::{ArchiveFlag, CreateFlag, DeleteFlag, PatchFlag, RestoreFlag},
    detail::FlagRelatedData,
};
use crate::{
    core::{CommandOutcome, CommandRequest, Core},
    credentials::check::CommandAuthor,
    error::{ResourceKind, Result, ServiceError},
    precondition::Precondition,
};

/// Creates, changes, archives, lists and deletes flags.
#[derive(Clone)]
pub struct FlagService {
    core: Core,
}

impl FlagService {
    /// Creates a service that executes its commands on `core`.
    pub const fn new(core: Core) -> Self {
        Self { core }
    }

    /// Returns a page of the flags that match `filter`, including flags that cannot be read.
    pub async fn list(&self, filter: &FlagFilter, order: FlagOrder, limit: u32) -> Result<Page<FlagItem>> {
        let now = self.core.now();
        self.core
            .read(async |conn| {
                let page = flags::list(conn, filter, order, limit).await?;
                let names: Vec<_> = page.items.iter().map(|flag| flag.name().clone()).collect();
                let mut related = FlagRelatedData::load(conn, &names, now).await?;
                Ok(page.map(|flag| related.take_item(flag)))
            })
            .await
    }

    /// Returns a flag by name, including a flag that is archived or cannot be read.
    pub async fn get(&self, name: &str) -> Result<FlagItem> {
        let now = self.core.now();
        let found = self.core.read(async |conn| {
            let Some(flag) = flags::find(conn, name).await? else { return Ok(None) };
            let mut related = FlagRelatedData::load(conn, std::slice::from_ref(flag.name()), now).await?;
            Ok(Some(related.take_item(flag)))
        });
        found.await?.ok_or(ServiceError::NotFound(ResourceKind::Flag))
    }

    /// Creates a flag. Fails with `Conflict::FlagExists` if the name is taken.
    pub async fn create(
        &self,
        request: impl Into<CommandRequest<FlagDetail>>,
        new_flag: NewFlag,
    ) -> Result<CommandOutcome<FlagDetail>> {
        self.core.execute(request, CreateFlag { new_flag }).await
    }

    /// Applies a patch to a flag. Writes nothing if the patch changes no value.
    pub async fn patch(
        &self,
        author: CommandAuthor,
        name: &str,
        patch: FlagPatch,
        precondition: Precondition,
    ) -> Result<CommandOutcome<FlagDetail>> {
        self.core.execute(author, PatchFlag { name: name.to_owned(), patch, precondition }).await
    }

    /// Archives a flag and cancels its pending scheduled changes. Archived flags have no evaluation
    /// result.
    ///
    /// If the flag cannot be read, its definition stays unchanged and its scheduled changes are not
    /// cancelled.
    pub async fn archive(
        &self,
        request: impl Into<CommandRequest<FlagItem>>,
        name: &str,
        precondition: Precondition,
    ) -> Result<CommandOutcome<FlagItem>> {
        self.core.execute(request, ArchiveFlag { name: name.to_owned(), precondition }).await
    }

    /// Restores an archived flag. Overrides that have not expired apply again.
    pub async fn restore(
        &self,
        request: impl Into<CommandRequest<FlagDetail>>,
        name: &str,
        precondition: Precondition,
    ) -> Result<CommandOutcome<FlagDetail>> {
        self.core.execute(request, RestoreFlag { name: name.to_owned(), precondition }).await
    }

    /// Deletes an archived flag with its overrides and scheduled changes, and records each deletion
    /// in the change log.
    ///
    /// A flag with many overrides is deleted in several revisions. The last revision deletes the
    /// flag itself.
    pub async fn delete(&self, author: CommandAuthor, name: &str, precondition: Precondition) -> Result<Committed> {
        let command = DeleteFlag { name: name.to_owned(), precondition };
        self.core.execute_until_finished(author, command, DeleteFlag::skip_precondition).await
    }
}

/// Properties of a new flag.
#[derive(Clone, Debug)]
pub struct NewFlag {
    /// Unique name.
    pub name: FlagName,
    /// Type of the variant values.
    pub flag_type: FlagType,
    /// Description of the purpose.
    pub description: Option<String>,
    /// Person or team responsible for the flag.
    pub owner: Option<String>,
    /// Tags for filtering.
    pub tags: Vec<String>,
    /// Whether the flag is enabled. A disabled flag serves `off_variant`.
    pub enabled: bool,
    /// Variants. Defaults to `on` and `off` for a boolean flag; otherwise required.
    pub variants: Option<Vec<Variant>>,
    /// Variant or weighted split that is served if no targeting rule matches. Defaults to `off` for a boolean flag with
    /// default variants; otherwise required.
    pub default: Option<Serve>,
    /// Variant that a disabled flag serves. Defaults to `off` for a boolean flag with default variants; otherwise
    /// required.
    pub off_variant: Option<String>,
    /// Targeting rules in order of evaluation; the first match decides.
    pub targeting_rules: Vec<TargetingRule>,
    /// Salt for the bucketing hash. The default is the flag name.
    pub salt: Option<String>,
    /// Whether clients that authenticate as a user can evaluate the flag.
    pub client_visible: bool,
}

/// Changes to a flag. `None` keeps a field.
#[derive(Clone, Debug, Default)]
pub struct FlagPatch {
    /// Description; `Some(None)` removes it.
    pub description: Option<Option<String>>,
    /// Owner; `Some(None)` removes it.
    pub owner: Option<Option<String>>,
    /// Replacement for all tags.
    pub tags: Option<Vec<String>>,
    /// Whether the flag is enabled. A change to the stored or effective value counts as a manual edit, which takes
    /// precedence over earlier scheduled changes.
    pub enabled: Option<bool>,
    /// Replacement for all variants. Variants in use cannot be removed.
    pub variants: Option<Vec<Variant>>,
    /// Variant or weighted split that is served if no targeting rule matches. A change to the stored or effective value
    /// counts as a manual edit, which takes precedence over earlier scheduled changes.
    pub default: Option<Serve>,
    /// Variant that a disabled flag serves.
    pub off_variant: Option<String>,
    /// Replacement for all targeting rules.
    pub targeting_rules: Option<Vec<TargetingRule>>,
    /// Salt for the bucketing hash. A new salt reassigns users to the variants of weighted splits.
    pub salt: Option<String>,
    /// Whether clients that authenticate as a user can evaluate the flag.
    pub client_visible: Option<bool>,
}
