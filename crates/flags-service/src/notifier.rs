//! Wakes event streams after commits.
//!
//! There are four kinds of signals: one per user with open streams, one for commits that affect all
//! users, one for commits that affect all users or hidden flags, and one for every commit. A signal
//! contains only the revision that last affected its subscribers; the subscribers read the changes
//! from the replica. A slow subscriber therefore needs no queue, and an idle one causes no work.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use parking_lot::Mutex;
use tokio::sync::watch;
use uuid::Uuid;

/// All signals of a process.
#[derive(Debug)]
pub struct ChangeNotifier {
    all_users: watch::Sender<i64>,
    /// Commits that affect all users or hidden flags.
    hidden_flags: watch::Sender<i64>,
    commits: watch::Sender<i64>,
    users: Mutex<HashMap<Uuid, watch::Sender<i64>>>,
}

/// The streams that a commit affects.
#[derive(Debug, Default)]
pub(crate) struct Audience {
    /// Streams of all users.
    pub(crate) all_users: bool,
    /// Streams that include flags hidden from clients.
    pub(crate) hidden_flags: bool,
    /// Streams of these users.
    pub(crate) users: HashSet<Uuid>,
}

impl Default for ChangeNotifier {
    fn default() -> Self {
        Self {
            all_users: watch::Sender::new(0),
            hidden_flags: watch::Sender::new(0),
            commits: watch::Sender::new(0),
            users: Mutex::default(),
        }
    }
}

impl ChangeNotifier {
    /// Subscribes to the commits that affect a user's visible flags.
    ///
    /// The subscription covers commits after this call. To miss no commit, subscribe first and then
    /// read the replica.
    pub fn subscribe(self: &Arc<Self>, user_id: Uuid) -> Subscription {
        self.subscription(user_id, &self.all_users)
    }

    /// Like [`subscribe`](Self::subscribe), but includes commits that affect flags hidden from
    /// clients.
    pub fn subscribe_with_hidden_flags(self: &Arc<Self>, user_id: Uuid) -> Subscription {
        self.subscription(user_id, &self.hidden_flags)
    }

    fn subscription(self: &Arc<Self>, user_id: Uuid, broadcast: &watch::Sender<i64>) -> Subscription {
        let mut users = self.users.lock();
        let user = users.entry(user_id).or_insert_with(|| watch::Sender::new(0)).subscribe();
        drop(users);
        Subscription { notifier: Arc::clone(self), user_id, broadcast: broadcast.subscribe(), user }
    }

    /// Subscribes to all commits.
    pub fn subscribe_to_commits(&self) -> watch::Receiver<i64> {
        self.commits.subscribe()
    }

    /// Stores the revision of a commit in the signals of its audience without waking subscribers.
    ///
    /// Must be called before the commit becomes visible in the replica. Otherwise
    /// [`Subscription::last_revision`] could lag behind the replica.
    pub(crate) fn record(&self, audience: &Audience, revision: i64) {
        if audience.all_users {
            set_silently(&self.all_users, revision);
        }
        if audience.all_users || audience.hidden_flags {
            set_silently(&self.hidden_flags, revision);
        }
        if !audience.users.is_empty() {
            let users = self.users.lock();
            for signal in audience.users.iter().filter_map(|id| users.get(id)) {
                set_silently(signal, revision);
            }
        }
    }

    /// Wakes the audience of a commit and all subscribers to commits. Must be called after the
    /// commit has become visible in the replica.
    pub(crate) fn wake(&self, audience: &Audience, revision: i64) {
        if audience.all_users || audience.hidden_flags {
            self.hidden_flags.send_modify(|_| {});
        }
        if audience.all_users {
            self.all_users.send_modify(|_| {});
        } else if !audience.users.is_empty() {
            let users = self.users.lock();
            for signal in audience.users.iter().filter_map(|id| users.get(id)) {
                signal.send_modify(|_| {});
            }
        }
        self.commits.send_replace(revision);
    }

