//! Rows of `change_log`.

use diesel::{Insertable, Queryable, Selectable};
use flags_domain::{
    Action, Change, FlagDefinition, FlagName, Instant, ResourceKind, ScheduledChangeDefinition, UnreadableDefinition,
};
use serde_json::Value;
use uuid::Uuid;

use super::entry::{Author, ChangeLogEntry};
use crate::{
    error::{Result, StoreError},
    json::{from_json, parse_flag_name},
    schema::change_log,
    sql_types::{DbInstant, DbJson, DbUuid, LenientJson},
};

/// Row of `change_log`.
///
/// Other programs may write to the table. The states are therefore read leniently, and actions, resource kinds and flag
/// names are validated only by the conversions that need them.
#[derive(Queryable, Selectable, Insertable)]
#[diesel(table_name = change_log)]
pub(crate) struct ChangeLogRow {
    #[diesel(embed)]
    pub(crate) summary: ChangeSummaryRow,
    pub(crate) id: DbUuid,
    pub(crate) before: Option<LenientJson>,
    pub(crate) after: Option<LenientJson>,
    pub(crate) reason: Option<String>,
    pub(crate) request_id: Option<String>,
}

/// Columns of a [`ChangeLogRow`] without the states before and after the change, which may be
/// large.
#[derive(Queryable, Selectable, Insertable)]
#[diesel(table_name = change_log)]
pub(crate) struct ChangeSummaryRow {
    pub(crate) revision: i64,
    pub(crate) ord: i32,
    pub(crate) at: DbInstant,
    pub(crate) actor: String,
    pub(crate) action: String,
    #[diesel(column_name = entity)]
    pub(crate) resource_kind: String,
    #[diesel(column_name = entity_id)]
    pub(crate) resource_id: Option<DbUuid>,
    pub(crate) flag_name: Option<String>,
    pub(crate) user_id: Option<DbUuid>,
}

impl ChangeLogRow {
    /// Builds the row for an entry. `ord` is the position of the entry within the revision, from 0.
    pub(super) fn new(revision: i64, ord: usize, at: Instant, author: &Author, entry: &ChangeLogEntry) -> Self {
        let summary = ChangeSummaryRow {
            revision,
            ord: i32::try_from(ord).unwrap_or(i32::MAX),
            at: DbInstant(at),
            actor: author.actor.clone(),
            action: entry.action.as_str().to_owned(),
            resource_kind: entry.resource_kind.as_str().to_owned(),
            resource_id: entry.resource_id.map(DbUuid),
            flag_name: entry.flag_name.clone(),
            user_id: entry.user_id.map(DbUuid),
        };
        Self {
            summary,
            id: DbUuid(Uuid::now_v7()),
            before: entry.before.clone().map(Into::into),
            after: entry.after.clone().map(Into::into),
            reason: entry.reason.clone(),
            request_id: author.request_id.clone(),
        }
    }
}

/// Row of the change log without the states before and after the change.
#[derive(Clone, Debug, PartialEq)]
pub struct ChangeSummary {
    /// Revision that the change belongs to.
    pub revision: i64,
    /// Position of the change within the revision, from 0.
    pub ord: i32,
    /// Time of the change, by the clock of the process that made it.
    pub at: Instant,
    /// `user:<id>`, `token:<id>` or `system:<name>`.
    pub actor: String,
    /// Kind of the change.
    pub action: Action,
    /// Kind of the changed resource.
    pub resource_kind: ResourceKind,
    /// Id of the changed resource. `None` for flags, which are identified by name.
    pub resource_id: Option<Uuid>,
    /// Name of the flag that the change belongs to.
    pub flag_name: Option<FlagName>,
    /// Id of the user that the change affects.
    pub user_id: Option<Uuid>,
}

/// Row of the change log, as the change feed reads it.
#[derive(Clone, Debug, PartialEq)]
pub struct LoggedChange {
    /// The row's action, resource, time and actor.
    pub summary: ChangeSummary,
    /// State after the change. `None` if the resource no longer exists.
    pub after: Option<Value>,
}

impl TryFrom<ChangeSummaryRow> for ChangeSummary {
    type Error = StoreError;

    fn try_from(row: ChangeSummaryRow) -> Result<Self> {
        Ok(Self {
            revision: row.revision,
            ord: row.ord,
            at: row.at.0,
            actor: row.actor,
            action: Action::parse(&row.action).ok_or_else(|| unknown_name(&row.action))?,
            resource_kind: ResourceKind::parse(&row.resource_kind).ok_or_else(|| unknown_name(&row.resource_kind))?,
            resource_id: row.resource_id.map(|id| id.0),
            flag_name: row.flag_name.map(|name| parse_flag_name(&name)).transpose()?,
            user_id: row.user_id.map(|id| id.0),
        })
    }
}

fn unreadable(error: UnreadableDefinition) -> StoreError {
    StoreError::corrupt("change_log", error)
}

fn unknown_name(name: &str) -> StoreError {
    StoreError::corrupt("change_log", format!("unknown action or resource kind {name:?}"))
}

impl TryFrom<(ChangeSummaryRow, Option<DbJson>)> for LoggedChange {
    type Error = StoreError;

    /// Converts the summary of a row and its state after the change.
    fn try_from((summary, after): (ChangeSummaryRow, Option<DbJson>)) -> Result<Self> {
        Ok(Self { summary: summary.try_into()?, after: after.map(|json| json.0) })
    }
}

impl ChangeSummary {
    fn require_flag_name(&self) -> Result<FlagName> {
        self.flag_name.clone().ok_or_else(|| self.missing("flag_name"))
    }

    fn require_user_id(&self) -> Result<Uuid> {
        self.user_id.ok_or_else(|| self.missing("user_id"))
    }

    fn require_resource_id(&self) -> Result<Uuid> {
        self.resource_id.ok_or_else(|| self.missing("entity_id"))
    }

    fn missing(&self, column: &str) -> StoreError {
        StoreError::corrupt("change_log", format!("revision {} has no {column}", self.revision))
    }
}

impl LoggedChange {
    /// Converts the row to a change that a replica can apply. A flag or scheduled change that this version cannot read
    /// becomes an unreadable definition, not an error.
    pub fn to_change(&self) -> Result<Change> {
        let summary = &self.summary;
        Ok(match (summary.resource_kind, &self.after) {
            (ResourceKind::Flag, Some(after)) => {
                Change::FlagSet(Box::new(FlagDefinition::from_json(after).map_err(unreadable)?))
            }
            (ResourceKind::Flag, None) => Change::FlagRemoved(summary.require_flag_name()?),
            (ResourceKind::ScheduledChange, Some(after)) => {
                let change = ScheduledChangeDefinition::from_json(after).map_err(unreadable)?;
                Change::ScheduledChangeSet(summary.require_flag_name()?, Box::new(change))
            }
            (ResourceKind::ScheduledChange, None) => {
                Change::ScheduledChangeRemoved(summary.require_flag_name()?, summary.require_resource_id()?)
            }
            (ResourceKind::Override, Some(after)) => {
                Change::OverrideSet(Box::new(from_json("change_log", "after", after)?))
            }
            (ResourceKind::Override, None) => {
                Change::OverrideRemoved { user_id: summary.require_user_id()?, flag_name: summary.require_flag_name()? }
            }
            (ResourceKind::User, _) => Change::UserChanged(summary.require_user_id()?),
            (ResourceKind::ApiToken, _) => Change::TokenChanged(summary.require_resource_id()?),
        })
    }
}
