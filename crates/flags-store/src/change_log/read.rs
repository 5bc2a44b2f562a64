//! Reading the change log in the order of its revisions.

use diesel::{
    BoolExpressionMethods as _, ExpressionMethods, JoinOnDsl as _, NullableExpressionMethods as _, QueryDsl,
    SelectableHelper,
};
use diesel_async::RunQueryDsl;
use flags_domain::{ResourceKind, Revision};
use uuid::Uuid;

use super::row::{ChangeSummary, ChangeSummaryRow, LoggedChange};
use crate::{
    conn::{Conn, dispatch},
    error::{Result, StoreError},
    schema::{change_log, log_head},
    sql_types::{DbJson, DbUuid},
};

/// Returns the current head revision.
pub async fn head(conn: &mut Conn) -> Result<Revision> {
    let (epoch, number): (DbUuid, i64) =
        dispatch!(conn, |c| log_head::table.select((log_head::epoch, log_head::revision)).first(c).await)?;
    Ok(Revision { epoch: epoch.0, number })
}

/// Returns the head revision and the rows that follow revision `after`.
///
/// The result contains complete revisions only: as many as fit into `limit` rows, but at least one if there is any.
/// Head and rows come from one statement, so they are consistent with each other.
pub async fn read_after(conn: &mut Conn, after: i64, limit: usize) -> Result<(Revision, Vec<LoggedChange>)> {
    let bound = i64::try_from(limit).unwrap_or(i64::MAX);
    let rows: Vec<(DbUuid, i64, Option<ChangeSummaryRow>, Option<DbJson>)> = dispatch!(conn, |c| {
        log_head::table
            // Revisions are dense, so at most `limit` of them fit. Without this upper bound, the database would sort
            // all remaining rows for every batch.
            .left_join(
                change_log::table
                    .on(change_log::revision.gt(after).and(change_log::revision.le(after.saturating_add(bound)))),
            )
            .order((change_log::revision, change_log::ord))
            .limit(bound)
            .select((
                log_head::epoch,
                log_head::revision,
                Option::<ChangeSummaryRow>::as_select(),
                change_log::after.nullable(),
            ))
            .load(c)
            .await
    })?;
    let head = rows.as_slice().first().map(|(epoch, number, ..)| Revision { epoch: epoch.0, number: *number });
    let head = head.ok_or_else(|| StoreError::corrupt("log_head", "the table is empty"))?;
    let mut rows: Vec<_> = rows.into_iter().filter_map(|(_, _, row, after)| Some((row?, after))).collect();
    let bounds = rows.as_slice().first().zip(rows.as_slice().last());
    if let Some((first, last)) = bounds.map(|((first, _), (last, _))| (first.revision, last.revision))
        && rows.len() >= limit
    {
        if first == last {
            return Ok((head, read_revision(conn, first).await?));
        }
        // The limit may have truncated the last revision. The next call returns it.
        rows.retain(|(row, _)| row.revision != last);
    }
    Ok((head, rows.into_iter().map(LoggedChange::try_from).collect::<Result<_>>()?))
}

/// Users and API tokens that were changed after a revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CredentialChanges {
    /// Head of the change log. Later changes may be included.
    pub head: Revision,
    /// Ids of the users and tokens; `None` if the change log no longer contains all revisions.
    pub ids: Option<ChangedCredentials>,
}

/// Ids of changed users and API tokens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChangedCredentials {
    /// Users that were created, changed or deleted.
    pub users: Vec<Uuid>,
    /// API tokens that were created, changed or deleted.
    pub tokens: Vec<Uuid>,
}

/// Returns the users and API tokens that were changed after the revision `after`. Reads no other columns, so rows of
/// flags and overrides cannot make it fail.
pub async fn read_credential_changes(conn: &mut Conn, after: Revision) -> Result<CredentialChanges> {
    let (epoch, number, lowest): (DbUuid, i64, i64) = dispatch!(conn, |c| {
        log_head::table.select((log_head::epoch, log_head::revision, log_head::lowest_revision)).first(c).await
    })?;
    let head = Revision { epoch: epoch.0, number };
    if head.epoch != after.epoch || head.number < after.number || lowest > after.number.saturating_add(1) {
        return Ok(CredentialChanges { head, ids: None });
    }
    let kinds = [ResourceKind::User, ResourceKind::ApiToken].map(ResourceKind::as_str);
    let rows: Vec<(String, Option<DbUuid>)> = dispatch!(conn, |c| {
        let rows =
            change_log::table.filter(change_log::revision.gt(after.number)).filter(change_log::entity.eq_any(kinds));
        rows.select((change_log::entity, change_log::entity_id)).distinct().load(c).await
    })?;
    let mut ids = ChangedCredentials::default();
    for (kind, id) in rows {
        let id = id.ok_or_else(|| StoreError::corrupt("change_log", format!("a row of {kind} has no entity_id")))?;
        let is_user = kind == ResourceKind::User.as_str();
        if is_user { ids.users.push(id.0) } else { ids.tokens.push(id.0) }
    }
    Ok(CredentialChanges { head, ids: Some(ids) })
}

/// Returns all rows of one revision.
async fn read_revision(conn: &mut Conn, revision: i64) -> Result<Vec<LoggedChange>> {
    let rows: Vec<(ChangeSummaryRow, Option<DbJson>)> = dispatch!(conn, |c| {
        let rows = change_log::table.filter(change_log::revision.eq(revision));
        rows.order(change_log::ord).select((ChangeSummaryRow::as_select(), change_log::after)).load(c).await
    })?;
    rows.into_iter().map(LoggedChange::try_from).collect()
}

/// Returns the newest rows in ascending order: at most `limit` rows, and complete revisions only.
pub async fn read_recent(conn: &mut Conn, limit: i64) -> Result<Vec<ChangeSummary>> {
    let mut rows: Vec<ChangeSummaryRow> = dispatch!(conn, |c| {
        let newest = change_log::table.order((change_log::revision.desc(), change_log::ord.desc())).limit(limit);
        newest.select(ChangeSummaryRow::as_select()).load(c).await
    })?;
    rows.reverse();
    let truncated = rows.as_slice().first().filter(|row| row.ord != 0).map(|row| row.revision);
    if let Some(truncated) = truncated {
        rows.retain(|row| row.revision != truncated);
    }
    rows.into_iter().map(TryInto::try_into).collect()
}
