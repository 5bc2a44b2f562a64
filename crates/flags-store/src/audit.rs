//! The log as an audit trail: newest first, filtered, with the readable labels of whom it names.
//!
//! Others may have put rows into the log; one that cannot be read takes no other down, so names come as they stand.

use std::collections::{BTreeSet, HashMap};

use diesel::{
    BoolExpressionMethods, ExpressionMethods, NullableExpressionMethods, QueryDsl, Queryable, Selectable,
    SelectableHelper,
    dsl::{max, min, sql},
    sql_types::BigInt,
};
use diesel_async::RunQueryDsl;
use flags_domain::Instant;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    actor_labels::{token_actor, user_actor},
    change_log::{Action, ResourceKind},
    error::Result,
    page::{CountUpTo, Page},
    schema::{actor_labels, change_log},
    sql_types::{DbInstant, DbUuid, LenientJson},
    store::{Conn, on},
};

/// Most characters of states that are read at once: a state may have some million of them.
const MOST_AT_ONCE: i64 = 8 * 1024 * 1024;

/// Which rows of the log are meant; all that is `None` does not matter.
#[derive(Clone, Debug, Default)]
pub struct AuditFilter {
    /// Who did it: `user:<id>`, `token:<id>` or `system:<name>`.
    pub actor: Option<String>,
    /// The flag it concerns.
    pub flag_name: Option<String>,
    /// The user it concerns.
    pub user_id: Option<Uuid>,
    /// What was done.
    pub action: Option<Action>,
    /// Done at this instant or later.
    pub since: Option<Instant>,
    /// Done before this instant.
    pub until: Option<Instant>,
}

/// A filter, and between which revisions lies what it lets through: the log is in the order of its revisions, and of
/// instants only as far as clocks agree, so that no index could find the newest rows of last year.
#[derive(Clone, Debug)]
pub struct Scope {
    filter: AuditFilter,
    lowest: Option<i64>,
    highest: Option<i64>,
}

/// Looks where the rows are that a filter lets through.
pub async fn scope(conn: &mut Conn, filter: &AuditFilter) -> Result<Scope> {
    use change_log::dsl;
    let mut scope = Scope { filter: filter.clone(), lowest: None, highest: None };
    // Adding nothing keeps PostgreSQL from walking through the revisions from one end, far from the instants that are meant.
    if let Some(since) = filter.since {
        let lowest: Option<i64> = on!(conn, |c| {
            let rows = change_log::table.filter(dsl::at.ge(DbInstant(since)));
            rows.select(min(dsl::revision + 0)).first(c).await
        })?;
        scope.lowest = Some(lowest.unwrap_or(i64::MAX));
    }
    if let Some(until) = filter.until {
        let highest: Option<i64> = on!(conn, |c| {
            let rows = change_log::table.filter(dsl::at.lt(DbInstant(until)));
            rows.select(max(dsl::revision + 0)).first(c).await
        })?;
        scope.highest = Some(highest.unwrap_or(0));
    }
    Ok(scope)
}

/// The place of a row in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The revision it belongs to.
    pub revision: i64,
    /// Its place within the revision.
    pub ord: i32,
}

/// A row of the log, with the labels of whom it names. A label is `None` where there is none or it was erased.
#[derive(Clone, Debug, PartialEq)]
pub struct AuditEntry {
    /// Identifies it.
    pub id: Uuid,
    /// Where it stands.
    pub place: Place,
    /// When it was done, by the clock of whoever did it.
    pub at: Instant,
    /// Who did it.
    pub actor: String,
    /// The label of who did it.
    pub actor_label: Option<String>,
    /// What was done; mostly the name of an [`Action`].
    pub action: String,
    /// To what kind of thing; mostly the name of an [`ResourceKind`].
    pub entity: String,
    /// To which thing, where it has an id.
    pub entity_id: Option<Uuid>,
    /// The label of that thing, if it is a token.
    pub entity_label: Option<String>,
    /// The flag it concerns.
    pub flag_name: Option<String>,
    /// The user it concerns.
    pub user_id: Option<Uuid>,
    /// The label of that user.
    pub user_label: Option<String>,
    /// The state before; `{"unreadable": why}` if it cannot be read.
    pub before: Option<Value>,
    /// The state after; likewise.
    pub after: Option<Value>,
    /// Why, in the words of whoever did it.
    pub reason: Option<String>,
    /// The request in which it was done.
    pub request_id: Option<String>,
}

