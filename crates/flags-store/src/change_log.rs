//! The change log (`change_log`, `log_head`), which serves as audit log, history and change feed.

use std::fmt;

use diesel::{
    BoolExpressionMethods as _, ExpressionMethods, JoinOnDsl as _, QueryDsl, Queryable, Selectable, SelectableHelper,
};
use diesel_async::RunQueryDsl;
use flags_domain::{Change, FlagName, Instant};
use serde_json::Value;
use uuid::Uuid;

use crate::{
    error::{Result, StoreError},
    schema::{change_log, log_head},
    sql_types::{DbInstant, DbJson, DbUuid},
    store::{Conn, Store, dispatch},
};

/// Position in the change log. Only revisions of the same epoch can be compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Revision {
    /// Replaced when the database is restored from a backup, because revision numbers are then reused.
    pub epoch: Uuid,
    /// Dense sequence that starts at 1. 0 means that the change log is empty.
    pub number: i64,
}

impl fmt::Display for Revision {
    /// Formats the revision as `<epoch>:<number>`, with the epoch as 32 hexadecimal digits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.epoch.simple(), self.number)
    }
}

/// Error for a text that is not a valid [`Revision`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be <epoch>:<number>")]
pub struct InvalidRevision;

impl std::str::FromStr for Revision {
    type Err = InvalidRevision;

    fn from_str(text: &str) -> std::result::Result<Self, InvalidRevision> {
        let (epoch, number) = text.split_once(':').ok_or(InvalidRevision)?;
        let epoch = Uuid::try_parse(epoch).map_err(|_| InvalidRevision)?;
        let number = number.parse().ok().filter(|number| *number >= 0).ok_or(InvalidRevision)?;
        Ok(Self { epoch, number })
    }
}

macro_rules! string_enum {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $text:literal,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$doc])* $variant,)* }

        impl $name {
            /// Returns the name used in the database and in the API.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }

            /// Parses the name used in the database and in the API. `None` if it is unknown.
            pub fn parse(text: &str) -> Option<Self> {
                match text { $($text => Some(Self::$variant),)* _ => None }
            }
        }
    };
}
pub(crate) use string_enum;

string_enum! {
    /// Kind of change to a resource.
    Action {
        /// The resource was created.
        Created = "created",
        /// The resource was modified.
        Updated = "updated",
        /// The resource was deleted.
        Deleted = "deleted",
        /// The override was deleted after its expiry.
        Expired = "expired",
        /// The flag was archived.
        Archived = "archived",
        /// The flag was restored from the archive.
        Restored = "restored",
        /// The scheduled change was cancelled.
        Cancelled = "cancelled",
        /// The scheduled change became due and was applied.
        Applied = "applied",
        /// The API token was revoked.
        Revoked = "revoked",
        /// The labels that identified the user in the audit log were removed.
        Erased = "erased",
    }
}

string_enum! {
    /// Kind of resource that a change or an error refers to.
    ResourceKind {
        /// User account.
        User = "user",
        /// Feature flag.
        Flag = "flag",
        /// Scheduled change of a flag.
        ScheduledChange = "scheduled_change",
        /// Override of a flag for one user.
        Override = "override",
        /// API token.
        ApiToken = "api_token",
    }
}

impl fmt::Display for ResourceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::User => "user",
            Self::Flag => "flag",
            Self::ScheduledChange => "scheduled change",
            Self::Override => "override",
            Self::ApiToken => "API token",
        })
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
    /// What happened to the resource.
    pub action: Action,
    /// Kind of the changed resource.
    pub resource_kind: ResourceKind,
    /// Id of the changed resource. `None` for flags, which are identified by name.
    pub resource_id: Option<Uuid>,
    /// Name of the flag that the change belongs to.
    pub flag_name: Option<FlagName>,
    /// Id of the user that the change belongs to.
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

#[derive(Queryable, Selectable)]
#[diesel(table_name = change_log)]
struct ChangeSummaryRow {
    revision: i64,
    ord: i32,
    at: DbInstant,
    actor: String,
    action: String,
    #[diesel(column_name = entity)]
    resource_kind: String,
    #[diesel(column_name = entity_id)]
    resource_id: Option<DbUuid>,
    flag_name: Option<String>,
    user_id: Option<DbUuid>,
}

#[derive(Queryable, Selectable)]
#[diesel(table_name = change_log)]
struct ChangeLogRow {
    #[diesel(embed)]
    summary: ChangeSummaryRow,
    after: Option<DbJson>,
}

impl TryFrom<ChangeSummaryRow> for ChangeSummary {
    type Error = StoreError;

    fn try_from(row: ChangeSummaryRow) -> Result<Self> {
        let unknown =
            |name: &str| StoreError::corrupt("change_log", format!("unknown action or resource kind {name:?}"));
        Ok(Self {
            revision: row.revision,
            ord: row.ord,
            at: row.at.0,
            actor: row.actor,
            action: Action::parse(&row.action).ok_or_else(|| unknown(&row.action))?,
            resource_kind: ResourceKind::parse(&row.resource_kind).ok_or_else(|| unknown(&row.resource_kind))?,
            resource_id: row.resource_id.map(|id| id.0),
            flag_name: row.flag_name.map(|name| parse_flag_name(&name)).transpose()?,
            user_id: row.user_id.map(|id| id.0),
        })
    }
}

impl TryFrom<ChangeLogRow> for LoggedChange {
    type Error = StoreError;

    fn try_from(row: ChangeLogRow) -> Result<Self> {
        Ok(Self { summary: row.summary.try_into()?, after: row.after.map(|doc| doc.0) })
    }
}

