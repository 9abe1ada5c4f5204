// Open sessions under a policy that got stricter. The limits that a session stores are what every read compares, so that a
// stricter policy acts on every replica; and since they are only ever lowered here, a looser one revives nothing. A session
// that was used for several organisations is held to each of them.
// The transaction of the change lowers those that are past the new limits or soon will be. The others have longer than that under
// either policy: that they are to be lowered too is written down in the same transaction, and housekeeping does it within
// seconds, in batches, however the policy changes meanwhile. What extends a session until then asks the policy of now.
import { setImmediate as turn } from 'node:timers/promises'
import { type Database, type Row, runIn, type Tx } from '../db/database.ts'
import { transact } from '../db/transaction.ts'
import type { Policy } from '../organizations/policy.ts'
import { sessionLimits } from './policy.ts'

/** Whose end under the new limits is nearer than this is lowered at once: ten times what housekeeping takes for 50,000. */
export const soonSeconds = 60
const batchSize = 1_000

const isOpen = 's.ended_at is null and s.signed_in_at is not null'
const exceeds = `(s.idle_seconds is null or s.idle_seconds > held.idle or s.absolute_seconds > held.absolute
        or s.idle_expires_at > s.last_activity_at + make_interval(secs => held.idle)
        or s.absolute_expires_at > s.signed_in_at + make_interval(secs => held.absolute))`
/** @param held a query of uid, idle and absolute: each session once */
const lower = (held: string) => `update mlpipes_auth.sessions s set
      idle_seconds = least(s.idle_seconds, held.idle), absolute_seconds = least(s.absolute_seconds, held.absolute),
      idle_expires_at = least(s.idle_expires_at, s.last_activity_at + make_interval(secs => held.idle),
        s.signed_in_at + make_interval(secs => held.absolute)),
      absolute_expires_at = least(s.absolute_expires_at, s.signed_in_at + make_interval(secs => held.absolute))
    from (${held}) as held where s.uid = held.uid and ${isOpen} and ${exceeds}`

// Of the organisation's own sessions its index has all that is asked here (migration 0011).
const endsSoon = `least(s.last_activity_at + make_interval(secs => $2::integer), s.signed_in_at + make_interval(secs => $3::integer))
      <= now() + interval '${soonSeconds} seconds'`
const lowerSoon = lower(`
      select s.uid, $2::integer as idle, $3::integer as absolute from mlpipes_auth.sessions s
        where s.organization_id = $1 and ${isOpen} and ${endsSoon}
      union
      select s.uid, $2::integer, $3::integer from mlpipes_auth.session_organizations o
        join mlpipes_auth.sessions s on s.uid = o.session_uid where o.organization_id = $1 and ${isOpen} and ${endsSoon}`)
// What an earlier change asked for is part of a later one that is as strict.
const remember = `with covered as (delete from mlpipes_auth.session_tightenings
      where organization_id = $1 and idle_seconds >= $2 and absolute_seconds >= $3)
    insert into mlpipes_auth.session_tightenings (organization_id, idle_seconds, absolute_seconds) values ($1, $2, $3)`

/** Holds the open sessions of an organisation to a policy that got stricter. Belongs into the transaction that changes it. */
export async function tightenSessions(tx: Tx, organizationId: string, policy: Policy): Promise<void> {
  const { idleSeconds, absoluteSeconds } = sessionLimits(policy)
  const values = [organizationId, idleSeconds, absoluteSeconds]
  await runIn(tx, remember, values)
  await runIn(tx, lowerSoon, values)
}

const lowerNew = lower(`select uid, min(idle) as idle, min(absolute) as absolute from (
        select t.uid, p.idle, p.absolute from unnest($1::text[], $2::integer[], $3::integer[]) as p (id, idle, absolute)
          join mlpipes_auth.sessions t on t.organization_id = p.id and t.ended_at is null
          where t.created_at > now() - make_interval(secs => $4::integer)
        union all
        select o.session_uid, p.idle, p.absolute from unnest($1::text[], $2::integer[], $3::integer[]) as p (id, idle, absolute)
          join mlpipes_auth.session_organizations o on o.organization_id = p.id
          join mlpipes_auth.sessions t on t.uid = o.session_uid and t.ended_at is null
          where t.created_at > now() - make_interval(secs => $4::integer)
      ) as each_one group by uid`)

