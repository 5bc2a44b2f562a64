//! Roles of principals and grants of API tokens.

use crate::string_enum::string_enum;

string_enum! {
    /// Role of a principal, which determines its permissions.
    Role {
        /// Can read and change everything.
        Admin = "admin",
        /// Can read everything, and change the overrides of users with role `user`.
        Support = "support",
        /// Can read everything.
        Viewer = "viewer",
        /// Can read the user's own data and flags.
        User = "user",
    }
}

impl Role {
    /// Rank of the role. A role includes all permissions of the roles with a lower rank.
    const fn rank(self) -> u8 {
        match self {
            Self::User => 0,
            Self::Viewer => 1,
            Self::Support => 2,
            Self::Admin => 3,
        }
    }

    /// Returns `self` or `other`, whichever has fewer permissions.
    #[must_use]
    pub const fn lower(self, other: Self) -> Self {
        if self.rank() <= other.rank() { self } else { other }
    }

    /// Returns `self` or `other`, whichever has more permissions.
    #[must_use]
    pub const fn higher(self, other: Self) -> Self {
        if self.rank() >= other.rank() { self } else { other }
    }
}

/// Permissions of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenGrant {
    /// Permissions of a role. If the token has a user, it is limited to the lower of this role and the user's role.
    Role(Role),
    /// Permission to evaluate flags for any user, and nothing else.
    Evaluate,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lower_returns_the_role_with_fewer_permissions() {
        assert_eq!(Role::Admin.lower(Role::Viewer), Role::Viewer);
        assert_eq!(Role::Admin.lower(Role::Support), Role::Support);
        assert_eq!(Role::Support.lower(Role::Viewer), Role::Viewer);
        assert_eq!(Role::User.lower(Role::Admin), Role::User);
        assert_eq!(Role::Admin.lower(Role::Admin), Role::Admin);
    }
}
