//! OFREP event stream, which tells OpenFeature providers when to evaluate again.

use actix_web::{
    HttpRequest,
    http::Method,
    web::{self, Data},
};
use flags_service::stream_position::StreamPosition;

use crate::{
    auth::{Require, StreamEvaluations},
    ofrep_failure::EvaluationFailureResponse,
    route_facts::{Identification, RouteFacts},
    route_registry::RouteRegistry,
    routes::reply::HandlerResult,
    state::App,
    streams::{EvaluationStream, EventStream as _, head_response, parse_position},
};

pub(super) fn routes(routes: &mut RouteRegistry) {
    routes.add::<__path_stream_evaluations>(
        web::to(stream_evaluations),
        RouteFacts::ofrep().identified_by(Identification::StreamToken),
    );
}

/// Stream position to resume after: `Last-Event-ID`, which browsers send automatically, else the `cursor` parameter.
/// Unlike other streams, this one ignores unknown query parameters.
fn resume_position(request: &HttpRequest) -> Option<StreamPosition> {
    if let Some(last) = request.headers().get("Last-Event-ID") {
        return parse_position(last.to_str().ok());
    }
    let mut parameters = form_urlencoded::parse(request.query_string().as_bytes());
    parse_position(parameters.find(|(name, _)| name == "cursor").map(|(_, value)| value).as_deref())
}

/// Stream evaluation changes
///
/// `eventStreams` of a bulk evaluation contains the URL of this stream. Sends server-sent events:
///
/// - `message`: `{"type": "refetchEvaluation", "etag", "lastModified"}`; evaluate all flags again and send `etag` as
///   `flagConfigEtag`
/// - `heartbeat`: `{"revision", "stale"}`, sent every 15 seconds
/// - `bye`: `{"reason"}`; the server closes the stream; reconnect
///
/// The first `message` is sent immediately, unless the client resumes from a stream position.
#[utoipa::path(
    get, path = "/ofrep/v1/stream", tag = "OpenFeature", operation_id = "stream_evaluations", security(()),
    params(
        ("ticket" = String, Query, description = "Stream token from `eventStreams`. Other credentials are ignored"),
        ("cursor" = Option<String>, Query, description = "`id` of the last received event; the stream resumes after it"),
        ("Last-Event-ID" = Option<String>, Header, description = "Same as `cursor`, and takes precedence over it"),
    ),
    responses(
        (status = 200, body = String, content_type = "text/event-stream"),
        (status = "default", response = EvaluationFailureResponse),
    ),
)]
async fn stream_evaluations(caller: Require<StreamEvaluations>, app: Data<App>, request: HttpRequest) -> HandlerResult {
    if request.method() == Method::HEAD {
        return Ok(head_response());
    }
    let (stream_token, visibility) = caller.granted;
    Ok(EvaluationStream::open(&app, stream_token, visibility, resume_position(&request))?.into_response())
}
