//! The log: audit trail, history and change feed at once.

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
    store::{Conn, Store, on},
};

/// A position in the log. Numbers are comparable within one epoch only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Revision {
    /// Changes when the database was restored, as numbers are then used again.
    pub epoch: Uuid,
    /// Dense, from 1; 0 is the empty log.
    pub number: i64,
}

impl fmt::Display for Revision {
    /// `<epoch>:<number>`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.epoch.simple(), self.number)
    }
}

/// The text is no position in the log.
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

macro_rules! names {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $text:literal,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$doc])* $variant,)* }

        impl $name {
            /// The name in the database and on the wire.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }

            /// Reads the name.
            pub fn parse(text: &str) -> Option<Self> {
                match text { $($text => Some(Self::$variant),)* _ => None }
            }
        }
    };
}
pub(crate) use names;

names! {
    /// What was done.
    Action {
        /// It was not there before.
        Created = "created",
        /// It was there and is different now.
        Updated = "updated",
        /// It was taken away.
        Deleted = "deleted",
        /// It was taken away because its end had passed.
        Expired = "expired",
        /// A flag was put out of use.
        Archived = "archived",
        /// A flag was put back in use.
        Restored = "restored",
        /// A scheduled change was called off.
        Cancelled = "cancelled",
        /// A scheduled change fell due.
        Applied = "applied",
        /// A token was made void.
        Revoked = "revoked",
        /// What made a user readable was removed.
        Erased = "erased",
    }
}

