//! Bulk changes to overrides.

use std::{collections::HashSet, sync::Arc};

use flags_domain::{Instant, OverrideStatus, UserOverride, Violation};
use flags_store::{
    Author, Tx,
    idempotency::{self, KeyState},
    overrides::{self, OverrideFilter, OverrideRecord},
    users::{self, Role},
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    core::{Command, CommandOutcome, CommandRequest, Core},
    credentials::check::PermittedUsers,
    error::{Result, ServiceError},
    overrides::UserFlagOverrideService,
};

/// Maximum number of overrides that one revision changes.
pub const BATCH_SIZE: usize = 1_000;
/// Maximum number of overrides that a filter may match.
pub const MAX_MATCHES: usize = 100_000;
/// Maximum number of overrides that a filter of an author with role support may match.
pub const MAX_SUPPORT_MATCHES: usize = 1_000;

/// Change that is applied to each selected override.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BulkAction {
    /// Enables the override.
    Enable,
    /// Disables the override.
    Disable,
    /// Removes the override.
    Delete,
    /// Sets the expiry; `None` removes it.
    SetExpiry(Option<Instant>),
}

/// Selection of the overrides to change.
#[derive(Clone, Debug)]
pub enum BulkSelection {
    /// The overrides with these ids, at most [`BATCH_SIZE`].
    Ids(Vec<Uuid>),
    /// The overrides that match a filter, at most [`MAX_MATCHES`].
    Filter(OverrideFilter),
}

/// Result for one override.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum BulkOutcome {
    /// The override was changed or removed.
    Changed,
    /// The override already had the requested state.
    Unchanged,
    /// The override does not exist, or it has expired. [`BulkAction::Delete`] also removes expired overrides.
    NotFound,
    /// The author may not change overrides of this user.
    Forbidden,
}

/// Results of a bulk change for all selected overrides.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct BulkResult {
    /// Override ids with their outcomes. Sorted by id if a filter selected the overrides.
    pub results: Vec<(Uuid, BulkOutcome)>,
    /// Revision numbers of the commits that contain the changes.
    pub revisions: Vec<i64>,
}

impl BulkResult {
    /// Number of changed or removed overrides.
    pub fn changed(&self) -> usize {
        self.results.iter().filter(|(_, outcome)| *outcome == BulkOutcome::Changed).count()
    }
}

impl UserFlagOverrideService {
    /// Changes many overrides in batches of [`BATCH_SIZE`], each in its own revision.
    ///
    /// A dry run changes nothing and returns the result that the change would have.
    pub async fn bulk_change(
        &self,
        request: CommandRequest<BulkResult>,
        action: BulkAction,
        selection: BulkSelection,
        dry_run: bool,
    ) -> Result<CommandOutcome<BulkResult>> {
        check_expiry(action, self.core.now())?;
        let permitted = request.author().permitted_users();
        let filter = match selection {
            BulkSelection::Ids(ids) => {
                let command = ApplyBulkAction { ids, filter: None, action, dry_run, permitted };
                return self.core.execute(request, command).await;
            }
            BulkSelection::Filter(filter) => filter,
        };
        let core = self.core.clone();
        let work = async move {
            let ids = select_ids(&core, &request, filter.clone()).await?;
            let to_command = |ids: &[Uuid]| ApplyBulkAction {
                ids: ids.to_vec(),
                filter: Some(filter.clone()),
                action,
                dry_run,
                permitted,
            };
            let result = execute_batches(&core, &request, ids.chunks(BATCH_SIZE).map(to_command)).await?;
            store_response(&core, &request, result).await
        };
        self.core.run_detached(work).await
    }
}

fn check_expiry(action: BulkAction, now: Instant) -> Result<()> {
    match action {
        BulkAction::SetExpiry(Some(expiry)) if expiry <= now => {
            let message = "must be in the future, or null for no expiry";
            Err(Violation::new("/expires_at", "not_in_future", message).into())
        }
        _ => Ok(()),
    }
}

