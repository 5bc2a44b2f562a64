//! Table `user_flag_overrides`: the columns, keys and indexes that the product specification requires.
//!
//! Columns that this project adds follow the specified ones.

use diesel::{Connection as _, QueryableByName, RunQueryDsl as _, SqliteConnection, sql_types::Text};
use flags_tests::{
    database::{Database, DatabaseKind, query_postgres},
    on_both_databases,
};

on_both_databases! {
    specified_columns_come_first_in_the_override_table,
    override_table_has_exactly_the_specified_keys,
    override_table_has_all_specified_indexes,
}

#[derive(QueryableByName)]
struct TextRow {
    #[diesel(sql_type = Text)]
    text: String,
}

/// Runs the query for this kind of database and returns its only column, named `text`.
async fn query_text_column(kind: DatabaseKind, postgres: &str, sqlite: &str) -> Vec<String> {
    let database = Database::migrated(kind).await;
    match database.url.strip_prefix("sqlite://") {
        None => query_postgres(&database.url, postgres).await.into_iter().flatten().collect(),
        Some(path) => {
            let mut conn = SqliteConnection::establish(path).unwrap();
            let rows: Vec<TextRow> = diesel::sql_query(sqlite).load(&mut conn).unwrap();
            rows.into_iter().map(|row| row.text).collect()
        }
    }
}

async fn specified_columns_come_first_in_the_override_table(kind: DatabaseKind) {
    let columns = query_text_column(
        kind,
        "SELECT concat_ws(' ', attname, format_type(atttypid, atttypmod), CASE WHEN attnotnull THEN 'NOT NULL' END,
                'DEFAULT ' || pg_get_expr(adbin, adrelid)) AS text
         FROM pg_attribute LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
         WHERE attrelid = 'user_flag_overrides'::regclass AND attnum > 0 AND NOT attisdropped
         ORDER BY attnum",
        "SELECT name || ' ' || type || iif(\"notnull\", ' NOT NULL', '') || coalesce(' DEFAULT ' || dflt_value, '') AS text
         FROM pragma_table_info('user_flag_overrides') ORDER BY cid",
    )
    .await;
    let specified = match kind {
        DatabaseKind::Postgres => [
            "id uuid NOT NULL DEFAULT gen_random_uuid()",
            "user_id uuid NOT NULL",
            "flag_name character varying(255) NOT NULL",
            "override_value jsonb NOT NULL",
            "enabled boolean DEFAULT true",
            "reason character varying(500)",
            "created_by character varying(255) NOT NULL",
            "created_at timestamp with time zone DEFAULT now()",
            "updated_at timestamp with time zone DEFAULT now()",
            "expires_at timestamp with time zone",
        ],
        // UUIDs are blobs, JSON is text, and instants are microseconds since 1970. Text has no maximum length.
        DatabaseKind::Sqlite => [
            "id BLOB NOT NULL DEFAULT randomblob(16)",
            "user_id BLOB NOT NULL",
            "flag_name TEXT NOT NULL",
            "override_value TEXT NOT NULL",
            "enabled BOOLEAN DEFAULT true",
            "reason TEXT",
            "created_by TEXT NOT NULL",
            "created_at INTEGER DEFAULT CAST(unixepoch('subsec') * 1000000 AS INTEGER)",
            "updated_at INTEGER DEFAULT CAST(unixepoch('subsec') * 1000000 AS INTEGER)",
            "expires_at INTEGER",
        ],
    };
    assert_eq!(columns[..specified.len()], specified);
}

async fn override_table_has_exactly_the_specified_keys(kind: DatabaseKind) {
    let keys = query_text_column(
        kind,
        "SELECT pg_get_constraintdef(oid) AS text FROM pg_constraint
         WHERE conrelid = 'user_flag_overrides'::regclass AND contype IN ('p', 'f', 'u') ORDER BY 1",
        "SELECT 'FOREIGN KEY (' || \"from\" || ') REFERENCES ' || \"table\" || '(' || \"to\" || ') ON DELETE ' || on_delete AS text
             FROM pragma_foreign_key_list('user_flag_overrides')
         UNION ALL
         SELECT iif(origin = 'pk', 'PRIMARY KEY', 'UNIQUE') || ' (' || group_concat(column.name, ', ') || ')' AS text
             FROM pragma_index_list('user_flag_overrides') AS key, pragma_index_info(key.name) AS column
             WHERE origin IN ('pk', 'u') GROUP BY key.name
         ORDER BY 1",
    )
    .await;
    let specified = [
        "FOREIGN KEY (user_id) REFERENCES users(id) ON DELETE CASCADE",
        "PRIMARY KEY (id)",
        "UNIQUE (user_id, flag_name)",
    ];
    assert_eq!(keys, specified);
}

async fn override_table_has_all_specified_indexes(kind: DatabaseKind) {
    let indexes = query_text_column(
        kind,
        "SELECT indexdef AS text FROM pg_indexes WHERE tablename = 'user_flag_overrides'",
        "SELECT sql AS text FROM sqlite_schema
         WHERE type = 'index' AND tbl_name = 'user_flag_overrides' AND sql IS NOT NULL",
    )
    .await;
    let specified = match kind {
        DatabaseKind::Postgres => [
            "CREATE INDEX idx_user_flag_overrides_user ON public.user_flag_overrides USING btree (user_id)",
            "CREATE INDEX idx_user_flag_overrides_flag ON public.user_flag_overrides USING btree (flag_name)",
            "CREATE INDEX idx_user_flag_overrides_expires ON public.user_flag_overrides USING btree (expires_at) \
             WHERE (expires_at IS NOT NULL)",
        ],
        DatabaseKind::Sqlite => [
            "CREATE INDEX idx_user_flag_overrides_user ON user_flag_overrides(user_id)",
            "CREATE INDEX idx_user_flag_overrides_flag ON user_flag_overrides(flag_name)",
            "CREATE INDEX idx_user_flag_overrides_expires ON user_flag_overrides(expires_at) \
             WHERE expires_at IS NOT NULL",
        ],
    };
    for index in specified {
        assert!(indexes.iter().any(|found| found == index), "missing {index:?} in {indexes:?}");
    }
}
