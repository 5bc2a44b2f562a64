//! What this process counts, under the names of the specification.

use std::collections::BTreeMap;

use flags_domain::{FlagName, Instant};
use flags_store::{
    ChangeLogEntry,
    change_log::{Action, ResourceKind},
};
use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};

const OVERRIDES_TOTAL: &str = "voiceassist_user_flag_overrides_total";
const OVERRIDES_ACTIVE: &str = "voiceassist_user_flag_overrides_active";
const SCHEDULED_PENDING: &str = "voiceassist_scheduled_changes_pending";
const OVERRIDES_EXPIRED: &str = "voiceassist_user_flag_overrides_expired_total";
const REPLICA_REVISION: &str = "voiceassist_replica_revision";
const REPLICA_AGE: &str = "voiceassist_replica_age_seconds";
const REPLICA_RELOADS: &str = "voiceassist_replica_reloads_total";
const REPLICA_LOAD: &str = "voiceassist_replica_load_seconds";
const LOG_HEAD: &str = "voiceassist_log_head_revision";
const LISTENER: &str = "voiceassist_listener_healthy";
const PROPAGATION: &str = "voiceassist_propagation_delay_seconds";
const WORKER_BACKLOG: &str = "voiceassist_worker_backlog";
const WORKER_DONE: &str = "voiceassist_worker_rows_total";
const WORKER_ROUNDS: &str = "voiceassist_worker_rounds_total";

/// Tells the recorder what each metric means.
pub fn describe() {
    describe_counter!(OVERRIDES_TOTAL, "Changes of user overrides that this process committed");
    describe_gauge!(OVERRIDES_ACTIVE, "User overrides that are active now; every server exports the same");
    describe_gauge!(SCHEDULED_PENDING, "Scheduled changes to come; every server exports the same");
    describe_counter!(OVERRIDES_EXPIRED, "User overrides that this process removed as expired (each also a deletion)");
    describe_gauge!(REPLICA_REVISION, "Revision of the log that this server evaluates by");
    describe_gauge!(REPLICA_AGE, "Seconds since the database was last read");
    describe_gauge!(LOG_HEAD, "Revision of the log's head when it was last read");
    describe_counter!(REPLICA_RELOADS, "How often the log could not be followed and everything was loaded anew");
    describe_histogram!(REPLICA_LOAD, Unit::Seconds, "How long loading everything took");
    // A counter that is not there cannot be seen to rise.
    for reason in ["other_epoch", "restored", "hole", "unreadable"] {
        counter!(REPLICA_RELOADS, "reason" => reason).absolute(0);
    }
    describe_gauge!(LISTENER, "1 while this server hears of commits at once, 0 while it waits for the tick");
    describe_histogram!(PROPAGATION, Unit::Seconds, "From a change's instant to its effect on this server");
    describe_gauge!(WORKER_BACKLOG, "Rows that were due when the last round began, by duty");
    describe_counter!(WORKER_DONE, "Rows that this worker removed or marked, by duty");
    describe_counter!(WORKER_ROUNDS, "Rounds of maintenance, by outcome");
}

/// Counts what a commit did to overrides: every path that changes them ends here.
pub(crate) fn count_changes(entries: &[ChangeLogEntry]) {
    for entry in entries.iter().filter(|entry| entry.entity == ResourceKind::Override) {
        let flag_name = entry.flag_name.clone().unwrap_or_default();
        let action = match entry.action {
            Action::Created => "created",
            Action::Deleted | Action::Expired => "deleted",
            _ => "updated",
        };
        if entry.action == Action::Expired {
            counter!(OVERRIDES_EXPIRED, "flag_name" => flag_name.clone()).increment(1);
        }
        counter!(OVERRIDES_TOTAL, "flag_name" => flag_name, "action" => action).increment(1);
    }
}

/// The gauge of active overrides. A flag whose last one goes is set to 0 once and then left to the exporter, which drops
/// what is not set anew.
#[derive(Debug, Default)]
pub(crate) struct ActiveGauge {
    shown: BTreeMap<FlagName, u64>,
}

impl ActiveGauge {
    #[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^53")]
    pub(crate) fn set(&mut self, mut counts: BTreeMap<FlagName, u64>) {
        counts.retain(|name, count| *count > 0 || self.shown.get(name).is_some_and(|shown| *shown > 0));
        for name in self.shown.keys().filter(|name| self.shown[*name] > 0 && !counts.contains_key(*name)) {
            gauge!(OVERRIDES_ACTIVE, "flag_name" => name.to_string()).set(0.0);
        }
        for (name, count) in &counts {
            gauge!(OVERRIDES_ACTIVE, "flag_name" => name.to_string()).set(*count as f64);
        }
        self.shown = counts;
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^53")]
pub(crate) fn show_pending_changes(count: usize) {
    gauge!(SCHEDULED_PENDING).set(count as f64);
}

#[expect(clippy::cast_precision_loss, reason = "revisions stay far below 2^53")]
pub(crate) fn show_replica(revision: i64, age: std::time::Duration) {
    gauge!(REPLICA_REVISION).set(revision as f64);
    gauge!(REPLICA_AGE).set(age.as_secs_f64());
}

pub(crate) fn show_load(duration: std::time::Duration) {
    histogram!(REPLICA_LOAD).record(duration.as_secs_f64());
}

#[expect(clippy::cast_precision_loss, reason = "revisions stay far below 2^53")]
pub(crate) fn show_log_head(revision: i64) {
    gauge!(LOG_HEAD).set(revision as f64);
}

pub(crate) fn count_reload(reason: &'static str) {
    counter!(REPLICA_RELOADS, "reason" => reason).increment(1);
}

pub(crate) fn show_listener(healthy: bool) {
    gauge!(LISTENER).set(if healthy { 1.0 } else { 0.0 });
}

#[expect(clippy::cast_precision_loss, reason = "delays stay far below 2^53 microseconds")]
pub(crate) fn record_propagation(changed_at: Instant, now: Instant) {
    let micros = now.as_micros().saturating_sub(changed_at.as_micros()).max(0);
    histogram!(PROPAGATION).record(micros as f64 / 1e6);
}

#[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^53")]
pub(crate) fn show_backlog(duty: &'static str, rows: i64) {
    gauge!(WORKER_BACKLOG, "duty" => duty).set(rows as f64);
}

pub(crate) fn count_done(duty: &'static str, rows: u64) {
    counter!(WORKER_DONE, "duty" => duty).increment(rows);
}

/// Counts a round of maintenance.
pub fn count_round(succeeded: bool) {
    counter!(WORKER_ROUNDS, "outcome" => if succeeded { "ok" } else { "failed" }).increment(1);
}
