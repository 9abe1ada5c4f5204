// Sessions that nobody comes back to: past a limit they are dead at every read; here they are ended for good, with the audit
// row of it and word to the apps. One replica at a time, because what they write is one table's end.
import { auditInsertOf } from '../audit/store.ts'
import { type Database, runIn, type Tx } from '../db/database.ts'
import { transact } from '../db/transaction.ts'
import { tellClientsInBundles } from '../deliveries/logouts.ts'
import { inSteps } from '../steps.ts'
import { ringIfTold } from './ending.ts'
import { begunFor } from './live.ts'

/**
 * A WITH item, `logged`, over one before it named `parted`: uid, account_id, organization_id, begun_for, cause, and changed_by,
 * who changed the policy that ended it. The audit rows of sessions that nobody ended, in the logs that `endedEvents`
 * (ending.ts) says: written by the statement that ends them, as there may be fifty thousand. Where nobody signed in, nothing
 * began.
 * @param by in SQL, the organisation whose policy that is
 */
const logEndingsBy = (by: string) =>
  `logged as (${auditInsertOf(
    ['name', 'outcome', 'actor_type', 'actor_id', 'account_id', 'organization_id', 'session_uid', 'details'],
    `select e.name, 'success', coalesce(p.changed_by ->> 'type', 'system'), p.changed_by ->> 'id', p.account_id,
      e.organization_id, p.uid, e.details
    from parted p cross join lateral (
      select case when p.cause in ('idle', 'absolute') then 'session.expired' else 'session.ended' end as name,
        p.begun_for as organization_id, jsonb_build_object('reason', p.cause) as details
      union all
      select 'access.ended', other.id, jsonb_build_object('cause', p.cause, 'sessions', 1, 'tokens', 0)
        from (values (p.organization_id), (case when ${by} <> p.organization_id then ${by} end)) as other (id)
        where other.id <> p.begun_for
    ) as e
    where p.account_id is not null`,
  )})`
/** The same for a change of the policy of the organisation `$1`. */
export const logEndings = logEndingsBy('$1::text')

/** How many sessions one statement ends: what it costs by itself is a twentieth of what these do. */
export const batchSize = 500
/** Of the time that a batch takes: with it, people who sign in meanwhile notice little (docs/performance.md). */
export const restFactor = 0.3

const isOver = 'ended_at is null and least(idle_expires_at, absolute_expires_at) <= now()'
// Asked every other second by every replica, and nearly always in vain: one look at the index and no transaction.
const look = `select uid from mlpipes_auth.sessions where ${isOver} limit 1`
const lock = `select pg_try_advisory_xact_lock(hashtext('mlpipes_auth.session_expiry')) as mine`
const endOver = `with due as (
    select uid from mlpipes_auth.sessions where ${isOver}
    order by least(idle_expires_at, absolute_expires_at) limit $1::integer for update skip locked
  ), parted as (
    update mlpipes_auth.sessions s set ended_at = now(),
      end_reason = case when s.absolute_expires_at <= now() then 'absolute' else 'idle' end
    from due where s.uid = due.uid
    returning s.uid, s.account_id, s.organization_id, ${begunFor} as begun_for, s.payload, s.end_reason as cause,
      null::text as client_id, null::jsonb as changed_by
  ), ${tellClientsInBundles}, ${logEndingsBy('null::text')}
  select count(*)::integer as count, (select count(*) from told)::integer as told from parted`

/**
 * Ends all sessions that are past a limit, in batches, letting requests in between them.
 * @param goesOn asked before each batch
 * @returns how many this replica ended
 */
export async function endExpiredSessions(database: Database, goesOn: () => boolean = () => true): Promise<number> {
  let ended = 0
  if ((await database.run(look, [])).length === 0) return ended
  await inSteps({ restFactor, goesOn }, async () => {
    const batch = await transact(database.kysely, async (tx) => {
      const [answer] = await runIn(tx, lock, [])
      return answer?.['mine'] === true ? endBatch(tx) : 0
    })
    ended += batch
    return batch === batchSize
  })
  return ended
}

async function endBatch(tx: Tx): Promise<number> {
  const rows = await runIn(tx, endOver, [batchSize])
  ringIfTold(tx, rows)
  return Number(rows[0]?.['count'] ?? 0)
}
