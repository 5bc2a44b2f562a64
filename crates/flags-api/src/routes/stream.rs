//! Server-sent event streams: the caller's own flag values, and all changes.

use std::future::{Ready, ready};

use actix_web::{
    FromRequest, HttpRequest,
    dev::Payload,
    http::{
        Method,
        header::{HeaderName, HeaderValue},
    },
    web::{self, Data},
};
use flags_domain::Violation;
use flags_service::stream_position::StreamPosition;
use utoipa::ToSchema;
use uuid::Uuid;

use super::reply::HandlerResult;
use crate::{
    auth::{Require, StreamChanges, StreamOwnFlags},
    evaluation_json::{OwnFlagsChange, OwnFlagsResponse},
    problem::{Problem, ProblemResponse},
    route_facts::RouteFacts,
    route_registry::RouteRegistry,
    state::App,
    streams::{
        ChangeEvent, ChangeStream, EventStream as _, OwnFlagStream, StreamBye, StreamHeartbeat, head_response,
        parse_position,
    },
};

pub(super) fn routes(routes: &mut RouteRegistry) {
    routes.add::<__path_stream_own_flags>(web::to(stream_own_flags), RouteFacts::own_data().event_stream());
    routes.add::<__path_stream_changes>(web::to(stream_changes), RouteFacts::api().event_stream());
}

/// Response header with the id of the user whose values the stream sends. A client that authenticates by cookie
/// compares it with the value of its previous connection, because another user may have signed in since.
const FLAGS_USER_HEADER: HeaderName = HeaderName::from_static("flags-user");

/// Data of an event of the caller's flag stream. The variants correspond to the event names `snapshot`, `change`,
/// `heartbeat` and `bye`.
#[derive(ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "describes JSON that `streams` writes; used for the OpenAPI document only")]
pub(crate) enum OwnFlagsEvent {
    /// Event `snapshot`: all values. They replace everything that the client has.
    Snapshot(OwnFlagsResponse),
    /// Event `change`: the values that changed.
    Change(OwnFlagsChange),
    /// Event `heartbeat`, sent every 15 seconds.
    Heartbeat(StreamHeartbeat),
    /// Event `bye`, the last event before the server closes the stream.
    Bye(StreamBye),
}

/// Stream position to resume after: `Last-Event-ID`, which browsers send automatically, else the `cursor` parameter.
/// `None` if the request has no position or a malformed one.
struct ResumePosition(Option<StreamPosition>);

impl FromRequest for ResumePosition {
    type Error = Problem;
    type Future = Ready<Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(resume_position(request).map(Self))
    }
}

fn resume_position(request: &HttpRequest) -> Result<Option<StreamPosition>, Problem> {
    let mut position = None;
    for (name, value) in form_urlencoded::parse(request.query_string().as_bytes()) {
        if name != "cursor" {
            let detail = "this operation accepts only the query parameter cursor";
            return Err(Violation::new(format!("/{name}"), "unknown_parameter", detail).into());
        }
        position = parse_position(Some(&value));
    }
    let Some(last) = request.headers().get("Last-Event-ID") else { return Ok(position) };
    Ok(parse_position(last.to_str().ok()))
}

/// Stream own flag values
///
/// Sends server-sent events:
///
/// - `snapshot`: all values, in the same form as the response of `GET /api/flags/me`; they replace everything that the
///   client has
/// - `change`: the values that changed (`OwnFlagsChange`)
/// - `heartbeat`: sent every 15 seconds (`StreamHeartbeat`)
/// - `bye`: the server closes the stream; reconnect (`StreamBye`)
///
/// The `id` of an event is a stream position. To resume after a disconnect, send the last `id` as `Last-Event-ID` or
/// `cursor`. The response header `Flags-User` contains the id of the user whose values the stream sends.
#[utoipa::path(
    get, path = "/api/flags/stream", tag = "my flags", operation_id = "stream_my_flags",
    params(
        ("cursor" = Option<String>, Query, description = "`id` of the last received event; the stream resumes after it"),
        ("Last-Event-ID" = Option<String>, Header, description = "Same as `cursor`, and takes precedence over it"),
    ),
    responses(
        (status = 200, body = OwnFlagsEvent, content_type = "text/event-stream"),
        (status = "default", response = ProblemResponse),
    ),
)]
async fn stream_own_flags(
    caller: Require<StreamOwnFlags>,
    app: Data<App>,
    position: ResumePosition,
    request: HttpRequest,
) -> HandlerResult {
    if request.method() == Method::HEAD {
        return Ok(head_response());
    }
    // Look the user up again, because the user cached at authentication may be outdated. Reading the revision first
    // guarantees that the user is at least as new as `as_of`.
    let as_of = app.evaluation.replica().revision().number;
    let (credential, user) = caller.granted;
    let user = credential.acting_user(&app, user.id).await?.ok_or_else(Problem::unauthorized)?.user;
    let user_id = uuid_header(user.id);
    let mut response = OwnFlagStream::open(&app, (credential, user), as_of, position.0)?.into_response();
    response.headers_mut().insert(FLAGS_USER_HEADER, user_id);
    Ok(response)
}

#[expect(clippy::expect_used, reason = "a UUID consists of hexadecimal digits and hyphens")]
fn uuid_header(id: Uuid) -> HeaderValue {
    HeaderValue::from_str(&id.to_string()).expect("UUIDs are valid header text")
}

/// Stream all changes
///
/// Reports which resources changed, but not their new values; intended for admin screens. Sends server-sent events:
///
/// - `snapshot`: `{"revision", "stale"}`; reload everything
/// - `change`: the changes of one revision (`ChangeEvent`)
/// - `heartbeat`: `{"revision", "stale"}`, sent every 15 seconds
/// - `bye`: `{"reason"}`; the server closes the stream; reconnect
///
/// The `id` of an event is a stream position. To resume after a disconnect, send the last `id` as `Last-Event-ID` or
/// `cursor`.
#[utoipa::path(
    get, path = "/api/admin/stream", tag = "system", operation_id = "stream_changes",
    params(
        ("cursor" = Option<String>, Query, description = "`id` of the last received event; the stream resumes after it"),
        ("Last-Event-ID" = Option<String>, Header, description = "Same as `cursor`, and takes precedence over it"),
    ),
    responses(
        (status = 200, body = ChangeEvent, content_type = "text/event-stream"),
        (status = "default", response = ProblemResponse),
    ),
)]
async fn stream_changes(
    caller: Require<StreamChanges>,
    app: Data<App>,
    position: ResumePosition,
    request: HttpRequest,
) -> HandlerResult {
    if request.method() == Method::HEAD {
        return Ok(head_response());
    }
    Ok(ChangeStream::open(&app, caller.granted, position.0)?.into_response())
}
