// Guests: people at home in another organisation who have a place in this one. Their account is not ours to change; their
// place is.
import { z } from 'zod'
import { ApiProblem } from '../api/problems.ts'
import { appendAudit } from '../audit/audit.ts'
import { type Row, runIn, type Tx } from '../db/database.ts'
import { containing } from '../db/like.ts'
import { beyond } from '../db/organization-transaction.ts'
import { endMembershipAccess } from '../sessions/parting.ts'
import { requireAll } from './access.ts'
import { NotHere } from './call.ts'
import type { Kernel } from './kernel.ts'
import { instant, listQuery, operation, pageOf, search } from './operation.ts'
import { assertMayGive, assertStillAdministered, permittedBy } from './rules.ts'
import { setRoles } from './user-store.ts'
import { recordRoles, roleList, roleName, userParams } from './users.ts'

const group = 'Guests'
const root = '/api/admin/guests'

const guestSchema = z
  .strictObject({
    accountId: z.string(),
    email: z.string(),
    name: z.string(),
    roles: z.array(z.string()),
    disabled: z.boolean().meta({ description: 'whether their own organisation switched the account off' }),
    since: instant,
  })
  .meta({ id: 'Guest' })
const oneGuest = { status: 200, description: 'The guest.', schema: guestSchema } as const

export const operations = {
  list: operation({
    id: 'listGuests',
    method: 'GET',
    path: root,
    group,
    permission: 'user:read',
    pageKey: 1,
    summary: 'Guests of the organisation',
    description: 'In the order of their addresses. An invitation brings one in.',
    query: listQuery({ q: search.optional(), role: roleName.optional() }),
    answer: { status: 200, description: 'A page of guests.', schema: pageOf(guestSchema) },
  }),
  get: operation({
    id: 'getGuest',
    method: 'GET',
    path: `${root}/:accountId`,
    group,
    permission: 'user:read',
    versioned: 1,
    summary: 'One guest',
    description: 'With their place here, and nothing of any other.',
    params: userParams,
    answer: oneGuest,
  }),
  setRoles: operation({
    id: 'setGuestRoles',
    method: 'PUT',
    path: `${root}/:accountId/roles`,
    group,
    permission: 'membership:write',
    stepUp: true,
    exclusive: true,
    versioned: 1,
    summary: 'Give and take roles of a guest',
    description: 'The whole list, by the rules for people of one’s own.',
    params: userParams,
    body: z.strictObject({ roles: roleList }),
    answer: oneGuest,
    problems: ['last_administrator'],
  }),
  end: operation({
    id: 'endGuest',
    method: 'DELETE',
    path: `${root}/:accountId`,
    group,
    permission: 'membership:write',
    stepUp: true,
    exclusive: true,
    versioned: 1,
    summary: 'Let a guest go',
    description: 'Their sessions here end, and no token for this organisation works any more. Their account stays.',
    params: userParams,
    answer: { status: 204, description: 'They have no place here any more.' },
    problems: ['last_administrator'],
  }),
} as const

interface Guest {
  readonly accountId: string
  readonly email: string
  readonly emailNormalized: string
  readonly name: string
  readonly roles: readonly string[]
  readonly disabled: boolean
  readonly since: Date
  readonly version: number
}

const columns = `m.account_id, a.email, a.email_normalized, a.name, m.roles, a.disabled_at is not null as disabled,
    m.created_at, m.version`
const guests = `mlpipes_auth.memberships m join mlpipes_auth.accounts a on a.id = m.account_id
    where m.organization_id = $1 and not m.home`
const list = `select ${columns} from ${guests} and ($2::text is null or a.email_normalized > $2)
      and ($3::text is null or a.email_normalized like $3 escape '\\' or lower(a.name) like $3 escape '\\' or a.name like $6 escape '\\')
      and ($4::text is null or $4 = any(m.roles))
    order by a.email_normalized limit $5`
const find = `select ${columns} from ${guests} and m.account_id = $2`
const remove = `delete from mlpipes_auth.memberships
    where organization_id = $1 and account_id = $2 and not home and version = $3 returning account_id`

export function addGuests({ on }: Kernel, { now }: { now(): Date }): void {
  on(operations.list, async (tx, { organization, query, page }) => {
    const q = query.q === undefined ? null : containing(query.q.normalize('NFKC').toLowerCase())
    const asWritten = query.q === undefined ? null : containing(query.q)
    const values = [organization.id, page.after?.[0] ?? null, q, query.role ?? null, page.limit + 1, asWritten]
    const rows = (await runIn(tx, list, values)).map(toGuest)
    return { body: page.answer(rows, toAnswer, ({ emailNormalized }) => [emailNormalized]) }
  })

  on(operations.get, async (tx, { organization, params }) =>
    answerOf(await requireGuest(tx, organization.id, params.accountId)),
  )

  on(operations.setRoles, async (tx, call) => {
    const { organization, params, body, caller, expected } = call
    const before = await requireGuest(tx, organization.id, params.accountId)
    requireAll(caller, await permittedBy(tx, organization.id, before.roles))
    await assertMayGive(tx, organization.id, caller, body.roles, now())
    if (!(await setRoles(tx, organization.id, params.accountId, expected, body.roles)))
      throw new ApiProblem('version_stale')
    await recordRoles(tx, call, params.accountId, before.roles, body.roles)
    return answerOf(await requireGuest(tx, organization.id, params.accountId))
  })

  on(operations.end, async (tx, { organization, params, caller, about, expected }) => {
    const { accountId } = params
    const before = await requireGuest(tx, organization.id, accountId)
    requireAll(caller, await permittedBy(tx, organization.id, before.roles))
    if ((await runIn(tx, remove, [organization.id, accountId, ...expected])).length === 0)
      throw new ApiProblem('version_stale')
    await assertStillAdministered(tx, organization.id, accountId, before.roles)
    const details = { roles: [...before.roles] }
    await appendAudit(tx, { ...about, accountId, name: 'membership.ended', outcome: 'success', details })
    const { actor, origin, organizationId } = about
    await beyond(tx, organizationId, () => endMembershipAccess(tx, { accountId, organizationId, actor, origin }))
    return {}
  })
}

/** @throws NotHere */
async function requireGuest(tx: Tx, organizationId: string, accountId: string): Promise<Guest> {
  const [row] = await runIn(tx, find, [organizationId, accountId])
  if (!row) throw new NotHere('account', accountId)
  return toGuest(row)
}

function toGuest(row: Row): Guest {
  return {
    accountId: String(row['account_id']),
    email: String(row['email']),
    emailNormalized: String(row['email_normalized']),
    name: String(row['name']),
    roles: row['roles'] as string[],
    disabled: row['disabled'] === true,
    since: row['created_at'] as Date,
    version: Number(row['version']),
  }
}

const answerOf = (guest: Guest) => ({ body: toAnswer(guest), version: [guest.version] })

function toAnswer({ accountId, email, name, roles, disabled, since }: Guest): z.input<typeof guestSchema> {
  return { accountId, email, name, roles: [...roles], disabled, since: since.toISOString() }
}
