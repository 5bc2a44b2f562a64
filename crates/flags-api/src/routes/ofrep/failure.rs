//! Errors in the protocol's own shape: whatever fails below `/ofrep`, wherever it fails.

use actix_web::http::StatusCode;
use percent_encoding::percent_decode_str;
use serde::Serialize;
use utoipa::{ToResponse, ToSchema};

use super::BULK_EVALUATION;
use crate::problem::Problem;

/// What went wrong, in the words of OpenFeature.
#[derive(Serialize, ToSchema)]
pub(crate) struct EvaluationFailure {
    /// The flag that was asked for, if it was one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    key: Option<String>,
    #[serde(rename = "errorCode")]
    error_code: ErrorCode,
    /// What is wrong and what to do.
    #[serde(rename = "errorDetails")]
    error_details: String,
}

/// The kinds of errors that OpenFeature knows, as far as a server can tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
enum ErrorCode {
    FlagNotFound,
    /// The body is no JSON, or the flag's definition cannot be evaluated.
    ParseError,
    TargetingKeyMissing,
    InvalidContext,
    /// Anything else; the status says more.
    General,
}

/// Any error of the protocol's operations, in the OpenAPI document.
#[derive(ToResponse)]
#[response(
    description = "An error of the OpenFeature Remote Evaluation Protocol",
    content_type = "application/json",
    headers(("Retry-After" = Option<u32>, description = "With 429 and 503: seconds to wait before trying again"))
)]
#[expect(dead_code, reason = "stands for failures in the OpenAPI document")]
pub(crate) struct EvaluationFailureResponse(EvaluationFailure);

impl EvaluationFailure {
    /// Of a flag among others, whose definition cannot be compiled.
    pub(super) fn unreadable(key: &str) -> Self {
        let error_details = unreadable().detail().to_owned();
        Self { key: Some(key.to_owned()), error_code: ErrorCode::ParseError, error_details }
    }

    pub(super) fn json(&self) -> String {
        // A struct of texts can always be written.
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// Also of a key that is no part of a path.
const NO_FLAG: &str = "there is no such flag";

/// Whether a path belongs to the protocol.
pub(crate) fn is_below(path: &str) -> bool {
    path.strip_prefix("/ofrep").is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Status, media type and body of an error answer, if the path belongs to the protocol.
pub(crate) fn failure(path: &str, problem: &Problem, status: StatusCode) -> Option<(StatusCode, &'static str, String)> {
    if !is_below(path) {
        return None;
    }
    let key = path.strip_prefix(BULK_EVALUATION).and_then(|rest| rest.strip_prefix('/'));
    let key = key.map(|key| percent_decode_str(key).decode_utf8_lossy().into_owned());
    let error_code = error_code(problem.code(), status, key.is_some());
    let details = if error_code == ErrorCode::FlagNotFound { NO_FLAG } else { problem.detail() };
    let failure = EvaluationFailure { key, error_code, error_details: details.to_owned() };
    // Providers know 400 as what is wrong with a request, and nothing of 422.
    let status = if status == StatusCode::UNPROCESSABLE_ENTITY { StatusCode::BAD_REQUEST } else { status };
    Some((status, "application/json", failure.json()))
}

fn error_code(code: &str, status: StatusCode, asks_for_flag: bool) -> ErrorCode {
    match code {
        "targeting_key_missing" => ErrorCode::TargetingKeyMissing,
        "invalid_context" => ErrorCode::InvalidContext,
        "invalid_json" | "flag_unreadable" => ErrorCode::ParseError,
        // Some providers leave slashes in a key as they are: then its path is that of nothing.
        _ if status == StatusCode::NOT_FOUND && asks_for_flag => ErrorCode::FlagNotFound,
        _ => ErrorCode::General,
    }
}

/// The flag's definition cannot be compiled. Why is for those who may read it.
pub(super) fn unreadable() -> Problem {
    let detail = "this flag's definition cannot be evaluated; its explanation says why";
    Problem::new(StatusCode::BAD_REQUEST, "flag_unreadable", detail)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn check(path: &str, problem: &Problem, status: StatusCode, expected: (u16, Value)) {
        let (status, media_type, body) = failure(path, problem, status).unwrap();
        let body: Value = serde_json::from_str(&body).unwrap();
        assert_eq!((status.as_u16(), body, media_type), (expected.0, expected.1, "application/json"), "{path}");
    }

    #[test]
    fn a_failure_names_the_flag_that_was_asked_for_as_it_was_meant() {
        let missing = Problem::not_found("not_found", "nothing here");
        let not_found = |key: &str| json!({"key": key, "errorCode": "FLAG_NOT_FOUND", "errorDetails": NO_FLAG});
        for (path, key) in
            [("a%2Fb", "a/b"), ("a/b", "a/b"), ("", ""), ("%22%E2%82%AC%22", "\"€\""), ("%ff", "\u{fffd}")]
        {
            let path = format!("{BULK_EVALUATION}/{path}");
            check(&path, &missing, StatusCode::NOT_FOUND, (404, not_found(key)));
        }
        let general = json!({"errorCode": "GENERAL", "errorDetails": "nothing here"});
        check("/ofrep/v2/x", &missing, StatusCode::NOT_FOUND, (404, general));
    }

    #[test]
    fn what_a_request_got_wrong_is_400() {
        let invalid = Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "validation_failed", "x");
        let expected = json!({"errorCode": "GENERAL", "errorDetails": "x"});
        check(BULK_EVALUATION, &invalid, StatusCode::UNPROCESSABLE_ENTITY, (400, expected));
    }

    #[test]
    fn problems_elsewhere_stay_as_they_are() {
        let missing = Problem::not_found("not_found", "nothing here");
        for path in ["/", "/api/flags/me", "/ofreps", "/api/ofrep/v1"] {
            assert!(failure(path, &missing, StatusCode::NOT_FOUND).is_none(), "{path}");
        }
    }
}
