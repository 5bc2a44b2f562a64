//! Metrics of the service layer and the worker.
//!
//! The product specification fixes two names: `voiceassist_user_flag_overrides_total` and
//! `voiceassist_user_flag_overrides_active`. All other names come from [`metric_name!`](crate::metric_name).

use std::{collections::BTreeMap, time::Duration};

use flags_domain::{Action, FlagName, Instant, ResourceKind};
use flags_store::ChangeLogEntry;
use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};

/// Prefixes a metric name, given as a string literal, with `flags_`.
#[macro_export]
macro_rules! metric_name {
    ($name:literal) => {
        concat!("flags_", $name)
    };
}

const OVERRIDE_CHANGES: &str = "voiceassist_user_flag_overrides_total";
const OVERRIDES_ACTIVE: &str = "voiceassist_user_flag_overrides_active";
const OVERRIDES_EXPIRED: &str = metric_name!("user_overrides_expired_total");
const SCHEDULED_CHANGES_PENDING: &str = metric_name!("scheduled_changes_pending");
const UNREADABLE_FLAGS: &str = metric_name!("unreadable_flags");
const REPLICA_REVISION: &str = metric_name!("replica_revision");
const REPLICA_AGE: &str = metric_name!("replica_age_seconds");
const REPLICA_RELOADS: &str = metric_name!("replica_reloads_total");
const REPLICA_LOAD: &str = metric_name!("replica_load_seconds");
const CHANGE_LOG_HEAD: &str = metric_name!("change_log_head_revision");
const LISTENER_CONNECTED: &str = metric_name!("listener_connected");
const PROPAGATION_DELAY: &str = metric_name!("propagation_delay_seconds");
const WORKER_BACKLOG: &str = metric_name!("worker_backlog");
const WORKER_ROWS: &str = metric_name!("worker_rows_total");
const WORKER_ROUNDS: &str = metric_name!("worker_rounds_total");

/// Registers the descriptions of all metrics with the installed recorder.
pub fn describe() {
    describe_counter!(OVERRIDE_CHANGES, "Changes to user overrides committed by this process, by flag and action");
    describe_gauge!(OVERRIDES_ACTIVE, "Active user overrides, by flag; every server exports the same values");
    describe_gauge!(SCHEDULED_CHANGES_PENDING, "Pending scheduled changes; every server exports the same value");
    describe_gauge!(UNREADABLE_FLAGS, "Flags whose definition this server cannot read or compile");
    describe_counter!(OVERRIDES_EXPIRED, "Expired user overrides deleted by this process; also counted as deletions");
    describe_gauge!(REPLICA_REVISION, "Change-log revision that this server's replica has reached");
    describe_gauge!(REPLICA_AGE, "Seconds since the replica was last known to be up to date");
    describe_gauge!(CHANGE_LOG_HEAD, "Head revision of the change log at the last poll");
    describe_counter!(REPLICA_RELOADS, "Full reloads of the replica from the database, by reason");
    describe_histogram!(REPLICA_LOAD, Unit::Seconds, "Duration of a full load of the replica");
    // Each series starts at 0: Prometheus computes no increase for a series that first appears with
    // another value.
    for reason in ["other_epoch", "restored", "missing_revision", "unreadable"] {
        counter!(REPLICA_RELOADS, "reason" => reason).absolute(0);
    }
    describe_gauge!(LISTENER_CONNECTED, "1 while this server receives change notifications, 0 while it only polls");
    describe_histogram!(PROPAGATION_DELAY, Unit::Seconds, "Time from a change until this server applies it");
    describe_gauge!(WORKER_BACKLOG, "Rows due at the start of the last maintenance round, by task");
    describe_counter!(WORKER_ROWS, "Rows removed or updated by this worker, by task");
    describe_counter!(WORKER_ROUNDS, "Maintenance rounds, by outcome");
}

