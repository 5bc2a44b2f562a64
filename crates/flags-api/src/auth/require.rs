//! Permissions. Each permission is a type that a handler names in its signature, such as `Require<ManageFlags>`.

use std::{future::Ready, future::ready, marker::PhantomData, sync::Arc};

use actix_web::{FromRequest, HttpMessage as _, HttpRequest, dev::Payload, web::Data};
use flags_domain::CompiledFlag;
use flags_service::{
    credentials::check::{CommandAuthor, RequiredPermission},
    replica::CachedUser,
};
use flags_store::{Author, sessions::SessionRecord, users::Role};
use uuid::Uuid;

use super::{Credential, Principal, StreamToken, authenticate::AuthenticationResult};
use crate::{body_check::BodyCheck, open_streams::StreamKind, problem::Problem, request_id::RequestId, state::App};

/// Extractor that rejects the request unless the caller has the permission `P`. Fails with 401 or 403.
pub(crate) struct Require<P: Permission> {
    pub(crate) granted: P::Granted,
    permission: PhantomData<P>,
}

/// Permission that a handler can require.
pub(crate) trait Permission {
    /// Value that the handler receives together with the permission.
    type Granted: 'static;

    /// Checks that `principal` has the permission.
    fn grant(principal: Principal, request: &HttpRequest) -> Result<Self::Granted, Problem>;
}

/// Checks that the caller may read everything.
fn grant_read(principal: &Principal) -> Result<(), Problem> {
    match principal.role {
        Some(Role::Admin | Role::Support | Role::Viewer) => Ok(()),
        Some(Role::User) | None => Err(Problem::forbidden("forbidden", "requires role admin, support or viewer")),
    }
}

/// Checks that the caller is an admin. Returns the author to record for the caller's commands.
fn grant_change(principal: Principal, request: &HttpRequest) -> Result<CommandAuthor, Problem> {
    match principal.role {
        Some(Role::Admin) => Ok(author(principal, request, RequiredPermission::Admin)),
        _ => Err(Problem::requires_admin()),
    }
}

/// Checks that the caller may change overrides. Commands of the returned author change only overrides that the caller's
/// role permits.
fn grant_override_change(principal: Principal, request: &HttpRequest) -> Result<CommandAuthor, Problem> {
    match principal.role {
        Some(Role::Admin) => Ok(author(principal, request, RequiredPermission::Admin)),
        Some(Role::Support) => Ok(author(principal, request, RequiredPermission::Support)),
        Some(Role::Viewer | Role::User) | None => Err(Problem::requires_support()),
    }
}

