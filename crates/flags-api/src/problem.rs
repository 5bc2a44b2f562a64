//! Error responses: problem documents (RFC 9457, `application/problem+json`) with a stable `code`.

use std::time::Duration;

use actix_web::{
    HttpResponse, ResponseError,
    http::{
        StatusCode,
        header::{self, HeaderName, HeaderValue},
    },
};
use flags_domain::Violation;
use flags_service::{Conflict, CredentialRejection, ResourceKind, ServiceError};
use flags_store::StoreError;
use serde::Serialize;
use utoipa::{ToResponse, ToSchema};

use crate::json::to_json;

/// Media type of problem documents.
pub(crate) const PROBLEM_MEDIA_TYPE: &str = "application/problem+json";

/// Error response. The outermost middleware writes its body, because only the middleware knows the request id.
#[derive(Debug)]
pub(crate) struct Problem {
    status: StatusCode,
    code: &'static str,
    detail: String,
    errors: Vec<Violation>,
    header: Option<(HeaderName, HeaderValue)>,
    /// Internal cause. It appears in the application log only.
    cause: Option<String>,
}

/// Problem document (RFC 9457), the body of every error response.
#[derive(Serialize, ToSchema)]
pub(crate) struct ProblemBody<'p> {
    /// URI of the problem type: `urn:feature-flags:problem:` followed by `code`.
    #[serde(rename = "type")]
    #[schema(example = "urn:feature-flags:problem:override_exists")]
    kind: String,
    /// Reason phrase of the HTTP status, such as `Conflict`.
    title: &'p str,
    /// HTTP status code.
    status: u16,
    /// Description of this error and how to fix it. The wording may change; use `code` in programs.
    detail: &'p str,
    /// Request id, as in the `X-Request-Id` response header. Quote it when reporting an error.
    instance: &'p str,
    /// Stable, machine-readable error code.
    #[schema(example = "override_exists")]
    code: &'static str,
    /// Invalid fields of the request. Present with status 422 only.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<FieldError<'p>>,
}

/// Invalid field of a request.
#[derive(Serialize, ToSchema)]
pub(crate) struct FieldError<'p> {
    /// JSON pointer (RFC 6901) to the field in the body, or `/` followed by the name of a query parameter or header.
    pointer: &'p str,
    /// Stable, machine-readable error code.
    code: &'p str,
    /// Description of the error and how to fix it.
    detail: &'p str,
}

impl<'p> From<&'p Violation> for FieldError<'p> {
    fn from(violation: &'p Violation) -> Self {
        let Violation { pointer, code, detail } = violation;
        Self { pointer, code, detail }
    }
}

