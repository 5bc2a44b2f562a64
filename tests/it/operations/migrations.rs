//! Migrations: up, down, up again, on both; and the specification's table, column by column.

use flags_store::migrate_down;

use flags_tests::{
    database::{Database, Kind, query, rows, tamper},
    on_both_databases,
};

on_both_databases! {
    migrations_go_up_and_down_and_up_again,
    programs_that_start_together_migrate_one_after_the_other,
    the_names_of_tokens_leave_the_log_and_their_labels_know_their_users,
}

async fn migrations_go_up_and_down_and_up_again(kind: Kind) {
    let database = Database::empty(kind).await;
    let store = database.store().await;
    assert!(!store.is_migrated().await.unwrap());
    let applied = store.migrate().await.unwrap();
    assert!(!applied.is_empty());
    assert!(store.is_migrated().await.unwrap());
    assert!(store.migrate().await.unwrap().is_empty(), "nothing is applied twice");
    let reverted = migrate_down(&database.database_url()).await.unwrap();
    assert_eq!(reverted.len(), applied.len());
    assert!(!store.is_migrated().await.unwrap());
    assert_eq!(store.migrate().await.unwrap(), applied);
    let mut conn = store.conn().await.unwrap();
    assert_eq!(flags_store::change_log::head(&mut conn).await.unwrap().number, 0);
}

async fn programs_that_start_together_migrate_one_after_the_other(kind: Kind) {
    let database = Database::empty(kind).await;
    let (one, two) = (database.store().await, database.store().await);
    let one = tokio::spawn(async move { one.migrate().await });
    let two = tokio::spawn(async move { two.migrate().await });
    let (one, two) = (one.await.unwrap().unwrap(), two.await.unwrap().unwrap());
    assert_ne!(one.is_empty(), two.is_empty(), "{one:?} {two:?}");
}

/// The SQL of a migration.
fn up(kind: Kind, name: &str) -> String {
    let database = if kind == Kind::Postgres { "postgres" } else { "sqlite" };
    let path = format!("{}/../migrations/{database}/{name}/up.sql", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(path).unwrap()
}

async fn the_names_of_tokens_leave_the_log_and_their_labels_know_their_users(kind: Kind) {
    let database = Database::empty(kind).await;
    for name in ["00000000000001_foundation", "00000000000002_real_time"] {
        tamper(&database.url, &up(kind, name)).await;
    }
    // A token of a user who is gone, and one of nobody.
    let id = |digit: u128| {
        let id = uuid::Uuid::from_u128(0xabcd_0000_0000_0000_0000_0000_0000_0000 + digit);
        if kind == Kind::Postgres { format!("'{id}'") } else { format!("x'{}'", id.simple()) }
    };
    let actor = |digit: u128| format!("'token:abcd0000-0000-0000-0000-00000000000{digit}'");
    let at = if kind == Kind::Postgres { "now()" } else { "0" };
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
    tamper(&database.url, &format!("{}{}", row(1, &id(9)), row(2, "NULL"))).await;
    tamper(&database.url, &up(kind, "00000000000004_audit")).await;
    let log = rows(&database.url, "change_log").await;
    assert!(log.len() == 2 && log.iter().all(|row| !row.contains("Canary") && row.contains("role")), "{log:?}");
    let labels = rows(&database.url, "actor_labels").await;
    assert!(labels[0].to_lowercase().replace('-', "").contains("abcd0000000000000000000000000009"), "{labels:?}");
    assert!(!labels[1].to_lowercase().replace('-', "").contains("abcd0000000000000000000000000009"), "{labels:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn both_databases_have_the_same_migrations() {
    let folder = |database: &str| {
        let path = format!("{}/../migrations/{database}", env!("CARGO_MANIFEST_DIR"));
        let mut names: Vec<_> = std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    assert_eq!(folder("postgres"), folder("sqlite"));
    assert!(!folder("postgres").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn going_down_leaves_nothing_behind() {
    let database = Database::empty(Kind::Postgres).await;
    database.store().await.migrate().await.unwrap();
    migrate_down(&database.database_url()).await.unwrap();
    let left = "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'
                UNION ALL SELECT routine_name FROM information_schema.routines WHERE routine_schema = 'public'";
    let left: Vec<_> = query(&database.url, left).await.into_iter().flatten().collect();
    assert_eq!(left, ["__diesel_schema_migrations"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_table_of_overrides_is_that_of_the_specification() {
    let database = Database::migrated(Kind::Postgres).await;
    let columns = "SELECT concat_ws(' ', column_name, data_type, character_maximum_length, is_nullable, column_default)
                   FROM information_schema.columns WHERE table_name = 'user_flag_overrides' ORDER BY ordinal_position";
    let columns: Vec<_> = query(&database.url, columns).await.into_iter().flatten().collect();
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
    let indexes: Vec<_> = query(&database.url, indexes).await.into_iter().flatten().collect();
    for expected in [
        "CREATE UNIQUE INDEX user_flag_overrides_user_id_flag_name_key ON public.user_flag_overrides USING btree (user_id, flag_name)",
        "CREATE INDEX idx_user_flag_overrides_user ON public.user_flag_overrides USING btree (user_id)",
        "CREATE INDEX idx_user_flag_overrides_flag ON public.user_flag_overrides USING btree (flag_name)",
        "CREATE INDEX idx_user_flag_overrides_expires ON public.user_flag_overrides USING btree (expires_at) WHERE (expires_at IS NOT NULL)",
    ] {
        assert!(indexes.iter().any(|index| index == expected), "{expected} is not among {indexes:?}");
    }
    let foreign = "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = 'user_flag_overrides'::regclass AND contype = 'f'";
    let foreign: Vec<_> = query(&database.url, foreign).await.into_iter().flatten().collect();
    assert_eq!(foreign, ["FOREIGN KEY (user_id) REFERENCES users(id) ON DELETE CASCADE"]);
}
