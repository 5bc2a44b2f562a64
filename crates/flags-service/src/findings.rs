//! Overrides that admins may want to look at, found in the replica.
//!
//! Users are walked part by part, and a request looks at a limited number of overrides: a list may be short, or empty, and
//! go on all the same.

use std::{cell::OnceCell, collections::HashMap, sync::Arc};

use flags_domain::{EvaluationContext, FindingCode, FlagName, Instant, OverrideStatus};
use flags_store::users;
use serde_json::Map;
use uuid::Uuid;

use crate::{
    error::Result,
    evaluation::Evaluation,
    replica::{CachedUser, OverrideRef, View},
};

/// How much one request may look at.
#[derive(Clone, Copy, Debug)]
pub struct ScanBudget {
    /// Most overrides.
    pub overrides: usize,
    /// Most users whom the database is asked for (and some more, as they are asked for together).
    pub users: usize,
}

impl Default for ScanBudget {
    fn default() -> Self {
        Self { overrides: 250_000, users: 10_000 }
    }
}

/// Users looked at under one lock of the replica.
const USERS_AT_ONCE: usize = 100;

/// Which overrides are looked for; what is `None` does not matter.
#[derive(Clone, Debug)]
pub struct FindingFilter {
    /// What applies to them.
    pub finding: FindingCode,
    /// Of this flag.
    pub flag_name: Option<String>,
    /// Of this user.
    pub user_id: Option<Uuid>,
    /// With this status.
    pub status: Option<OverrideStatus>,
    /// That end before this instant.
    pub expires_before: Option<Instant>,
}

/// A user's override of a flag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundOverride {
    /// Whose.
    pub user_id: Uuid,
    /// Of which flag.
    pub flag_name: String,
    /// Which.
    pub id: Uuid,
}

/// A part of what was found, in an order of its own: the users of one part by id, each one's overrides by flag name.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    /// What was found.
    pub found: Vec<FoundOverride>,
    /// Where to go on: after this user's override of this flag. `None` at the end.
    pub next: Option<(Uuid, String)>,
}

/// Looks for overrides after a place, up to `limit` of them (at least 1), as things are now.
pub async fn find(
    evaluation: &Evaluation,
    filter: &FindingFilter,
    after: Option<(Uuid, String)>,
    limit: usize,
    effort: ScanBudget,
) -> Result<Findings> {
    let now = evaluation.now();
    let mut search =
        Search { evaluation, filter, now, limit, effort, looks: 0, read: 0, findings: Findings::default() };
    if search.run(after).await? {
        search.findings.next = None;
    }
    Ok(search.findings)
}

struct Search<'s> {
    evaluation: &'s Evaluation,
    filter: &'s FindingFilter,
    now: Instant,
    limit: usize,
    effort: ScanBudget,
    /// Overrides looked at so far.
    looks: usize,
    /// Users asked the database for so far.
    read: usize,
    findings: Findings,
}

