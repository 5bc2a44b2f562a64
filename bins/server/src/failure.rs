//! Why a command could not be carried out: one clear line on standard error, exit code 1.

use flags_service::ServiceError;
use flags_store::StoreError;

/// The line.
#[derive(Debug)]
pub(crate) struct Failure(String);

impl Failure {
    pub(crate) fn new(line: impl Into<String>) -> Self {
        Self(line.into())
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0.split_whitespace().collect::<Vec<_>>().join(" "))
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self(error.to_string())
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self(error.to_string())
    }
}

impl From<ServiceError> for Failure {
    fn from(error: ServiceError) -> Self {
        match error {
            ServiceError::Invalid(violations) => {
                let lines = violations.iter().map(|v| format!("{}: {}", v.pointer.trim_start_matches('/'), v.detail));
                Self(lines.collect::<Vec<_>>().join("; "))
            }
            other => Self(other.to_string()),
        }
    }
}