names! {
    /// What kind of thing a change concerns.
    ResourceKind {
        /// A person.
        User = "user",
        /// A flag.
        Flag = "flag",
        /// A scheduled change of a flag.
        ScheduledChange = "scheduled_change",
        /// A user's override of a flag.
        Override = "override",
        /// An API token.
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

/// What a row of the log says besides the state before and after.
#[derive(Clone, Debug, PartialEq)]
pub struct ChangeSummary {
    /// The revision it belongs to.
    pub revision: i64,
    /// Its place within the revision, from 0.
    pub ord: i32,
    /// When it was done, by the clock of whoever did it.
    pub at: Instant,
    /// Who did it.
    pub actor: String,
    /// What was done.
    pub action: Action,
    /// To what kind of thing.
    pub entity: ResourceKind,
    /// To which thing.
    pub entity_id: Option<Uuid>,
    /// The flag it concerns.
    pub flag_name: Option<FlagName>,
    /// The user it concerns.
    pub user_id: Option<Uuid>,
}

/// One row of the log.
#[derive(Clone, Debug, PartialEq)]
pub struct LoggedChange {
    /// What was done, to what, when and by whom.
    pub summary: ChangeSummary,
    /// The state after; `None` if the thing is gone.
    pub after: Option<Value>,
}

#[derive(Queryable, Selectable)]
#[diesel(table_name = change_log)]
struct SummaryRow {
    revision: i64,
    ord: i32,
    at: DbInstant,
    actor: String,
    action: String,
    entity: String,
    entity_id: Option<DbUuid>,
    flag_name: Option<String>,
    user_id: Option<DbUuid>,
}

#[derive(Queryable, Selectable)]
#[diesel(table_name = change_log)]
struct Row {
    #[diesel(embed)]
    summary: SummaryRow,
    after: Option<DbJson>,
}

impl TryFrom<SummaryRow> for ChangeSummary {
    type Error = StoreError;

    fn try_from(row: SummaryRow) -> Result<Self> {
        let unknown = |what: &str| StoreError::corrupt("change_log", format!("unknown name {what:?}"));
        Ok(Self {
            revision: row.revision,
            ord: row.ord,
            at: row.at.0,
            actor: row.actor,
            action: Action::parse(&row.action).ok_or_else(|| unknown(&row.action))?,
            entity: ResourceKind::parse(&row.entity).ok_or_else(|| unknown(&row.entity))?,
            entity_id: row.entity_id.map(|id| id.0),
            flag_name: row.flag_name.map(|name| read_name(&name)).transpose()?,
            user_id: row.user_id.map(|id| id.0),
        })
    }
}

impl TryFrom<Row> for LoggedChange {
    type Error = StoreError;

    fn try_from(row: Row) -> Result<Self> {
        Ok(Self { summary: row.summary.try_into()?, after: row.after.map(|doc| doc.0) })
    }
}

impl LoggedChange {
    /// What it does to the state that evaluation reads.
    pub fn change(&self) -> Result<Change> {
        let summary = &self.summary;
        let missing =
            |what: &str| StoreError::corrupt("change_log", format!("revision {} lacks {what}", summary.revision));
        let flag_name = || summary.flag_name.clone().ok_or_else(|| missing("a flag's name"));
        let user_id = || summary.user_id.ok_or_else(|| missing("a user's id"));
        let entity_id = || summary.entity_id.ok_or_else(|| missing("an id"));
        Ok(match (summary.entity, &self.after) {
            (ResourceKind::Flag, Some(after)) => Change::FlagSet(Box::new(read("change_log", after)?)),
            (ResourceKind::Flag, None) => Change::FlagRemoved(flag_name()?),
            (ResourceKind::ScheduledChange, Some(after)) => {
                Change::ScheduledChangeSet(flag_name()?, Box::new(read("change_log", after)?))
            }
            (ResourceKind::ScheduledChange, None) => Change::ScheduledChangeRemoved(flag_name()?, entity_id()?),
            (ResourceKind::Override, Some(after)) => Change::OverrideSet(Box::new(read("change_log", after)?)),
            (ResourceKind::Override, None) => Change::OverrideRemoved { user_id: user_id()?, flag_name: flag_name()? },
            (ResourceKind::User, _) => Change::UserTouched(user_id()?),
            (ResourceKind::ApiToken, _) => Change::TokenTouched(entity_id()?),
        })
    }
}

/// Reads a document out of the database.
pub(crate) fn read<T: serde::de::DeserializeOwned>(table: &str, value: &Value) -> Result<T> {
    T::deserialize(value).map_err(|error| StoreError::corrupt(table, error))
}

/// Reads a flag's name out of the database.
pub(crate) fn read_name(text: &str) -> Result<FlagName> {
    FlagName::new(text).map_err(|_| StoreError::corrupt("a flag's name", text))
}

/// Writes a document for the database.
pub(crate) fn write<T: serde::Serialize>(value: &T) -> Value {
    // Domain types hold nothing that JSON cannot: their maps have text keys, their numbers are finite.
    serde_json::to_value(value).unwrap_or_default()
}

/// Where the log stands.
pub async fn head(conn: &mut Conn) -> Result<Revision> {
    let (epoch, number): (DbUuid, i64) =
        on!(conn, |c| log_head::table.select((log_head::epoch, log_head::revision)).first(c).await)?;
    Ok(Revision { epoch: epoch.0, number })
}

/// Where the log stands, and what it holds after revision `after`: at most `limit` rows, but always whole revisions, and at
/// least one. One statement, so that both are of the same moment.
pub async fn read_on(conn: &mut Conn, after: i64, limit: usize) -> Result<(Revision, Vec<LoggedChange>)> {
    let bound = i64::try_from(limit).unwrap_or(i64::MAX);
    let rows: Vec<(DbUuid, i64, Option<Row>)> = on!(conn, |c| {
        log_head::table
            // Bounded above as well, or a reader far behind would sort all that it has not read for every batch.
            .left_join(
                change_log::table
                    .on(change_log::revision.gt(after).and(change_log::revision.le(after.saturating_add(bound)))),
            )
            .order((change_log::revision, change_log::ord))
            .limit(bound)
            .select((log_head::epoch, log_head::revision, Option::<Row>::as_select()))
            .load(c)
            .await
    })?;
    let head = rows.as_slice().first().map(|(epoch, number, _)| Revision { epoch: epoch.0, number: *number });
    let head = head.ok_or_else(|| StoreError::corrupt("log_head", "it has no row"))?;
    let mut rows: Vec<_> = rows.into_iter().filter_map(|(_, _, row)| row).collect();
    let ends = rows.as_slice().first().zip(rows.as_slice().last());
    if let Some((first, last)) = ends.map(|(first, last)| (first.summary.revision, last.summary.revision))
        && rows.len() >= limit
    {
        if first == last {
            return Ok((head, read_revision(conn, first).await?));
        }
        // The last revision may have been cut in two; it comes with the next call.
        rows.retain(|row| row.summary.revision != last);
    }
    Ok((head, rows.into_iter().map(LoggedChange::try_from).collect::<Result<_>>()?))
}

/// All rows of one revision.
async fn read_revision(conn: &mut Conn, revision: i64) -> Result<Vec<LoggedChange>> {
    let rows: Vec<Row> = on!(conn, |c| {
        let rows = change_log::table.filter(change_log::revision.eq(revision));
        rows.order(change_log::ord).select(Row::as_select()).load(c).await
    })?;
    rows.into_iter().map(LoggedChange::try_from).collect()
}

/// The newest rows of the log, at most `limit` of them and only of whole revisions, in order.
pub async fn recent(conn: &mut Conn, limit: i64) -> Result<Vec<ChangeSummary>> {
    let mut rows: Vec<SummaryRow> = on!(conn, |c| {
        let newest = change_log::table.order((change_log::revision.desc(), change_log::ord.desc())).limit(limit);
        newest.select(SummaryRow::as_select()).load(c).await
    })?;
    rows.reverse();
    if let Some(cut) = rows.as_slice().first().filter(|row| row.ord != 0).map(|row| row.revision) {
        rows.retain(|row| row.revision != cut);
    }
    rows.into_iter().map(TryInto::try_into).collect()
}

/// Removes up to `limit` of the oldest revisions, of those that were written before `before`, and returns how many went.
/// `log_head` then says that the log begins after them. No change of state: it takes no revision itself.
pub async fn purge(store: &Store, before: Instant, limit: i64) -> Result<u64> {
    let _writer = store.writer().await?;
    let mut conn = store.conn().await?;
    let oldest: Vec<(i64, DbInstant)> = on!(conn, |c| {
        let first_rows = change_log::table.filter(change_log::ord.eq(0));
        first_rows.order(change_log::revision).limit(limit).select((change_log::revision, change_log::at)).load(c).await
    })?;
    // From the oldest on without a gap, as the clocks of those who wrote them may differ.
    let Some(last) = oldest.iter().take_while(|(_, at)| at.0 < before).map(|(revision, _)| *revision).last() else {
        return Ok(0);
    };
    // Rather a log that says it begins later than it does than one that lacks what it says it has.
    on!(conn, |c| {
        let head = diesel::update(log_head::table.filter(log_head::lowest_revision.le(last)));
        head.set(log_head::lowest_revision.eq(last + 1)).execute(c).await
    })?;
    on!(conn, |c| { diesel::delete(change_log::table.filter(change_log::revision.le(last))).execute(c).await })?;
    Ok(oldest.iter().filter(|(revision, _)| *revision <= last).count() as u64)
}
