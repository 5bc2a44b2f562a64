//! One change to many overrides at once.

use std::sync::Arc;

use flags_domain::{Instant, OverrideStatus, UserOverride, Violation};
use flags_store::{
    Author, Committed, Tx,
    idempotency::{self, Claim, IdempotencyKey},
    overrides::{self, OverrideFilter, OverrideRecord},
};
use uuid::Uuid;

use crate::{
    core::{Command, Core, Done, Intent},
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BulkOutcome {
    /// It was changed or removed.
    Changed,
    /// It was so already.
    Unchanged,
    /// It is not there (an expired one only counts as there for its removal).
    NotFound,
}

/// What became of all of them.
#[derive(Clone, Debug, Default)]
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
        intent: Intent<BulkResult>,
        action: BulkAction,
        target: BulkTarget,
        dry_run: bool,
    ) -> Result<Done<BulkResult>> {
        let command = move |ids, filter| Bulk { ids, filter, action, dry_run, so_far: BulkResult::default() };
        let filter = match target {
            BulkTarget::Ids(ids) => return self.core.execute(intent, command(ids, None)).await,
            BulkTarget::Filter(filter) => filter,
        };
        let core = self.core.clone();
        let work = async move {
            let ids = plan(&core, &intent, &filter).await?;
            let parts: Vec<_> = ids.chunks(AT_ONCE).map(|ids| command(ids.to_vec(), Some(filter.clone()))).collect();
            match intent.key().cloned() {
                None => all_parts(&core, intent, parts).await,
                Some(key) => all_parts_once(&core, &intent, &key, parts).await,
            }
        };
        self.core.detached(work).await
    }
}

/// Which overrides a filter means. Under a key they are written down first, so that whoever asks again means the same ones,
/// and another request cannot take the key meanwhile.
async fn plan(core: &Core, intent: &Intent<BulkResult>, filter: &OverrideFilter) -> Result<Vec<Uuid>> {
    let most = MOST_MATCHES + 1;
    let ids = core.read(async |conn| overrides::matching(conn, filter, None, most).await).await?;
    if ids.len() > MOST_MATCHES {
        let detail = format!("matches more than {MOST_MATCHES} overrides; narrow it");
        return Err(Violation::new("/filter", "too_many_matches", detail).into());
    }
    let Some(key) = intent.key() else { return Ok(ids) };
    let text: Vec<u8> = [PLAN].into_iter().chain(ids.iter().flat_map(|id| *id.as_bytes())).collect();
    let written =
        core.execute(Intent::once(intent.author().clone(), key.clone(), Arc::new(move |(), _| text.clone())), Nothing);
    match written.await {
        Ok(_) => Ok(ids),
        Err(ServiceError::Answered(kept)) => match kept.answer.split_first() {
            Some((&PLAN, ids)) => Ok(ids.chunks_exact(16).filter_map(|id| Uuid::from_slice(id).ok()).collect()),
            _ => Err(ServiceError::Answered(kept)),
        },
        Err(error) => Err(error),
    }
}

/// Begins the text of a plan, which no answer begins with.
const PLAN: u8 = 0;

/// Takes a key and changes nothing.
#[derive(Clone)]
struct Nothing;

impl Command for Nothing {
    type Output = ();

    async fn apply(&self, _: &mut Tx, _: &Author) -> Result<()> {
        Ok(())
    }
}

/// One part after the other; the last for the caller.
async fn all_parts(core: &Core, intent: Intent<BulkResult>, mut parts: Vec<Bulk>) -> Result<Done<BulkResult>> {
    let Some(mut last) = parts.pop() else { return core.execute(intent, Bulk::of_nothing()).await };
    for part in parts {
        last.so_far.add(core.execute(intent.author().clone(), part).await?.output);
    }
    core.execute(intent, last).await
}

