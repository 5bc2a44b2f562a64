//! Parts of requests, read and checked before a handler runs; whatever is wrong is a problem with a pointer to it.

mod idempotency;
mod json;
mod preconditions;
mod query;
mod revision;

pub(crate) use idempotency::{idempotency_key, refuse_idempotency_key};
pub(crate) use json::{Body, Json, MAX_BODY, is_json, json_body, json_text, present};
pub(crate) use preconditions::{IfMatch, IfNoneMatch, entity_tag};
pub(crate) use query::{Cursor, Limit, Query, foreign_cursor, short_text};
pub(crate) use revision::{EventPosition, wait_for_event, wait_for_min_revision};

use actix_web::{FromRequest, HttpRequest, dev::Payload};
use flags_domain::FlagName;
use std::future::{Ready, ready};
use uuid::Uuid;

use crate::problem::Problem;

/// `{user_id}` of the path. What is no UUID names no user.
pub(crate) struct UserId(pub(crate) Uuid);

/// `{flag_name}` of the path. What is no flag name names no flag.
pub(crate) struct PathFlag(pub(crate) FlagName);

/// `{key}` of the path: a flag's name in the words of OpenFeature.
pub(crate) struct FlagKey(pub(crate) FlagName);

/// `{id}` of the path, of a scheduled change.
pub(crate) struct ScheduleId(pub(crate) Uuid);

/// `{id}` of the path, of an API token.
pub(crate) struct TokenId(pub(crate) Uuid);

fn read_id(text: &str) -> Option<Uuid> {
    // The hyphenated form only: one thing has one address.
    (text.len() == 36).then(|| Uuid::try_parse(text).ok())?
}

macro_rules! path_part {
    ($name:ident, $part:literal, $read:expr, $code:literal, $detail:literal) => {
        impl FromRequest for $name {
            type Error = Problem;
            type Future = Ready<Result<Self, Problem>>;

            fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
                let part = request.match_info().query($part);
                ready($read(part).map(Self).ok_or_else(|| Problem::not_found($code, $detail)))
            }
        }
    };
}

path_part!(UserId, "user_id", read_id, "user_not_found", "there is no such user");
path_part!(PathFlag, "flag_name", |text| FlagName::new(text).ok(), "flag_not_found", "there is no such flag");
path_part!(FlagKey, "key", |text| FlagName::new(text).ok(), "flag_not_found", "there is no such flag");
path_part!(ScheduleId, "id", read_id, "scheduled_change_not_found", "there is no such scheduled change");
path_part!(TokenId, "id", read_id, "token_not_found", "there is no such API token");
