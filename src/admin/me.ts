// Who calls and what they may do; and every permission there is, for those who put roles together.
import { z } from 'zod'
import { builtInRoles, isBuiltInRole, organizationPermissions, permissions } from '../organizations/permissions.ts'
import type { Kernel } from './kernel.ts'
import { operation } from './operation.ts'

const group = 'Access'

const organizationSchema = z.strictObject({ id: z.string(), slug: z.string(), name: z.string() })

export const operations = {
  me: operation({
    id: 'getMe',
    method: 'GET',
    path: '/api/admin/me',
    group,
    permission: 'known',
    summary: 'Who calls, and what they may do',
    description:
      'The person or client behind the token, the organisation that this request would act in, and the permissions held at this moment.',
    answer: {
      status: 200,
      description: 'The caller.',
      schema: z
        .strictObject({
          kind: z.enum(['account', 'client']),
          id: z.string(),
          name: z.string(),
          email: z.string().nullable().meta({ description: 'null for a client' }),
          roles: z.array(z.string()),
          permissions: z.array(z.string()),
          scopes: z.array(z.string()).nullable().meta({ description: 'null for a browser, which is held to none' }),
          organization: organizationSchema,
          actingIn: organizationSchema,
        })
        .meta({ id: 'Caller' }),
    },
  }),
  permissions: operation({
    id: 'listPermissions',
    method: 'GET',
    path: '/api/admin/permissions',
    group,
    permission: 'role:read',
    summary: 'Every permission',
    description: 'What roles are put together from, in words, and which built-in roles hold it.',
    answer: {
      status: 200,
      description: 'The permissions.',
      schema: z.strictObject({
        items: z.array(
          z
            .strictObject({
              name: z.string(),
              description: z.string().meta({ description: 'what it lets somebody do' }),
              grantable: z.boolean().meta({ description: 'whether a role of an organisation may hold it' }),
              roles: z.array(z.string()).meta({ description: 'the built-in roles that hold it' }),
            })
            .meta({ id: 'Permission' }),
        ),
      }),
    },
  }),
} as const

export function addMe({ on }: Kernel): void {
  on(operations.me, async (_tx, { caller, organization }) => ({
    body: {
      kind: caller.kind,
      id: caller.id,
      name: caller.name,
      email: caller.kind === 'account' ? caller.email : null,
      roles: caller.kind === 'account' ? [...caller.roles] : [],
      permissions: [...caller.permissions].sort(),
      scopes: caller.scopes ? [...caller.scopes] : null,
      organization: caller.organization,
      actingIn: organization,
    },
  }))

  on(operations.permissions, async () => ({ body: { items: catalogue } }))
}

const holders: readonly (readonly [string, readonly string[]])[] = Object.entries(builtInRoles)
const grantable: readonly string[] = organizationPermissions
const catalogue = Object.entries(permissions).map(([name, description]) => ({
  name,
  description,
  grantable: grantable.includes(name),
  roles: holders.filter(([role, held]) => isBuiltInRole(role) && held.includes(name)).map(([role]) => role),
}))
