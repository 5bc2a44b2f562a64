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
        Self(RwLock::new(Index { namespace, known: HashSet::new(), assigned: HashMap::new() }))
    }

    pub(super) fn replace(&self, other: Self) {
        *self.0.write() = other.0.into_inner();
    }

    /// Namespace from which user ids are derived.
    pub(super) fn namespace(&self) -> UserIdNamespace {
        self.0.read().namespace
    }

    /// Adds users. A user that is already known keeps its external id, because external ids never change.
    pub(super) fn add(&self, users: impl IntoIterator<Item = ExternalUser>) {
        let mut index = self.0.write();
        for ExternalUser { id, external_id } in users {
            index.known.insert(prefix(id));
            if index.namespace.user_id(&external_id) != id {
                index.assigned.insert(external_id.into(), id);
            }
        }
    }

    /// Removes the external id of a deleted user. The user id stays in `known`, which costs at most
    /// an unnecessary lookup.
    pub(super) fn remove(&self, id: Uuid) {
        let is_assigned = self.0.read().assigned.values().any(|user_id| *user_id == id);
        if is_assigned {
            self.0.write().assigned.retain(|_, user_id| *user_id != id);
        }
    }

    /// Whether the user may have an external id.
    pub(super) fn may_include(&self, id: Uuid) -> bool {
        self.0.read().known.contains(&prefix(id))
    }

    /// Returns the id of the user with this external id or, if there is none, the id that is derived from it.
    pub(super) fn resolve(&self, external_id: &str) -> ExternalUserId {
        let index = self.0.read();
        if let Some(id) = index.assigned.get(external_id) {
            return ExternalUserId { id: *id, may_exist: true };
        }
        let id = index.namespace.user_id(external_id);
        ExternalUserId { id, may_exist: index.known.contains(&prefix(id)) }
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
        users.remove(assigned);
        assert_eq!(users.resolve("ben"), ExternalUserId { id: namespace.user_id("ben"), may_exist: false });
    }
}
