//! Reading the change log in the order of its revisions.

use diesel::{
    BoolExpressionMethods as _, ExpressionMethods, JoinOnDsl as _, NullableExpressionMethods as _,
    OptionalExtension as _, QueryDsl,
};
use diesel_async::RunQueryDsl;
use flags_domain::{ResourceKind, Revision};
use uuid::Uuid;

use super::row::{ChangeSummary, ChangeSummaryRow, LoggedChange};
use crate::{
    conn::{Conn, dispatch},
    decoded::{Decoded, columns},
    error::{Result, StoreError},
    schema::{change_log, log_head},
    sql_types::{DbJson, DbUuid},
    version::check_reader,
};

/// Columns of `log_head`: epoch, revision and minimum reader version.
type HeadColumns = (Decoded<DbUuid>, Decoded<i64>, Decoded<i32>);

/// Returns the current head revision.
///
/// Fails with [`StoreError::ChangeLogUnreadable`] if the head is missing or cannot be read, and with
/// [`StoreError::Outdated`] if the database requires a newer reader.
pub async fn head(conn: &mut Conn) -> Result<Revision> {
    let row: Option<HeadColumns> = dispatch!(conn, |c| {
        log_head::table.select((log_head::epoch, log_head::revision, log_head::min_reader)).first(c).await.optional()
    })?;
    row.map_or_else(|| Err(missing_head()), decode_head)
}

/// Returns the error for an empty table `log_head`.
pub(crate) fn missing_head() -> StoreError {
    StoreError::ChangeLogUnreadable("the table log_head is empty; restore its row from a backup".to_owned())
}

/// Returns the value of a column of `log_head`.
pub(crate) fn decode_head_column<T>(column: Decoded<T>) -> Result<T> {
    column.into_value().map_err(|error| StoreError::ChangeLogUnreadable(format!("log_head: {error}")))
}

fn decode_head((epoch, number, min_reader): HeadColumns) -> Result<Revision> {
    check_reader(decode_head_column(min_reader)?)?;
    let revision = Revision { epoch: decode_head_column(epoch)?.0, number: decode_head_column(number)? };
    if (0..i64::MAX).contains(&revision.number) {
        return Ok(revision);
    }
    // Reject an invalid number. The server would take it for a restored backup and start a new
    // epoch.
    let detail = format!("log_head: revision must be from 0 to {} (got {})", i64::MAX - 1, revision.number);
    Err(StoreError::ChangeLogUnreadable(detail))
}

/// Returns the head revision and the rows that follow revision `after`.
///
/// The result contains complete revisions only: as many as fit into `limit` rows, but at least one if there is any.
/// Head and rows come from one statement, so they are consistent with each other. Fails like [`head`], and with
/// [`StoreError::Corrupt`] if a row cannot be read.
pub async fn read_after(conn: &mut Conn, after: i64, limit: usize) -> Result<(Revision, Vec<LoggedChange>)> {
    // The columns of `change_log` are NULL if no row follows `after`.
    type Row = (HeadColumns, Decoded<Option<i64>>, Option<Decoded<ChangeSummaryRow>>, Decoded<Option<DbJson>>);
    let bound = i64::try_from(limit).unwrap_or(i64::MAX);
    let rows: Vec<Row> = dispatch!(conn, |c| {
        log_head::table
            // Revisions have no gaps, so `limit` rows span at most `limit` revisions. Without this
            // upper bound, the database would sort all remaining rows for every batch.
            .left_join(
                change_log::table
                    .on(change_log::revision.gt(after).and(change_log::revision.le(after.saturating_add(bound)))),
            )
            .order((change_log::revision, change_log::ord))
            .limit(bound)
            .select((
                (log_head::epoch, log_head::revision, log_head::min_reader),
                change_log::revision.nullable(),
                columns!(Option<ChangeSummaryRow>),
                change_log::after.nullable(),
            ))
            .load(c)
            .await
    })?;
    let mut rows = rows.into_iter().peekable();
    let head = rows.peek().map_or_else(|| Err(missing_head()), |(head, ..)| decode_head(head.clone()))?;
    // Skip rows whose revision is invalid or beyond the head, because no commit has written them.
    // An error would make the server reload its replica at every poll.
    let is_committed = |revision: Decoded<Option<i64>>| {
        revision.or_logged(TABLE).flatten().is_some_and(|revision| revision <= head.number)
    };
    let rows =
        rows.filter_map(|(_, revision, row, after)| row.filter(|_| is_committed(revision)).map(|row| (row, after)));
    let mut rows = rows.map(into_logged_columns).collect::<Result<Vec<_>>>()?;
    let bounds = rows.as_slice().first().zip(rows.as_slice().last());
    if let Some((first, last)) = bounds.map(|((first, _), (last, _))| (first.revision, last.revision))
        && rows.len() >= limit
    {
        if first == last {
            return Ok((head, read_revision(conn, first).await?));
        }
        // The limit may have cut off the last revision. Omit it; the next call returns it.
        rows.retain(|(row, _)| row.revision != last);
    }
    Ok((head, rows.into_iter().map(LoggedChange::try_from).collect::<Result<_>>()?))
}

