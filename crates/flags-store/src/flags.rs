//! Queries for flags (`feature_flags`).

use diesel::{
    AsChangeset, BoolExpressionMethods, EscapeExpressionMethods, ExpressionMethods, Insertable, OptionalExtension,
    QueryDsl, Queryable, Selectable, SelectableHelper, TextExpressionMethods,
};
use diesel_async::RunQueryDsl;
use flags_domain::{Action, Flag, FlagName, FlagType, Instant, ResourceKind};

use crate::{
    backend::row_lock::{Locked, RowLock},
    change_log::ChangeLogEntry,
    conn::{Conn, dispatch},
    error::{Result, StoreError},
    json::{from_json, parse_flag_name, to_json},
    page::{BoundedCount, Page, contains_pattern},
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
    type Error = StoreError;

    fn try_from(row: FlagRow) -> Result<Self> {
        const TABLE: &str = "feature_flags";
        let flag_type =
            FlagType::parse(&row.flag_type).ok_or_else(|| StoreError::corrupt(TABLE, "unknown flag_type"))?;
        let flag = Flag {
            name: parse_flag_name(&row.name)?,
            flag_type,
            description: row.description,
            owner: row.owner,
            tags: from_json(TABLE, &row.tags.0)?,
            enabled: row.enabled,
            variants: from_json(TABLE, &row.variants.0)?,
            default: from_json(TABLE, &row.default_serve.0)?,
            off_variant: row.off_variant,
            targeting_rules: from_json(TABLE, &row.targeting_rules.0)?,
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

/// Returns the flag with this name.
pub async fn find(conn: &mut Conn, name: &str) -> Result<Option<FlagRecord>> {
    let row: Option<FlagRow> = dispatch!(conn, |c| {
        feature_flags::table.find(name).select(FlagRow::as_select()).first(c).await.optional()
    })?;
    row.map(TryInto::try_into).transpose()
}

/// Locks the flag (shared) until the end of the transaction, so that the flag cannot be deleted concurrently, and
/// returns the flag.
pub async fn lock_shared(tx: &mut Tx, name: &str) -> Result<Option<FlagRecord>> {
    lock_row(tx, name, RowLock::Share).await
}

/// Locks the flag (exclusive) until the end of the transaction, and returns the flag. The lock also protects the
/// scheduled changes of the flag.
pub async fn lock(tx: &mut Tx, name: &str) -> Result<Option<FlagRecord>> {
    lock_row(tx, name, RowLock::Update).await
}

async fn lock_row(tx: &mut Tx, name: &str, lock: RowLock) -> Result<Option<FlagRecord>> {
    let row: Option<FlagRow> = dispatch!(tx.conn(), |c| {
        let row = feature_flags::table.find(name).select(FlagRow::as_select());
        Locked::new(row, lock).get_result(c).await.optional()
    })?;
    tx.refresh_now();
    row.map(TryInto::try_into).transpose()
}

/// Returns the flags with the given names. Unknown names are omitted.
pub async fn find_all(conn: &mut Conn, names: &[FlagName]) -> Result<Vec<FlagRecord>> {
    let names: Vec<&str> = names.iter().map(|name| name.as_str()).collect();
    let rows: Vec<FlagRow> = dispatch!(conn, |c| {
        feature_flags::table.filter(feature_flags::name.eq_any(&names)).select(FlagRow::as_select()).load(c).await
    })?;
    rows.into_iter().map(TryInto::try_into).collect()
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

/// Returns all flags, for loading the replica.
pub async fn load_all(conn: &mut Conn) -> Result<Vec<FlagRecord>> {
    let rows: Vec<FlagRow> = dispatch!(conn, |c| feature_flags::table
        .order(feature_flags::name)
        .select(FlagRow::as_select())
        .load(c)
        .await)?;
    rows.into_iter().map(TryInto::try_into).collect()
}

/// Returns the names of the flags that are being deleted.
pub(crate) async fn find_deleting(conn: &mut Conn) -> Result<Vec<String>> {
    dispatch!(conn, |c| {
        feature_flags::table.filter(feature_flags::deleting.eq(true)).select(feature_flags::name).load(c).await
    })
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

/// Returns a page of flags.
pub async fn list(conn: &mut Conn, filter: &FlagFilter, order: FlagOrder, limit: u32) -> Result<Page<FlagRecord>> {
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
    let bound = i64::from(limit) + 1;
    let rows: Vec<FlagRow> = dispatch!(conn, |c| {
        let query = filtered!(dsl::feature_flags.select(FlagRow::as_select()).into_boxed::<Db>());
        let query = match order {
            FlagOrder::Name(None) => query.order(dsl::name.asc()),
            FlagOrder::Name(Some(after)) => query.order(dsl::name.asc()).filter(dsl::name.gt(after)),
            FlagOrder::RecentlyUpdated(after) => {
                let query = query.order((dsl::revision.desc(), dsl::name.asc()));
                match after {
                    Some((revision, name)) => {
                        query.filter(dsl::revision.lt(revision).or(dsl::revision.eq(revision).and(dsl::name.gt(name))))
                    }
                    None => query,
                }
            }
        };
        query.limit(bound).load(c).await
    })?;
    let rows = rows.into_iter().map(TryInto::try_into).collect::<Result<Vec<_>>>()?;
    Ok(Page::from_overfetched(rows, limit, total))
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

/// Marks a flag as being deleted. Not logged and takes no revision, because each deletion of the flag's overrides is
/// logged on its own.
pub async fn set_deleting(tx: &mut Tx, name: &str) -> Result<()> {
    dispatch!(tx.conn(), |c| {
        let row = diesel::update(feature_flags::table.find(name));
        row.set(feature_flags::deleting.eq(true)).execute(c).await
    })?;
    Ok(())
}
