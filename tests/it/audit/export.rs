//! The audit trail as a file: whole, in both forms, and never a part that looks whole.

use reqwest::Method;
use serde_json::{Value, json};

use flags_tests::{
    app::{TestApp, override_at},
    database::{Kind, tamper},
    eventually, on_both_databases, seed,
};

on_both_databases! {
    an_export_is_the_list_in_both_forms,
    no_cell_is_a_formula,
    a_long_log_is_exported_to_its_end,
    an_export_takes_no_connection_while_its_client_reads_and_breaks_off_rather_than_end_early,
    very_large_states_make_pages_shorter,
}

const LOG: &str = "/api/admin/audit-log";
const EXPORT: &str = "/api/admin/audit-log/export";

/// The list, page by page.
async fn whole(app: &TestApp, query: &str) -> Vec<Value> {
    let (mut all, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = app.admin.get(&format!("{LOG}?limit=200&{query}{cursor}")).await.expect(200).json();
        all.extend(page["items"].as_array().unwrap().iter().cloned());
        let Some(next) = page["next_cursor"].as_str() else { return all };
        cursor = format!("&cursor={next}");
    }
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The entries of a table, in the shape of the list.
fn table(text: &str) -> Vec<Value> {
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let names = reader.headers().unwrap().clone();
    let entry = |record: csv::StringRecord| {
        let mut entry = json!({"actor": {}});
        for (name, cell) in names.iter().zip(&record) {
            let value = match name {
                "revision" => json!(cell.parse::<i64>().unwrap()),
                "before" | "after" if !cell.is_empty() => serde_json::from_str(cell).unwrap(),
                _ if cell.is_empty() => Value::Null,
                _ => json!(cell),
            };
            match name.strip_prefix("actor_") {
                Some(part) => entry["actor"][part] = value,
                None => entry[name] = value,
            }
        }
        entry
    };
    reader.records().map(|record| entry(record.unwrap())).collect()
}

async fn scene(kind: Kind) -> (TestApp, String) {
    let app = TestApp::start(kind).await;
    let (ann, _) = app.user("ann").await;
    for name in ["a", "b"] {
        app.boolean_flag(name).await;
        let body = json!({"override_value": true, "reason": "Zeilen\nund \"Zeichen\", 1; ü"});
        app.admin.put(&override_at(&ann, name), &body).await.expect(201);
    }
    app.admin.delete(&override_at(&ann, "a")).await.expect(204);
    (app, ann)
}

async fn an_export_is_the_list_in_both_forms(kind: Kind) {
    let (app, ann) = scene(kind).await;
    for query in ["", "flag_name=a", "action=deleted", "flag_name=nope", &format!("user_id={ann}&action=created")] {
        let list = whole(&app, query).await;
        let jsonl = app.admin.get(&format!("{EXPORT}?format=jsonl&{query}")).await.expect(200);
        assert_eq!(jsonl.header("content-type"), "application/jsonl");
        assert_eq!(jsonl.header("content-disposition"), "attachment; filename=\"audit-log.jsonl\"");
        assert_eq!(lines(&jsonl.text), list, "{query}");
        let csv = app.admin.get(&format!("{EXPORT}?format=csv&{query}")).await.expect(200);
        assert_eq!(csv.header("content-type"), "text/csv; charset=utf-8");
        assert_eq!(csv.header("content-disposition"), "attachment; filename=\"audit-log.csv\"");
        assert_eq!(csv.header("cache-control"), "no-store");
        assert!(csv.text.starts_with("\"id\",\"revision\",\"at\",\"actor_id\","), "{}", csv.text);
        assert_eq!(table(&csv.text), list, "{query}");
    }
    assert_eq!(lines(&app.admin.get(EXPORT).await.expect(200).text), whole(&app, "").await);
    let head = app.admin.send(Method::HEAD, &format!("{EXPORT}?format=csv"), &[], None).await.expect(200);
    assert!(head.text.is_empty());
    assert_eq!(head.header("content-type"), "text/csv; charset=utf-8");
    assert_eq!(head.header("content-disposition"), "attachment; filename=\"audit-log.csv\"");
    app.admin.send(Method::HEAD, &format!("{EXPORT}?nope"), &[], None).await.expect(422);
}

async fn no_cell_is_a_formula(kind: Kind) {
    let app = TestApp::start(kind).await;
    app.boolean_flag("a").await;
    let (ann, _) = app.user("ann").await;
    let formulas = ["=HYPERLINK(\"http://x\",\"y\")", "+1", "-1", "@x", "\t=1", "\r=1", "a=1", "'=1"];
    for reason in formulas {
        let body = json!({"override_value": true, "reason": reason});
        app.admin.put(&override_at(&ann, "a"), &body).await;
    }
    // An e-mail is a label, and may begin with such a sign as well.
    app.admin.patch(&format!("/api/admin/users/{ann}"), &json!({"email": "=1+1@example.com"})).await.expect(200);
    let csv = app.admin.get(&format!("{EXPORT}?format=csv")).await.expect(200).text;
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
    let exact = lines(&app.admin.get(EXPORT).await.expect(200).text);
    for reason in formulas {
        assert!(exact.iter().any(|entry| entry["reason"] == reason), "{reason:?} is as it was written");
    }
}

async fn a_long_log_is_exported_to_its_end(kind: Kind) {
    let app = TestApp::start(kind).await;
    seed::log_rows(&app.database.url, 10_003, 10).await;
    let exported = lines(&app.admin.get(EXPORT).await.expect(200).text);
    assert_eq!(exported.iter().filter(|entry| entry["actor"]["id"] == "system:test").count(), 10_003 + 1);
    let revisions: Vec<_> = exported.iter().map(|entry| entry["revision"].as_i64().unwrap()).collect();
    assert!(revisions.is_sorted_by(|a, b| a >= b));
    let mut ids: Vec<_> = exported.iter().map(|entry| entry["id"].as_str().unwrap()).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), exported.len(), "none twice");
    let csv = app.admin.get(&format!("{EXPORT}?format=csv&actor=system:test")).await.expect(200).text;
    assert_eq!(table(&csv).len(), 10_004);
    let page = app.admin.get(&format!("{LOG}?limit=1")).await.expect(200).json();
    assert_eq!((&page["total"], &page["total_is_exact"]), (&json!(10_000), &json!(false)));
}

