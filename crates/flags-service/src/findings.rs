//! Search for overrides with findings, such as redundant or shadowed overrides.
//!
//! The search scans the replica shard by shard. Each call scans a limited number of overrides, so a page may contain
//! few or no matches although further pages exist.

use std::{cell::OnceCell, collections::HashMap, sync::Arc};

use flags_domain::{
    CompiledFlag, EvaluationContext, FindingCode, FlagName, Instant, MAX_UNITS_PER_REQUEST, OverrideStatus,
};
use serde_json::Map;
use uuid::Uuid;

use crate::{
    error::Result,
    evaluation::Evaluation,
    replica::{CachedUser, OverrideRef, Replica, ReplicaSnapshot},
};

/// Limits for one search call.
#[derive(Clone, Copy, Debug)]
pub struct ScanBudget {
    /// Maximum number of overrides to scan.
    pub max_overrides: usize,
    /// Maximum number of users to read from the database. Users are read in batches; the last batch
    /// may exceed the limit.
    pub max_users: usize,
    /// Maximum cost of evaluating targeting rules, in units of the
    /// [`EvaluationBudget`](flags_domain::EvaluationBudget). The last override may exceed it.
    pub max_units: u64,
}

impl Default for ScanBudget {
    fn default() -> Self {
        Self { max_overrides: 250_000, max_users: 10_000, max_units: 20 * MAX_UNITS_PER_REQUEST }
    }
}

/// Number of users whose contexts are loaded together. Other tasks run between two batches.
const USER_BATCH_SIZE: usize = 100;

/// Criteria that an override must meet. `None` accepts every override.
#[derive(Clone, Debug)]
pub struct FindingFilter {
    /// Finding that the override must have.
    pub finding: FindingCode,
    /// Flag of the override.
    pub flag_name: Option<String>,
    /// User of the override.
    pub user_id: Option<Uuid>,
    /// Status of the override.
    pub status: Option<OverrideStatus>,
    /// Exclusive upper bound of the expiry. Overrides without expiry do not match.
    pub expires_before: Option<Instant>,
}

/// An override that matches a [`FindingFilter`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OverrideMatch {
    /// User of the override.
    pub user_id: Uuid,
    /// Flag of the override.
    pub flag_name: String,
    /// Id of the override.
    pub id: Uuid,
}

/// One page of matching overrides, ordered by user shard, user id and flag name.
#[derive(Clone, Debug, Default)]
pub struct FindingsPage {
    /// Matching overrides.
    pub matches: Vec<OverrideMatch>,
    /// Position of the next page: user id and flag name of the last scanned override. `None` on the last page.
    pub next: Option<(Uuid, String)>,
}

/// Searches for overrides that currently match `filter`.
///
/// Starts after the position `after` and returns up to `limit` matches (at least 1).
pub async fn find(
    evaluation: &Evaluation,
    filter: &FindingFilter,
    after: Option<(Uuid, String)>,
    limit: usize,
    budget: ScanBudget,
) -> Result<FindingsPage> {
    let now = evaluation.now();
    let page = FindingsPage::default();
    let mut scan = FindingScan {
        evaluation,
        filter,
        now,
        limit,
        budget,
        scanned_overrides: 0,
        read_users: 0,
        spent_units: 0,
        page,
    };
    if scan.run(after).await? {
        scan.page.next = None;
    }
    Ok(scan.page)
}

struct FindingScan<'s> {
    evaluation: &'s Evaluation,
    filter: &'s FindingFilter,
    now: Instant,
    limit: usize,
    budget: ScanBudget,
    scanned_overrides: usize,
    /// Number of users that had to be read because they were not in the cache.
    read_users: usize,
    /// Cost of evaluating targeting rules so far, in units.
    spent_units: u64,
    page: FindingsPage,
}

