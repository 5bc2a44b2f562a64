//! One change to many overrides at once.

use std::sync::Arc;

use flags_domain::{Instant, OverrideStatus, UserOverride, Violation};
use flags_store::{
    Author, Committed, Tx,
    idempotency::{self, Claim},
    overrides::{self, OverrideFilter, OverrideRecord},
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    core::{Command, CommandOutcome, CommandRequest, Core},
    error::{Result, ServiceError, check},
    overrides::UserFlagOverrideService,
};

/// Most overrides that one revision changes.
pub const AT_ONCE: usize = 1_000;
/// Most overrides that a filter may let through.
pub const MOST_MATCHES: usize = 100_000;

/// What is to be done to each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BulkAction {
    /// Switch it on.
    Enable,
    /// Switch it off.
    Disable,
    /// Remove it.
    Delete,
    /// Give it another end, or none.
    SetExpiry(Option<Instant>),
}

/// Which overrides.
#[derive(Clone, Debug)]
pub enum BulkTarget {
    /// These, at most [`AT_ONCE`].
    Ids(Vec<Uuid>),
    /// All that a list with this filter would hold, at most [`MOST_MATCHES`].
    Filter(OverrideFilter),
}

/// What became of one override.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum BulkOutcome {
    /// It was changed or removed.
    Changed,
    /// It was so already.
    Unchanged,
    /// It is not there (an expired one only counts as there for its removal).
    NotFound,
}

/// What became of all of them.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct BulkResult {
    /// Each with its id; those of a filter in the order of their ids.
    pub results: Vec<(Uuid, BulkOutcome)>,
    /// The revisions in which something changed.
    pub revisions: Vec<i64>,
}

impl BulkResult {
    /// How many were changed.
    pub fn changed(&self) -> usize {
        self.results.iter().filter(|(_, outcome)| *outcome == BulkOutcome::Changed).count()
    }
}

impl UserFlagOverrideService {
    /// Changes many overrides in one revision; more than [`AT_ONCE`], which only a filter can name, in several. With
    /// `dry_run` nothing is changed, and the result is what would be.
    pub async fn bulk(
        &self,
        intent: CommandRequest<BulkResult>,
        action: BulkAction,
        target: BulkTarget,
        dry_run: bool,
    ) -> Result<CommandOutcome<BulkResult>> {
        check_end(action, self.core.now())?;
        let filter = match target {
            BulkTarget::Ids(ids) => {
                return self.core.execute(intent, Bulk { ids, filter: None, action, dry_run }).await;
            }
            BulkTarget::Filter(filter) => filter,
        };
        let core = self.core.clone();
        let work = async move {
            let ids = plan(&core, &intent, filter.clone()).await?;
            let part = |ids: &[Uuid]| Bulk { ids: ids.to_vec(), filter: Some(filter.clone()), action, dry_run };
            let all = carry_out(&core, &intent, ids.chunks(AT_ONCE).map(part)).await?;
            finish(&core, &intent, all).await
        };
        self.core.detached(work).await
    }
}

fn check_end(action: BulkAction, now: Instant) -> Result<()> {
    let late = matches!(action, BulkAction::SetExpiry(Some(end)) if end <= now);
    let violation = || Violation::new("/expires_at", "not_in_future", "must lie in the future, or be null");
    check(late.then(violation).into_iter().collect())
}

/// Which overrides a filter means. Under a key they are written down first, so that whoever asks again means the same ones,
/// and another request cannot take the key meanwhile.
async fn plan(core: &Core, intent: &CommandRequest<BulkResult>, filter: OverrideFilter) -> Result<Vec<Uuid>> {
    let author = intent.author().clone();
    let written = match intent.key() {
        None => core.execute(author, Plan(filter)).await,
        Some(key) => {
            let text = |ids: &Vec<Uuid>, _: &Committed| {
                std::iter::once(PLAN).chain(ids.iter().flat_map(|id| *id.as_bytes())).collect()
            };
            core.execute(CommandRequest::once(author, key.clone(), Arc::new(text)), Plan(filter)).await
        }
    };
    match written {
        Ok(done) => Ok(done.output),
        Err(ServiceError::Answered(kept)) => match kept.answer.split_first() {
            Some((&PLAN, ids)) => Ok(ids.chunks_exact(16).filter_map(|id| Uuid::from_slice(id).ok()).collect()),
            _ => Err(ServiceError::Answered(kept)),
        },
        Err(error) => Err(error),
    }
}

/// Begins the text of a plan, which no answer begins with.
const PLAN: u8 = 0;

/// Looks which overrides a filter lets through.
#[derive(Clone)]
struct Plan(OverrideFilter);

impl Command for Plan {
    type Output = Vec<Uuid>;

