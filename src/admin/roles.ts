// Roles that an organisation puts together for itself, beside the built-in ones. Nobody defines what they do not hold.
import { z } from 'zod'
import { printable } from '../api/contract.ts'
import { ApiProblem } from '../api/problems.ts'
import { appendAudit } from '../audit/audit.ts'
import { type Row, runIn, type Tx } from '../db/database.ts'
import { enqueueWebhooks } from '../deliveries/webhooks.ts'
import { builtInRoles, isBuiltInRole, isPermission, organizationPermissions } from '../organizations/permissions.ts'
import { requireAll } from './access.ts'
import { NotHere } from './call.ts'
import type { Kernel } from './kernel.ts'
import { operation } from './operation.ts'
import { roleName } from './users.ts'

const group = 'Roles'
const root = '/api/admin/roles'
export const maxRoles = 100
const maxDescriptionLength = 200

const permissionList = z
  .array(z.enum(organizationPermissions))
  .max(organizationPermissions.length)
  .refine((names) => new Set(names).size === names.length, 'must not name a permission twice')
const description = printable(maxDescriptionLength)
const roleParams = z.strictObject({ name: roleName })

const roleSchema = z
  .strictObject({
    name: z.string(),
    description: z.string(),
    permissions: z.array(z.string()),
    builtIn: z.boolean().meta({ description: 'the same in every organisation, and not to be changed' }),
  })
  .meta({ id: 'Role' })
const oneRole = { status: 200, description: 'The role.', schema: roleSchema } as const

export const operations = {
  list: operation({
    id: 'listRoles',
    method: 'GET',
    path: root,
    group,
    permission: 'role:read',
    summary: 'Roles',
    description: `The built-in ones and those of the organisation, of which there are at most ${maxRoles}.`,
    answer: { status: 200, description: 'The roles.', schema: z.strictObject({ items: z.array(roleSchema) }) },
  }),
  get: operation({
    id: 'getRole',
    method: 'GET',
    path: `${root}/:name`,
    group,
    permission: 'role:read',
    versioned: 1,
    summary: 'One role',
    description: 'A built-in one has no ETag, because it does not change.',
    params: roleParams,
    answer: oneRole,
  }),
  create: operation({
    id: 'createRole',
    method: 'POST',
    path: root,
    group,
    permission: 'role:write',
    stepUp: true,
    exclusive: true,
    versioned: 1,
    summary: 'Define a role',
    description: 'Whoever has a role of this name already holds its permissions from then on.',
    body: z.strictObject({ name: roleName, description: description.default(''), permissions: permissionList }),
    answer: { status: 201, description: 'The role.', schema: roleSchema },
    problems: ['already_exists', 'not_possible'],
  }),
  update: operation({
    id: 'updateRole',
    method: 'PATCH',
    path: `${root}/:name`,
    group,
    permission: 'role:write',
    stepUp: true,
    exclusive: true,
    versioned: 1,
    summary: 'Change a role',
    description: 'It acts on everybody who has it, at their next request.',
    params: roleParams,
    body: z.strictObject({ description: description.optional(), permissions: permissionList.optional() }),
    answer: oneRole,
  }),
  remove: operation({
    id: 'deleteRole',
    method: 'DELETE',
    path: `${root}/:name`,
    group,
    permission: 'role:write',
    stepUp: true,
    exclusive: true,
    versioned: 1,
    summary: 'Delete a role',
    description: 'One that nobody has any more.',
    params: roleParams,
    answer: { status: 204, description: 'It is gone.' },
    problems: ['in_use'],
  }),
} as const

interface Role {
  readonly name: string
  readonly description: string
  readonly permissions: readonly string[]
  readonly version: number
}

const columns = 'name, description, permissions, version'
const list = `select ${columns} from mlpipes_auth.organization_roles where organization_id = $1 order by name limit ${maxRoles}`
const find = `select ${columns} from mlpipes_auth.organization_roles where organization_id = $1 and name = $2`
const count = 'select count(*)::integer as roles from mlpipes_auth.organization_roles where organization_id = $1'
const insert = `insert into mlpipes_auth.organization_roles (organization_id, name, description, permissions)
    values ($1, $2, $3, $4::text[]) on conflict (organization_id, name) do nothing returning ${columns}`
