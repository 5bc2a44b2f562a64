//! Scheduled changes of a flag's default and on/off switch.

use serde::{Deserialize, Serialize, de::IgnoredAny};
use uuid::Uuid;

use crate::{
    flag::Flag,
    instant::Instant,
    serve::{Serve, Weight},
    violation::{Violation, check_text},
};

/// A scheduled change. From `scheduled_at` on, `serve` replaces the default of the flag, and
/// `enabled` replaces its on/off switch.
///
/// The most recent change of each setting wins, whether manual or scheduled. At the same instant,
/// the manual change wins. The flag definition is not rewritten when a change takes effect, because
/// evaluation compares instants.
///
/// The JSON form is that of the server's API. Unknown fields are rejected, because they may alter
/// the effect of the change.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(from = "RawScheduledChange")]
pub struct ScheduledChange {
    /// Id, reported by [`Source::ScheduledChange`](crate::Source::ScheduledChange).
    pub id: Uuid,
    /// First instant at which the change is in effect.
    pub scheduled_at: Instant,
    /// New default; `None` leaves the default unchanged.
    pub serve: Option<Serve>,
    /// New position of the on/off switch; `None` leaves the switch unchanged.
    pub enabled: Option<bool>,
    /// Description, at most 2,000 characters. Not used by evaluation.
    pub description: Option<String>,
    /// Instant of the cancellation. If set, the change never takes effect.
    pub cancelled_at: Option<Instant>,
}

/// JSON form of a [`ScheduledChange`]. Accepts and ignores the other fields of the server's API.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawScheduledChange {
    id: Uuid,
    scheduled_at: Instant,
    #[serde(default)]
    serve: Option<Serve>,
    #[serde(default)]
    enabled: Option<bool>,
    #[serde(default)]
    description: Option<String>,
    #[serde(default)]
    cancelled_at: Option<Instant>,
    #[serde(default, rename = "flag_name")]
    _flag_name: IgnoredAny,
    #[serde(default, rename = "status")]
    _status: IgnoredAny,
    #[serde(default, rename = "preview")]
    _preview: IgnoredAny,
    #[serde(default, rename = "created_by")]
    _created_by: IgnoredAny,
    #[serde(default, rename = "created_at")]
    _created_at: IgnoredAny,
    #[serde(default, rename = "updated_at")]
    _updated_at: IgnoredAny,
    #[serde(default, rename = "revision")]
    _revision: IgnoredAny,
}

impl From<RawScheduledChange> for ScheduledChange {
    fn from(raw: RawScheduledChange) -> Self {
        let RawScheduledChange { id, scheduled_at, serve, enabled, description, cancelled_at, .. } = raw;
        Self { id, scheduled_at, serve, enabled, description, cancelled_at }
    }
}

/// Status of a scheduled change, derived from the current time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ScheduleStatus {
    /// The change is not yet due.
    Pending,
    /// The change was cancelled before it was due.
    Cancelled,
    /// The change is due, but a later manual or scheduled change has replaced everything that it set.
    Superseded,
    /// The change is due and still in effect, at least in part.
    Applied,
}

impl ScheduledChange {
    /// Checks the change against `flag` and returns all violations, with pointers relative to the change.
    pub fn check(&self, flag: &Flag) -> Vec<Violation> {
        let mut violations = Vec::new();
        if self.serve.is_none() && self.enabled.is_none() {
            let detail = "a scheduled change must set `serve`, `enabled` or both";
            violations.push(Violation::new("", "nothing_to_change", detail));
        }
        if let Some(serve) = &self.serve {
            violations.extend(serve.check("/serve", |id| flag.has_variant(id)));
        }
        violations.extend(self.description.as_ref().and_then(|text| check_text("/description", text, 2_000)));
        violations
    }

    /// Returns whether the change is due at `now` and was not cancelled.
    pub fn is_due(&self, now: Instant) -> bool {
        self.cancelled_at.is_none() && self.scheduled_at <= now
    }

    /// Returns the status of the change at `now`. `schedule` must contain all other scheduled
    /// changes of `flag`, and may contain this one.
    pub fn status(&self, flag: &Flag, schedule: &[Self], now: Instant) -> ScheduleStatus {
        if self.cancelled_at.is_some() {
            return ScheduleStatus::Cancelled;
        }
        if self.scheduled_at > now {
            return ScheduleStatus::Pending;
        }
        let is_replaced = |manually_set_at: Instant, sets_field: fn(&Self) -> bool| {
            let replaces =
                |other: &&Self| other.scheduled_at > self.scheduled_at && other.is_due(now) && sets_field(other);
            manually_set_at >= self.scheduled_at || schedule.iter().any(|other| replaces(&other))
        };
        let serve_replaced = self.serve.is_none() || is_replaced(flag.default_set_at, |c| c.serve.is_some());
        let switch_replaced = self.enabled.is_none() || is_replaced(flag.enabled_set_at, |c| c.enabled.is_some());
        if serve_replaced && switch_replaced { ScheduleStatus::Superseded } else { ScheduleStatus::Applied }
    }
}

/// Default and on/off switch of a flag at one instant, including the effect of scheduled changes.
#[derive(Clone, Debug, PartialEq)]
pub struct EffectiveSettings<'f> {
    /// Whether the flag is on.
    pub enabled: bool,
    /// Default that applies while the flag is on and no override or rule decides.
    pub default: &'f Serve,
    /// Id of the scheduled change that set `default`; `None` if it was last set manually.
    pub scheduled_change_id: Option<Uuid>,
}