/// Returns the ids of the overrides that match a filter.
///
/// If the request has an idempotency key, the ids are stored under the key first. A retry then changes the same
/// overrides, and a different request cannot use the key in the meantime.
async fn select_ids(core: &Core, request: &CommandRequest<BulkResult>, filter: OverrideFilter) -> Result<Vec<Uuid>> {
    let author = request.author().clone();
    let command = SelectOverrides { filter, permitted: author.permitted_users() };
    let selected = match request.key() {
        None => core.execute(author, command).await,
        Some(key) => {
            let request =
                CommandRequest::idempotent(author, key.clone(), Arc::new(|ids: &Vec<Uuid>, _| encode_ids(ids)));
            core.execute(request, command).await
        }
    };
    match selected {
        Ok(outcome) => Ok(outcome.output),
        Err(ServiceError::Replayed(stored)) => match stored.payload.split_first() {
            Some((&ID_LIST_MARKER, ids)) => Ok(decode_ids(ids)),
            _ => Err(ServiceError::Replayed(stored)),
        },
        Err(error) => Err(error),
    }
}

/// First byte of a stored id list. Stored responses are JSON and never start with this byte.
const ID_LIST_MARKER: u8 = 0;

fn encode_ids(ids: &[Uuid]) -> Vec<u8> {
    std::iter::once(ID_LIST_MARKER).chain(ids.iter().flat_map(|id| *id.as_bytes())).collect()
}

/// Decodes an id list without its first byte.
fn decode_ids(bytes: &[u8]) -> Vec<Uuid> {
    bytes.as_chunks().0.iter().map(|id| Uuid::from_bytes(*id)).collect()
}

/// Finds the overrides that match a filter.
#[derive(Clone)]
struct SelectOverrides {
    filter: OverrideFilter,
    permitted: PermittedUsers,
}

impl Command for SelectOverrides {
    type Output = Vec<Uuid>;

    async fn apply(&self, tx: &mut Tx, _: &Author) -> Result<Vec<Uuid>> {
        let (max_matches, limit) = match self.permitted {
            PermittedUsers::All => (MAX_MATCHES, "the limit of a bulk change"),
            PermittedUsers::WithRoleUser => (MAX_SUPPORT_MATCHES, "the limit for role support"),
        };
        let ids = overrides::find_matching_ids(tx.conn(), &self.filter, None, max_matches + 1).await?;
        if ids.len() > max_matches {
            let detail = format!("matches more than {max_matches} overrides, {limit}; add conditions to the filter");
            return Err(Violation::new("/filter", "too_many_matches", detail).into());
        }
        Ok(ids)
    }
}

#[expect(
    clippy::expect_used,
    reason = "serialization cannot fail: the result contains only ids, enum variants and numbers"
)]
fn encode_result(result: &BulkResult) -> Vec<u8> {
    serde_json::to_vec(result).expect("a bulk result can be represented as JSON")
}

/// Executes the batches in sequence.
///
/// If the request has an idempotency key, each batch gets a derived key. A retry or a concurrent duplicate then skips
/// the completed batches and uses their stored results.
async fn execute_batches(
    core: &Core,
    request: &CommandRequest<BulkResult>,
    batches: impl Iterator<Item = ApplyBulkAction>,
) -> Result<BulkResult> {
    let mut total = BulkResult::default();
    for (number, batch) in batches.enumerate() {
        let author = request.author().clone();
        let batch_request = match request.key() {
            None => author.into(),
            Some(key) => {
                CommandRequest::idempotent(author, key.for_batch(number), Arc::new(|result, _| encode_result(result)))
            }
        };
        let result = match core.execute(batch_request, batch).await {
            Ok(outcome) => outcome.output,
            Err(ServiceError::Replayed(stored)) => serde_json::from_slice(&stored.payload).map_err(|error| {
                ServiceError::Internal(format!("cannot parse the stored result of a bulk batch: {error}"))
            })?,
            Err(error) => return Err(error),
        };
        total.results.extend(result.results);
        total.revisions.extend(result.revisions);
    }
    Ok(total)
}

/// If the request has an idempotency key, stores the response under the key. The response replaces
/// the id list that [`select_ids`] stored there.
async fn store_response(
    core: &Core,
    request: &CommandRequest<BulkResult>,
    result: BulkResult,
) -> Result<CommandOutcome<BulkResult>> {
    let mut tx = core.begin().await?;
    let author = request.author().author();
    let Some(key) = request.key() else {
        return Ok(CommandOutcome { output: result, committed: tx.commit(author).await? });
    };
    match idempotency::reserve(&mut tx, key).await? {
        // A concurrent request with the same key has already stored its response.
        KeyState::Completed(stored) if stored.payload.first() != Some(&ID_LIST_MARKER) => {
            // Roll back before the credential check: a dropped transaction would keep its locks
            // until the connection is reused.
            tx.rollback().await?;
            core.check_credential(request.author().check()).await?;
            Err(ServiceError::Replayed(stored))
        }
        KeyState::Mismatch => Err(ServiceError::IdempotencyKeyReused),
        KeyState::Completed(_) | KeyState::New => {
            let committed =
                tx.commit_with_response(author, key, |committed| request.render(&result, committed)).await?;
            Ok(CommandOutcome { output: result, committed })
        }
    }
}

