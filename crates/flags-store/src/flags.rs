//! Flags: one named function a query.

use diesel::{
    AsChangeset, BoolExpressionMethods, EscapeExpressionMethods, ExpressionMethods, Insertable, OptionalExtension,
    QueryDsl, Queryable, Selectable, SelectableHelper, TextExpressionMethods,
};
use diesel_async::RunQueryDsl;
use flags_domain::{Flag, FlagName, FlagType, Instant};

use crate::{
    change_log::{self, Action, ResourceKind},
    commit::{ChangeLogEntry, Tx},
    error::{Result, StoreError},
    page::{CountUpTo, Page, containing},
    schema::feature_flags,
    sql_types::{DbInstant, DbJson},
    store::{Conn, on},
};

/// A flag as it stands in the database.
#[derive(Clone, Debug, PartialEq)]
pub struct FlagRecord {
    /// The definition.
    pub flag: Flag,
    /// When it was made.
    pub created_at: Instant,
    /// When it was last changed.
    pub updated_at: Instant,
    /// Its deletion is under way.
    pub deleting: bool,
    /// The revision of its last change.
    pub revision: i64,
}

#[derive(Queryable, Selectable, Insertable, AsChangeset)]
#[diesel(table_name = feature_flags)]
#[diesel(treat_none_as_null = true)]
struct Row {
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

impl From<&FlagRecord> for Row {
    fn from(record: &FlagRecord) -> Self {
        let flag = &record.flag;
        let description = flag.description.as_deref().unwrap_or_default();
        Self {
            name: flag.name.to_string(),
            flag_type: flag.flag_type.as_str().to_owned(),
            description: flag.description.clone(),
            owner: flag.owner.clone(),
            tags: DbJson(change_log::write(&flag.tags)),
            enabled: flag.enabled,
            variants: DbJson(change_log::write(&flag.variants)),
            default_serve: DbJson(change_log::write(&flag.default)),
            off_variant: flag.off_variant.clone(),
            targeting_rules: DbJson(change_log::write(&flag.targeting_rules)),
            salt: flag.salt.clone(),
            client_visible: flag.client_visible,
            archived_at: flag.archived_at.map(DbInstant),
            default_set_at: DbInstant(flag.default_set_at),
            enabled_set_at: DbInstant(flag.enabled_set_at),
            deleting: record.deleting,
            search_text: format!("{}\n{description}", flag.name).to_lowercase(),
            tags_text: flag.tags.iter().map(|tag| tag_text(tag)).collect(),
            created_at: DbInstant(record.created_at),
            updated_at: DbInstant(record.updated_at),
            revision: record.revision,
        }
    }
}

/// A tag between line feeds, which no tag can hold.
fn tag_text(tag: &str) -> String {
    format!("\n{tag}\n")
}

impl TryFrom<Row> for FlagRecord {
    type Error = StoreError;

