//! Database migrations: apply, revert and reapply on both databases, and the resulting schema.

use flags_store::migrate_down;

use flags_tests::{
    database::{Database, DatabaseKind, execute_raw, query_postgres, table_rows},
    on_both_databases,
};

on_both_databases! {
    migrations_can_be_applied_reverted_and_reapplied,
    concurrent_migrations_are_serialized,
    audit_migration_removes_token_names_from_the_change_log_and_links_labels_to_users,
}

async fn migrations_can_be_applied_reverted_and_reapplied(kind: DatabaseKind) {
    let database = Database::empty(kind).await;
    let store = database.store().await;
    assert!(!store.is_migrated().await.unwrap());
    let applied = store.migrate().await.unwrap();
    assert!(!applied.is_empty());
    assert!(store.is_migrated().await.unwrap());
    assert!(store.migrate().await.unwrap().is_empty(), "applied migrations are not applied again");
    let reverted = migrate_down(&database.database_url()).await.unwrap();
    assert_eq!(reverted.len(), applied.len());
    assert!(!store.is_migrated().await.unwrap());
    assert_eq!(store.migrate().await.unwrap(), applied);
    let mut conn = store.conn().await.unwrap();
    assert_eq!(flags_store::change_log::head(&mut conn).await.unwrap().number, 0);
}

async fn concurrent_migrations_are_serialized(kind: DatabaseKind) {
    let database = Database::empty(kind).await;
    let (first, second) = (database.store().await, database.store().await);
    let first = tokio::spawn(async move { first.migrate().await });
    let second = tokio::spawn(async move { second.migrate().await });
    let (first, second) = (first.await.unwrap().unwrap(), second.await.unwrap().unwrap());
    assert_ne!(first.is_empty(), second.is_empty(), "{first:?} {second:?}");
}

/// SQL that applies a migration.
fn migration_sql(kind: DatabaseKind, name: &str) -> String {
    let database = if kind == DatabaseKind::Postgres { "postgres" } else { "sqlite" };
    let path = format!("{}/../migrations/{database}/{name}/up.sql", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(path).unwrap()
}

async fn audit_migration_removes_token_names_from_the_change_log_and_links_labels_to_users(kind: DatabaseKind) {
    let database = Database::empty(kind).await;
    for name in ["00000000000001_foundation", "00000000000002_real_time"] {
        execute_raw(&database.url, &migration_sql(kind, name)).await;
    }
    // One token of a deleted user and one token without a user.
    let id = |digit: u128| {
        let id = uuid::Uuid::from_u128(0xabcd_0000_0000_0000_0000_0000_0000_0000 + digit);
        if kind == DatabaseKind::Postgres { format!("'{id}'") } else { format!("x'{}'", id.simple()) }
    };
    let actor = |digit: u128| format!("'token:abcd0000-0000-0000-0000-00000000000{digit}'");
    let at = if kind == DatabaseKind::Postgres { "now()" } else { "0" };
    let state = r#"'{"id": 1, "name": "Canary", "role": null}'"#;
    let row = |digit: u128, user: &str| {
        let (id, entry) = (id(digit), id(digit + 4));
        format!(
            "INSERT INTO change_log (revision, ord, id, at, actor, action, entity, entity_id, user_id, before, after)
             VALUES ({digit}, 0, {entry}, {at}, 'x', 'updated', 'api_token', {id}, {user}, NULL, {state});
             INSERT INTO actor_labels VALUES ({}, 'Canary');",
            actor(digit)
        )
    };
    execute_raw(&database.url, &format!("{}{}", row(1, &id(9)), row(2, "NULL"))).await;
    execute_raw(&database.url, &migration_sql(kind, "00000000000004_audit")).await;
    let entries = table_rows(&database.url, "change_log").await;
    assert!(
        entries.len() == 2 && entries.iter().all(|row| !row.contains("Canary") && row.contains("role")),
        "{entries:?}"
    );
    let labels = table_rows(&database.url, "actor_labels").await;
    assert!(labels[0].to_lowercase().replace('-', "").contains("abcd0000000000000000000000000009"), "{labels:?}");
    assert!(!labels[1].to_lowercase().replace('-', "").contains("abcd0000000000000000000000000009"), "{labels:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn both_databases_have_the_same_migrations() {
    let migration_names = |database: &str| {
        let path = format!("{}/../migrations/{database}", env!("CARGO_MANIFEST_DIR"));
        let mut names: Vec<_> = std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    assert_eq!(migration_names("postgres"), migration_names("sqlite"));
    assert!(!migration_names("postgres").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn reverting_all_migrations_leaves_no_tables_or_functions() {
    let database = Database::empty(DatabaseKind::Postgres).await;
    database.store().await.migrate().await.unwrap();
    migrate_down(&database.database_url()).await.unwrap();
    let remaining = "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'
                UNION ALL SELECT routine_name FROM information_schema.routines WHERE routine_schema = 'public'";
    let remaining: Vec<_> = query_postgres(&database.url, remaining).await.into_iter().flatten().collect();
    assert_eq!(remaining, ["__diesel_schema_migrations"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn override_table_matches_the_product_specification() {
    let database = Database::migrated(DatabaseKind::Postgres).await;
    let columns = "SELECT concat_ws(' ', column_name, data_type, character_maximum_length, is_nullable, column_default)
                   FROM information_schema.columns WHERE table_name = 'user_flag_overrides' ORDER BY ordinal_position";
    let columns: Vec<_> = query_postgres(&database.url, columns).await.into_iter().flatten().collect();
    assert_eq!(
        columns,
        [
            "id uuid NO gen_random_uuid()",
            "user_id uuid NO",
            "flag_name character varying 255 NO",
            "override_value jsonb NO",
            "enabled boolean YES true",
            "reason character varying 500 YES",
            "created_by character varying 255 NO",
            "created_at timestamp with time zone YES now()",
            "updated_at timestamp with time zone YES now()",
            "expires_at timestamp with time zone YES",
            "revision bigint NO 0",
        ]
    );
    let indexes = "SELECT indexdef FROM pg_indexes WHERE tablename = 'user_flag_overrides'";
    let indexes: Vec<_> = query_postgres(&database.url, indexes).await.into_iter().flatten().collect();
    for expected in [
        "CREATE UNIQUE INDEX user_flag_overrides_user_id_flag_name_key ON public.user_flag_overrides USING btree (user_id, flag_name)",
        "CREATE INDEX idx_user_flag_overrides_user ON public.user_flag_overrides USING btree (user_id)",
        "CREATE INDEX idx_user_flag_overrides_flag ON public.user_flag_overrides USING btree (flag_name)",
        "CREATE INDEX idx_user_flag_overrides_expires ON public.user_flag_overrides USING btree (expires_at) WHERE (expires_at IS NOT NULL)",
    ] {
        assert!(indexes.iter().any(|index| index == expected), "{expected} is not among {indexes:?}");
    }
    let foreign_keys = "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = 'user_flag_overrides'::regclass AND contype = 'f'";
    let foreign_keys: Vec<_> = query_postgres(&database.url, foreign_keys).await.into_iter().flatten().collect();
    assert_eq!(foreign_keys, ["FOREIGN KEY (user_id) REFERENCES users(id) ON DELETE CASCADE"]);
}
