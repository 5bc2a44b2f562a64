//! The log: audit trail, history and change feed at once.

use std::fmt;

use diesel::{ExpressionMethods, QueryDsl, Queryable, Selectable, SelectableHelper};
use diesel_async::RunQueryDsl;
use flags_domain::{Change, FlagName};
use serde_json::Value;
use uuid::Uuid;

use crate::{
    error::{Result, StoreError},
    schema::{change_log, log_head},
    sql_types::{Json, Uid},
    store::{Conn, on},
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
    }
}

names! {
    /// What kind of thing a change concerns.
    Entity {
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

/// One row of the log.
#[derive(Clone, Debug, PartialEq)]
pub struct LoggedChange {
    /// The revision it belongs to.
    pub revision: i64,
    /// Its place within the revision, from 0.
    pub ord: i32,
    /// What was done.
    pub action: Action,
    /// To what kind of thing.
    pub entity: Entity,
    /// To which thing.
    pub entity_id: Option<Uuid>,
    /// The flag it concerns.
    pub flag_name: Option<FlagName>,
    /// The user it concerns.
    pub user_id: Option<Uuid>,
    /// The state after; `None` if the thing is gone.
    pub after: Option<Value>,
}

#[derive(Queryable, Selectable)]
#[diesel(table_name = change_log)]
struct Row {
    revision: i64,
    ord: i32,
    action: String,
    entity: String,
    entity_id: Option<Uid>,
    flag_name: Option<String>,
    user_id: Option<Uid>,
    after: Option<Json>,
}

impl TryFrom<Row> for LoggedChange {
    type Error = StoreError;

    fn try_from(row: Row) -> Result<Self> {
        let unknown = |what: &str| StoreError::corrupt("change_log", format!("unknown name {what:?}"));
        Ok(Self {
            revision: row.revision,
            ord: row.ord,
            action: Action::parse(&row.action).ok_or_else(|| unknown(&row.action))?,
            entity: Entity::parse(&row.entity).ok_or_else(|| unknown(&row.entity))?,
            entity_id: row.entity_id.map(|id| id.0),
            flag_name: row.flag_name.map(|name| read_name(&name)).transpose()?,
            user_id: row.user_id.map(|id| id.0),
            after: row.after.map(|doc| doc.0),
        })
    }
}

impl LoggedChange {
    /// What it does to the state that evaluation reads.
    pub fn change(&self) -> Result<Change> {
        let missing =
            |what: &str| StoreError::corrupt("change_log", format!("revision {} lacks {what}", self.revision));
        let flag_name = || self.flag_name.clone().ok_or_else(|| missing("a flag's name"));
        let user_id = || self.user_id.ok_or_else(|| missing("a user's id"));
        let entity_id = || self.entity_id.ok_or_else(|| missing("an id"));
        Ok(match (self.entity, &self.after) {
            (Entity::Flag, Some(after)) => Change::FlagSet(Box::new(read("change_log", after)?)),
            (Entity::Flag, None) => Change::FlagRemoved(flag_name()?),
            (Entity::ScheduledChange, Some(after)) => {
                Change::ScheduledChangeSet(flag_name()?, Box::new(read("change_log", after)?))
            }
            (Entity::ScheduledChange, None) => Change::ScheduledChangeRemoved(flag_name()?, entity_id()?),
            (Entity::Override, Some(after)) => Change::OverrideSet(Box::new(read("change_log", after)?)),
            (Entity::Override, None) => Change::OverrideRemoved { user_id: user_id()?, flag_name: flag_name()? },
            (Entity::User, _) => Change::UserTouched(user_id()?),
            (Entity::ApiToken, _) => Change::TokenTouched(entity_id()?),
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
    let (epoch, number): (Uid, i64) =
        on!(conn, |c| log_head::table.select((log_head::epoch, log_head::revision)).first(c).await)?;
    Ok(Revision { epoch: epoch.0, number })
}

/// The rows after revision `after`, in order, at most `limit` of them (but always whole revisions, and at least one).
pub async fn read_after(conn: &mut Conn, after: i64, limit: usize) -> Result<Vec<LoggedChange>> {
    let bound = i64::try_from(limit).unwrap_or(i64::MAX);
    let rows: Vec<Row> = on!(conn, |c| {
        let newer = change_log::table.filter(change_log::revision.gt(after));
        newer.order((change_log::revision, change_log::ord)).limit(bound).select(Row::as_select()).load(c).await
    })?;
    let ends = rows.as_slice().first().zip(rows.as_slice().last());
    let Some((first, last)) = ends.map(|(first, last)| (first.revision, last.revision)) else {
        return Ok(Vec::new());
    };
    if rows.len() < limit {
        return rows.into_iter().map(LoggedChange::try_from).collect();
    }
    if first == last {
        return read_revision(conn, first).await;
    }
    // The last revision may have been cut in two; it comes with the next call.
    rows.into_iter().filter(|row| row.revision != last).map(LoggedChange::try_from).collect()
}

/// All rows of one revision.
async fn read_revision(conn: &mut Conn, revision: i64) -> Result<Vec<LoggedChange>> {
    let rows: Vec<Row> = on!(conn, |c| {
        let rows = change_log::table.filter(change_log::revision.eq(revision));
        rows.order(change_log::ord).select(Row::as_select()).load(c).await
    })?;
    rows.into_iter().map(LoggedChange::try_from).collect()
}
