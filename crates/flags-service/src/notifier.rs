//! Wakes streams: a signal for each user whose streams are open, one for all users, one for whoever sees flags that are
//! hidden from users as well, one for whoever wants every commit.
//!
//! A signal carries no news but the revision that last touched its hearers; they pull what is new from the replica. So a
//! slow reader costs a position and never a queue, and a quiet one nothing.

use std::sync::Arc;

use parking_lot::Mutex;
use rustc_hash::{FxHashMap, FxHashSet};
use tokio::sync::watch;
use uuid::Uuid;

/// All signals of a process.
#[derive(Debug)]
pub struct ChangeNotifier {
    everybody: watch::Sender<i64>,
    every_flag: watch::Sender<i64>,
    every_commit: watch::Sender<i64>,
    users: Mutex<FxHashMap<Uuid, watch::Sender<i64>>>,
}

/// Whom a commit concerns.
#[derive(Debug, Default)]
pub(crate) struct Audience {
    pub(crate) everybody: bool,
    /// Whoever sees flags that are hidden from users.
    pub(crate) hidden_flags: bool,
    pub(crate) users: FxHashSet<Uuid>,
}

impl Default for ChangeNotifier {
    fn default() -> Self {
        let signal = || watch::Sender::new(0);
        Self { everybody: signal(), every_flag: signal(), every_commit: signal(), users: Mutex::default() }
    }
}

impl ChangeNotifier {
    /// The signals of a user's stream. What came before this call must be looked for in the replica, after it.
    pub fn subscribe(self: &Arc<Self>, user_id: Uuid) -> Subscription {
        self.subscription(user_id, &self.everybody)
    }

    /// The same of a stream for which flags count as well that are hidden from users.
    pub fn subscribe_to_every_flag(self: &Arc<Self>, user_id: Uuid) -> Subscription {
        self.subscription(user_id, &self.every_flag)
    }

    fn subscription(self: &Arc<Self>, user_id: Uuid, everybody: &watch::Sender<i64>) -> Subscription {
        let mut users = self.users.lock();
        let own = users.entry(user_id).or_insert_with(|| watch::Sender::new(0)).subscribe();
        drop(users);
        Subscription { notifier: Arc::clone(self), user_id, everybody: everybody.subscribe(), own }
    }

    /// The signal of every commit.
    pub fn subscribe_to_all(&self) -> watch::Receiver<i64> {
        self.every_commit.subscribe()
    }

    /// Writes down whom a commit concerns, before anybody can see it, and wakes nobody yet.
    pub(crate) fn note(&self, audience: &Audience, revision: i64) {
        let note = |signal: &watch::Sender<i64>| {
            signal.send_if_modified(|at| {
                *at = revision;
                false
            });
        };
        if audience.everybody {
            note(&self.everybody);
        }
        if audience.everybody || audience.hidden_flags {
            note(&self.every_flag);
        }
        if !audience.users.is_empty() {
            let users = self.users.lock();
            audience.users.iter().filter_map(|id| users.get(id)).for_each(note);
        }
    }

    /// Wakes whom a commit concerns.
    pub(crate) fn wake(&self, audience: &Audience, revision: i64) {
        if audience.everybody || audience.hidden_flags {
            self.every_flag.send_modify(|_| {});
        }
        if audience.everybody {
            self.everybody.send_modify(|_| {});
        } else if !audience.users.is_empty() {
            let users = self.users.lock();
            for signal in audience.users.iter().filter_map(|id| users.get(id)) {
                signal.send_modify(|_| {});
            }
        }
        self.every_commit.send_replace(revision);
    }

    /// Wakes every stream, though nothing was committed.
    pub(crate) fn wake_all(&self) {
        self.everybody.send_modify(|_| {});
        self.every_flag.send_modify(|_| {});
        self.every_commit.send_modify(|_| {});
    }
}

/// What a user's stream listens to.
#[derive(Debug)]
pub struct Subscription {
    notifier: Arc<ChangeNotifier>,
    user_id: Uuid,
    everybody: watch::Receiver<i64>,
    own: watch::Receiver<i64>,
}

impl Subscription {
    /// The revision that last touched this user, since the subscription.
    pub fn touched_at(&self) -> i64 {
        (*self.everybody.borrow()).max(*self.own.borrow())
    }

    /// Marks all signals as heard: [`woken`](Self::woken) waits for the next.
    pub fn hear(&mut self) {
        self.everybody.mark_unchanged();
        self.own.mark_unchanged();
    }

    /// Waits for a signal.
    pub async fn woken(&mut self) {
        // The senders live as long as the hub, which this holds.
        tokio::select! {
            _ = self.everybody.changed() => {}
            _ = self.own.changed() => {}
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut users = self.notifier.users.lock();
        // This receiver still counts.
        if users.get(&self.user_id).is_some_and(|signal| signal.receiver_count() <= 1) {
            users.remove(&self.user_id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(id: u128) -> Audience {
        Audience { users: [Uuid::from_u128(id)].into_iter().collect(), ..Audience::default() }
    }

    fn is_woken(subscription: &Subscription) -> bool {
        subscription.everybody.has_changed().unwrap() || subscription.own.has_changed().unwrap()
    }

    #[test]
    fn a_signal_reaches_those_concerned_and_nobody_else() {
        let notifier = Arc::new(ChangeNotifier::default());
        let (mut one, two) = (notifier.subscribe(Uuid::from_u128(1)), notifier.subscribe(Uuid::from_u128(2)));
        notifier.note(&user(1), 7);
        assert_eq!((one.touched_at(), two.touched_at()), (7, 0));
        assert!(!is_woken(&one), "noted, not yet woken");
        notifier.wake(&user(1), 7);
        assert!(is_woken(&one) && !is_woken(&two));
        one.hear();
        assert!(!is_woken(&one));
        let all = Audience { everybody: true, ..Audience::default() };
        notifier.note(&all, 8);
        notifier.wake(&all, 8);
        assert!(is_woken(&one) && is_woken(&two));
        assert_eq!(*notifier.subscribe_to_all().borrow(), 8);
    }

    #[test]
    fn hidden_flags_wake_only_whoever_sees_them() {
        let notifier = Arc::new(ChangeNotifier::default());
        let (one, mut all) =
            (notifier.subscribe(Uuid::from_u128(1)), notifier.subscribe_to_every_flag(Uuid::from_u128(1)));
        let hidden = Audience { hidden_flags: true, ..Audience::default() };
        notifier.note(&hidden, 7);
        notifier.wake(&hidden, 7);
        assert_eq!((one.touched_at(), all.touched_at()), (0, 7));
        assert!(!is_woken(&one) && is_woken(&all));
        for audience in [user(1), Audience { everybody: true, ..Audience::default() }] {
            all.hear();
            notifier.note(&audience, 8);
            notifier.wake(&audience, 8);
            assert!(is_woken(&one) && is_woken(&all), "what concerns users concerns them as well");
        }
        assert_eq!((one.touched_at(), all.touched_at()), (8, 8));
    }

    #[test]
    fn a_user_without_streams_costs_nothing() {
        let notifier = Arc::new(ChangeNotifier::default());
        let (one, two) = (notifier.subscribe(Uuid::from_u128(1)), notifier.subscribe(Uuid::from_u128(1)));
        drop(one);
        assert_eq!(notifier.users.lock().len(), 1);
        drop(two);
        assert!(notifier.users.lock().is_empty());
    }
}
