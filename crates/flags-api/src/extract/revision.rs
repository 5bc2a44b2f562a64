//! `Flags-Min-Revision`: answers no older than a change the caller knows of.

use std::{future::Future, pin::Pin, time::Duration};

use actix_web::{FromRequest, HttpRequest, dev::Payload, web::Data};
use flags_domain::Violation;
use flags_store::log::Revision;
use uuid::Uuid;

use crate::{app::App, problem::Problem};

/// Longest wait for the replica to get there.
const LIMIT: Duration = Duration::from_secs(2);

/// Lets a request through once the replica has reached the revision it names; at once if it names none.
pub(crate) struct MinRevision;

impl FromRequest for MinRevision {
    type Error = Problem;
    type Future = Pin<Box<dyn Future<Output = Result<Self, Problem>>>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let value = request.headers().get("Flags-Min-Revision").map(|value| value.to_str().map(ToOwned::to_owned));
        let app = request.app_data::<Data<App>>().cloned();
        Box::pin(async move {
            let (Some(value), Some(app)) = (value, app) else { return Ok(Self) };
            let invalid = |detail: &str| Problem::from(Violation::new("/Flags-Min-Revision", "invalid_header", detail));
            let wanted = value.ok().and_then(|text| read(&text));
            let wanted = wanted.ok_or_else(|| invalid("must be <epoch>:<number>, as in Flags-Revision"))?;
            let replica = app.evaluation.replica();
            if replica.revision().epoch != wanted.epoch {
                return Err(invalid("is of another epoch: the database was restored since"));
            }
            if replica.wait_for(wanted, LIMIT).await {
                return Ok(Self);
            }
            let detail = "this server has not seen that revision yet; try again";
            Err(Problem::unavailable("revision_not_reached", detail, "1"))
        })
    }
}

fn read(text: &str) -> Option<Revision> {
    let (epoch, number) = text.split_once(':')?;
    Some(Revision { epoch: Uuid::try_parse(epoch).ok()?, number: number.parse().ok()? })
}
