//! One change to many overrides at once.

use flags_domain::{Instant, OverrideStatus, UserOverride, Violation};
use flags_store::{
    Author, Tx,
    overrides::{self, OverrideFilter, OverrideRecord},
};
use uuid::Uuid;

use crate::{
    core::{Command, Done, Intent},
    error::{Result, check},
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
        let command = |ids, filter| Bulk { ids, filter, action, dry_run, so_far: BulkResult::default() };
        let filter = match target {
            BulkTarget::Ids(ids) => return self.core.execute(intent, command(ids, None)).await,
            BulkTarget::Filter(filter) => filter,
        };
        self.core.refuse_if_done(&intent).await?;
        let most = MOST_MATCHES + 1;
        let ids = self.core.read(async |conn| overrides::matching(conn, &filter, None, most).await).await?;
        if ids.len() > MOST_MATCHES {
            let detail = format!("matches more than {MOST_MATCHES} overrides; narrow it");
            return Err(Violation::new("/filter", "too_many_matches", detail).into());
        }
        let mut parts: Vec<_> = ids.chunks(AT_ONCE).map(<[Uuid]>::to_vec).collect();
        let last = command(parts.pop().unwrap_or_default(), Some(filter.clone()));
        let first = parts.into_iter().map(move |part| command(part, Some(filter.clone()))).collect::<Vec<_>>();
        let core = self.core.clone();
        let all = async move {
            let mut so_far = BulkResult::default();
            for part in first {
                so_far = core.execute(intent.author().clone(), Bulk { so_far, ..part }).await?.output;
            }
            core.execute(intent, Bulk { so_far, ..last }).await
        };
        self.core.detached(all).await
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