    fn try_from(row: Row) -> Result<Self> {
        const TABLE: &str = "feature_flags";
        let flag_type =
            FlagType::parse(&row.flag_type).ok_or_else(|| StoreError::corrupt(TABLE, "unknown flag_type"))?;
        let flag = Flag {
            name: change_log::read_name(&row.name)?,
            flag_type,
            description: row.description,
            owner: row.owner,
            tags: change_log::read(TABLE, &row.tags.0)?,
            enabled: row.enabled,
            variants: change_log::read(TABLE, &row.variants.0)?,
            default: change_log::read(TABLE, &row.default_serve.0)?,
            off_variant: row.off_variant,
            targeting_rules: change_log::read(TABLE, &row.targeting_rules.0)?,
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

/// The flag of this name.
pub async fn find(conn: &mut Conn, name: &str) -> Result<Option<FlagRecord>> {
    let row: Option<Row> =
        on!(conn, |c| { feature_flags::table.find(name).select(Row::as_select()).first(c).await.optional() })?;
    row.map(TryInto::try_into).transpose()
}

/// The flags of these names that exist.
pub async fn find_all(conn: &mut Conn, names: &[FlagName]) -> Result<Vec<FlagRecord>> {
    let names: Vec<&str> = names.iter().map(|name| name.as_str()).collect();
    let rows: Vec<Row> = on!(conn, |c| {
        feature_flags::table.filter(feature_flags::name.eq_any(&names)).select(Row::as_select()).load(c).await
    })?;
    rows.into_iter().map(TryInto::try_into).collect()
}

/// Inserts a flag; `false` if there is one of this name.
pub async fn insert(tx: &mut Tx, new: &FlagRecord) -> Result<bool> {
    let row = Row::from(new);
    let inserted = on!(tx.conn(), |c| {
        diesel::insert_into(feature_flags::table).values(&row).on_conflict_do_nothing().execute(c).await
    })?;
    if inserted == 1 {
        tx.record(entry(Action::Created, None, Some(&new.flag)));
    }
    Ok(inserted == 1)
}

/// Writes a flag that the transaction has claimed; the log calls it `action`.
pub async fn update(tx: &mut Tx, action: Action, before: &FlagRecord, after: &FlagRecord) -> Result<()> {
    let row = Row::from(after);
    on!(tx.conn(), |c| { diesel::update(feature_flags::table.find(row.name.as_str())).set(&row).execute(c).await })?;
    tx.record(entry(action, Some(&before.flag), Some(&after.flag)));
    Ok(())
}

/// Removes a flag that the transaction has claimed. Its overrides and schedules must be gone.
pub async fn delete(tx: &mut Tx, gone: &FlagRecord) -> Result<()> {
    let name = gone.flag.name.as_str();
    on!(tx.conn(), |c| diesel::delete(feature_flags::table.find(name)).execute(c).await)?;
    tx.record(entry(Action::Deleted, Some(&gone.flag), None));
    Ok(())
}

/// All flags, for loading the replica.
pub async fn load_all(conn: &mut Conn) -> Result<Vec<FlagRecord>> {
    let rows: Vec<Row> =
        on!(conn, |c| feature_flags::table.order(feature_flags::name).select(Row::as_select()).load(c).await)?;
    rows.into_iter().map(TryInto::try_into).collect()
}

/// Which flags a list is to hold; all that is `None` does not matter.
#[derive(Clone, Debug, Default)]
pub struct FlagFilter {
    /// Any part of name or description, in lower case.
    pub search: Option<String>,
    /// A tag, whole.
    pub tag: Option<String>,
    /// Archived ones only, or unarchived ones only.
    pub archived: Option<bool>,
}

/// In what order, and after what.
#[derive(Clone, Debug)]
pub enum FlagOrder {
    /// By name.
    Name(Option<String>),
    /// Newest change first, then by name.
    NewestChange(Option<(i64, String)>),
}

/// A page of flags.
pub async fn list(conn: &mut Conn, filter: &FlagFilter, order: FlagOrder, limit: u32) -> Result<Page<FlagRecord>> {
    use feature_flags::dsl;
    macro_rules! filtered {
        ($query:expr) => {{
            let mut query = $query;
            if let Some(part) = &filter.search {
                query = query.filter(dsl::search_text.like(containing(part)).escape('\\'));
            }
            if let Some(tag) = &filter.tag {
                query = query.filter(dsl::tags_text.like(containing(&tag_text(tag))).escape('\\'));
            }
            match filter.archived {
                Some(true) => query = query.filter(dsl::archived_at.is_not_null()),
                Some(false) => query = query.filter(dsl::archived_at.is_null()),
                None => {}
            }
            query
        }};
    }
    let total: i64 = on!(conn, |c| {
        CountUpTo(filtered!(dsl::feature_flags.select(dsl::name).into_boxed::<Db>())).get_result(c).await
    })?;
    let bound = i64::from(limit) + 1;
    let rows: Vec<Row> = on!(conn, |c| {
        let query = filtered!(dsl::feature_flags.select(Row::as_select()).into_boxed::<Db>());
        let query = match order {
            FlagOrder::Name(None) => query.order(dsl::name.asc()),
            FlagOrder::Name(Some(after)) => query.order(dsl::name.asc()).filter(dsl::name.gt(after)),
            FlagOrder::NewestChange(after) => {
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
    Ok(Page::cut(rows, limit, total))
}

fn entry(action: Action, before: Option<&Flag>, after: Option<&Flag>) -> ChangeLogEntry {
    ChangeLogEntry {
        action,
        entity: ResourceKind::Flag,
        entity_id: None,
        flag_name: after.or(before).map(|flag| flag.name.to_string()),
        user_id: None,
        before: before.map(change_log::write),
        after: after.map(change_log::write),
        reason: None,
    }
}

/// Marks a flag whose overrides go in several revisions. A mark beside the log: each of those revisions says what went.
pub async fn mark_deleting(tx: &mut Tx, name: &str) -> Result<()> {
    on!(tx.conn(), |c| {
        let flag = diesel::update(feature_flags::table.find(name));
        flag.set(feature_flags::deleting.eq(true)).execute(c).await
    })?;
    Ok(())
}
