//! Queries for flags (`feature_flags`).

use diesel::{
    AsChangeset, BoolExpressionMethods, EscapeExpressionMethods, ExpressionMethods, Insertable, OptionalExtension,
    QueryDsl, Queryable, Selectable, TextExpressionMethods,
};
use diesel_async::RunQueryDsl;
use flags_domain::{
    Action, Flag, FlagDefinition, FlagName, FlagType, Instant, ResourceKind, UnreadableFlag, decode_field,
};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::{
    backend::row_lock::{Locked, RowLock},
    change_log::ChangeLogEntry,
    conn::{Conn, dispatch},
    decoded::{Decoded, columns, log_once},
    error::{Result, StoreError},
    json::to_json,
    page::{BoundedCount, Page, contains_pattern, next_bound},
    schema::feature_flags,
    sql_types::{DbInstant, DbJson},
    transaction::Tx,
};

/// Stored flag.
#[derive(Clone, Debug, PartialEq)]
pub struct FlagRecord {
    /// Definition of the flag.
    pub flag: Flag,
    /// Creation time.
    pub created_at: Instant,
    /// Time of the last change.
    pub updated_at: Instant,
    /// Whether the flag is being deleted. Its overrides are deleted first, in several transactions.
    pub deleting: bool,
    /// Revision of the last change.
    pub revision: i64,
}

/// Stored flag whose definition this version cannot read.
#[derive(Clone, Debug, PartialEq)]
pub struct UnreadableFlagRecord {
    /// Fields of the flag that can be read, and the reason why the flag is unreadable.
    pub flag: UnreadableFlag,
    /// Creation time. `None` if it cannot be read.
    pub created_at: Option<Instant>,
    /// Time of the last change. `None` if it cannot be read.
    pub updated_at: Option<Instant>,
    /// Whether the flag is being deleted.
    pub deleting: bool,
    /// Revision of the last change. `None` if it cannot be read.
    pub revision: Option<i64>,
}

impl UnreadableFlagRecord {
    /// Returns the record of a flag that is unreadable only because of one of its scheduled
    /// changes.
    pub fn from_record(record: &FlagRecord, reason: String) -> Self {
        let FlagRecord { flag, created_at, updated_at, deleting, revision } = record;
        Self {
            flag: UnreadableFlag {
                name: flag.name.clone(),
                flag_type: Some(flag.flag_type),
                client_visible: flag.client_visible,
                archived_at: flag.archived_at,
                reason,
            },
            created_at: Some(*created_at),
            updated_at: Some(*updated_at),
            deleting: *deleting,
            revision: Some(*revision),
        }
    }

    /// Returns the error for an operation that needs the complete definition.
    pub fn into_error(self) -> StoreError {
        StoreError::UnreadableFlag { name: self.flag.name.to_string(), reason: self.flag.reason }
    }
}

/// A row of `feature_flags`.
#[derive(Clone, Debug, PartialEq)]
pub enum StoredFlag {
    /// Flag whose definition this version can read.
    Readable(Box<FlagRecord>),
    /// Flag whose definition this version cannot read.
    Unreadable(Box<UnreadableFlagRecord>),
}

impl StoredFlag {
    /// Unique name.
    pub const fn name(&self) -> &FlagName {
        match self {
            Self::Readable(record) => &record.flag.name,
            Self::Unreadable(record) => &record.flag.name,
        }
    }

    /// Revision of the last change. `None` if it cannot be read.
    pub const fn revision(&self) -> Option<i64> {
        match self {
            Self::Readable(record) => Some(record.revision),
            Self::Unreadable(record) => record.revision,
        }
    }

    /// Whether the flag is being deleted.
    pub const fn is_deleting(&self) -> bool {
        match self {
            Self::Readable(record) => record.deleting,
            Self::Unreadable(record) => record.deleting,
        }
    }

    /// Definition of the flag, for evaluation.
    pub fn into_definition(self) -> FlagDefinition {
        match self {
            Self::Readable(record) => FlagDefinition::Readable(record.flag),
            Self::Unreadable(record) => FlagDefinition::Unreadable(record.flag),
        }
    }

    /// Returns the flag. Fails with [`StoreError::UnreadableFlag`] if its definition cannot be read.
    pub fn into_readable(self) -> Result<FlagRecord> {
        match self {
            Self::Readable(record) => Ok(*record),
            Self::Unreadable(record) => Err(record.into_error()),
        }
    }

