//! Event streams for the own flags of a user and for administrators.

mod admin;
mod due_changes;
mod lifecycle;
mod own_flags;
mod resume;

use std::time::Duration;

use flags_api::StreamLimits;
use flags_tests::events::{Event, EventStream};

pub(crate) const OWN_FLAGS_STREAM: &str = "/api/flags/stream";
pub(crate) const ADMIN_STREAM: &str = "/api/admin/stream";

/// Default limits, with a heartbeat every 50 ms.
pub(crate) fn fast_heartbeats() -> StreamLimits {
    StreamLimits { heartbeat: Duration::from_millis(50), ..StreamLimits::default() }
}

/// Default limits, with a heartbeat interval of one hour: no heartbeat occurs during a test.
pub(crate) fn no_heartbeats() -> StreamLimits {
    StreamLimits { heartbeat: Duration::from_secs(3_600), ..StreamLimits::default() }
}

/// Asserts that the next event other than a heartbeat is a `change` of this flag alone.
pub(crate) async fn expect_change_of(events: &mut EventStream, flag: &str) {
    let change = events.expect("change").await;
    assert_eq!(changed_flags(&change), [flag], "{change:?}");
}

/// Names of the flags that a `change` event sets.
pub(crate) fn changed_flags(change: &Event) -> Vec<&str> {
    change.data["set"].as_object().unwrap().keys().map(String::as_str).collect()
}

/// Moves a stream position by this many revisions and microseconds.
pub(crate) fn moved_position(position: &str, revisions: i64, micros: i64) -> String {
    let parts: Vec<_> = position.split(':').collect();
    let number: i64 = parts[1].parse().unwrap();
    let at: i64 = parts[2].parse().unwrap();
    format!("{}:{}:{}", parts[0], number + revisions, at + micros)
}
