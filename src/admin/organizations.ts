// Organisations: the platform's list of them, founding, closing and reopening one; and each one's own name.
import { z } from 'zod'
import { name } from '../api/contract.ts'
import { ApiProblem } from '../api/problems.ts'
import { appendAudit } from '../audit/audit.ts'
import { randomId } from '../crypto/secrets.ts'
import { type Database, type Row, runIn, type Tx } from '../db/database.ts'
import { containing } from '../db/like.ts'
import { enqueueWebhooks } from '../deliveries/webhooks.ts'
import { slugSchema } from '../organizations/organizations.ts'
import { type Platform, policySchema } from '../organizations/policy.ts'
import { endOrganizationAccess, finishWhileClosed } from '../sessions/closing.ts'
import { NotHere } from './call.ts'
import type { Caller } from './caller.ts'
import type { Kernel } from './kernel.ts'
import { idParam, instant, listQuery, operation, pageOf, search } from './operation.ts'
import { refuseBreaches } from './policy-input.ts'
import { assertOthersAdministered } from './rules.ts'

const group = 'Organisations'

const organizationSchema = z
  .strictObject({
    id: z.string(),
    slug: z.string().meta({ description: 'its name in addresses and tokens; it never changes' }),
    name: z.string(),
    createdAt: instant,
    updatedAt: instant,
    closedAt: instant.nullable().meta({ description: 'null while it is open' }),
    version: z.number().int(),
  })
  .meta({ id: 'Organization' })
const one = (description: string) => ({ status: 200 as const, description, schema: organizationSchema })
const params = z.strictObject({ organizationId: idParam })

export const operations = {
  list: operation({
    id: 'listOrganizations',
    method: 'GET',
    path: '/api/admin/organizations',
    group,
    permission: 'platform:organizations',
    reach: 'platform',
    pageKey: 1,
    summary: 'All organisations',
    description: 'In the order of their slugs.',
    query: listQuery({
      q: search.optional(),
      status: z.enum(['open', 'closed']).optional().meta({ description: 'both unless said' }),
    }),
    answer: { status: 200, description: 'A page of organisations.', schema: pageOf(organizationSchema) },
  }),
  create: operation({
    id: 'createOrganization',
    method: 'POST',
    path: '/api/admin/organizations',
    group,
    permission: 'platform:organizations',
    reach: 'platform',
    summary: 'Found an organisation',
    description: 'With a policy, if it is not to inherit everything. Its first administrator is invited afterwards.',
    body: z.strictObject({ slug: slugSchema, name, policy: policySchema.optional() }),
    answer: { status: 201, description: 'The new organisation.', schema: organizationSchema },
    problems: ['already_exists'],
  }),
  read: operation({
    id: 'getOrganization',
    method: 'GET',
    path: '/api/admin/organization',
    group,
    permission: 'organization:read',
    versioned: 1,
    summary: 'The organisation',
    description: 'In which the request acts. The platform reads closed ones too.',
    answer: one('The organisation.'),
  }),
  update: operation({
    id: 'updateOrganization',
    method: 'PATCH',
    path: '/api/admin/organization',
    group,
    permission: 'organization:update',
    versioned: 1,
    summary: 'Rename the organisation',
    description: 'People see the name in sign-ins and mails. The slug stays.',
    body: z.strictObject({ name: name.optional() }),
    answer: one('The organisation afterwards.'),
  }),
  close: operation({
    id: 'closeOrganization',
    method: 'POST',
    path: '/api/admin/organizations/:organizationId/close',
    group,
    permission: 'platform:organizations',
    reach: 'platform',
    stepUp: true,
    summary: 'Close an organisation',
    description:
      'From the next request on, its people, guests and apps do nothing in it. Sessions and tokens end and do not come back. Closing what is closed changes nothing. Refused for the organisation that the caller acts from or is at home in, and where the platform, or another organisation, would be left without an administrator: that one is named.',
    params,
    answer: one('The organisation, closed.'),
    problems: ['not_possible', 'last_administrator'],
  }),
  reopen: operation({
    id: 'reopenOrganization',
    method: 'POST',
    path: '/api/admin/organizations/:organizationId/reopen',
    group,
    permission: 'platform:organizations',
    reach: 'platform',
    stepUp: true,
    summary: 'Reopen an organisation',
    description: 'Its people sign in anew: no session and no token of before comes back.',
    params,
    answer: one('The organisation, open.'),
  }),
} as const

const columns = 'id, slug, name, created_at, updated_at, closed_at, version'
const list = `select ${columns} from mlpipes_auth.organizations
    where slug > coalesce($1::text, '') and ($2::text is null or slug like $2 escape '\\' or lower(name) like lower($2) escape '\\')
      and ($3::text is null or (closed_at is null) = ($3 = 'open'))
    order by slug limit $4::integer`
const insert = `insert into mlpipes_auth.organizations (id, slug, name, policy) values ($1, $2, $3, $4::jsonb)
    on conflict (slug) do nothing returning ${columns}`
const find = `select ${columns} from mlpipes_auth.organizations where id = $1`
const findHome = 'select organization_id from mlpipes_auth.accounts where id = $1'
const rename = `update mlpipes_auth.organizations set name = $2, updated_at = now()
    where id = $1 and version = $3 returning ${columns}`
