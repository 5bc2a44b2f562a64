//! What a caller may do, as a type in the handler's signature.

use std::{future::Ready, future::ready, marker::PhantomData, sync::Arc};

use actix_web::{FromRequest, HttpMessage as _, HttpRequest, dev::Payload};
use flags_domain::CompiledFlag;
use flags_service::replica::CachedUser;
use flags_store::{Author, sessions::SessionRecord, users::Role};
use uuid::Uuid;

use super::{Credential, Principal, StreamToken, authenticate::Outcome};
use crate::{app::App, problem::Problem, request_middleware::RequestId};

/// Lets only those through who have the permission `P`; holds what the permission gives.
pub(crate) struct Require<P: Permission> {
    pub(crate) granted: P::Granted,
    permission: PhantomData<P>,
}

/// Something that a caller may do.
pub(crate) trait Permission {
    /// What a handler gets that asks for it.
    type Granted: 'static;

    /// Whether `principal` may, and for which request.
    fn grant(principal: Principal, request: &HttpRequest) -> Result<Self::Granted, Problem>;
}

/// Reading, for admins and viewers.
fn grant_read(principal: &Principal) -> Result<(), Problem> {
    match principal.role {
        Some(Role::Admin | Role::Viewer) => Ok(()),
        Some(Role::User) | None => Err(Problem::forbidden("forbidden", "only admins and viewers may do this")),
    }
}

/// Changing, for admins; gives who is to stand in the log.
fn grant_change(principal: Principal, request: &HttpRequest) -> Result<Author, Problem> {
    match principal.role {
        Some(Role::Admin) => Ok(author(principal, request)),
        _ => Err(Problem::forbidden("forbidden", "only admins may do this")),
    }
}

fn author(principal: Principal, request: &HttpRequest) -> Author {
    let request_id = request.extensions().get::<RequestId>().map(|id| id.0.clone());
    Author { actor: principal.actor, request_id }
}

