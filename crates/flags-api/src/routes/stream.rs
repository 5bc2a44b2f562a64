//! Server-sent events: a user's own flag values, and all changes.

use std::{
    collections::BTreeMap,
    future::{Ready, ready},
};

use actix_web::{
    FromRequest, HttpRequest,
    dev::Payload,
    http::{
        Method,
        header::{HeaderName, HeaderValue},
    },
    web::{self, Data},
};
use flags_domain::{Instant, Violation};
use flags_service::cursor::Cursor;
use utoipa::ToSchema;

use super::{
    Routes,
    me::{MyFlag, MyFlags},
    reply::HandlerResult,
};
use crate::{
    app::App,
    auth::{FollowChanges, FollowOwnFlags, Require},
    problem::{Problem, ProblemResponse},
    streams::{ChangeEvent, ChangeStream, EventStream as _, OwnFlagStream, head_only, read_cursor},
};

pub(super) fn routes(routes: &mut Routes) {
    routes.add::<__path_my_flag_stream>(web::to(my_flag_stream));
    routes.add::<__path_change_stream>(web::to(change_stream));
}

/// Whose stream it is: a cookie may have become somebody else's since the client last looked.
const FLAGS_USER: HeaderName = HeaderName::from_static("flags-user");

/// The data of an event, by the event's name.
#[derive(ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "written by hand, for speed; stands in the OpenAPI document")]
pub(crate) enum MyFlagsEvent {
    /// `snapshot`
    Snapshot(MyFlags),
    /// `change`
    Change(MyFlagsChange),
    /// `heartbeat`
    Heartbeat(StreamHeartbeat),
    /// `bye`
    Bye(StreamBye),
}

/// What the caller's flag values have become since the event before.
#[derive(ToSchema)]
#[expect(dead_code, reason = "as above")]
pub(crate) struct MyFlagsChange {
    /// `<epoch>:<number>`
    revision: String,
    #[schema(value_type = String, format = DateTime)]
    evaluated_at: Instant,
    /// Results to put in, each whole.
    set: BTreeMap<String, MyFlag>,
    /// Flags to drop.
    unset: Vec<String>,
    #[schema(required, value_type = Option<String>, format = DateTime)]
    valid_until: Option<Instant>,
}

/// A sign of life, and where the stream stands.
#[derive(ToSchema)]
#[expect(dead_code, reason = "as above")]
pub(crate) struct StreamHeartbeat {
    /// `<epoch>:<number>`
    revision: String,
    /// Whether the server has not been able to read its database for 5 s.
    stale: bool,
}

/// The stream's last event: connect again.
#[derive(ToSchema)]
#[expect(dead_code, reason = "as above")]
pub(crate) struct StreamBye {
    reason: ByeReason,
}

/// Why a stream ends.
#[derive(ToSchema)]
#[serde(rename_all = "snake_case")]
#[expect(dead_code, reason = "as above")]
pub(crate) enum ByeReason {
    /// The server is stopping.
    Shutdown,
    /// Streams do not live for ever, so that they spread over the servers.
    MaxAge,
    /// The credential is void or allows this no longer.
    Revoked,
}

/// Where the client stands: `Last-Event-ID`, which browsers send by themselves, or else `?cursor=`.
struct Position(Option<Cursor>);

impl FromRequest for Position {
    type Error = Problem;
    type Future = Ready<Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(position(request).map(Self))
    }
}

fn position(request: &HttpRequest) -> Result<Option<Cursor>, Problem> {
    let mut cursor = None;
    for (name, value) in form_urlencoded::parse(request.query_string().as_bytes()) {
        if name != "cursor" {
            let detail = "this operation takes the parameter cursor only";
            return Err(Violation::new(format!("/{name}"), "unknown_parameter", detail).into());
        }
        cursor = read_cursor(Some(&value));
    }
    let Some(last) = request.headers().get("Last-Event-ID") else { return Ok(cursor) };
    Ok(read_cursor(last.to_str().ok()))
}

/// My flag values, as they change
///
/// Events `snapshot` (the answer of `/api/flags/me`, in place of what the client has), `change` (`{"revision",
/// "evaluated_at", "set": {name: result}, "unset": [name], "valid_until"}`), `heartbeat` every 15 s (`{"revision",
/// "stale"}`), `bye` (`{"reason"}`). Their `id` is the position to go on from by `Last-Event-ID` or `?cursor=`. The header
/// `Flags-User` is the id of the user whose values these are.
#[utoipa::path(
    get, path = "/api/flags/stream", tag = "my flags", operation_id = "stream_my_flags",
    params(
        ("cursor" = Option<String>, Query, description = "`id` of the last event seen"),
        ("Last-Event-ID" = Option<String>, Header, description = "The same; goes before `cursor`"),
    ),
    responses((status = 200, body = MyFlagsEvent, content_type = "text/event-stream"), (status = "default", response = ProblemResponse)),
)]
async fn my_flag_stream(
    caller: Require<FollowOwnFlags>,
    app: Data<App>,
    position: Position,
    request: HttpRequest,
) -> HandlerResult {
    if request.method() == Method::HEAD {
        return Ok(head_only());
    }
    // What is known of the user may have been looked up before the latest change of theirs.
    let as_of = app.evaluation.replica().revision().number;
    let (credential, user) = caller.granted;
    let user = app.evaluation.user(user.id).await?.ok_or_else(Problem::unauthorized)?;
    let whose = HeaderValue::from_str(&user.id.to_string());
    let mut response = OwnFlagStream::open(&app, (credential, user), as_of, position.0)?.into_response();
    if let Ok(whose) = whose {
        response.headers_mut().insert(FLAGS_USER, whose);
    }
    Ok(response)
}

/// All changes, as they happen
///
/// For admin screens: what was changed, not to what. Events `snapshot` (`{"revision", "stale"}`: read everything anew),
/// `change` (the schema below), `heartbeat` every 15 s (`{"revision", "stale"}`), `bye` (`{"reason"}`).
#[utoipa::path(
    get, path = "/api/admin/stream", tag = "system", operation_id = "stream_changes",
    params(
        ("cursor" = Option<String>, Query, description = "`id` of the last event seen"),
        ("Last-Event-ID" = Option<String>, Header, description = "The same; goes before `cursor`"),
    ),
    responses((status = 200, body = ChangeEvent, content_type = "text/event-stream"), (status = "default", response = ProblemResponse)),
)]
async fn change_stream(
    caller: Require<FollowChanges>,
    app: Data<App>,
    position: Position,
    request: HttpRequest,
) -> HandlerResult {
    if request.method() == Method::HEAD {
        return Ok(head_only());
    }
    Ok(ChangeStream::open(&app, caller.granted, position.0)?.into_response())
}
