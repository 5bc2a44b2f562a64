//! The audit trail as a file, of whatever length.

use actix_web::{
    HttpRequest, HttpResponse,
    http::{Method, header},
    web::{self, Bytes, Data},
};
use flags_service::ServiceError;
use flags_store::audit::{Place, Scope};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use serde::Deserialize;
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{
    Routes,
    audit::{AuditEntry, audit_query},
    reply::HandlerResult,
};
use crate::{
    app::App,
    auth::{Credential, Follows, ReadAuditLog, Require},
    extract::Query,
    problem::ProblemResponse,
};

pub(super) fn routes(routes: &mut Routes) {
    routes.add::<__path_export>(web::to(export));
}

/// In what form the audit log is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ExportFormat {
    /// One entry a line, as in the list.
    #[default]
    Jsonl,
    /// A table with a line of names, for spreadsheets. States are JSON text; a cell that a spreadsheet would take for a
    /// formula begins with an apostrophe.
    Csv,
}

audit_query! {
    /// Which entries, in which form.
    ExportQuery {
        #[serde(default)]
        #[param(inline, value_type = Option<ExportFormat>)]
        format: ExportFormat,
    }
}

/// The audit log as a file, newest first
///
/// All entries up to the moment the export begins. An answer that breaks off before its proper end is not complete.
#[utoipa::path(
    get, path = "/api/admin/audit-log/export", tag = "audit", operation_id = "export_audit_log", params(ExportQuery),
    responses(
        (status = 200, content((AuditEntry = "application/jsonl"), (String = "text/csv"))),
        (status = "default", response = ProblemResponse),
    ),
)]
async fn export(
    caller: Require<ReadAuditLog>,
    app: Data<App>,
    Query(query): Query<ExportQuery>,
    request: HttpRequest,
) -> HandlerResult {
    let format = query.format;
    let scope = app.audit.scope(&query.filter()).await?;
    let mut export = Export { app: (**app).clone(), reader: caller.granted, scope, format, next: Next::Newest };
    // Read before the head goes out: a database that is away still gets a proper answer.
    let first = export.portion().await?;
    let mut response = HttpResponse::Ok();
    let disposition = format!("attachment; filename=\"audit-log.{}\"", format.extension());
    response.content_type(format.media_type()).insert_header((header::CONTENT_DISPOSITION, disposition));
    if request.method() == Method::HEAD {
        return Ok(response.finish());
    }
    let rest = stream::try_unfold(export, async |mut export| {
        if !export.reader.still_allows(Follows::Changes, &export.app).await {
            return Err(ServiceError::Internal("the credential has ended".to_owned()));
        }
        Ok(export.portion().await?.map(|bytes| (bytes, export)))
    });
    // An error ends the connection before the answer has come to its end, so nobody takes it for the whole.
    let rest = rest.inspect_err(|error: &ServiceError| tracing::warn!(%error, "an export of the audit log broke off"));
    Ok(response.streaming(stream::iter(first.map(Ok)).chain(rest)))
}

/// An export on its way, as long as its reader may read it: a position, no copies, and no connection between two portions.
/// The next portion is read when the client has taken the one before.
struct Export {
    app: App,
    reader: Credential,
    scope: Scope,
    format: ExportFormat,
    next: Next,
}

/// Where an export goes on.
#[derive(Clone, Copy)]
enum Next {
    Newest,
    After(Place),
    Nowhere,
}

impl Export {
    /// The next part of the file; `None` at its end.
    async fn portion(&mut self) -> Result<Option<Bytes>, ServiceError> {
        let after = match self.next {
            Next::Newest => None,
            Next::After(place) => Some(place),
            Next::Nowhere => return Ok(None),
        };
        let (entries, has_more) = self.app.audit.portion(&self.scope, after).await?;
        self.next = match entries.last() {
            Some(last) if has_more => Next::After(last.place),
            _ => Next::Nowhere,
        };
        let entries = entries.into_iter().map(AuditEntry::from);
        let written = match self.format {
            ExportFormat::Jsonl => write_lines(entries),
            ExportFormat::Csv => write_table(entries, after.is_none()),
        };
        written.map(|bytes| Some(bytes.into())).map_err(|error| ServiceError::Internal(error.to_string()))
    }
}

type Written = Result<Vec<u8>, Box<dyn std::error::Error>>;

impl ExportFormat {
    const fn extension(self) -> &'static str {
        match self {
            Self::Jsonl => "jsonl",
            Self::Csv => "csv",
        }
    }

    const fn media_type(self) -> &'static str {
        match self {
            Self::Jsonl => "application/jsonl",
            Self::Csv => "text/csv; charset=utf-8",
        }
    }
}

fn write_lines(entries: impl Iterator<Item = AuditEntry>) -> Written {
    let mut out = Vec::new();
    for entry in entries {
        serde_json::to_writer(&mut out, &entry)?;
        out.push(b'\n');
    }
    Ok(out)
}

const COLUMNS: [&str; 16] = [
    "id",
    "revision",
    "at",
    "actor_id",
    "actor_label",
    "action",
    "entity",
    "entity_id",
    "entity_label",
    "flag_name",
    "user_id",
    "user_label",
    "before",
    "after",
    "reason",
    "request_id",
];

fn write_table(entries: impl Iterator<Item = AuditEntry>, with_names: bool) -> Written {
    let mut table = csv::WriterBuilder::new()
        .terminator(csv::Terminator::CRLF)
        // Spreadsheets of some countries part cells by semicolons.
        .quote_style(csv::QuoteStyle::Always)
        .from_writer(Vec::new());
    if with_names {
        table.write_record(COLUMNS)?;
    }
    for entry in entries {
        table.write_record(cells(entry).map(defuse))?;
    }
    Ok(table.into_inner()?)
}

/// In the order of [`COLUMNS`]; what is `null` is empty.
fn cells(entry: AuditEntry) -> [String; 16] {
    let id = |id: Option<Uuid>| id.map_or_else(String::new, |id| id.to_string());
    let state = |state: Option<Value>| state.map_or_else(String::new, |state| state.to_string());
    [
        entry.id.to_string(),
        entry.revision.to_string(),
        entry.at.to_string(),
        entry.actor.id,
        entry.actor.label.unwrap_or_default(),
        entry.action,
        entry.entity,
        id(entry.entity_id),
        entry.entity_label.unwrap_or_default(),
        entry.flag_name.unwrap_or_default(),
        id(entry.user_id),
        entry.user_label.unwrap_or_default(),
        state(entry.before),
        state(entry.after),
        entry.reason.unwrap_or_default(),
        entry.request_id.unwrap_or_default(),
    ]
}

/// Spreadsheets run what begins with one of these signs as a formula (OWASP, CSV injection).
fn defuse(cell: String) -> String {
    const SIGNS: [char; 11] = ['=', '+', '-', '@', '\t', '\r', '\n', '＝', '＋', '－', '＠'];
    if cell.starts_with(SIGNS) { format!("'{cell}") } else { cell }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_cell_is_a_formula() {
        for formula in ["=HYPERLINK(\"http://x\")", "+1", "-1", "@x", "\t=1", "\r=1", "\n=1", "＝1"] {
            assert_eq!(defuse(formula.to_owned()), format!("'{formula}"));
        }
        for text in ["", "a=1", " =1", "{\"a\": -1}", "'=1"] {
            assert_eq!(defuse(text.to_owned()), text);
        }
    }
}
