//! Scheduled variant changes: from an instant on they stand for a flag's default or its switch.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    flag::Flag,
    instant::Instant,
    serve::{Serve, Weight},
    violation::{Violation, check_text},
};

/// From `scheduled_at` on, `serve` stands for the flag's `default` and `enabled` for its switch.
///
/// Nothing is ever rewritten when it falls due: evaluation compares instants.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ScheduledChange {
    /// Identifies it in resolutions.
    pub id: Uuid,
    /// In force at exactly this instant and after.
    pub scheduled_at: Instant,
    /// What the default becomes, if it changes.
    #[serde(default)]
    pub serve: Option<Serve>,
    /// What the switch becomes, if it changes.
    #[serde(default)]
    pub enabled: Option<bool>,
    /// For people.
    #[serde(default)]
    pub description: Option<String>,
    /// Set: it never acts.
    #[serde(default)]
    pub cancelled_at: Option<Instant>,
}

/// Where a scheduled change stands, derived from the clock alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ScheduleStatus {
    /// Its instant has not come.
    Pending,
    /// It was cancelled before its instant.
    Cancelled,
    /// Its instant has come, but all it set was set later, by hand or by a later change.
    Superseded,
    /// Its instant has come.
    Applied,
}

impl ScheduledChange {
    /// What is wrong with it for `flag`, with pointers relative to it.
    pub fn check(&self, flag: &Flag) -> Vec<Violation> {
        let mut found = Vec::new();
        if self.serve.is_none() && self.enabled.is_none() {
            let detail = "a scheduled change must name `serve`, `enabled` or both";
            found.push(Violation::new("", "nothing_to_change", detail));
        }
        if let Some(serve) = &self.serve {
            found.extend(serve.check("/serve", |id| flag.has_variant(id)));
        }
        found.extend(self.description.as_ref().and_then(|text| check_text("/description", text, 2_000)));
        found
    }

    /// Whether it is due and was not cancelled.
    pub fn is_due(&self, now: Instant) -> bool {
        self.cancelled_at.is_none() && self.scheduled_at <= now
    }

    /// Its status at `now`, given its flag and all changes of that flag (itself among them or not).
    pub fn status(&self, flag: &Flag, all: &[Self], now: Instant) -> ScheduleStatus {
        if self.cancelled_at.is_some() {
            return ScheduleStatus::Cancelled;
        }
        if self.scheduled_at > now {
            return ScheduleStatus::Pending;
        }
        let set_later = |set_at: Instant, names: fn(&Self) -> bool| {
            let by_change = |other: &&Self| other.scheduled_at > self.scheduled_at && other.is_due(now) && names(other);
            set_at >= self.scheduled_at || all.iter().any(|other| by_change(&other))
        };
        let serve_gone = self.serve.is_none() || set_later(flag.default_set_at, |c| c.serve.is_some());
        let switch_gone = self.enabled.is_none() || set_later(flag.enabled_set_at, |c| c.enabled.is_some());
        if serve_gone && switch_gone { ScheduleStatus::Superseded } else { ScheduleStatus::Applied }
    }
}

/// A flag's default and switch as they act at one instant.
#[derive(Clone, Debug, PartialEq)]
pub struct Effective<'f> {
    /// The switch.
    pub enabled: bool,
    /// What is served when no rule matches.
    pub default: &'f Serve,
    /// The scheduled change that `default` comes from, if it does not stand as set by hand.
    pub scheduled_change_id: Option<Uuid>,
}

impl<'f> Effective<'f> {
    /// Per field the later of the last setting by hand and the last due change; at equal instants the hand.
    pub fn at(flag: &'f Flag, schedule: &'f [ScheduledChange], now: Instant) -> Self {
        let last_due = |set_at: Instant, names: fn(&ScheduledChange) -> bool| {
            let acts = |change: &&ScheduledChange| change.is_due(now) && change.scheduled_at > set_at && names(change);
            schedule.iter().filter(acts).max_by_key(|change| change.scheduled_at)
        };
        let served = last_due(flag.default_set_at, |c| c.serve.is_some());
        let switched = last_due(flag.enabled_set_at, |c| c.enabled.is_some());
        Self {
            enabled: switched.and_then(|change| change.enabled).unwrap_or(flag.enabled),
            default: served.and_then(|change| change.serve.as_ref()).unwrap_or(&flag.default),
            scheduled_change_id: served.map(|change| change.id),
        }
    }
}

impl<'f> Effective<'f> {
    /// The share of each variant, in the flag's order, among those to whom no override and no rule gives something else.
    pub fn shares(&self, flag: &'f Flag) -> Vec<(&'f str, Weight)> {
        let all_if = |holds: bool| if holds { Weight::ALL } else { Weight::NONE };
        let share = |id: &str| match self.default {
            _ if !self.enabled => all_if(id == flag.off_variant),
            Serve::Variant(variant) => all_if(id == variant),
            Serve::Split { weights, .. } => weights.get(id).copied().unwrap_or(Weight::NONE),
        };
        flag.variants.iter().map(|variant| (variant.id.as_str(), share(&variant.id))).collect()
    }
}

/// What a pending change is going to make of its flag, as things stand now.
#[derive(Clone, Debug, PartialEq)]
pub struct SchedulePreview {
    /// The switch until its instant.
    pub enabled_before: bool,
    /// The switch from then on.
    pub enabled_after: bool,
    /// Each variant, in the flag's order, with its share before and after.
    pub shares: Vec<(String, Weight, Weight)>,
}

impl SchedulePreview {
    /// Of one of the changes in `schedule`, as of its instant: earlier ones have acted by then.
    pub fn of(change: &ScheduledChange, flag: &Flag, schedule: &[ScheduledChange]) -> Self {
        let before = Effective::at(flag, schedule, change.scheduled_at.plus_micros(-1));
        let after = Effective::at(flag, schedule, change.scheduled_at);
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
    fn the_status_follows_the_clock() {
        let flag = boolean_flag();
        let one = change(1, 100, Some("on"), None);
        let status = |now| one.status(&flag, std::slice::from_ref(&one), at(now));
        assert_eq!(status(99), ScheduleStatus::Pending);
        assert_eq!(status(100), ScheduleStatus::Applied);
        let cancelled = ScheduledChange { cancelled_at: Some(at(50)), ..one.clone() };
        assert_eq!(cancelled.status(&flag, &[], at(200)), ScheduleStatus::Cancelled);
    }

    #[test]
    fn a_change_is_superseded_once_all_it_set_was_set_later() {
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
    fn a_change_must_change_something() {
        let codes =
            |change: ScheduledChange| change.check(&boolean_flag()).into_iter().map(|v| v.code).collect::<Vec<_>>();
        assert_eq!(codes(change(1, 1, None, None)), ["nothing_to_change"]);
        assert_eq!(codes(change(1, 1, Some("nope"), None)), ["unknown_variant"]);
        assert_eq!(codes(change(1, 1, None, Some(true))), [""; 0]);
    }
}