impl<'f> EffectiveSettings<'f> {
    /// Returns the settings of `flag` at `now`. `schedule` holds all scheduled changes of the flag, in any order.
    pub fn at(flag: &'f Flag, schedule: &'f [ScheduledChange], now: Instant) -> Self {
        let last_due = |manually_set_at: Instant, sets_field: fn(&ScheduledChange) -> bool| {
            let is_candidate = |change: &&ScheduledChange| {
                change.is_due(now) && change.scheduled_at > manually_set_at && sets_field(change)
            };
            schedule.iter().filter(is_candidate).max_by_key(|change| change.scheduled_at)
        };
        let serve_change = last_due(flag.default_set_at, |c| c.serve.is_some());
        let switch_change = last_due(flag.enabled_set_at, |c| c.enabled.is_some());
        Self {
            enabled: switch_change.and_then(|change| change.enabled).unwrap_or(flag.enabled),
            default: serve_change.and_then(|change| change.serve.as_ref()).unwrap_or(&flag.default),
            scheduled_change_id: serve_change.map(|change| change.id),
        }
    }
}

impl<'f> EffectiveSettings<'f> {
    /// Returns the id of each variant with its share of the contexts for which no override and no
    /// rule decides. The order is that of the flag's variants.
    pub fn shares(&self, flag: &'f Flag) -> Vec<(&'f str, Weight)> {
        let full_if = |condition: bool| if condition { Weight::FULL } else { Weight::ZERO };
        let share = |id: &str| match self.default {
            _ if !self.enabled => full_if(id == flag.off_variant),
            Serve::Variant(variant) => full_if(id == variant),
            Serve::Split { weights, .. } => weights.get(id).copied().unwrap_or(Weight::ZERO),
        };
        flag.variants.iter().map(|variant| (variant.id.as_str(), share(&variant.id))).collect()
    }
}

/// Effect of a pending scheduled change: on/off switch and variant shares before and after it.
///
/// Takes all other scheduled changes into account. Assumes that neither the flag nor its schedule is edited before the
/// change takes effect.
#[derive(Clone, Debug, PartialEq)]
pub struct SchedulePreview {
    /// Whether the flag is on just before the change.
    pub enabled_before: bool,
    /// Whether the flag is on after the change.
    pub enabled_after: bool,
    /// Variant id, share before and share after, in the order of the flag's variants. See
    /// [`EffectiveSettings::shares`].
    pub shares: Vec<(String, Weight, Weight)>,
}

impl SchedulePreview {
    /// Computes the preview of `change`, which must be one of the scheduled changes in `schedule`.
    pub fn new(change: &ScheduledChange, flag: &Flag, schedule: &[ScheduledChange]) -> Self {
        let before = EffectiveSettings::at(flag, schedule, change.scheduled_at.plus_micros(-1));
        let after = EffectiveSettings::at(flag, schedule, change.scheduled_at);
        let shares = before.shares(flag).into_iter().zip(after.shares(flag));
        Self {
            enabled_before: before.enabled,
            enabled_after: after.enabled,
            shares: shares.map(|((id, before), (_, after))| (id.to_owned(), before, after)).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flag::tests::boolean_flag;

    fn at(micros: i64) -> Instant {
        Instant::from_micros(micros)
    }

    fn change(id: u128, scheduled_at: i64, serve: Option<&str>, enabled: Option<bool>) -> ScheduledChange {
        ScheduledChange {
            id: Uuid::from_u128(id),
            scheduled_at: at(scheduled_at),
            serve: serve.map(|id| Serve::Variant(id.to_owned())),
            enabled,
            description: None,
            cancelled_at: None,
        }
    }

    #[test]
    fn status_is_derived_from_the_current_time() {
        let flag = boolean_flag();
        let change = change(1, 100, Some("on"), None);
        let status = |now| change.status(&flag, std::slice::from_ref(&change), at(now));
        assert_eq!(status(99), ScheduleStatus::Pending);
        assert_eq!(status(100), ScheduleStatus::Applied);
        let cancelled = ScheduledChange { cancelled_at: Some(at(50)), ..change.clone() };
        assert_eq!(cancelled.status(&flag, &[], at(200)), ScheduleStatus::Cancelled);
    }

    #[test]
    fn change_is_superseded_once_all_its_settings_are_replaced() {
        let mut flag = boolean_flag();
        let both = change(1, 100, Some("on"), Some(true));
        let later = change(2, 200, None, Some(false));
        let all = [both.clone(), later];
        assert_eq!(both.status(&flag, &all, at(250)), ScheduleStatus::Applied);
        flag.default_set_at = at(100);
        assert_eq!(both.status(&flag, &all, at(199)), ScheduleStatus::Applied);
        assert_eq!(both.status(&flag, &all, at(200)), ScheduleStatus::Superseded);
    }

    #[test]
    fn rejects_empty_changes_and_unknown_variants() {
        let codes =
            |change: ScheduledChange| change.check(&boolean_flag()).into_iter().map(|v| v.code).collect::<Vec<_>>();
        assert_eq!(codes(change(1, 1, None, None)), ["nothing_to_change"]);
        assert_eq!(codes(change(1, 1, Some("nope"), None)), ["unknown_variant"]);
        assert_eq!(codes(change(1, 1, None, Some(true))), [""; 0]);
    }
}