/// The same under a key: each part has a key of its own, so that a request that is sent again, or twice at once, carries no
/// part out twice, and goes on where the first one ended.
async fn all_parts_once(
    core: &Core,
    intent: &Intent<BulkResult>,
    key: &IdempotencyKey,
    parts: Vec<Bulk>,
) -> Result<Done<BulkResult>> {
    let mut all = BulkResult::default();
    for (number, part) in parts.into_iter().enumerate() {
        let kept = |result: &BulkResult, _: &Committed| result.to_bytes();
        let once = Intent::once(intent.author().clone(), key.part(number), Arc::new(kept));
        match core.execute(once, part).await {
            Ok(done) => all.add(done.output),
            Err(ServiceError::Answered(kept)) => all.add(BulkResult::from_bytes(&kept.answer)?),
            Err(error) => return Err(error),
        }
    }
    let mut tx = core.begin().await?;
    match idempotency::claim(&mut tx, key).await? {
        // Another request of the same key was faster, and this is what it answered.
        Claim::Answered(kept) if kept.answer.first() != Some(&PLAN) => {
            tx.rollback().await?;
            core.reach_number(kept.revision).await;
            Err(ServiceError::Answered(kept))
        }
        Claim::Taken => Err(ServiceError::KeyTaken),
        Claim::Answered(_) | Claim::Free => {
            let answer = |committed: &Committed| intent.render(&all, committed);
            let committed = tx.commit_keeping(intent.author(), key, answer).await?;
            Ok(Done { output: all, committed })
        }
    }
}

impl BulkResult {
    fn add(&mut self, other: Self) {
        self.results.extend(other.results);
        self.revisions.extend(other.revisions);
    }

    fn to_bytes(&self) -> Vec<u8> {
        let outcome = |outcome: &BulkOutcome| match outcome {
            BulkOutcome::Changed => 0,
            BulkOutcome::Unchanged => 1,
            BulkOutcome::NotFound => 2,
        };
        let results: Vec<(Uuid, u8)> = self.results.iter().map(|(id, what)| (*id, outcome(what))).collect();
        // Ids and numbers can always be written.
        serde_json::to_vec(&(results, &self.revisions)).unwrap_or_default()
    }

    fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let unreadable = |error: serde_json::Error| ServiceError::Internal(error.to_string());
        let (results, revisions): (Vec<(Uuid, u8)>, _) = serde_json::from_slice(bytes).map_err(unreadable)?;
        let outcome = |(id, what): (Uuid, u8)| match what {
            0 => (id, BulkOutcome::Changed),
            1 => (id, BulkOutcome::Unchanged),
            _ => (id, BulkOutcome::NotFound),
        };
        Ok(Self { results: results.into_iter().map(outcome).collect(), revisions })
    }
}

#[derive(Clone)]
struct Bulk {
    ids: Vec<Uuid>,
    /// Must still hold when the rows are held.
    filter: Option<OverrideFilter>,
    action: BulkAction,
    dry_run: bool,
    so_far: BulkResult,
}

impl Command for Bulk {
    type Output = BulkResult;

    async fn apply(&self, tx: &mut Tx, _: &Author) -> Result<BulkResult> {
        let records = overrides::claim_all(tx, &self.ids).await?;
        if let BulkAction::SetExpiry(Some(end)) = self.action {
            let late = "must lie in the future, or be null";
            check(
                (end <= tx.now()).then(|| Violation::new("/expires_at", "not_in_future", late)).into_iter().collect(),
            )?;
        }
        let mut ids = self.ids.clone();
        if let Some(filter) = &self.filter {
            let now = tx.now();
            let filter = OverrideFilter { status: filter.status.map(|(status, _)| (status, now)), ..filter.clone() };
            ids = overrides::matching(tx.conn(), &filter, Some(&self.ids), self.ids.len()).await?;
        }
        let mut result = self.so_far.clone();
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
    fn of_nothing() -> Self {
        let so_far = BulkResult::default();
        Self { ids: Vec::new(), filter: None, action: BulkAction::Enable, dry_run: true, so_far }
    }

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