fn author(principal: Principal, request: &HttpRequest, permission: RequiredPermission) -> CommandAuthor {
    let request_id = request.extensions().get::<RequestId>().map(|id| id.0.clone());
    let author = Author { actor: principal.actor, request_id };
    CommandAuthor::new(author, principal.credential.required(permission))
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
    ManageFlags: CommandAuthor = |principal, request| grant_change(principal, request);
    /// Read scheduled changes.
    ReadSchedules: () = |principal, _request| grant_read(&principal);
    /// Create, edit and cancel scheduled changes.
    ManageSchedules: CommandAuthor = |principal, request| grant_change(principal, request);
    /// Explain evaluation results of any user.
    ExplainFlags: () = |principal, _request| grant_read(&principal);
    /// Read all users' overrides.
    ReadOverrides: () = |principal, _request| grant_read(&principal);
    /// Change users' overrides.
    ManageOverrides: CommandAuthor = |principal, request| grant_override_change(principal, request);
    /// Read users.
    ReadUsers: () = |principal, _request| grant_read(&principal);
    /// Change users.
    ManageUsers: CommandAuthor = |principal, request| grant_change(principal, request);
    /// Read API tokens.
    ReadTokens: () = |principal, request| grant_change(principal, request).map(|_| ());
    /// Create, rotate and revoke API tokens.
    ManageTokens: CommandAuthor = |principal, request| grant_change(principal, request);
    /// Read the caller's own identity.
    ReadOwnIdentity: Principal = |principal, _request| own_identity(principal);
    /// End the caller's sessions and change the caller's password. Requires a session.
    ManageOwnSession: (CommandAuthor, SessionRecord) = |principal, request| own_session(principal, request);
    /// Read the audit log.
    ReadAuditLog: Credential = |principal, _request| grant_read(&principal).map(|()| principal.credential);
    /// Read the caller's own flag values and overrides.
    ReadOwnFlags: Arc<CachedUser> = |principal, _request| own_flags(&principal);
    /// Open the event stream of the caller's own flag values.
    StreamOwnFlags: (Credential, Arc<CachedUser>) = |principal, _request| {
        Ok((principal.credential.clone(), own_flags(&principal)?))
    };
    /// Evaluate flags. The scope says for which users.
    EvaluateFlags: (Credential, EvaluationScope) = |principal, _request| {
        Ok((principal.credential.clone(), evaluation_scope(&principal)?))
    };
    /// Open the event stream of an evaluation. Requires the stream token that the evaluation returned.
    StreamEvaluations: (StreamToken, FlagVisibility) = |principal, request| stream_evaluations(principal, request);
    /// Open the event stream of all changes.
    StreamChanges: Credential = |principal, _request| grant_read(&principal).map(|()| principal.credential);
}

fn own_identity(principal: Principal) -> Result<Principal, Problem> {
    if principal.is_unknown {
        let detail =
            "no user exists for this JWT; without a user, the JWT permits only reading and evaluating its own flags";
        return Err(Problem::forbidden("no_user", detail));
    }
    Ok(principal)
}

fn own_session(principal: Principal, request: &HttpRequest) -> Result<(CommandAuthor, SessionRecord), Problem> {
    let session = principal.session;
    let session = session.ok_or_else(|| Problem::forbidden("no_session", "requires a session; sign in first"))?;
    Ok((author(principal, request, RequiredPermission::AnyRole), session))
}

/// Extractor that accepts every caller within its rate limit, authenticated or not.
pub(crate) struct AnyCaller;

impl FromRequest for AnyCaller {
    type Error = Problem;
    type Future = Ready<Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let result = request.extensions_mut().remove::<AuthenticationResult>();
        ready(match result {
            Some(Err(Some(problem))) if problem.is_rate_limited() => Err(problem),
            _ => Ok(Self),
        })
    }
}

fn own_flags(principal: &Principal) -> Result<Arc<CachedUser>, Problem> {
    principal.role.and(principal.user.clone()).ok_or_else(|| {
        let detail =
            "the credential does not act as a user; use a session, a JWT, or an API token with a role and a user";
        Problem::forbidden("no_user", detail)
    })
}

/// Evaluation contexts that a caller may evaluate flags for.
pub(crate) enum EvaluationScope {
    /// Any context, with or without a user.
    AnyContext,
    /// The caller's own user only.
    OwnUser(Arc<CachedUser>),
}

fn evaluation_scope(principal: &Principal) -> Result<EvaluationScope, Problem> {
    match principal.role {
        None => Ok(EvaluationScope::AnyContext),
        Some(_) => own_flags(principal).map(EvaluationScope::OwnUser),
    }
}

/// Flags that a caller can see when evaluating flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FlagVisibility {
    /// All flags that are not archived.
    All,
    /// Flags that are visible to clients.
    ClientVisible,
}

impl FlagVisibility {
    pub(crate) const fn includes(self, flag: &CompiledFlag) -> bool {
        match self {
            Self::All => !flag.is_archived(),
            Self::ClientVisible => flag.is_visible_to_clients(),
        }
    }
}