impl FindingScan<'_> {
    /// Returns `true` if the scan reached the last override, `false` if it stopped at a limit.
    async fn run(&mut self, mut after: Option<(Uuid, String)>) -> Result<bool> {
        if let Some(user_id) = self.filter.user_id {
            return self.scan_users(&[user_id], after.as_ref()).await;
        }
        let replica = self.evaluation.replica();
        let mut shard = after.as_ref().map_or(0, |(user_id, _)| replica.read().shard_of(*user_id));
        loop {
            let Some(mut users) = replica.read().users_in_shard(shard) else { return Ok(true) };
            if let Some((user_id, _)) = &after {
                users.retain(|user| user >= user_id);
            }
            for batch in users.chunks(USER_BATCH_SIZE) {
                if !self.scan_users(batch, after.as_ref()).await? {
                    return Ok(false);
                }
                // A scan may take long, so other tasks must get a turn on this thread.
                tokio::task::yield_now().await;
            }
            after = None;
            shard += 1;
        }
    }

    /// Scans the overrides of these users. Returns `false` if the scan stopped at a limit.
    async fn scan_users(&mut self, user_ids: &[Uuid], after: Option<&(Uuid, String)>) -> Result<bool> {
        let replica = Arc::clone(self.evaluation.replica());
        // Taking one snapshot at a time keeps each lock on the replica short.
        let snapshots: Vec<_> = user_ids.iter().map(|user_id| replica.snapshot(Some(*user_id))).collect();
        let cached_users = self.load_users(user_ids, &snapshots).await?;
        let mut last = None;
        let mut yielded_at = self.spent_units;
        for (user_id, snapshot) in user_ids.iter().zip(&snapshots) {
            let overrides = snapshot.overrides().filter(|o| {
                after.is_none_or(|(user, flag_name)| user != user_id || flag_name.as_str() < o.flag_name.as_str())
            });
            let user =
                ScannedUser { id: *user_id, cached: cached_users.get(user_id), id_only_context: OnceCell::new() };
            for user_override in overrides {
                // Each page scans at least one override; otherwise the next page would start at the same position.
                if self.scanned_overrides > 0 && (self.is_exhausted() || self.page.matches.len() >= self.limit) {
                    self.set_next_position(last);
                    return Ok(false);
                }
                self.scanned_overrides += 1;
                last = Some((*user_id, user_override.flag_name));
                if self.is_match(snapshot, &user, user_override) {
                    self.page.matches.push(OverrideMatch {
                        user_id: *user_id,
                        flag_name: user_override.flag_name.to_string(),
                        id: user_override.id,
                    });
                }
                if self.spent_units - yielded_at >= MAX_UNITS_PER_REQUEST {
                    yielded_at = self.spent_units;
                    tokio::task::yield_now().await;
                }
            }
        }
        self.set_next_position(last);
        Ok(true)
    }

    const fn is_exhausted(&self) -> bool {
        self.scanned_overrides >= self.budget.max_overrides
            || self.read_users > self.budget.max_users
            || self.spent_units >= self.budget.max_units
    }

    /// Sets the position of the next page to the last scanned override, if there is one.
    fn set_next_position(&mut self, last: Option<(Uuid, &FlagName)>) {
        if let Some((user_id, flag_name)) = last {
            self.page.next = Some((user_id, flag_name.to_string()));
        }
    }

    /// Loads the users whose attributes may affect the result. Returns an empty map if the finding does not depend on
    /// attributes.
    async fn load_users(
        &mut self,
        user_ids: &[Uuid],
        snapshots: &[ReplicaSnapshot],
    ) -> Result<HashMap<Uuid, Arc<CachedUser>>> {
        let (mut loaded, mut uncached) = (HashMap::new(), Vec::new());
        if !self.filter.finding.reads_attributes() {
            return Ok(loaded);
        }
        let replica = self.evaluation.replica();
        for (user_id, snapshot) in user_ids.iter().zip(snapshots) {
            let reads_user = |o: &OverrideRef<'_>| {
                let flag = snapshot.flag(o.flag_name).filter(|_| self.matches_fields(o));
                flag.is_some_and(|flag| reads_user(flag.compiled(), *user_id, replica))
            };
            if snapshot.overrides().any(|o| reads_user(&o)) {
                match replica.users().get(*user_id) {
                    Some(user) => _ = loaded.insert(*user_id, user),
                    None => uncached.push(*user_id),
                }
            }
        }
        if !uncached.is_empty() {
            self.read_users += uncached.len();
            for user in self.evaluation.read_users(&uncached).await? {
                loaded.insert(user.id, Arc::new(user));
            }
        }
        Ok(loaded)
    }

    /// Checks all criteria of the filter except the finding.
    fn matches_fields(&self, user_override: &OverrideRef<'_>) -> bool {
        let filter = self.filter;
        filter.flag_name.as_ref().is_none_or(|name| name == user_override.flag_name.as_str())
            && filter.status.is_none_or(|status| status == user_override.status(self.now))
            && filter.expires_before.is_none_or(|end| user_override.expires_at.is_some_and(|expiry| expiry < end))
    }

    fn is_match(&mut self, snapshot: &ReplicaSnapshot, user: &ScannedUser<'_>, user_override: OverrideRef<'_>) -> bool {
        let Some(flag) = snapshot.flag(user_override.flag_name).filter(|_| self.matches_fields(&user_override)) else {
            return false;
        };
        let (flag, finding) = (flag.compiled(), self.filter.finding);
        // If the user was deleted during the scan, the required attributes are missing and the override is skipped.
        let has_context = user.cached.is_some()
            || !(finding.reads_attributes() && reads_user(flag, user.id, self.evaluation.replica()));
        has_context && finding.applies(flag, user.context(), user_override.view(), self.now, &mut self.spent_units)
    }
}

/// Whether the result of the flag can depend on attributes of the user, or on an evaluation key that is not the user's
/// id.
fn reads_user(flag: &CompiledFlag, user_id: Uuid, replica: &Replica) -> bool {
    flag.reads_attributes() || (flag.reads_key() && replica.may_have_external_id(user_id))
}

struct ScannedUser<'s> {
    id: Uuid,
    /// `None` if the finding does not depend on attributes, or if the user was deleted.
    cached: Option<&'s Arc<CachedUser>>,
    /// Context without attributes, created on first use and shared by all overrides of the user.
    id_only_context: OnceCell<EvaluationContext>,
}

impl ScannedUser<'_> {
    fn context(&self) -> &EvaluationContext {
        match self.cached {
            Some(user) => &user.context,
            None => self.id_only_context.get_or_init(|| EvaluationContext::anonymous(&self.id.to_string(), Map::new())),
        }
    }
}
