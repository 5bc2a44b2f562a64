//! Measures memory, load time, longest insertion and lookup time of the replica with a million
//! overrides, for several kinds of user ids. Ids that callers choose must cost no more than random
//! ids.
//!
//! Each round measures every kind once, so a temporary slowdown of the machine affects all kinds.
//! Every round repeats the same insertions. Only the shortest time of each insertion counts,
//! because other processes may interrupt an insertion. The longest insertion is the maximum of
//! these times.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "benchmark")]

use std::{
    fs,
    hint::black_box,
    time::{Duration, Instant as Moment},
};

use flags_domain::{FlagName, Instant, Revision, Snapshot, UserIdNamespace, UserOverride};
use flags_service::replica::{DatabaseKeys, LoadedState, Replica, ShardKey};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use serde_json::json;
use uuid::Uuid;

const OVERRIDES: usize = 1_000_000;
const ROUNDS: usize = 5;

fn main() {
    let mut rng = StdRng::seed_from_u64(1);
    let mut kinds = [
        Kind::new("random", |_| Uuid::from_u128(rng.random())),
        Kind::new("sequential", Uuid::from_u128),
        Kind::new("constant suffix", |number| Uuid::from_u128(number << 64 | 0xabcd)),
        Kind::new("colliding in FxHash", colliding_in_fx_hash),
    ];
    for _ in 0..ROUNDS {
        // Keeps all replicas of a round. Otherwise a replica could reuse memory that a previous
        // replica released.
        let replicas: Vec<_> = kinds.iter_mut().map(Kind::load).collect();
        for (kind, replica) in kinds.iter_mut().zip(&replicas) {
            kind.look_up(replica);
        }
    }
    println!("{OVERRIDES} overrides, one per user; best of {ROUNDS} alternating rounds:");
    println!("  user ids               bytes each      load   longest insertion   lookup");
    for kind in kinds {
        println!(
            "  {:<20} {:>12.0} {:>7.2} s {:>16.1} us {:>5.0} ns",
            kind.name,
            kind.bytes as f64 / OVERRIDES as f64,
            kind.load_time.as_secs_f64(),
            kind.insertions.iter().max().unwrap().as_secs_f64() * 1e6,
            kind.lookup_time.as_secs_f64() * 1e9 / OVERRIDES as f64,
        );
    }
}

/// Returns an id with the same FxHash for every `number`. FxHash XORs each half of an id with a
/// constant and multiplies the two results. The first half of these ids equals its constant, so the
/// product is always 0.
fn colliding_in_fx_hash(number: u128) -> Uuid {
    Uuid::from_u128(0xd308_a385_886a_3f24 << 64 | number)
}

/// A kind of user ids, with the best measurements of all rounds.
struct Kind {
    name: &'static str,
    users: Vec<Uuid>,
    /// Resident memory of the replica in the first round, in bytes. Later rounds may reuse this
    /// memory.
    bytes: usize,
    load_time: Duration,
    /// Shortest time of each insertion.
    insertions: Vec<Duration>,
    /// Time for reading the overrides of all users.
    lookup_time: Duration,
}

impl Kind {
    fn new(name: &'static str, user_id: impl FnMut(u128) -> Uuid) -> Self {
        let users = (0..OVERRIDES as u128).map(user_id).collect();
        let insertions = vec![Duration::MAX; OVERRIDES];
        Self { name, users, bytes: 0, load_time: Duration::MAX, insertions, lookup_time: Duration::MAX }
    }

    /// Loads a replica with one override per user, and measures memory and times.
    fn load(&mut self) -> Replica {
        let memory_before = resident_bytes();
        let started_at = Moment::now();
        let revision = Revision { epoch: Uuid::nil(), number: 1 };
        let snapshot = Snapshot::default();
        let mut loaded = LoadedState::new(
            revision,
            snapshot,
            Vec::new(),
            Vec::new(),
            DatabaseKeys { shards: ShardKey::new(&[7; 16]), user_ids: UserIdNamespace::new([0; 16]) },
        );
        let mut new = user_override();
        for (user_id, shortest) in self.users.iter().zip(&mut self.insertions) {
            new.user_id = *user_id;
            let started_at = Moment::now();
            loaded.add(&new);
            *shortest = (*shortest).min(started_at.elapsed());
        }
        self.load_time = self.load_time.min(started_at.elapsed());
        if self.bytes == 0 {
            self.bytes = resident_bytes() - memory_before;
        }
        Replica::new(loaded)
    }

    fn look_up(&mut self, replica: &Replica) {
        let started_at = Moment::now();
        for user_id in &self.users {
            black_box(replica.snapshot(Some(black_box(*user_id))).overrides().count());
        }
        self.lookup_time = self.lookup_time.min(started_at.elapsed());
    }
}

fn user_override() -> UserOverride {
    UserOverride {
        id: Uuid::nil(),
        user_id: Uuid::nil(),
        flag_name: FlagName::new("checkout").unwrap(),
        override_value: json!(true),
        enabled: None,
        reason: None,
        created_by: "system:bench".to_owned(),
        created_at: Instant::from_micros(0),
        updated_at: Instant::from_micros(0),
        expires_at: None,
    }
}

/// Resident memory of this process in bytes. Requires Linux.
fn resident_bytes() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
}