impl LoggedChange {
    /// Decodes the row into the change that it makes to the evaluation state.
    pub fn to_change(&self) -> Result<Change> {
        let summary = &self.summary;
        let missing =
            |column: &str| StoreError::corrupt("change_log", format!("revision {} has no {column}", summary.revision));
        let flag_name = || summary.flag_name.clone().ok_or_else(|| missing("flag_name"));
        let user_id = || summary.user_id.ok_or_else(|| missing("user_id"));
        let resource_id = || summary.resource_id.ok_or_else(|| missing("entity_id"));
        Ok(match (summary.resource_kind, &self.after) {
            (ResourceKind::Flag, Some(after)) => Change::FlagSet(Box::new(from_json("change_log", after)?)),
            (ResourceKind::Flag, None) => Change::FlagRemoved(flag_name()?),
            (ResourceKind::ScheduledChange, Some(after)) => {
                Change::ScheduledChangeSet(flag_name()?, Box::new(from_json("change_log", after)?))
            }
            (ResourceKind::ScheduledChange, None) => Change::ScheduledChangeRemoved(flag_name()?, resource_id()?),
            (ResourceKind::Override, Some(after)) => Change::OverrideSet(Box::new(from_json("change_log", after)?)),
            (ResourceKind::Override, None) => Change::OverrideRemoved { user_id: user_id()?, flag_name: flag_name()? },
            (ResourceKind::User, _) => Change::UserChanged(user_id()?),
            (ResourceKind::ApiToken, _) => Change::TokenChanged(resource_id()?),
        })
    }
}

/// Decodes a JSON value from the database. `table` names the source in the error.
pub(crate) fn from_json<T: serde::de::DeserializeOwned>(table: &str, value: &Value) -> Result<T> {
    T::deserialize(value).map_err(|error| StoreError::corrupt(table, error))
}

/// Validates a flag name from the database.
pub(crate) fn parse_flag_name(text: &str) -> Result<FlagName> {
    FlagName::new(text).map_err(|_| StoreError::corrupt("invalid flag name", text))
}

/// Encodes a domain value as JSON for the database.
pub(crate) fn to_json<T: serde::Serialize>(value: &T) -> Value {
    // Serialization cannot fail: the maps in domain types have string keys and the numbers are finite.
    serde_json::to_value(value).unwrap_or_default()
}

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
    let rows: Vec<(DbUuid, i64, Option<ChangeLogRow>)> = dispatch!(conn, |c| {
        log_head::table
            // Revisions are dense, so at most `limit` of them fit. Without this upper bound, the database would sort
            // all remaining rows for every batch.
            .left_join(
                change_log::table
                    .on(change_log::revision.gt(after).and(change_log::revision.le(after.saturating_add(bound)))),
            )
            .order((change_log::revision, change_log::ord))
            .limit(bound)
            .select((log_head::epoch, log_head::revision, Option::<ChangeLogRow>::as_select()))
            .load(c)
            .await
    })?;
    let head = rows.as_slice().first().map(|(epoch, number, _)| Revision { epoch: epoch.0, number: *number });
    let head = head.ok_or_else(|| StoreError::corrupt("log_head", "the table is empty"))?;
    let mut rows: Vec<_> = rows.into_iter().filter_map(|(_, _, row)| row).collect();
    let bounds = rows.as_slice().first().zip(rows.as_slice().last());
    if let Some((first, last)) = bounds.map(|(first, last)| (first.summary.revision, last.summary.revision))
        && rows.len() >= limit
    {
        if first == last {
            return Ok((head, read_revision(conn, first).await?));
        }
        // The limit may have truncated the last revision. The next call returns it.
        rows.retain(|row| row.summary.revision != last);
    }
    Ok((head, rows.into_iter().map(LoggedChange::try_from).collect::<Result<_>>()?))
}

/// Returns all rows of one revision.
async fn read_revision(conn: &mut Conn, revision: i64) -> Result<Vec<LoggedChange>> {
    let rows: Vec<ChangeLogRow> = dispatch!(conn, |c| {
        let rows = change_log::table.filter(change_log::revision.eq(revision));
        rows.order(change_log::ord).select(ChangeLogRow::as_select()).load(c).await
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

/// Removes up to `limit` of the oldest revisions that were written before `before`. Returns the number of removed
/// revisions.
///
/// Updates `log_head.lowest_revision` accordingly. Takes no revision itself.
pub async fn purge(store: &Store, before: Instant, limit: i64) -> Result<u64> {
    let _permit = store.write_permit().await?;
    let mut conn = store.conn().await?;
    let oldest: Vec<(i64, DbInstant)> = dispatch!(conn, |c| {
        let first_rows = change_log::table.filter(change_log::ord.eq(0));
        first_rows.order(change_log::revision).limit(limit).select((change_log::revision, change_log::at)).load(c).await
    })?;
    // Stop at the first revision that must be kept, so that the rest stays contiguous. Clocks of different processes
    // differ, so a later revision may have an earlier time.
    let Some(last) = oldest.iter().take_while(|(_, at)| at.0 < before).map(|(revision, _)| *revision).last() else {
        return Ok(0);
    };
    // Update `lowest_revision` first. If the process stops in between, readers see a range that is too short, but never
    // one with missing rows.
    dispatch!(conn, |c| {
        let head = diesel::update(log_head::table.filter(log_head::lowest_revision.le(last)));
        head.set(log_head::lowest_revision.eq(last + 1)).execute(c).await
    })?;
    dispatch!(conn, |c| { diesel::delete(change_log::table.filter(change_log::revision.le(last))).execute(c).await })?;
    Ok(oldest.iter().filter(|(revision, _)| *revision <= last).count() as u64)
}
