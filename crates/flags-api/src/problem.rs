//! Errors as they go over the wire: `application/problem+json` (RFC 9457), with a stable `code`.

use std::time::Duration;

use actix_web::{
    HttpResponse, ResponseError,
    http::{
        StatusCode,
        header::{self, HeaderName, HeaderValue},
    },
};
use flags_domain::Violation;
use flags_service::{Conflict, ResourceKind, ServiceError};
use flags_store::StoreError;
use serde::Serialize;
use utoipa::{ToResponse, ToSchema};

/// Media type of problems.
pub(crate) const MEDIA_TYPE: &str = "application/problem+json";

/// An error answer. Its body is written by the outermost middleware, which knows the request's id.
#[derive(Debug)]
pub(crate) struct Problem {
    status: StatusCode,
    code: &'static str,
    detail: String,
    errors: Vec<Violation>,
    header: Option<(HeaderName, HeaderValue)>,
    /// For the log alone.
    cause: Option<String>,
}

/// The body of every error answer (RFC 9457).
#[derive(Serialize, ToSchema)]
pub(crate) struct ProblemBody<'p> {
    /// A URI that names the kind of problem.
    #[serde(rename = "type")]
    #[schema(example = "urn:feature-flags:problem:override_exists")]
    kind: String,
    /// The status in words.
    title: &'p str,
    /// The HTTP status.
    status: u16,
    /// What is wrong and what to do.
    detail: &'p str,
    /// The request's id, as in `X-Request-Id`.
    instance: &'p str,
    /// Stable name of the problem.
    #[schema(example = "override_exists")]
    code: &'static str,
    /// With 422: what is wrong with which field.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    #[schema(value_type = Vec<FieldError>)]
    errors: &'p [Violation],
}

/// What is wrong with one field of a request.
#[derive(ToSchema)]
#[expect(dead_code, reason = "stands for the domain's violation in the OpenAPI document")]
pub(crate) struct FieldError {
    /// JSON pointer (RFC 6901) into the body; for query parameters `/` and the name.
    pointer: String,
    /// Stable name of the problem.
    code: String,
    /// What is wrong and what to do.
    detail: String,
}

