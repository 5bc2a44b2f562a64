//! States of credentials and their users, including the states before a transaction changed them.

use std::collections::HashMap;

use flags_domain::{Instant, Role, TokenGrant};
use uuid::Uuid;

/// Identifies a credential by a hash or a user id, not by its secret.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub enum CredentialRef {
    /// API token with this SHA-256.
    Token([u8; 32]),
    /// Session whose secret has this SHA-256.
    Session([u8; 32]),
    /// Stored user that an external issuer has identified. The database stores no credential.
    User(Uuid),
    /// User that an external issuer has identified, stored or not. A user that is not stored has the role `user`.
    AnyUser(Uuid),
}

impl std::fmt::Debug for CredentialRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("CredentialRef(…)")
    }
}

/// State of a credential and of its user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredPrincipal {
    pub(crate) credential: CredentialState,
    pub(crate) user: Option<UserState>,
}

/// State of a credential, without its user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CredentialState {
    /// Permissions of the credential itself.
    pub(crate) grant: TokenGrant,
    /// User that the credential acts as.
    pub(crate) user_id: Option<Uuid>,
    pub(crate) expires_at: Option<Instant>,
    pub(crate) is_revoked: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct UserState {
    pub(crate) role: Role,
    pub(crate) active: bool,
}

impl UserState {
    /// State of a user that is not stored.
    pub(crate) const UNKNOWN: Self = Self { role: Role::User, active: true };
}

/// Permissions that a valid credential grants: the lower of the credential's role and its user's role.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EffectiveGrant(pub TokenGrant);

impl EffectiveGrant {
    /// The effective role. `None` if the credential may only evaluate flags.
    pub const fn role(self) -> Option<Role> {
        match self.0 {
            TokenGrant::Role(role) => Some(role),
            TokenGrant::Evaluate => None,
        }
    }
}

impl StoredPrincipal {
    /// Returns the permissions at `now`; `None` if the credential is revoked or has expired, or if its user does not
    /// exist or is inactive.
    pub fn grant_at(&self, now: Instant) -> Option<EffectiveGrant> {
        let CredentialState { grant, user_id, expires_at, is_revoked } = self.credential;
        if is_revoked || expires_at.is_some_and(|expiry| expiry <= now) {
            return None;
        }
        let user = self.user.filter(|user| user.active);
        match (user_id, user, grant) {
            (Some(_), None, _) => None,
            (Some(_), Some(user), TokenGrant::Role(role)) => {
                Some(EffectiveGrant(TokenGrant::Role(role.lower(user.role))))
            }
            (None, _, grant) | (_, _, grant @ TokenGrant::Evaluate) => Some(EffectiveGrant(grant)),
        }
    }
}

/// States of users, tokens and sessions before the transaction changed or deleted them.
///
/// Each state is recorded while the transaction has the row locked, so no other transaction changes it afterwards.
#[derive(Debug, Default)]
pub(crate) struct PriorStates {
    users: HashMap<Uuid, UserState>,
    credentials: HashMap<CredentialRef, CredentialState>,
}

impl PriorStates {
    /// Records the state of a user before its first change by the transaction.
    pub(crate) fn record_user(&mut self, id: Uuid, before: UserState) {
        self.users.entry(id).or_insert(before);
    }

    /// Records the state of a credential before its first change by the transaction.
    pub(crate) fn record_credential(&mut self, credential: CredentialRef, before: CredentialState) {
        self.credentials.entry(credential).or_insert(before);
    }

    /// Returns the state of a user before the transaction changed it; `None` if the user is
    /// unchanged.
    pub(crate) fn user(&self, id: Uuid) -> Option<UserState> {
        self.users.get(&id).copied()
    }

    /// Returns the state of a credential before the transaction changed it; `None` if the
    /// credential is unchanged.
    pub(crate) fn credential(&self, credential: &CredentialRef) -> Option<CredentialState> {
        self.credentials.get(credential).copied()
    }
}

impl CredentialState {
    /// State of a session, or of a user that an external issuer has authenticated. Such a
    /// credential does not limit the role of its user, so its own role is admin.
    pub(crate) const fn unlimited(user_id: Uuid, expires_at: Option<Instant>) -> Self {
        Self { grant: TokenGrant::Role(Role::Admin), user_id: Some(user_id), expires_at, is_revoked: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn principal(grant: TokenGrant, user: Option<(Role, bool)>) -> StoredPrincipal {
        let user_id = user.map(|_| Uuid::nil());
        let credential = CredentialState { grant, user_id, expires_at: None, is_revoked: false };
        StoredPrincipal { credential, user: user.map(|(role, active)| UserState { role, active }) }
    }

    #[test]
    fn valid_credential_grants_the_lower_role_of_credential_and_active_user() {
        let now = Instant::from_micros(10);
        let role = |principal: StoredPrincipal| principal.grant_at(now).map(EffectiveGrant::role);
        let admin = TokenGrant::Role(Role::Admin);
        assert_eq!(role(principal(admin, None)), Some(Some(Role::Admin)));
        assert_eq!(role(principal(TokenGrant::Evaluate, None)), Some(None));
        assert_eq!(role(principal(admin, Some((Role::Viewer, true)))), Some(Some(Role::Viewer)));
        assert_eq!(role(principal(TokenGrant::Role(Role::User), Some((Role::Admin, true)))), Some(Some(Role::User)));
        assert_eq!(role(principal(admin, Some((Role::Admin, false)))), None);
        let mut deleted_user = principal(admin, Some((Role::Admin, true)));
        deleted_user.user = None;
        assert_eq!(role(deleted_user), None);
        let mut revoked = principal(admin, None);
        revoked.credential.is_revoked = true;
        assert_eq!(role(revoked), None);
        let mut expired = principal(admin, None);
        expired.credential.expires_at = Some(now);
        assert_eq!(role(expired), None);
    }
}
