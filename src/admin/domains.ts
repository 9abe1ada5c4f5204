// Mail domains of an organisation: claimed here, and shown to be its own by a record in DNS.
import { randomBytes } from 'node:crypto'
import { z } from 'zod'
import { text } from '../api/contract.ts'
import { ApiProblem } from '../api/problems.ts'
import { appendAudit } from '../audit/audit.ts'
import { randomId } from '../crypto/secrets.ts'
import { type Database, type Row, runIn, type Tx } from '../db/database.ts'
import { beyond, transactFor } from '../db/organization-transaction.ts'
import { isUniqueViolation } from '../db/pg-errors.ts'
import { isAddressElsewhere, normalizeDomain } from '../organizations/domains.ts'
import { NotHere } from './call.ts'
import { type DomainRecords, recordOf } from './domain-records.ts'
import type { Kernel } from './kernel.ts'
import { idParam, instant, listQuery, operation, pageOf } from './operation.ts'

const group = 'Domains'
const path = '/api/admin/domains'
/** Of one organisation. */
export const maxDomains = 50

const domainSchema = z
  .strictObject({
    id: z.string(),
    domain: z.string().meta({ description: 'in lower case and punycode' }),
    verifiedAt: instant.nullable().meta({ description: 'null until the record was found' }),
    createdAt: instant,
    record: z
      .strictObject({ type: z.literal('TXT'), name: z.string(), value: z.string() })
      .meta({ description: 'what DNS has to say for the domain to be verified' }),
  })
  .meta({ id: 'Domain' })
const params = z.strictObject({ domainId: idParam })

export const operations = {
  list: operation({
    id: 'listDomains',
    method: 'GET',
    path,
    group,
    permission: 'organization:read',
    pageKey: 1,
    summary: 'Domains of the organisation',
    description: 'Claimed and verified ones, by name.',
    query: listQuery({}),
    answer: { status: 200, description: 'A page of domains.', schema: pageOf(domainSchema) },
  }),
  create: operation({
    id: 'addDomain',
    method: 'POST',
    path,
    group,
    permission: 'organization:update',
    summary: 'Claim a domain',
    description: `Nothing follows from it before the domain is verified. At most ${maxDomains}.`,
    body: z.strictObject({ domain: text(300).min(1) }),
    answer: { status: 201, description: 'The domain and the record that verifies it.', schema: domainSchema },
    problems: ['already_exists', 'not_possible'],
  }),
  verify: operation({
    id: 'verifyDomain',
    method: 'POST',
    path: `${path}/:domainId/verify`,
    group,
    permission: 'organization:update',
    summary: 'Verify a domain',
    description:
      'Looks for the TXT record. From then on, open sign-up takes addresses of verified domains only, and no other organisation makes an account with one, by sign-up, creation or invitation. The domain stands for itself, not for those below it.',
    params,
    answer: { status: 200, description: 'The domain, verified.', schema: domainSchema },
    problems: ['already_exists', 'not_possible'],
  }),
  remove: operation({
    id: 'removeDomain',
    method: 'DELETE',
    path: `${path}/:domainId`,
    group,
    permission: 'organization:update',
    summary: 'Give a domain up',
    description: 'Claimed again, it has to be verified anew.',
    params,
    answer: { status: 204, description: 'It is gone.' },
  }),
} as const

const columns = 'id, domain, challenge, verified_at, created_at'
const list = `select ${columns} from mlpipes_auth.organization_domains
    where organization_id = $1 and domain > coalesce($2::text, '') order by domain limit $3::integer`
// Claims of one organisation wait for each other, or two at once would both be the last one allowed.
const holdOrganization = 'select id from mlpipes_auth.organizations where id = $1 for no key update'
const insert = `insert into mlpipes_auth.organization_domains (id, organization_id, domain, challenge)
    select $1, $2, $3, $4
    where (select count(*) from mlpipes_auth.organization_domains where organization_id = $2) < $5::integer
    on conflict (organization_id, domain) do nothing returning ${columns}`
const findByName = 'select id from mlpipes_auth.organization_domains where organization_id = $1 and domain = $2'
const find = `select ${columns} from mlpipes_auth.organization_domains where id = $1 and organization_id = $2`
const verify = `update mlpipes_auth.organization_domains set verified_at = now()
    where id = $1 and organization_id = $2 and challenge = $3 and verified_at is null returning ${columns}`
const remove = `delete from mlpipes_auth.organization_domains where id = $1 and organization_id = $2 returning domain`

export interface DomainParts {
  readonly database: Database
  readonly domainRecords: DomainRecords
}