/// More than the sockets between hold.
async fn fill(app: &TestApp) {
    seed::log_rows(&app.database.url, 4_000, 16_000).await;
}

async fn an_export_takes_no_connection_while_its_client_reads_and_breaks_off_rather_than_end_early(kind: Kind) {
    let app = TestApp::start(kind).await;
    fill(&app).await;
    for format in ["jsonl", "csv"] {
        let mut answer = app.admin.open(&format!("{EXPORT}?format={format}")).await;
        assert_eq!(answer.status(), 200);
        let mut read = answer.chunk().await.unwrap().unwrap().len();
        eventually("the connection is given back while the client does not read", async || {
            (app.core.store().pool_use()[0].busy == 0).then_some(())
        })
        .await;
        tamper(&app.database.url, "ALTER TABLE change_log RENAME TO log_away").await;
        let broken_off = loop {
            match answer.chunk().await {
                Ok(Some(bytes)) => read += bytes.len(),
                Ok(None) => break false,
                Err(_) => break true,
            }
        };
        assert!(broken_off, "{read} bytes look like the whole");
        assert!(read < 60_000_000, "{read}");
        // One that has not begun gets a proper answer.
        app.admin.get(EXPORT).await.expect_problem(500, "internal_error");
        tamper(&app.database.url, "ALTER TABLE log_away RENAME TO change_log").await;
        // A client that goes away is forgotten.
        drop(app.admin.open(&format!("{EXPORT}?format={format}")).await);
        eventually("nothing is busy", async || (app.core.store().pool_use()[0].busy == 0).then_some(())).await;
    }
}

async fn very_large_states_make_pages_shorter(kind: Kind) {
    let app = TestApp::start(kind).await;
    seed::log_rows(&app.database.url, 12, 3_000_000).await;
    let page = app.admin.get(&format!("{LOG}?limit=10&actor=system:test")).await.expect(200).json();
    assert_eq!(page["items"].as_array().unwrap().len(), 2);
    assert_eq!(page["total"], 13);
    assert_eq!(whole(&app, "actor=system:test").await.len(), 13);
    assert_eq!(lines(&app.admin.get(EXPORT).await.expect(200).text).len(), whole(&app, "").await.len());
}