/// Response for all errors in the OpenAPI document.
#[derive(ToResponse)]
#[response(
    description = "Error (RFC 9457)",
    content_type = "application/problem+json",
    headers((
        "Retry-After" = Option<u32>,
        description = "Time to wait before the next attempt, in seconds. Sent with 429 and 503."
    ))
)]
#[expect(dead_code, reason = "response schema of the OpenAPI document")]
pub(crate) struct ProblemResponse(ProblemBody<'static>);

impl Problem {
    pub(crate) fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self { status, code, detail: detail.into(), errors: Vec::new(), header: None, cause: None }
    }

    pub(crate) fn not_found(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, code, detail)
    }

    pub(crate) fn invalid(errors: Vec<Violation>) -> Self {
        // The API contract requires a separate top-level code for an override value of the wrong type. All other
        // invalid fields share one code.
        let mismatch = errors.iter().any(|e| e.code == "value_type_mismatch" && e.pointer == "/override_value");
        let code = if mismatch { "value_type_mismatch" } else { "validation_failed" };
        let detail = errors.first().map_or_else(String::new, |first| match first.pointer.as_str() {
            "" => first.detail.clone(),
            pointer => format!("{pointer}: {}", first.detail),
        });
        Self { errors, ..Self::new(StatusCode::UNPROCESSABLE_ENTITY, code, detail) }
    }

    pub(crate) fn unauthorized() -> Self {
        let detail = "missing or invalid credential; send `Authorization: Bearer <token>` or sign in";
        let header = (header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        Self { header: Some(header), ..Self::new(StatusCode::UNAUTHORIZED, "unauthorized", detail) }
    }

    pub(crate) fn forbidden(code: &'static str, detail: &str) -> Self {
        Self::new(StatusCode::FORBIDDEN, code, detail)
    }

    /// 403 for a caller without role admin.
    pub(crate) fn requires_admin() -> Self {
        Self::forbidden("forbidden", "requires role admin")
    }

    /// 403 for a caller that may not change overrides.
    pub(crate) fn requires_support() -> Self {
        Self::forbidden("forbidden", "requires role admin or support")
    }

    pub(crate) fn unavailable(code: &'static str, detail: &str, retry_after: &'static str) -> Self {
        let header = (header::RETRY_AFTER, HeaderValue::from_static(retry_after));
        Self { header: Some(header), ..Self::new(StatusCode::SERVICE_UNAVAILABLE, code, detail) }
    }

    /// 429 with `Retry-After`. `wait` is rounded up to whole seconds, at least 1.
    pub(crate) fn too_many_requests(code: &'static str, detail: &str, wait: Duration) -> Self {
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        let header = (header::RETRY_AFTER, HeaderValue::from(seconds.max(1)));
        Self { header: Some(header), ..Self::new(StatusCode::TOO_MANY_REQUESTS, code, detail) }
    }

    pub(crate) fn internal(cause: String) -> Self {
        let detail = "internal error; quote the request id when reporting it";
        Self { cause: Some(cause), ..Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal_error", detail) }
    }

    pub(crate) fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.header = Some((name, value));
        self
    }

    pub(crate) fn with_detail(mut self, detail: &str) -> Self {
        detail.clone_into(&mut self.detail);
        self
    }

    /// Whether the status is 503, so a retry of the same request can succeed.
    pub(crate) fn is_unavailable(&self) -> bool {
        self.status == StatusCode::SERVICE_UNAVAILABLE
    }

    /// Whether the status is 429.
    pub(crate) fn is_rate_limited(&self) -> bool {
        self.status == StatusCode::TOO_MANY_REQUESTS
    }

    pub(crate) const fn code(&self) -> &'static str {
        self.code
    }

    pub(crate) fn detail(&self) -> &str {
        &self.detail
    }

    /// Returns the internal cause, for the application log.
    pub(crate) fn cause(&self) -> Option<&str> {
        self.cause.as_deref()
    }

    /// Serializes the problem document.
    pub(crate) fn body(&self, request_id: &str) -> String {
        let body = ProblemBody {
            kind: format!("urn:feature-flags:problem:{}", self.code),
            title: self.status.canonical_reason().unwrap_or_default(),
            status: self.status.as_u16(),
            detail: &self.detail,
            instance: request_id,
            code: self.code,
            errors: self.errors.iter().map(Into::into).collect(),
        };
        to_json(&body)
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.code)
    }
}

impl ResponseError for Problem {
    fn status_code(&self) -> StatusCode {
        self.status
    }

    fn error_response(&self) -> HttpResponse {
        let mut response = HttpResponse::build(self.status);
        response.content_type(PROBLEM_MEDIA_TYPE);
        if let Some(header) = &self.header {
            response.insert_header(header.clone());
        }
        response.finish()
    }
}

impl From<Violation> for Problem {
    fn from(violation: Violation) -> Self {
        Self::invalid(vec![violation])
    }
}

