//! Authentication and authorization. The middleware authenticates the caller; the [`Require`] extractor in a handler's
//! signature checks the permission.

mod authenticate;
mod client;
mod cookie;
mod credential;
mod principal;
mod require;
mod same_origin;
mod stream_token;

pub(crate) use authenticate::{authenticate, is_authenticated};
pub(crate) use client::client_address;
pub(crate) use cookie::{expired_session_cookie, session_cookie, session_secret_hash};
pub(crate) use credential::Credential;
pub(crate) use principal::Principal;
pub(crate) use require::{
    AnyCaller, EvaluateFlags, EvaluationScope, ExplainFlags, FlagVisibility, ManageFlags, ManageOverrides,
    ManageOwnSession, ManageSchedules, ManageTokens, ManageUsers, ReadAuditLog, ReadFlags, ReadOverrides, ReadOwnFlags,
    ReadOwnIdentity, ReadSchedules, ReadTokens, ReadUsers, Require, StreamChanges, StreamEvaluations, StreamOwnFlags,
    StreamSubject,
};
pub(crate) use same_origin::check_sign_in_origin;
pub(crate) use stream_token::StreamToken;
