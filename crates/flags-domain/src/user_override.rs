//! User overrides: a fixed value of one flag for one user.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use crate::{instant::Instant, name::FlagName, value::PreparedValue};

/// Maximum length of the reason of an override, in characters.
pub const MAX_REASON_LENGTH: usize = 500;

/// A user override as stored. At most one exists per user and flag.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UserOverride {
    /// Id. Replacing an expired override assigns a new id.
    pub id: Uuid,
    /// Id of the user.
    pub user_id: Uuid,
    /// Name of the flag.
    pub flag_name: FlagName,
    /// Value for the user. Evaluation ignores the override if the value does not have the type of the flag.
    pub override_value: Value,
    /// Whether the override is enabled; `None` counts as `true`. A disabled override has no effect.
    pub enabled: Option<bool>,
    /// Reason for the override, at most [`MAX_REASON_LENGTH`] characters. Not used by evaluation.
    pub reason: Option<String>,
    /// Actor that created the override, such as `user:<id>`.
    pub created_by: String,
    /// Instant of the creation.
    pub created_at: Instant,
    /// Instant of the last change.
    pub updated_at: Instant,
    /// First instant at which the override is expired; `None` if it never expires.
    pub expires_at: Option<Instant>,
}

/// Status of an override at some instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OverrideStatus {
    /// The override is enabled and has not expired.
    Active,
    /// The override is disabled and has not expired.
    Disabled,
    /// The override has expired, enabled or not.
    Expired,
}

impl OverrideStatus {
    /// Returns the status at `now` of an override with these properties.
    pub fn at(enabled: bool, expires_at: Option<Instant>, now: Instant) -> Self {
        if expires_at.is_some_and(|expires_at| expires_at <= now) {
            Self::Expired
        } else if enabled {
            Self::Active
        } else {
            Self::Disabled
        }
    }
}

impl UserOverride {
    /// Whether the override is enabled.
    pub fn is_enabled(&self) -> bool {
        self.enabled.unwrap_or(true)
    }

    /// Status of the override at `now`.
    pub fn status(&self, now: Instant) -> OverrideStatus {
        OverrideStatus::at(self.is_enabled(), self.expires_at, now)
    }
}

/// Fields of an override that evaluation reads.
#[derive(Clone, Copy, Debug)]
pub struct OverrideView<'o> {
    /// Value for the user.
    pub value: &'o PreparedValue,
    /// Whether the override is enabled.
    pub enabled: bool,
    /// First instant at which the override is expired; `None` if it never expires.
    pub expires_at: Option<Instant>,
}

impl OverrideView<'_> {
    /// Status of the override at `now`.
    pub fn status(&self, now: Instant) -> OverrideStatus {
        OverrideStatus::at(self.enabled, self.expires_at, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn override_is_expired_at_exactly_its_expiry() {
        let expires_at = Instant::from_micros(1_000);
        let status = |enabled, now| OverrideStatus::at(enabled, Some(expires_at), Instant::from_micros(now));
        assert_eq!(status(true, 999), OverrideStatus::Active);
        assert_eq!(status(true, 1_000), OverrideStatus::Expired);
        assert_eq!(status(true, 1_001), OverrideStatus::Expired);
        assert_eq!(status(false, 999), OverrideStatus::Disabled);
        assert_eq!(status(false, 1_000), OverrideStatus::Expired);
    }
}
