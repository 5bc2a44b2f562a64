//! Queries for the audit log: the change log, newest first, with filters and readable labels.
//!
//! Other programs may write to `change_log`, and one invalid row must not make the audit log
//! unreadable. Actions, resource kinds and flag names are therefore returned as stored, without
//! validation.

use std::collections::{BTreeSet, HashMap};

use diesel::{
    BoolExpressionMethods, ExpressionMethods, NullableExpressionMethods, QueryDsl,
    dsl::{max, min, sql},
    sql_types::BigInt,
};
use diesel_async::RunQueryDsl;
use flags_domain::{Action, Instant, ResourceKind};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    actor_labels::{token_actor, user_actor},
    change_log::{ChangeLogRow, ChangeSummaryRow},
    conn::{Conn, dispatch},
    decoded::{Decoded, columns},
    error::Result,
    page::{BoundedCount, Page},
    schema::{actor_labels, change_log},
    sql_types::{DbInstant, DbUuid, LenientJson},
};

/// Maximum total size, in characters, of the states in one page. A single state may have several million characters.
const MAX_PAGE_STATE_SIZE: i64 = 8 * 1024 * 1024;

/// Filter for the audit log. A field that is `None` does not restrict the result.
#[derive(Clone, Debug, Default)]
pub struct AuditFilter {
    /// Actor: `user:<id>`, `token:<id>` or `system:<name>`.
    pub actor: Option<String>,
    /// Name of the flag that the change belongs to.
    pub flag_name: Option<String>,
    /// Id of the user that the change affects.
    pub user_id: Option<Uuid>,
    /// Kind of change.
    pub action: Option<Action>,
    /// Lower bound (inclusive) of the time of the change.
    pub since: Option<Instant>,
    /// Upper bound (exclusive) of the time of the change.
    pub until: Option<Instant>,
}

/// A filter, and the range of revisions that contains all matching rows.
///
/// The audit log is sorted by revision. Times follow that order only approximately, because the
/// clocks of servers differ. Without the range, a query for old rows by time would scan all newer
/// revisions first.
#[derive(Clone, Debug)]
pub struct AuditRange {
    filter: AuditFilter,
    lowest: Option<i64>,
    highest: Option<i64>,
}

/// Determines the range of revisions that contains all rows matching `filter`.
pub async fn find_range(conn: &mut Conn, filter: &AuditFilter) -> Result<AuditRange> {
    use change_log::dsl;
    let mut range = AuditRange { filter: filter.clone(), lowest: None, highest: None };
    // The expression `revision + 0` makes PostgreSQL use the index on `at`. With plain `revision`,
    // it would scan the index on `revision` from one end.
    if let Some(since) = filter.since {
        let lowest: Decoded<Option<i64>> = dispatch!(conn, |c| {
            let rows = change_log::table.filter(dsl::at.ge(DbInstant(since)));
            rows.select(min(dsl::revision + 0)).first(c).await
        })?;
        range.lowest = lowest.into_value().ok().map(|lowest| lowest.unwrap_or(i64::MAX));
    }
    if let Some(until) = filter.until {
        let highest: Decoded<Option<i64>> = dispatch!(conn, |c| {
            let rows = change_log::table.filter(dsl::at.lt(DbInstant(until)));
            rows.select(max(dsl::revision + 0)).first(c).await
        })?;
        range.highest = highest.into_value().ok().map(|highest| highest.unwrap_or(0));
    }
    Ok(range)
}

/// Position of a row in the change log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuditPosition {
    /// Revision that the row belongs to.
    pub revision: i64,
    /// Position within the revision, from 0.
    pub ord: i32,
}

/// Row of the audit log with readable labels. A label is `None` if it was never set or was erased.
#[derive(Clone, Debug, PartialEq)]
pub struct AuditRecord {
    /// Id of the row.
    pub id: Uuid,
    /// Position in the change log.
    pub position: AuditPosition,
    /// Time of the change, by the clock of the process that made it.
    pub at: Instant,
    /// Actor: `user:<id>`, `token:<id>` or `system:<name>`.
    pub actor: String,
    /// Label of the actor.
    pub actor_label: Option<String>,
    /// Kind of change as stored, normally the name of an [`Action`].
    pub action: String,
    /// Kind of the changed resource as stored, normally the name of a [`ResourceKind`].
    pub resource_kind: String,
    /// Id of the changed resource. `None` for flags, which are identified by name.
    pub resource_id: Option<Uuid>,
    /// Label of the changed resource, if it is an API token.
    pub resource_label: Option<String>,
    /// Name of the flag that the change belongs to.
    pub flag_name: Option<String>,
    /// Id of the user that the change affects.
    pub user_id: Option<Uuid>,
    /// Label of the user `user_id`.
    pub user_label: Option<String>,
    /// State before the change. `{"unreadable": <error>}` if the stored value is not valid JSON.
    pub before: Option<Value>,
    /// State after the change, in the same format.
    pub after: Option<Value>,
    /// Reason given by the author of the change.
    pub reason: Option<String>,
    /// Id of the HTTP request that made the change.
    pub request_id: Option<String>,
}

