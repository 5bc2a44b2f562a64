//! Representations of an override in the replica.

use flags_domain::{FlagName, Instant, OverrideStatus, OverrideView, PreparedValue, UserOverride};
use uuid::Uuid;

/// An override borrowed from the replica.
#[derive(Clone, Copy, Debug)]
pub struct OverrideRef<'r> {
    /// Id of the override.
    pub id: Uuid,
    /// Name of the flag.
    pub flag_name: &'r FlagName,
    /// Value for the user.
    pub value: &'r PreparedValue,
    /// Whether the override is enabled.
    pub enabled: bool,
    /// Reason for the override.
    pub reason: Option<&'r str>,
    /// Actor that created it.
    pub created_by: &'r str,
    /// Instant of creation.
    pub created_at: Instant,
    /// Instant of the last change.
    pub updated_at: Instant,
    /// Expiry; `None` if it does not expire.
    pub expires_at: Option<Instant>,
}

/// A copy of an override that does not borrow from the replica.
#[derive(Clone, Debug)]
pub struct OwnedOverride {
    id: Uuid,
    flag_name: FlagName,
    value: PreparedValue,
    enabled: bool,
    metadata: OverrideMetadata,
    created_at: Instant,
    updated_at: Instant,
    expires_at: Option<Instant>,
}

impl From<OverrideRef<'_>> for OwnedOverride {
    fn from(o: OverrideRef<'_>) -> Self {
        Self {
            id: o.id,
            flag_name: o.flag_name.clone(),
            value: o.value.clone(),
            enabled: o.enabled,
            metadata: OverrideMetadata { reason: o.reason.map(Into::into), created_by: o.created_by.into() },
            created_at: o.created_at,
            updated_at: o.updated_at,
            expires_at: o.expires_at,
        }
    }
}

impl OwnedOverride {
    /// Borrows the override.
    pub fn to_ref(&self) -> OverrideRef<'_> {
        OverrideRef {
            id: self.id,
            flag_name: &self.flag_name,
            value: &self.value,
            enabled: self.enabled,
            reason: self.metadata.reason.as_deref(),
            created_by: &self.metadata.created_by,
            created_at: self.created_at,
            updated_at: self.updated_at,
            expires_at: self.expires_at,
        }
    }
}

impl<'r> OverrideRef<'r> {
    /// The fields that evaluation needs.
    pub const fn view(&self) -> OverrideView<'r> {
        OverrideView { value: self.value, enabled: self.enabled, expires_at: self.expires_at }
    }

    /// Status at `now`.
    pub fn status(&self, now: Instant) -> OverrideStatus {
        OverrideStatus::at(self.enabled, self.expires_at, now)
    }
}

/// Fields of an override that do not affect evaluation.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct OverrideMetadata {
    pub(super) reason: Option<Box<str>>,
    pub(super) created_by: Box<str>,
}

impl From<&UserOverride> for OverrideMetadata {
    fn from(o: &UserOverride) -> Self {
        Self { reason: o.reason.as_deref().map(Into::into), created_by: o.created_by.as_str().into() }
    }
}