    /// Converts a row. Logs a row without a valid name and returns `None`, because nothing can
    /// refer to the flag.
    fn from_row((row, header): (Decoded<FlagRow>, FlagHeaderRow)) -> Option<Self> {
        let error = match row.into_value() {
            Ok(row) => match FlagRecord::try_from(row) {
                Ok(record) => return Some(Self::Readable(Box::new(record))),
                Err(error) => error,
            },
            Err(error) => error.to_string(),
        };
        let FlagHeaderRow { name, flag_type, client_visible, archived_at, created_at, updated_at, deleting, revision } =
            header;
        let name = name.or_logged(TABLE)?;
        let parsed_name = FlagName::new(&name).inspect_err(|error| log_once(TABLE, &name, &error.to_string())).ok()?;
        let archived_at: Option<Option<DbInstant>> = archived_at.into_value().ok();
        // An unreadable `archived_at` is not NULL, so the flag is archived.
        let archived_at = archived_at.unwrap_or(Some(DbInstant(Instant::from_micros(0))));
        Some(Self::Unreadable(Box::new(UnreadableFlagRecord {
            flag: UnreadableFlag {
                name: parsed_name,
                flag_type: flag_type.into_value().ok().and_then(|text| FlagType::parse(&text)),
                client_visible: client_visible.into_value().unwrap_or(false),
                archived_at: archived_at.map(|at| at.0),
                reason: error,
            },
            created_at: created_at.into_value().ok().map(|at| at.0),
            updated_at: updated_at.into_value().ok().map(|at| at.0),
            deleting: deleting.into_value().unwrap_or(false),
            revision: revision.into_value().ok(),
        })))
    }
}

/// Columns that are decoded one by one if the complete row cannot be read.
#[derive(Queryable, Selectable)]
#[diesel(table_name = feature_flags)]
struct FlagHeaderRow {
    name: Decoded<String>,
    flag_type: Decoded<String>,
    client_visible: Decoded<bool>,
    archived_at: Decoded<Option<DbInstant>>,
    created_at: Decoded<DbInstant>,
    updated_at: Decoded<DbInstant>,
    deleting: Decoded<bool>,
    revision: Decoded<i64>,
}

const TABLE: &str = "feature_flags";

#[derive(Queryable, Selectable, Insertable, AsChangeset)]
#[diesel(table_name = feature_flags)]
#[diesel(treat_none_as_null = true)]
struct FlagRow {
    name: String,
    flag_type: String,
    description: Option<String>,
    owner: Option<String>,
    tags: DbJson,
    enabled: bool,
    variants: DbJson,
    default_serve: DbJson,
    off_variant: String,
    targeting_rules: DbJson,
    salt: String,
    client_visible: bool,
    archived_at: Option<DbInstant>,
    default_set_at: DbInstant,
    enabled_set_at: DbInstant,
    deleting: bool,
    search_text: String,
    tags_text: String,
    created_at: DbInstant,
    updated_at: DbInstant,
    revision: i64,
}

impl From<&FlagRecord> for FlagRow {
    fn from(record: &FlagRecord) -> Self {
        let flag = &record.flag;
        let description = flag.description.as_deref().unwrap_or_default();
        Self {
            name: flag.name.to_string(),
            flag_type: flag.flag_type.as_str().to_owned(),
            description: flag.description.clone(),
            owner: flag.owner.clone(),
            tags: DbJson(to_json(&flag.tags)),
            enabled: flag.enabled,
            variants: DbJson(to_json(&flag.variants)),
            default_serve: DbJson(to_json(&flag.default)),
            off_variant: flag.off_variant.clone(),
            targeting_rules: DbJson(to_json(&flag.targeting_rules)),
            salt: flag.salt.clone(),
            client_visible: flag.client_visible,
            archived_at: flag.archived_at.map(DbInstant),
            default_set_at: DbInstant(flag.default_set_at),
            enabled_set_at: DbInstant(flag.enabled_set_at),
            deleting: record.deleting,
            search_text: format!("{}\n{description}", flag.name).to_lowercase(),
            tags_text: flag.tags.iter().map(|tag| delimited_tag(tag)).collect(),
            created_at: DbInstant(record.created_at),
            updated_at: DbInstant(record.updated_at),
            revision: record.revision,
        }
    }
}

/// Encloses a tag in line feeds, which tags cannot contain, so that a substring search finds whole tags only.
fn delimited_tag(tag: &str) -> String {
    format!("\n{tag}\n")
}

impl TryFrom<FlagRow> for FlagRecord {
    /// Location and description of the first problem.
    type Error = String;

