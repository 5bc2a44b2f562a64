//! Who calls, and what they may do. Middleware finds out who; extractors in the handlers' signatures decide.

mod authenticate;
mod client;
mod cookie;
mod credential;
mod principal;
mod require;
mod same_origin;
mod stream_token;

pub(crate) use authenticate::{authenticate, is_known_caller};
pub(crate) use client::client_address;
pub(crate) use cookie::{no_session_cookie, session_cookie, session_secret};
pub(crate) use credential::Credential;
pub(crate) use principal::Principal;
pub(crate) use require::{
    EvaluateFlags, Evaluates, ExplainFlags, FlagVisibility, FollowChanges, FollowEvaluations, FollowOwnFlags, Follows,
    KnowSelf, ManageFlags, ManageOverrides, ManageSchedules, ManageTokens, ManageUsers, OwnFlags, OwnSession,
    ReadAuditLog, ReadFlags, ReadOverrides, ReadSchedules, ReadTokens, ReadUsers, Require, Visitor,
};
pub(crate) use same_origin::check_sign_in;
pub(crate) use stream_token::StreamToken;
