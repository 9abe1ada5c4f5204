// What administrators do to somebody's access: switch it off and on, end it, and let it be begun anew.
import { z } from 'zod'
import { ApiProblem } from '../api/problems.ts'
import { appendAudit } from '../audit/audit.ts'
import { factorResetHours, factorResetState, openFactorReset } from '../credentials/factor-reset.ts'
import { restore } from '../credentials/failures.ts'
import type { Notices } from '../credentials/notices.ts'
import type { Throttle } from '../credentials/throttle.ts'
import { removeAllFactors } from '../credentials/totp.ts'
import { type Database, runIn, type Tx } from '../db/database.ts'
import { beyond, transactFor } from '../db/organization-transaction.ts'
import { enqueueForMemberships } from '../deliveries/webhooks.ts'
import { type EndingCause, endAccess, endSession } from '../sessions/ending.ts'
import { isLive } from '../sessions/live.ts'
import { type Call, NotHere } from './call.ts'
import type { Kernel } from './kernel.ts'
import { idParam, instant, listQuery, operation, pageOf } from './operation.ts'
import { assertDispensable, assertMayActOn } from './rules.ts'
import { countMail, mailResetLink } from './user-mail.ts'
import type { User } from './user-store.ts'
import { answerOf, group, requireUser, type UserParts, userParams, userSchema } from './users.ts'

const root = '/api/admin/users/:accountId'
const params = userParams
const answer = { status: 200, description: 'The person afterwards.', schema: userSchema } as const
const withEnding = z.strictObject({
  endSessions: z.boolean().default(false).meta({ description: 'also end every session and token now' }),
})

const sessionSchema = z
  .strictObject({
    id: z.string(),
    signedInAt: instant,
    lastActivityAt: instant,
    idleExpiresAt: instant,
    absoluteExpiresAt: instant,
    ip: z.string().nullable(),
    userAgent: z.string().nullable(),
  })
  .meta({ id: 'UserSession' })

export const operations = {
  disable: operation({
    id: 'disableUser',
    method: 'POST',
    path: `${root}/disable`,
    group,
    permission: 'user:disable',
    exclusive: true,
    versioned: 2,
    summary: 'Switch an account off',
    description:
      'Everything that it has open ends, and nothing of it works from the next request on, also where it is a guest. Not for the last org_admin of this organisation, nor for the last platform_admin.',
    params,
    answer,
    problems: ['last_administrator'],
  }),
  enable: operation({
    id: 'enableUser',
    method: 'POST',
    path: `${root}/enable`,
    group,
    permission: 'user:disable',
    versioned: 2,
    summary: 'Switch an account on again',
    description: 'What was ended stays ended.',
    params,
    answer,
  }),
  resetPassword: operation({
    id: 'resetUserPassword',
    method: 'POST',
    path: `${root}/reset-password`,
    group,
    permission: 'user:reset-password',
    stepUp: true,
    versioned: 2,
    summary: 'Mail a link to a new password',
    description:
      'Nothing changes until its owner uses it, unless endSessions says so. An address gets three such mails in 15 minutes, those counted that its owner asks for.',
    params,
    body: withEnding,
    answer: { status: 202, description: 'The mail is on its way.', schema: userSchema },
    problems: ['not_possible', 'throttled'],
  }),
  requirePasswordChange: operation({
    id: 'requireUserPasswordChange',
    method: 'POST',
    path: `${root}/require-password-change`,
    group,
    permission: 'user:reset-password',
    stepUp: true,
    versioned: 2,
    summary: 'Have the password changed at the next sign-in',
    description: 'The password still opens that sign-in, and only to choose another.',
    params,
    body: withEnding,
    answer,
    problems: ['not_possible'],
  }),
  resetFactors: operation({
    id: 'resetUserMfa',
    method: 'POST',
    path: `${root}/reset-mfa`,
    group,
    permission: 'user:reset-mfa',
    stepUp: true,
    versioned: 2,
    summary: 'Let a lost second factor be replaced',
    description: `Takes every second factor away and ends all access. For ${factorResetHours} hours the password alone lets its owner set up a new one; afterwards nobody gets in until this is done again. The owner is told by mail. Refused for somebody who has none and whom no reset is open for.`,
    params,
    answer,
    problems: ['not_possible'],
  }),
  endSessions: operation({
    id: 'endUserSessions',
    method: 'POST',
    path: `${root}/end-sessions`,
    group,
    permission: 'session:revoke',
    summary: 'End every session and token',
    description: 'The person may sign in again at once.',
    params,
    answer: {
      status: 200,
      description: 'What was ended.',
      schema: z.strictObject({ sessions: z.number().int(), tokens: z.number().int() }),
    },
  }),
  listSessions: operation({
    id: 'listUserSessions',
    method: 'GET',
    path: `${root}/sessions`,
    group,
    permission: 'session:read',
    pageKey: 1,
    summary: 'Live sessions of a person',
    description: 'Those that are signed in to this organisation. Their cookies are never shown.',
    params,
    query: listQuery({}),
    answer: { status: 200, description: 'A page of sessions.', schema: pageOf(sessionSchema) },
  }),
  endSession: operation({
    id: 'endUserSession',
    method: 'DELETE',
    path: `${root}/sessions/:sessionUid`,
    group,
    permission: 'session:revoke',
    summary: 'End one session',
    description: 'With every token that was issued in it.',
    params: z.strictObject({ accountId: idParam, sessionUid: idParam }),
    answer: { status: 204, description: 'It has ended.' },
  }),
} as const