/// Applies a bulk action to one batch of overrides.
#[derive(Clone)]
struct ApplyBulkAction {
    ids: Vec<Uuid>,
    /// Filter that is checked again after the rows are locked. Overrides that no longer match are
    /// skipped.
    filter: Option<OverrideFilter>,
    action: BulkAction,
    dry_run: bool,
    permitted: PermittedUsers,
}

impl Command for ApplyBulkAction {
    type Output = BulkResult;

    async fn apply(&self, tx: &mut Tx, _: &Author) -> Result<BulkResult> {
        let permitted = self.lock_permitted_users(tx).await?;
        let records = overrides::lock_by_ids(tx, &self.ids).await?;
        check_expiry(self.action, tx.now())?;
        let mut ids = self.ids.clone();
        if let Some(filter) = &self.filter {
            let now = tx.now();
            let filter = OverrideFilter { status: filter.status.map(|(status, _)| (status, now)), ..filter.clone() };
            ids = overrides::find_matching_ids(tx.conn(), &filter, Some(&self.ids), self.ids.len()).await?;
        }
        let mut result = BulkResult::default();
        for id in ids {
            // The binary search works because the records are sorted by id.
            let found = records.binary_search_by_key(&id, |record| record.user_override.id).ok();
            let outcome = match found.map(|index| &records[index]) {
                None => BulkOutcome::NotFound,
                Some(found) if !permitted.as_ref().is_none_or(|users| users.contains(&found.user_override.user_id)) => {
                    BulkOutcome::Forbidden
                }
                Some(found) => self.apply_to(tx, found).await?,
            };
            result.results.push((id, outcome));
        }
        Ok(result)
    }
}

impl ApplyBulkAction {
    /// Locks (shared) and returns the users whose overrides the author may change, so that their roles do not change
    /// before the commit. `None` means all users.
    async fn lock_permitted_users(&self, tx: &mut Tx) -> Result<Option<HashSet<Uuid>>> {
        match self.permitted {
            PermittedUsers::All => Ok(None),
            PermittedUsers::WithRoleUser => {
                // Read without a lock, because users must be locked before overrides. The user of an override never
                // changes, and ids of overrides are never reused.
                let user_ids = overrides::find_user_ids(tx.conn(), &self.ids).await?;
                let locked = users::lock_with_role(tx, &user_ids, Role::User).await?;
                Ok(Some(locked.into_iter().collect()))
            }
        }
    }

    async fn apply_to(&self, tx: &mut Tx, found: &OverrideRecord) -> Result<BulkOutcome> {
        let before = &found.user_override;
        let Some(after) = self.updated(before, tx.now()) else {
            if !self.dry_run {
                overrides::delete(tx, before).await?;
            }
            return Ok(BulkOutcome::Changed);
        };
        if before.status(tx.now()) == OverrideStatus::Expired {
            return Ok(BulkOutcome::NotFound);
        }
        if (after.is_enabled(), after.expires_at) == (before.is_enabled(), before.expires_at) {
            return Ok(BulkOutcome::Unchanged);
        }
        if !self.dry_run {
            overrides::update(tx, before, &after).await?;
        }
        Ok(BulkOutcome::Changed)
    }

    /// Returns the override after the action; `None` for [`BulkAction::Delete`].
    fn updated(&self, before: &UserOverride, now: Instant) -> Option<UserOverride> {
        let after = UserOverride { updated_at: now, ..before.clone() };
        Some(match self.action {
            BulkAction::Enable => UserOverride { enabled: Some(true), ..after },
            BulkAction::Disable => UserOverride { enabled: Some(false), ..after },
            BulkAction::SetExpiry(expires_at) => UserOverride { expires_at, ..after },
            BulkAction::Delete => return None,
        })
    }
}