impl EvaluationScope {
    /// Returns the flags that a caller with this scope can see.
    pub(crate) const fn flag_visibility(&self) -> FlagVisibility {
        match self {
            Self::AnyContext => FlagVisibility::All,
            Self::OwnUser(_) => FlagVisibility::ClientVisible,
        }
    }

    /// Whether the scope includes this user; `None` is an anonymous context.
    fn includes_user(&self, user_id: Option<Uuid>) -> bool {
        match self {
            Self::AnyContext => true,
            Self::OwnUser(user) => user_id == Some(user.id),
        }
    }
}

fn stream_evaluations(principal: Principal, request: &HttpRequest) -> Result<(StreamToken, FlagVisibility), Problem> {
    let stream_token = request.extensions().get::<StreamToken>().cloned().ok_or_else(invalid_stream_token)?;
    let scope = evaluation_scope(&principal)?;
    let credential = principal.credential;
    if scope.includes_user(stream_token.user_id) {
        Ok((StreamToken { credential, ..stream_token }, scope.flag_visibility()))
    } else {
        Err(invalid_stream_token())
    }
}

/// 401 for a missing, malformed or expired stream token.
pub(super) fn invalid_stream_token() -> Problem {
    let detail = "stream token is missing, invalid or expired; evaluate all flags to get a new stream URL";
    Problem::unauthorized().with_detail(detail)
}

/// Content of a long-lived response (an event stream or an export), for which the server repeats the permission check
/// while the response lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StreamSubject {
    /// The caller's own flag values.
    OwnFlags,
    /// All changes: an event stream of new changes, or an export of the audit log.
    Changes,
    /// Changes that may affect evaluations for this user, or for an anonymous context (`None`).
    Evaluations(Option<Uuid>),
}

impl StreamSubject {
    /// Returns the kind of event stream that sends this content.
    pub(crate) const fn kind(self) -> StreamKind {
        match self {
            Self::OwnFlags => StreamKind::OwnFlags,
            Self::Changes => StreamKind::Changes,
            Self::Evaluations(_) => StreamKind::Evaluations,
        }
    }
}

impl Credential {
    /// Whether the caller may still read `subject`. If the database is unavailable, the permission is assumed to be
    /// unchanged.
    pub(crate) async fn is_still_allowed(&self, subject: StreamSubject, app: &App) -> bool {
        match Principal::resolve(app, self.clone(), false).await {
            Ok(principal) => match subject {
                StreamSubject::OwnFlags => own_flags(&principal).is_ok(),
                StreamSubject::Changes => grant_read(&principal).is_ok(),
                StreamSubject::Evaluations(user_id) => {
                    evaluation_scope(&principal).is_ok_and(|scope| scope.includes_user(user_id))
                }
            },
            Err(problem) => problem.is_unavailable(),
        }
    }
}

/// Checks that the credential is still valid and still has the permission.
async fn check_again<P: Permission>(request: HttpRequest, credential: Credential) -> Result<(), Problem> {
    let app = request.app_data::<Data<App>>().ok_or_else(Problem::unauthorized)?;
    let principal = Principal::resolve(app, credential, false).await?;
    P::grant(principal, &request).map(|_| ())
}

impl<P: Permission + 'static> FromRequest for Require<P> {
    type Error = Problem;
    type Future = Ready<Result<Self, Problem>>;

    /// If the request has a body, the body extractor repeats the permission check after the body has arrived.
    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let result = request.extensions_mut().remove::<AuthenticationResult>();
        ready(match result {
            Some(Ok(principal)) => {
                if !matches!(payload, Payload::None) {
                    let credential = principal.credential.clone();
                    let check = BodyCheck::new(move |request| Box::pin(check_again::<P>(request, credential.clone())));
                    request.extensions_mut().insert(check);
                }
                P::grant(principal, request).map(|granted| Self { granted, permission: PhantomData })
            }
            Some(Err(Some(problem))) => Err(problem),
            Some(Err(None)) | None => Err(Problem::unauthorized()),
        })
    }
}