    async fn apply(&self, tx: &mut Tx, _: &Author) -> Result<Vec<Uuid>> {
        let ids = overrides::matching(tx.conn(), &self.0, None, MOST_MATCHES + 1).await?;
        if ids.len() > MOST_MATCHES {
            let detail = format!("matches more than {MOST_MATCHES} overrides; narrow it");
            return Err(Violation::new("/filter", "too_many_matches", detail).into());
        }
        Ok(ids)
    }
}

/// One part after the other. Under a key each part has a key of its own, so that a request that is sent again, or twice at
/// once, carries no part out twice, and goes on where the first one ended.
async fn carry_out(
    core: &Core,
    intent: &CommandRequest<BulkResult>,
    parts: impl Iterator<Item = Bulk>,
) -> Result<BulkResult> {
    let mut all = BulkResult::default();
    for (number, part) in parts.enumerate() {
        let author = intent.author().clone();
        let step = match intent.key() {
            None => author.into(),
            // Ids and numbers can always be written.
            Some(key) => CommandRequest::once(
                author,
                key.part(number),
                Arc::new(|result: &BulkResult, _: &Committed| serde_json::to_vec(result).unwrap_or_default()),
            ),
        };
        let result = match core.execute(step, part).await {
            Ok(done) => done.output,
            Err(ServiceError::Answered(kept)) => serde_json::from_slice(&kept.answer)
                .map_err(|error| ServiceError::Internal(format!("a part of a bulk change cannot be read: {error}")))?,
            Err(error) => return Err(error),
        };
        all.results.extend(result.results);
        all.revisions.extend(result.revisions);
    }
    Ok(all)
}

/// Keeps the answer in place of the plan, if there is a key.
async fn finish(
    core: &Core,
    intent: &CommandRequest<BulkResult>,
    all: BulkResult,
) -> Result<CommandOutcome<BulkResult>> {
    let mut tx = core.begin().await?;
    let Some(key) = intent.key() else {
        return Ok(CommandOutcome { output: all, committed: tx.commit(intent.author()).await? });
    };
    match idempotency::claim(&mut tx, key).await? {
        // Another request of the same key was faster, and this is what it answered.
        Claim::Answered(kept) if kept.answer.first() != Some(&PLAN) => Err(ServiceError::Answered(kept)),
        Claim::Taken => Err(ServiceError::KeyTaken),
        Claim::Answered(_) | Claim::Free => {
            let answer = |committed: &Committed| intent.render(&all, committed);
            let committed = tx.commit_with_response(intent.author(), key, answer).await?;
            Ok(CommandOutcome { output: all, committed })
        }
    }
}

#[derive(Clone)]
struct Bulk {
    ids: Vec<Uuid>,
    /// Must still hold when the rows are held.
    filter: Option<OverrideFilter>,
    action: BulkAction,
    dry_run: bool,
}

impl Command for Bulk {
    type Output = BulkResult;

    async fn apply(&self, tx: &mut Tx, _: &Author) -> Result<BulkResult> {
        let records = overrides::claim_all(tx, &self.ids).await?;
        check_end(self.action, tx.now())?;
        let mut ids = self.ids.clone();
        if let Some(filter) = &self.filter {
            let now = tx.now();
            let filter = OverrideFilter { status: filter.status.map(|(status, _)| (status, now)), ..filter.clone() };
            ids = overrides::matching(tx.conn(), &filter, Some(&self.ids), self.ids.len()).await?;
        }
        let mut result = BulkResult::default();
        for id in ids {
            // They come in the order of their ids.
            let found = records.binary_search_by_key(&id, |record| record.user_override.id).ok();
            let found = found.map(|place| &records[place]);
            result.results.push((id, self.change(tx, found).await?));
        }
        Ok(result)
    }

    fn stamp(output: &mut BulkResult, revision: i64) {
        output.revisions.push(revision);
    }
}

impl Bulk {
    async fn change(&self, tx: &mut Tx, found: Option<&OverrideRecord>) -> Result<BulkOutcome> {
        let Some(before) = found.map(|record| &record.user_override) else { return Ok(BulkOutcome::NotFound) };
        let Some(after) = self.after(before, tx.now()) else {
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

    /// The override as it is to be; `None` if it is to go.
    fn after(&self, before: &UserOverride, now: Instant) -> Option<UserOverride> {
        let after = UserOverride { updated_at: now, ..before.clone() };
        Some(match self.action {
            BulkAction::Enable => UserOverride { enabled: Some(true), ..after },
            BulkAction::Disable => UserOverride { enabled: Some(false), ..after },
            BulkAction::SetExpiry(expires_at) => UserOverride { expires_at, ..after },
            BulkAction::Delete => return None,
        })
    }
}