/** Holds sessions that are younger than so many seconds to the policies of now. */
export async function holdNewSessions(
  tx: Tx,
  organizations: readonly { readonly id: string; readonly policy: Policy }[],
  newerThanSeconds: number,
): Promise<void> {
  const limits = organizations.map(({ policy }) => sessionLimits(policy))
  await runIn(tx, lowerNew, [
    organizations.map(({ id }) => id),
    limits.map((limit) => limit.idleSeconds),
    limits.map((limit) => limit.absoluteSeconds),
    newerThanSeconds,
  ])
}

// All of one organisation's, the oldest first.
const pending = `select organization_id, array_agg(id::text) as ids from mlpipes_auth.session_tightenings
    group by organization_id order by min(id) limit 1`
const lock = `select pg_try_advisory_xact_lock(hashtext('mlpipes_auth.session_tightening')) as mine`
// Walked from the oldest sign-in, so that a session which signs in anew meanwhile is met again and not passed by.
const own = `select s.uid, s.created_at, s.signed_in_at as at from mlpipes_auth.sessions s
      where s.organization_id = $1 and ${isOpen} and (s.signed_in_at, s.uid) > ($3::timestamptz, $4::text)
      order by s.signed_in_at, s.uid limit ${batchSize}`
const others = `select s.uid, s.created_at, timestamptz '-infinity' as at from mlpipes_auth.session_organizations o
        join mlpipes_auth.sessions s on s.uid = o.session_uid
      where o.organization_id = $1 and ${isOpen} and $3::timestamptz is not null and o.session_uid > $4::text
      order by o.session_uid limit ${batchSize}`
// $2 which tightenings; sessions that began after a change began under it. Locked in the order in which uses lock them.
const step = (page: string) => `with page as materialized (${page}),
    taken as materialized (select s.uid from page join mlpipes_auth.sessions s on s.uid = page.uid order by s.uid for no key update of s),
    lowered as (${lower(`select taken.uid, min(t.idle_seconds) as idle, min(t.absolute_seconds) as absolute
        from taken join page on page.uid = taken.uid
          join mlpipes_auth.session_tightenings t on t.id = any($2::bigint[]) and t.changed_at >= page.created_at
        group by taken.uid`)})
    select at::text as at, uid, (select count(*) from page)::integer as count from page order by page.at desc, page.uid desc limit 1`
const walks = [step(own), step(others)]

const isLeft = (sessions: string) => `exists (select from ${sessions}
      join mlpipes_auth.session_tightenings t on t.id = any($2::bigint[]) and t.changed_at >= s.created_at
      cross join lateral (select t.idle_seconds as idle, t.absolute_seconds as absolute) as held
      where ${isOpen} and ${exceeds}`
// Asked again, of everything at once: a session that went from one walk to the other while they went on is found here.
const finish = `delete from mlpipes_auth.session_tightenings where id = any($2::bigint[])
    and not ${isLeft('mlpipes_auth.sessions s')} and s.organization_id = $1)
    and not ${isLeft('mlpipes_auth.session_organizations o join mlpipes_auth.sessions s on s.uid = o.session_uid')} and o.organization_id = $1)
    returning id`

/**
 * Lowers what changes of policies left to be lowered, in batches, letting requests in between them. Whatever stops it, the
 * next one begins anew with what is written down.
 * @param goesOn asked before each batch
 */
export async function finishTightenings(database: Database, goesOn: () => boolean = () => true): Promise<void> {
  while (goesOn()) {
    const [row] = await database.run(pending, [])
    if (!row) return
    const given = [String(row['organization_id']), row['ids']]
    for (const walk of walks) if (!(await walkAll(database, walk, given, goesOn))) return
    if ((await database.run(finish, given)).length === 0) return
  }
}

/** @returns false when it was stopped, or another replica is at it */
async function walkAll(
  database: Database,
  walk: string,
  given: readonly unknown[],
  goesOn: () => boolean,
): Promise<boolean> {
  let last: Row | undefined = { at: '-infinity', uid: '' }
  while (last) {
    if (!goesOn()) return false
    const place: readonly unknown[] = [last['at'], last['uid']]
    const page = await transact(database.kysely, async (tx) => {
      const [answer] = await runIn(tx, lock, [])
      return answer?.['mine'] === true ? await runIn(tx, walk, [...given, ...place]) : undefined
    })
    if (!page) return false
    last = Number(page[0]?.['count']) === batchSize ? page[0] : undefined
    await turn()
  }
  return true
}