const close = `update mlpipes_auth.organizations set closed_at = now(), updated_at = now()
    where id = $1 and closed_at is null returning ${columns}`
const reopen = `update mlpipes_auth.organizations set closed_at = null, updated_at = now()
    where id = $1 and closed_at is not null returning ${columns}`

export interface OrganizationParts {
  readonly database: Database
  readonly platform: Platform
}

export function addOrganizations(kernel: Kernel, { database, platform }: OrganizationParts): void {
  const { on, onPrepared } = kernel
  on(operations.list, async (tx, { query, page }) => {
    const pattern = query.q === undefined ? null : containing(query.q)
    const rows = await runIn(tx, list, [page.after?.[0] ?? null, pattern, query.status ?? null, page.limit + 1])
    return { body: page.answer(rows, toOrganization, ({ slug }) => [String(slug)]) }
  })

  on(operations.create, async (tx, { about, body }) => {
    const { slug, policy = {} } = body
    refuseBreaches(policy, platform, ['policy'])
    const [row] = await runIn(tx, insert, [randomId('org'), slug, body.name.trim(), JSON.stringify(policy)])
    if (!row) throw new ApiProblem('already_exists', [{ path: 'slug', message: 'is taken' }])
    const organization = toOrganization(row)
    await appendAudit(tx, {
      ...about,
      organizationId: organization.id,
      name: 'organization.created',
      outcome: 'success',
      details: { slug },
    })
    const location = `/api/admin/organization?organization=${organization.id}`
    return { body: organization, version: [organization.version], location }
  })

  on(operations.read, async (tx, { organization }) => answer(await findOne(tx, organization.id)))

  on(operations.update, async (tx, { organization, about, body, expected }) => {
    if (body.name === undefined) {
      const unchanged = await findOne(tx, organization.id)
      if (unchanged.version !== expected[0]) throw new ApiProblem('version_stale')
      return answer(unchanged)
    }
    const [row] = await runIn(tx, rename, [organization.id, body.name.trim(), expected[0]])
    if (!row) throw new ApiProblem('version_stale')
    const details = { slug: organization.slug, changed: ['name'] }
    await appendAudit(tx, { ...about, name: 'organization.updated', outcome: 'success', details })
    return answer(toOrganization(row))
  })

  on(operations.close, async (tx, { params: { organizationId }, caller, about }) => {
    await assertNotTheirs(tx, caller, organizationId)
    const [row] = await runIn(tx, close, [organizationId])
    if (!row) return answer(await findOne(tx, organizationId))
    await assertOthersAdministered(tx, organizationId)
    const organization = toOrganization(row)
    const { actor, origin } = about
    await enqueueWebhooks(tx, organizationId, { type: 'organization.closed', data: {} })
    await endOrganizationAccess(tx, { organizationId, actor, origin })
    const details = { slug: organization.slug }
    await appendAudit(tx, { ...about, organizationId, name: 'organization.closed', outcome: 'success', details })
    return answer(organization)
  })

  onPrepared(operations.reopen, async ({ params: { organizationId } }) => {
    // What the closing has not reached yet would come back.
    await finishWhileClosed(database, organizationId)
    return async (tx, { about }) => {
      const { actor, origin } = about
      const [row] = await runIn(tx, reopen, [organizationId])
      if (!row) return answer(await findOne(tx, organizationId))
      const organization = toOrganization(row)
      while (!(await endOrganizationAccess(tx, { organizationId, actor, origin })).isDone);
      await enqueueWebhooks(tx, organizationId, { type: 'organization.reopened', data: {} })
      const details = { slug: organization.slug }
      await appendAudit(tx, { ...about, organizationId, name: 'organization.reopened', outcome: 'success', details })
      return answer(organization)
    }
  })
}

/**
 * Whoever closed the place that they act from, or are at home in, could not undo it: they could not even sign in.
 * @throws ApiProblem `not_possible`
 */
async function assertNotTheirs(tx: Tx, caller: Caller, organizationId: string): Promise<void> {
  const [account] = caller.kind === 'account' ? await runIn(tx, findHome, [caller.id]) : []
  if (organizationId !== caller.organization.id && organizationId !== account?.['organization_id']) return
  throw new ApiProblem('not_possible', [{ path: '', message: 'an organisation is not closed from within itself' }])
}

type OrganizationAnswer = z.output<typeof organizationSchema>

async function findOne(tx: Tx, id: string): Promise<OrganizationAnswer> {
  const [row] = await runIn(tx, find, [id])
  if (!row) throw new NotHere('organization', id)
  return toOrganization(row)
}

const answer = (body: OrganizationAnswer) => ({ body, version: [body.version] })

function toOrganization(row: Row): OrganizationAnswer {
  const closedAt = row['closed_at'] as Date | null
  return {
    id: String(row['id']),
    slug: String(row['slug']),
    name: String(row['name']),
    createdAt: (row['created_at'] as Date).toISOString(),
    updatedAt: (row['updated_at'] as Date).toISOString(),
    closedAt: closedAt?.toISOString() ?? null,
    version: Number(row['version']),
  }
}