export function addDomains({ on, onPrepared }: Kernel, { database, domainRecords }: DomainParts): void {
  on(operations.list, async (tx, { organization, page }) => {
    const rows = await runIn(tx, list, [organization.id, page.after?.[0] ?? null, page.limit + 1])
    return { body: page.answer(rows, toDomain, (row) => [String(row['domain'])]) }
  })

  on(operations.create, async (tx, { organization, about, body }) => {
    const domain = normalizeDomain(body.domain)
    if (domain === undefined)
      throw new ApiProblem('input_invalid', [{ path: 'domain', message: 'must be a domain, such as mercy.example' }])
    const challenge = randomBytes(32).toString('base64url')
    await runIn(tx, holdOrganization, [organization.id])
    const [row] = await runIn(tx, insert, [randomId('dom'), organization.id, domain, challenge, maxDomains])
    if (!row) throw await refusal(tx, organization.id, domain)
    await appendAudit(tx, { ...about, name: 'domain.added', outcome: 'success', details: { domain } })
    return { body: toDomain(row), location: `${path}/${String(row['id'])}` }
  })

  // DNS may take seconds, in which no transaction is held.
  onPrepared(operations.verify, async ({ params: { domainId }, organization }) => {
    const ids = [domainId, organization.id]
    const [claimed] = await transactFor(database.kysely, organization.id, (tx) => runIn(tx, find, ids))
    if (!claimed) throw new NotHere('domain', domainId)
    const [domain, challenge] = [String(claimed['domain']), String(claimed['challenge'])]
    if (claimed['verified_at'] === null) await assertRecord(domainRecords, domain, challenge)
    return async (tx, { about }) => {
      const [row] = await runIn(tx, verify, [...ids, challenge]).catch((error: unknown) => {
        throw isUniqueViolation(error) ? new ApiProblem('already_exists', [taken]) : error
      })
      if (row) {
        await appendAudit(tx, { ...about, name: 'domain.verified', outcome: 'success', details: { domain } })
        return { body: toDomain(row) }
      }
      const [standing] = await runIn(tx, find, ids)
      if (!standing) throw new NotHere('domain', domainId)
      return { body: toDomain(standing) }
    }
  })

  on(operations.remove, async (tx, { params: { domainId }, organization, about }) => {
    const [row] = await runIn(tx, remove, [domainId, organization.id])
    if (!row) throw new NotHere('domain', domainId)
    const details = { domain: String(row['domain']) }
    await appendAudit(tx, { ...about, name: 'domain.removed', outcome: 'success', details })
    return {}
  })
}

/** Whose the domain is, nobody elsewhere is told. */
export const addressElsewhere = {
  path: 'email',
  message:
    'is at a domain that another organisation has verified, which alone makes accounts for it; who has one there can be invited as a guest',
}

/** @throws ApiProblem for an address with which another organisation alone makes accounts */
export async function assertNotElsewhere(tx: Tx, organizationId: string, email: string): Promise<void> {
  if (await beyond(tx, organizationId, () => isAddressElsewhere(tx, organizationId, email)))
    throw new ApiProblem('input_invalid', [addressElsewhere])
}

const taken = { path: '', message: 'another organisation has verified this domain' }

async function refusal(tx: Tx, organizationId: string, domain: string): Promise<ApiProblem> {
  const rows = await runIn(tx, findByName, [organizationId, domain])
  return rows.length > 0
    ? new ApiProblem('already_exists', [{ path: 'domain', message: 'is claimed here already' }])
    : new ApiProblem('not_possible', [{ path: '', message: `an organisation has at most ${maxDomains} domains` }])
}

/** @throws ApiProblem that says what was looked for */
async function assertRecord(records: DomainRecords, domain: string, challenge: string): Promise<void> {
  const state = await records.look(domain, challenge)
  if (state === 'found') return
  const { name, value } = recordOf(domain, challenge)
  const message =
    state === 'missing'
      ? `DNS has no TXT record ${name} with the value ${value}; a new one may take a while to be seen`
      : `DNS gave no answer for ${name}; try again later`
  throw new ApiProblem('not_possible', [{ path: '', message }])
}

function toDomain(row: Row): z.output<typeof domainSchema> {
  const domain = String(row['domain'])
  const verifiedAt = row['verified_at'] as Date | null
  return {
    id: String(row['id']),
    domain,
    verifiedAt: verifiedAt?.toISOString() ?? null,
    createdAt: (row['created_at'] as Date).toISOString(),
    record: { type: 'TXT', ...recordOf(domain, String(row['challenge'])) },
  }
}
