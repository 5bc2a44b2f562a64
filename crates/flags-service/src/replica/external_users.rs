//! Index of users with an external id. It resolves an external id to a user id without a database
//! query.

use std::collections::{HashMap, HashSet};

use flags_domain::UserIdNamespace;
use parking_lot::RwLock;
use uuid::Uuid;

/// External id of a stored user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExternalUser {
    /// Id of the user.
    pub id: Uuid,
    /// Id of the user in another system.
    pub external_id: String,
}

/// Resolves external ids to user ids, and knows which users with an external id exist.
#[derive(Debug)]
pub(super) struct ExternalUsers(RwLock<Index>);

#[derive(Debug)]
struct Index {
    namespace: UserIdNamespace,
    /// First 8 bytes of the ids of users with an external id. May contain deleted users.
    known: HashSet<u64>,
    /// Users that got their external id after their creation. Their ids are not derived from it.
    assigned: HashMap<Box<str>, Uuid>,
    /// The external ids in `assigned`, by user id.
    assigned_ids: HashMap<Uuid, Box<str>>,
    /// Users that changed ahead of the replica's revision. A reload may have started before these changes.
    ahead: HashMap<Uuid, Option<ExternalUser>>,
    /// Whether any user may have changed ahead of the replica's revision.
    is_incomplete: bool,
}

impl Index {
    fn new(namespace: UserIdNamespace) -> Self {
        Self {
            namespace,
            known: HashSet::new(),
            assigned: HashMap::new(),
            assigned_ids: HashMap::new(),
            ahead: HashMap::new(),
            is_incomplete: false,
        }
    }

    fn add(&mut self, ExternalUser { id, external_id }: ExternalUser) {
        self.known.insert(prefix(id));
        if self.namespace.user_id(&external_id) != id {
            self.assigned_ids.insert(id, external_id.as_str().into());
            self.assigned.insert(external_id.into(), id);
        }
    }

    /// Removes the external id of a deleted user. The user id stays in `known`, which costs at most an unnecessary
    /// lookup.
    fn remove(&mut self, id: Uuid) {
        let external_id = self.assigned_ids.remove(&id);
        if let Some(external_id) = external_id
            && self.assigned.get(&external_id) == Some(&id)
        {
            self.assigned.remove(&external_id);
        }
    }
}

/// User id that belongs to an external id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExternalUserId {
    /// Id of the user, even if no such user is stored.
    pub id: Uuid,
    /// Whether a stored user may have this id. If `false`, no lookup is necessary.
    pub may_exist: bool,
}

impl ExternalUsers {
    pub(super) fn new(namespace: UserIdNamespace) -> Self {
        Self(RwLock::new(Index::new(namespace)))
    }

    /// Replaces the index after a reload. If `is_behind`, the reload started before the last
    /// [changes ahead of it](Self::update_ahead), which are applied again.
    pub(super) fn replace(&self, other: Self, is_behind: bool) {
        let mut other = other.0.into_inner();
        let mut index = self.0.write();
        let ahead = std::mem::take(&mut index.ahead);
        if is_behind {
            for (id, user) in &ahead {
                other.remove(*id);
                user.iter().cloned().for_each(|user| other.add(user));
            }
            other.ahead = ahead;
            other.is_incomplete = index.is_incomplete;
        }
        *index = other;
    }

    /// Namespace from which user ids are derived.
    pub(super) fn namespace(&self) -> UserIdNamespace {
        self.0.read().namespace
    }

    /// Adds users.
    pub(super) fn add(&self, users: impl IntoIterator<Item = ExternalUser>) {
        let mut index = self.0.write();
        users.into_iter().for_each(|user| index.add(user));
    }

    /// Applies a commit that changed the users `ids`. `users` contains those that have an external id now.
    pub(super) fn update(&self, ids: impl IntoIterator<Item = Uuid>, users: Vec<ExternalUser>) {
        let mut index = self.0.write();
        for id in ids {
            index.remove(id);
        }
        users.into_iter().for_each(|user| index.add(user));
    }