    fn try_from(row: FlagRow) -> std::result::Result<Self, String> {
        fn decode<T: DeserializeOwned>(field: &str, json: &DbJson) -> std::result::Result<T, String> {
            decode_field(field, &json.0).map_err(|error| error.to_string())
        }
        let flag_type = FlagType::parse(&row.flag_type);
        let flag = Flag {
            name: FlagName::new(&row.name).map_err(|error| format!("name: {error}"))?,
            flag_type: flag_type.ok_or_else(|| format!("flag_type: unknown variant {:?}", row.flag_type))?,
            description: row.description,
            owner: row.owner,
            tags: decode("tags", &row.tags)?,
            enabled: row.enabled,
            variants: decode("variants", &row.variants)?,
            default: decode("default", &row.default_serve)?,
            off_variant: row.off_variant,
            targeting_rules: decode("targeting_rules", &row.targeting_rules)?,
            salt: row.salt,
            client_visible: row.client_visible,
            archived_at: row.archived_at.map(|at| at.0),
            default_set_at: row.default_set_at.0,
            enabled_set_at: row.enabled_set_at.0,
        };
        Ok(Self {
            flag,
            created_at: row.created_at.0,
            updated_at: row.updated_at.0,
            deleting: row.deleting,
            revision: row.revision,
        })
    }
}

/// Selects the columns of [`StoredFlag`].
macro_rules! stored_columns {
    () => {
        (columns!(FlagRow), columns!(FlagHeaderRow))
    };
}

/// Returns the flag with this name.
pub async fn find(conn: &mut Conn, name: &str) -> Result<Option<StoredFlag>> {
    let row =
        dispatch!(conn, |c| { feature_flags::table.find(name).select(stored_columns!()).first(c).await.optional() })?;
    Ok(row.and_then(StoredFlag::from_row))
}

/// Locks the flag (shared) until the end of the transaction, so that the flag cannot be deleted concurrently, and
/// returns the flag.
///
/// Fails with [`StoreError::UnreadableFlag`] if its definition cannot be read.
pub async fn lock_shared(tx: &mut Tx, name: &str) -> Result<Option<FlagRecord>> {
    lock_row(tx, name, RowLock::Share).await?.map(StoredFlag::into_readable).transpose()
}

/// Locks the flag (exclusive) until the end of the transaction, and returns the flag. The lock also protects the
/// scheduled changes of the flag.
pub async fn lock(tx: &mut Tx, name: &str) -> Result<Option<StoredFlag>> {
    lock_row(tx, name, RowLock::Update).await
}

async fn lock_row(tx: &mut Tx, name: &str, lock: RowLock) -> Result<Option<StoredFlag>> {
    let row = dispatch!(tx.conn(), |c| {
        let row = feature_flags::table.find(name).select(stored_columns!());
        Locked::new(row, lock).get_result(c).await.optional()
    })?;
    tx.refresh_now();
    Ok(row.and_then(StoredFlag::from_row))
}

/// Returns the flags with the given names whose definitions can be read. Unknown names are omitted.
pub async fn find_all(conn: &mut Conn, names: &[FlagName]) -> Result<Vec<FlagRecord>> {
    let names: Vec<&str> = names.iter().map(|name| name.as_str()).collect();
    let rows: Vec<(Decoded<FlagRow>, FlagHeaderRow)> = dispatch!(conn, |c| {
        feature_flags::table.filter(feature_flags::name.eq_any(&names)).select(stored_columns!()).load(c).await
    })?;
    Ok(rows.into_iter().filter_map(StoredFlag::from_row).filter_map(|flag| flag.into_readable().ok()).collect())
}

/// Counts all flags, including archived ones.
pub async fn count(conn: &mut Conn) -> Result<i64> {
    Ok(dispatch!(conn, |c| feature_flags::table.count().get_result(c).await)?)
}

/// Inserts a flag. Returns `false` if the name is already taken.
pub async fn insert(tx: &mut Tx, new: &FlagRecord) -> Result<bool> {
    let row = FlagRow::from(new);
    let inserted = dispatch!(tx.conn(), |c| {
        diesel::insert_into(feature_flags::table).values(&row).on_conflict_do_nothing().execute(c).await
    })?;
    if inserted == 1 {
        tx.record(entry(Action::Created, None, Some(&new.flag)));
    }
    Ok(inserted == 1)
}

/// Writes all columns of a flag and records the change as `action`. The transaction must hold the flag's lock.
pub async fn update(tx: &mut Tx, action: Action, before: &FlagRecord, after: &FlagRecord) -> Result<()> {
    let row = FlagRow::from(after);
    dispatch!(tx.conn(), |c| {
        diesel::update(feature_flags::table.find(row.name.as_str())).set(&row).execute(c).await
    })?;
    tx.record(entry(action, Some(&before.flag), Some(&after.flag)));
    Ok(())
}