    /// Wakes all streams for a reason other than a commit, such as a reload.
    pub(crate) fn wake_all(&self) {
        self.all_users.send_modify(|_| {});
        self.hidden_flags.send_modify(|_| {});
        self.commits.send_modify(|_| {});
    }
}

/// Stores a revision in a signal without waking its subscribers.
fn set_silently(signal: &watch::Sender<i64>, revision: i64) {
    signal.send_if_modified(|last| {
        *last = revision;
        false
    });
}

/// Subscription of one event stream.
#[derive(Debug)]
pub struct Subscription {
    notifier: Arc<ChangeNotifier>,
    user_id: Uuid,
    broadcast: watch::Receiver<i64>,
    user: watch::Receiver<i64>,
}

impl Subscription {
    /// Number of the last revision that affected this stream since it subscribed; 0 without such a
    /// revision.
    pub fn last_revision(&self) -> i64 {
        (*self.broadcast.borrow()).max(*self.user.borrow())
    }

    /// Marks all previous signals as seen. [`changed`](Self::changed) then waits for the next one.
    pub fn mark_seen(&mut self) {
        self.broadcast.mark_unchanged();
        self.user.mark_unchanged();
    }

    /// Waits until there is a signal that is not marked as seen.
    pub async fn changed(&mut self) {
        // `changed` returns an error only if the sender is dropped; `self.notifier` keeps the senders alive.
        tokio::select! {
            _ = self.broadcast.changed() => {}
            _ = self.user.changed() => {}
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut users = self.notifier.users.lock();
        // `self.user` is not dropped yet and counts as one receiver.
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

    fn all_users() -> Audience {
        Audience { all_users: true, ..Audience::default() }
    }

    fn is_woken(subscription: &Subscription) -> bool {
        subscription.broadcast.has_changed().unwrap() || subscription.user.has_changed().unwrap()
    }

    #[test]
    fn wakes_only_the_audience_of_a_commit() {
        let notifier = Arc::new(ChangeNotifier::default());
        let (mut first, second) = (notifier.subscribe(Uuid::from_u128(1)), notifier.subscribe(Uuid::from_u128(2)));
        notifier.record(&user(1), 7);
        assert_eq!((first.last_revision(), second.last_revision()), (7, 0));
        assert!(!is_woken(&first), "recording a revision wakes no subscriber");
        notifier.wake(&user(1), 7);
        assert!(is_woken(&first) && !is_woken(&second));
        first.mark_seen();
        assert!(!is_woken(&first));
        notifier.record(&all_users(), 8);
        notifier.wake(&all_users(), 8);
        assert!(is_woken(&first) && is_woken(&second));
        assert_eq!(*notifier.subscribe_to_commits().borrow(), 8);
    }

    #[test]
    fn changes_to_hidden_flags_wake_only_streams_that_include_them() {
        let notifier = Arc::new(ChangeNotifier::default());
        let visible_only = notifier.subscribe(Uuid::from_u128(1));
        let mut with_hidden = notifier.subscribe_with_hidden_flags(Uuid::from_u128(1));
        let hidden = Audience { hidden_flags: true, ..Audience::default() };
        notifier.record(&hidden, 7);
        notifier.wake(&hidden, 7);
        assert_eq!((visible_only.last_revision(), with_hidden.last_revision()), (0, 7));
        assert!(!is_woken(&visible_only) && is_woken(&with_hidden));
        for audience in [user(1), all_users()] {
            with_hidden.mark_seen();
            notifier.record(&audience, 8);
            notifier.wake(&audience, 8);
            assert!(is_woken(&visible_only) && is_woken(&with_hidden), "other changes wake both streams");
        }
        assert_eq!((visible_only.last_revision(), with_hidden.last_revision()), (8, 8));
    }

    #[test]
    fn drops_the_signal_of_a_user_with_their_last_subscription() {
        let notifier = Arc::new(ChangeNotifier::default());
        let (first, second) = (notifier.subscribe(Uuid::from_u128(1)), notifier.subscribe(Uuid::from_u128(1)));
        drop(first);
        assert_eq!(notifier.users.lock().len(), 1);
        drop(second);
        assert!(notifier.users.lock().is_empty());
    }
}
