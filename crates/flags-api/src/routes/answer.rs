//! Answers of the admin's resources.

use actix_web::{
    HttpResponse,
    http::{StatusCode, header},
};
use flags_store::{Committed, log::Revision};
use serde::Serialize;

use crate::{extract::entity_tag, problem::Problem};

/// What every handler returns.
pub(super) type Answer = Result<HttpResponse, Problem>;

/// Header that says which revision of the log an answer belongs to.
pub(super) const FLAGS_REVISION: &str = "Flags-Revision";

/// 200 with a list.
pub(super) fn list(body: &impl Serialize) -> Answer {
    Ok(HttpResponse::Ok().json(body))
}

/// 200 with a resource that was last changed at `revision`. The tag is for `If-Match`; there is no 304, as what stands
/// beside a resource (counts, a status by the clock) changes without it.
pub(super) fn resource(revision: Revision, body: &impl Serialize) -> Answer {
    Ok(HttpResponse::Ok().insert_header((header::ETAG, entity_tag(revision))).json(body))
}

/// 200 with a resource as it is after a change; `number` is the revision of its last change.
pub(super) fn changed(committed: &Committed, number: i64, body: &impl Serialize) -> Answer {
    Ok(with_resource(StatusCode::OK, committed, number).json(body))
}

/// 201 with a resource that was made.
pub(super) fn created(committed: &Committed, number: i64, location: &str, body: &impl Serialize) -> Answer {
    let mut response = with_resource(StatusCode::CREATED, committed, number);
    Ok(response.insert_header((header::LOCATION, location)).json(body))
}

/// 204 after a removal.
pub(super) fn removed(committed: &Committed) -> Answer {
    Ok(HttpResponse::NoContent().insert_header((FLAGS_REVISION, committed.revision().to_string())).finish())
}

fn with_resource(status: StatusCode, committed: &Committed, number: i64) -> actix_web::HttpResponseBuilder {
    let revision = committed.revision();
    let mut response = HttpResponse::build(status);
    response.insert_header((FLAGS_REVISION, revision.to_string()));
    response.insert_header((header::ETAG, entity_tag(Revision { number, ..revision })));
    response
}