/// Deletes a flag. The transaction must hold the flag's lock. The flag must have no overrides and no scheduled changes.
pub async fn delete(tx: &mut Tx, record: &FlagRecord) -> Result<()> {
    let name = record.flag.name.as_str();
    dispatch!(tx.conn(), |c| diesel::delete(feature_flags::table.find(name)).execute(c).await)?;
    tx.record(entry(Action::Deleted, Some(&record.flag), None));
    Ok(())
}

/// Archives a flag whose definition cannot be read. Writes only the columns that archiving changes.
/// The transaction must hold the flag's lock.
///
/// The change-log entry contains the definition as stored, for versions that can read it.
pub async fn archive_unreadable(tx: &mut Tx, record: &UnreadableFlagRecord) -> Result<()> {
    let now = tx.now();
    let name = record.flag.name.as_str();
    let row: Option<RawFlagRow> = dispatch!(tx.conn(), |c| {
        feature_flags::table.find(name).select(columns!(RawFlagRow)).first(c).await.optional()
    })?;
    let before = row.map(|row| row.into_json(record));
    dispatch!(tx.conn(), |c| {
        let set = (feature_flags::archived_at.eq(DbInstant(now)), feature_flags::updated_at.eq(DbInstant(now)));
        diesel::update(feature_flags::table.find(name)).set(set).execute(c).await
    })?;
    let mut after = before.clone();
    if let Some(fields) = after.as_mut().and_then(Value::as_object_mut) {
        fields.insert("archived_at".to_owned(), to_json(&now));
    }
    tx.record(ChangeLogEntry {
        action: Action::Archived,
        resource_kind: ResourceKind::Flag,
        resource_id: None,
        flag_name: Some(name.to_owned()),
        user_id: None,
        before,
        after,
        reason: None,
    });
    Ok(())
}

/// Columns of a flag definition, decoded one by one.
#[derive(Queryable, Selectable)]
#[diesel(table_name = feature_flags)]
struct RawFlagRow {
    flag_type: Decoded<String>,
    description: Decoded<Option<String>>,
    owner: Decoded<Option<String>>,
    tags: Decoded<DbJson>,
    enabled: Decoded<bool>,
    variants: Decoded<DbJson>,
    default_serve: Decoded<DbJson>,
    off_variant: Decoded<String>,
    targeting_rules: Decoded<DbJson>,
    salt: Decoded<String>,
    default_set_at: Decoded<DbInstant>,
    enabled_set_at: Decoded<DbInstant>,
}

impl RawFlagRow {
    /// Returns the definition in the JSON form of [`Flag`]. Omits columns that cannot be read at all.
    fn into_json(self, record: &UnreadableFlagRecord) -> Value {
        let mut fields = Map::new();
        let mut set = |name: &str, value: Option<Value>| {
            fields.extend(value.map(|value| (name.to_owned(), value)));
        };
        set("name", Some(to_json(&record.flag.name)));
        set("flag_type", self.flag_type.into_value().ok().map(Value::from));
        set("description", self.description.into_value().ok().map(Value::from));
        set("owner", self.owner.into_value().ok().map(Value::from));
        set("tags", self.tags.into_value().ok().map(|json| json.0));
        set("enabled", self.enabled.into_value().ok().map(Value::from));
        set("variants", self.variants.into_value().ok().map(|json| json.0));
        set("default", self.default_serve.into_value().ok().map(|json| json.0));
        set("off_variant", self.off_variant.into_value().ok().map(Value::from));
        set("targeting_rules", self.targeting_rules.into_value().ok().map(|json| json.0));
        set("salt", self.salt.into_value().ok().map(Value::from));
        set("client_visible", Some(Value::from(record.flag.client_visible)));
        set("archived_at", record.flag.archived_at.map(|at| to_json(&at)));
        set("default_set_at", self.default_set_at.into_value().ok().map(|at| to_json(&at.0)));
        set("enabled_set_at", self.enabled_set_at.into_value().ok().map(|at| to_json(&at.0)));
        Value::Object(fields)
    }
}

/// Returns all flags, for loading the replica. Omits rows without a valid name.
pub async fn load_all(conn: &mut Conn) -> Result<Vec<StoredFlag>> {
    let rows: Vec<(Decoded<FlagRow>, FlagHeaderRow)> =
        dispatch!(conn, |c| feature_flags::table.order(feature_flags::name).select(stored_columns!()).load(c).await)?;
    Ok(rows.into_iter().filter_map(StoredFlag::from_row).collect())
}

