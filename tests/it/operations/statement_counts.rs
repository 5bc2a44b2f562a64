//! Number of SQL statements per command on PostgreSQL.
//!
//! Each statement is a round trip to the database, and a transaction keeps its locks during all of them.

use std::{collections::HashMap, fmt::Write as _, fs};

use serde_json::{Value, json};

use flags_tests::{
    app::{TestApp, override_path, user_overrides_path},
    cluster,
    database::{Database, DatabaseKind, execute_postgres},
};
use reqwest::Method;

/// Number of statements of each command, including `BEGIN`, `COMMIT` and the check of the caller's credential.
const EXPECTED: &[(&str, usize)] = &[
    ("create user", 8),
    ("patch user", 11),
    ("create flag", 10),
    ("patch flag", 10),
    ("create scheduled change", 9),
    ("cancel scheduled change", 9),
    ("create override", 10),
    ("replace override", 10),
    ("patch override", 10),
    ("delete override", 7),
    ("create override with idempotency key", 13),
    ("change 10 overrides in bulk", 18),
    ("create token", 9),
    ("archive flag", 10),
    ("delete user with one override and one token", 14),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_command_executes_the_expected_number_of_sql_statements() {
    let (app, mut log) = start_with_statement_log().await;
    let mut counts = Vec::new();
    let mut report = String::new();
    let mut record = |name: &'static str, statements: Vec<String>| {
        counts.push((name, statements.len()));
        writeln!(report, "{name}: {}\n    {}", statements.len(), statements.join("\n    ")).unwrap();
    };

    let user = json!({"email": "ann@example.com", "attributes": {"plan": "pro"}});
    let ann = app.admin.post("/api/admin/users", &user).await.expect(201).json();
    record("create user", log.next_transaction());
    let user_path = format!("/api/admin/users/{}", ann["id"].as_str().unwrap());
    app.admin.patch(&user_path, &json!({"display_name": "Ann"})).await.expect(200);
    record("patch user", log.next_transaction());

    app.create_flag(json!({"name": "f", "flag_type": "boolean"})).await;
    record("create flag", log.next_transaction());
    let flag_path = "/api/admin/feature-flags/f";
    app.admin.patch(flag_path, &json!({"description": "A flag"})).await.expect(200);
    record("patch flag", log.next_transaction());

    let change = json!({"scheduled_at": "2031-01-01T00:00:00Z", "enabled": false});
    let change = app.admin.post(&format!("{flag_path}/scheduled-changes"), &change).await.expect(201).json();
    record("create scheduled change", log.next_transaction());
    let cancel = format!("{flag_path}/scheduled-changes/{}/cancel", change["id"].as_str().unwrap());
    app.admin.post(&cancel, &Value::Null).await.expect(200);
    record("cancel scheduled change", log.next_transaction());

    let ann_id = ann["id"].as_str().unwrap();
    let new_override = json!({"flag_name": "f", "override_value": true});
    app.admin.post(&user_overrides_path(ann_id), &new_override).await.expect(201);
    record("create override", log.next_transaction());
    let path = override_path(ann_id, "f");
    app.admin.put(&path, &json!({"override_value": false})).await.expect(200);
    record("replace override", log.next_transaction());
    app.admin.patch(&path, &json!({"enabled": false})).await.expect(200);
    record("patch override", log.next_transaction());
    app.admin.delete(&path).await.expect(204);
    record("delete override", log.next_transaction());
    let key = [("idempotency-key", "1")];
    app.admin.send_json(Method::POST, &user_overrides_path(ann_id), &key, &new_override).await.expect(201);
    record("create override with idempotency key", log.next_transaction());

    let ids = create_overrides(&app, 10).await;
    log.skip();
    let bulk = json!({"action": "disable", "ids": ids});
    app.admin.post("/api/admin/flag-overrides/bulk", &bulk).await.expect(200);
    record("change 10 overrides in bulk", log.next_transaction());

    let token = json!({"name": "laptop", "role": "user", "user_id": ann_id});
    app.admin.post("/api/admin/api-tokens", &token).await.expect(201);
    record("create token", log.next_transaction());
    app.admin.post(&format!("{flag_path}/archive"), &Value::Null).await.expect(200);
    record("archive flag", log.next_transaction());
    app.admin.delete(&user_path).await.expect(204);
    record("delete user with one override and one token", log.next_transaction());

    assert_eq!(counts, EXPECTED, "\n{report}");
}

/// Creates a user for each of `count` overrides, and returns the ids of the overrides.
async fn create_overrides(app: &TestApp, count: usize) -> Vec<Value> {
    let mut ids = Vec::new();
    for number in 0..count {
        let (user_id, _) = app.create_user(&format!("user{number}")).await;
        let body = json!({"flag_name": "f", "override_value": true});
        ids.push(app.admin.post(&user_overrides_path(&user_id), &body).await.expect(201).json()["id"].clone());
    }
    ids
}

/// Starts an application on a database that logs all statements.
async fn start_with_statement_log() -> (TestApp, StatementLog) {
    let database = Database::migrated(DatabaseKind::Postgres).await;
    let (_, name) = database.url.rsplit_once('/').unwrap();
    execute_postgres(&database.url, &format!("ALTER DATABASE {name} SET log_statement = 'all'")).await;
    let app = TestApp::start_on(database).await;
    let mut log = StatementLog { position: 0 };
    log.skip();
    (app, log)
}

/// Reader of the server log of the shared cluster. Only the database of this test logs statements.
struct StatementLog {
    position: usize,
}

impl StatementLog {
    fn read(&mut self) -> String {
        let log = fs::read(cluster::shared().socket().with_file_name("log")).unwrap();
        let new = String::from_utf8_lossy(&log[self.position..]).into_owned();
        self.position = log.len();
        new
    }

    /// Ignores everything that was logged so far.
    fn skip(&mut self) {
        self.read();
    }

    /// Returns the statements of the only write transaction since the last call.
    ///
    /// Other statements, such as those of the change feed, do not run between `BEGIN` and `COMMIT` of their session.
    fn next_transaction(&mut self) -> Vec<String> {
        let mut open: HashMap<String, Vec<String>> = HashMap::new();
        let mut finished = Vec::new();
        for (session, statement) in self.read().lines().filter_map(parse_line) {
            if statement == "BEGIN" {
                open.insert(session.to_owned(), Vec::new());
            }
            let Some(statements) = open.get_mut(session) else { continue };
            statements.push(statement.to_owned());
            if ["COMMIT", "ROLLBACK"].contains(&statement) {
                finished.extend(open.remove(session));
            }
        }
        assert!(open.is_empty() && finished.len() == 1, "expected one transaction: {finished:#?}, open: {open:#?}");
        finished.remove(0)
    }
}

/// Returns the process id of the session and the statement, if the line contains one.
fn parse_line(line: &str) -> Option<(&str, &str)> {
    let (_, rest) = line.split_once('[')?;
    let (session, rest) = rest.split_once("] LOG:  ")?;
    let simple = rest.strip_prefix("statement: ");
    let statement = simple.or_else(|| rest.strip_prefix("execute ").and_then(|rest| Some(rest.split_once(": ")?.1)))?;
    Some((session, statement))
}
