//! Test data that is inserted without the API.

use flags_domain::{FlagName, Instant, UserOverride};
use flags_store::{Store, Tx, overrides, users};
use serde_json::{Map, json};
use uuid::Uuid;

use crate::{app::author, database::execute_raw};

/// Returns an active user with role `user` and no attributes.
pub fn user_record(email: &str, now: Instant) -> users::UserRecord {
    users::UserRecord {
        id: Uuid::now_v7(),
        email: Some(email.to_owned()),
        external_id: None,
        display_name: None,
        role: users::Role::User,
        attributes: Map::new(),
        active: true,
        created_at: now,
        updated_at: now,
        revision: 0,
    }
}

/// Inserts a user and returns the user id.
pub async fn insert_user(tx: &mut Tx, email: &str) -> Uuid {
    let user = user_record(email, tx.now());
    assert_eq!(users::insert(tx, &user).await.unwrap(), None);
    user.id
}

/// Inserts an override with the value `true`, without checking it against the type of the flag.
pub async fn insert_override(tx: &mut Tx, user_id: Uuid, flag: &str, expires_at: Option<Instant>) {
    let new = UserOverride {
        id: Uuid::now_v7(),
        user_id,
        flag_name: FlagName::new(flag).unwrap(),
        override_value: json!(true),
        enabled: None,
        reason: None,
        created_by: "system:test".to_owned(),
        created_at: tx.now(),
        updated_at: tx.now(),
        expires_at,
    };
    assert!(overrides::insert(tx, &new).await.unwrap());
}

/// Inserts `count` users, each with an expired override of the flag `f`.
pub async fn insert_expired_overrides(store: &Store, count: usize) {
    let past = Instant::parse("2020-01-01T00:00:00Z").unwrap();
    let mut tx = store.begin(past).await.unwrap();
    for number in 0..count {
        let user_id = insert_user(&mut tx, &format!("expired{number}@example.com")).await;
        insert_override(&mut tx, user_id, "f", Some(past.plus_micros(1))).await;
    }
    tx.commit(&author()).await.unwrap();
}

/// Appends `count` rows to the change log, four per revision. The column `before` of each row has about `size` bytes.
pub async fn insert_change_log_rows(url: &str, count: usize, size: usize) {
    let (id, at, user) = if url.starts_with("sqlite://") {
        ("randomblob(16)", "1893456000000000", "x'00000000000000000000000000000000'")
    } else {
        ("gen_random_uuid()", "now()", "'00000000-0000-0000-0000-000000000000'::uuid")
    };
    let state = format!(r#"'{{"x": "{}"}}'"#, "a".repeat(size));
    let sql = format!(
        "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < {count} - 1)
         INSERT INTO change_log (revision, ord, id, at, actor, action, entity, entity_id, user_id, before)
         SELECT (SELECT revision FROM log_head) + 1 + i / 4, i % 4, {id}, {at}, 'system:test', 'updated', 'user',
             {user}, {user}, {state} FROM n;
         UPDATE log_head SET revision = (SELECT max(revision) FROM change_log);"
    );
    execute_raw(url, &sql).await;
}

/// Inserts users without the application, up to 50,000 per transaction.
pub async fn bulk_insert_users(url: &str, users: impl IntoIterator<Item = users::UserRecord>) {
    let mut users = users.into_iter().peekable();
    while users.peek().is_some() {
        let mut sql = String::from("BEGIN;");
        for _ in 0..50 {
            let rows: Vec<_> = users.by_ref().take(1_000).map(|user| user_row_sql(url, &user)).collect();
            if !rows.is_empty() {
                sql += "INSERT INTO users (id, handle, handle_key, display_name, role, attributes, active, search_text, \
                        created_at, updated_at) VALUES ";
                sql += &rows.join(",");
                sql += ";";
            }
        }
        execute_raw(url, &(sql + "COMMIT")).await;
    }
}

/// Returns a user as a row of an `INSERT` statement, including the columns that the application derives.
fn user_row_sql(url: &str, user: &users::UserRecord) -> String {
    let quote = |text: &str| format!("'{}'", text.replace('\'', "''"));
    let micros = user.created_at.as_micros();
    let (id, at) = if url.starts_with("sqlite") {
        (format!("x'{}'", user.id.simple()), micros.to_string())
    } else {
        (format!("'{}'", user.id), format!("'{}'", user.created_at))
    };
    let name = user.display_name.as_deref();
    format!(
        "({id},{},{},{},'user','{{}}',true,{},{at},{at})",
        quote(user.handle()),
        quote(&user.handle().to_lowercase()),
        name.map_or("NULL".to_owned(), quote),
        quote(&format!("{}\n{}", user.handle(), name.unwrap_or_default()).to_lowercase()),
    )
}
