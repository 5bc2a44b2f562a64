//! Who may do what: a table that a person reviews, in `tests/permissions.json`, and the document that is made of it.

use std::{collections::BTreeMap, fmt::Write as _, fs};

/// What each kind of caller gets of each operation of the OpenAPI document: `yes`, `401`, or `403` and why.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Table(BTreeMap<String, BTreeMap<String, String>>);

/// The callers, in the order in which people read them.
const COLUMNS: [&str; 12] = [
    "anonymous",
    "user, own",
    "user, other's",
    "user, signed in",
    "viewer",
    "admin",
    "admin, signed in",
    "viewer's token without a user",
    "scope evaluate",
    "expired",
    "revoked",
    "deactivated",
];

impl Table {
    /// The committed one.
    pub fn read() -> Self {
        let path = format!("{}/permissions.json", env!("CARGO_MANIFEST_DIR"));
        let text = fs::read_to_string(path).unwrap_or_else(|_| "{}".to_owned());
        Self(serde_json::from_str(&text).expect("a table"))
    }

    /// Notes what a caller gets.
    pub fn set(&mut self, operation: &str, column: &str, outcome: String) {
        assert!(COLUMNS.contains(&column), "{column}");
        self.0.entry(operation.to_owned()).or_default().insert(column.to_owned(), outcome);
    }

    /// As it is to be committed.
    pub fn to_text(&self) -> String {
        serde_json::to_string_pretty(&self.0).expect("JSON")
    }

    /// As people read it: operations that let the same callers through stand together.
    pub fn to_markdown(&self) -> String {
        let mut kinds: BTreeMap<Vec<&str>, Vec<&str>> = BTreeMap::new();
        for (operation, outcomes) in &self.0 {
            let row = COLUMNS.map(|column| outcomes.get(column).map_or("?", String::as_str)).to_vec();
            kinds.entry(row).or_default().push(operation);
        }
        let mut text = String::from(HEAD);
        let _ = writeln!(text, "| operations | {} |", COLUMNS.join(" | "));
        let _ = writeln!(text, "|---|{}", "---|".repeat(COLUMNS.len()));
        for (row, operations) in kinds {
            let names = operations.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(" ");
            let _ = writeln!(text, "| {names} | {} |", row.join(" | "));
        }
        text
    }
}

const HEAD: &str = "\
# Who may do what

Made of `tests/permissions.json` by `just permissions`; a test calls every operation as everybody and compares. `yes`: let
through, to whatever the operation makes of the request. `401`: no valid credential. `403`: a valid one that may not, and why.

Operations bear their names in the [OpenAPI document](openapi.json). Where a path names a user, \u{201c}own\u{201d} is the caller and
\u{201c}other's\u{201d} somebody else. A caller's role is the lower of their credential's and their user's, looked up live. Callers without
\u{201c}signed in\u{201d} show an API token. `stream_evaluations` looks at nothing but the ticket in its address, which they do not have here.

";
