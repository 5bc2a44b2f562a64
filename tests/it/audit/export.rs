//! Export of the audit log as CSV and JSON Lines.

use reqwest::Method;
use serde_json::{Value, json};

use flags_tests::{
    app::{TestApp, override_path},
    database::{DatabaseKind, execute_raw},
    eventually, on_both_databases, seed,
};

use super::{AUDIT_LOG_PATH, EXPORT_PATH};

on_both_databases! {
    csv_and_json_lines_exports_equal_the_list,
    csv_export_escapes_formulas,
    audit_log_with_10000_entries_is_exported_completely,
    slow_export_holds_no_database_connection_and_aborts_on_failure,
    audit_log_pages_contain_fewer_entries_if_entries_are_large,
}

/// Returns all entries of the list by reading page after page.
async fn list_all(app: &TestApp, query: &str) -> Vec<Value> {
    let (mut entries, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = app.admin.get(&format!("{AUDIT_LOG_PATH}?limit=200&{query}{cursor}")).await.expect(200).json();
        entries.extend(page["items"].as_array().unwrap().iter().cloned());
        let Some(next) = page["next_cursor"].as_str() else { return entries };
        cursor = format!("&cursor={next}");
    }
}

fn parse_jsonl(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Parses a CSV export into entries of the shape that the list returns.
fn parse_csv(text: &str) -> Vec<Value> {
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let headers = reader.headers().unwrap().clone();
    let parse_record = |record: csv::StringRecord| {
        let mut entry = json!({"actor": {}});
        for (header, cell) in headers.iter().zip(&record) {
            let value = match header {
                "revision" => json!(cell.parse::<i64>().unwrap()),
                "before" | "after" if !cell.is_empty() => serde_json::from_str(cell).unwrap(),
                _ if cell.is_empty() => Value::Null,
                _ => json!(cell),
            };
            match header.strip_prefix("actor_") {
                Some(field) => entry["actor"][field] = value,
                None => entry[header] = value,
            }
        }
        entry
    };
    reader.records().map(|record| parse_record(record.unwrap())).collect()
}

/// Starts an application with some audit-log entries. Returns it and the id of the user "ann".
async fn app_with_history(kind: DatabaseKind) -> (TestApp, String) {
    let app = TestApp::start(kind).await;
    let (ann_id, _) = app.create_user("ann").await;
    for name in ["a", "b"] {
        app.create_boolean_flag(name).await;
        let body = json!({"override_value": true, "reason": "two\nlines, \"quotes\", 1; ü"});
        app.admin.put(&override_path(&ann_id, name), &body).await.expect(201);
    }
    app.admin.delete(&override_path(&ann_id, "a")).await.expect(204);
    (app, ann_id)
}

async fn csv_and_json_lines_exports_equal_the_list(kind: DatabaseKind) {
    let (app, ann_id) = app_with_history(kind).await;
    for query in ["", "flag_name=a", "action=deleted", "flag_name=nope", &format!("user_id={ann_id}&action=created")] {
        let list = list_all(&app, query).await;
        let jsonl = app.admin.get(&format!("{EXPORT_PATH}?format=jsonl&{query}")).await.expect(200);
        assert_eq!(jsonl.header("content-type"), "application/jsonl");
        assert_eq!(jsonl.header("content-disposition"), "attachment; filename=\"audit-log.jsonl\"");
        assert_eq!(parse_jsonl(&jsonl.text), list, "{query}");
        let csv = app.admin.get(&format!("{EXPORT_PATH}?format=csv&{query}")).await.expect(200);
        assert_eq!(csv.header("content-type"), "text/csv; charset=utf-8");
        assert_eq!(csv.header("content-disposition"), "attachment; filename=\"audit-log.csv\"");
        assert_eq!(csv.header("cache-control"), "no-store");
        assert!(csv.text.starts_with("\"id\",\"revision\",\"at\",\"actor_id\","), "{}", csv.text);
        assert_eq!(parse_csv(&csv.text), list, "{query}");
    }
    assert_eq!(parse_jsonl(&app.admin.get(EXPORT_PATH).await.expect(200).text), list_all(&app, "").await);
    let head = app.admin.send(Method::HEAD, &format!("{EXPORT_PATH}?format=csv"), &[], None).await.expect(200);
    assert!(head.text.is_empty());
    assert_eq!(head.header("content-type"), "text/csv; charset=utf-8");
    assert_eq!(head.header("content-disposition"), "attachment; filename=\"audit-log.csv\"");
    app.admin.send(Method::HEAD, &format!("{EXPORT_PATH}?nope"), &[], None).await.expect(422);
}

async fn csv_export_escapes_formulas(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    app.create_boolean_flag("a").await;
    let (ann_id, _) = app.create_user("ann").await;
    let formulas = ["=HYPERLINK(\"http://x\",\"y\")", "+1", "-1", "@x", "\t=1", "\r=1", "a=1", "'=1"];
    for reason in formulas {
        let body = json!({"override_value": true, "reason": reason});
        app.admin.put(&override_path(&ann_id, "a"), &body).await;
    }
    // The export also contains e-mails as labels, and an e-mail can begin with `=`.
    app.admin.patch(&format!("/api/admin/users/{ann_id}"), &json!({"email": "=1+1@example.com"})).await.expect(200);
    let csv = app.admin.get(&format!("{EXPORT_PATH}?format=csv")).await.expect(200).text;
    let mut cells = Vec::new();
    for record in csv::Reader::from_reader(csv.as_bytes()).records() {
        let record = record.unwrap();
        assert!(record.iter().all(|cell| !cell.starts_with(['=', '+', '-', '@', '\t', '\r'])), "{record:?}");
        cells.extend(record.iter().map(ToOwned::to_owned));
    }
    for formula in &formulas[..6] {
        assert!(cells.contains(&format!("'{formula}")), "{formula:?}");
    }
    for text in ["a=1", "'=1", "'=1+1@example.com"] {
        assert!(cells.contains(&text.to_owned()), "{text}");
    }
    let entries = parse_jsonl(&app.admin.get(EXPORT_PATH).await.expect(200).text);
    for reason in formulas {
        assert!(entries.iter().any(|entry| entry["reason"] == reason), "JSON Lines must keep {reason:?} unchanged");
    }
}

async fn audit_log_with_10000_entries_is_exported_completely(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    seed::insert_change_log_rows(&app.database.url, 10_003, 10).await;
    let exported = parse_jsonl(&app.admin.get(EXPORT_PATH).await.expect(200).text);
    assert_eq!(exported.iter().filter(|entry| entry["actor"]["id"] == "system:test").count(), 10_003 + 1);
    let revisions: Vec<_> = exported.iter().map(|entry| entry["revision"].as_i64().unwrap()).collect();
    assert!(revisions.is_sorted_by(|a, b| a >= b));
    let mut ids: Vec<_> = exported.iter().map(|entry| entry["id"].as_str().unwrap()).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), exported.len(), "no entry is exported twice");
    let csv = app.admin.get(&format!("{EXPORT_PATH}?format=csv&actor=system:test")).await.expect(200).text;
    assert_eq!(parse_csv(&csv).len(), 10_004);
    let page = app.admin.get(&format!("{AUDIT_LOG_PATH}?limit=1")).await.expect(200).json();
    assert_eq!((&page["total"], &page["total_is_exact"]), (&json!(10_000), &json!(false)));
}

