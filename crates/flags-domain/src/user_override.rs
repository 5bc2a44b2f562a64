//! User overrides: what one user sees of one flag, whatever the other layers say.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use crate::{instant::Instant, name::FlagName, value::PreparedValue};

/// Longest reason, in characters.
pub const MAX_REASON_LENGTH: usize = 500;

/// An override as it is stored. At most one exists per user and flag.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UserOverride {
    /// Identifies it; one that is made anew after its end gets a new id.
    pub id: Uuid,
    /// Whom it is for.
    pub user_id: Uuid,
    /// The flag.
    pub flag_name: FlagName,
    /// What the user gets; of the flag's type.
    pub override_value: Value,
    /// Switched off it has no effect. `None` counts as on.
    pub enabled: Option<bool>,
    /// Why, for people.
    pub reason: Option<String>,
    /// The actor who made it, e.g. `user:<id>`.
    pub created_by: String,
    /// When it was made.
    pub created_at: Instant,
    /// When it was last changed.
    pub updated_at: Instant,
    /// It is gone at exactly this instant.
    pub expires_at: Option<Instant>,
}

/// Where an override stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OverrideStatus {
    /// It decides.
    Active,
    /// It is switched off.
    Disabled,
    /// Its instant has passed (whether or not it is switched off).
    Expired,
}

impl OverrideStatus {
    /// The status of an override with this switch and this end, at `now`.
    pub fn of(enabled: bool, expires_at: Option<Instant>, now: Instant) -> Self {
        if expires_at.is_some_and(|end| end <= now) {
            Self::Expired
        } else if enabled {
            Self::Active
        } else {
            Self::Disabled
        }
    }
}

impl UserOverride {
    /// Whether it is switched on.
    pub fn is_enabled(&self) -> bool {
        self.enabled.unwrap_or(true)
    }

    /// Its status at `now`.
    pub fn status(&self, now: Instant) -> OverrideStatus {
        OverrideStatus::of(self.is_enabled(), self.expires_at, now)
    }
}

/// The parts of an override that resolution looks at.
#[derive(Clone, Copy, Debug)]
pub struct OverrideView<'o> {
    /// What the user would get.
    pub value: &'o PreparedValue,
    /// Whether it is switched on.
    pub enabled: bool,
    /// Its end.
    pub expires_at: Option<Instant>,
}

impl OverrideView<'_> {
    /// Its status at `now`.
    pub fn status(&self, now: Instant) -> OverrideStatus {
        OverrideStatus::of(self.enabled, self.expires_at, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_override_is_gone_at_exactly_its_end() {
        let end = Instant::from_micros(1_000);
        let status = |enabled, now| OverrideStatus::of(enabled, Some(end), Instant::from_micros(now));
        assert_eq!(status(true, 999), OverrideStatus::Active);
        assert_eq!(status(true, 1_000), OverrideStatus::Expired);
        assert_eq!(status(true, 1_001), OverrideStatus::Expired);
        assert_eq!(status(false, 999), OverrideStatus::Disabled);
        assert_eq!(status(false, 1_000), OverrideStatus::Expired);
    }
}
