//! Error format of OFREP, used for every error response below `/ofrep`.

use actix_web::http::StatusCode;
use percent_encoding::percent_decode_str;
use serde::Serialize;
use utoipa::{ToResponse, ToSchema};

use crate::{json::to_json, problem::Problem};

/// Path of the bulk evaluation. The path of a single evaluation is this path, a slash and the flag's key.
pub(crate) const BULK_EVALUATION_PATH: &str = "/ofrep/v1/evaluate/flags";

/// Error in the format of the OpenFeature Remote Evaluation Protocol.
#[derive(Serialize, ToSchema)]
#[cfg_attr(test, derive(serde::Deserialize))]
pub(crate) struct EvaluationFailure {
    /// Requested flag. Absent if the request is not for a single flag.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    key: Option<String>,
    #[serde(rename = "errorCode")]
    error_code: OfrepErrorCode,
    /// Description of the error and how to fix it.
    #[serde(rename = "errorDetails")]
    error_details: String,
}

/// OpenFeature error code.
///
/// - `FLAG_NOT_FOUND`: no such flag, or the caller cannot see it
/// - `PARSE_ERROR`: the body is not valid JSON, or the flag's definition is invalid
/// - `INVALID_CONTEXT`: the context is malformed or too large
/// - `GENERAL`: any other error, such as a flag that exceeds the evaluation budget; see the HTTP status
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[cfg_attr(test, derive(serde::Deserialize))]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
enum OfrepErrorCode {
    FlagNotFound,
    ParseError,
    InvalidContext,
    General,
}

/// Error response of every OFREP operation.
#[derive(ToResponse)]
#[response(
    description = "An error of the OpenFeature Remote Evaluation Protocol",
    content_type = "application/json",
    headers(("Retry-After" = Option<u32>, description = "For 429 and 503: seconds to wait before retrying"))
)]
#[expect(dead_code, reason = "OpenAPI document only")]
pub(crate) struct EvaluationFailureResponse(EvaluationFailure);

impl EvaluationFailure {
    /// Entry of a bulk evaluation for a flag whose definition is invalid.
    pub(crate) fn invalid_flag(key: &str) -> Self {
        let error_details = invalid_flag().detail().to_owned();
        Self { key: Some(key.to_owned()), error_code: OfrepErrorCode::ParseError, error_details }
    }

    /// Entry of a bulk evaluation for a flag that exceeded the evaluation budget.
    pub(crate) fn too_expensive(key: &str) -> Self {
        let error_details = evaluation_too_expensive().detail().to_owned();
        Self { key: Some(key.to_owned()), error_code: OfrepErrorCode::General, error_details }
    }

    pub(crate) fn json(&self) -> String {
        to_json(self)
    }
}

/// Detail of every `FLAG_NOT_FOUND` error.
const FLAG_NOT_FOUND_DETAIL: &str = "no such flag";

/// Converts a problem to the OFREP error format: status, media type and body.
pub(crate) fn response_parts(path: &str, problem: &Problem, status: StatusCode) -> (StatusCode, &'static str, String) {
    let key = path.strip_prefix(BULK_EVALUATION_PATH).and_then(|rest| rest.strip_prefix('/'));
    let key = key.map(|key| percent_decode_str(key).decode_utf8_lossy().into_owned());
    let error_code = error_code(problem.code(), status, key.is_some());
    let details = if error_code == OfrepErrorCode::FlagNotFound { FLAG_NOT_FOUND_DETAIL } else { problem.detail() };
    let failure = EvaluationFailure { key, error_code, error_details: details.to_owned() };
    // OFREP defines 400 for invalid requests and does not define 422.
    let status = if status == StatusCode::UNPROCESSABLE_ENTITY { StatusCode::BAD_REQUEST } else { status };
    (status, "application/json", failure.json())
}

fn error_code(code: &str, status: StatusCode, is_single_flag: bool) -> OfrepErrorCode {
    match code {
        "invalid_context" => OfrepErrorCode::InvalidContext,
        "invalid_json" | "flag_unreadable" => OfrepErrorCode::ParseError,
        // Some providers do not escape slashes in a key. Such a path matches no route.
        _ if status == StatusCode::NOT_FOUND && is_single_flag => OfrepErrorCode::FlagNotFound,
        _ => OfrepErrorCode::General,
    }
}

/// Error for a flag whose definition is invalid. The detail omits the cause, because not every caller may read flag
/// definitions.
pub(crate) fn invalid_flag() -> Problem {
    let detail = "the flag's definition is invalid; an admin can find the cause in the flag's explanation";
    Problem::new(StatusCode::BAD_REQUEST, "flag_unreadable", detail)
}

/// Error for a flag that cannot be evaluated for the context within the evaluation budget.
pub(crate) fn evaluation_too_expensive() -> Problem {
    let detail = "evaluating the flag's targeting rules for this context exceeds the evaluation budget; send shorter \
                  texts and arrays, or simplify the rules";
    Problem::new(StatusCode::BAD_REQUEST, "evaluation_too_expensive", detail)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn check(path: &str, problem: &Problem, status: StatusCode, expected: (u16, Value)) {
        let (status, media_type, body) = response_parts(path, problem, status);
        let body: Value = serde_json::from_str(&body).unwrap();
        assert_eq!((status.as_u16(), body, media_type), (expected.0, expected.1, "application/json"), "{path}");
    }

    #[test]
    fn errors_contain_the_decoded_flag_key() {
        let missing = Problem::not_found("not_found", "nothing here");
        let not_found =
            |key: &str| json!({"key": key, "errorCode": "FLAG_NOT_FOUND", "errorDetails": FLAG_NOT_FOUND_DETAIL});
        for (path, key) in
            [("a%2Fb", "a/b"), ("a/b", "a/b"), ("", ""), ("%22%E2%82%AC%22", "\"€\""), ("%ff", "\u{fffd}")]
        {
            let path = format!("{BULK_EVALUATION_PATH}/{path}");
            check(&path, &missing, StatusCode::NOT_FOUND, (404, not_found(key)));
        }
        let general = json!({"errorCode": "GENERAL", "errorDetails": "nothing here"});
        check("/ofrep/v2/x", &missing, StatusCode::NOT_FOUND, (404, general));
    }

    #[test]
    fn errors_use_status_400_instead_of_422() {
        let invalid = Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "validation_failed", "x");
        let expected = json!({"errorCode": "GENERAL", "errorDetails": "x"});
        check(BULK_EVALUATION_PATH, &invalid, StatusCode::UNPROCESSABLE_ENTITY, (400, expected));
    }
}