macro_rules! permissions {
    ($($(#[$doc:meta])* $name:ident: $granted:ty = |$principal:ident, $request:ident| $grant:expr;)*) => {
        $(
            $(#[$doc])*
            pub(crate) enum $name {}

            impl Permission for $name {
                type Granted = $granted;

                fn grant($principal: Principal, $request: &HttpRequest) -> Result<Self::Granted, Problem> {
                    $grant
                }
            }
        )*
    };
}

permissions! {
    /// Read flags and their rules.
    ReadFlags: () = |principal, _request| grant_read(&principal);
    /// Change flags and their rules.
    ManageFlags: Author = |principal, request| grant_change(principal, request);
    /// Read scheduled changes.
    ReadSchedules: () = |principal, _request| grant_read(&principal);
    /// Plan, edit and cancel scheduled changes.
    ManageSchedules: Author = |principal, request| grant_change(principal, request);
    /// Read what any user gets, and why.
    ExplainFlags: () = |principal, _request| grant_read(&principal);
    /// Read all users' overrides.
    ReadOverrides: () = |principal, _request| grant_read(&principal);
    /// Change users' overrides.
    ManageOverrides: Author = |principal, request| grant_change(principal, request);
    /// Read users.
    ReadUsers: () = |principal, _request| grant_read(&principal);
    /// Change users.
    ManageUsers: Author = |principal, request| grant_change(principal, request);
    /// Read API tokens.
    ReadTokens: () = |principal, request| grant_change(principal, request).map(|_| ());
    /// Make, rotate and revoke API tokens.
    ManageTokens: Author = |principal, request| grant_change(principal, request);
    /// Read who one is.
    KnowSelf: Principal = |principal, _request| Ok(principal);
    /// End one's session, and whatever else only those can who are signed in.
    OwnSession: (Author, SessionRecord) = |principal, request| own_session(principal, request);
    /// Read the audit trail.
    ReadAuditLog: Credential = |principal, _request| grant_read(&principal).map(|()| principal.credential);
    /// Read one's own flag values and overrides.
    OwnFlags: Arc<CachedUser> = |principal, _request| own_flags(principal);
    /// Follow one's own flag values.
    FollowOwnFlags: (Credential, Arc<CachedUser>) = |principal, _request| {
        Ok((principal.credential, own_flags(principal)?))
    };
    /// Evaluate flags, for whomever this says.
    EvaluateFlags: (Credential, Evaluates) = |principal, _request| Ok((principal.credential, evaluates(principal)?));
    /// Hear of what may change what was evaluated, with the ticket that came with it.
    FollowEvaluations: (StreamToken, FlagVisibility) = |principal, request| follow_evaluations(principal, request);
    /// Follow all changes.
    FollowChanges: Credential = |principal, _request| grant_read(&principal).map(|()| principal.credential);
}

fn own_session(principal: Principal, request: &HttpRequest) -> Result<(Author, SessionRecord), Problem> {
    let session = principal.session;
    let session = session.ok_or_else(|| Problem::forbidden("no_session", "this is for those who are signed in"))?;
    Ok((author(principal, request), session))
}

/// Anybody, unless they ask for too much.
pub(crate) struct Visitor;

impl FromRequest for Visitor {
    type Error = Problem;
    type Future = Ready<Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let outcome = request.extensions_mut().remove::<Outcome>();
        ready(match outcome {
            Some(Err(Some(problem))) if problem.is_rate_limit() => Err(problem),
            _ => Ok(Self),
        })
    }
}

fn own_flags(principal: Principal) -> Result<Arc<CachedUser>, Problem> {
    principal.role.and(principal.user).ok_or_else(|| {
        Problem::forbidden("no_user", "this credential acts as no user, so it has no flag values of its own")
    })
}

/// For whom a caller may evaluate flags.
pub(crate) enum Evaluates {
    /// For anybody, known or not.
    Anybody,
    /// For themselves.
    Own(Arc<CachedUser>),
}

fn evaluates(principal: Principal) -> Result<Evaluates, Problem> {
    match principal.role {
        None => Ok(Evaluates::Anybody),
        Some(_) => own_flags(principal).map(Evaluates::Own),
    }
}

/// Which flags count for a caller who evaluates them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FlagVisibility {
    /// All.
    All,
    /// Those that users see.
    Shown,
}

impl FlagVisibility {
    /// Whether the caller may know of this flag.
    pub(crate) const fn has(self, flag: &CompiledFlag) -> bool {
        match self {
            Self::All => !flag.is_archived(),
            Self::Shown => flag.is_shown(),
        }
    }
}

impl Evaluates {
    /// By which flags.
    pub(crate) const fn flags(&self) -> FlagVisibility {
        match self {
            Self::Anybody => FlagVisibility::All,
            Self::Own(_) => FlagVisibility::Shown,
        }
    }

    /// Whether this user may be asked for; `None` is somebody who is no user.
    fn reaches(&self, user_id: Option<Uuid>) -> bool {
        match self {
            Self::Anybody => true,
            Self::Own(user) => user_id == Some(user.id),
        }
    }
}

fn follow_evaluations(principal: Principal, request: &HttpRequest) -> Result<(StreamToken, FlagVisibility), Problem> {
    let ticket = request.extensions().get::<StreamToken>().copied().ok_or_else(no_ticket)?;
    let credential = principal.credential;
    let may = evaluates(principal)?;
    if may.reaches(ticket.user_id) { Ok((StreamToken { credential, ..ticket }, may.flags())) } else { Err(no_ticket()) }
}

/// 401 to whoever wants to follow evaluations without a ticket that is good.
pub(super) fn no_ticket() -> Problem {
    let detail = "take the address of this stream from a fresh evaluation of all flags";
    Problem::unauthorized().with_detail(detail)
}

/// What is followed, or read part by part, from one look at the credential to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Follows {
    /// Their own flag values.
    OwnFlags,
    /// All changes, those to come or those of the log.
    Changes,
    /// What may change an evaluation for this user, or for somebody who is none.
    Evaluations(Option<Uuid>),
}

impl Credential {
    /// Whether its bearer may still follow. While that cannot be looked up, what was so is taken to be so.
    pub(crate) async fn still_allows(self, follows: Follows, app: &App) -> bool {
        match Principal::of(app, self, false).await {
            Ok(principal) => match follows {
                Follows::OwnFlags => own_flags(principal).is_ok(),
                Follows::Changes => grant_read(&principal).is_ok(),
                Follows::Evaluations(user_id) => evaluates(principal).is_ok_and(|may| may.reaches(user_id)),
            },
            Err(problem) => problem.is_outage(),
        }
    }
}

impl<P: Permission + 'static> FromRequest for Require<P> {
    type Error = Problem;
    type Future = Ready<Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let outcome = request.extensions_mut().remove::<Outcome>();
        ready(match outcome {
            Some(Ok(principal)) => {
                P::grant(principal, request).map(|granted| Self { granted, permission: PhantomData })
            }
            Some(Err(Some(problem))) => Err(problem),
            Some(Err(None)) | None => Err(Problem::unauthorized()),
        })
    }
}
