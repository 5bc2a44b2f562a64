/** Roles and what the UI offers to each. The server enforces permissions; this module only explains them. */

import type { Role } from '../api/types';

/** Permission that a page or control requires. */
export type Permission = 'read' | 'changeOverrides' | 'changeFlags' | 'changeUsers';

interface RoleInfo {
  readonly label: string;
  readonly description: string;
  readonly permissions: readonly Permission[];
}

const ROLES: Record<Role, RoleInfo> = {
  admin: {
    label: 'Admin',
    description: 'Reads and changes everything',
    permissions: ['read', 'changeOverrides', 'changeFlags', 'changeUsers'],
  },
  viewer: { label: 'Viewer', description: 'Reads everything, changes nothing', permissions: ['read'] },
  user: { label: 'User', description: 'Reads only their own flag values', permissions: [] },
};

const SUBJECTS: Record<Permission, string> = {
  read: 'see this page',
  changeOverrides: 'change overrides',
  changeFlags: 'change flags',
  changeUsers: 'change users',
};

export const ALL_ROLES = Object.keys(ROLES) as Role[];

export function roleLabel(role: Role | null): string {
  return role === null ? 'No role' : ROLES[role].label;
}

export function roleDescription(role: Role): string {
  return ROLES[role].description;
}

export function hasPermission(role: Role | null, permission: Permission): boolean {
  return role !== null && ROLES[role].permissions.includes(permission);
}

/** Names the roles with a permission: `Only admins can change overrides.` */
export function permissionHint(permission: Permission): string {
  const roles = ALL_ROLES.filter((role) => hasPermission(role, permission));
  const names = roles.map((role) => `${ROLES[role].label.toLowerCase()}s`).join(' and ');
  return `Only ${names} can ${SUBJECTS[permission]}.`;
}