/// Returns the names of all actors that a row mentions.
fn actors(row: &ChangeSummaryRow) -> [Option<String>; 3] {
    [Some(row.actor.clone()), changed_user_actor(row), changed_token_actor(row)]
}

/// Returns the actor name of the changed API token, if the resource is one.
fn changed_token_actor(row: &ChangeSummaryRow) -> Option<String> {
    let is_token = row.resource_kind == ResourceKind::ApiToken.as_str();
    row.resource_id.filter(|_| is_token).map(|id| token_actor(id.0))
}

/// Returns the actor name of the user that the change belongs to.
fn changed_user_actor(row: &ChangeSummaryRow) -> Option<String> {
    row.user_id.map(|id| user_actor(id.0))
}

impl AuditRecord {
    /// Builds the record of a row. `labels` contains the labels by actor name.
    fn new(row: ChangeLogRow, labels: &HashMap<String, String>) -> Self {
        let ChangeLogRow { summary, id, before, after, reason, request_id } = row;
        let label_of = |actor: Option<String>| labels.get(&actor?).cloned();
        Self {
            actor_label: labels.get(&summary.actor).cloned(),
            resource_label: label_of(changed_token_actor(&summary)),
            user_label: label_of(changed_user_actor(&summary)),
            id: id.0,
            position: AuditPosition { revision: summary.revision, ord: summary.ord },
            at: summary.at.0,
            actor: summary.actor,
            action: summary.action,
            resource_kind: summary.resource_kind,
            resource_id: summary.resource_id.map(|id| id.0),
            flag_name: summary.flag_name,
            user_id: summary.user_id.map(|id| id.0),
            before: before.map(state_value),
            after: after.map(state_value),
            reason,
            request_id,
        }
    }
}

fn state_value(state: LenientJson) -> Value {
    state.into_result().unwrap_or_else(|error| json!({ "unreadable": error }))
}

/// Adds the conditions of a filter to a query.
macro_rules! filtered {
    ($query:expr, $filter:expr) => {{
        use change_log::dsl;
        let filter: &AuditFilter = $filter;
        let mut query = $query;
        if let Some(actor) = &filter.actor {
            query = query.filter(dsl::actor.eq(actor.clone()));
        }
        if let Some(name) = &filter.flag_name {
            query = query.filter(dsl::flag_name.eq(name.clone()).assume_not_null());
        }
        if let Some(id) = filter.user_id {
            query = query.filter(dsl::user_id.eq(DbUuid(id)).assume_not_null());
        }
        if let Some(action) = filter.action {
            query = query.filter(dsl::action.eq(action.as_str()));
        }
        if let Some(at) = filter.since {
            query = query.filter(dsl::at.ge(DbInstant(at)));
        }
        if let Some(at) = filter.until {
            query = query.filter(dsl::at.lt(DbInstant(at)));
        }
        query
    }};
}

/// Adds the conditions of a range to a query.
macro_rules! in_range {
    ($query:expr, $range:expr) => {{
        let range: &AuditRange = $range;
        let mut query = filtered!($query, &range.filter);
        if let Some(lowest) = range.lowest {
            query = query.filter(change_log::revision.ge(lowest));
        }
        if let Some(highest) = range.highest {
            query = query.filter(change_log::revision.le(highest));
        }
        query
    }};
}

/// Returns a page of the audit log that follows the position `after`, newest first. It has fewer than `limit` items if
/// their states are very large.
pub async fn list(
    conn: &mut Conn,
    filter: &AuditFilter,
    after: Option<AuditPosition>,
    limit: u32,
) -> Result<Page<AuditRecord>> {
    let total: i64 = dispatch!(conn, |c| {
        BoundedCount(filtered!(change_log::table.select(change_log::revision).into_boxed::<Db>(), filter))
            .get_result(c)
            .await
    })?;
    let range = find_range(conn, filter).await?;
    let (items, has_more) = read_descending(conn, &range, after, limit).await?;
    Ok(Page { items, total, has_more })
}

/// Returns up to `limit` rows that follow the position `after`, newest first, and whether more rows follow them.
///
/// Returns fewer rows if their states are very large, but at least one if there is any.
pub async fn read_descending(
    conn: &mut Conn,
    range: &AuditRange,
    after: Option<AuditPosition>,
    limit: u32,
) -> Result<(Vec<AuditRecord>, bool)> {
    let (sizes, has_more) = find_state_sizes(conn, range, after, limit).await?;
    let count = count_fitting(&sizes, limit);
    let bounds = sizes[..count].first().zip(sizes[..count].last());
    let Some(((newest, _), (oldest, _))) = bounds else { return Ok((Vec::new(), false)) };
    let rows: Vec<Decoded<ChangeLogRow>> = dispatch!(conn, |c| {
        use change_log::dsl;
        let query = in_range!(change_log::table.select(columns!(ChangeLogRow)).into_boxed::<Db>(), range);
        // These bounds also exclude rows that were appended after the sizes were read.
        let query = query.filter(dsl::revision.le(newest.revision)).filter(dsl::revision.ge(oldest.revision));
        let query = query.filter(dsl::revision.lt(newest.revision).or(dsl::ord.le(newest.ord)));
        let query = query.filter(dsl::revision.gt(oldest.revision).or(dsl::ord.ge(oldest.ord)));
        query.order((dsl::revision.desc(), dsl::ord.desc())).load(c).await
    })?;
    let rows: Vec<_> = rows.into_iter().filter_map(|row| row.or_logged("change_log")).collect();
    let labels = find_labels(conn, &rows).await?;
    let entries = rows.into_iter().map(|row| AuditRecord::new(row, &labels)).collect();
    Ok((entries, has_more || sizes.len() > count))
}