impl From<ServiceError> for Problem {
    fn from(error: ServiceError) -> Self {
        match error {
            ServiceError::NotFound(kind) => Self::not_found(not_found_code(kind), format!("no such {kind}")),
            ServiceError::Conflict(conflict) => {
                Self::new(StatusCode::CONFLICT, conflict_code(&conflict), conflict.to_string())
            }
            ServiceError::PreconditionFailed => {
                let detail =
                    "the resource was changed, created or deleted since it was last read; read it again and retry";
                Self::new(StatusCode::PRECONDITION_FAILED, "precondition_failed", detail)
            }
            ServiceError::Invalid(violations) => Self::invalid(violations),
            ServiceError::ContextUnavailable => {
                let detail = "the user's attributes are unavailable because the database cannot be read; retry later";
                Self::unavailable("context_unavailable", detail, "2")
            }
            ServiceError::IdempotencyKeyReused => {
                let detail =
                    "the Idempotency-Key was already used for a different request; use a new key for each request";
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, "idempotency_key_reused", detail)
            }
            ServiceError::CredentialRejected(CredentialRejection::Invalid) => Self::unauthorized(),
            ServiceError::CredentialRejected(CredentialRejection::RequiresAdmin) => Self::requires_admin(),
            ServiceError::CredentialRejected(CredentialRejection::RequiresSupport) => Self::requires_support(),
            ServiceError::UserNotPermitted => Self::forbidden("user_not_permitted", &error.to_string()),
            ServiceError::InvalidCredentials => {
                Self::new(StatusCode::UNAUTHORIZED, "sign_in_failed", "wrong e-mail address or password")
            }
            ServiceError::TooManyAttempts { retry_after } => {
                let detail = "too many failed password attempts; retry after the time in Retry-After";
                Self::too_many_requests("too_many_attempts", detail, retry_after)
            }
            ServiceError::Busy(detail) => Self::unavailable("busy", detail, "1"),
            // `execute_idempotently` handles this error by returning the stored response, so it is never converted.
            ServiceError::Replayed(_) => Self::internal("a stored response was not replayed".to_owned()),
            ServiceError::Store(error) => Self::from(error),
            ServiceError::UserUnreadable => Self::internal(error.to_string()),
            ServiceError::Internal(cause) => Self::internal(cause),
        }
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        let cause = error.to_string();
        let problem = match error {
            StoreError::Unavailable(_) => {
                Self::unavailable("database_unavailable", "the database is unavailable; retry later", "2")
            }
            StoreError::TransactionConflict(_) => {
                Self::unavailable("busy", "the change conflicts with concurrent changes; retry later", "1")
            }
            StoreError::ChangeLogUnreadable(_) => {
                let detail =
                    "the change log cannot be read, so no change can be made; an operator must repair the database";
                Self::unavailable("change_log_unreadable", detail, "30")
            }
            StoreError::Outdated { .. } => {
                let detail =
                    "the database requires a newer version of the server; an operator must upgrade this server";
                Self::unavailable("server_outdated", detail, "30")
            }
            StoreError::UnreadableFlag { .. } => {
                let detail =
                    format!("{cause}; change the flag with the server version that wrote it, or archive the flag");
                return Self::new(StatusCode::CONFLICT, "flag_unreadable", detail);
            }
            StoreError::UniqueViolation(_) | StoreError::Corrupt(_) | StoreError::Database(_) => {
                return Self::internal(cause);
            }
        };
        Self { cause: Some(cause), ..problem }
    }
}

const fn not_found_code(kind: ResourceKind) -> &'static str {
    match kind {
        ResourceKind::User => "user_not_found",
        ResourceKind::Flag => "flag_not_found",
        ResourceKind::Override => "override_not_found",
        ResourceKind::ScheduledChange => "scheduled_change_not_found",
        ResourceKind::ApiToken => "token_not_found",
    }
}

const fn conflict_code(conflict: &Conflict) -> &'static str {
    match conflict {
        Conflict::OverrideExists => "override_exists",
        Conflict::FlagExists => "flag_exists",
        Conflict::FlagArchived => "flag_archived",
        Conflict::FlagNotArchived => "flag_not_archived",
        Conflict::VariantInUse(_) => "variant_in_use",
        Conflict::ScheduledChangeExists => "scheduled_change_exists",
        Conflict::NotPending(_) => "not_pending",
        Conflict::EmailTaken => "email_taken",
        Conflict::ExternalIdTaken => "external_id_taken",
        Conflict::ExternalIdFixed => "external_id_fixed",
        Conflict::IdTaken => "id_taken",
        Conflict::LastAdmin => "last_admin",
        Conflict::TokenExpired => "token_expired",
    }
}
