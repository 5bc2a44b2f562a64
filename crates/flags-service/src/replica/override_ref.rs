//! Overrides as readers of the replica see them.

use flags_domain::{FlagName, Instant, OverrideStatus, OverrideView, PreparedValue, UserOverride};
use uuid::Uuid;

/// An override in the replica.
#[derive(Clone, Copy, Debug)]
pub struct OverrideRef<'r> {
    /// Its id.
    pub id: Uuid,
    /// The flag.
    pub flag_name: &'r FlagName,
    /// What the user gets.
    pub value: &'r PreparedValue,
    /// Whether it is switched on.
    pub enabled: bool,
    /// Why.
    pub reason: Option<&'r str>,
    /// The actor who made it.
    pub created_by: &'r str,
    /// When it was made.
    pub created_at: Instant,
    /// When it was last changed.
    pub updated_at: Instant,
    /// Its end.
    pub expires_at: Option<Instant>,
}

/// A copy of an override in the replica.
#[derive(Clone, Debug)]
pub struct HeldOverride {
    id: Uuid,
    flag_name: FlagName,
    value: PreparedValue,
    enabled: bool,
    note: OverrideMetadata,
    created_at: Instant,
    updated_at: Instant,
    expires_at: Option<Instant>,
}

impl From<OverrideRef<'_>> for HeldOverride {
    fn from(o: OverrideRef<'_>) -> Self {
        Self {
            id: o.id,
            flag_name: o.flag_name.clone(),
            value: o.value.clone(),
            enabled: o.enabled,
            note: OverrideMetadata { reason: o.reason.map(Into::into), created_by: o.created_by.into() },
            created_at: o.created_at,
            updated_at: o.updated_at,
            expires_at: o.expires_at,
        }
    }
}

impl HeldOverride {
    /// What is held.
    pub fn get(&self) -> OverrideRef<'_> {
        OverrideRef {
            id: self.id,
            flag_name: &self.flag_name,
            value: &self.value,
            enabled: self.enabled,
            reason: self.note.reason.as_deref(),
            created_by: &self.note.created_by,
            created_at: self.created_at,
            updated_at: self.updated_at,
            expires_at: self.expires_at,
        }
    }
}

impl<'r> OverrideRef<'r> {
    /// What resolution looks at.
    pub const fn view(&self) -> OverrideView<'r> {
        OverrideView { value: self.value, enabled: self.enabled, expires_at: self.expires_at }
    }

    /// Its status at `now`.
    pub fn status(&self, now: Instant) -> OverrideStatus {
        OverrideStatus::of(self.enabled, self.expires_at, now)
    }
}

/// What is for people.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct OverrideMetadata {
    pub(super) reason: Option<Box<str>>,
    pub(super) created_by: Box<str>,
}

impl OverrideMetadata {
    pub(super) fn of(o: &UserOverride) -> Self {
        Self { reason: o.reason.as_deref().map(Into::into), created_by: o.created_by.as_str().into() }
    }
}
