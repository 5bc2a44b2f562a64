//! Check that the credential behind a command is still valid when the command commits.
//!
//! The server identifies the caller when the head of a request arrives. The credential may be
//! revoked before the command commits. [`Core`](crate::Core) therefore reads the credential again
//! in the transaction of the command.

use flags_domain::{Instant, Role};
use flags_store::{
    Author, Tx,
    principals::{self, CredentialRef, StoredPrincipal},
    users::UserRecord,
};

use crate::error::{CredentialRejection, Result, ServiceError};

/// Author of a command, and the credential that permits it.
#[derive(Clone, Debug)]
pub struct CommandAuthor {
    author: Author,
    check: CredentialCheck,
}

/// Credential that must be valid when a command commits.
#[derive(Clone, Copy, Debug)]
pub enum CredentialCheck {
    /// For commands that need no credential: those of the command line, the worker, and sign-in.
    NotRequired,
    /// The credential must be valid and have the permission.
    Required(RequiredCredential),
}

/// Credential and the permission that it must have.
#[derive(Clone, Copy, Debug)]
pub struct RequiredCredential {
    /// Credential that the caller presented.
    pub credential: CredentialRef,
    /// Expiry of a credential that the database does not contain (a JWT).
    pub expires_at: Option<Instant>,
    /// Permission that the command requires.
    pub permission: RequiredPermission,
}

/// Permission that a command requires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequiredPermission {
    /// Any valid credential.
    AnyRole,
    /// Role support or admin. The command may change only overrides of users with role `user`, even if the caller is an
    /// admin by the time of the commit.
    Support,
    /// Role admin.
    Admin,
}

/// Users whose overrides a command may change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PermittedUsers {
    All,
    /// Users with role `user`.
    WithRoleUser,
}

/// Whether a command has changed the credential that permits it, or the credential's user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OwnCredential {
    Unchanged,
    Changed,
}

impl CommandAuthor {
    /// Creates an author whose commands commit only while the credential is valid.
    pub const fn new(author: Author, required: RequiredCredential) -> Self {
        Self { author, check: CredentialCheck::Required(required) }
    }

    /// Creates an author whose commands need no credential: the command line, the worker, or a
    /// tool.
    pub const fn without_credential(author: Author) -> Self {
        Self { author, check: CredentialCheck::NotRequired }
    }

    /// Author as recorded in the change log.
    pub const fn author(&self) -> &Author {
        &self.author
    }

    /// Credential that must be valid when a command of this author commits.
    pub const fn check(&self) -> &CredentialCheck {
        &self.check
    }

    /// Users whose overrides the commands of this author may change.
    pub(crate) const fn permitted_users(&self) -> PermittedUsers {
        match &self.check {
            CredentialCheck::NotRequired => PermittedUsers::All,
            CredentialCheck::Required(required) => match required.permission {
                RequiredPermission::Admin => PermittedUsers::All,
                RequiredPermission::Support | RequiredPermission::AnyRole => PermittedUsers::WithRoleUser,
            },
        }
    }

    /// Returns the author for the remaining commits of a command that has changed its own credential, such as an admin
    /// who deletes their own user. The credential was valid until that change, so it is not checked again.
    pub(crate) fn after_own_change(self) -> Self {
        Self { check: CredentialCheck::NotRequired, ..self }
    }
}

impl PermittedUsers {
    /// Fails with [`ServiceError::UserNotPermitted`] unless overrides of the user may be changed. The transaction must
    /// hold a lock on the user, so that the role cannot change before the commit.
    pub(crate) fn check(self, user: &UserRecord) -> Result<()> {
        match self {
            Self::All => Ok(()),
            Self::WithRoleUser if user.role == Role::User => Ok(()),
            Self::WithRoleUser => Err(ServiceError::UserNotPermitted),
        }
    }
}

impl CredentialCheck {
    /// Fails with [`ServiceError::CredentialRejected`] unless the credential was valid before the
    /// transaction changed anything, and no other transaction has revoked it since.
    ///
    /// Call after [`Tx::take_revision`]: every logged change of a credential locks the head of the
    /// change log, so none can commit between this check and the commit of the transaction.
    pub(crate) async fn check_in(&self, tx: &mut Tx) -> Result<OwnCredential> {
        let Self::Required(required) = self else { return Ok(OwnCredential::Unchanged) };
        let prior = principals::find_prior(tx, &required.credential).await?;
        required.check_stored(prior.principal, tx.read_clock())?;
        Ok(if prior.is_changed { OwnCredential::Changed } else { OwnCredential::Unchanged })
    }
}

impl RequiredCredential {
    /// Fails with [`ServiceError::CredentialRejected`] unless the stored state permits the command at `now`.
    pub(crate) fn check_stored(&self, stored: Option<StoredPrincipal>, now: Instant) -> Result<()> {
        let grant = stored.and_then(|principal| principal.grant_at(now));
        let grant = grant.filter(|_| self.expires_at.is_none_or(|expiry| expiry > now));
        match (grant, self.permission) {
            (None, _) => Err(ServiceError::CredentialRejected(CredentialRejection::Invalid)),
            (Some(_), RequiredPermission::AnyRole) => Ok(()),
            (Some(grant), RequiredPermission::Support) if matches!(grant.role(), Some(Role::Admin | Role::Support)) => {
                Ok(())
            }
            (Some(_), RequiredPermission::Support) => {
                Err(ServiceError::CredentialRejected(CredentialRejection::RequiresSupport))
            }
            (Some(grant), RequiredPermission::Admin) if grant.role() == Some(Role::Admin) => Ok(()),
            (Some(_), RequiredPermission::Admin) => {
                Err(ServiceError::CredentialRejected(CredentialRejection::RequiresAdmin))
            }
        }
    }
}
