//! Answers of the admin's resources.

use std::sync::Arc;

use actix_web::{
    HttpRequest, HttpResponse,
    http::{StatusCode, header},
};
use flags_service::{CommandOutcome, CommandRequest, ServiceError};
use flags_store::{Author, Committed, change_log::Revision};
use serde::{Deserialize, Serialize};

use crate::{
    extract::{entity_tag, idempotency_key},
    problem::Problem,
};

/// What every handler returns.
pub(super) type HandlerResult = Result<HttpResponse, Problem>;

/// Header that says which revision of the log an answer belongs to.
pub(super) const FLAGS_REVISION: &str = "Flags-Revision";

/// 200 with a list.
pub(super) fn json(body: &impl Serialize) -> HandlerResult {
    Ok(HttpResponse::Ok().json(body))
}

/// 200 with a resource that was last changed at `revision`. The tag is for `If-Match`; there is no 304, as what stands
/// beside a resource (counts, a status by the clock) changes without it.
pub(super) fn resource(revision: Revision, body: &impl Serialize) -> HandlerResult {
    Ok(HttpResponse::Ok().insert_header((header::ETAG, entity_tag(revision))).json(body))
}

/// 200 with a resource as it is after a change; `number` is the revision of its last change.
pub(super) fn changed(committed: &Committed, number: i64, body: &impl Serialize) -> Reply {
    Reply::new(StatusCode::OK, committed, number, body)
}

/// 201 with a resource that was made.
pub(super) fn created(committed: &Committed, number: i64, location: String, body: &impl Serialize) -> Reply {
    let mut reply = Reply::new(StatusCode::CREATED, committed, number, body);
    reply.headers.push((header::LOCATION.as_str().to_owned(), location));
    reply
}

/// 204 after a change that leaves nothing to show.
pub(super) fn removed(committed: &Committed) -> HandlerResult {
    Ok(HttpResponse::NoContent().insert_header((FLAGS_REVISION, committed.revision().to_string())).finish())
}

/// An answer to a change, in a form that can be kept with it.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Reply {
    status: u16,
    headers: Vec<(String, String)>,
    body: String,
}

impl Reply {
    fn new(status: StatusCode, committed: &Committed, number: i64, body: &impl Serialize) -> Self {
        let mut reply = Self::without_tag(status, committed, body);
        let tag = entity_tag(Revision { number, ..committed.revision() });
        reply.headers.push((header::ETAG.as_str().to_owned(), tag));
        reply
    }

    /// One that speaks of no single resource.
    pub(super) fn without_tag(status: StatusCode, committed: &Committed, body: &impl Serialize) -> Self {
        let headers = vec![(FLAGS_REVISION.to_owned(), committed.revision().to_string())];
        // Wire types hold nothing that JSON cannot.
        Self { status: status.as_u16(), headers, body: serde_json::to_string(body).unwrap_or_default() }
    }
}

impl From<Reply> for HttpResponse {
    fn from(reply: Reply) -> Self {
        let status = StatusCode::from_u16(reply.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = Self::build(status);
        for header in reply.headers {
            response.insert_header(header);
        }
        response.content_type("application/json").body(reply.body)
    }
}

/// Carries out a POST that changes something: once only, if the request has an `Idempotency-Key`. `reply` makes the answer
/// of what came out; whoever sends the request again with the same key gets the very same one.
pub(super) async fn execute_idempotently<T>(
    request: &HttpRequest,
    author: Author,
    reply: impl Fn(&T, &Committed) -> Reply + Send + Sync + 'static,
    carry_out: impl AsyncFnOnce(CommandRequest<T>) -> Result<CommandOutcome<T>, ServiceError>,
) -> HandlerResult {
    let reply = Arc::new(reply);
    let intent = match idempotency_key(request, &author)? {
        None => author.into(),
        Some(key) => {
            let reply = Arc::clone(&reply);
            let kept = move |output: &T, committed: &Committed| {
                serde_json::to_vec(&reply(output, committed)).unwrap_or_default()
            };
            CommandRequest::once(author, key, Arc::new(kept))
        }
    };
    match carry_out(intent).await {
        Ok(done) => Ok(reply(&done.output, &done.committed).into()),
        Err(ServiceError::Answered(kept)) => match serde_json::from_slice::<Reply>(&kept.answer) {
            Ok(reply) => Ok(reply.into()),
            Err(error) => Err(Problem::internal(format!("a kept answer cannot be read: {error}"))),
        },
        Err(error) => Err(error.into()),
    }
}