const update = `update mlpipes_auth.organization_roles set description = coalesce($4::text, description),
      permissions = coalesce($5::text[], permissions), updated_at = now()
    where organization_id = $1 and name = $2 and version = $3 returning ${columns}`
const isHeld = `select account_id from mlpipes_auth.memberships where organization_id = $1 and $2 = any(roles) limit 1`
const remove =
  'delete from mlpipes_auth.organization_roles where organization_id = $1 and name = $2 and version = $3 returning name'

const builtIn = Object.entries(builtInRoles).map(([name, permissions]) => ({
  name,
  description: '',
  permissions: [...permissions],
  builtIn: true,
}))

export function addRoles({ on }: Kernel): void {
  on(operations.list, async (tx, { organization }) => {
    const own = (await runIn(tx, list, [organization.id])).map(toRole)
    return { body: { items: [...builtIn, ...own.map(toAnswer)] } }
  })

  on(operations.get, async (tx, { organization, params }) => {
    const known = builtIn.find(({ name }) => name === params.name)
    if (known) return { body: known }
    const role = await requireRole(tx, organization.id, params.name)
    return { body: toAnswer(role), version: [role.version] }
  })

  on(operations.create, async (tx, { organization, body, caller, about }) => {
    requireAll(caller, new Set(body.permissions))
    if (isBuiltInRole(body.name)) throw new ApiProblem('already_exists')
    const [held] = await runIn(tx, count, [organization.id])
    if (Number(held?.['roles']) >= maxRoles)
      throw new ApiProblem('not_possible', [{ path: '', message: `an organisation has at most ${maxRoles} roles` }])
    const [row] = await runIn(tx, insert, [organization.id, body.name, body.description, body.permissions])
    if (!row) throw new ApiProblem('already_exists')
    const role = toRole(row)
    const details = { role: role.name, permissions: [...role.permissions] }
    await appendAudit(tx, { ...about, name: 'role.created', outcome: 'success', details })
    await enqueueWebhooks(tx, organization.id, { type: 'role.created', data: { role: role.name } })
    return { body: toAnswer(role), version: [role.version], location: `${root}/${role.name}` }
  })

  on(operations.update, async (tx, { organization, params, body, caller, about, expected }) => {
    const before = await requireRole(tx, organization.id, params.name)
    requireAll(caller, new Set([...before.permissions, ...(body.permissions ?? [])].filter(isPermission)))
    if (Object.keys(body).length === 0) {
      if (before.version !== expected[0]) throw new ApiProblem('version_stale')
      return { body: toAnswer(before), version: [before.version] }
    }
    const values = [organization.id, params.name, ...expected, body.description ?? null, body.permissions ?? null]
    const [row] = await runIn(tx, update, values)
    if (!row) throw new ApiProblem('version_stale')
    const role = toRole(row)
    const details = { role: role.name, changed: Object.keys(body), permissions: [...role.permissions] }
    await appendAudit(tx, { ...about, name: 'role.updated', outcome: 'success', details })
    await enqueueWebhooks(tx, organization.id, { type: 'role.updated', data: { role: role.name } })
    return { body: toAnswer(role), version: [role.version] }
  })

  on(operations.remove, async (tx, { organization, params, caller, about, expected }) => {
    const before = await requireRole(tx, organization.id, params.name)
    requireAll(caller, new Set(before.permissions.filter(isPermission)))
    if ((await runIn(tx, isHeld, [organization.id, params.name])).length > 0) throw new ApiProblem('in_use')
    if ((await runIn(tx, remove, [organization.id, params.name, ...expected])).length === 0)
      throw new ApiProblem('version_stale')
    await appendAudit(tx, { ...about, name: 'role.deleted', outcome: 'success', details: { role: params.name } })
    await enqueueWebhooks(tx, organization.id, { type: 'role.deleted', data: { role: params.name } })
    return {}
  })
}

async function requireRole(tx: Tx, organizationId: string, name: string): Promise<Role> {
  const [row] = await runIn(tx, find, [organizationId, name])
  if (!row) throw new NotHere('other', name)
  return toRole(row)
}

function toRole(row: Row): Role {
  return {
    name: String(row['name']),
    description: String(row['description']),
    permissions: row['permissions'] as string[],
    version: Number(row['version']),
  }
}

const toAnswer = ({ name, description, permissions }: Role) => ({
  name,
  description,
  permissions: [...permissions],
  builtIn: false,
})