    /// Like [`update`](Self::update), for changes ahead of the replica's revision.
    pub(super) fn update_ahead(&self, ids: &[Uuid], users: Vec<ExternalUser>) {
        let mut index = self.0.write();
        index.ahead.extend(ids.iter().map(|id| (*id, None)));
        index.ahead.extend(users.iter().map(|user| (user.id, Some(user.clone()))));
        drop(index);
        self.update(ids.iter().copied(), users);
    }

    /// Treats every external id as that of a stored user until [`catch_up`](Self::catch_up), because any user may have
    /// changed.
    pub(super) fn mark_incomplete(&self) {
        self.0.write().is_incomplete = true;
    }

    /// Ends the state of being behind, because the replica contains all changes now.
    pub(super) fn catch_up(&self) {
        let is_behind = {
            let index = self.0.read();
            index.is_incomplete || !index.ahead.is_empty()
        };
        if is_behind {
            let mut index = self.0.write();
            index.is_incomplete = false;
            index.ahead.clear();
        }
    }

    /// Whether the user may have an external id.
    pub(super) fn may_include(&self, id: Uuid) -> bool {
        let index = self.0.read();
        index.is_incomplete || index.known.contains(&prefix(id))
    }

    /// Returns the id of the user with this external id or, if there is none, the id that is derived from it.
    pub(super) fn resolve(&self, external_id: &str) -> ExternalUserId {
        let index = self.0.read();
        if let Some(id) = index.assigned.get(external_id) {
            return ExternalUserId { id: *id, may_exist: true };
        }
        let id = index.namespace.user_id(external_id);
        ExternalUserId { id, may_exist: index.is_incomplete || index.known.contains(&prefix(id)) }
    }
}

fn prefix(id: Uuid) -> u64 {
    id.as_u64_pair().0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(id: Uuid, external_id: &str) -> ExternalUser {
        ExternalUser { id, external_id: external_id.to_owned() }
    }

    #[test]
    fn resolves_derived_and_assigned_ids() {
        let namespace = UserIdNamespace::new([7; 16]);
        let users = ExternalUsers::new(namespace);
        let derived = namespace.user_id("ann");
        assert_eq!(users.resolve("ann"), ExternalUserId { id: derived, may_exist: false });
        let assigned = Uuid::from_u128(1 << 100);
        users.add([user(derived, "ann"), user(assigned, "ben")]);
        assert_eq!(users.resolve("ann"), ExternalUserId { id: derived, may_exist: true });
        assert_eq!(users.resolve("ben"), ExternalUserId { id: assigned, may_exist: true });
        users.update([assigned], Vec::new());
        assert_eq!(users.resolve("ben"), ExternalUserId { id: namespace.user_id("ben"), may_exist: false });
    }

    #[test]
    fn reload_keeps_changes_that_are_newer_than_the_loaded_state() {
        let namespace = UserIdNamespace::new([7; 16]);
        let users = ExternalUsers::new(namespace);
        let (ben, cleo) = (Uuid::from_u128(1 << 100), Uuid::from_u128(2 << 100));
        users.add([user(ben, "ben")]);
        users.update_ahead(&[ben, cleo], vec![user(cleo, "cleo")]);
        let loaded = ExternalUsers::new(namespace);
        loaded.add([user(ben, "ben")]);
        users.replace(loaded, true);
        assert_eq!(users.resolve("ben").id, namespace.user_id("ben"), "ben was deleted during the reload");
        assert_eq!(users.resolve("cleo"), ExternalUserId { id: cleo, may_exist: true });
        let loaded = ExternalUsers::new(namespace);
        users.replace(loaded, false);
        assert_eq!(users.resolve("cleo"), ExternalUserId { id: namespace.user_id("cleo"), may_exist: false });
    }

    #[test]
    fn any_external_id_may_exist_until_the_index_is_complete() {
        let users = ExternalUsers::new(UserIdNamespace::new([7; 16]));
        users.mark_incomplete();
        assert!(users.resolve("ann").may_exist);
        users.catch_up();
        assert!(!users.resolve("ann").may_exist);
    }
}
