//! The event stream of the protocol: that one should ask again.

use actix_web::{
    HttpRequest,
    http::Method,
    web::{self, Data},
};
use flags_service::cursor::Cursor;

use super::EvaluationFailureResponse;
use crate::{
    app::App,
    auth::{FollowEvaluations, Require},
    routes::{Routes, reply::HandlerResult},
    streams::{EvaluationStream, EventStream as _, head_only, read_cursor},
};

pub(super) fn routes(routes: &mut Routes) {
    routes.add::<__path_evaluation_stream>(web::to(evaluation_stream));
}

/// Where the client stands: `Last-Event-ID`, which browsers send by themselves, or else `?cursor=`.
fn position(request: &HttpRequest) -> Option<Cursor> {
    if let Some(last) = request.headers().get("Last-Event-ID") {
        return read_cursor(last.to_str().ok());
    }
    let mut parameters = form_urlencoded::parse(request.query_string().as_bytes());
    read_cursor(parameters.find(|(name, _)| name == "cursor").map(|(_, value)| value).as_deref())
}

/// When to evaluate all flags again
///
/// Its address comes with an evaluation of all flags (`eventStreams`). Events `message` (`{"type": "refetchEvaluation",
/// "etag", "lastModified"}`: ask again, with `etag` as `flagConfigEtag`), `heartbeat` every 15 s (`{"revision", "stale"}`),
/// `bye` (`{"reason"}`). The first `message` comes at once, unless the client says where it stands.
#[utoipa::path(
    get, path = "/ofrep/v1/stream", tag = "OpenFeature", operation_id = "stream_evaluations", security(()),
    params(
        ("ticket" = String, Query, description = "As it stands in `eventStreams`; the only credential that counts here"),
        ("cursor" = Option<String>, Query, description = "`id` of the last event seen"),
        ("Last-Event-ID" = Option<String>, Header, description = "The same; goes before `cursor`"),
    ),
    responses((status = 200, body = String, content_type = "text/event-stream"), (status = "default", response = EvaluationFailureResponse)),
)]
async fn evaluation_stream(caller: Require<FollowEvaluations>, app: Data<App>, request: HttpRequest) -> HandlerResult {
    if request.method() == Method::HEAD {
        return Ok(head_only());
    }
    let (ticket, flags) = caller.granted;
    Ok(EvaluationStream::open(&app, ticket, flags, position(&request))?.into_response())
}
