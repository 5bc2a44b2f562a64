//! Representations of an override in the replica.

use std::{
    hash::{Hash, Hasher},
    sync::Arc,
};

use flags_domain::{FlagName, Instant, OverrideStatus, OverrideView, PreparedValue, UserOverride};
use uuid::Uuid;

/// An override borrowed from a [`SharedOverride`].
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
    /// Actor that created the override.
    pub created_by: &'r str,
    /// Instant of creation.
    pub created_at: Instant,
    /// Instant of the last change.
    pub updated_at: Instant,
    /// Expiry; `None` if the override does not expire.
    pub expires_at: Option<Instant>,
}

/// An override that shares its value, metadata and flag name with the replica. Holds no lock; creating one allocates
/// nothing.
#[derive(Clone, Debug)]
pub struct SharedOverride {
    pub(super) id: Uuid,
    pub(super) flag_name: FlagName,
    pub(super) value: Arc<InternedValue>,
    pub(super) enabled: bool,
    pub(super) metadata: Arc<OverrideMetadata>,
    pub(super) created_at: Instant,
    pub(super) updated_at: Instant,
    pub(super) expires_at: Option<Instant>,
}

impl SharedOverride {
    /// Name of the flag.
    pub const fn flag_name(&self) -> &FlagName {
        &self.flag_name
    }

    /// Borrows the override without copying its value and texts.
    pub fn to_ref(&self) -> OverrideRef<'_> {
        OverrideRef {
            id: self.id,
            flag_name: &self.flag_name,
            value: &self.value.0,
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

/// A value that is compared by its JSON text. `1` and `1.0` are equal for evaluation, but the API returns them as
/// written.
#[derive(Debug)]
pub(super) struct InternedValue(pub(super) PreparedValue);

impl PartialEq for InternedValue {
    fn eq(&self, other: &Self) -> bool {
        self.0.json() == other.0.json()
    }
}

impl Eq for InternedValue {}

impl Hash for InternedValue {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.json().hash(state);
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
