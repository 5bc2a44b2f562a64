//! `Flags-Min-Revision`: answers no older than a change the caller knows of.

use std::time::Duration;

use actix_web::http::header::HeaderMap;
use flags_domain::Violation;
use flags_service::replica::Replica;
use flags_store::log::Revision;

use crate::problem::Problem;

/// Longest wait for the replica to get there.
const LIMIT: Duration = Duration::from_secs(2);

/// Waits until the replica has reached the revision that a request names, if it names one.
pub(crate) async fn wait_for_min_revision(headers: &HeaderMap, replica: &Replica) -> Result<(), Problem> {
    let Some(value) = headers.get("Flags-Min-Revision") else { return Ok(()) };
    let invalid = |detail: &str| Problem::from(Violation::new("/Flags-Min-Revision", "invalid_header", detail));
    let wanted = value.to_str().ok().and_then(|text| text.parse::<Revision>().ok());
    let wanted = wanted.ok_or_else(|| invalid("must be <epoch>:<number>, as in Flags-Revision"))?;
    if replica.revision().epoch != wanted.epoch {
        return Err(invalid("is of another epoch: the database was restored since"));
    }
    if replica.wait_for(wanted, LIMIT).await {
        return Ok(());
    }
    Err(Problem::unavailable("revision_not_reached", "this server has not seen that revision yet; try again", "1"))
}