export interface UserAccessParts extends UserParts {
  readonly database: Database
  readonly throttle: Pick<Throttle, 'take'>
  readonly notices: Notices
}

type AboutOne = Pick<Call, 'organization' | 'about' | 'caller' | 'params'>

export function addUserAccess({ on, onPrepared }: Kernel, parts: UserAccessParts): void {
  const { now, notices } = parts
  /** The person of a call, whom the caller may act on. */
  async function target(tx: Tx, call: AboutOne): Promise<User> {
    const user = await requireUser(tx, call)
    await assertMayActOn(tx, call.organization.id, call.caller, user.id)
    return user
  }

  on(operations.disable, async (tx, call) => {
    const user = await target(tx, call)
    if (await setDisabled(tx, call, user.id, true)) {
      await assertDispensable(tx, call.organization.id, user)
      await appendAudit(tx, {
        ...call.about,
        accountId: user.id,
        name: 'account.disabled',
        outcome: 'success',
        details: {},
      })
      await end(tx, call, user.id, 'disabled')
    }
    return answerOf(await requireUser(tx, call))
  })

  on(operations.enable, async (tx, call) => {
    const user = await target(tx, call)
    if (await setDisabled(tx, call, user.id, false)) {
      await appendAudit(tx, {
        ...call.about,
        accountId: user.id,
        name: 'account.enabled',
        outcome: 'success',
        details: {},
      })
      const event = { type: 'account.enabled', data: { accountId: user.id } } as const
      await beyond(tx, call.organization.id, () => enqueueForMemberships(tx, event))
    }
    return answerOf(await requireUser(tx, call))
  })

  onPrepared(operations.resetPassword, async (asked) => {
    const { id } = asked.organization
    // Outside the transaction: the embedded database has one connection, which the transaction holds.
    const organization = await parts.organizations.find(id)
    const takesPasswords = organization?.policy.loginMethods.includes('password') === true
    // On nobody's budget but that of somebody whom the caller may act on.
    const addressee = await transactFor(parts.database.kysely, id, (tx) => target(tx, asked))
    if (takesPasswords && !addressee.disabledAt) await countMail(parts.throttle, 'reset', addressee)
    return async (tx, call) => {
      const user = await target(tx, call)
      if (user.disabledAt) throw notPossible('the account is disabled')
      if (!takesPasswords) throw notPossible('the policy allows no passwords')
      if (factorResetState(user.factorResetUntil, now()) === 'open')
        throw notPossible('a lost second factor waits to be replaced, for which the password is all that is left')
      if (call.body.endSessions) await end(tx, call, user.id, 'ended_by_administrator')
      await mailResetLink(tx, parts, user, call.about)
      return answerOf(user)
    }
  })

  on(operations.requirePasswordChange, async (tx, call) => {
    const user = await target(tx, call)
    const [row] = await runIn(tx, mustChange, [user.id])
    if (!row) throw notPossible('the account has no password')
    const event = { ...call.about, accountId: user.id, outcome: 'success' as const }
    await appendAudit(tx, { ...event, name: 'password.change_required', details: {} })
    if (call.body.endSessions) await end(tx, call, user.id, 'ended_by_administrator')
    return answerOf(await requireUser(tx, call))
  })

  on(operations.resetFactors, async (tx, call) => {
    const user = await target(tx, call)
    // It would only take away: whoever needs no second factor would have to set one up within a day or be locked out. Who
    // was reset before, and let the time pass, has none either and waits for another reset.
    if (user.secondFactors === 0 && factorResetState(user.factorResetUntil, now()) === 'none')
      throw notPossible('has no second factor; nothing to reset')
    const { actor, organizationId, origin } = call.about
    const about = { accountId: user.id, organizationId, actor, origin }
    await removeAllFactors(tx, about, 'administrator')
    await restore(tx, user.id, 'totp', about)
    await restore(tx, user.id, 'backup_code', about)
    await openFactorReset(tx, user.id, new Date(now().getTime() + factorResetHours * 3_600_000))
    const details = { untilSeconds: factorResetHours * 3_600 }
    await appendAudit(tx, { ...call.about, accountId: user.id, name: 'factor.reset', outcome: 'success', details })
    await end(tx, call, user.id, 'factor_changed')
    // Not from where the administrator sits: the owner would take it for a stranger's place.
    await notices.send(tx, { ...user, organization: call.organization }, 'factor_removed', {})
    return answerOf(await requireUser(tx, call))
  })

  on(operations.endSessions, async (tx, call) => {
    const user = await target(tx, call)
    const { sessions, tokens } = await end(tx, call, user.id, 'ended_by_administrator')
    return { body: { sessions, tokens } }
  })
  addSessions(on, target)
}

