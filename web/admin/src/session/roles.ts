/** Roles and what the UI offers to each. The server enforces permissions; this module only explains them. */

import type { Role } from '../api/types';

/** Permission that a page or control requires. */
export type Permission = 'read' | 'changeOverrides' | 'changeFlags' | 'changeUsers';

interface RoleInfo {
  readonly label: string;
  /** Name of the people with this role, in sentences. */
  readonly people: string;
  readonly description: string;
  readonly permissions: readonly Permission[];
}

const ROLES: Record<Role, RoleInfo> = {
  admin: {
    label: 'Admin',
    people: 'admins',
    description: 'Reads and changes everything',
    permissions: ['read', 'changeOverrides', 'changeFlags', 'changeUsers'],
  },
  support: {
    label: 'Support',
    people: 'support',
    description: 'Reads everything, changes overrides of users with role User',
    permissions: ['read', 'changeOverrides'],
  },
  viewer: {
    label: 'Viewer',
    people: 'viewers',
    description: 'Reads everything, changes nothing',
    permissions: ['read'],
  },
  user: { label: 'User', people: 'users', description: 'Reads only their own flag values', permissions: [] },
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

const LIST = new Intl.ListFormat('en-GB');

/** Says who has a permission: `Only admins and support can change overrides.` */
export function permissionHint(permission: Permission): string {
  const roles = ALL_ROLES.filter((role) => hasPermission(role, permission));
  const names = LIST.format(roles.map((role) => ROLES[role].people));
  return `Only ${names} can ${SUBJECTS[permission]}.`;
}