/// Appends 64 MB of change-log entries, more than the socket buffers can hold.
async fn fill_change_log(app: &TestApp) {
    seed::insert_change_log_rows(&app.database.url, 4_000, 16_000).await;
}

async fn slow_export_holds_no_database_connection_and_aborts_on_failure(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    fill_change_log(&app).await;
    for format in ["jsonl", "csv"] {
        let mut response = app.admin.open_response(&format!("{EXPORT_PATH}?format={format}")).await;
        assert_eq!(response.status(), 200);
        let mut read = response.chunk().await.unwrap().unwrap().len();
        eventually("the database connection is returned to the pool while the client does not read", async || {
            (app.core.store().pool_usage()[0].busy == 0).then_some(())
        })
        .await;
        execute_raw(&app.database.url, "ALTER TABLE change_log RENAME TO change_log_renamed").await;
        let aborted = loop {
            match response.chunk().await {
                Ok(Some(bytes)) => read += bytes.len(),
                Ok(None) => break false,
                Err(_) => break true,
            }
        };
        assert!(aborted, "the response ended normally after {read} bytes although the export is incomplete");
        assert!(read < 60_000_000, "{read}");
        // An export that fails before its first byte returns a problem document.
        app.admin.get(EXPORT_PATH).await.expect_problem(500, "internal_error");
        execute_raw(&app.database.url, "ALTER TABLE change_log_renamed RENAME TO change_log").await;
        // The server also returns the connection to the pool when the client disconnects.
        drop(app.admin.open_response(&format!("{EXPORT_PATH}?format={format}")).await);
        eventually("no database connection is in use", async || {
            (app.core.store().pool_usage()[0].busy == 0).then_some(())
        })
        .await;
    }
}

async fn audit_log_pages_contain_fewer_entries_if_entries_are_large(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    seed::insert_change_log_rows(&app.database.url, 12, 3_000_000).await;
    let page = app.admin.get(&format!("{AUDIT_LOG_PATH}?limit=10&actor=system:test")).await.expect(200).json();
    assert_eq!(page["items"].as_array().unwrap().len(), 2);
    assert_eq!(page["total"], 13);
    assert_eq!(list_all(&app, "actor=system:test").await.len(), 13);
    assert_eq!(parse_jsonl(&app.admin.get(EXPORT_PATH).await.expect(200).text).len(), list_all(&app, "").await.len());
}