/// Counts the override changes of one commit. Every commit must be passed to this function.
pub(crate) fn record_override_changes(entries: &[ChangeLogEntry]) {
    for entry in entries.iter().filter(|entry| entry.resource_kind == ResourceKind::Override) {
        let flag_name = entry.flag_name.clone().unwrap_or_default();
        let action = match entry.action {
            Action::Created => "created",
            Action::Deleted | Action::Expired => "deleted",
            _ => "updated",
        };
        if entry.action == Action::Expired {
            counter!(OVERRIDES_EXPIRED, "flag_name" => flag_name.clone()).increment(1);
        }
        counter!(OVERRIDE_CHANGES, "flag_name" => flag_name, "action" => action).increment(1);
    }
}

/// Gauge of active overrides by flag.
///
/// When a flag loses its last active override, the gauge of the flag is set to 0 once. After that,
/// the exporter drops the series, because it is no longer updated.
#[derive(Debug, Default)]
pub(crate) struct ActiveOverridesGauge {
    reported: BTreeMap<FlagName, u64>,
}

impl ActiveOverridesGauge {
    #[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^53")]
    pub(crate) fn set(&mut self, mut counts: BTreeMap<FlagName, u64>) {
        counts.retain(|name, count| *count > 0 || self.reported.get(name).is_some_and(|reported| *reported > 0));
        for name in self.reported.keys().filter(|name| self.reported[*name] > 0 && !counts.contains_key(*name)) {
            gauge!(OVERRIDES_ACTIVE, "flag_name" => name.to_string()).set(0.0);
        }
        for (name, count) in &counts {
            gauge!(OVERRIDES_ACTIVE, "flag_name" => name.to_string()).set(*count as f64);
        }
        self.reported = counts;
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^53")]
pub(crate) fn set_pending_changes(count: usize) {
    gauge!(SCHEDULED_CHANGES_PENDING).set(count as f64);
}

#[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^53")]
pub(crate) fn set_unreadable_flags(count: usize) {
    gauge!(UNREADABLE_FLAGS).set(count as f64);
}

#[expect(clippy::cast_precision_loss, reason = "revisions stay far below 2^53")]
pub(crate) fn set_replica_state(revision: i64, age: Duration) {
    gauge!(REPLICA_REVISION).set(revision as f64);
    gauge!(REPLICA_AGE).set(age.as_secs_f64());
}

pub(crate) fn record_load(duration: Duration) {
    histogram!(REPLICA_LOAD).record(duration.as_secs_f64());
}

#[expect(clippy::cast_precision_loss, reason = "revisions stay far below 2^53")]
pub(crate) fn set_change_log_head(revision: i64) {
    gauge!(CHANGE_LOG_HEAD).set(revision as f64);
}

pub(crate) fn record_reload(reason: &'static str) {
    counter!(REPLICA_RELOADS, "reason" => reason).increment(1);
}

pub(crate) fn set_listener_connected(connected: bool) {
    gauge!(LISTENER_CONNECTED).set(if connected { 1.0 } else { 0.0 });
}

/// Records the time from a change to its application on this server. Negative differences, caused by clock skew, count
/// as zero.
#[expect(clippy::cast_precision_loss, reason = "delays stay far below 2^53 microseconds")]
pub(crate) fn record_propagation(changed_at: Instant, now: Instant) {
    let micros = now.as_micros().saturating_sub(changed_at.as_micros()).max(0);
    histogram!(PROPAGATION_DELAY).record(micros as f64 / 1e6);
}

#[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^53")]
pub(crate) fn set_worker_backlog(task: &'static str, rows: i64) {
    gauge!(WORKER_BACKLOG, "task" => task).set(rows as f64);
}

pub(crate) fn record_worker_rows(task: &'static str, rows: u64) {
    counter!(WORKER_ROWS, "task" => task).increment(rows);
}

/// Counts a maintenance round, by outcome (`ok` or `failed`).
pub fn record_worker_round(succeeded: bool) {
    counter!(WORKER_ROUNDS, "outcome" => if succeeded { "ok" } else { "failed" }).increment(1);
}
