//! Export of the audit log as a file, streamed in chunks.

use actix_web::{
    HttpRequest, HttpResponse,
    http::{Method, header},
    web::{self, Bytes, Data},
};
use flags_service::ServiceError;
use flags_store::audit::{AuditPosition, AuditRange};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use serde::Deserialize;
use tracing::Span;
use utoipa::ToSchema;

use super::{
    audit::{AuditEntryResponse, audit_query},
    reply::HandlerResult,
};
use crate::{
    auth::{Credential, ReadAuditLog, Require, StreamSubject},
    extract::Query,
    problem::ProblemResponse,
    route_facts::RouteFacts,
    route_registry::RouteRegistry,
    state::App,
};

pub(super) fn routes(routes: &mut RouteRegistry) {
    routes.add::<__path_export>(web::to(export), RouteFacts::api());
}

/// File format of an audit log export.
///
/// - `jsonl`: one JSON object per line, with the fields of `AuditEntryResponse`
/// - `csv`: a header line and one line per entry; `before` and `after` are JSON text; a cell that a spreadsheet would
///   treat as a formula is prefixed with an apostrophe
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ExportFormat {
    #[default]
    Jsonl,
    Csv,
}

audit_query! {
    /// Filters and file format.
    ExportAuditLogQuery {
        /// File format. Default: `jsonl`.
        #[serde(default)]
        #[param(inline, value_type = Option<ExportFormat>)]
        format: ExportFormat,
    }
}

/// Export the audit log
///
/// Returns the entries that existed when the export began, newest first. If the server closes the connection before the
/// end of the response, the file is incomplete.
#[utoipa::path(
    get, path = "/api/admin/audit-log/export", tag = "audit", operation_id = "export_audit_log",
    params(ExportAuditLogQuery),
    responses(
        (status = 200, content((AuditEntryResponse = "application/jsonl"), (String = "text/csv"))),
        (status = "default", response = ProblemResponse),
    ),
)]
async fn export(
    caller: Require<ReadAuditLog>,
    app: Data<App>,
    Query(query): Query<ExportAuditLogQuery>,
    request: HttpRequest,
) -> HandlerResult {
    let format = query.format;
    let range = app.audit.find_range(&query.filter()).await?;
    let mut export = Export { app: (**app).clone(), credential: caller.granted, range, format, next: Next::Start };
    // Read the first chunk before the response begins, so that a database outage still yields an error response.
    let first = export.next_chunk().await?;
    let mut response = HttpResponse::Ok();
    let disposition = format!("attachment; filename=\"audit-log.{}\"", format.extension());
    response.content_type(format.media_type()).insert_header((header::CONTENT_DISPOSITION, disposition));
    if request.method() == Method::HEAD {
        return Ok(response.finish());
    }
    let rest = stream::try_unfold(export, async |mut export| {
        export.check_permission().await?;
        Ok(export.next_chunk().await?.map(|bytes| (bytes, export)))
    });
    // An error closes the connection before the final chunk of the response, so clients detect that it is incomplete.
    let span = Span::current();
    let rest = rest.inspect_err(move |error: &ServiceError| {
        span.in_scope(|| tracing::warn!(%error, "audit log export aborted"));
    });
    Ok(response.streaming(stream::iter(first.map(Ok)).chain(rest)))
}

/// State of a running export.
///
/// Between two chunks an export holds only a position: no entries and no database connection. It reads the next chunk
/// when the client has received the previous one.
struct Export {
    app: App,
    credential: Credential,
    range: AuditRange,
    format: ExportFormat,
    next: Next,
}

/// Position of the next chunk.
#[derive(Clone, Copy)]
enum Next {
    Start,
    After(AuditPosition),
    End,
}

impl Export {
    /// Fails if the caller may no longer read the audit log.
    async fn check_permission(&self) -> Result<(), ServiceError> {
        if self.credential.is_still_allowed(StreamSubject::Changes, &self.app).await {
            return Ok(());
        }
        let cause = "the credential is no longer valid or no longer permits the export";
        Err(ServiceError::Internal(cause.to_owned()))
    }

    /// Returns the next chunk of the file, or `None` at the end.
    async fn next_chunk(&mut self) -> Result<Option<Bytes>, ServiceError> {
        let after = match self.next {
            Next::Start => None,
            Next::After(position) => Some(position),
            Next::End => return Ok(None),
        };
        let (entries, has_more) = self.app.audit.read_export_batch(&self.range, after).await?;
        self.next = match entries.last() {
            Some(last) if has_more => Next::After(last.position),
            _ => Next::End,
        };
        let entries = entries.into_iter().map(AuditEntryResponse::from);
        let chunk = match self.format {
            ExportFormat::Jsonl => write_jsonl(entries),
            ExportFormat::Csv => write_csv(entries, after.is_none()),
        };
        chunk.map(|bytes| Some(bytes.into())).map_err(|error| ServiceError::Internal(error.to_string()))
    }
}

type ChunkResult = Result<Vec<u8>, Box<dyn std::error::Error>>;

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

fn write_jsonl(entries: impl Iterator<Item = AuditEntryResponse>) -> ChunkResult {
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

fn write_csv(entries: impl Iterator<Item = AuditEntryResponse>, with_header: bool) -> ChunkResult {
    let mut writer = csv::WriterBuilder::new()
        .terminator(csv::Terminator::CRLF)
        // Quotes every cell, because spreadsheets split unquoted cells at semicolons in some locales.
        .quote_style(csv::QuoteStyle::Always)
        .from_writer(Vec::new());
    if with_header {
        writer.write_record(COLUMNS)?;
    }
    for entry in entries {
        writer.write_record(cells(entry).map(escape_formula))?;
    }
    Ok(writer.into_inner()?)
}

/// Returns the cells of an entry in the order of [`COLUMNS`]. `null` becomes an empty cell.
fn cells(entry: AuditEntryResponse) -> [String; 16] {
    [
        entry.id.to_string(),
        entry.revision.to_string(),
        entry.at.to_string(),
        entry.actor.id,
        entry.actor.label.unwrap_or_default(),
        entry.action,
        entry.entity,
        cell(entry.entity_id),
        entry.entity_label.unwrap_or_default(),
        entry.flag_name.unwrap_or_default(),
        cell(entry.user_id),
        entry.user_label.unwrap_or_default(),
        cell(entry.before),
        cell(entry.after),
        entry.reason.unwrap_or_default(),
        entry.request_id.unwrap_or_default(),
    ]
}

fn cell<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(String::new, |value| value.to_string())
}

/// Prefixes a cell with an apostrophe if a spreadsheet would run it as a formula (OWASP, CSV injection).
fn escape_formula(cell: String) -> String {
    const FORMULA_PREFIXES: [char; 11] = ['=', '+', '-', '@', '\t', '\r', '\n', '＝', '＋', '－', '＠'];
    if cell.starts_with(FORMULA_PREFIXES) { format!("'{cell}") } else { cell }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_cells_that_spreadsheets_run_as_formulas() {
        for formula in ["=HYPERLINK(\"http://x\")", "+1", "-1", "@x", "\t=1", "\r=1", "\n=1", "＝1"] {
            assert_eq!(escape_formula(formula.to_owned()), format!("'{formula}"));
        }
        for text in ["", "a=1", " =1", "{\"a\": -1}", "'=1"] {
            assert_eq!(escape_formula(text.to_owned()), text);
        }
    }
}
