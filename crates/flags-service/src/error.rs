//! What a use case can answer besides success, without a word of HTTP.

use std::time::Duration;

use flags_domain::Violation;
pub use flags_store::change_log::ResourceKind;
use flags_store::{StoreError, idempotency::StoredResponse};

/// Why a use case did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// What the request names is not there.
    #[error("there is no such {0}")]
    NotFound(ResourceKind),
    /// The state does not allow it; nothing is wrong with the request itself.
    #[error("{0}")]
    Conflict(Conflict),
    /// The caller expected another state (`If-Match`, `If-None-Match`).
    #[error("the resource is not in the expected state")]
    PreconditionFailed,
    /// The request can be understood but breaks rules; each violation points at a field of it.
    #[error("the request is invalid")]
    Invalid(Vec<Violation>),
    /// What is known of the user is not at hand and the database cannot be asked: better no answer than a guess.
    #[error("the user's attributes are not at hand")]
    ContextUnavailable,
    /// Nothing was done, since it was done before under the same idempotency key: this is the answer of then.
    #[error("this was carried out before, under the same idempotency key")]
    Answered(StoredResponse),
    /// The idempotency key stands for another request.
    #[error("the idempotency key was used for another request")]
    KeyTaken,
    /// E-mail and password do not belong together, or their owner may not sign in: which of it is nobody's business.
    #[error("e-mail or password is wrong")]
    SignInRefused,
    /// Too many attempts failed; the next one may come later.
    #[error("too many attempts failed")]
    TooSoon {
        /// How much later.
        retry_after: Duration,
    },
    /// Too much of this is being done at once; it may be tried again soon.
    #[error("{0}")]
    Busy(&'static str),
    /// The database failed; some of its errors pass if the request is sent again.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Nothing that a caller could do anything about.
    #[error("{0}")]
    Internal(String),
}

/// Shorthand for results of use cases.
pub type Result<T> = std::result::Result<T, ServiceError>;

/// What can stand in the way.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Conflict {
    /// The user has an override of this flag already.
    #[error("the user has an override of this flag already; change or replace that one instead")]
    OverrideExists,
    /// There is a flag of this name already.
    #[error("there is a flag of this name already")]
    FlagExists,
    /// The flag is archived.
    #[error("the flag is archived; restore it first")]
    FlagArchived,
    /// Only archived flags can be deleted.
    #[error("only an archived flag can be deleted; archive it first")]
    FlagNotArchived,
    /// Something still serves a variant that is to go.
    #[error(
        "variants in use cannot be removed: {0}; change these uses in the same request, or cancel the scheduled change"
    )]
    VariantInUse(String),
    /// Another scheduled change of the flag stands at the same instant.
    #[error("another scheduled change of this flag stands at the same instant")]
    ScheduledChangeExists,
    /// Only pending scheduled changes can be edited or cancelled.
    #[error("only a pending scheduled change can be edited or cancelled; this one is {0}")]
    NotPending(&'static str),
    /// The e-mail is taken.
    #[error("another user has this e-mail already")]
    EmailTaken,
    /// Somebody must be left who can administer.
    #[error("the last active admin cannot be removed, demoted or deactivated")]
    LastAdmin,
    /// Only a token that is valid can be followed by another.
    #[error("only a valid token can be rotated; this one has expired")]
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

/// `Ok` if nothing is wrong.
pub(crate) fn check(violations: Vec<Violation>) -> Result<()> {
    if violations.is_empty() { Ok(()) } else { Err(ServiceError::Invalid(violations)) }
}