function addSessions(on: Kernel['on'], target: (tx: Tx, call: AboutOne) => Promise<User>): void {
  on(operations.listSessions, async (tx, call) => {
    const user = await requireUser(tx, call)
    const { page, organization } = call
    const rows = await runIn(tx, listSessions, [user.id, organization.id, page.after?.[0] ?? null, page.limit + 1])
    const instantOf = (value: unknown) => (value instanceof Date ? value.toISOString() : '')
    const text = (value: unknown) => (value === null ? null : String(value))
    const toSession = (row: (typeof rows)[number]) => ({
      id: String(row['uid']),
      signedInAt: instantOf(row['signed_in_at']),
      lastActivityAt: instantOf(row['last_activity_at']),
      idleExpiresAt: instantOf(row['idle_expires_at']),
      absoluteExpiresAt: instantOf(row['absolute_expires_at']),
      ip: text(row['ip']),
      userAgent: text(row['user_agent']),
    })
    return { body: page.answer(rows, toSession, (row) => [String(row['uid'])]) }
  })

  on(operations.endSession, async (tx, call) => {
    const user = await target(tx, call)
    const { organizationId, actor, origin } = call.about
    const uid = call.params.sessionUid
    const here = await runIn(tx, isHere, [uid, user.id, organizationId])
    const ending = { uid, accountId: user.id, organizationId, actor, origin, cause: 'ended_by_administrator' as const }
    const ended = here.length === 1 && (await beyond(tx, organizationId, () => endSession(tx, ending)))
    if (!ended) throw new NotHere('session', uid)
    return {}
  })
}

const listSessions = `select uid, host(ip) as ip, user_agent, signed_in_at, last_activity_at, idle_expires_at, absolute_expires_at
    from mlpipes_auth.sessions s
    where account_id = $1 and organization_id = $2 and signed_in_at is not null and ${isLive} and ($3::text is null or uid > $3)
    order by uid limit $4`
const isHere = `select uid from mlpipes_auth.sessions s where uid = $1 and account_id = $2 and organization_id = $3 and ${isLive}`
const mustChange =
  'update mlpipes_auth.password_credentials set must_change = true where account_id = $1 returning account_id'
const disabled = `update mlpipes_auth.accounts set disabled_at = now(), updated_at = now()
    where id = $1 and organization_id = $2 and disabled_at is null returning id`
const enabled = `update mlpipes_auth.accounts set disabled_at = null, updated_at = now()
    where id = $1 and organization_id = $2 and disabled_at is not null returning id`

/** True when this changed it. */
async function setDisabled(tx: Tx, { organization }: AboutOne, accountId: string, off: boolean): Promise<boolean> {
  return (await runIn(tx, off ? disabled : enabled, [accountId, organization.id])).length === 1
}

/** Ends all access of an account, also where it is a guest: whoever manages it answers for it. */
function end(tx: Tx, { organization, about }: AboutOne, accountId: string, cause: EndingCause) {
  const { actor, organizationId, origin } = about
  return beyond(tx, organization.id, () => endAccess(tx, { accountId, organizationId, actor, origin, cause }))
}

function notPossible(message: string): ApiProblem {
  return new ApiProblem('not_possible', [{ path: '', message }])
}
