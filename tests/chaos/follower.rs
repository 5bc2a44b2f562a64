//! A client of a stream: applies what it gets, connects again when it is cut, and remembers what it saw.

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

/// What kind of event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Snapshot,
    Change,
    Heartbeat,
}

/// One event, when it came.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) at: Instant,
    pub(crate) kind: Kind,
    pub(crate) revision: i64,
    pub(crate) evaluated_at: i64,
    /// The flags it names; a snapshot names all.
    pub(crate) names: Vec<String>,
}

/// What a client has, and how it came to it.
#[derive(Debug, Default)]
pub(crate) struct Followed {
    /// The present value of each flag.
    pub(crate) values: BTreeMap<String, Value>,
    pub(crate) seen: Vec<Seen>,
    cursor: Option<String>,
    epoch: String,
    /// Events that went back, and changes that came twice.
    pub(crate) disorders: usize,
    /// How often it connected.
    pub(crate) connects: usize,
    /// How often the first event after connecting again was a snapshot, and how often not.
    pub(crate) resumed: (usize, usize),
    /// Why the server said goodbye.
    pub(crate) byes: Vec<String>,
    /// Every byte that came after the head.
    pub(crate) raw: Vec<u8>,
}

/// A client at work.
pub(crate) struct Follower {
    /// Whose stream it is: a place among the scene's users.
    pub(crate) user: usize,
    state: Arc<Mutex<Followed>>,
    task: JoinHandle<()>,
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Follower {
    /// Follows until it is dropped.
    pub(crate) fn start(user: usize, caller: Caller, journal: Arc<Journal>, seed: u64) -> Self {
        let state = Arc::new(Mutex::new(Followed::default()));
        let task = tokio::spawn(follow(user, caller, Arc::clone(&state), journal, seed));
        Self { user, state, task }
    }

    pub(crate) fn look(&self) -> MutexGuard<'_, Followed> {
        self.state.lock().expect("no panic")
    }

    /// The revision it stands at.
    pub(crate) fn revision(&self) -> i64 {
        self.look().seen.last().map_or(-1, |seen| seen.revision)
    }

    /// Whether it has got anything.
    pub(crate) fn has_begun(&self) -> bool {
        !self.look().seen.is_empty()
    }
}

async fn follow(user: usize, caller: Caller, state: Arc<Mutex<Followed>>, journal: Arc<Journal>, seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    loop {
        let cursor = state.lock().expect("no panic").cursor.clone();
        let headers: Vec<_> = cursor.iter().map(|cursor| ("Last-Event-ID", cursor.as_str())).collect();
        if let Ok(mut events) = caller.try_open_stream("/api/flags/stream", &headers).await {
            state.lock().expect("no panic").connects += 1;
            let mut first = true;
            while let Some(event) = events.try_next().await {
                journal.write("event", json!({"user": user, "event": event.event, "id": event.id, "data": event.data}));
                let mut state = state.lock().expect("no panic");
                state.raw.append(&mut events.raw);
                if first && cursor.is_some() && event.event != "bye" {
                    let resumed = &mut state.resumed;
                    *if event.event == "snapshot" { &mut resumed.0 } else { &mut resumed.1 } += 1;
                }
                first = false;
                state.take_in(event);
            }
        }
        tokio::time::sleep(Duration::from_millis(rng.random_range(5..60))).await;
    }
}

impl Followed {
    fn take_in(&mut self, event: Event) {
        if event.event == "bye" {
            self.byes.push(event.data["reason"].as_str().unwrap_or_default().to_owned());
            return;
        }
        let epoch = event.id.as_deref().and_then(|id| id.split(':').next()).unwrap_or_default().to_owned();
        let kind = match &*event.event {
            "snapshot" => Kind::Snapshot,
            "change" => Kind::Change,
            _ => Kind::Heartbeat,
        };
        let (revision, evaluated_at) = (event.revision(), event.evaluated_at());
        let last = self.seen.last().map(|seen| (seen.revision, seen.evaluated_at));
        let again =
            |last| last > (revision, evaluated_at) || (kind == Kind::Change && last == (revision, evaluated_at));
        if epoch == self.epoch && last.is_some_and(again) {
            self.disorders += 1;
        }
        let mut names = Vec::new();
        let members = |part: &str| event.data[part].as_object().cloned().unwrap_or_default();
        match kind {
            Kind::Snapshot => {
                self.values =
                    members("flags").into_iter().map(|(name, result)| (name, result["value"].clone())).collect();
            }
            Kind::Change => {
                for (name, result) in members("set") {
                    self.values.insert(name.clone(), result["value"].clone());
                    names.push(name);
                }
                for name in event.data["unset"].as_array().into_iter().flatten().filter_map(Value::as_str) {
                    self.values.remove(name);
                    names.push(name.to_owned());
                }
            }
            Kind::Heartbeat => {}
        }
        self.seen.push(Seen { at: Instant::now(), kind, revision, evaluated_at, names });
        self.cursor = event.id;
        self.epoch = epoch;
    }

    /// The event that took this client past a revision.
    pub(crate) fn covering(&self, revision: i64) -> Option<&Seen> {
        self.seen.iter().find(|seen| seen.revision >= revision)
    }
}
