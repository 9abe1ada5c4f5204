// Sessions at the admin API: an organisation sees who is signed in for it, and ends that.
import { z } from 'zod'
import type { Database, Tx } from '../db/database.ts'
import { beyond } from '../db/organization-transaction.ts'
import { organizationPermissions } from '../organizations/permissions.ts'
import { endSession } from '../sessions/ending.ts'
import { endOrganizationSessions } from '../sessions/ending-all.ts'
import { requireAll } from './access.ts'
import { type Call, NotHere } from './call.ts'
import type { Kernel } from './kernel.ts'
import { idParam, instant, listQuery, operation, pageOf } from './operation.ts'
import { assertMayActOn } from './rules.ts'
import { type AdminSession, findSession, listSessions } from './session-store.ts'

const group = 'Sessions'
const params = z.strictObject({ sessionId: idParam })

const session = z
  .strictObject({
    id: z.string().meta({ description: 'names the session and opens nothing' }),
    account: z.strictObject({ id: z.string(), name: z.string(), email: z.string() }),
    home: z.boolean().meta({ description: 'false for a guest' }),
    begunHere: z
      .boolean()
      .meta({ description: 'false when it was begun for another organisation and used for this one' }),
    ip: z.string().nullable(),
    userAgent: z.string().nullable(),
    signedInAt: instant,
    lastActivityAt: instant,
    idleExpiresAt: instant.meta({ description: 'when it ends unless something is done in it' }),
    absoluteExpiresAt: instant.meta({ description: 'when it ends whatever is done in it' }),
    acr: z.string().nullable(),
    amr: z.array(z.string()),
    organizations: z.array(z.strictObject({ id: z.string(), slug: z.string(), name: z.string() })).meta({
      description: 'for which it was used; of others than the own one only the platform is told',
    }),
    apps: z
      .array(z.strictObject({ clientId: z.string(), name: z.string() }))
      .meta({ description: 'apps of the organisation that took part' }),
  })
  .meta({ id: 'LiveSession' })

export const operations = {
  list: operation({
    id: 'listLiveSessions',
    method: 'GET',
    path: '/api/admin/sessions',
    group,
    permission: 'session:read',
    pageKey: 2,
    summary: 'Who is signed in',
    description:
      'Live sessions that were used for the organisation, those of guests among them; the newest sign-in first.',
    query: listQuery({ accountId: idParam.optional(), clientId: idParam.optional() }),
    answer: { status: 200, description: 'A page of sessions.', schema: pageOf(session) },
  }),
  get: operation({
    id: 'getLiveSession',
    method: 'GET',
    path: '/api/admin/sessions/:sessionId',
    group,
    permission: 'session:read',
    summary: 'One live session',
    description: 'One that has ended is not there any more; what it was is in the audit log.',
    params,
    answer: { status: 200, description: 'The session.', schema: session },
  }),
  end: operation({
    id: 'endLiveSession',
    method: 'DELETE',
    path: '/api/admin/sessions/:sessionId',
    group,
    permission: 'session:revoke',
    summary: 'End a session',
    description: 'With every token that was issued in it, offline ones too, and word to the apps that took part.',
    params,
    answer: { status: 204, description: 'It has ended.' },
  }),
  endAll: operation({
    id: 'endAllSessions',
    method: 'POST',
    path: '/api/admin/sessions/end-all',
    group,
    permission: 'session:revoke',
    stepUp: true,
    summary: 'End every session of the organisation',
    description:
      'As after an incident: all that `GET /api/admin/sessions` lists, and whatever was issued in the organisation and outlived its session. The session in which this is asked goes on. Administrators are among them, so it is for whoever holds all permissions of the organisation.',
    answer: {
      status: 200,
      description: 'How many this request ended.',
      schema: z.strictObject({ sessions: z.number().int(), tokens: z.number().int() }).meta({ id: 'SessionsEnded' }),
    },
  }),
} as const

export interface SessionParts {
  readonly database: Pick<Database, 'kysely'>
}

/** The home organisation and others of a guest are nobody's business but the platform's. */
const seesOthers = ({ caller }: Pick<Call, 'caller'>) => caller.permissions.has('platform:organizations')

/** A guest's session is a row of where it was begun. That it was used here is said, and asked for, beside it. */
function wherever<T>(tx: Tx, { organization }: Pick<Call, 'organization'>, read: () => Promise<T>): Promise<T> {
  return beyond(tx, organization.id, read)
}

export function addSessions({ on, onPrepared }: Kernel, { database }: SessionParts): void {
  on(operations.list, async (tx, call) => {
    const { organization, query, page } = call
    const rows = await wherever(tx, call, () => listSessions(tx, organization.id, query, page, seesOthers(call)))
    return { body: page.answer(rows, toAnswer, ({ signedInMicros, uid }) => [signedInMicros, uid]) }
  })

  on(operations.get, async (tx, call) => {
    const { sessionId } = call.params
    const found = await wherever(tx, call, () => findSession(tx, call.organization.id, sessionId, seesOthers(call)))
    if (!found) throw new NotHere('session', sessionId)
    return { body: toAnswer(found) }
  })

  on(operations.end, async (tx, call) => {
    const { organization, params, about } = call
    const found = await wherever(tx, call, () => findSession(tx, organization.id, params.sessionId, false))
    if (!found) throw new NotHere('session', params.sessionId)
    const { uid, accountId } = found
    await assertMayActOn(tx, organization.id, call.caller, accountId)
    const { actor, origin } = about
    const by = { organizationId: organization.id, cause: 'ended_by_administrator', actor, origin } as const
    // It is ours to end; what goes with it may be in other organisations too, whose apps hear of it.
    const ended = await beyond(tx, organization.id, () => endSession(tx, { uid, accountId, ...by }))
    if (!ended) throw new NotHere('session', uid)
    return {}
  })

  // Many transactions before the one of the answer: each batch is over and done with by itself.
  onPrepared(operations.endAll, async ({ organization, caller, about }) => {
    // Administrators are among those who are signed out.
    requireAll(caller, new Set(organizationPermissions))
    const ended = await endOrganizationSessions(database, {
      organizationId: organization.id,
      exceptSessionUid: caller.sessionUid,
      actor: about.actor,
      origin: about.origin,
    })
    return async () => ({ body: { ...ended } })
  })
}

function toAnswer(row: AdminSession) {
  return {
    id: row.uid,
    account: { id: row.accountId, name: row.accountName, email: row.email },
    home: row.home,
    begunHere: row.begunHere,
    ip: row.ip ?? null,
    userAgent: row.userAgent ?? null,
    signedInAt: row.signedInAt.toISOString(),
    lastActivityAt: row.lastActivityAt.toISOString(),
    idleExpiresAt: row.idleExpiresAt.toISOString(),
    absoluteExpiresAt: row.absoluteExpiresAt.toISOString(),
    acr: row.acr ?? null,
    amr: [...row.amr],
    organizations: [...row.organizations],
    apps: [...row.apps],
  }
}