/// Any error, in the OpenAPI document.
#[derive(ToResponse)]
#[response(
    description = "A problem (RFC 9457)",
    content_type = "application/problem+json",
    headers(("Retry-After" = Option<u32>, description = "With 429 and 503: seconds to wait before trying again"))
)]
#[expect(dead_code, reason = "stands for problems in the OpenAPI document")]
pub(crate) struct ProblemResponse(ProblemBody<'static>);

impl Problem {
    pub(crate) fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self { status, code, detail: detail.into(), errors: Vec::new(), header: None, cause: None }
    }

    pub(crate) fn not_found(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, code, detail)
    }

    pub(crate) fn invalid(errors: Vec<Violation>) -> Self {
        // The contract names this one code; everything else about a body is told field by field.
        let mismatch = errors.iter().any(|e| e.code == "value_type_mismatch" && e.pointer == "/override_value");
        let code = if mismatch { "value_type_mismatch" } else { "validation_failed" };
        let detail = errors.first().map_or_else(String::new, |first| match first.pointer.as_str() {
            "" => first.detail.clone(),
            pointer => format!("{pointer}: {}", first.detail),
        });
        Self { errors, ..Self::new(StatusCode::UNPROCESSABLE_ENTITY, code, detail) }
    }

    pub(crate) fn unauthorized() -> Self {
        let detail = "send a valid credential (Authorization: Bearer …), or sign in";
        let header = (header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        Self { header: Some(header), ..Self::new(StatusCode::UNAUTHORIZED, "unauthorized", detail) }
    }

    pub(crate) fn forbidden(code: &'static str, detail: &str) -> Self {
        Self::new(StatusCode::FORBIDDEN, code, detail)
    }

    pub(crate) fn unavailable(code: &'static str, detail: &str, retry_after: &'static str) -> Self {
        let header = (header::RETRY_AFTER, HeaderValue::from_static(retry_after));
        Self { header: Some(header), ..Self::new(StatusCode::SERVICE_UNAVAILABLE, code, detail) }
    }

    /// 429; `wait` is rounded up to whole seconds.
    pub(crate) fn too_many_requests(code: &'static str, detail: &str, wait: Duration) -> Self {
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        let header = (header::RETRY_AFTER, HeaderValue::from(seconds.max(1)));
        Self { header: Some(header), ..Self::new(StatusCode::TOO_MANY_REQUESTS, code, detail) }
    }

    pub(crate) fn internal(cause: String) -> Self {
        let detail = "something went wrong inside; the log has it under this request's id";
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

    /// Whether nothing is wrong with the request but that it cannot be answered now.
    pub(crate) fn is_outage(&self) -> bool {
        self.status == StatusCode::SERVICE_UNAVAILABLE
    }

    /// Whether the caller asked for too much.
    pub(crate) fn is_rate_limit(&self) -> bool {
        self.status == StatusCode::TOO_MANY_REQUESTS
    }

    /// Stable name of what is wrong.
    pub(crate) const fn code(&self) -> &'static str {
        self.code
    }

    /// What is wrong and what to do.
    pub(crate) fn detail(&self) -> &str {
        &self.detail
    }

    /// What went wrong inside, for the log.
    pub(crate) fn cause(&self) -> Option<&str> {
        self.cause.as_deref()
    }

    /// The body for the request of this id.
    pub(crate) fn body(&self, request_id: &str) -> String {
        let body = ProblemBody {
            kind: format!("urn:feature-flags:problem:{}", self.code),
            title: self.status.canonical_reason().unwrap_or_default(),
            status: self.status.as_u16(),
            detail: &self.detail,
            instance: request_id,
            code: self.code,
            errors: &self.errors,
        };
        serde_json::to_string(&body).unwrap_or_default()
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
        response.content_type(MEDIA_TYPE);
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
            ServiceError::NotFound(thing) => Self::not_found(missing(thing), format!("there is no such {thing}")),
            ServiceError::Conflict(conflict) => {
                Self::new(StatusCode::CONFLICT, conflict_code(&conflict), conflict.to_string())
            }
            ServiceError::PreconditionFailed => {
                let detail = "the resource has changed or is not there; read it again";
                Self::new(StatusCode::PRECONDITION_FAILED, "precondition_failed", detail)
            }
            ServiceError::Invalid(violations) => Self::invalid(violations),
            ServiceError::ContextUnavailable => {
                let detail = "what is known of the user cannot be looked up at the moment";
                Self::unavailable("context_unavailable", detail, "2")
            }
            ServiceError::KeyTaken => {
                let detail = "this Idempotency-Key was used for another request; take a new key for each request";
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, "idempotency_key_reused", detail)
            }
            ServiceError::SignInRefused => {
                Self::new(StatusCode::UNAUTHORIZED, "sign_in_failed", "e-mail or password is wrong")
            }
            ServiceError::TooSoon { retry_after } => {
                let detail = "too many attempts have failed; wait a little before the next";
                Self::too_many_requests("too_many_attempts", detail, retry_after)
            }
            ServiceError::Busy(detail) => Self::unavailable("busy", detail, "1"),
            // Handlers that pass a key on give the kept answer themselves.
            ServiceError::Answered(_) => Self::internal("a kept answer was not given".to_owned()),
            ServiceError::Store(error) => Self::from(error),
            ServiceError::Internal(cause) => Self::internal(cause),
        }
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        let cause = error.to_string();
        let problem = match error {
            StoreError::Unavailable(_) => {
                Self::unavailable("database_unavailable", "the database is not available; try again", "2")
            }
            StoreError::Collision(_) => Self::unavailable("busy", "too many changes at once; try again", "1"),
            StoreError::Duplicate(_) | StoreError::Corrupt(_) | StoreError::Refused(_) => {
                return Self::internal(cause);
            }
        };
        Self { cause: Some(cause), ..problem }
    }
}

const fn missing(thing: ResourceKind) -> &'static str {
    match thing {
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
        Conflict::LastAdmin => "last_admin",
        Conflict::TokenExpired => "token_expired",
    }
}