impl Search<'_> {
    /// Whether it came to the end.
    async fn run(&mut self, mut after: Option<(Uuid, String)>) -> Result<bool> {
        if let Some(user_id) = self.filter.user_id {
            return self.look_at(&[user_id], after.as_ref()).await;
        }
        let mut part = after.as_ref().map_or(0, |(user_id, _)| View::part_of(*user_id));
        loop {
            let Some(mut users) = self.evaluation.replica().read().users_of_part(part) else { return Ok(true) };
            if let Some((user_id, _)) = &after {
                users.retain(|user| user >= user_id);
            }
            for some in users.chunks(USERS_AT_ONCE) {
                if !self.look_at(some, after.as_ref()).await? {
                    return Ok(false);
                }
                // Others are waiting for this thread.
                tokio::task::yield_now().await;
            }
            after = None;
            part += 1;
        }
    }

    /// Looks at the overrides of these users; whether to go on.
    async fn look_at(&mut self, some: &[Uuid], after: Option<&(Uuid, String)>) -> Result<bool> {
        let known = self.known_users(some).await?;
        let view = self.evaluation.replica().read();
        let mut last = None;
        for user_id in some {
            let overrides = view.overrides_of(*user_id).filter(|o| {
                after.is_none_or(|(user, flag_name)| user != user_id || flag_name.as_str() < o.flag_name.as_str())
            });
            let user = Subject { id: *user_id, known: known.get(user_id), nameless: OnceCell::new() };
            for found in overrides {
                // Where it goes on is after something, so that there is more to come.
                let spent = self.looks >= self.effort.overrides || self.read > self.effort.users;
                if self.looks > 0 && (spent || self.findings.found.len() >= self.limit) {
                    self.go_on_after(last);
                    return Ok(false);
                }
                self.looks += 1;
                last = Some((*user_id, found.flag_name));
                if self.applies(&view, &user, found) {
                    self.findings.found.push(FoundOverride {
                        user_id: *user_id,
                        flag_name: found.flag_name.to_string(),
                        id: found.id,
                    });
                }
            }
        }
        self.go_on_after(last);
        Ok(true)
    }

    /// Notes what was looked at last; `None` if that was nothing new.
    fn go_on_after(&mut self, last: Option<(Uuid, &FlagName)>) {
        if let Some((user_id, flag_name)) = last {
            self.findings.next = Some((user_id, flag_name.to_string()));
        }
    }

    /// Those of these users on whose attributes an answer may depend.
    async fn known_users(&mut self, some: &[Uuid]) -> Result<HashMap<Uuid, Arc<CachedUser>>> {
        let (mut known, mut unknown) = (HashMap::new(), Vec::new());
        if !self.filter.finding.reads_attributes() {
            return Ok(known);
        }
        let replica = self.evaluation.replica();
        for user_id in some {
            let view = replica.read();
            let reads_attributes = |o: &OverrideRef<'_>| {
                self.is_wanted(o) && view.flag(o.flag_name).is_some_and(|flag| flag.compiled().reads_attributes())
            };
            if view.overrides_of(*user_id).any(|o| reads_attributes(&o)) {
                match replica.users().get(*user_id) {
                    Some(user) => _ = known.insert(*user_id, user),
                    None => unknown.push(*user_id),
                }
            }
        }
        if !unknown.is_empty() {
            self.read += unknown.len();
            // Not remembered: they were not asked for by anybody who will ask again.
            for record in self.evaluation.core().read(async |conn| users::find_all(conn, &unknown).await).await? {
                known.insert(record.id, Arc::new(CachedUser::from(record)));
            }
        }
        Ok(known)
    }

    fn is_wanted(&self, found: &OverrideRef<'_>) -> bool {
        let filter = self.filter;
        filter.flag_name.as_ref().is_none_or(|name| name == found.flag_name.as_str())
            && filter.status.is_none_or(|status| status == found.status(self.now))
            && filter.expires_before.is_none_or(|end| found.expires_at.is_some_and(|own| own < end))
    }

    fn applies(&self, view: &View<'_>, user: &Subject<'_>, found: OverrideRef<'_>) -> bool {
        let Some(flag) = view.flag(found.flag_name).filter(|_| self.is_wanted(&found)) else { return false };
        let (flag, finding) = (flag.compiled(), self.filter.finding);
        // A user who went meanwhile, and whose attributes matter, is passed over.
        let is_enough = user.known.is_some() || !(finding.reads_attributes() && flag.reads_attributes());
        is_enough && finding.applies(flag, user.context(), found.view(), self.now)
    }
}

/// A user whose overrides are looked at.
struct Subject<'s> {
    id: Uuid,
    /// If their attributes were asked for.
    known: Option<&'s Arc<CachedUser>>,
    /// Made once for all their overrides, and only if one of them needs it.
    nameless: OnceCell<EvaluationContext>,
}

impl Subject<'_> {
    /// What is known of them, or their id alone.
    fn context(&self) -> &EvaluationContext {
        match self.known {
            Some(user) => &user.context,
            None => self.nameless.get_or_init(|| EvaluationContext::anonymous(&self.id.to_string(), Map::new())),
        }
    }
}