/// Returns the names of the flags that are being deleted.
pub(crate) async fn find_deleting(conn: &mut Conn) -> Result<Vec<String>> {
    let names: Vec<Decoded<String>> = dispatch!(conn, |c| {
        feature_flags::table.filter(feature_flags::deleting.eq(true)).select(feature_flags::name).load(c).await
    })?;
    Ok(names.into_iter().filter_map(|name| name.or_logged(TABLE)).collect())
}

/// Filter for [`list`]. A field that is `None` does not restrict the result.
#[derive(Clone, Debug, Default)]
pub struct FlagFilter {
    /// Substring of the name or description, in lower case.
    pub search: Option<String>,
    /// Exact tag.
    pub tag: Option<String>,
    /// `true`: only archived flags. `false`: only unarchived flags.
    pub archived: Option<bool>,
}

/// Sort order of [`list`], with the sort key of the last flag of the previous page.
#[derive(Clone, Debug)]
pub enum FlagOrder {
    /// Ascending by name.
    Name(Option<String>),
    /// Descending by the revision of the last change, then ascending by name.
    RecentlyUpdated(Option<(i64, String)>),
}

/// Returns a page of flags. Omits rows without a valid name. If the order is by revision, it also omits rows without a
/// valid revision.
pub async fn list(conn: &mut Conn, filter: &FlagFilter, order: FlagOrder, limit: u32) -> Result<Page<StoredFlag>> {
    use feature_flags::dsl;
    macro_rules! filtered {
        ($query:expr) => {{
            let mut query = $query;
            if let Some(text) = &filter.search {
                query = query.filter(dsl::search_text.like(contains_pattern(text)).escape('\\'));
            }
            if let Some(tag) = &filter.tag {
                query = query.filter(dsl::tags_text.like(contains_pattern(&delimited_tag(tag))).escape('\\'));
            }
            match filter.archived {
                Some(true) => query = query.filter(dsl::archived_at.is_not_null()),
                Some(false) => query = query.filter(dsl::archived_at.is_null()),
                None => {}
            }
            query
        }};
    }
    let total: i64 = dispatch!(conn, |c| {
        BoundedCount(filtered!(dsl::feature_flags.select(dsl::name).into_boxed::<Db>())).get_result(c).await
    })?;
    let mut bound = i64::from(limit) + 1;
    loop {
        let rows: Vec<(Decoded<FlagRow>, FlagHeaderRow)> = dispatch!(conn, |c| {
            let query = filtered!(dsl::feature_flags.select(stored_columns!()).into_boxed::<Db>());
            let query = match order.clone() {
                FlagOrder::Name(None) => query.order(dsl::name.asc()),
                FlagOrder::Name(Some(after)) => query.order(dsl::name.asc()).filter(dsl::name.gt(after)),
                FlagOrder::RecentlyUpdated(after) => {
                    let query = query.order((dsl::revision.desc(), dsl::name.asc()));
                    match after {
                        Some((revision, name)) => query
                            .filter(dsl::revision.lt(revision).or(dsl::revision.eq(revision).and(dsl::name.gt(name)))),
                        None => query,
                    }
                }
            };
            query.limit(bound).load(c).await
        })?;
        let found = rows.len();
        let mut items: Vec<_> = rows.into_iter().filter_map(StoredFlag::from_row).collect();
        if let FlagOrder::RecentlyUpdated(_) = order {
            // Page cursors contain the revision in this order, so omit flags without a valid
            // revision.
            items.retain(|flag| flag.revision().is_some());
        }
        match next_bound(limit, bound, found, items.len()) {
            Some(next) => bound = next,
            None => return Ok(Page::from_overfetched(items, limit, total)),
        }
    }
}

fn entry(action: Action, before: Option<&Flag>, after: Option<&Flag>) -> ChangeLogEntry {
    ChangeLogEntry {
        action,
        resource_kind: ResourceKind::Flag,
        resource_id: None,
        flag_name: after.or(before).map(|flag| flag.name.to_string()),
        user_id: None,
        before: before.map(to_json),
        after: after.map(to_json),
        reason: None,
    }
}

/// Marks a flag as being deleted. Not recorded in the change log, unlike the deletions that follow.
pub async fn set_deleting(tx: &mut Tx, name: &str) -> Result<()> {
    dispatch!(tx.conn(), |c| {
        let row = diesel::update(feature_flags::table.find(name));
        row.set(feature_flags::deleting.eq(true)).execute(c).await
    })?;
    Ok(())
}