#[derive(Queryable, Selectable)]
#[diesel(table_name = change_log)]
struct Row {
    revision: i64,
    ord: i32,
    id: DbUuid,
    at: DbInstant,
    actor: String,
    action: String,
    entity: String,
    entity_id: Option<DbUuid>,
    flag_name: Option<String>,
    user_id: Option<DbUuid>,
    before: Option<LenientJson>,
    after: Option<LenientJson>,
    reason: Option<String>,
    request_id: Option<String>,
}

impl Row {
    /// The token it concerns.
    fn token(&self) -> Option<String> {
        let is_token = self.entity == ResourceKind::ApiToken.as_str();
        self.entity_id.filter(|_| is_token).map(|id| token_actor(id.0))
    }

    /// The user it concerns.
    fn user(&self) -> Option<String> {
        self.user_id.map(|id| user_actor(id.0))
    }

    fn with_labels(self, labels: &HashMap<String, String>) -> AuditEntry {
        let label = |actor: Option<String>| actor.and_then(|actor| labels.get(&actor).cloned());
        AuditEntry {
            actor_label: labels.get(&self.actor).cloned(),
            entity_label: label(self.token()),
            user_label: label(self.user()),
            id: self.id.0,
            place: Place { revision: self.revision, ord: self.ord },
            at: self.at.0,
            actor: self.actor,
            action: self.action,
            entity: self.entity,
            entity_id: self.entity_id.map(|id| id.0),
            flag_name: self.flag_name,
            user_id: self.user_id.map(|id| id.0),
            before: self.before.map(state),
            after: self.after.map(state),
            reason: self.reason,
            request_id: self.request_id,
        }
    }
}

fn state(document: LenientJson) -> Value {
    document.0.unwrap_or_else(|why| json!({ "unreadable": why }))
}

/// The query with the conditions of a filter.
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

/// The query with the conditions of a scope.
macro_rules! within {
    ($query:expr, $scope:expr) => {{
        let scope: &Scope = $scope;
        let mut query = filtered!($query, &scope.filter);
        if let Some(lowest) = scope.lowest {
            query = query.filter(change_log::revision.ge(lowest));
        }
        if let Some(highest) = scope.highest {
            query = query.filter(change_log::revision.le(highest));
        }
        query
    }};
}

/// A page of the log, newest first, after `after`. It has fewer than `limit` items if their states are very large.
pub async fn list(conn: &mut Conn, filter: &AuditFilter, after: Option<Place>, limit: u32) -> Result<Page<AuditEntry>> {
    let total: i64 = on!(conn, |c| {
        CountUpTo(filtered!(change_log::table.select(change_log::revision).into_boxed::<Db>(), filter))
            .get_result(c)
            .await
    })?;
    let scope = scope(conn, filter).await?;
    let (items, has_more) = read_down(conn, &scope, after, limit).await?;
    Ok(Page { items, total, has_more })
}

