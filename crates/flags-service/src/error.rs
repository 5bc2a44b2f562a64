//! Errors of the service layer, independent of the transport.

use std::time::Duration;

pub use flags_domain::ResourceKind;
use flags_domain::Violation;
use flags_store::{StoreError, idempotency::StoredResponse};

/// Failure of a service operation, classified by its meaning to the caller.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// A resource that the request names does not exist.
    #[error("no such {0}")]
    NotFound(ResourceKind),
    /// The request is valid but conflicts with the current state.
    #[error("{0}")]
    Conflict(Conflict),
    /// The [`Precondition`](crate::Precondition) of a conditional request does not hold.
    #[error("the resource does not match the precondition of the request")]
    PreconditionFailed,
    /// The request violates validation rules. Each violation points to a field.
    #[error("the request is invalid")]
    Invalid(Vec<Violation>),
    /// The user is not in the cache and the database cannot be read, so the evaluation context is unknown.
    #[error("the user's attributes are unavailable because the database cannot be read")]
    ContextUnavailable,
    /// The user's database row cannot be decoded.
    #[error("the user cannot be read")]
    UserUnreadable,
    /// A request with the same idempotency key was already executed. Contains the response stored at that time.
    #[error("a request with this idempotency key was already executed")]
    Replayed(StoredResponse),
    /// The idempotency key was used before with a different request.
    #[error("the idempotency key was already used for a different request")]
    IdempotencyKeyReused,
    /// The caller's credential became invalid, or lost the required permission, before the request
    /// was completed.
    #[error(transparent)]
    CredentialRejected(CredentialRejection),
    /// The caller may change overrides, but not those of this user.
    #[error("role support may change overrides of users with role user only; ask an admin to change this override")]
    UserNotPermitted,
    /// The e-mail address or the password is wrong, or the user is inactive. The error does not reveal which.
    #[error("wrong e-mail address or password")]
    InvalidCredentials,
    /// Sign-in is throttled after too many failed attempts.
    #[error("too many failed sign-in attempts; retry later")]
    TooManyAttempts {
        /// Time until the next attempt is allowed.
        retry_after: Duration,
    },
    /// A concurrency limit is reached; the request can be retried soon. Contains the detail for the caller.
    #[error("{0}")]
    Busy(&'static str),
    /// A database error. Some are transient, such as [`StoreError::Unavailable`].
    #[error(transparent)]
    Store(#[from] StoreError),
    /// An internal error that the caller cannot resolve. Contains the cause for the application log.
    #[error("{0}")]
    Internal(String),
}

/// Result of a service operation.
pub type Result<T> = std::result::Result<T, ServiceError>;

/// Reason for rejecting a credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CredentialRejection {
    /// The credential is unknown, revoked or expired, or its user is deleted or inactive.
    #[error("the credential is not valid")]
    Invalid,
    /// The credential is valid but does not have role admin.
    #[error("requires role admin")]
    RequiresAdmin,
    /// The credential is valid but has neither role admin nor role support.
    #[error("requires role admin or support")]
    RequiresSupport,
}

/// Conflict with the current state. The messages are written for API users.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Conflict {
    /// The user already has an override of the flag.
    #[error("the user already has an override of this flag; update or replace the existing override")]
    OverrideExists,
    /// The flag name is taken.
    #[error("a flag with this name already exists; choose another name")]
    FlagExists,
    /// The flag is archived and must be restored before it can be changed.
    #[error("the flag is archived; restore it first")]
    FlagArchived,
    /// The flag is not archived; only archived flags can be deleted.
    #[error("only archived flags can be deleted; archive the flag first")]
    FlagNotArchived,
    /// The change removes variants that are still in use. Contains the list of uses.
    #[error(
        "variants in use cannot be removed: {0}; change these uses in the same request, or cancel the scheduled changes"
    )]
    VariantInUse(String),
    /// The flag already has a scheduled change at the same instant.
    #[error("the flag already has a scheduled change at this instant; choose a different instant")]
    ScheduledChangeExists,
    /// The scheduled change is no longer pending. Contains its status.
    #[error("only pending scheduled changes can be edited or cancelled (this one is {0})")]
    NotPending(&'static str),
    /// The e-mail address belongs to another user.
    #[error("another user already has this e-mail address; use a different address")]
    EmailTaken,
    /// The external id belongs to another user.
    #[error("another user already has this external id; use a different external id")]
    ExternalIdTaken,
    /// The user already has another external id.
    #[error("the external id of a user cannot be changed or removed once it is set")]
    ExternalIdFixed,
    /// The user id that is derived from the external id belongs to another user.
    #[error("another user already has the user id that is derived from this external id; use a different external id")]
    IdTaken,
    /// The change would leave no active admin.
    #[error("the last active admin cannot be deleted, demoted or deactivated; make another user an admin first")]
    LastAdmin,
    /// The token has expired; only valid tokens can be rotated.
    #[error("the token has expired and cannot be rotated; create a new token")]
    TokenExpired,
}

impl From<Conflict> for ServiceError {
    fn from(conflict: Conflict) -> Self {
        Self::Conflict(conflict)
    }
}

impl From<Violation> for ServiceError {
    fn from(violation: Violation) -> Self {
        Self::Invalid(vec![violation])
    }
}

/// Returns [`ServiceError::Invalid`] unless `violations` is empty.
pub(crate) fn check(violations: Vec<Violation>) -> Result<()> {
    if violations.is_empty() { Ok(()) } else { Err(ServiceError::Invalid(violations)) }
}