/// Returns the positions of the next `limit + 1` rows, the sizes of their states in characters, and whether more than
/// `limit` rows follow. Omits rows whose position cannot be read.
async fn find_state_sizes(
    conn: &mut Conn,
    range: &AuditRange,
    after: Option<AuditPosition>,
    limit: u32,
) -> Result<(Vec<(AuditPosition, i64)>, bool)> {
    use change_log::dsl;
    // On SQLite, text and blob values compare greater than all numbers. This upper bound excludes
    // them.
    const MAX: AuditPosition = AuditPosition { revision: i64::MAX, ord: i32::MAX };
    const SIZE: &str =
        "CAST(COALESCE(LENGTH(CAST(before AS TEXT)), 0) + COALESCE(LENGTH(CAST(after AS TEXT)), 0) AS BIGINT)";
    let sizes: Vec<(Decoded<i64>, Decoded<i32>, i64)> = dispatch!(conn, |c| {
        let query = change_log::table.select((dsl::revision, dsl::ord, sql::<BigInt>(SIZE))).into_boxed::<Db>();
        let query = in_range!(query, range);
        let AuditPosition { revision, ord } = after.unwrap_or(MAX);
        // Selects the rows after the position. The first condition is redundant, but it bounds the
        // index scan.
        let query = query.filter(dsl::revision.le(revision)).filter(dsl::revision.lt(revision).or(dsl::ord.lt(ord)));
        let query = query.filter(dsl::ord.le(i32::MAX));
        query.order((dsl::revision.desc(), dsl::ord.desc())).limit(i64::from(limit) + 1).load(c).await
    })?;
    let position = |(revision, ord, size): (Decoded<i64>, Decoded<i32>, i64)| {
        let (revision, ord) = (revision.or_logged("change_log")?, ord.or_logged("change_log")?);
        Some((AuditPosition { revision, ord }, size))
    };
    let has_more = sizes.len() > limit as usize;
    Ok((sizes.into_iter().filter_map(position).collect(), has_more))
}

fn count_fitting(sizes: &[(AuditPosition, i64)], limit: u32) -> usize {
    let mut sum = 0_i64;
    let mut count = 0;
    for (_, size) in sizes.iter().take(limit as usize) {
        sum = sum.saturating_add(*size);
        if count > 0 && sum > MAX_PAGE_STATE_SIZE {
            break;
        }
        count += 1;
    }
    count
}

/// Returns the labels of all actors, users and tokens in these rows, by actor name.
async fn find_labels(conn: &mut Conn, rows: &[ChangeLogRow]) -> Result<HashMap<String, String>> {
    let actors: BTreeSet<String> = rows.iter().flat_map(|row| actors(&row.summary)).flatten().collect();
    let actors: Vec<String> = actors.into_iter().collect();
    let mut labels = HashMap::new();
    // The batch size is well below SQLite's limit of 32,766 parameters per statement.
    for batch in actors.chunks(10_000) {
        let found: Vec<(Decoded<String>, Decoded<String>)> = dispatch!(conn, |c| {
            let rows = actor_labels::table.filter(actor_labels::actor.eq_any(batch));
            rows.select((actor_labels::actor, actor_labels::label)).load(c).await
        })?;
        labels.extend(
            found.into_iter().filter_map(|(actor, label)| {
                Some((actor.or_logged("actor_labels")?, label.or_logged("actor_labels")?))
            }),
        );
    }
    Ok(labels)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_states_shorten_a_page_to_at_least_one_row() {
        let sizes = |sizes: &[i64]| -> Vec<_> {
            sizes.iter().map(|size| (AuditPosition { revision: 1, ord: 0 }, *size)).collect()
        };
        assert_eq!(count_fitting(&sizes(&[0, 0, 0]), 2), 2);
        assert_eq!(count_fitting(&sizes(&[0, 0]), 5), 2);
        assert_eq!(count_fitting(&sizes(&[]), 5), 0);
        assert_eq!(count_fitting(&sizes(&[MAX_PAGE_STATE_SIZE * 2, 1]), 5), 1);
        assert_eq!(count_fitting(&sizes(&[1, MAX_PAGE_STATE_SIZE - 1, 1]), 5), 2);
    }
}