/// At most `limit` rows from the newest down, after `after`, and whether there are more below them. Fewer if their states
/// are very large, but at least one, if there is any.
pub async fn read_down(
    conn: &mut Conn,
    scope: &Scope,
    after: Option<Place>,
    limit: u32,
) -> Result<(Vec<AuditEntry>, bool)> {
    let sizes = sizes(conn, scope, after, limit).await?;
    let count = how_many_fit(&sizes, limit);
    let ends = sizes[..count].first().zip(sizes[..count].last());
    let Some(((top, _), (bottom, _))) = ends else { return Ok((Vec::new(), false)) };
    let rows: Vec<Row> = on!(conn, |c| {
        use change_log::dsl;
        let query = within!(change_log::table.select(Row::as_select()).into_boxed::<Db>(), scope);
        // What was appended meanwhile stands above, and is left out.
        let query = query.filter(dsl::revision.le(top.revision)).filter(dsl::revision.ge(bottom.revision));
        let query = query.filter(dsl::revision.lt(top.revision).or(dsl::ord.le(top.ord)));
        let query = query.filter(dsl::revision.gt(bottom.revision).or(dsl::ord.ge(bottom.ord)));
        query.order((dsl::revision.desc(), dsl::ord.desc())).load(c).await
    })?;
    let labels = labels(conn, &rows).await?;
    let entries = rows.into_iter().map(|row| row.with_labels(&labels)).collect();
    Ok((entries, sizes.len() > count))
}

/// The next places, one more than `limit`, with the sizes of the states there.
async fn sizes(conn: &mut Conn, scope: &Scope, after: Option<Place>, limit: u32) -> Result<Vec<(Place, i64)>> {
    use change_log::dsl;
    const SIZE: &str =
        "CAST(COALESCE(LENGTH(CAST(before AS TEXT)), 0) + COALESCE(LENGTH(CAST(after AS TEXT)), 0) AS BIGINT)";
    let sizes: Vec<(i64, i32, i64)> = on!(conn, |c| {
        let query = change_log::table.select((dsl::revision, dsl::ord, sql::<BigInt>(SIZE))).into_boxed::<Db>();
        let query = within!(query, scope);
        let query = match after {
            // Said twice: an index can only look up the first.
            Some(Place { revision, ord }) => {
                query.filter(dsl::revision.le(revision)).filter(dsl::revision.lt(revision).or(dsl::ord.lt(ord)))
            }
            None => query,
        };
        query.order((dsl::revision.desc(), dsl::ord.desc())).limit(i64::from(limit) + 1).load(c).await
    })?;
    Ok(sizes.into_iter().map(|(revision, ord, size)| (Place { revision, ord }, size)).collect())
}

fn how_many_fit(sizes: &[(Place, i64)], limit: u32) -> usize {
    let mut sum = 0_i64;
    let fits = |(place, (_, size)): &(usize, &(Place, i64))| {
        sum = sum.saturating_add(*size);
        *place == 0 || sum <= MOST_AT_ONCE
    };
    sizes.iter().take(limit as usize).enumerate().take_while(fits).count()
}

/// The labels of all whom these rows name.
async fn labels(conn: &mut Conn, rows: &[Row]) -> Result<HashMap<String, String>> {
    let named = |row: &Row| [Some(row.actor.clone()), row.user(), row.token()];
    let named: BTreeSet<String> = rows.iter().flat_map(named).flatten().collect();
    let named: Vec<String> = named.into_iter().collect();
    let mut labels = HashMap::new();
    // Far below SQLite's limit of 32,766 parameters a statement.
    for part in named.chunks(10_000) {
        let found: Vec<(String, String)> = on!(conn, |c| {
            let rows = actor_labels::table.filter(actor_labels::actor.eq_any(part));
            rows.select((actor_labels::actor, actor_labels::label)).load(c).await
        })?;
        labels.extend(found);
    }
    Ok(labels)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn very_large_states_make_a_page_shorter_but_never_empty() {
        let sizes =
            |sizes: &[i64]| -> Vec<_> { sizes.iter().map(|size| (Place { revision: 1, ord: 0 }, *size)).collect() };
        assert_eq!(how_many_fit(&sizes(&[0, 0, 0]), 2), 2);
        assert_eq!(how_many_fit(&sizes(&[0, 0]), 5), 2);
        assert_eq!(how_many_fit(&sizes(&[]), 5), 0);
        assert_eq!(how_many_fit(&sizes(&[MOST_AT_ONCE * 2, 1]), 5), 1);
        assert_eq!(how_many_fit(&sizes(&[1, MOST_AT_ONCE - 1, 1]), 5), 2);
    }
}
