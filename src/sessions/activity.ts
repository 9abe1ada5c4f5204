// How long a session has left, and what counts as its person still being there: an app that says so, and the use of a
// token that was issued in it. All by the database's clock.
import { appendAudit } from '../audit/audit.ts'
import type { AuditEvent } from '../audit/events.ts'
import { createBatcher } from '../db/batcher.ts'
import { type Database, type Row, runIn, type Tx } from '../db/database.ts'
import { transact, withOpenTransaction } from '../db/transaction.ts'
import type { Policy } from '../organizations/policy.ts'
import { begunFor, isLive } from './live.ts'
import { activityStepSeconds, isActivityDue, sessionLimits } from './policy.ts'
import { isExtendable, type StoredSession } from './sessions.ts'

export interface SecondsLeft {
  /** Whole seconds until the idle limit, or the absolute one if that comes first. */
  readonly idle: number
  readonly absolute: number
}

const secondsLeft = `floor(extract(epoch from least(idle_expires_at, absolute_expires_at) - now()))::integer as idle,
    floor(extract(epoch from absolute_expires_at - now()))::integer as absolute`
const look = `select ${secondsLeft} from mlpipes_auth.sessions s where uid = $1 and ${isLive}`
// A session past a limit is never brought back: the condition is the one that every read has.
const extend = `update mlpipes_auth.sessions s set last_activity_at = now(),
      idle_expires_at = least(now() + make_interval(secs => least($2::integer, idle_seconds)), absolute_expires_at)
    where uid = $1 and ${isLive} and ${isExtendable} returning ${secondsLeft}, uid, account_id, ${begunFor} as organization_id`

/** What a live session has left; undefined when it has ended. Reading it is no activity. */
export async function readSecondsLeft(database: Pick<Database, 'run'>, uid: string): Promise<SecondsLeft | undefined> {
  const [row] = await database.run(look, [uid])
  return row && toSecondsLeft(row)
}

/**
 * Begins the idle limit of a live session anew, within its absolute one, and writes that down. However short a time ago that
 * was done before: whoever presses a button beside a countdown is promised all of it.
 * @param idleSeconds what the policy of the moment says
 * @returns undefined when the session has ended, or an organisation that it was used for lets nobody extend it
 */
export async function extendIdleLimit(tx: Tx, uid: string, idleSeconds: number): Promise<SecondsLeft | undefined> {
  const [row] = await runIn(tx, extend, [uid, idleSeconds])
  if (!row) return undefined
  await appendAudit(tx, extendedEvent(row))
  return toSecondsLeft(row)
}

function toSecondsLeft(row: Row): SecondsLeft {
  return { idle: Number(row['idle']), absolute: Number(row['absolute']) }
}

// One row per session and step, however many requests say so at once: the condition is asked again under its lock.
const touch = `update mlpipes_auth.sessions s set last_activity_at = now(),
      idle_expires_at = least(now() + make_interval(secs => least(used.idle, s.idle_seconds)), s.absolute_expires_at)
    from (select uid, idle, step from unnest($1::text[], $2::integer[], $3::integer[]) as t (uid, idle, step) order by uid) as used
    where s.uid = used.uid and ${isLive} and s.last_activity_at <= now() - make_interval(secs => used.step) and ${isExtendable}
    returning s.uid, s.account_id, ${begunFor} as organization_id`

interface Use {
  readonly uid: string
  readonly idleSeconds: number
  readonly stepSeconds: number
}

export interface Activity {
  /**
   * Counts the use of a token as activity in its session. Costs nothing but a comparison until it is due.
   * @param session as it was read in this request
   */
  used(session: StoredSession, policy: Policy): Promise<void>
}

export function createActivity(database: Database): Activity {
  const touchBatched = createBatcher<Use, void>({
    maxBatch: 200,
    maxInFlight: 1,
    maxWaiting: 20_000,
    async run(uses) {
      await transact(database.kysely, (tx) => extendSessions(tx, uses))
      return uses.map(() => undefined)
    },
  })
  return {
    async used(session, policy) {
      if (!isActivityDue(session, policy, session.readAt)) return
      const { idleSeconds } = sessionLimits(policy)
      const use = { uid: session.uid, idleSeconds, stepSeconds: activityStepSeconds(policy, session) }
      await withOpenTransaction((tx) => (tx ? extendSessions(tx, [use]) : touchBatched(use)))
    },
  }
}

async function extendSessions(tx: Tx, uses: readonly Use[]): Promise<void> {
  const once = [...new Map(uses.map((use) => [use.uid, use])).values()]
  const rows = await runIn(tx, touch, [
    once.map((use) => use.uid),
    once.map((use) => use.idleSeconds),
    once.map((use) => use.stepSeconds),
  ])
  if (rows.length > 0) await appendAudit(tx, ...rows.map(extendedEvent))
}

function extendedEvent(row: Row): AuditEvent {
  const accountId = String(row['account_id'])
  return {
    name: 'session.extended',
    outcome: 'success',
    actor: { type: 'account', id: accountId },
    accountId,
    organizationId: row['organization_id'] === null ? undefined : String(row['organization_id']),
    sessionUid: String(row['uid']),
    origin: {},
    details: {},
  }
}