/// Users and API tokens that were changed after a revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CredentialChanges {
    /// Head of the change log before the ids were read. The ids may include later changes.
    pub head: Revision,
    /// Ids of the users and tokens; `None` if the change log no longer contains all revisions, or contains a row of a
    /// user or token that cannot be read.
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

/// Returns the users and API tokens that were changed after the revision `after`. Reads only the
/// kind and id of the resources, so invalid rows of flags and overrides cannot make it fail.
pub async fn read_credential_changes(conn: &mut Conn, after: Revision) -> Result<CredentialChanges> {
    let (epoch, number, lowest): (DbUuid, i64, i64) = dispatch!(conn, |c| {
        log_head::table.select((log_head::epoch, log_head::revision, log_head::lowest_revision)).first(c).await
    })?;
    let head = Revision { epoch: epoch.0, number };
    if head.epoch != after.epoch || head.number < after.number || lowest > after.number.saturating_add(1) {
        return Ok(CredentialChanges { head, ids: None });
    }
    let kinds = [ResourceKind::User, ResourceKind::ApiToken].map(ResourceKind::as_str);
    let rows: Vec<(String, Decoded<DbUuid>)> = dispatch!(conn, |c| {
        let rows =
            change_log::table.filter(change_log::revision.gt(after.number)).filter(change_log::entity.eq_any(kinds));
        rows.select((change_log::entity, change_log::entity_id.assume_not_null())).distinct().load(c).await
    })?;
    let mut ids = ChangedCredentials::default();
    for (kind, id) in rows {
        let Some(id) = id.or_logged(TABLE) else { return Ok(CredentialChanges { head, ids: None }) };
        let is_user = kind == ResourceKind::User.as_str();
        if is_user { ids.users.push(id.0) } else { ids.tokens.push(id.0) }
    }
    Ok(CredentialChanges { head, ids: Some(ids) })
}

const TABLE: &str = "change_log";

fn into_logged_columns(
    (row, after): (Decoded<ChangeSummaryRow>, Decoded<Option<DbJson>>),
) -> Result<(ChangeSummaryRow, Option<DbJson>)> {
    Ok((row.into_result(TABLE)?, after.into_result(TABLE)?))
}

/// Returns all rows of one revision.
async fn read_revision(conn: &mut Conn, revision: i64) -> Result<Vec<LoggedChange>> {
    let rows: Vec<(Decoded<ChangeSummaryRow>, Decoded<Option<DbJson>>)> = dispatch!(conn, |c| {
        let rows = change_log::table.filter(change_log::revision.eq(revision));
        rows.order(change_log::ord).select((columns!(ChangeSummaryRow), change_log::after)).load(c).await
    })?;
    rows.into_iter().map(|row| into_logged_columns(row)?.try_into()).collect()
}

/// Returns the newest rows in ascending order: at most `limit` rows, and complete revisions only. Fails with
/// [`StoreError::Corrupt`] if a row cannot be read.
pub async fn read_recent(conn: &mut Conn, limit: i64) -> Result<Vec<ChangeSummary>> {
    let rows: Vec<Decoded<ChangeSummaryRow>> = dispatch!(conn, |c| {
        let newest = change_log::table.order((change_log::revision.desc(), change_log::ord.desc())).limit(limit);
        newest.select(columns!(ChangeSummaryRow)).load(c).await
    })?;
    let mut rows = rows.into_iter().rev().map(|row| row.into_result(TABLE)).collect::<Result<Vec<_>>>()?;
    let truncated = rows.as_slice().first().filter(|row| row.ord != 0).map(|row| row.revision);
    if let Some(truncated) = truncated {
        rows.retain(|row| row.revision != truncated);
    }
    rows.into_iter().map(TryInto::try_into).collect()
}
