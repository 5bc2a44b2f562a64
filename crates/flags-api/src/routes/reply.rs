//! Responses of the admin API, and idempotent execution of POST requests.

use std::sync::Arc;

use actix_web::{
    HttpRequest, HttpResponse,
    http::{StatusCode, header},
};
use flags_service::{CommandOutcome, CommandRequest, ServiceError, credentials::check::CommandAuthor};
use flags_store::{Committed, change_log::Revision};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use crate::{
    extract::{entity_tag, idempotency_key},
    json::to_json,
    problem::Problem,
};

/// Return type of every handler.
pub(super) type HandlerResult = Result<HttpResponse, Problem>;

/// Response header with the revision at which a change was committed.
pub(super) const FLAGS_REVISION: &str = "Flags-Revision";

/// Returns 200 with a JSON body.
pub(super) fn json(body: &impl Serialize) -> HandlerResult {
    Ok(HttpResponse::Ok().json(body))
}

/// Returns 200 with a resource that was last changed at `revision`.
///
/// The `ETag` serves `If-Match` only. There is no 304, because derived fields (counts, statuses that depend on the
/// clock) change without a new revision.
pub(super) fn resource(revision: Revision, body: &impl Serialize) -> HandlerResult {
    Ok(HttpResponse::Ok().insert_header((header::ETAG, entity_tag(revision))).json(body))
}

/// Builds a 200 response with a changed resource. `number` is the revision number of its last change.
pub(super) fn changed(committed: &Committed, number: i64, body: &impl Serialize) -> Reply {
    Reply::new(StatusCode::OK, committed, number, body)
}

/// Builds a 201 response with a created resource. `number` is the revision number of its last change.
pub(super) fn created(committed: &Committed, number: i64, location: String, body: &impl Serialize) -> Reply {
    let mut reply = Reply::new(StatusCode::CREATED, committed, number, body);
    reply.headers.push((header::LOCATION.as_str().to_owned(), location));
    reply
}

/// Returns 204 with the revision of a change in `Flags-Revision`.
pub(super) fn no_content(committed: &Committed) -> HandlerResult {
    Ok(HttpResponse::NoContent().insert_header((FLAGS_REVISION, committed.revision().to_string())).finish())
}

/// Path of a child resource below the request path, for the `Location` header.
pub(super) fn child_location(path: &str, child: &str) -> String {
    format!("{}/{child}", path.trim_end_matches('/'))
}

/// Response to a change, serializable so that it can be stored under an idempotency key and replayed.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Reply {
    #[serde(serialize_with = "serialize_status", deserialize_with = "deserialize_status")]
    status: StatusCode,
    headers: Vec<(String, String)>,
    body: String,
}

fn serialize_status<S: Serializer>(status: &StatusCode, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u16(status.as_u16())
}

fn deserialize_status<'de, D: Deserializer<'de>>(deserializer: D) -> Result<StatusCode, D::Error> {
    StatusCode::from_u16(u16::deserialize(deserializer)?).map_err(D::Error::custom)
}

impl Reply {
    fn new(status: StatusCode, committed: &Committed, number: i64, body: &impl Serialize) -> Self {
        let mut reply = Self::without_tag(status, committed, body);
        let tag = entity_tag(Revision { number, ..committed.revision() });
        reply.headers.push((header::ETAG.as_str().to_owned(), tag));
        reply
    }

    /// Builds a response without `ETag`, for changes that affect several resources.
    pub(super) fn without_tag(status: StatusCode, committed: &Committed, body: &impl Serialize) -> Self {
        let headers = vec![(FLAGS_REVISION.to_owned(), committed.revision().to_string())];
        Self { status, headers, body: to_json(body) }
    }
}

impl From<Reply> for HttpResponse {
    fn from(reply: Reply) -> Self {
        let mut response = Self::build(reply.status);
        for header in reply.headers {
            response.insert_header(header);
        }
        response.content_type("application/json").body(reply.body)
    }
}

/// Executes a POST command, at most once per `Idempotency-Key`.
///
/// `reply` builds the response from the command's output. With an idempotency key the response is stored in the
/// command's transaction; a repeated request gets the stored response. Call it after the request body has been read,
/// because the key's fingerprint covers the body.
pub(super) async fn execute_idempotently<T>(
    request: &HttpRequest,
    author: CommandAuthor,
    reply: impl Fn(&T, &Committed) -> Reply + Send + Sync + 'static,
    execute: impl AsyncFnOnce(CommandRequest<T>) -> Result<CommandOutcome<T>, ServiceError>,
) -> HandlerResult {
    let reply = Arc::new(reply);
    let command_request = match idempotency_key(request, author.author())? {
        None => author.into(),
        Some(key) => {
            let reply = Arc::clone(&reply);
            let serialize = move |output: &T, committed: &Committed| to_json(&reply(output, committed)).into_bytes();
            CommandRequest::idempotent(author, key, Arc::new(serialize))
        }
    };
    match execute(command_request).await {
        Ok(outcome) => Ok(reply(&outcome.output, &outcome.committed).into()),
        Err(ServiceError::Replayed(stored)) => match serde_json::from_slice::<Reply>(&stored.payload) {
            Ok(reply) => Ok(reply.into()),
            Err(error) => {
                Err(Problem::internal(format!("stored response of an idempotency key cannot be parsed: {error}")))
            }
        },
        Err(error) => Err(error.into()),
    }
}
