//! Error of a command, printed as one line on standard error. The exit code is 1.

use flags_service::ServiceError;
use flags_store::StoreError;

/// Error message; `Display` joins its lines into one.
#[derive(Debug)]
pub(crate) struct CliError(String);

impl CliError {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }
}

impl std::fmt::Display for CliError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0.split_whitespace().collect::<Vec<_>>().join(" "))
    }
}

impl From<StoreError> for CliError {
    fn from(error: StoreError) -> Self {
        Self(error.to_string())
    }
}

impl From<std::io::Error> for CliError {
    fn from(error: std::io::Error) -> Self {
        Self(error.to_string())
    }
}

impl From<ServiceError> for CliError {
    fn from(error: ServiceError) -> Self {
        match error {
            ServiceError::Invalid(violations) => {
                let messages = violations
                    .iter()
                    .map(|violation| format!("{}: {}", violation.pointer.trim_start_matches('/'), violation.detail));
                Self(messages.collect::<Vec<_>>().join("; "))
            }
            other => Self(other.to_string()),
        }
    }
}
