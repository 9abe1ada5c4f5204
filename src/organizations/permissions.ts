// What may be done at the admin API, and which built-in role may do it: one table. Pure. Organisations put roles of their
// own together out of the same permissions; a role's name that stands nowhere grants nothing.

/** Every permission, with what it lets somebody do. */
export const permissions = {
  'organization:read': 'see the organisation and its domains',
  'organization:update': 'rename the organisation and manage its domains',
  'policy:read': 'see the policy, what is in effect and why',
  'policy:write': 'change the policy',
  'user:read': 'see people and their places',
  'user:create': 'create and invite people',
  'user:update': 'change names and details of people',
  'user:disable': 'disable and enable people',
  'user:reset-password': 'mail somebody a new start, or demand a new password',
  'user:reset-mfa': 'let somebody replace a lost second factor',
  'membership:write': 'give roles, take guests in and let them go',
  'role:read': 'see the roles of the organisation',
  'role:write': 'define roles of the organisation',
  'session:read': 'see sessions of people',
  'session:revoke': 'end sessions of people',
  'client:read': 'see apps',
  'client:create': 'register apps',
  'client:update': 'change apps and replace their secrets',
  'client:disable': 'disable, enable and delete apps',
  'webhook:read': 'see webhooks and what was delivered',
  'webhook:write': 'set up webhooks',
  'audit:read': 'read the audit log',
  'audit:export': 'export the audit log',
  'platform:organizations': 'create, close and reopen organisations, and act in each of them',
} as const

export type Permission = keyof typeof permissions
export const allPermissions = Object.keys(permissions).filter(isPermission)

/** Permissions that reach beyond one organisation: no role of an organisation's own may hold them. */
const platformPermissions: readonly Permission[] = ['platform:organizations']
export const organizationPermissions = allPermissions.filter((name) => !platformPermissions.includes(name))

const readOnly = (names: readonly Permission[]) => names.filter((name) => name.endsWith(':read'))

/** Built-in roles. `member` and any name that is defined nowhere grant nothing here; they travel in tokens. */
export const builtInRoles = {
  platform_admin: allPermissions,
  org_admin: organizationPermissions,
  auditor: [...readOnly(organizationPermissions), 'audit:export'],
  support: ['user:read', 'session:read', 'session:revoke', 'user:reset-password', 'user:reset-mfa', 'role:read'],
  member: [],
} as const satisfies Readonly<Record<string, readonly Permission[]>>

export type BuiltInRole = keyof typeof builtInRoles

export function isPermission(name: string): name is Permission {
  return Object.hasOwn(permissions, name)
}

export function isBuiltInRole(name: string): name is BuiltInRole {
  return Object.hasOwn(builtInRoles, name)
}

/**
 * What these roles permit together.
 * @param own the organisation's own roles by name; they never override a built-in one and never reach the platform
 */
export function permissionsOf(
  roles: readonly string[],
  own: Readonly<Record<string, readonly string[]>>,
): ReadonlySet<Permission> {
  const granted = roles.flatMap((role): readonly Permission[] => {
    if (isBuiltInRole(role)) return builtInRoles[role]
    if (!Object.hasOwn(own, role)) return []
    return (own[role] ?? []).filter(isPermission).filter((name) => organizationPermissions.includes(name))
  })
  return new Set(granted)
}

/** Whether somebody who holds `held` may give what permits `wanted`: no one grants what they do not hold. */
export function mayGrant(held: ReadonlySet<Permission>, wanted: ReadonlySet<Permission>): boolean {
  return [...wanted].every((permission) => held.has(permission))
}

/** Whether a role makes somebody an administrator: it permits to change anything. HIPAA mode asks more of those. */
export function isAdministrative(granted: ReadonlySet<Permission>): boolean {
  return [...granted].some((name) => !name.endsWith(':read') && name !== 'audit:export')
}

/** The same for roles by name (accounts.ts asks it of everybody who signs in). */
export function isAdministrator(roles: readonly string[], own: Readonly<Record<string, readonly string[]>>): boolean {
  return isAdministrative(permissionsOf(roles, own))
}
