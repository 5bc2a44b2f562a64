//! The permission table `tests/permissions.json`, which is reviewed on every change, and the document generated from
//! it.

use std::{collections::BTreeMap, fmt::Write as _, fs};

/// Outcome for each operation of the OpenAPI document and each caller: `allowed`, `401`, or `403` with the problem
/// code.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct PermissionTable(BTreeMap<String, BTreeMap<String, String>>);

/// Outcome of an operation that the caller may call.
pub const ALLOWED: &str = "allowed";

/// The callers, in the order of the document.
const CALLERS: [&str; 15] = [
    "anonymous",
    "user token (own data)",
    "user token (data of another user)",
    "user session",
    "viewer token",
    "viewer token without user",
    "support token",
    "support session",
    "admin token",
    "admin session",
    "evaluate token",
    "JWT of an unknown user",
    "expired token",
    "revoked token",
    "token of a deactivated user",
];

/// The callers that the server treats as unauthenticated.
const WITHOUT_VALID_CREDENTIAL: [&str; 4] =
    ["anonymous", "expired token", "revoked token", "token of a deactivated user"];

const INTRODUCTION: &str = "\
# Permissions

This page lists which callers may call each operation of the API. `just permissions` generates it from
`tests/permissions.json`. A test calls every operation with every kind of caller and compares the outcome with that
file.

Operations have the names of the [OpenAPI document](openapi.json). Operations with the same permissions share a
section.

Callers:

- anonymous: sends no credential.
- token, session: authenticated with an API token or with the session cookie.
- user, viewer, support, admin: the role. If a token acts as a user, the lower of the two roles applies.
- support: changes overrides of users whose role is `user`; for other users, changes of overrides are 403
  `user_not_permitted`. The table was recorded with users whose role is `user`.
- own data, data of another user: the user that the path names, if the path names one.
- viewer token without user: a token with role viewer that acts as no user. All other tokens of users, viewers,
  support and admins act as a user.
- evaluate token: a token with scope `evaluate`.
- JWT of an unknown user: a JWT whose subject no stored user has, at a server with `--jwt-users any`.
- expired token, revoked token, token of a deactivated user: tokens with role admin that are no longer valid.

Outcomes:

- allowed: the server processes the request. The response depends on the operation.
- 401: the request has no valid credential.
- 403: the credential is valid, but does not permit the operation. The problem code or OFREP error code follows.

`stream_evaluations` accepts only a stream token in its URL, so the credentials of this page do not permit it.
";

impl PermissionTable {
    /// Reads the committed table. A missing file is an empty table.
    pub fn read() -> Self {
        let path = format!("{}/permissions.json", env!("CARGO_MANIFEST_DIR"));
        let text = fs::read_to_string(path).unwrap_or_else(|_| "{}".to_owned());
        Self(serde_json::from_str(&text).expect("tests/permissions.json is valid"))
    }

    /// Records the outcome of one call.
    pub fn set(&mut self, operation: &str, caller: &str, outcome: String) {
        assert!(CALLERS.contains(&caller), "unknown caller {caller}");
        self.0.entry(operation.to_owned()).or_default().insert(caller.to_owned(), outcome);
    }

    /// Whether the caller may call the operation. Panics if the table does not contain both.
    pub fn is_allowed(&self, operation: &str, caller: &str) -> bool {
        self.0[operation][caller] == ALLOWED
    }

    /// Returns the table in the format of `tests/permissions.json`.
    pub fn to_text(&self) -> String {
        serde_json::to_string_pretty(&self.0).expect("table can be serialized")
    }

    /// Returns `docs/permissions.md`: a section for each set of operations with the same outcomes.
    pub fn to_markdown(&self) -> String {
        let mut groups: BTreeMap<Vec<&str>, Vec<&str>> = BTreeMap::new();
        for (operation, outcomes) in &self.0 {
            let row = CALLERS.map(|caller| outcomes.get(caller).map_or("unknown", String::as_str)).to_vec();
            groups.entry(row).or_default().push(operation);
        }
        let mut text = String::from(INTRODUCTION);
        // `allowed` sorts after `401` and `403`, so the reverse order starts with the operations that most callers may
        // call.
        for (row, operations) in groups.iter().rev() {
            let _ = write!(text, "\n## {}\n\n", title(row));
            let names: Vec<_> = operations.iter().map(|name| format!("`{name}`")).collect();
            write_wrapped(&mut text, "", &format!("Operations: {}.", names.join(", ")));
            text.push('\n');
            let mut outcomes: Vec<&str> = row.clone();
            outcomes.sort_unstable_by(|a, b| b.cmp(a));
            outcomes.dedup();
            for outcome in outcomes {
                let callers = callers_with_outcome(row, |other| other == outcome).join(", ");
                let outcome = outcome.strip_prefix("403 ").map_or(outcome.to_owned(), |code| format!("403 `{code}`"));
                write_wrapped(&mut text, "  ", &format!("- {outcome}: {callers}"));
            }
        }
        text
    }
}

/// Title of a section. Callers without a valid credential are named only as a group.
fn title(row: &[&str]) -> String {
    let allowed = callers_with_outcome(row, |outcome| outcome == ALLOWED);
    let mut refused = callers_with_outcome(row, |outcome| outcome != ALLOWED);
    match (allowed.len(), refused.len()) {
        (_, 0) => return "All callers".to_owned(),
        (0, _) => return "None of these callers".to_owned(),
        _ => refused.retain(|caller| !WITHOUT_VALID_CREDENTIAL.contains(caller)),
    }
    if refused.is_empty() {
        "All authenticated callers".to_owned()
    } else if refused.len() < allowed.len() {
        format!("All authenticated callers except {}", join_in_title(&refused))
    } else {
        format!("Only {}", join_in_title(&allowed))
    }
}

/// Joins callers. Abbreviates them, because a title is a single line.
fn join_in_title(callers: &[&str]) -> String {
    callers.join(", ").replace("user token (own data), user token (data of another user)", "user tokens")
}

fn callers_with_outcome(row: &[&str], predicate: impl Fn(&str) -> bool) -> Vec<&'static str> {
    CALLERS.iter().zip(row).filter(|(_, outcome)| predicate(outcome)).map(|(caller, _)| *caller).collect()
}

/// Appends a paragraph wrapped at 118 columns. `indent` starts all lines except the first.
fn write_wrapped(text: &mut String, indent: &str, paragraph: &str) {
    let mut column = 0;
    for (index, word) in paragraph.split(' ').enumerate() {
        if index > 0 && column + 1 + word.len() > 118 {
            text.push('\n');
            text.push_str(indent);
            column = indent.len();
        } else if index > 0 {
            text.push(' ');
            column += 1;
        }
        text.push_str(word);
        column += word.len();
    }
    text.push('\n');
}
