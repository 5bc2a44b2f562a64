//! Extractors for headers, paths, query strings and bodies. They reject invalid requests before the handler runs; the
//! error points to the invalid field.

mod idempotency;
mod json;
mod preconditions;
mod query;
mod revision;

pub(crate) use idempotency::{idempotency_key, reject_idempotency_key};
pub(crate) use json::{
    Json, MAX_BODY_BYTES, RequestBody, deserialize_present, has_json_content_type, json_text, read_json_body,
};
pub(crate) use preconditions::{IfMatch, IfNoneMatch, entity_tag};
pub(crate) use query::{PageCursor, PageLimit, Query, deserialize_search_text, invalid_cursor};
pub(crate) use revision::{EventPosition, wait_for_event_position, wait_for_min_revision};

use std::future::{Ready, ready};

use actix_web::{FromRequest, HttpRequest, dev::Payload, web::Data};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use flags_domain::FlagName;
use percent_encoding::percent_decode_str;
use uuid::Uuid;

use crate::{problem::Problem, state::App};

/// Path parameter `{user_id}`: a UUID, `ext:` and a percent-encoded external id, or `ext64:` and an external id in
/// base64url without padding. Any other value is a 404.
pub(crate) struct UserIdParam(pub(crate) Uuid);

/// Path parameter `{user_id}`, with the external id if it names the user by external id.
pub(crate) struct UserReferenceParam {
    /// Id of the user, whether or not the user exists.
    pub(crate) id: Uuid,
    pub(crate) external_id: Option<String>,
}

/// Path parameter `{flag_name}`. A value that is not a valid flag name is a 404.
pub(crate) struct FlagNameParam(pub(crate) FlagName);

/// Path parameter `{key}`. OFREP calls the name of a flag its key.
pub(crate) struct FlagKeyParam(pub(crate) FlagName);

/// Path parameter `{id}` of a scheduled change.
pub(crate) struct ScheduledChangeIdParam(pub(crate) Uuid);

/// Path parameter `{id}` of an API token.
pub(crate) struct TokenIdParam(pub(crate) Uuid);

fn parse_uuid(text: &str) -> Option<Uuid> {
    // `try_parse` also accepts other forms, such as URNs. URLs of this API use the hyphenated form only.
    (text.len() == 36).then(|| Uuid::try_parse(text).ok())?
}

macro_rules! path_parameter {
    ($name:ident, $parameter:literal, $parse:expr, $code:literal, $detail:literal) => {
        impl FromRequest for $name {
            type Error = Problem;
            type Future = Ready<Result<Self, Problem>>;

            fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
                let value = request.match_info().query($parameter);
                ready($parse(value).map(Self).ok_or_else(|| Problem::not_found($code, $detail)))
            }
        }
    };
}

impl FromRequest for UserIdParam {
    type Error = Problem;
    type Future = Ready<Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(user_reference(request).map(|user| Self(user.id)))
    }
}

impl FromRequest for UserReferenceParam {
    type Error = Problem;
    type Future = Ready<Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(user_reference(request))
    }
}

fn user_reference(request: &HttpRequest) -> Result<UserReferenceParam, Problem> {
    let value = request.match_info().query("user_id");
    let external_id = external_id(value);
    let id = match &external_id {
        None => parse_uuid(value),
        Some(external_id) => {
            let app = request.app_data::<Data<App>>();
            app.map(|app| app.evaluation.replica().external_user_id(external_id).id)
        }
    };
    let id = id.ok_or_else(|| Problem::not_found("user_not_found", "no such user"))?;
    Ok(UserReferenceParam { id, external_id })
}

/// Returns the external id from a path segment of the form `ext:…` or `ext64:…`. `None` for other segments.
fn external_id(segment: &str) -> Option<String> {
    if let Some(encoded) = segment.strip_prefix("ext64:") {
        return String::from_utf8(URL_SAFE_NO_PAD.decode(encoded).ok()?).ok();
    }
    let encoded = segment.strip_prefix("ext:")?;
    Some(percent_decode_str(encoded).decode_utf8().ok()?.into_owned())
}

path_parameter!(FlagNameParam, "flag_name", |text| FlagName::new(text).ok(), "flag_not_found", "no such flag");
path_parameter!(FlagKeyParam, "key", |text| FlagName::new(text).ok(), "flag_not_found", "no such flag");
path_parameter!(ScheduledChangeIdParam, "id", parse_uuid, "scheduled_change_not_found", "no such scheduled change");
path_parameter!(TokenIdParam, "id", parse_uuid, "token_not_found", "no such API token");
