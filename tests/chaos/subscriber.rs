//! A client of an event stream that applies events, reconnects after disconnects, and records what it received.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, Instant},
};

use flags_tests::{caller::Caller, events::Event};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::journal::Journal;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EventKind {
    Snapshot,
    Change,
    Heartbeat,
}

#[derive(Clone, Debug)]
pub(crate) struct ReceivedEvent {
    pub(crate) received_at: Instant,
    pub(crate) kind: EventKind,
    pub(crate) revision: i64,
    pub(crate) evaluated_at: i64,
    /// Names of the flags in a `change` event. Empty for a snapshot, which contains all flags.
    pub(crate) flag_names: Vec<String>,
}

/// State of a subscriber and the history of its stream.
#[derive(Debug, Default)]
pub(crate) struct SubscriberState {
    /// Current value of each flag.
    pub(crate) values: BTreeMap<String, Value>,
    pub(crate) events: Vec<ReceivedEvent>,
    /// Stream position of the last event, sent as `Last-Event-ID` when the subscriber reconnects.
    position: Option<String>,
    epoch: String,
    /// Number of events whose position precedes the previous one, and of changes that arrived twice.
    pub(crate) out_of_order: usize,
    /// Number of established connections.
    pub(crate) connections: usize,
    /// Number of reconnects after which the first event was a snapshot.
    pub(crate) snapshot_resumes: usize,
    /// Number of reconnects after which the first event was not a snapshot.
    pub(crate) incremental_resumes: usize,
    /// Reasons in the `bye` events.
    pub(crate) bye_reasons: Vec<String>,
    /// Received bytes of all response bodies.
    pub(crate) raw: Vec<u8>,
}

/// A running subscriber. Dropping it closes the stream.
pub(crate) struct Subscriber {
    /// Index of the user in the test environment.
    pub(crate) user: usize,
    state: Arc<Mutex<SubscriberState>>,
    task: JoinHandle<()>,
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Subscriber {
    /// Subscribes to the own-flags stream of the caller. The seed determines the delays before reconnects.
    pub(crate) fn start(user: usize, caller: Caller, journal: Arc<Journal>, seed: u64) -> Self {
        let state = Arc::new(Mutex::new(SubscriberState::default()));
        let task = tokio::spawn(run_subscriber(user, caller, Arc::clone(&state), journal, seed));
        Self { user, state, task }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, SubscriberState> {
        self.state.lock().expect("lock is not poisoned")
    }

    /// Returns the revision of the last event, or -1 before the first event.
    pub(crate) fn revision(&self) -> i64 {
        self.state().events.last().map_or(-1, |event| event.revision)
    }

    pub(crate) fn has_received_event(&self) -> bool {
        !self.state().events.is_empty()
    }
}

async fn run_subscriber(
    user: usize,
    caller: Caller,
    state: Arc<Mutex<SubscriberState>>,
    journal: Arc<Journal>,
    seed: u64,
) {
    let mut rng = StdRng::seed_from_u64(seed);
    loop {
        let position = state.lock().expect("lock is not poisoned").position.clone();
        let headers: Vec<_> = position.iter().map(|position| ("Last-Event-ID", position.as_str())).collect();
        if let Ok(mut stream) = caller.try_open_stream("/api/flags/stream", &headers).await {
            state.lock().expect("lock is not poisoned").connections += 1;
            let mut is_first = true;
            while let Some(event) = stream.try_next().await {
                journal.write("event", json!({"user": user, "event": event.event, "id": event.id, "data": event.data}));
                let mut state = state.lock().expect("lock is not poisoned");
                state.raw.append(&mut stream.raw);
                if is_first && position.is_some() && event.event != "bye" {
                    if event.event == "snapshot" {
                        state.snapshot_resumes += 1;
                    } else {
                        state.incremental_resumes += 1;
                    }
                }
                is_first = false;
                state.apply(event);
            }
        }
        tokio::time::sleep(Duration::from_millis(rng.random_range(5..60))).await;
    }
}

impl SubscriberState {
    fn apply(&mut self, event: Event) {
        if event.event == "bye" {
            self.bye_reasons.push(event.data["reason"].as_str().unwrap_or_default().to_owned());
            return;
        }
        let epoch = event.id.as_deref().and_then(|id| id.split(':').next()).unwrap_or_default().to_owned();
        let kind = match &*event.event {
            "snapshot" => EventKind::Snapshot,
            "change" => EventKind::Change,
            _ => EventKind::Heartbeat,
        };
        let (revision, evaluated_at) = (event.revision(), event.evaluated_at());
        let last = self.events.last().map(|last| (last.revision, last.evaluated_at));
        let is_out_of_order =
            |last| last > (revision, evaluated_at) || (kind == EventKind::Change && last == (revision, evaluated_at));
        if epoch == self.epoch && last.is_some_and(is_out_of_order) {
            self.out_of_order += 1;
        }
        let mut flag_names = Vec::new();
        let members = |field: &str| event.data[field].as_object().cloned().unwrap_or_default();
        match kind {
            EventKind::Snapshot => {
                self.values =
                    members("flags").into_iter().map(|(name, result)| (name, result["value"].clone())).collect();
            }
            EventKind::Change => {
                for (name, result) in members("set") {
                    self.values.insert(name.clone(), result["value"].clone());
                    flag_names.push(name);
                }
                for name in event.data["unset"].as_array().into_iter().flatten().filter_map(Value::as_str) {
                    self.values.remove(name);
                    flag_names.push(name.to_owned());
                }
            }
            EventKind::Heartbeat => {}
        }
        self.events.push(ReceivedEvent { received_at: Instant::now(), kind, revision, evaluated_at, flag_names });
        self.position = event.id;
        self.epoch = epoch;
    }

    /// Returns the first event whose revision is at least `revision`.
    pub(crate) fn first_event_at_revision(&self, revision: i64) -> Option<&ReceivedEvent> {
        self.events.iter().find(|event| event.revision >= revision)
    }
}
